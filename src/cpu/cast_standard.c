/* cpu:standard for casts: the definition, element by element, in integers alone. The reference. */
#include "cast_body.h"

static void cast_line(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                      uint32_t multiplier, int64_t index, bool stream, hd_cast_stats_t *stats)
{
    (void)stream;
    cast_elements(cast, from, to, n, multiplier, index, stats);
}

static uint32_t cast_line_amax(const hd_cast_t *cast, const char *from, int64_t n)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t magnitude =
            hd_cast_load(cast->src_dtype, from + i * hd_dtype_bytes(cast->src_dtype)) &
            HD_F32_MAGNITUDE;
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    const cast_rates_t rates = cast_plain_rates(device, threads, 0.18, 0.18, 0.13, 0.14);
    return cast_estimate_at((const heed_cast_desc_t *)desc, device, threads, &rates);
}

const heed_impl_t hd_impl_cast_standard = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cpu:standard",
    .about = "element by element in integers: reference and last resort",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_CAST_CAN_ALL,
    .estimate = estimate,
    .workspace = cast_workspace,
    .run = cast_run,
};
