/* Casts for the kit. The result is judged bit by bit against rounding the source's double value. */
#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *draw_dtype(kit_random_t *random, uint64_t features)
{
    static const char *const names[] = {"f32", "bf16", "f16"};
    int64_t at = kit_random_int(random, 0, 2);
    for (int i = 0; i < 3 && !(features >> at & 1); i++)
        at = (at + 1) % 3;
    return names[at];
}

static void draw_problem(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    const char *src = draw_dtype(random, features), *dst = draw_dtype(random, features);
    int64_t most = kit_random_next(random) % 8 ? 300 : 20000;
    int64_t n = kit_random_int(random, 0, most), stride[2] = {1, 1};
    if (features & HEED_CAST_CAN_STRIDED && kit_random_next(random) % 2)
        for (int i = 0; i < 2; i++)
            stride[i] = kit_random_int(random, 1, 5);
    snprintf(text, size, "cast src=%s dst=%s n=%lld stride=%lld,%lld", src, dst, (long long)n,
             (long long)stride[0], (long long)stride[1]);
}

static const char *const corners[] = {
    "cast src=f32 dst=bf16 n=0",
    "cast src=f32 dst=bf16 n=1",
    "cast src=bf16 dst=f32 n=1",
    "cast src=f16 dst=bf16 n=17",
    "cast src=f32 dst=f32 n=33",
    "cast src=f32 dst=f16 n=70001",
    "cast src=bf16 dst=f16 n=65537 stride=3,2",
    NULL,
};

static uint64_t dtype_bit(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? HEED_CAST_CAN_F32
           : dtype == HEED_BF16 ? HEED_CAST_CAN_BF16
                                : HEED_CAST_CAN_F16;
}

static uint64_t needs(const void *at)
{
    const heed_cast_desc_t *desc = at;
    bool strided = desc->src.strides[0] != 1 || desc->dst.strides[0] != 1;
    return dtype_bit(desc->src.dtype) | dtype_bit(desc->dst.dtype) |
           (strided && desc->src.shape[0] > 1 ? HEED_CAST_CAN_STRIDED : 0);
}

/* ---- inputs ---------------------------------------------------------------------------------- */

/* A double next to a point between two numbers of `dtype`, or on it: where rounding is decided. */
static double near_midpoint(kit_random_t *random, heed_dtype_t dtype)
{
    uint16_t pair[2];
    pair[0] = (uint16_t)kit_random_next(random);
    pair[1] = (uint16_t)(pair[0] + 1);
    double middle = (kit_load(dtype, pair, 0) + kit_load(dtype, pair, 1)) / 2;
    float value = (float)middle;
    int64_t aside = kit_random_int(random, -1, 1);
    return aside ? nextafterf(value, aside < 0 ? -INFINITY : INFINITY) : value;
}

/* Any bits of the source's type, NaN and subnormal numbers among them. */
static double any_bits(kit_random_t *random, heed_dtype_t dtype)
{
    uint32_t bits = (uint32_t)kit_random_next(random);
    return kit_load(dtype, &bits, 0);
}

static double draw_value(kit_random_t *random, kit_values_t values, heed_dtype_t src)
{
    if (values == KIT_VALUES_PLAIN)
        return kit_random_normal(random);
    switch (kit_random_next(random) % 4) {
    case 0:
        return near_midpoint(random, HEED_BF16);
    case 1:
        return near_midpoint(random, HEED_F16);
    default:
        return any_bits(random, src);
    }
}

/* Doubles cannot carry one here: arithmetic makes it quiet. */
static void signalling_nan(kit_random_t *random, const heed_tensor_t *src, void *data, int64_t at)
{
    uint32_t sign = (uint32_t)(kit_random_next(random) & 1);
    if (src->dtype == HEED_F32)
        ((uint32_t *)data)[at] = sign << 31 | 0x7f800001;
    else
        ((uint16_t *)data)[at] =
            (uint16_t)(sign << 15 | (src->dtype == HEED_F16 ? 0x7c01 : 0x7f81));
}

static void fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                 const kit_buffers_t *buffers)
{
    void *desc;
    if (heed_problem_desc(problem, &desc) != HEED_OK)
        return;
    const heed_tensor_t *src = heed_problem_tensor(problem, HEED_CAST_SRC);
    int64_t count = kit_elements(src);
    double *drawn = malloc((size_t)(count + 1) * sizeof(*drawn));
    for (int64_t i = 0; drawn && i < count; i++)
        drawn[i] = draw_value(random, values, src->dtype);
    if (drawn)
        kit_scatter(src, buffers->data[HEED_CAST_SRC], drawn);
    for (int64_t i = 5; values == KIT_VALUES_EXTREME && i < count; i += 11)
        signalling_nan(random, src, buffers->data[HEED_CAST_SRC], i * src->strides[0]);
    free(drawn);
}

/* ---- judging --------------------------------------------------------------------------------- */

static uint32_t bits_at(const heed_tensor_t *tensor, const void *data, int64_t index)
{
    uint32_t word = 0;
    size_t size = heed_dtype_size(tensor->dtype);
    memcpy(&word, (const char *)data + (size_t)(index * tensor->strides[0]) * size, size);
    return word;
}

/* The quiet bit of a NaN. */
static uint32_t quiet(heed_dtype_t dtype)
{
    return dtype == HEED_F32 ? 0x400000 : dtype == HEED_BF16 ? 0x40 : 0x200;
}

/* Whether `got` is what `value` rounds to: the same bits, or any NaN with the sign, a quiet one
 * where the type `from` has more bits. */
static bool is_right(heed_dtype_t from, heed_dtype_t dtype, double value, uint32_t got)
{
    uint32_t want = 0, sign = dtype == HEED_F32 ? 31 : 15;
    if (!isnan(value)) {
        kit_store(dtype, &want, 0, value);
        return got == want;
    }
    bool narrower = heed_dtype_size(dtype) < heed_dtype_size(from);
    return isnan(kit_load(dtype, &got, 0)) && (!narrower || got & quiet(dtype)) &&
           (got >> sign & 1) == (signbit(value) != 0);
}

static void judge_output(heed_problem_t *problem, const kit_buffers_t *buffers, const char *name,
                         kit_verdict_t *verdict)
{
    const heed_tensor_t *src = heed_problem_tensor(problem, HEED_CAST_SRC);
    const heed_tensor_t *dst = heed_problem_tensor(problem, HEED_CAST_DST);
    for (int64_t i = 0; i < dst->shape[0]; i++) {
        double value = kit_load(src->dtype, buffers->data[HEED_CAST_SRC], i * src->strides[0]);
        uint32_t got = bits_at(dst, buffers->data[HEED_CAST_DST], i);
        if (is_right(src->dtype, dst->dtype, value, got))
            continue;
        verdict->max_err = verdict->worst_ratio = INFINITY;
        snprintf(verdict->sentence, sizeof(verdict->sentence),
                 "%s[%lld] = 0x%x, which is no rounding of %a to %s", name, (long long)i, got,
                 value, heed_dtype_name(dst->dtype));
        return;
    }
}

static void judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                  heed_problem_t *reference_problem, const kit_buffers_t *reference,
                  kit_verdict_t *verdict)
{
    (void)features;
    void *desc;
    *verdict = (kit_verdict_t){0};
    if (heed_problem_desc(problem, &desc) != HEED_OK ||
        heed_problem_desc(reference_problem, &desc) != HEED_OK) {
        verdict->worst_ratio = INFINITY;
        snprintf(verdict->sentence, sizeof(verdict->sentence), "%s", heed_last_error());
        return;
    }
    judge_output(reference_problem, reference, "reference dst", verdict);
    judge_output(problem, buffers, "dst", verdict);
}

const kit_op_t kit_op_cast = {.op = "cast",
                              .corners = corners,
                              .needs = needs,
                              .draw = draw_problem,
                              .fill = fill,
                              .reference_words = "",
                              .judge = judge};
