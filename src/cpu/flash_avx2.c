/* cpu:flash_avx2, flash attention with AVX2 and FMA; f32 arithmetic for every dtype. The algorithm
 * is told in flash_body.h. 6 keys by 2 vectors are 12 sums: with 2 queries and a broadcast, 15 of
 * 16 registers. Measured: docs/performance.md. */
#include "tiles_avx2.h"

#include "flash_body.h"

const heed_impl_t hd_impl_flash_avx2 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_avx2",
    .about = "blocked, online softmax, queries in lanes; AVX2 and FMA",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX2,
    .features = HEED_ATTENTION_CAN_ALL,
    .supports = flash_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
