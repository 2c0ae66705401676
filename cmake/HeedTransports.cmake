# What carries messages between processes: libheed-mpi.so over any MPI 3.1, libheed-nccl.so over
# NCCL.
# Each is a plugin of its own, built where what it needs is found; libheed links neither.

foreach(transport IN ITEMS MPI NCCL)
  set(HEED_${transport} AUTO CACHE STRING
      "The ${transport} transport: AUTO (where found), ON or OFF")
  set_property(CACHE HEED_${transport} PROPERTY STRINGS AUTO ON OFF)
  if(NOT HEED_${transport} MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "HEED_${transport}=${HEED_${transport}} is unknown: it takes AUTO, ON, OFF")
  endif()
  string(TOLOWER ${transport} lower)
  set(heed_${lower}_missing "")
  if(HEED_${transport} STREQUAL "OFF")
    set(heed_${lower}_missing "HEED_${transport}=OFF")
  elseif(HEED_SANITIZE)
    set(heed_${lower}_missing "sanitizers")
  elseif(NOT BUILD_SHARED_LIBS)
    set(heed_${lower}_missing "a static libheed")
  elseif(CMAKE_CROSSCOMPILING AND HEED_${transport} STREQUAL "AUTO")
    set(heed_${lower}_missing "cross-compiling")
  endif()
endforeach()

# heed_transport(NAME target...): the plugin libheed-NAME.so of src/NAME/*.c.
function(heed_transport name)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${name}/*.c")
  add_library(heed_${name} MODULE ${sources})
  target_include_directories(heed_${name} PRIVATE include src/common)
  target_link_libraries(heed_${name} PRIVATE ${ARGN} Threads::Threads)
  set(map "${PROJECT_SOURCE_DIR}/cmake/transport.map")
  target_link_options(heed_${name} PRIVATE "LINKER:--version-script=${map}")
  set_target_properties(heed_${name} PROPERTIES OUTPUT_NAME heed-${name} C_VISIBILITY_PRESET hidden
                                                LINK_DEPENDS "${map}")
endfunction()

# ---- MPI -----------------------------------------------------------------------------------------

if(NOT heed_mpi_missing)
  find_package(MPI 3.1 QUIET COMPONENTS C)
  if(MPI_C_FOUND)
    heed_transport(mpi MPI::MPI_C)
    set(heed_mpi_state "MPI ${MPI_C_VERSION}")
  else()
    set(heed_mpi_missing "no MPI 3.1 was found (Debian and Ubuntu: libopenmpi-dev openmpi-bin)")
  endif()
endif()

# ---- NCCL ----------------------------------------------------------------------------------------

if(NOT heed_nccl_missing)
  if(NOT CUDAToolkit_FOUND)
    find_package(CUDAToolkit QUIET)
  endif()
  find_path(HEED_NCCL_HEADERS nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(HEED_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
  mark_as_advanced(HEED_NCCL_HEADERS HEED_NCCL_LIBRARY)
  if(NOT TARGET CUDA::cudart)
    set(heed_nccl_missing "no CUDA runtime was found")
  elseif(HEED_NCCL_HEADERS AND HEED_NCCL_LIBRARY)
    heed_transport(nccl ${HEED_NCCL_LIBRARY} CUDA::cudart)
    target_include_directories(heed_nccl SYSTEM PRIVATE ${HEED_NCCL_HEADERS})
    set(heed_nccl_state "${HEED_NCCL_LIBRARY}")
  else()
    set(heed_nccl_missing "no nccl.h with a libnccl was found")
  endif()
endif()

foreach(transport IN ITEMS MPI NCCL)
  string(TOLOWER ${transport} lower)
  if(heed_${lower}_missing)
    if(HEED_${transport} STREQUAL "ON")
      message(FATAL_ERROR "HEED_${transport}=ON, but it cannot be built: ${heed_${lower}_missing}")
    endif()
    set(heed_${lower}_state "left out: ${heed_${lower}_missing}")
  endif()
endforeach()
