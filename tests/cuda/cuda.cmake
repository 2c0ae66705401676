# Tests of the backend that need no GPU, included by tests/CMakeLists.txt.

# ---- fake plugins, each in a folder of its own under the default name ----------------------------

set(heed_fakes "${CMAKE_CURRENT_BINARY_DIR}/plugins")
function(heed_fake_plugin name)
  add_library(heed_fake_${name} MODULE cuda/plugin_fake.c)
  target_include_directories(heed_fake_${name} PRIVATE "${heed_include}"
                                                       "${PROJECT_SOURCE_DIR}/src/common")
  target_compile_definitions(heed_fake_${name} PRIVATE ${ARGN})
  set_target_properties(heed_fake_${name} PROPERTIES
    OUTPUT_NAME heed-cuda LIBRARY_OUTPUT_DIRECTORY "${heed_fakes}/${name}")
  add_dependencies(test_plugin heed_fake_${name})
endfunction()
heed_fake_plugin(good)
heed_fake_plugin(abi FAKE_ABI=4711)
heed_fake_plugin(size FAKE_SIZE=8)
heed_fake_plugin(version FAKE_VERSION="0.0.7")
heed_fake_plugin(enter FAKE_ENTER=heed_plugin_v0)
target_compile_definitions(test_plugin PRIVATE HEED_FAKE_PLUGINS="${heed_fakes}")

# ---- what the files need and hold ----------------------------------------------------------------

set(heed_files sh "${CMAKE_CURRENT_SOURCE_DIR}/cuda/files")
set(heed_cuda_files "$<TARGET_FILE:heed_cli>")
if(BUILD_SHARED_LIBS)
  list(APPEND heed_cuda_files "$<TARGET_FILE:heed>")
  if(NOT HEED_SANITIZE)
    heed_test(cuda.beside cuda ${heed_files} beside "$<TARGET_FILE:heed_cli>"
              "$<TARGET_SONAME_FILE:heed>" "$<TARGET_FILE:heed_fake_good>")
  endif()
endif()
if(TARGET heed_cuda)
  list(APPEND heed_cuda_files "$<TARGET_FILE:heed_cuda>")
  heed_test(cuda.exports cuda ${heed_files} exports "${CMAKE_NM}" "$<TARGET_FILE:heed_cuda>")
endif()
# Without a toolkit there is no backend, without a driver no card: both are sentences.
set(heed_cuda_reason "the CUDA backend is not installed: there is no libheed-cuda.so in /")
if(heed_cuda_built)
  set(heed_cuda_reason "no NVIDIA driver is installed|the NVIDIA driver |CUDA could not|cuda:")
endif()
heed_test(cuda.info cuda ${heed_files} info "$<TARGET_FILE:heed_cli>" "(${heed_cuda_reason})")
heed_test(cuda.needed cuda ${heed_files} needed "${CMAKE_READELF}" ${heed_cuda_files})

# ---- a cuBLAS of the tests own, under the name that src/cuda/cublas.c looks for ----------------

add_library(heed_fake_cublas SHARED cuda/fake_cublas.c)
target_include_directories(heed_fake_cublas PRIVATE "${heed_include}")
set_target_properties(heed_fake_cublas PROPERTIES
  OUTPUT_NAME cublas SOVERSION 13 C_VISIBILITY_PRESET hidden
  LIBRARY_OUTPUT_DIRECTORY "${heed_fakes}/cublas")

# ---- the backend's host side on a runtime of the tests' own --------------------------------------

if(heed_cuda_built)
  # The real host side, a fake runtime below it and a fake kernel above: test_backend calls it
  # function by function, test_device runs whole plans, and as a plugin the commands use it.
  add_library(heed_fake_machine OBJECT cuda/fake_runtime.c cuda/fake_kernels.c)
  target_include_directories(heed_fake_machine PRIVATE
    "${heed_include}" "${PROJECT_SOURCE_DIR}/src/common" "${PROJECT_SOURCE_DIR}/src/cuda")
  target_include_directories(heed_fake_machine SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(heed_fake_machine PRIVATE ${heed_cuda_definitions})
  set_target_properties(heed_fake_machine PROPERTIES POSITION_INDEPENDENT_CODE ON
                                                     C_VISIBILITY_PRESET hidden)
  set(heed_fake_machine_objects $<TARGET_OBJECTS:heed_cuda_objects>
                                $<TARGET_OBJECTS:heed_fake_machine>)

  add_library(heed_fake_cuda MODULE "${PROJECT_SOURCE_DIR}/src/cuda/entry.c"
                                    ${heed_fake_machine_objects})
  target_include_directories(heed_fake_cuda PRIVATE "${heed_include}")
  target_link_libraries(heed_fake_cuda PRIVATE m ${CMAKE_DL_LIBS} Threads::Threads)
  target_link_options(heed_fake_cuda PRIVATE LINKER:--no-undefined)
  set_target_properties(heed_fake_cuda PROPERTIES
    OUTPUT_NAME heed-cuda LIBRARY_OUTPUT_DIRECTORY "${heed_fakes}/machine"
    C_VISIBILITY_PRESET hidden)

  foreach(name IN ITEMS backend cublas device linear)
    add_executable(test_cuda_${name} cuda/test_${name}.c)
    target_include_directories(test_cuda_${name} PRIVATE "${PROJECT_SOURCE_DIR}/src/cuda")
    target_include_directories(test_cuda_${name} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    target_compile_definitions(test_cuda_${name} PRIVATE
      HEED_FAKE_CUDA="$<TARGET_FILE:heed_fake_cuda>"
      HEED_FAKE_CUBLAS="$<TARGET_FILE:heed_fake_cublas>")
    target_link_libraries(test_cuda_${name} PRIVATE heed_kit heed_static PkgConfig::CMOCKA m
                                                    ${CMAKE_DL_LIBS})
    add_dependencies(test_cuda_${name} heed_fake_cuda heed_fake_cublas)
    heed_test(cuda.${name} cuda test_cuda_${name})
  endforeach()
  foreach(name IN ITEMS backend cublas)
    target_sources(test_cuda_${name} PRIVATE ${heed_fake_machine_objects})
  endforeach()
  # The fake cuBLAS asks it to open device memory.
  set_target_properties(test_cuda_cublas test_cuda_linear PROPERTIES ENABLE_EXPORTS ON)
  heed_test(cuda.linear.missing cuda test_cuda_linear missing)

  # The commands on the fake card. It casts nothing.
  set(heed_fake_golden "${CMAKE_CURRENT_SOURCE_DIR}/data/attention/dense_f32.safetensors")
  heed_test(cuda.check cuda heed-check --device cuda --op attention --impl "*_simt"
            --count 20 --seed 1)
  heed_test(cuda.bench cuda heed_cli bench attention --device cuda --impl "auto,cuda:*_simt"
            --seconds 0 --prob "attention sq=48 d=32 hq=2 causal=1" -o json)
  heed_test(cuda.run cuda heed_cli run attention --device cuda --ignore-extra --tolerance 1e-5
            --input "${heed_fake_golden}" --golden "${heed_fake_golden}")
  set_tests_properties(cuda.check cuda.bench cuda.run PROPERTIES
    ENVIRONMENT "HEED_PLUGIN_PATH=$<TARGET_FILE:heed_fake_cuda>")
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_FOUND AND BUILD_SHARED_LIBS)
    heed_test(cuda.peers cuda ${Python3_EXECUTABLE}
              "${CMAKE_CURRENT_SOURCE_DIR}/gpu/test_gpu_peers.py" "${PROJECT_SOURCE_DIR}"
              "$<TARGET_FILE:heed>" "${CMAKE_CURRENT_BINARY_DIR}")
    set_tests_properties(cuda.peers PROPERTIES
      ENVIRONMENT "HEED_PLUGIN_PATH=$<TARGET_FILE:heed_fake_cuda>;PYTHONDONTWRITEBYTECODE=1")
  endif()
  set_tests_properties(cuda.bench PROPERTIES PASS_REGULAR_EXPRESSION "\"device\": \"cuda:0\"")
  set_tests_properties(cuda.run PROPERTIES PASS_REGULAR_EXPRESSION "layout=bshd: cuda:")
endif()

# ---- what runs on a machine with a card ----------------------------------------------------------

heed_test(cuda.gpu_sh cuda sh "${PROJECT_SOURCE_DIR}/bench/gpu.sh" --dry-run
          --build "${CMAKE_CURRENT_BINARY_DIR}/gpu" --output "${CMAKE_CURRENT_BINARY_DIR}/gpu")
set(heed_gpu_sh "heed-check --device cuda:0" gpu_peers.py HEED_CUDA_TUNE=ON
                "heed-check.*flash_sm90_tune" gpu_peers.py /tune/libheed.so -- --tune)
list(JOIN heed_gpu_sh ".*" heed_gpu_sh)
set_tests_properties(cuda.gpu_sh PROPERTIES PASS_REGULAR_EXPRESSION "${heed_gpu_sh}")

# ---- what the compiler made of the kernels -------------------------------------------------------

# Figures of the machine code against bench/sass/expected.json; warnings and spills of all
# architectures. Disassemblers are found on PATH, in the toolkit, or through $HEED_NVDISASM.
find_package(Python3 3.8 QUIET COMPONENTS Interpreter)
set(heed_sass "${Python3_EXECUTABLE}" -B "${PROJECT_SOURCE_DIR}/bench/sass/report"
              --build "${PROJECT_BINARY_DIR}")
if(NOT Python3_Interpreter_FOUND)
  set(heed_sass_state "left out: no Python 3.8 or later")
else()
  heed_test(cuda.sass.tests check "${Python3_EXECUTABLE}" -B
            "${PROJECT_SOURCE_DIR}/bench/sass/test_sass.py")
  execute_process(COMMAND ${heed_sass} --tools RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
  if(NOT heed_cuda_built)
    set(heed_sass_state "left out: there is no CUDA backend")
  elseif(failed)
    set(heed_sass_state "warnings and spills only: no nvdisasm and cuobjdump (HEED_NVDISASM)")
    heed_test(cuda.ptxas check ${heed_sass} --logs)
  else()
    set(heed_sass_state "bench/sass/report --check")
    heed_test(cuda.sass check ${heed_sass} --check)
    if(DEFINED ENV{HEED_NVDISASM})
      set_property(TEST cuda.sass PROPERTY ENVIRONMENT "HEED_NVDISASM=$ENV{HEED_NVDISASM}")
    endif()
  endif()
endif()
