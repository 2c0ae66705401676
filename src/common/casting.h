/* A cast as its implementations see it: axes, groups of elements that share a scale, addresses, and
 * what happens to one element. Compiles as C11 and CUDA C++. */
#ifndef HD_CASTING_H
#define HD_CASTING_H

#include "element.h"
#include "exact.h"

typedef struct hd_cast {
    int ndim;
    int64_t shape[HEED_MAX_NDIM];
    int64_t block[HEED_MAX_NDIM];  /* extent of a group along each axis */
    int64_t groups[HEED_MAX_NDIM]; /* along each axis */
    int64_t group_count;
    int64_t src_stride[HEED_MAX_NDIM], dst_stride[HEED_MAX_NDIM]; /* in elements */
    int64_t scale_stride[HEED_MAX_NDIM]; /* of the given or the computed scales, by group */
    int64_t amax_stride[HEED_MAX_NDIM];
    heed_dtype_t src_dtype, dst_dtype, scale_dtype;
    const char *src;
    char *dst;
    const char *scale; /* NULL: none given */
    char *scale_out;   /* NULL: none computed */
    float *amax;
    int64_t *counts;
    int64_t counts_stride;
    hd_fp8_rule_t rule;
    uint64_t seed;
    int use, form;
    uint32_t largest;    /* of dst, as f32 bits */
    uint32_t amax_floor; /* f32 bits */
} hd_cast_t;

/* ---- groups ---------------------------------------------------------------------------------- */

/* Extent of a group along each axis, at least 1. */
HD_DEVICE static inline void hd_cast_blocks(const heed_cast_desc_t *desc, int64_t *block)
{
    int last = desc->src.ndim - 1;
    for (int i = 0; i <= last; i++) {
        int64_t whole = hd_max(desc->src.shape[i], 1);
        bool inside = desc->scaling == HEED_SCALE_ROW      ? i == last
                      : desc->scaling == HEED_SCALE_COLUMN ? i != last
                      : desc->scaling == HEED_SCALE_HEAD   ? i != last - 1
                                                           : desc->scaling != HEED_SCALE_BLOCK;
        block[i] = inside ? whole : 1;
        if (desc->scaling == HEED_SCALE_BLOCK && i >= last - 1)
            block[i] = hd_min(desc->block[i - last + 1], whole);
    }
}

/* Strides by group of a tensor with as many axes as src, or with one axis for all groups. */
static inline void hd_cast_group_strides(const hd_cast_t *cast, const heed_tensor_t *tensor,
                                         int64_t *strides)
{
    bool in_one_axis = tensor->ndim == 1;
    int64_t stride = in_one_axis ? tensor->strides[0] : 0;
    for (int i = cast->ndim - 1; i >= 0; i--) {
        strides[i] = in_one_axis ? stride : tensor->ndim ? tensor->strides[i] : 0;
        stride *= hd_max(cast->groups[i], 1);
    }
}

/* The largest finite number of a type. */
HD_DEVICE static inline uint32_t hd_largest_bits(heed_dtype_t dtype)
{
    hd_fp8_t format = hd_fp8_format(dtype);
    return format.mantissa      ? hd_fp8_decode(format, format.largest)
           : dtype == HEED_F16  ? 0x477fe000u
           : dtype == HEED_BF16 ? 0x7f7f0000u
           : dtype == HEED_E8M0 ? 0x7f000000u
                                : 0x7f7fffffu;
}

/* From a complete descriptor and the operands' addresses. */
static inline hd_cast_t hd_cast(const heed_cast_desc_t *desc, void *const *buffers)
{
    hd_cast_t cast = {0};
    cast.ndim = desc->src.ndim;
    cast.group_count = 1;
    hd_cast_blocks(desc, cast.block);
    for (int i = 0; i < cast.ndim; i++) {
        cast.shape[i] = desc->src.shape[i];
        cast.groups[i] = hd_ceil_div(cast.shape[i], cast.block[i]);
        cast.group_count *= cast.groups[i];
        cast.src_stride[i] = desc->src.strides[i];
        cast.dst_stride[i] = desc->dst.strides[i];
    }
    const heed_tensor_t *scale = desc->scale_out.ndim ? &desc->scale_out : &desc->scale;
    hd_cast_group_strides(&cast, scale, cast.scale_stride);
    hd_cast_group_strides(&cast, &desc->amax, cast.amax_stride);
    cast.src_dtype = desc->src.dtype;
    cast.dst_dtype = desc->dst.dtype;
    cast.scale_dtype = scale->dtype;
    cast.src = (const char *)buffers[HEED_CAST_SRC];
    cast.dst = (char *)buffers[HEED_CAST_DST];
    cast.scale = (const char *)buffers[HEED_CAST_SCALE];
    cast.scale_out = (char *)buffers[HEED_CAST_SCALE_OUT];
    cast.amax = (float *)buffers[HEED_CAST_AMAX];
    cast.counts = (int64_t *)buffers[HEED_CAST_COUNTS];
    cast.counts_stride = desc->counts.ndim ? desc->counts.strides[0] : 0;
    cast.rule.overflow = desc->overflow;
    cast.rule.nan = desc->nan;
    cast.rule.rounding = desc->rounding;
    cast.seed = desc->seed;
    cast.use = desc->scale_use;
    cast.form = desc->scale_form;
    cast.largest = hd_largest_bits(desc->dst.dtype);
    cast.amax_floor = hd_to_bits(desc->amax_floor);
    return cast;
}

HD_DEVICE static inline bool hd_cast_scaled(const hd_cast_t *cast)
{
    return cast->scale || cast->scale_out;
}

/* Offset of group number `group`, counted in the order of the axes. */
HD_DEVICE static inline int64_t hd_cast_group_offset(const hd_cast_t *cast, const int64_t *strides,
                                                     int64_t group)
{
    int64_t offset = 0;
    for (int i = cast->ndim - 1; i >= 0; i--) {
        offset += group % cast->groups[i] * strides[i];
        group /= cast->groups[i];
    }
    return offset;
}

/* ---- scales ---------------------------------------------------------------------------------- */

/* E8M0 code of 2^ceil(log2(amax / largest)). */
HD_DEVICE static inline uint8_t hd_mx_code(uint32_t amax, uint32_t largest)
{
    if (amax >= HD_F32_INF)
        return 0xff;
    if (amax == 0)
        return 0;
    int i;
    uint32_t significand = hd_exact_split(amax, &i);
    int up = 23 - hd_top_bit(significand); /* of subnormal numbers */
    significand <<= up;
    int exponent = i - up + 150 - (int)(largest >> 23) + 127;
    exponent += (significand & 0x7fffff) > (largest & 0x7fffff);
    return (uint8_t)(exponent < 0 ? 0 : exponent > 254 ? 254 : exponent);
}

/* A scale as it is stored, and its multiplier. */
typedef struct hd_scale {
    uint32_t multiplier; /* f32 bits */
    uint32_t stored;     /* f32 bits, or the code of E8M0 */
    bool bad;
} hd_scale_t;

HD_DEVICE static inline uint32_t hd_reciprocal(uint32_t bits)
{
    return hd_exact_divide(0x3f800000u, bits);
}

HD_DEVICE static inline hd_scale_t hd_scale_given(heed_dtype_t dtype, const char *at, int use)
{
    hd_scale_t scale;
    scale.stored =
        dtype == HEED_E8M0 ? *(const uint8_t *)at : hd_to_bits(hd_element_load(HEED_F32, at));
    uint32_t bits = dtype == HEED_E8M0 ? hd_e8m0_decode((uint8_t)scale.stored) : scale.stored;
    uint32_t magnitude = bits & HD_F32_MAGNITUDE;
    scale.bad = magnitude == 0 || magnitude >= HD_F32_INF;
    scale.multiplier = use == HEED_SCALE_DIVIDES ? hd_reciprocal(bits) : bits;
    return scale;
}

/* From the largest magnitude of a group, NaN if there was one. */
HD_DEVICE static inline hd_scale_t hd_scale_computed(uint32_t amax, uint32_t largest,
                                                     uint32_t amax_floor, int form, int use)
{
    hd_scale_t scale;
    scale.bad = false;
    if (amax < amax_floor)
        amax = amax_floor;
    if (form == HEED_SCALE_FORM_MX) {
        scale.stored = hd_mx_code(amax, largest);
        scale.bad = scale.stored == 0xff;
        scale.multiplier = /* the reciprocal of a power of two is one */
            scale.bad ? (uint32_t)HD_F32_NAN : hd_e8m0_decode((uint8_t)(254 - scale.stored));
        return scale;
    }
    uint32_t multiplier = hd_exact_divide(largest, amax);
    if (multiplier == HD_F32_INF)
        multiplier = 0x7f7fffff;
    if (form == HEED_SCALE_FORM_POW2)
        multiplier &= 0x7f800000;
    scale.multiplier = amax == 0 || amax >= HD_F32_INF ? 0x3f800000u : multiplier;
    scale.stored = use == HEED_SCALE_DIVIDES ? hd_reciprocal(scale.multiplier) : scale.multiplier;
    return scale;
}

HD_DEVICE static inline void hd_scale_store(const hd_cast_t *cast, int64_t offset, hd_scale_t scale)
{
    char *at = cast->scale_out + offset * hd_dtype_bytes(cast->scale_dtype);
    if (cast->scale_dtype == HEED_E8M0)
        *(uint8_t *)at = (uint8_t)scale.stored;
    else
        memcpy(at, &scale.stored, sizeof(scale.stored));
}

/* ---- one element ----------------------------------------------------------------------------- */

HD_DEVICE static inline uint32_t hd_cast_load(heed_dtype_t dtype, const char *at)
{
    hd_fp8_t format = hd_fp8_format(dtype);
    if (format.mantissa)
        return hd_fp8_decode(format, *(const uint8_t *)at);
    if (dtype == HEED_E8M0)
        return hd_e8m0_decode(*(const uint8_t *)at);
    uint32_t word = 0;
    if (dtype == HEED_F32)
        memcpy(&word, at, 4);
    else
        word = hd_to_bits(hd_element_load(dtype, at));
    return word;
}

/* The element of `dtype` that `bits` rounds to, in the low bits. */
HD_DEVICE static inline uint32_t hd_cast_round(heed_dtype_t dtype, uint32_t bits,
                                               hd_fp8_rule_t rule, uint32_t random)
{
    hd_fp8_t format = hd_fp8_format(dtype);
    if (format.mantissa)
        return hd_fp8_encode(format, bits, rule, random);
    return dtype == HEED_E8M0   ? hd_e8m0_encode(bits, rule)
           : dtype == HEED_BF16 ? hd_f32_to_bf16(hd_from_bits(bits))
           : dtype == HEED_F16  ? hd_f32_to_f16(hd_from_bits(bits))
                                : bits;
}

HD_DEVICE static inline void hd_cast_store(heed_dtype_t dtype, char *at, uint32_t element)
{
    uint16_t half = (uint16_t)element;
    if (dtype == HEED_F32)
        memcpy(at, &element, 4);
    else if (hd_dtype_bytes(dtype) == 2)
        memcpy(at, &half, 2);
    else
        *(uint8_t *)at = (uint8_t)element;
}

/* ---- statistics ------------------------------------------------------------------------------ */

/* Whether the finite f32 magnitude, which is above the largest number of `dtype`, rounds beyond. */
HD_DEVICE static inline bool hd_rounds_beyond(heed_dtype_t dtype, uint32_t magnitude,
                                              hd_fp8_rule_t rule, uint32_t random)
{
    hd_fp8_t format = hd_fp8_format(dtype);
    if (format.mantissa)
        return hd_fp8_magnitude(format, magnitude, rule.rounding, random) > format.largest;
    if (dtype == HEED_E8M0) {
        rule.overflow = HEED_OVERFLOW_NOSAT;
        return hd_e8m0_encode(magnitude, rule) == 0xff;
    }
    uint32_t infinity = dtype == HEED_F16 ? 0x7c00 : 0x7f80;
    return hd_cast_round(dtype, magnitude, rule, 0) == infinity;
}

/* Number of the count that the element belongs to besides CLIPPED, -1: none; *clipped is set where
 * it is clipped. bits: src's, product: src * m, element: the result. */
HD_DEVICE static inline int hd_cast_class(heed_dtype_t dtype, uint32_t largest, uint32_t bits,
                                          uint32_t product, uint32_t element, hd_fp8_rule_t rule,
                                          uint32_t random, bool *clipped)
{
    uint32_t from = bits & HD_F32_MAGNITUDE, to = product & HD_F32_MAGNITUDE;
    *clipped = false;
    if (from > HD_F32_INF)
        return HEED_COUNT_NAN;
    if (from == HD_F32_INF)
        return HEED_COUNT_INF;
    if (to > HD_F32_INF)
        return -1; /* of a NaN scale */
    if (to > largest) {
        *clipped = true;
        return to == HD_F32_INF || hd_rounds_beyond(dtype, to, rule, random) ? HEED_COUNT_OVERFLOWED
                                                                             : -1;
    }
    uint32_t sign = 1u << (8 * hd_dtype_bytes(dtype) - 1);
    bool lost = dtype == HEED_E8M0 ? to < 0x00400000 : (element & ~sign) == 0;
    return from != 0 && lost ? HEED_COUNT_UNDERFLOWED : -1;
}

/* What is gathered over some elements of one group. */
typedef struct hd_cast_stats {
    uint32_t amax;
    int64_t counts[HEED_CAST_COUNTS_SIZE];
    double loss[HEED_CAST_LOSS_SIZE]; /* on the CPU alone */
} hd_cast_stats_t;

/* Casts one element with its random word, which only stochastic rounding looks at. */
HD_DEVICE static inline void hd_cast_element_with(const hd_cast_t *cast, const char *from, char *to,
                                                  uint32_t multiplier, uint32_t random,
                                                  hd_cast_stats_t *stats)
{
    uint32_t bits = hd_cast_load(cast->src_dtype, from);
    uint32_t product = hd_cast_scaled(cast) ? hd_exact_scale(bits, multiplier) : bits;
    uint32_t element = hd_cast_round(cast->dst_dtype, product, cast->rule, random);
    hd_cast_store(cast->dst_dtype, to, element);
    if (cast->amax)
        stats->amax =
            (bits & HD_F32_MAGNITUDE) > stats->amax ? bits & HD_F32_MAGNITUDE : stats->amax;
    if (cast->counts) {
        bool clipped;
        int class_of = hd_cast_class(cast->dst_dtype, cast->largest, bits, product, element,
                                     cast->rule, random, &clipped);
        stats->counts[HEED_COUNT_CLIPPED] += clipped;
        if (class_of >= 0)
            stats->counts[class_of]++;
    }
}

/* Casts one element; index is its place in the order of the axes. */
HD_DEVICE static inline void hd_cast_element(const hd_cast_t *cast, const char *from, char *to,
                                             uint32_t multiplier, int64_t index,
                                             hd_cast_stats_t *stats)
{
    uint32_t random = cast->rule.rounding == HEED_ROUND_STOCHASTIC
                          ? hd_fp8_random(cast->seed, (uint64_t)index)
                          : 0;
    hd_cast_element_with(cast, from, to, multiplier, random, stats);
}

#endif
