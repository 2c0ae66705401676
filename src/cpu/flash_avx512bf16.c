/* cpu:flash_avx512bf16, flash attention of bf16 through the bf16 dot product, two multiply-adds a
 * lane: cells are pairs of bf16. K is read in its natural pairs; two rows of V are interleaved,
 * once for each key head. Weights are rounded to bf16 between the products. The scale is applied to
 * the f32 scores, for rounding it into bf16 queries would cost accuracy. Measured
 * (docs/performance.md) where the dot product has half the rate of f32 multiply-adds; never where
 * it has twice (Zen 4, Zen 5). */
#include "tiles_avx512bf16.h"

#include "flash_body.h"

const heed_impl_t HD_IMPL_NAME(flash_avx512bf16) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_avx512bf16",
    .about = "blocked, online softmax, queries in lanes; AVX-512 bf16 dot product",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512BF16,
    .features = HEED_ATTENTION_CAN_ALL &
                ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_F16 | HEED_ATTENTION_CAN_E4M3 |
                  HEED_ATTENTION_CAN_EXACT_E4M3 | HEED_ATTENTION_CAN_KV_DTYPE |
                  HEED_ATTENTION_CAN_KV_SCALE),
    .supports = flash_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
