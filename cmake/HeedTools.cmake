# What the heed command is told at build time: where its problem lists are, and which commit it is.

# From the command's own folder, so that the installed folder may be moved. The build folder has the
# same layout: bin/heed and a link to the lists.
file(RELATIVE_PATH heed_bin_to_shapes "${CMAKE_INSTALL_FULL_BINDIR}"
     "${CMAKE_INSTALL_FULL_DATADIR}/heed/shapes")
target_compile_definitions(heed_tools PRIVATE HEED_SHAPES_DIR="${heed_bin_to_shapes}")
cmake_path(ABSOLUTE_PATH heed_bin_to_shapes BASE_DIRECTORY "${PROJECT_BINARY_DIR}/bin" NORMALIZE
           OUTPUT_VARIABLE heed_shapes_link)
cmake_path(IS_PREFIX PROJECT_BINARY_DIR "${heed_shapes_link}" heed_shapes_inside)
if(heed_shapes_inside)
  cmake_path(GET heed_shapes_link PARENT_PATH heed_shapes_parent)
  file(MAKE_DIRECTORY "${heed_shapes_parent}")
  file(CREATE_LINK "${PROJECT_SOURCE_DIR}/bench/shapes" "${heed_shapes_link}" SYMBOLIC)
endif()

# build/release/heed, for people.
file(CREATE_LINK bin/heed "${PROJECT_BINARY_DIR}/heed" SYMBOLIC)

# The commit goes into benchmark results. Configured anew after each one; outside git it is unknown.
find_package(Git QUIET)
if(GIT_FOUND AND EXISTS "${PROJECT_SOURCE_DIR}/.git")
  execute_process(COMMAND "${GIT_EXECUTABLE}" rev-parse --short=12 HEAD
                  WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
                  OUTPUT_VARIABLE heed_commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET
                  RESULT_VARIABLE heed_git_failed)
  if(NOT heed_git_failed)
    set_property(SOURCE bench/report_json.c APPEND PROPERTY COMPILE_DEFINITIONS
                 HEED_COMMIT="${heed_commit}")
  endif()
  if(EXISTS "${PROJECT_SOURCE_DIR}/.git/logs/HEAD")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS .git/logs/HEAD)
  endif()
endif()
