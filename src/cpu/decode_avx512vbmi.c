/* cpu:decode_avx512vbmi, few queries over many keys with AVX-512 whose byte permutes make f32 of
 * E4M3 and E5M2; all else is as in decode_avx512.c. The algorithm is told in decode_body.h.
 * Measured: docs/performance.md.
 *
 * Tried and left: dot products of bf16 pairs for both products, which need no f32 but sums. On an
 * Emerald Rapids core, whose bf16 dot has half the rate of its multiply-adds, E4M3 of one head went
 * at 0.92 of this, groups of four at 0.78, bf16 at 0.95 and 0.82. Where the dot has twice the rate
 * (Zen 4 and 5) it is worth another try. By bench/turns/decode.c, one run of each. */
#define DECODE_VBMI 1
#define DECODE_KEYS 32
#include "decode_avx512.h"

#include "decode_body.h"

const heed_impl_t HD_IMPL_NAME(decode_avx512vbmi) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:decode_avx512vbmi",
    .about = "few queries: one pass over K and V, split over threads; AVX-512 with byte permutes",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512VBMI,
    .features = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_TILES,
    .estimate = decode_estimate,
    .workspace = decode_workspace,
    .run = decode_run,
};
