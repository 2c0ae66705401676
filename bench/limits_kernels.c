/* The inner loops behind the limits. They are assembly, because a compiler would drop work whose
 * result nobody reads, and because a limit must not depend on the compiler. Each runs only where
 * heed_device_info says that the instructions may be used.
 *
 * Arithmetic: enough independent accumulators to cover the latency of 4 to 6 cycles at two
 * instructions a cycle, no memory access. Reads: eight registers a turn, with and without a
 * prefetch 2 KiB ahead, since processors differ in which is faster. */
#include "bench_limits.h"

#include <string.h>

enum { TURNS = 1 << 13 };

#if defined(__x86_64__)

/* Bit patterns of 1.0f, and of two bf16 ones. */
static const uint32_t one_f32 = 0x3f800000u;
static const uint32_t one_bf16 = 0x3f803f80u;

#define TIMES_12(X) \
    X("0") X("1") X("2") X("3") X("4") X("5") X("6") X("7") X("8") X("9") X("10") X("11")
#define TIMES_16(X) TIMES_12(X) X("12") X("13") X("14") X("15")

#define CLOBBER_LOW                                                                          \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc"

#define CLEAR(i)   "vpxor %%xmm" i ", %%xmm" i ", %%xmm" i "\n"
#define FMA_YMM(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" i "\n"
#define FMA_ZMM(i) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" i "\n"
#define DOT_ZMM(i) "vdpbf16ps %%zmm30, %%zmm31, %%zmm" i "\n"

/* Both sources hold `one`; `body`, a turn, is one instruction for each accumulator. */
#define RUN_ARITHMETIC(one, source_a, source_b, clear, body, ...)                 \
    do {                                                                          \
        uint64_t turns = TURNS;                                                   \
        __asm__ volatile("vbroadcastss %1, %%" source_a "\n"                      \
                         "vbroadcastss %1, %%" source_b "\n" clear ".p2align 6\n" \
                         "1:\n" body "dec %0\n"                                   \
                         "jnz 1b\n"                                               \
                         "vzeroupper\n"                                           \
                         : "+r"(turns)                                            \
                         : "m"(one)                                               \
                         : __VA_ARGS__);                                          \
    } while (0)

static double fma_ymm(char *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    RUN_ARITHMETIC(one_f32, "ymm14", "ymm15", TIMES_12(CLEAR), TIMES_12(FMA_YMM), CLOBBER_LOW);
    return (double)TURNS * 12 * 8 * 2;
}

/* Only makes the compiler know the upper registers as clobbers. */
#define ZMM_TARGET __attribute__((target("avx512f")))

ZMM_TARGET static double fma_zmm(char *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    RUN_ARITHMETIC(one_f32, "zmm30", "zmm31", TIMES_16(CLEAR), TIMES_16(FMA_ZMM), CLOBBER_LOW,
                   "xmm30", "xmm31");
    return (double)TURNS * 16 * 16 * 2;
}

ZMM_TARGET static double dot_zmm(char *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    RUN_ARITHMETIC(one_bf16, "zmm30", "zmm31", TIMES_16(CLEAR), TIMES_16(DOT_ZMM), CLOBBER_LOW,
                   "xmm30", "xmm31");
    return (double)TURNS * 16 * 32 * 2;
}

/* Eight tiles of 16 rows of 64 bytes, as LDTILECFG reads it. Four sums: a dot takes 16 cycles and
 * its sum can be added to again after as many. The permission to use tiles came with the context.
 */
__attribute__((target("amx-tile,amx-bf16"))) static double dot_tiles(char *data, size_t bytes)
{
    static const uint8_t config[64] = {
        1,         [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64,
        [26] = 64, [28] = 64, [30] = 64, [48] = 16, [49] = 16, [50] = 16,
        [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};
    uint64_t turns = TURNS;

    (void)data;
    (void)bytes;
    __asm__ volatile("ldtilecfg %1\n"
                     ".p2align 6\n"
                     "1:\n"
                     "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n"
                     "tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n"
                     "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n"
                     "tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n"
                     "dec %0\n"
                     "jnz 1b\n"
                     "tilerelease\n"
                     : "+r"(turns)
                     : "m"(config)
                     : "cc");
    return (double)TURNS * 4 * 16 * 16 * 32 * 2;
}

/* Eight loads of one register width, and the prefetches for as many bytes. */
#define LOAD_8(reg, width)                  \
    "vmovups 0*" width "(%0), %%" reg "0\n" \
    "vmovups 1*" width "(%0), %%" reg "1\n" \
    "vmovups 2*" width "(%0), %%" reg "2\n" \
    "vmovups 3*" width "(%0), %%" reg "3\n" \
    "vmovups 4*" width "(%0), %%" reg "4\n" \
    "vmovups 5*" width "(%0), %%" reg "5\n" \
    "vmovups 6*" width "(%0), %%" reg "6\n" \
    "vmovups 7*" width "(%0), %%" reg "7\n"
#define PREFETCH_256        \
    "prefetcht0 2048(%0)\n" \
    "prefetcht0 2112(%0)\n" \
    "prefetcht0 2176(%0)\n" \
    "prefetcht0 2240(%0)\n"
#define PREFETCH_512                     \
    PREFETCH_256 "prefetcht0 2304(%0)\n" \
                 "prefetcht0 2368(%0)\n" \
                 "prefetcht0 2432(%0)\n" \
                 "prefetcht0 2496(%0)\n"

/* Whole turns of eight registers; `bytes` is a positive multiple of 512. */
#define RUN_READ(body, turn)                               \
    do {                                                   \
        const char *at = data;                             \
        __asm__ volatile(".p2align 5\n"                    \
                         "1:\n" body "add $" turn ", %0\n" \
                         "cmp %1, %0\n"                    \
                         "jb 1b\n"                         \
                         "vzeroupper\n"                    \
                         : "+r"(at)                        \
                         : "r"(data + bytes)               \
                         : CLOBBER_LOW, "memory");         \
    } while (0)

/* Eight stores; `store` vmovups, or vmovntps, which goes around the caches. */
#define STORE_8(store, reg, width)                                                                \
    store " %%" reg "0, 0*" width "(%1)\n" store " %%" reg "1, 1*" width "(%1)\n" store " %%" reg \
          "2, 2*" width "(%1)\n" store " %%" reg "3, 3*" width "(%1)\n" store " %%" reg           \
          "4, 4*" width "(%1)\n" store " %%" reg "5, 5*" width "(%1)\n" store " %%" reg           \
          "6, 6*" width "(%1)\n" store " %%" reg "7, 7*" width "(%1)\n"

/* The first half to the second; `bytes` is a positive multiple of 1024. */
#define RUN_COPY(body, turn)                               \
    do {                                                   \
        const char *at = data, *end = data + bytes / 2;    \
        char *to = data + bytes / 2;                       \
        __asm__ volatile(".p2align 5\n"                    \
                         "1:\n" body "add $" turn ", %0\n" \
                         "add $" turn ", %1\n"             \
                         "cmp %2, %0\n"                    \
                         "jb 1b\n"                         \
                         "vzeroupper\n"                    \
                         : "+&r"(at), "+&r"(to)            \
                         : "r"(end)                        \
                         : CLOBBER_LOW, "memory");         \
    } while (0)

static double copy_ymm(char *data, size_t bytes)
{
    RUN_COPY(LOAD_8("ymm", "32") STORE_8("vmovups", "ymm", "32"), "256");
    return (double)bytes;
}

static double copy_ymm_stream(char *data, size_t bytes)
{
    RUN_COPY(LOAD_8("ymm", "32") STORE_8("vmovntps", "ymm", "32"), "256");
    return (double)bytes;
}

static double read_ymm(char *data, size_t bytes)
{
    RUN_READ(LOAD_8("ymm", "32"), "256");
    return (double)bytes;
}

static double read_ymm_prefetch(char *data, size_t bytes)
{
    RUN_READ(LOAD_8("ymm", "32") PREFETCH_256, "256");
    return (double)bytes;
}

static double read_zmm(char *data, size_t bytes)
{
    RUN_READ(LOAD_8("zmm", "64"), "512");
    return (double)bytes;
}

static double read_zmm_prefetch(char *data, size_t bytes)
{
    RUN_READ(LOAD_8("zmm", "64") PREFETCH_512, "512");
    return (double)bytes;
}

#endif

/* ---- any machine: what a compiler makes of 16-byte vectors ----------------------------------- */

typedef float vec_f32 __attribute__((vector_size(16)));
typedef uint64_t vec_u64 __attribute__((vector_size(16)));

enum { CHAINS = 12 };

/* Where results go, so that they are computed at all. */
static _Thread_local volatile float sink_f32;
static _Thread_local volatile uint64_t sink_u64;

static double fma_portable(char *data, size_t bytes)
{
    volatile float half = 0.5f;
    vec_f32 x = {half, half, half, half};
    vec_f32 a[CHAINS];
    vec_f32 total = {0};

    (void)data;
    (void)bytes;
    for (int c = 0; c < CHAINS; c++)
        a[c] = x;
    for (int turn = 0; turn < TURNS; turn++) {
        /* Written out, so that the accumulators stay in registers. */
        a[0] = a[0] * x + x, a[1] = a[1] * x + x, a[2] = a[2] * x + x, a[3] = a[3] * x + x;
        a[4] = a[4] * x + x, a[5] = a[5] * x + x, a[6] = a[6] * x + x, a[7] = a[7] * x + x;
        a[8] = a[8] * x + x, a[9] = a[9] * x + x, a[10] = a[10] * x + x, a[11] = a[11] * x + x;
    }
    for (int c = 0; c < CHAINS; c++)
        total += a[c];
    sink_f32 = total[0] + total[1] + total[2] + total[3];
    return (double)TURNS * CHAINS * 4 * 2;
}

static double copy_portable(char *data, size_t bytes)
{
    memcpy(data + bytes / 2, data, bytes / 2);
    return (double)bytes;
}

static double read_portable(char *data, size_t bytes)
{
    const vec_u64 *at = (const vec_u64 *)data;
    vec_u64 a = {0}, b = {0}, c = {0}, d = {0};

    for (size_t i = 0; i < bytes / sizeof(*at); i += 4) {
        a |= at[i];
        b |= at[i + 1];
        c |= at[i + 2];
        d |= at[i + 3];
    }
    a |= b | c | d;
    sink_u64 = a[0] | a[1];
    return (double)bytes;
}

static double read_portable_prefetch(char *data, size_t bytes)
{
    const vec_u64 *at = (const vec_u64 *)data;
    vec_u64 a = {0}, b = {0}, c = {0}, d = {0};

    for (size_t i = 0; i < bytes / sizeof(*at); i += 4) {
        __builtin_prefetch((const char *)(at + i) + 2048);
        a |= at[i];
        b |= at[i + 1];
        c |= at[i + 2];
        d |= at[i + 3];
    }
    a |= b | c | d;
    sink_u64 = a[0] | a[1];
    return (double)bytes;
}

bench_kernels_t bench_kernels(uint64_t isa)
{
    bench_kernels_t kernels = {
        .fma_f32 = fma_portable,
        .read = read_portable,
        .read_prefetch = read_portable_prefetch,
        .fma_f32_portable = fma_portable,
        .copy = copy_portable,
    };
#if defined(__x86_64__)
    if (isa & HEED_ISA_AVX2) {
        kernels.fma_f32 = kernels.fma_f32_avx2 = fma_ymm;
        kernels.read = read_ymm;
        kernels.read_prefetch = read_ymm_prefetch;
        kernels.copy = copy_ymm;
        kernels.copy_stream = copy_ymm_stream;
    }
    if (isa & HEED_ISA_AVX512) {
        kernels.fma_f32 = fma_zmm;
        kernels.read = read_zmm;
        kernels.read_prefetch = read_zmm_prefetch;
    }
    if (isa & HEED_ISA_AVX512BF16)
        kernels.dot_bf16 = dot_zmm;
    if (isa & HEED_ISA_AMX)
        kernels.tile_bf16 = dot_tiles;
#else
    (void)isa;
#endif
    return kernels;
}
