/* FP8 rounded toward zero or stochastically, in integers as the definition has it
 * (hd_fp8_magnitude), to any FP8 format: the significand plus random bits below what stays, and
 * what stays. A number below half the smallest subnormal, of f32's own subnormal numbers too, loses
 * all its bits.
 *
 * Random words are Philox4x32-10, a block in each 64-bit lane: one multiplication has both halves
 * of a product, and what is above 32 bits is not looked at. Of a block of elements two vectors of
 * counters go through the rounds beside each other; counters lie so that interleaving their words
 * leaves them in order. Six instructions a round and vector: 120 of the some 200 that 64 elements
 * take in AVX-512. */
#ifndef HD_CAST_ROUND_H
#define HD_CAST_ROUND_H

#include "cast_blocks.h"

enum { PHILOX_ROUNDS = 10 };

typedef struct cast_rounder {
    cast_vec_t emin, cut, mantissa, largest; /* cut: bits that normal numbers lose */
    cast_vec_t beyond, infinity, nan;
    cast_vec_t keys[2][PHILOX_ROUNDS];
    cast_coder_t coder; /* packs codes, whatever the format */
    bool nan_signed, unsigned_zero, stochastic;
} cast_rounder_t;

static void cast_rounder_init(cast_rounder_t *with, const hd_cast_t *cast)
{
    const hd_fp8_t format = hd_fp8_format(cast->dst_dtype);
    const cast_rule_t rule = cast_rule(cast);
    const uint32_t key[2] = {(uint32_t)cast->seed, (uint32_t)(cast->seed >> 32)};
    with->emin = cast_set(format.emin);
    with->cut = cast_set(23u - format.mantissa);
    with->mantissa = cast_set(format.mantissa);
    with->largest = cast_set(format.largest);
    with->beyond = cast_set(rule.beyond);
    with->infinity = cast_set(rule.infinity);
    with->nan = cast_set(rule.nan);
    with->coder = cast_coder(HEED_E4M3);
    with->nan_signed = rule.nan_signed;
    with->unsigned_zero = format.unsigned_zero;
    with->stochastic = cast->rule.rounding == HEED_ROUND_STOCHASTIC;
    for (uint32_t round = 0; round < PHILOX_ROUNDS; round++) {
        with->keys[0][round] = cast_set(key[0] + round * 0x9e3779b9u);
        with->keys[1][round] = cast_set(key[1] + round * 0xbb67ae85u);
    }
}

/* The words of a block of elements, the first of which is in Philox block `first`. */
HD_INLINE void cast_random(const cast_rounder_t *with, uint64_t first, cast_vec_t word[4])
{
    const cast_vec_t multiplier[2] = {cast_set(0xd2511f53u), cast_set(0xcd9e8d57u)};
    cast_vec_t c[2][4];
    HD_UNROLL
    for (int v = 0; v < 2; v++) {
        c[v][0] = cast_counters(first + (uint64_t)(v * CAST_LANES / 2));
        c[v][1] = cast_upper_words(c[v][0]);
        c[v][2] = c[v][3] = cast_set(0);
    }
    HD_UNROLL
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        HD_UNROLL
        for (int v = 0; v < 2; v++) {
            const cast_vec_t a = cast_mul_words(c[v][0], multiplier[0]);
            const cast_vec_t b = cast_mul_words(c[v][2], multiplier[1]);
            c[v][0] = cast_xor_3(cast_upper_words(b), c[v][1], with->keys[0][round]);
            c[v][2] = cast_xor_3(cast_upper_words(a), c[v][3], with->keys[1][round]);
            c[v][1] = b;
            c[v][3] = a;
        }
    }
    HD_UNROLL
    for (int v = 0; v < 2; v++)
        cast_order_words(c[v], &word[2 * v]);
}

HD_INLINE cast_vec_t cast_round_magnitude(const cast_rounder_t *with, cast_vec_t magnitude,
                                          cast_vec_t random)
{
    const cast_vec_t none = cast_set(0), exponent = cast_right(magnitude, 23);
    const cast_vec_t significand =
        cast_or(cast_and(magnitude, cast_set(0x7fffff)), cast_set(0x800000));
    const cast_vec_t below = cast_max(cast_sub(with->emin, exponent), none);
    const cast_vec_t above = cast_max(cast_sub(exponent, with->emin), none);
    const cast_vec_t all = cast_add(below, with->cut), shift = cast_min(all, cast_set(31));
    const cast_vec_t sum = cast_add(cast_right_by(significand, cast_sub(all, shift)),
                                    cast_right_by(random, cast_sub(cast_set(32), shift)));
    return cast_add(cast_right_by(sum, shift), cast_left_by(above, with->mantissa));
}

/* The codes of a block of elements, in order. */
HD_INLINE cast_vec_t cast_round_block(const cast_rounder_t *with, const cast_vec_t x[4],
                                      const cast_vec_t random[4])
{
    cast_vec_t codes[4], signs[4];
    HD_UNROLL
    for (int k = 0; k < 4; k++) {
        const cast_vec_t magnitude = cast_and(x[k], cast_set(HD_F32_MAGNITUDE));
        cast_vec_t c = cast_round_magnitude(with, magnitude, random[k]);
        c = cast_where_above(c, with->largest, with->beyond, c);
        c = cast_where_above(magnitude, cast_set(HD_F32_INF - 1), with->infinity, c);
        c = cast_where_above(magnitude, cast_set(HD_F32_INF), with->nan, c);
        signs[k] = with->nan_signed
                       ? x[k]
                       : cast_where_above(magnitude, cast_set(HD_F32_INF), magnitude, x[k]);
        /* 0x80 is the NaN there and its own sign; 0 has none. */
        if (with->unsigned_zero)
            signs[k] = cast_where_above(cast_and(c, cast_set(0x7f)), cast_set(0), signs[k],
                                        cast_left(c, 24));
        codes[k] = cast_add(c, cast_set(cast_offset(HEED_E4M3)));
    }
    return cast_pack_codes(&with->coder, codes, signs);
}

/* Elements of a run; the first has place 0 in Philox block `first`. */
HD_INLINE void cast_round_blocks(const heed_dtype_t src, const cast_rounder_t *with,
                                 const cast_run_of_t *run, uint64_t first)
{
    const int64_t in = hd_dtype_bytes(src);
    const cast_vec_t multiplier = cast_set(run->multiplier);
    for (int64_t i = 0; i < run->n; i += CAST_BLOCK) {
        const int64_t left = hd_min(CAST_BLOCK, run->n - i);
        char source[4 * CAST_BLOCK] = {0}, result[CAST_BLOCK];
        const bool part = left < CAST_BLOCK;
        const char *from = run->from + i * in;
        cast_vec_t x[4], random[4] = {cast_set(0), cast_set(0), cast_set(0), cast_set(0)};
        cast_load_block(src, part ? memcpy(source, from, (size_t)(left * in)) : from, x);
        if (run->scaled)
            for (int k = 0; k < 4; k++)
                x[k] = cast_float_mul(x[k], multiplier);
        if (with->stochastic)
            cast_random(with, first + (uint64_t)i / 4, random);
        cast_store(part ? result : run->to + i, cast_round_block(with, x, random), false);
        if (part)
            memcpy(run->to + i, result, (size_t)left);
    }
}

#define CAST_ROUND(src)                                                                     \
    HD_NOINLINE void cast_round_##src(const cast_rounder_t *with, const cast_run_of_t *run, \
                                      uint64_t first)                                       \
    {                                                                                       \
        cast_round_blocks(HEED_##src, with, run, first);                                    \
    }
CAST_ROUND(F32)
CAST_ROUND(BF16)
CAST_ROUND(F16)
CAST_ROUND(E4M3)
CAST_ROUND(E5M2)

/* Whether a line goes through the loops above. Counts are for roundings to nearest. */
static bool cast_has_rounding(const hd_cast_t *cast, uint32_t multiplier)
{
    const uint32_t magnitude = multiplier & HD_F32_MAGNITUDE;
    return cast->rule.rounding != HEED_ROUND_NEAREST && !cast->counts &&
           hd_fp8_format(cast->dst_dtype).mantissa && cast_type_number(cast->src_dtype) >= 0 &&
           (!hd_cast_scaled(cast) || (magnitude != 0 && magnitude < HD_F32_INF));
}

/* `index`: of the first element. Those before a Philox block go one by one. */
static void cast_round_line(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                            uint32_t multiplier, int64_t index)
{
    static void (*const loops[])(const cast_rounder_t *, const cast_run_of_t *, uint64_t) = {
        cast_round_F32, cast_round_BF16, cast_round_F16, cast_round_E4M3, cast_round_E5M2};
    const int64_t head = hd_min(n, -index & 3);
    cast_rounder_t with;
    hd_cast_t plain = *cast;
    hd_cast_stats_t unused = {0};
    plain.amax = NULL;
    cast_elements(&plain, from, to, head, multiplier, index, &unused);
    cast_rounder_init(&with, cast);
    const cast_run_of_t run = {.multiplier = multiplier,
                               .scaled = hd_cast_scaled(cast),
                               .from = from + head * hd_dtype_bytes(cast->src_dtype),
                               .to = to + head,
                               .n = n - head};
    loops[cast_type_number(cast->src_dtype)](&with, &run, (uint64_t)(index + head) / 4);
}

#endif
