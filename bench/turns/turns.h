/* What the programs beside share: clocks, plans with their memory, numbers for operands. */
#ifndef BENCH_TURNS_H
#define BENCH_TURNS_H

#include "bench_limits.h"

#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MOST_SAMPLES = 100000 };

/* Ends the program with the library's sentence. */
static inline void must(int good)
{
    if (good)
        return;
    fprintf(stderr, "turns: %s\n", heed_last_error());
    exit(1);
}

static inline double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The loops of this machine that measure its limits. */
static inline bench_kernels_t limit_loops(void)
{
    heed_context_t *context;
    heed_device_info_t info = {.struct_size = sizeof(info)};
    must(heed_context_create(NULL, &context) == HEED_OK);
    must(heed_device_info(context, 0, &info) == HEED_OK);
    heed_context_destroy(context);
    return bench_kernels(info.isa);
}

/* ---- plans ----------------------------------------------------------------------------------- */

typedef struct turns_plan {
    heed_plan_t *plan; /* NULL: none */
    void *workspace;
    size_t bytes;
} turns_plan_t;

/* A plan of one thread and its workspace; impl NULL: the automatic choice. The problem is the
 * caller's to destroy. */
static inline heed_problem_t *plan_problem(turns_plan_t *to, const char *impl, const char *text)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *context;
    heed_problem_t *problem;
    void *desc;
    size_t alignment;
    config.threads = 1;
    config.impl = impl;
    must(heed_context_create(&config, &context) == HEED_OK);
    must(heed_problem_parse(text, &problem) == HEED_OK);
    must(heed_problem_desc(problem, &desc) == HEED_OK);
    must(heed_plan_create(context, "attention", desc, &to->plan) == HEED_OK);
    must(heed_plan_workspace(to->plan, &to->bytes, &alignment) == HEED_OK);
    to->workspace = aligned_alloc(4096, (to->bytes / 4096 + 1) * 4096);
    return problem;
}

static inline void run_plan(const turns_plan_t *plan, void *const *buffers)
{
    must(heed_plan_execute(plan->plan, buffers, HEED_ATTENTION_OPERANDS, plan->workspace,
                           plan->bytes, NULL) == HEED_OK);
}

/* ---- operands -------------------------------------------------------------------------------- */

static inline char *map(size_t bytes)
{
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        exit(1);
    (void)madvise(at, bytes, MADV_HUGEPAGE);
    return at;
}

/* Numbers of size about 1: of two bytes the upper halves of f32, or f16 between 2^-3 and 2; of one,
 * codes below NaN. Integers come without a scale: larger ones would leave one key with all the
 * weight, and sums that underflow. */
static inline void fill(char *at, size_t bytes, heed_dtype_t dtype)
{
    uint32_t random = 1;
    size_t size = heed_dtype_size(dtype);
    for (size_t i = 0; i + size <= bytes; i += size) {
        random = random * 1664525u + 1013904223u;
        float value = (float)(random >> 8) / 8388608.0f - 1;
        uint32_t bits;
        memcpy(&bits, &value, sizeof(bits));
        uint16_t half =
            dtype == HEED_F16 ? (uint16_t)(0x3000 | random >> 22) : (uint16_t)(bits >> 16);
        uint8_t code = (uint8_t)(dtype == HEED_I8 ? (random >> 29) - 4 : random >> 20 & 0xb7);
        memcpy(at + i, size == 4 ? (void *)&bits : size == 2 ? (void *)&half : (void *)&code, size);
    }
}

#endif
