/* What estimates of CPU implementations are made of: the peaks of heed_device_info_t at a number of
 * threads, and where data of a size lies. */
#ifndef HD_PEAKS_H
#define HD_PEAKS_H

#include "base.h"

/* A rate of `threads` threads in units a nanosecond: on the line through the two that are known,
 * beyond them in proportion. */
static inline double hd_rate(const heed_peaks_t *peaks, heed_rate_t rate, int threads)
{
    double each;
    if (threads <= 1 || peaks->threads <= 1)
        each = rate.one * (threads > 1 ? threads : 1);
    else if (threads >= peaks->threads)
        each = rate.all * threads / peaks->threads;
    else
        each = rate.one + (rate.all - rate.one) * (threads - 1) / (peaks->threads - 1);
    return each * 1e-9;
}

/* f32 multiply-adds of vectors of that many lanes, in flops a nanosecond. */
static inline double hd_f32_rate(const heed_peaks_t *peaks, int lanes, int threads)
{
    heed_rate_t rate = lanes >= 16  ? peaks->f32_avx512
                       : lanes >= 8 ? peaks->f32_avx2
                                    : peaks->f32_portable;
    return hd_rate(peaks, rate, threads);
}

/* The same of the widest vectors that kernels of this device may use. */
static inline double hd_best_f32_rate(const heed_device_info_t *cpu, int threads)
{
    int lanes = cpu->isa & HEED_ISA_AVX512 ? 16 : cpu->isa & HEED_ISA_AVX2 ? 8 : 4;
    return hd_f32_rate(&cpu->peaks, lanes, threads);
}

/* The level that `bytes` of data, used over and over, are found in: 1 to 3, 0 is memory. Three
 * quarters of a cache are taken to be there for it. */
static inline int hd_data_level(const heed_device_info_t *cpu, double bytes, int threads)
{
    for (int level = 1; level <= 3; level++)
        if (bytes <= 0.75 * heed_cache_bytes(cpu, level, threads))
            return level;
    return 0;
}

/* Bytes a nanosecond of reading, and of copying, data of that size. */
static inline double hd_read_rate(const heed_device_info_t *cpu, double bytes, int threads)
{
    const heed_peaks_t *p = &cpu->peaks;
    const heed_rate_t rates[] = {p->read, p->l1_read, p->l2_read, p->l3_read};
    return hd_rate(p, rates[hd_data_level(cpu, bytes, threads)], threads);
}

static inline double hd_copy_rate(const heed_device_info_t *cpu, double bytes, int threads)
{
    const heed_peaks_t *p = &cpu->peaks;
    const heed_rate_t rates[] = {p->copy, p->l1_copy, p->l2_copy, p->l3_copy};
    return hd_rate(p, rates[hd_data_level(cpu, bytes, threads)], threads);
}

/* Nanoseconds to start and end a team. */
static inline double hd_region_ns(const heed_device_info_t *cpu, int threads)
{
    const heed_peaks_t *p = &cpu->peaks;
    return threads > 1 ? p->region_ns + (threads - 2) * p->region_thread_ns : 0;
}

#endif
