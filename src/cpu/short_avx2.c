/* cpu:short_avx2, attention over few keys with AVX2 and FMA; f32 arithmetic for every dtype. The
 * algorithm is told in short_body.h. Measured: docs/performance.md. */
#include "tiles_avx2.h"

#include "short_body.h"

const heed_impl_t hd_impl_short_avx2 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:short_avx2",
    .about = "few keys, all scores at once; AVX2 and FMA",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX2,
    .features = SHORT_FEATURES,
    .supports = short_supports,
    .estimate = short_estimate,
    .workspace = short_workspace,
    .run = short_run,
};
