# The CUDA backend: whether it is built, and how. With a shared libheed it is the plugin
# libheed-cuda.so, which libheed loads when a context is made; a static libheed holds it.
#
# nvcc is called by hand, one command a kernel file for all architectures: CMake's own CUDA support
# would pass it the C compiler's flags and stop where nvcc does not work.

set(HEED_CUDA AUTO CACHE STRING "The CUDA backend: AUTO (where a toolkit is found), ON or OFF")
set_property(CACHE HEED_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT HEED_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "HEED_CUDA=${HEED_CUDA} is unknown: it takes AUTO, ON, OFF")
endif()

# Real code for these, and PTX of the first, which every other card from there on compiles for
# itself when it is loaded.
set(HEED_CUDA_ARCHITECTURES 80 86 89 90a 100 120 CACHE STRING "Architectures of the CUDA backend")
set(heed_cuda_oldest 12.4)

# Variants of kernels, each an implementation of its own, for a tuning run (bench/gpu.sh). They take
# minutes to compile, and a library that is used has none of them.
option(HEED_CUDA_TUNE "Also the variants of cuda:flash_sm90, for bench/gpu.sh --only tune" OFF)
set(heed_cuda_definitions) # of what reads impls.def
if(HEED_CUDA_TUNE)
  set(heed_cuda_definitions HD_CUDA_TUNE=1)
endif()

# heed_cuda_kernel_files(VARIABLE): the kernels' files.
function(heed_cuda_kernel_files variable)
  file(GLOB kernels CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cuda/*.cu")
  if(NOT HEED_CUDA_TUNE)
    list(FILTER kernels EXCLUDE REGEX "_tune[^/]*\\.cu$")
  endif()
  set(${variable} "${kernels}" PARENT_SCOPE)
endfunction()

# heed_cuda_try(VARIABLE): why nvcc cannot be used, "" where it can. A file is compiled for every
# architecture, for that shows a host compiler or an architecture that this nvcc does not know.
function(heed_cuda_try variable)
  set(file "${PROJECT_BINARY_DIR}/cuda/try.cu")
  file(WRITE "${file}" "static __global__ void kernel(int *at) { *at = 1; }\n"
                       "void *name(void) { return (void *)kernel; }\n")
  execute_process(COMMAND "${CUDAToolkit_NVCC_EXECUTABLE}" ${heed_cuda_flags} -c "${file}"
                          -o "${file}.o"
                  RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
  set(${variable} "" PARENT_SCOPE)
  if(failed)
    string(REGEX REPLACE "[ \n]+" " " output "${output}")
    set(${variable} "nvcc does not work: ${output}" PARENT_SCOPE)
  endif()
endfunction()

# heed_cuda_find_runtime(): CUDA::cudart_static where CMake's own search does not find it, as in
# toolkits that come as Python packages.
function(heed_cuda_find_runtime)
  if(TARGET CUDA::cudart_static)
    return()
  endif()
  cmake_path(GET CUDAToolkit_NVCC_EXECUTABLE PARENT_PATH folder)
  find_library(HEED_CUDART_STATIC cudart_static
               HINTS "${folder}/.." "${folder}/../targets/x86_64-linux" PATH_SUFFIXES lib64 lib)
  mark_as_advanced(HEED_CUDART_STATIC)
  if(HEED_CUDART_STATIC)
    find_package(Threads REQUIRED)
    add_library(CUDA::cudart_static STATIC IMPORTED GLOBAL)
    set_target_properties(CUDA::cudart_static PROPERTIES IMPORTED_LOCATION "${HEED_CUDART_STATIC}")
    target_link_libraries(CUDA::cudart_static INTERFACE Threads::Threads ${CMAKE_DL_LIBS} rt)
  endif()
endfunction()

# heed_cuda_find(): sets heed_cuda_missing to why the backend is left out, "" where it is built.
macro(heed_cuda_find)
  set(heed_cuda_missing "")
  if(HEED_CUDA STREQUAL "OFF")
    set(heed_cuda_missing "HEED_CUDA=OFF")
  elseif(HEED_SANITIZE)
    set(heed_cuda_missing "sanitizers")
  else()
    find_package(CUDAToolkit QUIET)
    if(NOT CUDAToolkit_FOUND OR NOT CUDAToolkit_NVCC_EXECUTABLE)
      set(heed_cuda_missing "no CUDA toolkit was found")
    elseif(CUDAToolkit_VERSION VERSION_LESS heed_cuda_oldest)
      set(heed_cuda_missing "CUDA ${CUDAToolkit_VERSION} is older than ${heed_cuda_oldest}")
    else()
      heed_cuda_find_runtime()
      if(NOT TARGET CUDA::cudart_static)
        set(heed_cuda_missing "the toolkit has no libcudart_static.a")
      endif()
    endif()
  endif()
endmacro()

heed_cuda_find()

# ---- flags ---------------------------------------------------------------------------------------

if(NOT heed_cuda_missing)
  # CUDA 12.4 does not know the newest architectures; a toolkit builds those that it lists. 90a, the
  # features of sm_90 alone, is not listed by itself.
  execute_process(COMMAND "${CUDAToolkit_NVCC_EXECUTABLE}" --list-gpu-code
                  OUTPUT_VARIABLE heed_cuda_known ERROR_QUIET)
  string(REGEX MATCHALL "sm_[0-9]+" heed_cuda_known "${heed_cuda_known}")
  set(heed_cuda_codes)
  foreach(architecture IN LISTS HEED_CUDA_ARCHITECTURES)
    string(REGEX REPLACE "a$" "" number "${architecture}")
    if("sm_${number}" IN_LIST heed_cuda_known)
      list(APPEND heed_cuda_codes -gencode=arch=compute_${architecture},code=sm_${architecture})
      list(APPEND heed_cuda_codenames sm_${architecture})
      list(APPEND heed_cuda_numbers ${number})
    endif()
  endforeach()
  if(NOT heed_cuda_codes)
    set(heed_cuda_missing "nvcc knows none of the architectures ${HEED_CUDA_ARCHITECTURES}")
  endif()
endif()
if(NOT heed_cuda_missing)
  list(GET heed_cuda_numbers 0 heed_cuda_ptx)
  list(APPEND heed_cuda_codes -gencode=arch=compute_${heed_cuda_ptx},code=compute_${heed_cuda_ptx})
  list(JOIN heed_cuda_codenames " " heed_cuda_codenames)

  # No runtime of C++ may be needed: the objects are linked by a C compiler.
  set(heed_cuda_host -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti -fno-threadsafe-statics
                     -Wall -Wextra -Wno-missing-field-initializers)
  if(HEED_WERROR)
    list(APPEND heed_cuda_host -Werror)
  endif()
  list(JOIN heed_cuda_host "," heed_cuda_host)
  set(heed_cuda_flags -std=c++17 -O3 ${heed_cuda_codes} -Xcompiler=${heed_cuda_host}
                      "-I${PROJECT_SOURCE_DIR}/include")
  if(HEED_WERROR)
    list(APPEND heed_cuda_flags -Werror=all-warnings)
  endif()

  # Asked again only where the question is another.
  set(heed_cuda_question "${CUDAToolkit_NVCC_EXECUTABLE};${CUDAToolkit_VERSION};${heed_cuda_flags}")
  if(NOT HEED_CUDA_TRIED STREQUAL heed_cuda_question)
    heed_cuda_try(heed_cuda_missing)
    if(NOT heed_cuda_missing)
      set(HEED_CUDA_TRIED "${heed_cuda_question}" CACHE INTERNAL "nvcc was seen to work")
    endif()
  endif()
endif()

if(heed_cuda_missing AND HEED_CUDA STREQUAL "ON")
  message(FATAL_ERROR "HEED_CUDA=ON, but the CUDA backend cannot be built: ${heed_cuda_missing}")
endif()
set(heed_cuda_state "CUDA ${CUDAToolkit_VERSION}, ${heed_cuda_codenames}, PTX ${heed_cuda_ptx}")
if(heed_cuda_missing)
  set(heed_cuda_state "left out: ${heed_cuda_missing}")
endif()

# ---- objects -------------------------------------------------------------------------------------

# heed_cuda_objects holds the host's side; the kernels' objects are in heed_cuda_kernels, to be
# added as sources. heed_cuda_linked: they are part of libheed.
set(heed_cuda_built OFF)
set(heed_cuda_linked OFF)
set(heed_cuda_kernels)
if(NOT heed_cuda_missing)
  set(heed_cuda_built ON)
  if(NOT BUILD_SHARED_LIBS)
    set(heed_cuda_linked ON)
  endif()
  file(MAKE_DIRECTORY "${PROJECT_BINARY_DIR}/cuda")
  heed_cuda_kernel_files(kernels)
  foreach(kernel IN LISTS kernels)
    get_filename_component(name "${kernel}" NAME)
    set(object "${PROJECT_BINARY_DIR}/cuda/${name}.o")
    # What ptxas says is kept in X.cu.log, for bench/sass/report.
    add_custom_command(OUTPUT "${object}"
                       COMMAND sh "${PROJECT_SOURCE_DIR}/cmake/nvcc-log"
                               "${PROJECT_BINARY_DIR}/cuda/${name}.log"
                               "${CUDAToolkit_NVCC_EXECUTABLE}" ${heed_cuda_flags} -Xptxas=-v -MD
                               -MF "${object}.d" -c "${kernel}" -o "${object}"
                       DEPENDS "${kernel}" cmake/nvcc-log DEPFILE "${object}.d" VERBATIM
                       COMMENT "Building CUDA object cuda/${name}.o")
    set_source_files_properties("${object}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
    list(APPEND heed_cuda_kernels "${object}")
  endforeach()
  file(GLOB heed_cuda_sources CONFIGURE_DEPENDS src/cuda/*.c)
  list(REMOVE_ITEM heed_cuda_sources "${PROJECT_SOURCE_DIR}/src/cuda/entry.c")
  add_library(heed_cuda_objects OBJECT ${heed_cuda_sources})
  target_include_directories(heed_cuda_objects PRIVATE include)
  target_include_directories(heed_cuda_objects SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(heed_cuda_objects PRIVATE ${heed_cuda_definitions}
    HD_CUDA_BUILD="CUDA ${CUDAToolkit_VERSION}, ${heed_cuda_codenames}")
  set_target_properties(heed_cuda_objects PROPERTIES POSITION_INDEPENDENT_CODE ON
                                                     C_VISIBILITY_PRESET hidden)
endif()
