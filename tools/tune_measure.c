/* Measures the peaks of a machine with the kernels of heed bench, and the cost of a team through
 * the library itself. */
#define _GNU_SOURCE
#include "bench_limits.h"
#include "text.h"
#include "tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* ---- rates ----------------------------------------------------------------------------------- */

typedef struct rate_plan {
    heed_rate_t *rate;
    const char *name;
    bench_kernel_t first, second;
    int level; /* of the data, -1: none */
} rate_plan_t;

static double measure_rate(const heed_device_info_t *cpu, const rate_plan_t *plan, int threads,
                           double seconds)
{
    size_t bytes = plan->level < 0 ? 0 : bench_level_bytes(cpu, plan->level, threads);

    if (plan->level >= 0 && !bytes)
        return 0;
    return bench_rate(plan->first, plan->second, bytes, threads, seconds);
}

static void measure_rates(const heed_device_info_t *cpu, double seconds, tune_progress_t progress,
                          heed_peaks_t *peaks)
{
    bench_kernels_t k = bench_kernels(cpu->isa);
    bench_kernel_t avx512 = cpu->isa & HEED_ISA_AVX512 ? k.fma_f32 : NULL;
    const rate_plan_t plans[] = {
        {&peaks->f32_portable, "f32_portable", k.fma_f32_portable, NULL, -1},
        {&peaks->f32_avx2, "f32_avx2", k.fma_f32_avx2, NULL, -1},
        {&peaks->f32_avx512, "f32_avx512", avx512, NULL, -1},
        {&peaks->dot_bf16, "dot_bf16", k.dot_bf16, NULL, -1},
        {&peaks->tile_bf16, "tile_bf16", k.tile_bf16, NULL, -1},
        {&peaks->l1_read, "l1_read", k.read, NULL, 1},
        {&peaks->l2_read, "l2_read", k.read, k.read_prefetch, 2},
        {&peaks->l3_read, "l3_read", k.read, k.read_prefetch, 3},
        {&peaks->read, "read", k.read, k.read_prefetch, 0},
        {&peaks->l1_copy, "l1_copy", k.copy, NULL, 1},
        {&peaks->l2_copy, "l2_copy", k.copy, NULL, 2},
        {&peaks->l3_copy, "l3_copy", k.copy, NULL, 3},
        {&peaks->copy, "copy", k.copy, k.copy_stream, 0},
    };

    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++) {
        progress(plans[i].name);
        plans[i].rate->one = measure_rate(cpu, &plans[i], 1, seconds);
        plans[i].rate->all = cpu->threads > 1 ? measure_rate(cpu, &plans[i], cpu->threads, seconds)
                                              : plans[i].rate->one;
    }
}

/* ---- casts ----------------------------------------------------------------------------------- */

/* 8192 elements of up to four bytes, and as many of up to two: about a first cache. */
enum { CAST_ELEMENTS = 1 << 13, CAST_BYTES = 6 * CAST_ELEMENTS };

/* What cast_some runs, in all threads at once. */
static heed_plan_t *cast_plan;

static double cast_some(char *data, size_t bytes)
{
    char workspace[64] __attribute__((aligned(64)));
    void *buffers[HEED_CAST_OPERANDS] = {
        [HEED_CAST_SRC] = data, [HEED_CAST_DST] = data + 4 * CAST_ELEMENTS};

    (void)bytes;
    return heed_plan_execute(cast_plan, buffers, HEED_CAST_OPERANDS, workspace, sizeof(workspace),
                             NULL) == HEED_OK
               ? CAST_ELEMENTS
               : 0;
}

/* Rates of one thread and of all; nothing where there is no such implementation. */
static void measure_cast(const heed_device_info_t *cpu, const char *impl, heed_dtype_t from,
                         heed_dtype_t to, double seconds, heed_rate_t *rate)
{
    heed_context_config_t config = heed_context_config();
    heed_cast_desc_t desc = heed_cast_desc();
    heed_context_t *context;

    config.threads = 1;
    config.tune_file = "none";
    config.impl = impl;
    desc.src = HEED_TENSOR(NULL, from, CAST_ELEMENTS);
    desc.dst = HEED_TENSOR(NULL, to, CAST_ELEMENTS);
    if (heed_context_create(&config, &context) != HEED_OK)
        return;
    if (heed_cast_plan(context, &desc, &cast_plan) == HEED_OK) {
        rate->one = bench_rate(cast_some, NULL, CAST_BYTES, 1, seconds);
        rate->all = cpu->threads > 1
                        ? bench_rate(cast_some, NULL, CAST_BYTES, cpu->threads, seconds)
                        : rate->one;
        heed_plan_destroy(cast_plan);
    }
    heed_context_destroy(context);
}

static void measure_casts(const heed_device_info_t *cpu, double seconds, tune_progress_t progress,
                          heed_peaks_t *peaks)
{
    const struct {
        const char *name, *impl;
        heed_dtype_t from, to;
        heed_rate_t *rate;
    } casts[] = {
        {"encode_avx2", "cast=cpu:cast_avx2", HEED_F32, HEED_E4M3, &peaks->encode_avx2},
        {"encode_avx512", "cast=cpu:cast_avx512*", HEED_F32, HEED_E4M3, &peaks->encode_avx512},
        {"decode_avx2", "cast=cpu:cast_avx2", HEED_E4M3, HEED_BF16, &peaks->decode_avx2},
        {"decode_avx512", "cast=cpu:cast_avx512*", HEED_E4M3, HEED_BF16, &peaks->decode_avx512},
    };

    for (size_t i = 0; i < sizeof(casts) / sizeof(casts[0]); i++) {
        progress(casts[i].name);
        measure_cast(cpu, casts[i].impl, casts[i].from, casts[i].to, seconds, casts[i].rate);
    }
}

/* ---- the cost of a team ---------------------------------------------------------------------- */

/* Many small casts, so large that one starts a team and so small that the team is most of it. */
enum { TEAM_ELEMENTS = 1 << 16, TEAM_ROUNDS = 4000 };

static const double most_team_ns = 200000, assumed_team_ns = 5000;

typedef struct team_plan {
    heed_plan_t *plan;
    double best; /* nanoseconds of a call */
} team_plan_t;

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

static bool new_plan(int threads, void *from, void *to, heed_plan_t **plan)
{
    heed_context_config_t config = heed_context_config();
    heed_cast_desc_t desc = heed_cast_desc();
    heed_context_t *context;

    config.threads = threads;
    config.tune_file = "none";
    config.impl = "cast=cpu:*";
    desc.src = HEED_TENSOR(from, HEED_F32, TEAM_ELEMENTS);
    desc.dst = HEED_TENSOR(to, HEED_BF16, TEAM_ELEMENTS);
    *plan = NULL;
    if (heed_context_create(&config, &context) != HEED_OK)
        return false;
    heed_status_t status = heed_cast_plan(context, &desc, plan);
    heed_context_destroy(context);
    return status == HEED_OK;
}

static bool time_plan(team_plan_t *team, void *from, void *to)
{
    char workspace[4096] __attribute__((aligned(64)));
    void *buffers[HEED_CAST_OPERANDS] = {[HEED_CAST_SRC] = from, [HEED_CAST_DST] = to};
    double start = now_ns();

    if (heed_plan_execute(team->plan, buffers, HEED_CAST_OPERANDS, workspace, sizeof(workspace),
                          NULL) != HEED_OK)
        return false;
    team->best = fmin(team->best, now_ns() - start);
    return true;
}

/* Teams of 1, 2 and all threads, in turns: what one takes beyond its share of the work of one
 * thread. */
static bool measure_region(const heed_device_info_t *cpu, double seconds, heed_peaks_t *peaks)
{
    int threads[] = {1, 2, cpu->threads};
    team_plan_t teams[] = {{NULL, INFINITY}, {NULL, INFINITY}, {NULL, INFINITY}};
    float *from = calloc(TEAM_ELEMENTS, sizeof(*from));
    uint16_t *to = calloc(TEAM_ELEMENTS, sizeof(*to));
    bool good = from && to;

    for (int i = 0; i < 3; i++)
        good = good && new_plan(threads[i], from, to, &teams[i].plan);
    double end = now_ns() + 1e9 * seconds;
    for (int round = 0; round < TEAM_ROUNDS && (round == 0 || now_ns() < end); round++)
        for (int i = 0; i < 3; i++)
            good = good && time_plan(&teams[i], from, to);
    if (!good)
        tool_fail("the cost of a team cannot be measured: %s", heed_last_error());
    for (int i = 0; i < 3; i++)
        heed_plan_destroy(teams[i].plan);
    free(from);
    free(to);
    /* Two threads that never ran at once, on a busy machine, tell nothing. */
    if (good && teams[1].best - teams[0].best / 2 > most_team_ns) {
        fprintf(stderr, "heed: the machine is too busy to tell what a team costs; assumed\n");
        peaks->region_ns = assumed_team_ns;
        return true;
    }
    peaks->region_ns = fmax(teams[1].best - teams[0].best / 2, 0);
    double all = fmax(teams[2].best - teams[0].best / cpu->threads, peaks->region_ns);
    peaks->region_thread_ns = cpu->threads > 2 ? (all - peaks->region_ns) / (cpu->threads - 2) : 0;
    return good;
}

bool tune_measure(const heed_device_info_t *cpu, double seconds, tune_progress_t progress,
                  heed_peaks_t *peaks)
{
    *peaks = (heed_peaks_t){.measured = 1, .threads = cpu->threads};
    measure_rates(cpu, seconds, progress, peaks);
    measure_casts(cpu, seconds, progress, peaks);
    if (cpu->threads > 1) {
        progress("region");
        if (!measure_region(cpu, 8 * seconds, peaks))
            return false;
    }
    progress("");
    return true;
}
