/* cpu:decode_avx512, few queries over many keys with AVX-512. The algorithm is told in
 * decode_body.h. Measured: docs/performance.md. */
#include "decode_avx512.h"

#include "decode_body.h"

const heed_impl_t HD_IMPL_NAME(decode_avx512) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:decode_avx512",
    .about = "few queries: one pass over K and V, split over threads; AVX-512",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512,
    .features = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_TILES,
    .estimate = decode_estimate,
    .workspace = decode_workspace,
    .run = decode_run,
};
