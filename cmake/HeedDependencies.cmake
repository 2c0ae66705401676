# What Heed is built on. Nothing is fetched; each comes from the system, and what is missing is
# named together with the Debian package that holds it.

# Imported targets must be seen by a project that takes Heed in with add_subdirectory.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)

# heed_require(TARGET what package module...): a pkg-config module, or a stop that says what to do.
function(heed_require name what package)
  pkg_check_modules(${name} QUIET IMPORTED_TARGET GLOBAL ${ARGN})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${what} was not found (${ARGN}). Debian and Ubuntu: apt-get install "
                        "${package}")
  endif()
  set(${name}_LINK_LIBRARIES "${${name}_LINK_LIBRARIES}" PARENT_SCOPE)
  # Two bounds on one module make pkg_check_modules name the version after the module as well.
  string(REGEX MATCH "^[a-z]+" module "${ARGV3}")
  set(${name}_VERSION "${${name}_VERSION}${${name}_${module}_VERSION}" PARENT_SCOPE)
endfunction()

find_package(PkgConfig)
if(NOT PKG_CONFIG_FOUND)
  message(FATAL_ERROR "pkg-config was not found. Debian and Ubuntu: apt-get install pkg-config")
endif()

find_package(Threads REQUIRED)
heed_require(HWLOC "hwloc (the machine's topology)" libhwloc-dev "hwloc>=2.4" "hwloc<3")

# How kernels run in teams: the target to link, the flag that means the same outside CMake, and what
# src/cpu/parallel.h is told. Barriers are not in the standard's namespace.
set(heed_team_library Threads::Threads)
set(heed_team_flags -pthread)
set(heed_team_definitions HD_OPENMP=0 _POSIX_C_SOURCE=200809L)
if(HEED_OPENMP)
  find_package(OpenMP COMPONENTS C)
  if(NOT OpenMP_C_FOUND)
    message(FATAL_ERROR "OpenMP does not work with ${CMAKE_C_COMPILER}. Debian and Ubuntu, for "
                        "clang: apt-get install libomp-dev. Without it: -DHEED_OPENMP=OFF")
  endif()
  set(heed_team_library OpenMP::OpenMP_C)
  set(heed_team_flags "${OpenMP_C_FLAGS}")
  set(heed_team_definitions HD_OPENMP=1)
endif()
if(HEED_BUILD_TOOLS)
  heed_require(JANSSON "jansson (JSON, for the heed command; -DHEED_BUILD_TOOLS=OFF does without)"
               libjansson-dev "jansson>=2.13")
endif()
if(HEED_BUILD_TESTS)
  heed_require(CMOCKA "CMocka (for the tests; -DHEED_BUILD_TESTS=OFF does without)" libcmocka-dev
               "cmocka>=1.1.5")
  include(CheckIncludeFile)
  check_include_file(simde/x86/avx512.h HEED_SIMDE)
endif()
