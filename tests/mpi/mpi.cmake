# Ranks as processes, included by tests/CMakeLists.txt: what needs mpirun, left out by name where
# MPI is not.

if(NOT TARGET heed_mpi)
  set(heed_mpi_test_state "left out: ${heed_mpi_missing}")
elseif(NOT MPIEXEC_EXECUTABLE)
  set(heed_mpi_test_state "left out: no mpirun")
else()
  set(heed_mpi_test_state "1, 2, 3 and 4 ranks under ${MPIEXEC_EXECUTABLE}")
  add_executable(mpi_ranks mpi/ranks.c)
  target_link_libraries(mpi_ranks PRIVATE heed_kit heed::heed m)
  add_dependencies(mpi_ranks heed_mpi)
  # The transport by itself, with messages that are cut into small pieces.
  add_executable(mpi_transport mpi/transport.c "${PROJECT_SOURCE_DIR}/src/mpi/mpi.c")
  target_include_directories(mpi_transport PRIVATE "${heed_include}"
                                                   "${PROJECT_SOURCE_DIR}/src/common")
  target_compile_definitions(mpi_transport PRIVATE HD_MPI_PIECE=1000)
  target_link_libraries(mpi_transport PRIVATE MPI::MPI_C)
  # heed_mpi_program(name program ranks argument...)
  function(heed_mpi_program name program ranks)
    heed_test(mpi.${name} mpi sh "${CMAKE_CURRENT_SOURCE_DIR}/mpi/run" "${MPIEXEC_EXECUTABLE}"
              ${ranks} "$<TARGET_FILE:${program}>" ${ARGN})
    set_tests_properties(mpi.${name} PROPERTIES PROCESSORS ${ranks})
  endfunction()
  # heed_mpi_test(name ranks argument...)
  function(heed_mpi_test name ranks)
    heed_mpi_program(${name} mpi_ranks ${ranks} ${ARGN})
  endfunction()
  foreach(what IN ITEMS messages own handle finalised level broken_halves broken_late
                        broken_alone broken_error)
    heed_mpi_program(transport.${what} mpi_transport 3 ${what})
    set_tests_properties(mpi.transport.${what} PROPERTIES TIMEOUT 60)
  endforeach()
  foreach(ranks IN ITEMS 1 2 3 4)
    foreach(what IN ITEMS collectives methods)
      heed_mpi_test(${what}.${ranks} ${ranks} ${what})
    endforeach()
  endforeach()
  heed_mpi_test(disagree 3 disagree)
  heed_mpi_test(unequal 2 unequal)
  heed_mpi_test(stop 3 stop)
  heed_mpi_test(kill 3 kill)
  heed_test(mpi.command mpi sh "${CMAKE_CURRENT_SOURCE_DIR}/mpi/cli" "${MPIEXEC_EXECUTABLE}"
            "$<TARGET_FILE:heed_cli>" "${CMAKE_CURRENT_BINARY_DIR}/mpi"
            "${CMAKE_CURRENT_SOURCE_DIR}/data/attention/dense_f32.safetensors")
endif()
