/* cast_line for instruction sets: pieces that stay in the first-level cache go through the loops of
 * cast_blocks.h, and through those here for the largest magnitude and the counts. */
#ifndef HD_CAST_LINE_BLOCKS_H
#define HD_CAST_LINE_BLOCKS_H

#define CAST_HAS_GROUPS 1
#include "cast_plain.h"
#include "cast_round.h"

/* ---- the largest magnitude ------------------------------------------------------------------- */

/* Magnitudes of every type rise with their bits, NaN is above all: integers of the type's own size
 * are enough. */
HD_INLINE uint32_t cast_most(const int bytes, const char *from, int64_t n)
{
    enum { VECTOR = 4 * CAST_LANES };
    const cast_vec_t mask = cast_set(bytes == 4   ? HD_F32_MAGNITUDE
                                     : bytes == 2 ? 0x7fff7fffu
                                                  : 0x7f7f7f7fu);
    cast_vec_t most[2] = {cast_set(0), cast_set(0)};
    char last[2 * VECTOR] = {0};
    int64_t size = n * bytes, i = 0;
    for (;; i += 2 * VECTOR) {
        const char *at = from + i;
        for (int line = 0; line < 2 * VECTOR; line += CAST_LINE)
            __builtin_prefetch(at + line + CAST_AHEAD, 0, 3);
        if (i == size)
            break;
        if (i + 2 * VECTOR > size) {
            memcpy(last, at, (size_t)(size - i));
            at = last;
        }
        HD_UNROLL
        for (int k = 0; k < 2; k++) {
            const cast_vec_t x = cast_and(cast_load(at + k * VECTOR), mask);
            most[k] = bytes == 4   ? cast_max(most[k], x)
                      : bytes == 2 ? cast_max_16(most[k], x)
                                   : cast_max_8(most[k], x);
        }
        if (at == last)
            break;
    }
    /* Elements of a lane one upon the other. */
    const cast_vec_t element = cast_set(bytes == 4 ? 0xffffffff : bytes == 2 ? 0xffff : 0xff);
    cast_vec_t top = cast_set(0);
    HD_UNROLL
    for (int k = 0; k < 2; k++) {
        top = cast_max(top, cast_and(most[k], element));
        if (bytes <= 2)
            top = cast_max(top, cast_and(cast_right(most[k], 16), element));
        if (bytes == 1) {
            top = cast_max(top, cast_and(cast_right(most[k], 8), element));
            top = cast_max(top, cast_right(most[k], 24));
        }
    }
    return cast_largest_lane(top);
}

static uint32_t cast_line_amax(const hd_cast_t *cast, const char *from, int64_t n)
{
    heed_dtype_t dtype = cast->src_dtype;
    if (cast_type_number(dtype) < 0)
        return plain_amax(cast, from, n);
    if (dtype == HEED_F32)
        return cast_most(4, from, n);
    uint32_t most = hd_dtype_bytes(dtype) == 2 ? cast_most(2, from, n) : cast_most(1, from, n);
    return hd_cast_load(dtype, (const char *)&most) & HD_F32_MAGNITUDE;
}

/* ---- counts ---------------------------------------------------------------------------------- */

enum {
    COUNT_CLIPPED,
    COUNT_OVERFLOWED,
    COUNT_NOT_LOST,
    COUNT_NAN,
    COUNT_SPECIAL,
    COUNT_NOT_ZERO,
    COUNT_VECTORS
};

/* x: the source, y: what is rounded to dst. Where x is not finite, y is above every limit: such
 * elements are counted, and taken off afterwards. */
HD_INLINE void cast_count_block(const cast_limits_t *limits, const cast_vec_t x[4],
                                const cast_vec_t y[4], cast_vec_t sums[COUNT_VECTORS])
{
    const cast_vec_t mask = cast_set(HD_F32_MAGNITUDE);
    HD_UNROLL
    for (int k = 0; k < 4; k++) {
        const cast_vec_t a = cast_and(x[k], mask), b = cast_and(y[k], mask);
        sums[COUNT_CLIPPED] = cast_count_above(sums[COUNT_CLIPPED], b, cast_set(limits->largest));
        sums[COUNT_OVERFLOWED] =
            cast_count_above(sums[COUNT_OVERFLOWED], b, cast_set(limits->beyond - 1));
        sums[COUNT_NOT_LOST] = cast_count_above(sums[COUNT_NOT_LOST], b, cast_set(limits->zero));
        sums[COUNT_NAN] = cast_count_above(sums[COUNT_NAN], a, cast_set(HD_F32_INF));
        sums[COUNT_SPECIAL] = cast_count_above(sums[COUNT_SPECIAL], a, cast_set(HD_F32_INF - 1));
        sums[COUNT_NOT_ZERO] = cast_count_above(sums[COUNT_NOT_ZERO], a, cast_set(0));
    }
}

/* Whether a block has nothing to count: neither a number beyond the largest nor one that may be
 * lost, which most have not. */
HD_INLINE bool cast_counts_nothing(const cast_limits_t *limits, const cast_vec_t y[4])
{
    cast_vec_t most = cast_set(0), least = cast_set(HD_F32_MAGNITUDE);
    HD_UNROLL
    for (int k = 0; k < 4; k++) {
        const cast_vec_t magnitude = cast_and(y[k], cast_set(HD_F32_MAGNITUDE));
        most = cast_max(most, magnitude);
        least = cast_min(least, magnitude);
    }
    return !cast_any_above(most, cast_set(limits->largest)) &&
           !cast_any_above(cast_set(limits->zero + 1), least);
}

/* each: a multiplier for every 32 elements; NULL: `bits` for all. */
HD_INLINE void cast_count_blocks(const heed_dtype_t src, const cast_limits_t *limits, bool scaled,
                                 uint32_t bits, const uint32_t *each, const char *from, int64_t n,
                                 int64_t *counts)
{
    const cast_vec_t multiplier = cast_set(bits);
    const int64_t size = hd_dtype_bytes(src);
    cast_vec_t sums[COUNT_VECTORS], x[4], y[4];
    char last[4 * CAST_BLOCK] = {0};
    int64_t all[COUNT_VECTORS] = {0};
    for (int s = 0; s < COUNT_VECTORS; s++)
        sums[s] = cast_set(0);
    for (int64_t i = 0; i < n; i += CAST_BLOCK) {
        const char *at = from + i * size;
        if (i + CAST_BLOCK > n)
            at = memcpy(last, at, (size_t)((n - i) * size));
        cast_load_block(src, at, x);
        for (int k = 0; k < 4; k++)
            y[k] = !scaled ? x[k]
                   : each  ? cast_float_mul(x[k], cast_set(each[(i + k * CAST_LANES) / CAST_EACH]))
                           : cast_float_mul(x[k], multiplier);
        if (!cast_counts_nothing(limits, y))
            cast_count_block(limits, x, y, sums);
    }
    for (int s = 0; s < COUNT_VECTORS; s++) {
        uint32_t lanes[CAST_LANES];
        memcpy(lanes, &sums[s], sizeof(lanes));
        for (int k = 0; k < CAST_LANES; k++)
            all[s] += lanes[k];
    }
    counts[HEED_COUNT_CLIPPED] += all[COUNT_CLIPPED] - all[COUNT_SPECIAL];
    counts[HEED_COUNT_OVERFLOWED] += all[COUNT_OVERFLOWED] - all[COUNT_SPECIAL];
    counts[HEED_COUNT_UNDERFLOWED] += all[COUNT_NOT_ZERO] - all[COUNT_NOT_LOST];
    counts[HEED_COUNT_NAN] += all[COUNT_NAN];
    counts[HEED_COUNT_INF] += all[COUNT_SPECIAL] - all[COUNT_NAN];
}

static void cast_count(const hd_cast_t *cast, const char *from, int64_t n, uint32_t multiplier,
                       const uint32_t *each, int64_t *counts)
{
    const cast_limits_t limits = cast_limits(cast->dst_dtype);
    const bool scaled = hd_cast_scaled(cast);
#define COUNT(src)                                                                         \
    if (cast->src_dtype == HEED_##src) {                                                   \
        cast_count_blocks(HEED_##src, &limits, scaled, multiplier, each, from, n, counts); \
        return;                                                                            \
    }
    COUNT(F32)
    COUNT(BF16)
    COUNT(F16)
    COUNT(E4M3)
    COUNT(E5M2)
#undef COUNT
}

/* Groups of `width` elements along a line, each with its multiplier: one loop over all of them. */
static bool cast_line_of_groups(const hd_cast_t *cast, const char *from, char *to, int64_t width,
                                int64_t groups, const uint32_t *multipliers, int64_t *counts)
{
    uint32_t each[CAST_PIECE / CAST_EACH + 1] = {0};
    char source[4 * CAST_BLOCK] = {0}, result[4 * CAST_BLOCK];
    const int64_t n = width * groups, rest = n % CAST_BLOCK;
    const int64_t in = hd_dtype_bytes(cast->src_dtype), out = hd_dtype_bytes(cast->dst_dtype);
    if (width % CAST_EACH || n > CAST_PIECE || !cast_has_pair(cast) ||
        cast_is_fp8(cast->dst_dtype) == cast_is_fp8(cast->src_dtype))
        return false;
    for (int64_t g = 0; g < groups; g++) {
        if (!cast_line_is_fast(cast, multipliers[g]))
            return false;
        for (int64_t i = 0; i < width / CAST_EACH; i++)
            each[g * (width / CAST_EACH) + i] = multipliers[g];
    }
    if (cast->counts)
        cast_count(cast, from, n, 0, each, counts);
    const cast_rule_t rule = cast_rule(cast);
    cast_run_of_t run = {
        .rule = &rule, .each = each, .scaled = true, .from = from, .to = to, .n = n - rest};
    uint32_t (*const loop)(const cast_run_of_t *) =
        cast_pairs[cast_type_number(cast->src_dtype)][cast_type_number(cast->dst_dtype)];
    loop(&run);
    if (rest == 0)
        return true;
    run.each = each + run.n / CAST_EACH;
    run.from = memcpy(source, from + run.n * in, (size_t)(rest * in));
    run.to = result;
    const int64_t done = run.n;
    run.n = CAST_BLOCK;
    loop(&run);
    memcpy(to + done * out, result, (size_t)(rest * out));
    return true;
}

/* ---- a line ---------------------------------------------------------------------------------- */

static void cast_line(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                      uint32_t multiplier, int64_t index, bool stream, hd_cast_stats_t *stats)
{
    if (cast_has_rounding(cast, multiplier)) {
        const bool with_amax = cast->amax && !cast->scale_out;
        const uint32_t most = with_amax ? cast_line_amax(cast, from, n) : 0;
        stats->amax = most > stats->amax ? most : stats->amax;
        cast_round_line(cast, from, to, n, multiplier, index);
        return;
    }
    if (!cast_line_is_fast(cast, multiplier)) {
        cast_elements(cast, from, to, n, multiplier, index, stats);
        return;
    }
    if (!cast_has_pair(cast)) {
        plain_line(cast, from, to, n, multiplier, stats);
        return;
    }
    const bool scaled = hd_cast_scaled(cast), noted = cast->amax && !cast->scale_out;
    const int64_t in = hd_dtype_bytes(cast->src_dtype), out = hd_dtype_bytes(cast->dst_dtype);
    /* The largest magnitude comes with the loops of scaled numbers; else it takes one of its own.
     */
    const bool apart = noted && (!scaled || cast_is_fp8(cast->src_dtype));
    const int64_t piece = apart || cast->counts ? CAST_PIECE : n;
    const cast_rule_t rule = cast_rule(cast);
    cast_run_of_t run = {
        .rule = &rule, .multiplier = multiplier, .scaled = scaled, .stream = stream};
    for (int64_t i = 0; i < n; i += piece) {
        run.from = from + i * in;
        run.to = to + i * out;
        run.n = hd_min(piece, n - i);
        uint32_t most = apart ? cast_line_amax(cast, run.from, run.n) : 0;
        if (cast->counts)
            cast_count(cast, run.from, run.n, multiplier, NULL, stats->counts);
        if (!scaled && cast->src_dtype == HEED_F32 && cast->dst_dtype == HEED_F32)
            memmove(run.to, run.from, (size_t)(run.n * in));
        else
            most |= cast_pair(cast, run);
        if (noted)
            stats->amax = most > stats->amax ? most : stats->amax;
    }
}

#endif
