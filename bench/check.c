/* Compares an implementation with the reference before it is timed. The reference computes every
 * score in double precision, one after the other, so a large problem is checked by a smaller one
 * that meets the same code: the same words, one batch entry, few heads, and lengths that leave the
 * same remainder in every tile. What was checked is part of the result. */
#include "bench.h"

#include "kit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char reference_impl[] = "cpu:standard";

/* What the reference may cost: about half a second. */
static const double most_flops = 3e8;
static const double most_bytes = 1e8;

enum { MAX_AXES = 16 };

typedef struct axis {
    char name[BENCH_NAME];
    int64_t length;
} axis_t;

static axis_t *find_axis(axis_t *axes, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(axes[i].name, name))
            return &axes[i];
    return NULL;
}

/* The axes of all operands, each word once. Returns how many, -1 after an error. */
static int read_axes(heed_problem_t *problem, axis_t *axes)
{
    heed_op_operand_t operand;
    void *desc;
    int count = 0;

    if (heed_problem_desc(problem, &desc) != HEED_OK)
        return -1;
    for (int o = 0; heed_op_operand(heed_problem_op(problem), o, &operand); o++) {
        const heed_tensor_t *tensor = heed_problem_tensor(problem, o);
        const char *names = operand.shape;
        char name[BENCH_NAME];
        for (int a = 0; a < tensor->ndim && bench_next_item(&names, name, sizeof(name)); a++)
            if (count < MAX_AXES && !find_axis(axes, count, name)) {
                memcpy(axes[count].name, name, sizeof(name));
                axes[count++].length = tensor->shape[a];
            }
    }
    return count;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* About `base`, a multiple of all tile sizes, with the remainder that `length` leaves. */
static int64_t shorter(int64_t length, int64_t base)
{
    return length > 2 * base ? base + length % base : length;
}

/* Shortens what only repeats work: one batch entry, and the fewest heads that keep their ratio, but
 * two groups, so that a wrong step from one to the next is seen. Then every longer axis; one that
 * was longer than another stays longer. Head dims are never that long. */
static void shorten(axis_t *axes, int count, int64_t base)
{
    axis_t *batch = find_axis(axes, count, "b");
    axis_t *heads = find_axis(axes, count, "hq");
    axis_t *key_heads = find_axis(axes, count, "hk");
    int64_t lengths[MAX_AXES];

    if (batch && batch->length > 1)
        batch->length = 1;
    if (heads && key_heads) {
        int64_t groups = common_divisor(heads->length, key_heads->length);
        int64_t divisor = groups % 2 || !groups ? groups : groups / 2;
        if (divisor > 1) {
            heads->length /= divisor;
            key_heads->length /= divisor;
        }
    }
    for (int i = 0; i < count; i++)
        lengths[i] = shorter(axes[i].length, base);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < count; j++)
            if (axes[i].length > 2 * base && axes[i].length > axes[j].length &&
                lengths[i] < lengths[j])
                lengths[i] += base;
    for (int i = 0; i < count; i++)
        axes[i].length = lengths[i];
}

/* Sets what has changed. */
static bool apply(heed_problem_t *problem, const axis_t *axes, const axis_t *original, int count)
{
    char length[32];

    for (int i = 0; i < count; i++) {
        if (axes[i].length == original[i].length)
            continue;
        snprintf(length, sizeof(length), "%lld", (long long)axes[i].length);
        if (heed_problem_set(problem, axes[i].name, length) != HEED_OK)
            return false;
    }
    return true;
}

/* Whether the reference can afford the problem; *good false after an error. */
static bool affordable(heed_context_t *reference, heed_problem_t *problem, bool *good)
{
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    heed_plan_t *plan = NULL;
    void *desc;

    *good = heed_problem_desc(problem, &desc) == HEED_OK &&
            heed_plan_create(reference, heed_problem_op(problem), desc, &plan) == HEED_OK &&
            heed_plan_info(plan, &info) == HEED_OK;
    heed_plan_destroy(plan);
    return *good && info.flops <= most_flops && info.bytes <= most_bytes;
}

/* Tries the problem as it is, then ever smaller ones; the smallest is taken whatever it costs. */
static bool reduce(heed_context_t *reference, heed_problem_t *problem)
{
    axis_t original[MAX_AXES];
    int count = read_axes(problem, original);
    bool good;

    if (count < 0)
        return false;
    if (affordable(reference, problem, &good) || !good)
        return good;
    for (int64_t base = 1 << 20; base >= 256; base /= 2) {
        axis_t axes[MAX_AXES];
        memcpy(axes, original, sizeof(axes));
        shorten(axes, count, base);
        if (!apply(problem, axes, original, count))
            return false;
        if (affordable(reference, problem, &good) || !good)
            return good;
    }
    return true;
}

static heed_status_t reference_context(heed_context_t **context)
{
    heed_context_config_t config = heed_context_config();

    config.ignore_environment = 1;
    config.impl = reference_impl;
    return heed_context_create(&config, context);
}

bool bench_reduce(const char *text, char *reduced, size_t size)
{
    heed_context_t *reference = NULL;
    heed_problem_t *problem = NULL;
    bool good = reference_context(&reference) == HEED_OK &&
                heed_problem_parse(text, &problem) == HEED_OK && reduce(reference, problem);

    if (good)
        heed_problem_text(problem, reduced, size);
    heed_problem_destroy(problem);
    heed_context_destroy(reference);
    return good;
}

bool bench_check(heed_context_t *context, heed_device_t device, const char *text, char **checked,
                 double *max_err, char *why, size_t size)
{
    static const char *const outcomes[] = {"", "wrong", "refuses what it is checked by"};
    heed_context_t *reference = NULL;
    kit_verdict_t verdict = {0};
    char reduced[BENCH_TEXT];
    kit_outcome_t outcome = KIT_FAILED;
    bool ran =
        bench_reduce(text, reduced, sizeof(reduced)) && reference_context(&reference) == HEED_OK;

    if (ran) {
        outcome = kit_check(context, device, reference, reduced, 1, KIT_VALUES_PLAIN, &verdict);
        snprintf(why, size, "%s: %s (%s)", outcomes[outcome], verdict.sentence, reduced);
    } else {
        snprintf(why, size, "cannot be checked: %s", heed_last_error());
    }
    heed_context_destroy(reference);
    if (!ran || outcome != KIT_PASSED)
        return false;
    *checked = bench_strdup(reduced);
    *max_err = verdict.max_err;
    return true;
}
