/* Heed: the machine as Heed sees it. Detected once per context through hwloc, CPUID or
 * HWCAP, and the CUDA backend. */
#ifndef HEED_DEVICE_H
#define HEED_DEVICE_H

#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Instruction sets that kernels name. Each contains those above it, but for AVX512BF16 and
 * AVX512VBMI, which do not contain each other; those of ARM start at bit 8. A bit is set only if
 * the operating system saves the registers too (XCR0). */
#define HEED_ISA_LIST(X)                                       \
    X(AVX2, 0, "avx2", "AVX2, FMA, F16C, BMI2")                \
    X(AVX512, 1, "avx512", "AVX-512 F, BW, DQ, VL")            \
    X(AVX512BF16, 2, "avx512bf16", "AVX-512 bf16 dot product") \
    X(AVX512VBMI, 3, "avx512vbmi", "AVX-512 byte permutes")    \
    X(AMX, 4, "amx", "AMX tiles of bf16")                      \
    X(NEON, 8, "neon", "Advanced SIMD of 64-bit ARM")          \
    X(NEONBF16, 9, "neonbf16", "bf16 dot product of ARM")

enum {
#define HEED_ISA_ENUM_(name, bit, text, about) HEED_ISA_##name = 1 << bit,
    HEED_ISA_LIST(HEED_ISA_ENUM_)
#undef HEED_ISA_ENUM_
};

typedef struct heed_cache_info {
    int32_t level;
    int32_t sharing; /* cores that share one */
    int64_t bytes;
} heed_cache_info_t;

/* What the CPU reaches at most, in units a second: of one thread, and of `threads` threads at once.
 * `heed tune` measures it once for a machine and writes a file that contexts read; without the file
 * these are assumptions. Implementations make their estimates from it. A copy's bytes are those
 * read and those written. */
typedef struct heed_rate {
    double one, all;
} heed_rate_t;

/* Field, what it is in 10^9 of, meaning. */
#define HEED_RATE_LIST(X)                                                            \
    X(f32_portable, "GFLOP/s", "f32 multiplications and additions, 16-byte vectors") \
    X(f32_avx2, "GFLOP/s", "f32 fused multiply-adds, AVX2")                          \
    X(f32_avx512, "GFLOP/s", "f32 fused multiply-adds, AVX-512")                     \
    X(dot_bf16, "GFLOP/s", "bf16 dot products")                                      \
    X(tile_bf16, "GFLOP/s", "bf16 products of AMX tiles")                            \
    X(l1_read, "GB/s", "reading from the first cache")                               \
    X(l2_read, "GB/s", "reading from the second cache")                              \
    X(l3_read, "GB/s", "reading from the third cache")                               \
    X(read, "GB/s", "reading from memory")                                           \
    X(l1_copy, "GB/s", "copying within the first cache")                             \
    X(l2_copy, "GB/s", "copying within the second cache")                            \
    X(l3_copy, "GB/s", "copying within the third cache")                             \
    X(copy, "GB/s", "copying within memory")                                         \
    X(encode_avx2, "Gelem/s", "f32 to E4M3 in cache, AVX2")                          \
    X(encode_avx512, "Gelem/s", "f32 to E4M3 in cache, AVX-512")                     \
    X(decode_avx2, "Gelem/s", "E4M3 to bf16 in cache, AVX2")                         \
    X(decode_avx512, "Gelem/s", "E4M3 to bf16 in cache, AVX-512")

typedef struct heed_peaks {
    int32_t measured;        /* 1: by heed tune, 0: assumed */
    int32_t threads;         /* of `all` */
    double region_ns;        /* starting and ending a team of two threads */
    double region_thread_ns; /* each thread more */
#define HEED_RATE_FIELD_(field, unit, about) heed_rate_t field;
    HEED_RATE_LIST(HEED_RATE_FIELD_)
#undef HEED_RATE_FIELD_
} heed_peaks_t;

typedef struct heed_device_info {
    uint32_t struct_size;
    heed_device_t device;
    char name[96];    /* "AMD EPYC 9654 96-Core Processor" */
    uint64_t isa;     /* HEED_ISA_* that may be used: what the CPU has, capped by policy */
    uint64_t isa_cpu; /* HEED_ISA_* that the CPU and the system have */
    int32_t packages; /* of the machine, as far as this process may use it */
    int32_t numa_nodes;
    int32_t cores;
    int32_t hardware_threads;
    int32_t threads;   /* what a plan of this context uses */
    int32_t cpu_quota; /* whole CPUs that the control group grants, 0: no limit */
    int32_t cache_count;
    heed_cache_info_t caches[4]; /* data and unified caches, level 1 first */
    int64_t memory_bytes;
    char cpuset[128];  /* processors that may be used, such as "0-15,32" */
    char topology[32]; /* where the facts come from: "native", "synthetic", "xml", "none", "cuda" */
    /* CUDA devices, 0 for the CPU. Of the fields above they fill device, name, memory_bytes, one
     * cache of level 2, and threads, which is 1. */
    int32_t compute_major; /* compute capability, 9.0 */
    int32_t compute_minor;
    int32_t multiprocessors;
    int32_t clock_khz;        /* 0 where the driver does not tell */
    int32_t shared_bytes;     /* shared memory that one block may ask for */
    int32_t driver_version;   /* CUDA version of the driver, 13000 for 13.0 */
    int32_t runtime_version;  /* that the backend was built with */
    int64_t memory_bandwidth; /* bytes a second by bus width and clock, 0 where not told */
    heed_peaks_t peaks;       /* of the CPU; zeros for others */
} heed_device_info_t;

/* How many devices there are; the CPU is always number 0. */
HEED_API int heed_device_count(const heed_context_t *context);

/* Fills as much of *info as its struct_size, which the caller has set, has room for.
 * Errors: NULL, STRUCT_SIZE, NO_DEVICE. */
HEED_API HEED_MUST_USE heed_status_t heed_device_info(const heed_context_t *context, int index,
                                                      heed_device_info_t *info);

/* Why there is no device of that type (HEED_DEVICE_*); NULL where there is one. Lives as long as
 * the context. */
HEED_API const char *heed_device_missing(const heed_context_t *context, int32_t type);

/* Bytes of all level-`level` caches that `threads` threads on different cores reach, 0: none known.
 */
HEED_API double heed_cache_bytes(const heed_device_info_t *info, int level, int threads);

/* The file of `heed tune` that this context looked for, "" where it looked for none, and why its
 * figures are not in use, NULL where they are. A file that is not there is the usual reason; one
 * that cannot be read, is of another CPU or version, or holds anything unexpected also makes a log
 * line. Both live as long as the context. */
HEED_API const char *heed_tune_file(const heed_context_t *context);
HEED_API const char *heed_tune_missing(const heed_context_t *context);

/* Writes the names of an instruction-set mask, "avx2 avx512" or "scalar", and returns text. */
HEED_API const char *heed_isa_names(uint64_t isa, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
