/* The little that kernels on every device share: sizes and minima, in C11 and in CUDA C++. */
#ifndef HD_BASE_H
#define HD_BASE_H

#include <heed/heed.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Also runs on the device, where the compiler is nvcc. */
#if defined(__CUDACC__)
#define HD_DEVICE __host__ __device__
#else
#define HD_DEVICE
#endif

/* heed_dtype_size of a dtype that is known to be good. */
HD_DEVICE static inline int64_t hd_dtype_bytes(heed_dtype_t dtype)
{
    return (dtype >> 8 & 0xff) / 8;
}

HD_DEVICE static inline int64_t hd_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

HD_DEVICE static inline int64_t hd_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

HD_DEVICE static inline int64_t hd_ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b > 0); /* a + b - 1 may overflow */
}

static inline size_t hd_round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

#endif
