/* Dilated attention for the kit. Outputs are held against cpu:standard, which computes in doubles
 * and is itself held against the original packages' results in tests/test_dilated.c.
 *
 * The bound is that of attention (attention_bound.c) with the largest norms of the whole problem:
 * scores off by a = g(D + 4) |scale| |q| |k|, weights by e, sums by g(2N + 8), and each branch that
 * is merged rounds out once more and weighs with an lse that is off by as much. */
#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const corners[] = {
    "dilated n=0 hq=2 d=16 segments=4 rates=1",
    "dilated n=1 hq=3 d=16 segments=1,8 rates=1,3 lse=1",
    "dilated n=64 hq=4 d=32 segments=16,32 rates=1,2 causal=1",
    "dilated n=100 hq=6 hk=2 d=16 dv=24 segments=16,48 rates=2,5 lse=1",
    "dilated n=97 hq=8 d=8 segments=12,30,90 rates=1,4,7 causal=1 offset-rule=torchscale lse=1",
    "dilated n=40 hq=4 d=8 segments=4,20 rates=6,1",
    "dilated n=45 hq=8 d=8 segments=8,16,30 rates=1,2,3 mode=grouped lse=1",
    "dilated n=48 hq=4 d=8 segments=16 rates=3 mode=torchscale",
    "dilated n=64 hq=5 d=8 segments=16,32 rates=1,2 mode=grouped_fkodom causal=1",
    NULL};

static const char *pick(kit_random_t *random, uint64_t features, uint64_t bit, const char *yes,
                        const char *no)
{
    return features & bit && kit_random_next(random) % 2 ? yes : no;
}

static void draw(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    static const char *const modes[] = {"longnet", "torchscale", "grouped", "grouped_fkodom"};
    char segments[64] = "", rates[64] = "";
    int branches = (int)kit_random_int(random, 1, 3), mode = (int)kit_random_int(random, 0, 3);
    while (!(features & (uint64_t)HEED_DILATED_CAN_LONGNET << mode))
        mode = (mode + 1) % 4;
    int64_t segment = kit_random_int(random, 1, 24), longest = 0;
    for (int i = 0; i < branches; i++) {
        snprintf(segments + strlen(segments), 20, "%s%lld", i ? "," : "", (long long)segment);
        snprintf(rates + strlen(rates), 20, "%s%lld", i ? "," : "",
                 (long long)kit_random_int(random, 1, 5));
        longest = segment;
        segment *= kit_random_int(random, 1, 3);
    }
    int64_t n = mode == 3 ? longest * kit_random_int(random, 1, 3) : kit_random_int(random, 1, 130);
    bool divides = mode >= 2; /* heads, among branches: as many key heads */
    int64_t hk = divides ? branches + kit_random_int(random, 0, 3) : kit_random_int(random, 1, 5);
    int64_t group =
        divides || !(features & HEED_DILATED_CAN_GROUPED_HEADS) ? 1 : kit_random_int(random, 1, 3);
    snprintf(text, size,
             "dilated dtype=%s b=%d n=%lld hq=%lld hk=%lld d=%lld dv=%lld segments=%s rates=%s "
             "mode=%s offset-rule=%s causal=%s lse=%s out=%s",
             pick(random, features, HEED_DILATED_CAN_NARROW,
                  kit_random_next(random) % 2 ? "bf16" : "f16", "f32"),
             (int)kit_random_int(random, 1, 2), (long long)n, (long long)(hk * group),
             (long long)hk, (long long)kit_random_int(random, 1, 40),
             (long long)kit_random_int(random, 1, 40), segments, rates, modes[mode],
             kit_random_next(random) % 2 ? "paper" : "torchscale",
             pick(random, features, HEED_DILATED_CAN_CAUSAL, "1", "0"),
             mode == 3 ? "0" : pick(random, features, HEED_DILATED_CAN_LSE, "1", "0"),
             kit_random_next(random) % 2 ? "f32" : "same");
}

static uint64_t needs(const void *at)
{
    const heed_dilated_desc_t *desc = at;
    uint64_t bits = (uint64_t)HEED_DILATED_CAN_LONGNET << desc->mode;
    if (desc->causal)
        bits |= HEED_DILATED_CAN_CAUSAL;
    if (desc->q.shape[2] != desc->k.shape[2])
        bits |= HEED_DILATED_CAN_GROUPED_HEADS;
    if (desc->lse.ndim)
        bits |= HEED_DILATED_CAN_LSE;
    if (desc->q.dtype != HEED_F32)
        bits |= HEED_DILATED_CAN_NARROW;
    return bits;
}

static void fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                 const kit_buffers_t *buffers)
{
    for (int i = HEED_DILATED_Q; i <= HEED_DILATED_V; i++) {
        const heed_tensor_t *tensor = heed_problem_tensor(problem, i);
        int64_t count = kit_elements(tensor);
        double *numbers = malloc((size_t)(count + 1) * sizeof(double));
        if (!numbers)
            return;
        for (int64_t n = 0; n < count; n++) {
            numbers[n] = kit_random_normal(random);
            if (values == KIT_VALUES_EXTREME && i == HEED_DILATED_Q)
                numbers[n] *= 20;
            /* grouped_fkodom divides by sums of outputs, which must not be near 0. */
            if (i == HEED_DILATED_V)
                numbers[n] = 2 + numbers[n] / 4;
        }
        kit_scatter(tensor, buffers->data[i], numbers);
        free(numbers);
    }
}

/* ---- judging --------------------------------------------------------------------------------- */

static double largest_norm(heed_problem_t *problem, const kit_buffers_t *buffers, int operand)
{
    const heed_tensor_t *tensor = heed_problem_tensor(problem, operand);
    double *numbers = kit_gather(tensor, buffers->data[operand]), largest = 0;
    int64_t d = tensor->shape[3];
    for (int64_t row = 0; numbers && row < kit_elements(tensor) / d; row++) {
        double sum = 0;
        for (int64_t c = 0; c < d; c++)
            sum += numbers[row * d + c] * numbers[row * d + c];
        largest = fmax(largest, sqrt(sum));
    }
    free(numbers);
    return largest;
}

/* Holds one output against the reference's. */
static void compare(heed_problem_t *problem, const kit_buffers_t *buffers,
                    heed_problem_t *reference_problem, const kit_buffers_t *reference, int operand,
                    double bound, kit_verdict_t *verdict)
{
    const heed_tensor_t *tensor = heed_problem_tensor(problem, operand);
    double *got = kit_gather(tensor, buffers->data[operand]);
    double *want =
        kit_gather(heed_problem_tensor(reference_problem, operand), reference->data[operand]);
    const char *name = operand == HEED_DILATED_LSE ? "lse" : "out";
    if (!got || !want)
        snprintf(verdict->sentence, sizeof(verdict->sentence), "out of memory");
    for (int64_t n = 0; got && want && n < kit_elements(tensor); n++) {
        double allowed = bound * (operand == HEED_DILATED_LSE ? 1 : 3 + fabs(want[n]));
        double err = got[n] == want[n] ? 0 : fabs(got[n] - want[n]);
        double ratio = isnan(err) ? INFINITY : err / allowed;
        verdict->max_err = fmax(verdict->max_err, err);
        if (ratio > 1 && ratio > verdict->worst_ratio)
            snprintf(verdict->sentence, sizeof(verdict->sentence),
                     "%s element %lld = %.9g, should be %.9g +- %.2g", name, (long long)n, got[n],
                     want[n], allowed);
        verdict->worst_ratio = fmax(verdict->worst_ratio, ratio);
    }
    free(got);
    free(want);
}

static void judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                  heed_problem_t *reference_problem, const kit_buffers_t *reference,
                  kit_verdict_t *verdict)
{
    void *at;
    (void)features;
    *verdict = (kit_verdict_t){0};
    if (heed_problem_desc(problem, &at) != HEED_OK)
        return;
    const heed_dilated_desc_t *desc = at;
    double u = 0x1p-24, d = (double)desc->q.shape[3], n = (double)desc->q.shape[1];
    double weight = desc->q.dtype == HEED_BF16  ? 0x1p-8
                    : desc->q.dtype == HEED_F16 ? 0x1p-11
                                                : 0x1p-20;
    double scale = desc->scale == 0 ? 1 / sqrt(d) : fabs((double)desc->scale);
    double score = (d + 4) * u * scale * largest_norm(problem, buffers, HEED_DILATED_Q) *
                   largest_norm(problem, buffers, HEED_DILATED_K);
    double branch = expm1(2 * score) + 4 * (2 * n + 8) * u + 2 * weight;
    double rounded = kit_unit_roundoff(desc->out.dtype);
    compare(problem, buffers, reference_problem, reference, HEED_DILATED_OUT,
            desc->branches * (branch + rounded), verdict);
    if (desc->lse.ndim && !verdict->sentence[0])
        compare(problem, buffers, reference_problem, reference, HEED_DILATED_LSE,
                desc->branches * branch + 1e-5, verdict);
}

const kit_op_t kit_op_dilated = {.op = "dilated",
                                 .draw = draw,
                                 .fill = fill,
                                 .corners = corners,
                                 .needs = needs,
                                 .reference_words = "out=f32",
                                 .judge = judge};
