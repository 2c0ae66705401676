/* cpu:cast_scalar, plain C on any machine: the loops of cast_plain.h as the compiler vectorises
 * them for the build's own instruction set. */
#include "cast_plain.h"

static void cast_line(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                      uint32_t multiplier, int64_t index, bool stream, hd_cast_stats_t *stats)
{
    (void)stream;
    if (cast_line_is_fast(cast, multiplier))
        plain_line(cast, from, to, n, multiplier, stats);
    else
        cast_elements(cast, from, to, n, multiplier, index, stats);
}

static uint32_t cast_line_amax(const hd_cast_t *cast, const char *from, int64_t n)
{
    return plain_amax(cast, from, n);
}

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    const cast_rates_t rates = cast_plain_rates(device, threads, 4.4, 0.82, 0.55, 1);
    return cast_estimate_at((const heed_cast_desc_t *)desc, device, threads, &rates);
}

const heed_impl_t hd_impl_cast_scalar = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cpu:cast_scalar",
    .about = "plain C, loops without branches",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_CAST_CAN_ALL,
    .estimate = estimate,
    .workspace = cast_workspace,
    .run = cast_run,
};
