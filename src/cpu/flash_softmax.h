/* The running softmax of flash attention, on columns of scores^T: vertical throughout. */
#ifndef HD_FLASH_SOFTMAX_H
#define HD_FLASH_SOFTMAX_H

#include "flash_tile.h"

#ifndef VEC_EXP2_MOST
#define VEC_EXP2_MOST FLASH_TILE
#endif

/* The running reference of one vector of queries. `most` and `reference` are in units of log2. */
typedef struct flash_row {
    vec_t most, sum;
} flash_row_t;

/* The maximum passes over NaN: a row whose scores are all NaN is told by its sum. */
static inline bool flash_is_empty(float most, float sum)
{
    return most == -INFINITY && !isnan(sum);
}

/* Moves the reference up to the block's maximum. Returns the factor for what is summed so far; *low
 * is what scores are taken relative to: the reference, or the lowest number while nothing is seen,
 * so that -inf less it stays -inf. */
HD_INLINE vec_t flash_raise(flash_row_t *row, vec_t block_most, vec_t *low)
{
    vec_t old = row->most;
    row->most = vec_max(block_most, old);
    *low = vec_max(row->most, vec_set1(-FLT_MAX));
    vec_t corr = vec_exp2(vec_sub(old, *low));
    row->sum = vec_mul(row->sum, corr);
    return corr;
}

/* Exponentials of the scores of `keys` keys, one or whole cells, from key j on, `vectors` wide: as
 * many chains at once as there are, for one waits for itself at every stage. */
HD_INLINE void exponentials_of(const int keys, const int vectors, const float *s, char *p, int j,
                               int end, const vec_t *low, vec_t scale, vec_t *sum,
                               const uint64_t *masks, int shift)
{
    vec_t y[VEC_EXP2_MOST * CELL];
    HD_UNROLL
    for (int e = 0; e < keys; e++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            const float *at = s + (CELL > 1 && j + e >= end ? j : j + e) * LANES + r * VEC_LANES;
            y[e * vectors + r] = flash_relative(vec_load(at), scale, low[r]);
        }
    }
    HD_UNROLL
    for (int e = 0; e < keys * vectors; e += VEC_EXP2_MOST) {
        const int rest = keys * vectors - e;
        flash_exp2(y + e, rest < VEC_EXP2_MOST ? rest : VEC_EXP2_MOST);
    }
    HD_UNROLL
    for (int e = 0; e < keys; e++) {
        bool beyond = CELL > 1 && j + e >= end;
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_t *at = &y[e * vectors + r];
            if (masks || beyond) {
                uint32_t bits = beyond ? 0 : (uint32_t)(masks[j + e] >> (shift + r * VEC_LANES));
                *at = vec_select(bits, *at, vec_zero());
            }
            sum[r] = vec_add(sum[r], *at);
        }
    }
    HD_UNROLL
    for (int e = 0; e < keys; e += CELL) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            flash_store_weights(p + ((j + e) / CELL * LANES + r * VEC_LANES) * 4,
                                y[e * vectors + r], y[(e + CELL - 1) * vectors + r]);
        }
    }
}

HD_INLINE void exponentials(const int vectors, const float *s, char *p, int first, int end,
                            const vec_t *low, vec_t scale, flash_row_t *row, const uint64_t *masks,
                            int shift)
{
    const int together = CELL > 1 ? CELL : VEC_EXP2_MOST / vectors;
    vec_t sum[FLASH_TILE], from[FLASH_TILE];
    int j = first;
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        sum[r] = row[r].sum;
        from[r] = low[r];
    }
    for (; j + together <= end; j += together)
        exponentials_of(together, vectors, s, p, j, end, from, scale, sum, masks, shift);
    for (; j < end; j += CELL)
        exponentials_of(CELL, vectors, s, p, j, end, from, scale, sum, masks, shift);
    for (; VALUE_KEYS > CELL && j % VALUE_KEYS; j += CELL)
        for (int r = 0; r < vectors; r++)
            vec_store(p + (j / CELL * LANES + r * VEC_LANES) * 4, vec_zero());
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        row[r].sum = sum[r];
    }
}

/* Exponentials of the scores of keys first .. end-1 into P^T, and their sums; s, p, low and row are
 * at the first. With pairs, first is even, and an odd end is filled up with zeros. scale is 1 where
 * it was put into Q. masks may be NULL. */
HD_NOINLINE void flash_exponentials(int vectors, const float *s, char *p, int first, int end,
                                    const vec_t *low, vec_t scale, flash_row_t *row,
                                    const uint64_t *masks, int shift)
{
#define MASKED(n) exponentials(n, s, p, first, end, low, scale, row, masks, shift)
#define PLAIN(n)  exponentials(n, s, p, first, end, low, scale, row, NULL, 0)
    if (masks)
        FLASH_WIDTHS(vectors, MASKED);
    else
        FLASH_WIDTHS(vectors, PLAIN);
#undef MASKED
#undef PLAIN
}

#endif
