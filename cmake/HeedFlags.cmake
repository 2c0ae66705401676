# Every compiler flag of the project, and which file gets which.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_compile_options(-Wall -Wextra)
if(HEED_WERROR)
  add_compile_options(-Werror)
endif()

# Floating point as written: a multiply-add is one only where the source says fma, so that gcc and
# clang round alike. Never -ffast-math: masks, lse and empty rows live from infinities and NaN.
add_compile_options(-ffp-contract=off)

# Kernels. Neither errno nor floating-point traps are read anywhere; without that promise the
# compiler may not turn sqrt or a select into vector code. Results stay the same.
set(HEED_KERNEL_FLAGS "$<$<NOT:$<CONFIG:Debug>>:-O3>" -fno-math-errno -fno-trapping-math)
if(HEED_SANITIZE) # at -O3 sanitizers take a compiler minutes for a kernel
  set(HEED_KERNEL_FLAGS -O1 -fno-math-errno -fno-trapping-math)
endif()

# Instruction sets by the suffix of the file's name: flash_avx2.c gets those of avx2. Only these
# files may hold vector code, and nothing calls them before the CPU was asked.
set(HEED_ISAS avx2 avx512 avx512bf16 avx512vbmi amx)
set(HEED_ARM_ISAS neon neonbf16)
set(HEED_ISA_FLAGS_neonbf16 -march=armv8.2-a+bf16)
set(HEED_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
set(HEED_ISA_FLAGS_avx512 ${HEED_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
                          -mprefer-vector-width=512)
set(HEED_ISA_FLAGS_avx512bf16 ${HEED_ISA_FLAGS_avx512} -mavx512bf16)
set(HEED_ISA_FLAGS_amx ${HEED_ISA_FLAGS_avx512bf16} -mavx512vbmi -mamx-tile -mamx-bf16)
set(HEED_ISA_FLAGS_avx512vbmi ${HEED_ISA_FLAGS_avx512} -mavx512vbmi)

# The same questions as HD_X86 and HD_ARM in src/common/internal.h.
include(CheckCSourceCompiles)
foreach(processor IN ITEMS X86=__x86_64__ ARM=__aarch64__)
  string(REGEX MATCH "(.*)=(.*)" matched "${processor}")
  check_c_source_compiles("
#if !defined(${CMAKE_MATCH_2})
#error other
#endif
int main(void) { return 0; }" HEED_${CMAKE_MATCH_1})
endforeach()

# heed_sources(VARIABLE pattern...): the files that match, less those for other processors, with the
# flags of kernels and of their instruction set.
function(heed_sources variable)
  file(GLOB files CONFIGURE_DEPENDS LIST_DIRECTORIES false ${ARGN})
  set(taken)
  foreach(file IN LISTS files)
    get_filename_component(stem "${file}" NAME_WE)
    string(REGEX MATCH "[^_]+$" isa "${stem}")
    if((isa IN_LIST HEED_ISAS AND NOT HEED_X86) OR (isa IN_LIST HEED_ARM_ISAS AND NOT HEED_ARM))
      continue()
    endif()
    if(DEFINED HEED_ISA_FLAGS_${isa})
      set_property(SOURCE "${file}" APPEND PROPERTY COMPILE_OPTIONS ${HEED_ISA_FLAGS_${isa}})
    endif()
    if(file MATCHES "/src/cpu/")
      set_property(SOURCE "${file}" APPEND PROPERTY COMPILE_OPTIONS ${HEED_KERNEL_FLAGS})
    endif()
    list(APPEND taken "${file}")
  endforeach()
  set(${variable} "${taken}" PARENT_SCOPE)
endfunction()

# Sanitizers, for everything that is built.
set(HEED_SANITIZE_FLAGS)
if(HEED_SANITIZE)
  set(HEED_SANITIZE_FLAGS -fsanitize=${HEED_SANITIZE} -fno-sanitize-recover=all
                          -fno-omit-frame-pointer)
  add_compile_options(${HEED_SANITIZE_FLAGS})
  add_link_options(${HEED_SANITIZE_FLAGS})
endif()
