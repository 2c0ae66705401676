/* Runs of dense elements in plain C that compilers turn into vector code: pieces of 1024 elements
 * go through f32 in the first-level cache, each step a loop without branches.
 *
 * - FP8 and f16 are made by one addition. Of c, the magnitude cut to the largest number, e is the
 *   binade or that of the smallest normal number; adding the power of two whose last bit is the
 *   quantum of the format there rounds c to it, and the difference of the bits counts quanta.
 * Normal and subnormal numbers and the carry between binades are one path. What is beyond the
 * format is selected afterwards.
 * - A subnormal code becomes a number by a subtraction: its fraction behind the hidden bit of the
 *   smallest normal number, less that number. No operand is subnormal, so that speed does not
 * depend on the data.
 *
 * Rounding is to nearest even: cast_body.h sets that mode. What has no loop here (other roundings,
 * other formats, scales that are 0 or not finite) goes element by element. */
#ifndef HD_CAST_PLAIN_H
#define HD_CAST_PLAIN_H

#include "cast_body.h"

enum { PLAIN_PIECE = 1024 };

#define PLAIN_INLINE static inline __attribute__((always_inline))

PLAIN_INLINE uint32_t plain_select(bool condition, uint32_t yes, uint32_t no)
{
    return condition ? yes : no;
}

/* ---- to f32 ---------------------------------------------------------------------------------- */

/* Magnitude bits of an element with `mantissa` bits of fraction, whose smallest normal number is in
 * the f32 binade emin; top is the first magnitude that is no number, and stands for infinity where
 * there is one. */
PLAIN_INLINE uint32_t plain_widen_one(uint32_t magnitude, const int mantissa, const uint32_t emin,
                                      const uint32_t top, const uint32_t infinity)
{
    uint32_t fields = magnitude << (23 - mantissa);
    uint32_t normal = fields + ((emin - 1) << 23);
    float shifted = hd_from_bits(fields | emin << 23) - hd_from_bits(emin << 23);
    uint32_t bits = plain_select(magnitude < 1u << mantissa, hd_to_bits(shifted), normal);
    bits = plain_select(magnitude >= top, HD_F32_NAN, bits);
    return plain_select(infinity && magnitude == infinity, HD_F32_INF, bits);
}

PLAIN_INLINE void plain_widen_fp8(const uint8_t *from, float *to, int64_t n,
                                  const heed_dtype_t dtype)
{
    const hd_fp8_t format = hd_fp8_format(dtype);
    for (int64_t i = 0; i < n; i++) {
        uint32_t sign = (uint32_t)(from[i] & 0x80) << 24;
        uint32_t bits = plain_widen_one(from[i] & 0x7f, format.mantissa, format.emin,
                                        format.largest + 1u, format.infinity);
        if (format.unsigned_zero)
            bits = plain_select(from[i] == 0x80, HD_F32_NAN, bits);
        to[i] = hd_from_bits(sign | bits);
    }
}

PLAIN_INLINE void plain_widen_f16(const uint16_t *from, float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t sign = (uint32_t)(from[i] & 0x8000) << 16, rest = from[i] & 0x7fff;
        uint32_t bits = plain_widen_one(rest, 10, 113, 0x7c00, 0x7c00);
        uint32_t nan = HD_F32_NAN | (rest & 0x3ff) << 13;
        to[i] = hd_from_bits(sign | plain_select(rest > 0x7c00, nan, bits));
    }
}

PLAIN_INLINE void plain_widen_bf16(const uint16_t *from, float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = hd_from_bits((uint32_t)from[i] << 16);
}

#define PLAIN_FP8(X) X(E4M3) X(E5M2) X(E4M3FNUZ) X(E5M2FNUZ) X(E4M3IEEE)

static void plain_widen(heed_dtype_t dtype, const char *from, float *to, int64_t n)
{
    if (dtype == HEED_F32)
        memcpy(to, from, (size_t)n * sizeof(float));
    else if (dtype == HEED_BF16)
        plain_widen_bf16((const uint16_t *)(const void *)from, to, n);
    else if (dtype == HEED_F16)
        plain_widen_f16((const uint16_t *)(const void *)from, to, n);
#define WIDEN(name) \
    else if (dtype == HEED_##name) plain_widen_fp8((const uint8_t *)from, to, n, HEED_##name);
    PLAIN_FP8(WIDEN)
#undef WIDEN
}

/* ---- from f32 -------------------------------------------------------------------------------- */

/* Number of quanta of a magnitude that is at most the largest number. */
PLAIN_INLINE uint32_t plain_narrow_one(uint32_t magnitude, const int mantissa, const uint32_t emin)
{
    uint32_t e = magnitude & 0x7f800000;
    e = e > emin << 23 ? e : emin << 23;
    uint32_t power = e + ((23u - mantissa) << 23);
    float sum = hd_from_bits(magnitude) + hd_from_bits(power);
    return hd_to_bits(sum) - power + ((e - (emin << 23)) >> (23 - mantissa));
}

PLAIN_INLINE void plain_narrow_fp8(const float *from, uint8_t *to, int64_t n,
                                   const heed_dtype_t dtype, hd_fp8_rule_t rule)
{
    const hd_fp8_t format = hd_fp8_format(dtype);
    const cast_limits_t limits = cast_limits(dtype);
    const uint32_t beyond = hd_fp8_beyond(format, 0, rule.overflow != HEED_OVERFLOW_NOSAT);
    const uint32_t infinity = hd_fp8_beyond(format, 0, rule.overflow == HEED_OVERFLOW_SATURATE);
    const uint32_t nan = hd_fp8_nan(format, 0, rule.nan);
    const uint32_t nan_sign = rule.nan == HEED_NAN_POSITIVE ? 0 : 0x80;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = hd_to_bits(from[i]), magnitude = bits & HD_F32_MAGNITUDE;
        uint32_t cut = magnitude < limits.largest ? magnitude : limits.largest;
        uint32_t code = plain_narrow_one(cut, format.mantissa, format.emin);
        code = plain_select(magnitude >= limits.beyond, beyond, code);
        code = plain_select(magnitude >= HD_F32_INF, infinity, code);
        code = plain_select(magnitude > HD_F32_INF, nan, code);
        uint32_t sign = bits >> 24 & plain_select(magnitude > HD_F32_INF, nan_sign, 0x80);
        if (format.unsigned_zero) /* neither -0 nor NaN of another sign */
            sign = plain_select((code & 0x7f) == 0, 0, sign);
        to[i] = (uint8_t)(code | sign);
    }
}

PLAIN_INLINE void plain_narrow_f16(const float *from, uint16_t *to, int64_t n)
{
    const cast_limits_t limits = cast_limits(HEED_F16);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = hd_to_bits(from[i]), magnitude = bits & HD_F32_MAGNITUDE;
        uint32_t cut = magnitude < limits.largest ? magnitude : limits.largest;
        uint32_t code = plain_narrow_one(cut, 10, 113);
        code = plain_select(magnitude >= limits.beyond, 0x7c00, code);
        code = plain_select(magnitude > HD_F32_INF, 0x7e00 | (magnitude >> 13 & 0x3ff), code);
        to[i] = (uint16_t)(code | (bits >> 16 & 0x8000));
    }
}

PLAIN_INLINE void plain_narrow_bf16(const float *from, uint16_t *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = hd_to_bits(from[i]);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        bool nan = (bits & HD_F32_MAGNITUDE) > HD_F32_INF;
        to[i] = (uint16_t)plain_select(nan, bits >> 16 | 0x40, rounded);
    }
}

static void plain_narrow(heed_dtype_t dtype, hd_fp8_rule_t rule, const float *from, char *to,
                         int64_t n)
{
    if (dtype == HEED_F32)
        memmove(to, from, (size_t)n * sizeof(float));
    else if (dtype == HEED_BF16)
        plain_narrow_bf16(from, (uint16_t *)(void *)to, n);
    else if (dtype == HEED_F16)
        plain_narrow_f16(from, (uint16_t *)(void *)to, n);
#define NARROW(name) \
    else if (dtype == HEED_##name) plain_narrow_fp8(from, (uint8_t *)to, n, HEED_##name, rule);
    PLAIN_FP8(NARROW)
#undef NARROW
}

/* ---- between --------------------------------------------------------------------------------- */

static uint32_t plain_piece_amax(const float *from, int64_t n)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t magnitude = hd_to_bits(from[i]) & HD_F32_MAGNITUDE;
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

/* NaN times a finite number is that NaN, made quiet, as the definition has it. */
static void plain_multiply(const float *from, float *to, int64_t n, float multiplier)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] * multiplier;
}

/* from: the source, product: what is rounded to dst. n is at most PLAIN_PIECE. */
static void plain_count(const float *from, const float *product, int64_t n, heed_dtype_t dtype,
                        int64_t *counts)
{
    const cast_limits_t limits = cast_limits(dtype);
    uint32_t clipped = 0, overflowed = 0, underflowed = 0, nan = 0, inf = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t x = hd_to_bits(from[i]) & HD_F32_MAGNITUDE;
        uint32_t y = hd_to_bits(product[i]) & HD_F32_MAGNITUDE;
        uint32_t finite = x < HD_F32_INF;
        nan += x > HD_F32_INF;
        inf += x == HD_F32_INF;
        clipped += finite & (y > limits.largest);
        overflowed += finite & (y >= limits.beyond);
        underflowed += (x != 0) & (y <= limits.zero);
    }
    counts[HEED_COUNT_CLIPPED] += clipped;
    counts[HEED_COUNT_OVERFLOWED] += overflowed;
    counts[HEED_COUNT_UNDERFLOWED] += underflowed;
    counts[HEED_COUNT_NAN] += nan;
    counts[HEED_COUNT_INF] += inf;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void plain_piece(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                        uint32_t multiplier, hd_cast_stats_t *stats)
{
    __attribute__((aligned(64))) float wide[PLAIN_PIECE], scaled[PLAIN_PIECE];
    const float *x = wide, *product = wide;
    bool in_place = cast->src == cast->dst;
    if (cast->src_dtype == HEED_F32 && !in_place)
        product = x = (const float *)(const void *)from;
    else
        plain_widen(cast->src_dtype, from, wide, n);
    if (cast->amax) {
        uint32_t most = plain_piece_amax(x, n);
        stats->amax = most > stats->amax ? most : stats->amax;
    }
    if (hd_cast_scaled(cast)) {
        plain_multiply(x, scaled, n, hd_from_bits(multiplier));
        product = scaled;
    }
    if (cast->counts)
        plain_count(x, product, n, cast->dst_dtype, stats->counts);
    plain_narrow(cast->dst_dtype, cast->rule, product, to, n);
}

/* A line for which cast_line_is_fast. */
static void plain_line(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                       uint32_t multiplier, hd_cast_stats_t *stats)
{
    for (int64_t i = 0; i < n; i += PLAIN_PIECE)
        plain_piece(cast, from + i * hd_dtype_bytes(cast->src_dtype),
                    to + i * hd_dtype_bytes(cast->dst_dtype), hd_min(PLAIN_PIECE, n - i),
                    multiplier, stats);
}

static uint32_t plain_amax(const hd_cast_t *cast, const char *from, int64_t n)
{
    __attribute__((aligned(64))) float wide[PLAIN_PIECE];
    int64_t step = hd_dtype_bytes(cast->src_dtype);
    uint32_t most = 0;
    if (cast->src_dtype == HEED_F32)
        return plain_piece_amax((const float *)(const void *)from, n);
    for (int64_t i = 0; i < n; i += PLAIN_PIECE) {
        int64_t count = hd_min(PLAIN_PIECE, n - i);
        if (cast_has_loop(cast->src_dtype))
            plain_widen(cast->src_dtype, from + i * step, wide, count);
        else
            for (int64_t j = 0; j < count; j++)
                wide[j] = hd_from_bits(hd_cast_load(cast->src_dtype, from + (i + j) * step));
        uint32_t here = plain_piece_amax(wide, count);
        most = here > most ? here : most;
    }
    return most;
}

#endif
