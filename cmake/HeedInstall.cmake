# What `cmake --install` puts where: the library, its headers, the heed command, and the two ways in
# which other builds find it (pkg-config, find_package).

include(CMakePackageConfigHelpers)

install(TARGETS heed EXPORT heed-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET heed_cuda)
  # Beside libheed, which looks there first. No package names it: Heed works without.
  install(TARGETS heed_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
foreach(transport IN ITEMS heed_mpi heed_nccl)
  if(TARGET ${transport})
    install(TARGETS ${transport} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  endif()
endforeach()
install(DIRECTORY include/heed DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# The command finds the library beside it, wherever the folder is moved to.
if(HEED_BUILD_TOOLS)
  if(BUILD_SHARED_LIBS)
    file(RELATIVE_PATH heed_bin_to_lib "${CMAKE_INSTALL_FULL_BINDIR}"
         "${CMAKE_INSTALL_FULL_LIBDIR}")
    set_target_properties(heed_cli PROPERTIES INSTALL_RPATH "$ORIGIN/${heed_bin_to_lib}")
  endif()
  install(TARGETS heed_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(DIRECTORY bench/shapes DESTINATION ${CMAKE_INSTALL_DATADIR}/heed)
endif()

# ---- find_package(heed) --------------------------------------------------------------------------

set(heed_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/heed)
configure_package_config_file(cmake/heed-config.cmake.in "${PROJECT_BINARY_DIR}/heed-config.cmake"
                              INSTALL_DESTINATION ${heed_package_dir}
                              NO_SET_AND_CHECK_MACRO)
# As the soname: until 1.0 only the same minor version will do.
set(heed_compatibility SameMajorVersion)
if(PROJECT_VERSION_MAJOR EQUAL 0)
  set(heed_compatibility SameMinorVersion)
endif()
write_basic_package_version_file("${PROJECT_BINARY_DIR}/heed-config-version.cmake"
                                 COMPATIBILITY ${heed_compatibility})
install(FILES "${PROJECT_BINARY_DIR}/heed-config.cmake"
              "${PROJECT_BINARY_DIR}/heed-config-version.cmake"
        DESTINATION ${heed_package_dir})
install(EXPORT heed-targets NAMESPACE heed:: DESTINATION ${heed_package_dir})

# ---- pkg-config ----------------------------------------------------------------------------------

# heed_pc_path(VARIABLE DIR base): DIR below the prefix as ${base}/DIR, an absolute one as it is.
function(heed_pc_path variable dir base)
  if(IS_ABSOLUTE "${dir}")
    set(${variable} "${dir}" PARENT_SCOPE)
  else()
    set(${variable} "\${${base}}/${dir}" PARENT_SCOPE)
  endif()
endfunction()

# The prefix is told from where heed.pc lies, so that --prefix and moving the folder both work.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(HEED_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
else()
  file(RELATIVE_PATH heed_pc_up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" heed_pc_up "${heed_pc_up}")
  set(HEED_PC_PREFIX "\${pcfiledir}/${heed_pc_up}")
endif()
heed_pc_path(HEED_PC_LIBDIR "${CMAKE_INSTALL_LIBDIR}" prefix)
heed_pc_path(HEED_PC_INCLUDEDIR "${CMAKE_INSTALL_INCLUDEDIR}" prefix)

# A shared libheed brings its own dependencies; with a static one they are the program's.
set(HEED_PC_REQUIRES)
set(HEED_PC_LIBS)
if(NOT BUILD_SHARED_LIBS)
  if(HEED_HWLOC)
    set(HEED_PC_REQUIRES "hwloc >= 2.4")
  endif()
  set(HEED_PC_LIBS " ${heed_team_flags} -lm")
  if(heed_cuda_linked)
    string(APPEND HEED_PC_LIBS " -L${CUDAToolkit_LIBRARY_DIR} -lcudart_static -lrt -ldl -lpthread")
  endif()
endif()
configure_file(cmake/heed.pc.in "${PROJECT_BINARY_DIR}/heed.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/heed.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
