/* What this machine can do at most, measured: the yardstick of every result. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include <heed/device.h>

/* Rates of `threads` threads running at once, in units a second; 0: not there or not measured. */
typedef struct bench_limits {
    double fma_f32;      /* FLOP: fused multiply-adds of the best instruction set allowed */
    double fma_f32_avx2; /* FLOP: the same, 256 bits wide */
    double dot_bf16;     /* FLOP: bf16 dot products */
    double tile_bf16;    /* FLOP: bf16 products of AMX tiles */
    double read;         /* bytes from memory */
    double l3_read;      /* bytes from the last-level cache */
    double l2_read;      /* bytes from the threads' own caches */
    /* Of a card. */
    double matmul_f32; /* FLOP: a large product of matrices by the vendor's library */
    double matmul_bf16;
    double matmul_f16;
    double copy; /* bytes read and written by a copy within its memory */
} bench_limits_t;

/* Every field and what it is in 10^9 of, for code that treats them alike. */
#define BENCH_LIMIT_LIST(X) \
    X(fma_f32, gflops)      \
    X(fma_f32_avx2, gflops) \
    X(dot_bf16, gflops)     \
    X(tile_bf16, gflops)    \
    X(read, gbps)           \
    X(l3_read, gbps)        \
    X(l2_read, gbps)        \
    X(matmul_f32, gflops)   \
    X(matmul_bf16, gflops)  \
    X(matmul_f16, gflops)   \
    X(copy, gbps)

/* Measures with the instruction sets in cpu->isa, each kernel for `seconds_each`. */
bench_limits_t bench_limits_measure(const heed_device_info_t *cpu, int threads,
                                    double seconds_each);

/* Takes the larger of each into *limits; returns the largest relative difference, 0.05 for 5 %. */
double bench_limits_merge(bench_limits_t *limits, const bench_limits_t *other);

/* ---- kernels (limits_kernels.c) -------------------------------------------------------------- */

/* Does a short piece of work, on `bytes` of data if it touches any, and returns how much it was. */
typedef double (*bench_kernel_t)(char *data, size_t bytes);

/* The kernels for instruction sets `isa`; NULL: not there. */
typedef struct bench_kernels {
    bench_kernel_t fma_f32;
    bench_kernel_t fma_f32_avx2;
    bench_kernel_t dot_bf16;
    bench_kernel_t tile_bf16;
    bench_kernel_t read;
    bench_kernel_t read_prefetch;
    bench_kernel_t fma_f32_portable;
    bench_kernel_t copy; /* bytes read and written */
    bench_kernel_t copy_stream;
} bench_kernels_t;

bench_kernels_t bench_kernels(uint64_t isa);

/* What one thread reads, or copies within, to meet level 1 to 3, or memory (0); 0: no such cache.
 */
size_t bench_level_bytes(const heed_device_info_t *cpu, int level, int threads);

/* The best rate of `threads` threads at once over one or two kernels (second NULL: one), each with
 * `bytes` of data of its own; 0: not measured. Takes `seconds` for each kernel. */
double bench_rate(bench_kernel_t first, bench_kernel_t second, size_t bytes, int threads,
                  double seconds);

#endif
