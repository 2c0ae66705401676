/* cpu:flash_avx512, flash attention with AVX-512; f32 arithmetic for every dtype. The algorithm is
 * told in flash_body.h. 6 keys by 4 vectors are 24 sums of 32 registers. Measured:
 * docs/performance.md. */
#include "tiles_avx512.h"

#include "flash_body.h"

const heed_impl_t HD_IMPL_NAME(flash_avx512) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_avx512",
    .about = "blocked, online softmax, queries in lanes; AVX-512",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512,
    .features = HEED_ATTENTION_CAN_ALL,
    .supports = flash_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
