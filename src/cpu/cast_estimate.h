/* How long a cast takes on the CPU, from rates of an implementation and the machine's peaks. */
#ifndef HD_CAST_ESTIMATE_H
#define HD_CAST_ESTIMATE_H

#include "../common/peaks.h"
#include "cast_job.h"

/* Elements a nanosecond, where data lies in the first caches. */
typedef struct cast_rates {
    double wide;   /* between f32 and bf16 */
    double half;   /* from and to f16 */
    double encode; /* to FP8 */
    double decode; /* from FP8 */
    double other;  /* to FP8, rounded otherwise than to nearest; stochastically a third of it */
} cast_rates_t;

/* Of an implementation that goes by what `heed tune` measured of it; the others in proportion. */
static inline cast_rates_t cast_measured_rates(const heed_device_info_t *device, int threads,
                                               heed_rate_t encode, heed_rate_t decode)
{
    const double to = hd_rate(&device->peaks, encode, threads);
    const double from = hd_rate(&device->peaks, decode, threads);
    return (cast_rates_t){from, from, to, from, 0.35 * to};
}

/* Of plain C: of one thread on a core with 46 GFLOP/s of 16-byte multiplications and additions, and
 * in proportion on others. */
static inline cast_rates_t cast_plain_rates(const heed_device_info_t *device, int threads,
                                            double wide, double half, double encode, double decode)
{
    const double by = hd_rate(&device->peaks, device->peaks.f32_portable, threads) / 46;
    return (cast_rates_t){by * wide, by * half, by * encode, by * decode, by * 0.2};
}

static bool cast_is_byte(heed_dtype_t dtype)
{
    return hd_dtype_bytes(dtype) == 1;
}

/* FP8 formats that only the plain loops know. */
static bool cast_is_plain(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3FNUZ || dtype == HEED_E5M2FNUZ || dtype == HEED_E4M3IEEE;
}

static double cast_rate(const heed_cast_desc_t *desc, const cast_rates_t *rates)
{
    const heed_dtype_t src = desc->src.dtype, dst = desc->dst.dtype;
    if (!cast_has_loop(src) || !cast_has_loop(dst))
        return 0.2; /* element by element, with any instruction set */
    if (desc->rounding == HEED_ROUND_STOCHASTIC)
        return rates->other / 3;
    if (desc->rounding != HEED_ROUND_NEAREST)
        return rates->other;
    const double rate = cast_is_byte(dst)                    ? rates->encode
                        : cast_is_byte(src)                  ? rates->decode
                        : src == HEED_F16 || dst == HEED_F16 ? rates->half
                                                             : rates->wide;
    return cast_is_plain(src) || cast_is_plain(dst) ? (rate < 4 ? rate : 4) : rate;
}

/* Nanoseconds that groups take beside their elements. */
static double cast_groups_ns(const heed_cast_desc_t *desc)
{
    enum { GIVEN_NS = 50, COMPUTED_NS = 100 };
    int64_t block[HEED_MAX_NDIM];
    double groups = 1;
    if (!desc->scale.ndim && !desc->scale_out.ndim)
        return 0;
    hd_cast_blocks(desc, block);
    for (int i = 0; i < desc->src.ndim; i++)
        groups *= (double)hd_ceil_div(desc->src.shape[i], block[i]);
    return groups * (desc->scale_out.ndim ? COMPUTED_NS : GIVEN_NS);
}

/* The slower of arithmetic and of copying as many bytes where they lie; what is computed from a
 * tensor's own maximum takes reading it once more. */
static double cast_estimate_at(const heed_cast_desc_t *desc, const heed_device_info_t *device,
                               int threads, const cast_rates_t *rates)
{
    double elements = 1;
    for (int i = 0; i < desc->src.ndim; i++)
        elements *= (double)desc->src.shape[i];
    if (elements < CAST_SERIAL)
        threads = 1;
    double src = elements * (double)hd_dtype_bytes(desc->src.dtype);
    double dst = elements * (double)hd_dtype_bytes(desc->dst.dtype);
    double rate = cast_rate(desc, rates);
    double peak = hd_rate(&device->peaks, device->peaks.f32_portable, threads);
    double compute = elements / rate + cast_groups_ns(desc) * 25 / peak;
    double memory =
        (src + dst * (desc->transposed.ndim ? 2 : 1)) / hd_copy_rate(device, src + dst, threads);
    double first = desc->scale_out.ndim ? src / hd_read_rate(device, src + dst, threads) : 0;
    return (memory > compute ? memory : compute) + first + hd_region_ns(device, threads) + 200;
}

#endif
