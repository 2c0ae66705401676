/* Runs of dense elements, a block at a time in registers: CAST_BLOCK elements as four vectors of
 * f32. Included after a cast_vec_ISA.h. Each pair of types is one loop:
 *
 * - To FP8 by one addition (cast_fp8_ISA.h, cast_encode.h): to a magnitude the power of two whose
 *   last bit is the quantum of the format there. Normal and subnormal numbers and the carry between
 *   binades are one path.
 * - From FP8 by bytes: every code is a bf16 number, and its upper and lower byte come from tables
 *   or shifts. No floating-point operation: subnormal codes cost nothing.
 *
 * Rounding is to nearest even: cast_job.h sets that mode. Other formats go through
 * the plain loops of cast_plain.h, other roundings through those of cast_round.h; E8M0, counts with
 * other roundings, and scales that are 0 or not finite go element by element. The largest magnitude
 * and the counts are further loops over pieces that lie in the first-level cache. A last part of a
 * block goes through a block of its own. */
#ifndef HD_CAST_BLOCKS_H
#define HD_CAST_BLOCKS_H

#include "cast_encode.h"

enum { CAST_PIECE = 4096, CAST_EACH = 32 };
/* In bytes. */
enum { CAST_LINE = 64, CAST_AHEAD = 4096, CAST_PAGE = 4096, CAST_PAGES = 8, CAST_NEAR = 512 };

/* ---- to 16 bits ------------------------------------------------------------------------------ */

/* The upper halves of x rounded to nearest even; NaN quiet, where the block has one. */
HD_INLINE cast_vec_t cast_round_bf16(cast_vec_t x, const bool with_nan)
{
    const cast_vec_t odd = cast_and(cast_right(x, 16), cast_set(1));
    cast_vec_t rounded = cast_add(cast_add(x, cast_set(0x7fff)), odd);
    if (with_nan)
        rounded = cast_where_above(cast_and(x, cast_set(HD_F32_MAGNITUDE)), cast_set(HD_F32_INF),
                                   cast_or(x, cast_set(0x00400000)), rounded);
    return cast_right(rounded, 16);
}

HD_INLINE void cast_store_bf16(const cast_vec_t x[4], char *to, const bool with_nan, bool stream)
{
    HD_UNROLL
    for (int k = 0; k < 4; k += 2)
        cast_store(
            to + k * 2 * CAST_LANES,
            cast_pack_16(cast_round_bf16(x[k], with_nan), cast_round_bf16(x[k + 1], with_nan)),
            stream);
}

HD_INLINE void cast_store_block(const heed_dtype_t dtype, const cast_with_t *with,
                                const cast_vec_t x[4], char *to, bool stream)
{
    enum { BYTES = 4 * CAST_LANES };
    if (dtype == HEED_F32) {
        HD_UNROLL
        for (int k = 0; k < 4; k++)
            cast_store(to + k * BYTES, x[k], stream);
    } else if (dtype == HEED_BF16) {
        if (__builtin_expect(cast_any_nan(x), 0))
            cast_store_bf16(x, to, true, stream);
        else
            cast_store_bf16(x, to, false, stream);
    } else if (dtype == HEED_F16) {
        for (int k = 0; k < 4; k += 2)
            cast_store(to + k / 2 * BYTES, cast_pack_f16(x[k], x[k + 1]), stream);
    } else {
        cast_store(to, cast_encode(dtype, with, x), stream);
    }
}

/* ---- loops ----------------------------------------------------------------------------------- */

HD_INLINE bool cast_is_fp8(const heed_dtype_t dtype)
{
    return dtype == HEED_E4M3 || dtype == HEED_E5M2;
}

/* What a loop is given beside types. */
typedef struct cast_run_of {
    const cast_rule_t *rule;
    uint32_t multiplier;
    const uint32_t *each; /* a multiplier for every 32 elements instead; NULL: one for all */
    bool scaled, stream;
    const char *from;
    char *to;
    int64_t n; /* whole blocks */
} cast_run_of_t;

/* Where elements are multiplied, and are no codes, their largest magnitude is kept as well. */
HD_INLINE void cast_one_block(const heed_dtype_t src, const heed_dtype_t dst, const bool scaled,
                              const cast_with_t *with, cast_vec_t *most, const char *from, char *to,
                              bool stream)
{
    cast_vec_t x[4];
    if (!scaled && cast_is_fp8(src) && (dst == HEED_BF16 || dst == HEED_F16)) {
        cast_decode_16(src, dst == HEED_F16, from, x);
        cast_store(to, x[0], stream);
        cast_store(to + 4 * CAST_LANES, x[1], stream);
        return;
    }
    if (!scaled && src == HEED_BF16 && cast_is_fp8(dst)) {
        cast_encode_halves(dst, with, from, to, stream);
        return;
    }
    if (!scaled && src == HEED_F16 && dst == HEED_E5M2) {
        cast_encode_f16(with, from, to, stream);
        return;
    }
    cast_load_block(src, from, x);
    if (scaled && !cast_is_fp8(src)) {
        HD_UNROLL
        for (int k = 0; k < 4; k++)
            *most = cast_max(*most, cast_and(x[k], cast_set(HD_F32_MAGNITUDE)));
    }
    if (scaled) {
        HD_UNROLL
        for (int k = 0; k < 4; k++)
            x[k] = cast_float_mul(x[k], with->multiplier[k]);
    }
    cast_store_block(dst, with, x, to, stream);
}

static uint32_t cast_largest_lane(cast_vec_t x)
{
    uint32_t lanes[CAST_LANES], most = 0;
    memcpy(lanes, &x, sizeof(lanes));
    for (int k = 0; k < CAST_LANES; k++)
        most = lanes[k] > most ? lanes[k] : most;
    return most;
}

/* A block, and a prefetch of what comes: in the caches CAST_AHEAD bytes behind it; from memory to
 * the second cache as many pages as take turns, and from there to the first CAST_NEAR bytes. */
HD_INLINE void cast_block_at(const heed_dtype_t src, const heed_dtype_t dst, const bool scaled,
                             const cast_with_t *with, cast_vec_t *most, const cast_run_of_t *r,
                             int64_t i, const bool pages)
{
    const int64_t in = hd_dtype_bytes(src), out = hd_dtype_bytes(dst);
    for (int64_t line = 0; line < CAST_BLOCK * in; line += CAST_LINE) {
        const char *at = r->from + i * in + line;
        if (pages)
            __builtin_prefetch(at + CAST_PAGES * CAST_PAGE, 0, 2);
        __builtin_prefetch(at + (pages ? CAST_NEAR : CAST_AHEAD), 0, 3);
    }
    cast_one_block(src, dst, scaled, with, most, r->from + i * in, r->to + i * out, r->stream);
}

/* Returns the largest magnitude where it is kept. From memory, blocks of eight pages take turns,
 * and the next eight are on their way: a processor fetches ahead within each page, so that more
 * lines are under way at once than along one. */
HD_INLINE uint32_t cast_all_blocks(const heed_dtype_t src, const heed_dtype_t dst,
                                   const bool scaled, const cast_run_of_t *run)
{
    const cast_run_of_t r = *run;
    const int64_t page = CAST_PAGE / hd_dtype_bytes(src);
    /* Whole lines of results: halves that wait for their other one would not fit the buffers. */
    const int64_t turn = hd_max(CAST_BLOCK, CAST_LINE / hd_dtype_bytes(dst));
    cast_with_t with = cast_with(dst, r.rule);
    cast_vec_t multiplier = cast_set(r.multiplier);
    HD_OPAQUE(multiplier);
    for (int k = 0; k < 4; k++)
        with.multiplier[k] = multiplier;
    cast_vec_t most = cast_set(0);
    int64_t done = 0;
    for (; r.stream && done + CAST_PAGES * page <= r.n; done += CAST_PAGES * page)
        for (int64_t i = done; i < done + page; i += turn)
            for (int p = 0; p < CAST_PAGES; p++)
                for (int64_t b = 0; b < turn; b += CAST_BLOCK)
                    cast_block_at(src, dst, scaled, &with, &most, &r, i + b + p * page, true);
    for (; done < r.n; done += CAST_BLOCK)
        cast_block_at(src, dst, scaled, &with, &most, &r, done, false);
    return cast_largest_lane(most);
}

/* The same with a multiplier for every 32 elements. Only to or from FP8: nothing else is stored so.
 */
HD_INLINE void cast_each_block(const heed_dtype_t src, const heed_dtype_t dst,
                               const cast_run_of_t *run)
{
    const cast_run_of_t r = *run;
    cast_with_t with = cast_with(dst, r.rule);
    cast_vec_t most = cast_set(0);
    for (int64_t i = 0; cast_is_fp8(src) != cast_is_fp8(dst) && i < r.n; i += CAST_BLOCK) {
        HD_UNROLL
        for (int k = 0; k < 4; k++)
            with.multiplier[k] = cast_set(r.each[(i + k * CAST_LANES) / CAST_EACH]);
        cast_block_at(src, dst, true, &with, &most, &r, i, false);
    }
}

#define CAST_PAIR(src, dst)                                                   \
    HD_NOINLINE uint32_t cast_##src##_##dst(const cast_run_of_t *r)           \
    {                                                                         \
        if (r->each) {                                                        \
            cast_each_block(HEED_##src, HEED_##dst, r);                       \
            return 0;                                                         \
        }                                                                     \
        return r->scaled ? cast_all_blocks(HEED_##src, HEED_##dst, true, r)   \
                         : cast_all_blocks(HEED_##src, HEED_##dst, false, r); \
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

static bool cast_has_pair(const hd_cast_t *cast)
{
    return cast_type_number(cast->src_dtype) >= 0 && cast_type_number(cast->dst_dtype) >= 0;
}

#define CAST_NAME(src, dst) cast_##src##_##dst,
static uint32_t (*const cast_pairs[5][5])(const cast_run_of_t *) = {
    {CAST_PAIRS(CAST_NAME, F32)},  {CAST_PAIRS(CAST_NAME, BF16)}, {CAST_PAIRS(CAST_NAME, F16)},
    {CAST_PAIRS(CAST_NAME, E4M3)}, {CAST_PAIRS(CAST_NAME, E5M2)},
};

/* Any number of elements: up to the first address where stores past the caches may begin, whole
 * blocks, and the rest; parts of blocks go through memory of their own. */
static uint32_t cast_pair(const hd_cast_t *cast, cast_run_of_t run)
{
    const int64_t in = hd_dtype_bytes(cast->src_dtype), out = hd_dtype_bytes(cast->dst_dtype);
    const int64_t aside = (int64_t)(-(uintptr_t)run.to % CAST_ALIGNED), n = run.n;
    uint32_t (*const loop)(const cast_run_of_t *) =
        cast_pairs[cast_type_number(cast->src_dtype)][cast_type_number(cast->dst_dtype)];
    int64_t length, head = run.stream ? hd_min(n, aside / out) : 0;
    const bool stream = run.stream && aside % out == 0;
    const char *from = run.from;
    char *to = run.to;
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i += length) {
        char source[4 * CAST_BLOCK] = {0}, result[4 * CAST_BLOCK];
        length = i < head ? head : (n - i) / CAST_BLOCK * CAST_BLOCK;
        const bool part = i < head || length == 0;
        length = length > 0 ? length : n - i;
        run.from = part ? memcpy(source, from + i * in, (size_t)(length * in)) : from + i * in;
        run.to = part ? result : to + i * out;
        run.n = part ? CAST_BLOCK : length;
        run.stream = stream && !part;
        const uint32_t top = loop(&run);
        most = top > most ? top : most;
        if (part)
            memcpy(to + i * out, result, (size_t)(length * out));
    }
    return most;
}

#endif
