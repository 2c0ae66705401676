/* cpu:short_avx512bf16, attention of bf16 over few keys through the bf16 dot product: cells are
 * pairs, as in flash_avx512bf16.c. The algorithm is told in short_body.h. Right on an Emerald
 * Rapids core, where the dot product is half as fast as f32 multiply-adds and short_avx512 mostly
 * faster; on Zen 4 and 5, for which it is meant, its speed was never measured. */
#include "tiles_avx512bf16.h"

#include "short_body.h"

const heed_impl_t HD_IMPL_NAME(short_avx512bf16) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:short_avx512bf16",
    .about = "few keys, all scores at once; AVX-512 bf16 dot product",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512BF16,
    .features = SHORT_FEATURES & ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_F16),
    .supports = short_supports,
    .estimate = short_estimate,
    .workspace = short_workspace,
    .run = short_run,
};
