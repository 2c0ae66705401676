/* Arithmetic on a machine that others use too: what heed bench cannot measure there, because it
 * reads the wall's clock and its limits are minutes away. One thread, its own processor time;
 * problems and the loops behind the limits of heed bench take turns. Printed is the sample that 5 %
 * are better than and the median, as useful GFLOP/s and as a part of each loop at the same rank.
 *
 *     cc -O2 -Iinclude -Ibench bench/turns/prefill.c bench/limits_kernels.c -o turns \
 *         build/release/libheed.so -Wl,-rpath,build/release
 *     turns 5 auto 'attention sq=512 d=64 layout=bhsd' 'attention sq=512 d=64 layout=fused'
 *
 * Operands are q, k, v and out, of f32, bf16 or f16. */
#define _GNU_SOURCE
#include "bench_limits.h"

#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MOST_CONTENDERS = 16, MOST_SAMPLES = 100000, LOOPS = 2, OPERANDS = HEED_ATTENTION_OUT + 1 };

typedef struct contender {
    const char *name;
    bench_kernel_t loop; /* NULL: a plan */
    heed_plan_t *plan;
    heed_plan_info_t info;
    void *buffers[HEED_ATTENTION_OPERANDS], *workspace;
    size_t bytes;
    double flops, *samples;
} contender_t;

static void must(int good)
{
    if (good)
        return;
    fprintf(stderr, "turns: %s\n", heed_last_error());
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A number of size about 1, as f32, as its upper half, or as f16 between 2^-3 and 2. */
static void put(char *at, heed_dtype_t dtype, uint32_t random)
{
    float value = (float)(random >> 8) / 8388608.0f - 1;
    uint16_t half = (uint16_t)(0x3000 | random >> 22);
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if (dtype == HEED_BF16)
        half = (uint16_t)(bits >> 16);
    if (dtype == HEED_F32)
        memcpy(at, &bits, sizeof(bits));
    else
        memcpy(at, &half, sizeof(half));
}

/* From the first element to the last, whatever the strides are. */
static void *operand(const heed_tensor_t *tensor)
{
    size_t size = heed_dtype_size(tensor->dtype), count = 1;
    uint32_t random = 1;
    for (int a = 0; a < tensor->ndim; a++)
        count += (size_t)((tensor->shape[a] - 1) * tensor->strides[a]);
    char *at = mmap(NULL, count * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        exit(1);
    (void)madvise(at, count * size, MADV_HUGEPAGE);
    for (size_t i = 0; i < count; i++) {
        random = random * 1664525u + 1013904223u;
        put(at + i * size, tensor->dtype, random);
    }
    return at;
}

static void enter(contender_t *contender, const char *impl, const char *text)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *context;
    heed_problem_t *problem;
    void *desc;
    size_t alignment;
    config.threads = 1;
    config.impl = strcmp(impl, "auto") == 0 ? NULL : impl;
    contender->name = text;
    contender->info.struct_size = sizeof(contender->info);
    must(heed_context_create(&config, &context) == HEED_OK);
    must(heed_problem_parse(text, &problem) == HEED_OK);
    must(heed_problem_desc(problem, &desc) == HEED_OK);
    must(heed_plan_create(context, "attention", desc, &contender->plan) == HEED_OK);
    must(heed_plan_info(contender->plan, &contender->info) == HEED_OK);
    must(heed_plan_workspace(contender->plan, &contender->bytes, &alignment) == HEED_OK);
    contender->flops = contender->info.flops;
    contender->workspace = aligned_alloc(4096, (contender->bytes / 4096 + 1) * 4096);
    for (int i = 0; i < OPERANDS; i++)
        contender->buffers[i] = operand(heed_problem_tensor(problem, i));
    heed_problem_destroy(problem);
}

static void run(contender_t *contender)
{
    if (contender->loop)
        contender->flops = contender->loop(NULL, 0);
    else
        must(heed_plan_execute(contender->plan, contender->buffers, HEED_ATTENTION_OPERANDS,
                               contender->workspace, contender->bytes, NULL) == HEED_OK);
}

/* The second of two runs: operands are where the first has left them. */
static double sample(contender_t *contender)
{
    run(contender);
    double start = seconds(CLOCK_THREAD_CPUTIME_ID);
    run(contender);
    return seconds(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double rate(const contender_t *contender, int turns, int percent)
{
    return contender->flops / contender->samples[turns * percent / 100] * 1e-9;
}

static void report(contender_t *contenders, int count, int turns)
{
    for (int i = 0; i < count; i++)
        qsort(contenders[i].samples, (size_t)turns, sizeof(double), ascending);
    printf("%d turns\n", turns);
    for (int i = 0; i < count; i++)
        for (int percent = 5; percent <= 50; percent += 45) {
            double each = rate(&contenders[i], turns, percent);
            printf(percent == 5 ? "  %8.1f" : "  median %8.1f GFLOP/s", each);
            for (int l = 0; i >= LOOPS && l < LOOPS; l++)
                if (contenders[l].loop)
                    printf(" %5.1f %%", 100 * each / rate(&contenders[l], turns, percent));
            if (percent == 50)
                printf("  %s%s%s\n", contenders[i].info.impl, i < LOOPS ? "" : "  ",
                       contenders[i].name);
        }
}

int main(int argc, char **argv)
{
    static contender_t contenders[LOOPS + MOST_CONTENDERS];
    heed_device_info_t info = {.struct_size = sizeof(info)};
    heed_context_t *context;
    int count = LOOPS, turns = 0;
    if (argc < 4 || argc - 3 > MOST_CONTENDERS) {
        fprintf(stderr, "usage: turns SECONDS IMPL PROBLEM...\n");
        return 2;
    }
    must(heed_context_create(NULL, &context) == HEED_OK);
    must(heed_device_info(context, 0, &info) == HEED_OK);
    bench_kernels_t loops = bench_kernels(info.isa);
    contenders[0] = (contender_t){.name = "f32 multiply-adds", .loop = loops.fma_f32};
    contenders[1] = (contender_t){.name = "bf16 tiles", .loop = loops.tile_bf16};
    for (int i = 3; i < argc; i++)
        enter(&contenders[count++], argv[2], argv[i]);
    for (int i = 0; i < count; i++)
        contenders[i].samples = calloc(MOST_SAMPLES, sizeof(double));

    double end = seconds(CLOCK_MONOTONIC) + atof(argv[1]);
    for (; turns < MOST_SAMPLES && seconds(CLOCK_MONOTONIC) < end; turns++)
        for (int i = 0; i < count; i++)
            if (contenders[i].loop || contenders[i].plan)
                contenders[i].samples[turns] = sample(&contenders[i]);
    report(contenders, count, turns);
    return 0;
}
