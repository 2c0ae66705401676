/* Runs of dense elements, a block at a time in registers: CAST_BLOCK elements as four vectors of
 * f32. Included after a cast_vec_ISA.h. Each pair of types is one loop:
 *
 * - To FP8 by one addition. Of c, the magnitude cut to the largest number, e is the binade or that
 *   of the smallest normal number; adding the power of two whose last bit is the quantum of the
 *   format there rounds c to it, and the difference of the bits counts quanta. Normal and subnormal
 *   numbers and the carry between binades are one path. What is beyond the format, where that is
 *   not its largest number, and NaN are put in afterwards, in blocks that have such elements.
 * - From FP8 by bytes (cast_vec_ISA.h): every code is a bf16 number, and its upper and lower byte
 *   come from tables or shifts. No floating-point operation: subnormal codes cost nothing.
 *
 * Rounding is to nearest even: cast_job.h sets that mode. What has no loop here (other roundings,
 * other formats, scales that are 0 or not finite) goes element by element. The largest magnitude
 * and the counts are further loops over pieces that lie in the first-level cache. A last part of a
 * block goes through a block of its own. */
#ifndef HD_CAST_BLOCKS_H
#define HD_CAST_BLOCKS_H

#include "cast_body.h"

enum { CAST_PIECE = 4096 };

/* ---- loading
 * ------------------------------------------------------------------------------------- */

HD_INLINE void cast_load_block(const heed_dtype_t dtype, const char *at, cast_vec_t x[4])
{
    if (dtype == HEED_E4M3 || dtype == HEED_E5M2) {
        cast_decode_32(dtype, at, x);
        return;
    }
    HD_UNROLL
    for (int k = 0; k < 4; k++)
        x[k] = dtype == HEED_F32    ? cast_load(at + 4 * CAST_LANES * k)
               : dtype == HEED_BF16 ? cast_load_bf16(at + 2 * CAST_LANES * k)
                                    : cast_load_f16(at + 2 * CAST_LANES * k);
}

/* ---- to FP8
 * -------------------------------------------------------------------------------------- */

/* What an FP8 format's rule says, as magnitudes of f32 and as codes. */
typedef struct cast_rule {
    uint32_t last; /* the last magnitude that the common path has right */
    uint32_t beyond, infinity, nan;
    bool nan_signed;
} cast_rule_t;

static cast_rule_t cast_rule(const hd_cast_t *cast)
{
    const hd_fp8_t format = hd_fp8_format(cast->dst_dtype);
    const int overflow = cast->rule.overflow;
    const cast_rule_t rule = {
        .last = overflow == HEED_OVERFLOW_SATURATE ? HD_F32_INF
                : overflow == HEED_OVERFLOW_FINITE ? HD_F32_INF - 1
                                                   : cast_limits(cast->dst_dtype).beyond - 1,
        .beyond = hd_fp8_beyond(format, 0, overflow != HEED_OVERFLOW_NOSAT),
        .infinity = hd_fp8_beyond(format, 0, overflow == HEED_OVERFLOW_SATURATE),
        .nan = hd_fp8_nan(format, 0, cast->rule.nan),
        .nan_signed = cast->rule.nan != HEED_NAN_POSITIVE,
    };
    return rule;
}

/* Codes plus `offset` in c and signs in x, of blocks with numbers that the common path has wrong. */
HD_NOINLINE void cast_fix(heed_dtype_t dtype, const cast_rule_t *rule, uint32_t offset,
                          cast_vec_t *c, cast_vec_t *x)
{
    const cast_vec_t beyond = cast_set(cast_limits(dtype).beyond - 1);
    const cast_vec_t finite = cast_set(HD_F32_INF - 1), infinite = cast_set(HD_F32_INF);
    for (int k = 0; k < 4; k++) {
        const cast_vec_t magnitude = cast_and(x[k], cast_set(HD_F32_MAGNITUDE));
        const cast_vec_t unsigned_x = rule->nan_signed ? x[k] : magnitude;
        c[k] = cast_where_above(magnitude, beyond, cast_set(rule->beyond + offset), c[k]);
        c[k] = cast_where_above(magnitude, finite, cast_set(rule->infinity + offset), c[k]);
        c[k] = cast_where_above(magnitude, infinite, cast_set(rule->nan + offset), c[k]);
        x[k] = cast_where_above(magnitude, infinite, unsigned_x, x[k]);
    }
}

HD_INLINE cast_vec_t cast_encode(const heed_dtype_t dtype, const cast_rule_t *rule, cast_vec_t x[4])
{
    const hd_fp8_t format = hd_fp8_format(dtype);
    const uint32_t cut = 23u - format.mantissa, offset = (uint32_t)format.emin << format.mantissa;
    const cast_vec_t exponents = cast_set(0x7f800000), smallest = cast_set(format.emin << 23);
    const cast_vec_t largest = cast_set(cast_limits(dtype).largest), up = cast_set(cut << 23);
    cast_vec_t c[4], magnitude[4];
    HD_UNROLL
    for (int k = 0; k < 4; k++) {
        magnitude[k] = cast_and(x[k], cast_set(HD_F32_MAGNITUDE));
        const cast_vec_t most = cast_min(magnitude[k], largest);
        const cast_vec_t e = cast_max(cast_and(most, exponents), smallest);
        const cast_vec_t power = cast_add(e, up);
        const cast_vec_t quanta = cast_sub(cast_float_add(most, power), power);
        c[k] = cast_add(quanta, cast_right(e, (int)cut));
    }
    const cast_vec_t top = cast_max(cast_max(magnitude[0], magnitude[1]),
                                    cast_max(magnitude[2], magnitude[3]));
    if (__builtin_expect(cast_any_above(top, cast_set(rule->last)), 0))
        cast_fix(dtype, rule, offset, c, x);
    return cast_pack_codes(c, x, offset);
}

/* ---- to 16 bits
 * ---------------------------------------------------------------------------------- */

/* The upper halves of x rounded to nearest even; NaN quiet. */
HD_INLINE cast_vec_t cast_round_bf16(cast_vec_t x)
{
    const cast_vec_t odd = cast_and(cast_right(x, 16), cast_set(1));
    const cast_vec_t rounded = cast_add(cast_add(x, cast_set(0x7fff)), odd);
    const cast_vec_t magnitude = cast_and(x, cast_set(HD_F32_MAGNITUDE));
    const cast_vec_t nan = cast_or(x, cast_set(0x00400000));
    return cast_right(cast_where_above(magnitude, cast_set(HD_F32_INF), nan, rounded), 16);
}

HD_INLINE void cast_store_block(const heed_dtype_t dtype, const cast_rule_t *rule, cast_vec_t x[4],
                                char *to, bool stream)
{
    enum { BYTES = 4 * CAST_LANES };
    if (dtype == HEED_F32) {
        HD_UNROLL
        for (int k = 0; k < 4; k++)
            cast_store(to + k * BYTES, x[k], stream);
    } else if (dtype == HEED_BF16) {
        for (int k = 0; k < 4; k += 2)
            cast_store(to + k / 2 * BYTES,
                       cast_pack_16(cast_round_bf16(x[k]), cast_round_bf16(x[k + 1])), stream);
    } else if (dtype == HEED_F16) {
        for (int k = 0; k < 4; k += 2)
            cast_store(to + k / 2 * BYTES, cast_pack_f16(x[k], x[k + 1]), stream);
    } else {
        cast_store(to, cast_encode(dtype, rule, x), stream);
    }
}

/* ---- loops
 * --------------------------------------------------------------------------------------- */

HD_INLINE bool cast_is_fp8(const heed_dtype_t dtype)
{
    return dtype == HEED_E4M3 || dtype == HEED_E5M2;
}

HD_INLINE void cast_one_block(const heed_dtype_t src, const heed_dtype_t dst, const bool scaled,
                              const cast_rule_t *rule, const cast_vec_t multiplier,
                              const char *from, char *to, bool stream)
{
    cast_vec_t x[4];
    if (!scaled && cast_is_fp8(src) && (dst == HEED_BF16 || dst == HEED_F16)) {
        cast_decode_16(src, dst == HEED_F16, from, x);
        cast_store(to, x[0], stream);
        cast_store(to + 4 * CAST_LANES, x[1], stream);
        return;
    }
    cast_load_block(src, from, x);
    if (scaled) {
        HD_UNROLL
        for (int k = 0; k < 4; k++)
            x[k] = cast_float_mul(x[k], multiplier);
    }
    cast_store_block(dst, rule, x, to, stream);
}

/* Fewer than a block, through memory of its own. */
HD_INLINE void cast_part_block(const heed_dtype_t src, const heed_dtype_t dst, const bool scaled,
                               const cast_rule_t *rule, const cast_vec_t multiplier,
                               const char *from, char *to, int64_t n)
{
    char in[4 * CAST_BLOCK] = {0}, out[4 * CAST_BLOCK];
    memcpy(in, from, (size_t)(n * hd_dtype_bytes(src)));
    cast_one_block(src, dst, scaled, rule, multiplier, in, out, false);
    memcpy(to, out, (size_t)(n * hd_dtype_bytes(dst)));
}

HD_INLINE void cast_all_blocks(const heed_dtype_t src, const heed_dtype_t dst, const bool scaled,
                               const cast_rule_t *rule, uint32_t bits, const char *from, char *to,
                               int64_t n, bool stream)
{
    const int64_t in = hd_dtype_bytes(src), out = hd_dtype_bytes(dst);
    const cast_vec_t multiplier = cast_set(bits);
    int64_t i = 0;
    if (stream) {
        const int64_t aside = (int64_t)(-(uintptr_t)to % CAST_ALIGNED);
        const int64_t head = hd_min(n, aside / out);
        stream = aside % out == 0;
        if (stream && head > 0)
            cast_part_block(src, dst, scaled, rule, multiplier, from, to, i = head);
        for (; stream && i + CAST_BLOCK <= n; i += CAST_BLOCK)
            cast_one_block(src, dst, scaled, rule, multiplier, from + i * in, to + i * out, true);
    }
    for (; i + CAST_BLOCK <= n; i += CAST_BLOCK)
        cast_one_block(src, dst, scaled, rule, multiplier, from + i * in, to + i * out, false);
    if (i < n)
        cast_part_block(src, dst, scaled, rule, multiplier, from + i * in, to + i * out, n - i);
}

/* What a loop is given beside types. */
typedef struct cast_run_of {
    const cast_rule_t *rule;
    uint32_t multiplier;
    const char *from;
    char *to;
    int64_t n;
    bool scaled, stream;
} cast_run_of_t;

HD_NOINLINE void cast_nothing(const cast_run_of_t *r)
{
    memmove(r->to, r->from, (size_t)r->n * sizeof(float));
}

#define CAST_PAIR(src, dst)                                                                       \
    HD_NOINLINE void cast_##src##_##dst(const cast_run_of_t *r)                                   \
    {                                                                                             \
        if (r->scaled)                                                                            \
            cast_all_blocks(HEED_##src, HEED_##dst, true, r->rule, r->multiplier, r->from, r->to, \
                            r->n, r->stream);                                                     \
        else if (HEED_##src == HEED_F32 && HEED_##dst == HEED_F32)                                \
            cast_nothing(r);                                                                      \
        else                                                                                      \
            cast_all_blocks(HEED_##src, HEED_##dst, false, r->rule, 0, r->from, r->to, r->n,      \
                            r->stream);                                                           \
    }
#define CAST_PAIRS(X, src) X(src, F32) X(src, BF16) X(src, F16) X(src, E4M3) X(src, E5M2)
CAST_PAIRS(CAST_PAIR, F32)
CAST_PAIRS(CAST_PAIR, BF16)
CAST_PAIRS(CAST_PAIR, F16)
CAST_PAIRS(CAST_PAIR, E4M3)
CAST_PAIRS(CAST_PAIR, E5M2)

/* Place of a type with loops in the table; -1: it has none. */
static int cast_type_number(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? 0
           : dtype == HEED_BF16 ? 1
           : dtype == HEED_F16  ? 2
           : dtype == HEED_E4M3 ? 3
           : dtype == HEED_E5M2 ? 4
                                : -1;
}

#define CAST_NAME(src, dst) cast_##src##_##dst,
static void (*const cast_pairs[5][5])(const cast_run_of_t *) = {
    {CAST_PAIRS(CAST_NAME, F32)},  {CAST_PAIRS(CAST_NAME, BF16)}, {CAST_PAIRS(CAST_NAME, F16)},
    {CAST_PAIRS(CAST_NAME, E4M3)}, {CAST_PAIRS(CAST_NAME, E5M2)},
};

#endif
