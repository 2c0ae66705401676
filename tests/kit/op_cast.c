/* Casts for the kit. Results are judged bit by bit against a model in doubles and f32 arithmetic
 * that shares nothing with the library: fp8.c finds codes by search. */
#include "kit_fp8.h"
#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    heed_dtype_t dtype;
    uint64_t bit;
} dtypes[] = {{"f32", HEED_F32, HEED_CAST_CAN_F32},
              {"bf16", HEED_BF16, HEED_CAST_CAN_BF16},
              {"f16", HEED_F16, HEED_CAST_CAN_F16},
              {"e4m3", HEED_E4M3, HEED_CAST_CAN_E4M3},
              {"e5m2", HEED_E5M2, HEED_CAST_CAN_E5M2},
              {"e4m3fnuz", HEED_E4M3FNUZ, HEED_CAST_CAN_FP8_OTHER},
              {"e5m2fnuz", HEED_E5M2FNUZ, HEED_CAST_CAN_FP8_OTHER},
              {"e4m3ieee", HEED_E4M3IEEE, HEED_CAST_CAN_FP8_OTHER},
              {"e8m0", HEED_E8M0, HEED_CAST_CAN_FP8_OTHER}};
enum { DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

/* ---- problems -------------------------------------------------------------------------------- */

static int draw_dtype(kit_random_t *random, uint64_t features)
{
    int at = (int)kit_random_int(random, 0, DTYPES - 1);
    for (int i = 0; i < DTYPES && !(features & dtypes[at].bit); i++)
        at = (at + 1) % DTYPES;
    return at;
}

static bool draw_bit(kit_random_t *random, uint64_t features, uint64_t bit)
{
    return features & bit && kit_random_next(random) % 2;
}

static int draw_scales(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    static const char *const scales[] = {"tensor", "row", "column", "block", "head"};
    static const char *const forms[] = {"f32", "pow2", "mx"};
    bool given = draw_bit(random, features, HEED_CAST_CAN_SCALE);
    bool computed = !given && draw_bit(random, features, HEED_CAST_CAN_COMPUTE);
    if (!given && !computed)
        return 0;
    int form = computed ? (int)kit_random_int(random, 0, 2) : 0;
    bool e8m0 = computed ? form == 2 : kit_random_next(random) % 3 == 0;
    bool divides = form == 2 || kit_random_next(random) % 2;
    const char *floor = computed && kit_random_next(random) % 4 == 0 ? "0.75" : "0";
    return snprintf(text, size,
                    " scale=%s block=%lld,%lld compute=%d form=%s use=%s scale_dtype=%s floor=%s",
                    scales[kit_random_int(random, 0, 4)], (long long)kit_random_int(random, 1, 9),
                    (long long)kit_random_int(random, 1, 40), computed, forms[form],
                    divides ? "divides" : "multiplies", e8m0 ? "e8m0" : "f32", floor);
}

static void draw_problem(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    static const char *const overflows[] = {"saturate", "nosat", "finite"};
    static const char *const nans[] = {"positive", "signed", "quiet"};
    static const char *const roundings[] = {"nearest", "zero", "stochastic"};
    int src = draw_dtype(random, features), dst = draw_dtype(random, features);
    int64_t most = kit_random_next(random) % 8 ? 300 : 20000;
    int64_t rows = kit_random_next(random) % 2 ? kit_random_int(random, 1, 12) : 1;
    int64_t heads = rows > 1 && kit_random_next(random) % 3 == 0 ? kit_random_int(random, 1, 4) : 1;
    int64_t n = kit_random_int(random, 0, most) / (rows * heads) * rows * heads, stride[2] = {1, 1};
    if (draw_bit(random, features, HEED_CAST_CAN_STRIDED))
        for (int i = 0; i < 2; i++)
            stride[i] = kit_random_int(random, 1, 5);
    int used =
        snprintf(text, size,
                 "cast src=%s dst=%s n=%lld rows=%lld heads=%lld stride=%lld,%lld "
                 "overflow=%s nan=%s",
                 dtypes[src].name, dtypes[dst].name, (long long)n, (long long)rows,
                 (long long)heads, (long long)stride[0], (long long)stride[1],
                 overflows[kit_random_int(random, 0, 2)], nans[kit_random_int(random, 0, 2)]);
    if (draw_bit(random, features, HEED_CAST_CAN_ROUNDING) && dst > 2) {
        bool e8m0 = dtypes[dst].dtype == HEED_E8M0;
        int rounding = (int)kit_random_int(random, 0, 2);
        used += snprintf(text + used, size - (size_t)used, " rounding=%s seed=%lld",
                         e8m0 && rounding == 2 ? "up" : roundings[rounding],
                         (long long)(kit_random_next(random) >> 1));
    }
    used += draw_scales(random, features, text + used, size - (size_t)used);
    bool stats = features & HEED_CAST_CAN_STATISTICS;
    snprintf(text + used, size - (size_t)used, " amax=%d counts=%d transposed=%d loss=%d",
             stats && kit_random_next(random) % 2, stats && kit_random_next(random) % 2,
             features & HEED_CAST_CAN_TRANSPOSED && kit_random_next(random) % 4 == 0,
             draw_bit(random, features, HEED_CAST_CAN_LOSS));
}

static const char *const corners[] = {
    "cast src=f32 dst=bf16 n=0",
    "cast src=bf16 dst=e4m3 n=100003 scale=tensor compute=1 use=divides counts=1 loss=1",
    "cast src=f32 dst=e5m2 n=70016 rows=64 scale=block block=1,32 loss=1",
    "cast src=e4m3 dst=f32 n=8192 rows=2 scale=block block=1,32 use=divides loss=1",
    "cast src=f32 dst=bf16 n=1",
    "cast src=bf16 dst=f32 n=1",
    "cast src=f16 dst=bf16 n=17",
    "cast src=f32 dst=f32 n=33",
    "cast src=f32 dst=f16 n=70001",
    "cast src=bf16 dst=f16 n=65537 stride=3,2",
    "cast src=f32 dst=e4m3 n=0 scale=tensor compute=1 amax=1 counts=1",
    "cast src=f32 dst=e4m3 n=1 scale=tensor compute=1 amax=1 counts=1",
    "cast src=f32 dst=e4m3 n=100003 overflow=nosat nan=signed amax=1 counts=1",
    "cast src=f32 dst=e5m2 n=100003 overflow=finite nan=quiet scale=tensor amax=1 counts=1",
    "cast src=bf16 dst=e4m3 n=131072 rows=128 scale=row compute=1 use=divides amax=1",
    "cast src=f32 dst=e4m3 n=131072 rows=64 scale=column compute=1 use=divides counts=1",
    "cast src=f32 dst=e4m3 n=90000 rows=300 scale=block block=128,128 compute=1 transposed=1",
    ("cast src=f32 dst=e4m3 n=70000 rows=70 scale=block block=1,32 compute=1 form=mx use=divides "
     "scale_dtype=e8m0"),
    ("cast src=e4m3 dst=bf16 n=70000 rows=70 scale=block block=1,32 scale_dtype=e8m0"),
    "cast src=e4m3 dst=e5m2 n=66000",
    "cast src=f32 dst=e5m2 n=70000 rounding=stochastic seed=81985529216486895",
    "cast src=bf16 dst=e4m3 n=96000 rows=100 heads=8 scale=head compute=1 amax=1",
    NULL,
};

static bool is_dense(const heed_tensor_t *tensor)
{
    return kit_elements(tensor) < 2 || heed_tensor_span(tensor) == kit_elements(tensor);
}

static uint64_t dtype_bit(heed_dtype_t dtype)
{
    for (int i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].bit;
    return 0;
}

static uint64_t needs(const void *at)
{
    const heed_cast_desc_t *desc = at;
    bool strided = !is_dense(&desc->src) || !is_dense(&desc->dst);
    return dtype_bit(desc->src.dtype) | dtype_bit(desc->dst.dtype) |
           (strided ? HEED_CAST_CAN_STRIDED : 0) | (desc->rounding ? HEED_CAST_CAN_ROUNDING : 0) |
           (desc->scale.ndim ? HEED_CAST_CAN_SCALE : 0) |
           (desc->scale_out.ndim ? HEED_CAST_CAN_COMPUTE : 0) |
           (desc->amax.ndim || desc->counts.ndim ? HEED_CAST_CAN_STATISTICS : 0) |
           (desc->transposed.ndim ? HEED_CAST_CAN_TRANSPOSED : 0) |
           (desc->loss.ndim ? HEED_CAST_CAN_LOSS : 0);
}

/* ---- elements -------------------------------------------------------------------------------- */

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint32_t word_at(const heed_tensor_t *tensor, const void *data, int64_t offset)
{
    uint32_t word = 0;
    size_t size = heed_dtype_size(tensor->dtype);
    memcpy(&word, (const char *)data + (size_t)offset * size, size);
    return word;
}

/* Offset of element number i in row order. */
static int64_t offset_of(const heed_tensor_t *tensor, int64_t i)
{
    int64_t offset = 0;
    for (int axis = tensor->ndim - 1; axis >= 0; axis--) {
        offset += i % tensor->shape[axis] * tensor->strides[axis];
        i /= tensor->shape[axis];
    }
    return offset;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

/* A double next to a point between two numbers of `dtype`, or on it: where rounding is decided. */
static double near_midpoint(kit_random_t *random, heed_dtype_t dtype)
{
    uint16_t pair[2];
    double middle;
    if (heed_dtype_size(dtype) == 1) {
        uint8_t code = (uint8_t)kit_random_next(random);
        middle = (kit_fp8_value(dtype, code) + kit_fp8_value(dtype, (uint8_t)(code + 1))) / 2;
    } else {
        pair[0] = (uint16_t)kit_random_next(random);
        pair[1] = (uint16_t)(pair[0] + 1);
        middle = (kit_load(dtype, pair, 0) + kit_load(dtype, pair, 1)) / 2;
    }
    float value = (float)middle;
    int64_t aside = kit_random_int(random, -1, 1);
    return aside ? nextafterf(value, aside < 0 ? -INFINITY : INFINITY) : value;
}

static void put(const heed_tensor_t *tensor, void *data, int64_t offset, double value)
{
    const heed_cast_desc_t rules = {.nan = HEED_NAN_SIGNED};
    if (heed_dtype_size(tensor->dtype) == 1)
        ((uint8_t *)data)[offset] = kit_fp8_round(&rules, tensor->dtype, (float)value, 0);
    else
        kit_store(tensor->dtype, data, offset, value);
}

/* Any bits of the type: NaN, signalling ones too, infinities and subnormal numbers among them. */
static void put_any(kit_random_t *random, const heed_tensor_t *tensor, void *data, int64_t offset)
{
    uint64_t bits = kit_random_next(random);
    size_t size = heed_dtype_size(tensor->dtype);
    memcpy((char *)data + (size_t)offset * size, &bits, size);
}

static void fill_source(kit_random_t *random, kit_values_t values, const heed_tensor_t *src,
                        heed_dtype_t dst, void *data)
{
    heed_dtype_t middle = dst == HEED_F32 ? HEED_E4M3 : dst;
    int64_t count = kit_elements(src);
    bool with_nan = kit_random_next(random) % 2;
    for (int64_t i = 0; i < count; i++) {
        int64_t offset = offset_of(src, i);
        if (values == KIT_VALUES_PLAIN)
            put(src, data, offset, kit_random_normal(random));
        else if (kit_random_next(random) % 2)
            put(src, data, offset, near_midpoint(random, middle));
        else if (with_nan)
            put_any(random, src, data, offset);
        else
            put(src, data, offset, kit_random_normal(random) * 300);
    }
}

static void fill_scales(kit_random_t *random, kit_values_t values, const heed_tensor_t *scale,
                        void *data)
{
    static const float odd[] = {0,   INFINITY, NAN,       1e-45f,    3e38f,
                                -2., 0x1p127f, 0x1p-127f, -INFINITY, 0x1.8p-126f};
    for (int64_t i = 0; i < kit_elements(scale); i++) {
        if (scale->dtype == HEED_E8M0)
            ((uint8_t *)data)[i] =
                (uint8_t)(values == KIT_VALUES_PLAIN ? kit_random_int(random, 120, 133)
                                                     : (int64_t)(kit_random_next(random) & 255));
        else if (values == KIT_VALUES_EXTREME && kit_random_next(random) % 3 == 0)
            ((float *)data)[i] = odd[kit_random_int(random, 0, 9)];
        else
            ((float *)data)[i] = (float)exp2(4 * kit_random_normal(random));
    }
}

static void fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                 const kit_buffers_t *buffers)
{
    void *desc;
    if (heed_problem_desc(problem, &desc) != HEED_OK)
        return;
    const heed_tensor_t *src = heed_problem_tensor(problem, HEED_CAST_SRC);
    const heed_tensor_t *dst = heed_problem_tensor(problem, HEED_CAST_DST);
    const heed_tensor_t *scale = heed_problem_tensor(problem, HEED_CAST_SCALE);
    fill_source(random, values, src, dst->dtype, buffers->data[HEED_CAST_SRC]);
    if (scale->ndim)
        fill_scales(random, values, scale, buffers->data[HEED_CAST_SCALE]);
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
        return float_of(word_at(src, m->data[HEED_CAST_SRC], offset));
    if (src->dtype == HEED_BF16)
        return float_of(word_at(src, m->data[HEED_CAST_SRC], offset) << 16);
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
    return got == bits_of(want) || (isnan(want) && got == 0x7fc00000);
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
            uint32_t want = bits_of(stored);
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
                return say(m, name, "amax", g, got, bits_of(m->amax[g]));
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
            beyond =
                isinf(p) || (dtype == HEED_E8M0 && 0) ||
                (kit_fp8_round(&rules, dtype, (float)p, random) & 0xff) >
                    (dtype == HEED_E4M3FNUZ || dtype == HEED_E5M2FNUZ ? 0x7f
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

static void judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                  heed_problem_t *reference_problem, const kit_buffers_t *reference,
                  kit_verdict_t *verdict)
{
    (void)features;
    *verdict = (kit_verdict_t){0};
    judge_output(reference_problem, reference, "reference ", verdict);
    if (!verdict->sentence[0])
        judge_output(problem, buffers, "", verdict);
}

const kit_op_t kit_op_cast = {.op = "cast",
                              .corners = corners,
                              .needs = needs,
                              .draw = draw_problem,
                              .fill = fill,
                              .reference_words = "",
                              .judge = judge};
