# What Heed is built on. Nothing is fetched; each comes from the system, and what is missing is
# named together with the Debian package that holds it.

# Imported targets must be seen by a project that takes Heed in with add_subdirectory.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)

# heed_find_plainly(NAME header library): the same as a pkg-config module, without one, from the
# folders that CMake looks into (CMAKE_PREFIX_PATH). Versions are not known then.
function(heed_find_plainly name header library)
  find_path(${name}_HEADERS ${header})
  find_library(${name}_LIBRARY ${library})
  mark_as_advanced(${name}_HEADERS ${name}_LIBRARY)
  if(${name}_HEADERS AND ${name}_LIBRARY)
    add_library(PkgConfig::${name} INTERFACE IMPORTED GLOBAL)
    target_include_directories(PkgConfig::${name} SYSTEM INTERFACE "${${name}_HEADERS}")
    target_link_libraries(PkgConfig::${name} INTERFACE "${${name}_LIBRARY}")
    set(${name}_FOUND ON PARENT_SCOPE)
    set(${name}_VERSION "(${${name}_LIBRARY})" PARENT_SCOPE)
    set(${name}_LINK_LIBRARIES "${${name}_LIBRARY}" PARENT_SCOPE)
  endif()
endfunction()

# heed_require(NAME what package header library module...): a library by pkg-config, else plainly,
# or a stop that says what to do.
function(heed_require name what package header library)
  set(${name}_FOUND OFF)
  if(PKG_CONFIG_FOUND)
    pkg_check_modules(${name} QUIET IMPORTED_TARGET GLOBAL ${ARGN})
    # Two bounds on one module make pkg_check_modules name the version after the module as well.
    string(REGEX MATCH "^[a-z]+" module "${ARGV5}")
    set(${name}_VERSION "${${name}_VERSION}${${name}_${module}_VERSION}")
  endif()
  if(NOT ${name}_FOUND)
    heed_find_plainly(${name} ${header} ${library})
  endif()
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "${what} was not found (${ARGN}). Debian and Ubuntu: apt-get install "
                        "${package}")
  endif()
  set(${name}_LINK_LIBRARIES "${${name}_LINK_LIBRARIES}" PARENT_SCOPE)
  set(${name}_VERSION "${${name}_VERSION}" PARENT_SCOPE)
endfunction()

find_package(PkgConfig QUIET)
find_package(Threads REQUIRED)
set(heed_hwloc)
set(HWLOC_VERSION "left out (HEED_HWLOC=OFF)")
if(HEED_HWLOC)
  heed_require(HWLOC "hwloc (the machine's topology; -DHEED_HWLOC=OFF does without)" libhwloc-dev
               hwloc.h hwloc "hwloc>=2.4" "hwloc<3")
  set(heed_hwloc PkgConfig::HWLOC)
endif()

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
               libjansson-dev jansson.h jansson "jansson>=2.13")
endif()
if(HEED_BUILD_TESTS)
  heed_require(CMOCKA "CMocka (for the tests; -DHEED_BUILD_TESTS=OFF does without)" libcmocka-dev
               cmocka.h cmocka "cmocka>=1.1.5")
  include(CheckIncludeFile)
  check_include_file(simde/x86/avx512.h HEED_SIMDE)
endif()
