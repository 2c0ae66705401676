/* cpu:cast_avx512: the loops of cast_blocks.h, 64 elements at a time, for AVX-512 without byte
 * permutes: FP8 is decoded by shifts. */
#include "cast_vec_avx512.h"

#include "cast_line_blocks.h"

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    const cast_rates_t rates = cast_measured_rates(device, threads, device->peaks.encode_avx512,
                                                   device->peaks.decode_avx512);
    return cast_estimate_at((const heed_cast_desc_t *)desc, device, threads, &rates);
}

const heed_impl_t HD_IMPL_NAME(cast_avx512) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cpu:cast_avx512",
    .about = "sixty-four elements at a time; AVX-512",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512,
    .features = HEED_CAST_CAN_ALL,
    .estimate = estimate,
    .workspace = cast_workspace,
    .run = cast_run,
};
