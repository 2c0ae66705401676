/* Blocks of elements to FP8, in any instruction set. What is beyond the format, where that is not
 * its largest number, and NaN are put in afterwards, in blocks that have such elements. */
#ifndef HD_CAST_ENCODE_H
#define HD_CAST_ENCODE_H

#include "cast_body.h"

/* ---- loading --------------------------------------------------------------------------------- */

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

/* Codes plus `offset` in c and signs in x, of blocks with numbers that the common path has wrong.
 */
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

/* What a loop has in registers. */
typedef struct cast_with {
    const cast_rule_t *rule;
    bool only_nan; /* NaN is all that the common path has wrong */
    cast_vec_t last, half_last;
    cast_vec_t multiplier[4]; /* of the vectors of a block */
    cast_coder_t coder;
} cast_with_t;

HD_INLINE cast_with_t cast_with(const heed_dtype_t dtype, const cast_rule_t *rule)
{
    cast_with_t with = {
        .rule = rule,
        .only_nan = rule->last == HD_F32_INF,
        .last = cast_set(rule->last),
        /* What is above it in 32 bits is above it in 16, for the lower ones are 0. */
        .half_last = cast_set((rule->last >> 16) * 0x10001),
        .coder = cast_coder(dtype),
    };
    HD_OPAQUE(with.last);
    HD_OPAQUE(with.half_last);
    return with;
}

HD_INLINE bool cast_any_wrong(const cast_with_t *with, const cast_vec_t x[4])
{
    if (with->only_nan)
        return cast_any_nan(x);
    cast_vec_t top = cast_set(0);
    HD_UNROLL
    for (int k = 0; k < 4; k++)
        top = cast_max(top, cast_and(x[k], cast_set(HD_F32_MAGNITUDE)));
    return cast_any_above(top, with->last);
}

HD_INLINE cast_vec_t cast_encode(const heed_dtype_t dtype, const cast_with_t *with,
                                 const cast_vec_t x[4])
{
    cast_vec_t c[4];
    HD_UNROLL
    for (int k = 0; k < 4; k++)
        c[k] = cast_code(dtype, &with->coder, x[k]);
    if (__builtin_expect(cast_any_wrong(with, x), 0)) {
        /* Copies: what a function is given the address of would live in memory in all blocks. */
        cast_vec_t codes[4] = {c[0], c[1], c[2], c[3]}, numbers[4] = {x[0], x[1], x[2], x[3]};
        cast_fix(dtype, with->rule, cast_offset(dtype), codes, numbers);
        return cast_pack_codes(&with->coder, codes, numbers);
    }
    return cast_pack_codes(&with->coder, c, x);
}

HD_INLINE void cast_encode_halves(const heed_dtype_t dtype, const cast_with_t *with,
                                  const char *from, char *to, bool stream)
{
    enum { BYTES = 4 * CAST_LANES };
    const cast_vec_t w[2] = {cast_load(from), cast_load(from + BYTES)};
    const cast_vec_t mask = cast_set(0x7fff7fff);
    const cast_vec_t top = cast_max_16(cast_and(w[0], mask), cast_and(w[1], mask));
    if (__builtin_expect(cast_any_above_16(top, with->half_last), 0)) {
        cast_vec_t x[4];
        cast_load_block(HEED_BF16, from, x);
        cast_store(to, cast_encode(dtype, with, x), stream);
        return;
    }
    cast_store(to, cast_encode_bf16(dtype, &with->coder, w), stream);
}

/* f16 to E5M2: the upper byte, rounded. */
HD_INLINE void cast_encode_f16(const cast_with_t *with, const char *from, char *to, bool stream)
{
    enum { BYTES = 4 * CAST_LANES };
    const uint32_t magnitude = with->rule->last;
    const uint32_t last = magnitude < HD_F32_INF - 1 ? 0x7b7f
                          : magnitude < HD_F32_INF   ? 0x7bff
                                                     : 0x7c00;
    cast_vec_t w[2], c[2], top[2];
    HD_UNROLL
    for (int k = 0; k < 2; k++) {
        w[k] = cast_load(from + k * BYTES);
        top[k] = cast_and(w[k], cast_set(0x7fff7fff));
        const cast_vec_t most = cast_min_16(top[k], cast_set(0x7b007b00));
        const cast_vec_t odd = cast_and(cast_right_16(most, 8), cast_set(0x00010001));
        const cast_vec_t rounded = cast_add_16(cast_add_16(most, odd), cast_set(0x007f007f));
        c[k] = cast_add_16(cast_right_16(rounded, 8), cast_set(cast_offset(HEED_E5M2) * 0x10001));
    }
    if (__builtin_expect(cast_any_above_16(cast_max_16(top[0], top[1]), cast_set(last * 0x10001)),
                         0)) {
        cast_vec_t x[4];
        cast_load_block(HEED_F16, from, x);
        cast_store(to, cast_encode(HEED_E5M2, with, x), stream);
        return;
    }
    cast_store(to, cast_pack_halves(&with->coder, c, w), stream);
}

#endif
