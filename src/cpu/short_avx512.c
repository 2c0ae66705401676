/* cpu:short_avx512, attention over few keys with AVX-512; f32 arithmetic for every dtype. The
 * algorithm is told in short_body.h. Measured on an Emerald Rapids core:
 * docs/performance.md. */
#include "tiles_avx512.h"

#include "short_body.h"

const heed_impl_t HD_IMPL_NAME(short_avx512) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:short_avx512",
    .about = "few keys, all scores at once; AVX-512",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512,
    .features = SHORT_FEATURES,
    .supports = short_supports,
    .estimate = short_estimate,
    .workspace = short_workspace,
    .run = short_run,
};
