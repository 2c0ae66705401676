/* cpu:cast_avx512vbmi: the loops of cast_blocks.h, 64 elements at a time. The byte permutes of
 * AVX512_VBMI decode FP8 by two lookups in 128 entries, and gather the bytes of codes and signs
 * when encoding. */
#define CAST_VBMI 1
#include "cast_vec_avx512.h"

#include "cast_line_blocks.h"

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    const cast_rates_t rates = cast_measured_rates(device, threads, device->peaks.encode_avx512,
                                                   device->peaks.decode_avx512);
    return cast_estimate_at((const heed_cast_desc_t *)desc, device, threads, &rates);
}

const heed_impl_t HD_IMPL_NAME(cast_avx512vbmi) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cpu:cast_avx512vbmi",
    .about = "sixty-four elements at a time; AVX-512 with byte permutes",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512VBMI,
    .features = HEED_CAST_CAN_ALL,
    .estimate = estimate,
    .workspace = cast_workspace,
    .run = cast_run,
};
