/* Casts against a model in doubles and f32 arithmetic that shares nothing with the library: fp8.c
 * finds codes by search. */
#include "kit_cast.h"
#include "kit_fp8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t word_at(const heed_tensor_t *tensor, const void *data, int64_t offset)
{
    uint32_t word = 0;
    size_t size = heed_dtype_size(tensor->dtype);
    memcpy(&word, (const char *)data + (size_t)offset * size, size);
    return word;
}

/* ---- the model ------------------------------------------------------------------------------- */

typedef struct model {
    const heed_cast_desc_t *desc;
    void *const *data;
    int64_t groups;
    float *amax, *multiplier, *factor; /* by group; factor: what brings a result back */
    int64_t counts[HEED_CAST_COUNTS_SIZE];
    double loss[HEED_CAST_LOSS_SIZE];
    char *sentence;
    size_t size;
} model_t;

static int64_t extent(const heed_cast_desc_t *desc, int axis)
{
    int last = desc->src.ndim - 1;
    int64_t whole = desc->src.shape[axis] ? desc->src.shape[axis] : 1;
    switch (desc->scaling) {
    case HEED_SCALE_ROW:
        return axis == last ? whole : 1;
    case HEED_SCALE_COLUMN:
        return axis == last ? 1 : whole;
    case HEED_SCALE_HEAD:
        return axis == last - 1 ? 1 : whole;
    case HEED_SCALE_BLOCK:
        return axis < last - 1 ? 1 : desc->block[axis - last + 1];
    default:
        return whole;
    }
}

static int64_t group_of(const heed_cast_desc_t *desc, int64_t i)
{
    int64_t group = 0, step = 1;
    for (int axis = desc->src.ndim - 1; axis >= 0; axis--) {
        int64_t length = desc->src.shape[axis], block = extent(desc, axis);
        group += i % length / block * step;
        step *= (length + block - 1) / block;
        i /= length;
    }
    return group;
}

static double largest_of(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? 0x1.fffffep127
           : dtype == HEED_BF16 ? 0x1.fep127
           : dtype == HEED_F16  ? 65504
                                : kit_fp8_value(dtype, kit_fp8_largest(dtype));
}

static float source_at(const model_t *m, int64_t i)
{
    const heed_tensor_t *src = &m->desc->src;
    int64_t offset = offset_of(src, i);
    /* Bits, where arithmetic would make a NaN quiet. */
    if (src->dtype == HEED_F32)
        return kit_float(word_at(src, m->data[HEED_CAST_SRC], offset));
    if (src->dtype == HEED_BF16)
        return kit_float(word_at(src, m->data[HEED_CAST_SRC], offset) << 16);
    double value = kit_load(src->dtype, m->data[HEED_CAST_SRC], offset);
    return isnan(value) ? copysignf(NAN, (float)copysign(1, value)) : (float)value;
}

static void find_amax(const model_t *m)
{
    for (int64_t i = 0; i < kit_elements(&m->desc->src); i++) {
        float *amax = &m->amax[group_of(m->desc, i)], value = fabsf(source_at(m, i));
        if (isnan(value) || value > *amax)
            *amax = isnan(*amax) ? *amax : isnan(value) ? fabsf(NAN) : value;
    }
}

/* E8M0 code of the smallest power of two that brings amax to the largest number or below. */
static uint8_t mx_code(float amax, double largest)
{
    int exponent = -127;
    if (isnan(amax) || isinf(amax))
        return 0xff;
    while (exponent < 127 && (double)amax > ldexp(largest, exponent))
        exponent++;
    return (uint8_t)(exponent + 127);
}

static float computed_multiplier(const heed_cast_desc_t *desc, float amax)
{
    double largest = largest_of(desc->dst.dtype);
    int exponent;
    if (amax < desc->amax_floor)
        amax = desc->amax_floor;
    if (desc->scale_form == HEED_SCALE_FORM_MX) {
        uint8_t code = mx_code(amax, largest);
        return code == 0xff ? NAN : ldexpf(1, 127 - code);
    }
    if (!(amax > 0) || isinf(amax))
        return 1;
    float quotient = (float)largest / amax;
    if (isinf(quotient))
        quotient = 0x1.fffffep127f;
    return desc->scale_form == HEED_SCALE_FORM_POW2
               ? (frexpf(quotient, &exponent), ldexpf(1, exponent - 1))
               : quotient;
}

static bool say(model_t *m, const char *name, const char *operand, int64_t i, uint32_t got,
                uint32_t want)
{
    snprintf(m->sentence, m->size, "%s%s[%lld] = 0x%x, should be 0x%x", name, operand, (long long)i,
             got, want);
    return false;
}

static bool same_float(uint32_t got, float want)
{
    return got == kit_bits(want) || (isnan(want) && got == 0x7fc00000);
}

/* Multipliers, and scales and amax that were written. */
static bool judge_groups(model_t *m, const char *name)
{
    const heed_cast_desc_t *desc = m->desc;
    const heed_tensor_t *given = &desc->scale, *computed = &desc->scale_out, *amax = &desc->amax;
    bool divides = desc->scale_use == HEED_SCALE_DIVIDES;
    for (int64_t g = 0; g < m->groups; g++) {
        m->multiplier[g] = m->factor[g] = 1;
        if (given->ndim) {
            float scale =
                (float)kit_load(given->dtype, m->data[HEED_CAST_SCALE], offset_of(given, g));
            m->multiplier[g] = divides ? 1 / scale : scale;
            m->factor[g] = divides ? scale : 1 / scale;
            m->counts[HEED_COUNT_BAD_SCALES] += scale == 0 || isnan(scale) || isinf(scale);
        }
        if (computed->ndim) {
            float by = computed_multiplier(desc, m->amax[g]), stored = divides ? 1 / by : by;
            uint32_t got = word_at(computed, m->data[HEED_CAST_SCALE_OUT], offset_of(computed, g));
            uint32_t want = kit_bits(stored);
            if (computed->dtype == HEED_E8M0)
                want = isnan(by) ? 0xff : (uint32_t)(127 - ilogbf(by));
            if (got != want)
                return say(m, name, "scale_out", g, got, want);
            m->multiplier[g] = by;
            m->factor[g] = divides && !isnan(by) ? stored : 1 / by;
            m->counts[HEED_COUNT_BAD_SCALES] += isnan(by) != 0;
        }
        if (amax->ndim) {
            uint32_t got = word_at(amax, m->data[HEED_CAST_AMAX], offset_of(amax, g));
            if (!same_float(got, m->amax[g]))
                return say(m, name, "amax", g, got, kit_bits(m->amax[g]));
        }
    }
    return true;
}

/* Whether `got` is what `value` rounds to in f32, bf16, f16: the same bits, or any NaN with the
 * sign, a quiet one where the type `from` has more bits. */
static bool is_rounding(heed_dtype_t from, heed_dtype_t dtype, float value, uint32_t got,
                        uint32_t *want)
{
    uint32_t sign = dtype == HEED_F32 ? 31 : 15;
    uint32_t quiet = dtype == HEED_F32 ? 0x400000 : dtype == HEED_BF16 ? 0x40 : 0x200;
    *want = 0;
    kit_store(dtype, want, 0, (double)value);
    if (!isnan(value))
        return got == *want;
    bool narrower = heed_dtype_size(dtype) < heed_dtype_size(from);
    return isnan(kit_load(dtype, &got, 0)) && (!narrower || got & quiet) &&
           (got >> sign & 1) == (signbit(value) != 0);
}

/* Counts by doubles: what is beyond is what rounds otherwise without an end to exponents. */
static void count(model_t *m, float x, float product, uint32_t got, uint32_t random)
{
    const heed_cast_desc_t *desc = m->desc;
    heed_dtype_t dtype = desc->dst.dtype;
    double largest = largest_of(dtype), p = fabs((double)product);
    if (isnan(x) || isinf(x)) {
        m->counts[isnan(x) ? HEED_COUNT_NAN : HEED_COUNT_INF]++;
        return;
    }
    if (isnan(product))
        return;
    m->counts[HEED_COUNT_CLIPPED] += p > largest;
    if (p > largest) {
        heed_cast_desc_t rules = *desc;
        uint32_t word = 0;
        bool beyond;
        rules.overflow = HEED_OVERFLOW_NOSAT;
        if (heed_dtype_size(dtype) == 1)
            beyond = isinf(p) || (kit_fp8_round(&rules, dtype, (float)p, random) & 0xff) >
                                     (dtype == HEED_E4M3FNUZ || dtype == HEED_E5M2FNUZ
                                          ? 0x7f
                                          : kit_fp8_largest(dtype));
        else {
            kit_store(dtype, &word, 0, p);
            beyond = isinf(kit_load(dtype, &word, 0));
        }
        m->counts[HEED_COUNT_OVERFLOWED] += beyond;
    }
    uint32_t magnitude = got & ~(1u << (8 * heed_dtype_size(dtype) - 1));
    bool lost = dtype == HEED_E8M0                                 ? p < 0x1p-127
                : dtype == HEED_E4M3FNUZ || dtype == HEED_E5M2FNUZ ? got == 0
                                                                   : magnitude == 0;
    m->counts[HEED_COUNT_UNDERFLOWED] += x != 0 && lost;
}

static void lose(model_t *m, float x, uint32_t got, float factor)
{
    const float y = (float)kit_load(m->desc->dst.dtype, &got, 0) * factor;
    const double error = fabs((double)x - (double)y);
    if (!isfinite(x) || !isfinite(y))
        return;
    m->loss[HEED_LOSS_SIGNAL] += (double)x * (double)x;
    m->loss[HEED_LOSS_NOISE] += error * error;
    m->loss[HEED_LOSS_WORST] = fmax(m->loss[HEED_LOSS_WORST], error);
}

static bool judge_elements(model_t *m, const char *name)
{
    const heed_cast_desc_t *desc = m->desc;
    heed_dtype_t dtype = desc->dst.dtype;
    bool scaled = desc->scale.ndim || desc->scale_out.ndim;
    for (int64_t i = 0; i < kit_elements(&desc->src); i++) {
        float x = source_at(m, i), product = x;
        if (scaled && !isnan(x)) {
            product = x * m->multiplier[group_of(desc, i)];
            product = isnan(product) ? fabsf(NAN) : product;
        }
        uint32_t random = kit_philox(desc->seed, (uint64_t)i);
        uint32_t got = word_at(&desc->dst, m->data[HEED_CAST_DST], offset_of(&desc->dst, i)), want;
        bool right;
        if (heed_dtype_size(dtype) == 1) {
            want = kit_fp8_round(desc, dtype, product, random);
            right = got == want;
        } else
            right = is_rounding(desc->src.dtype, dtype, product, got, &want);
        if (!right)
            return say(m, name, "dst", i, got, want);
        count(m, x, product, got, random);
        lose(m, x, got, m->factor[group_of(desc, i)]);
    }
    return true;
}

/* The largest difference bit by bit, sums but for the order of their additions. */
static bool judge_loss(model_t *m, const char *name)
{
    const double *got = m->data[HEED_CAST_LOSS], rounding = 0x1p-53 * 1e6;
    for (int i = 0; m->desc->loss.ndim && i < HEED_CAST_LOSS_SIZE; i++) {
        const double bound = i == HEED_LOSS_WORST ? 0 : m->loss[i] * rounding;
        if (fabs(got[i] - m->loss[i]) <= bound)
            continue;
        snprintf(m->sentence, m->size, "%sloss[%d] = %.17g, should be %.17g", name, i, got[i],
                 m->loss[i]);
        return false;
    }
    return true;
}

static bool judge_rest(model_t *m, const char *name)
{
    const heed_tensor_t *counts = &m->desc->counts, *swapped = &m->desc->transposed;
    for (int64_t i = 0; counts->ndim && i < HEED_CAST_COUNTS_SIZE; i++) {
        int64_t got = ((const int64_t *)m->data[HEED_CAST_COUNTS])[i];
        if (got != m->counts[i])
            return say(m, name, "counts", i, (uint32_t)got, (uint32_t)m->counts[i]);
    }
    if (!swapped->ndim)
        return true;
    int last = swapped->ndim - 1;
    int64_t rows = swapped->shape[last], columns = swapped->shape[last - 1];
    for (int64_t i = 0; i < kit_elements(swapped); i++) {
        int64_t matrix = i / (rows * columns), c = i / rows % columns, r = i % rows;
        int64_t from = offset_of(&m->desc->dst, (matrix * rows + r) * columns + c);
        uint32_t want = word_at(&m->desc->dst, m->data[HEED_CAST_DST], from);
        uint32_t got = word_at(swapped, m->data[HEED_CAST_TRANSPOSED], offset_of(swapped, i));
        if (got != want)
            return say(m, name, "transposed", i, got, want);
    }
    return true;
}

static void judge_output(heed_problem_t *problem, const kit_buffers_t *buffers, const char *name,
                         kit_verdict_t *verdict)
{
    void *desc;
    model_t m = {.data = buffers->data,
                 .groups = 1,
                 .sentence = verdict->sentence,
                 .size = sizeof(verdict->sentence)};
    bool good = heed_problem_desc(problem, &desc) == HEED_OK;
    m.desc = desc;
    for (int i = 0; good && i < m.desc->src.ndim; i++) {
        int64_t block = extent(m.desc, i);
        m.groups *= (m.desc->src.shape[i] + block - 1) / block;
    }
    m.amax = calloc((size_t)m.groups * 3 + 1, sizeof(float));
    m.multiplier = m.amax ? m.amax + m.groups : NULL;
    m.factor = m.amax ? m.multiplier + m.groups : NULL;
    if (!good || !m.amax)
        snprintf(verdict->sentence, sizeof(verdict->sentence), "%s", heed_last_error());
    else {
        find_amax(&m);
        good = judge_groups(&m, name) && judge_elements(&m, name) && judge_rest(&m, name) &&
               judge_loss(&m, name);
    }
    if (!good)
        verdict->max_err = verdict->worst_ratio = INFINITY;
    free(m.amax);
}

void kit_cast_judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                    heed_problem_t *reference_problem, const kit_buffers_t *reference,
                    kit_verdict_t *verdict)
{
    (void)features;
    *verdict = (kit_verdict_t){0};
    judge_output(reference_problem, reference, "reference ", verdict);
    if (!verdict->sentence[0])
        judge_output(problem, buffers, "", verdict);
}
