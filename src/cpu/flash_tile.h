/* The register tiles of flash attention, queries in lanes:
 *
 *     scores^T = K Q^T     out^T = V^T P^T
 *
 * A lane is a query. Keys and values are read as scalars from their natural rows and broadcast, so
 * neither needs a transpose, and the softmax between the two products has no horizontal operation.
 * Everything is made of 32-bit cells: one f32, or with FLASH_PAIRS two bf16 that a dot product
 * takes at once (two neighbours of the head size in the first product, two keys in the second).
 *
 * A wide tile is FLASH_KEYS (or FLASH_COLUMNS) broadcasts times FLASH_TILE vectors; a narrow tile
 * is FLASH_NARROW times one vector, for blocks that a mask cuts and for few queries. */
#ifndef HD_FLASH_TILE_H
#define HD_FLASH_TILE_H

#include "vec.h"

#include <float.h>
#include <math.h>

enum {
    CELL = FLASH_PAIRS ? 2 : 1,
    LANES = FLASH_TILE * VEC_LANES, /* of a wide tile: the row length of Q^T, S^T and O^T */
    TILES = FLASH_VECTORS / FLASH_TILE,
    ROWS = FLASH_VECTORS * VEC_LANES, /* queries of a task */
};

#if !FLASH_PAIRS
HD_INLINE vec_t flash_dot(vec_t sum, vec_t a, vec_t b)
{
    return vec_fma(a, b, sum);
}
#endif

#if FLASH_BY_ELEMENT
#include "flash_element.h"
#endif

/* S^T of `keys` keys and `vectors` query vectors. Lanes whose bit is off in masks become -inf. */
HD_INLINE void qk_tile(const int keys, const int vectors, const char *k, int64_t k_row,
                       const char *q, int steps, float *s, vec_t *most, const uint64_t *masks,
                       int shift)
{
    vec_t sum[FLASH_NARROW][FLASH_TILE];
    HD_UNROLL
    for (int i = 0; i < keys; i++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            sum[i][r] = vec_zero();
        }
    }
    int step = 0;
#if FLASH_BY_ELEMENT
    step = qk_elements(keys, vectors, k, k_row, q, steps, sum);
#endif
    HD_UNROLL_BY for (; step < steps; step++)
    {
        vec_t b[FLASH_TILE];
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            b[r] = vec_load(q + (step * LANES + r * VEC_LANES) * 4);
            HD_OPAQUE(b[r]);
        }
        HD_UNROLL
        for (int i = 0; i < keys; i++) {
            vec_t a = vec_broadcast(k + i * k_row + step * 4);
            HD_OPAQUE(a);
            HD_UNROLL
            for (int r = 0; r < vectors; r++) {
                sum[i][r] = flash_dot(sum[i][r], a, b[r]);
            }
        }
    }
    HD_UNROLL
    for (int i = 0; i < keys; i++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            if (masks)
                sum[i][r] =
                    vec_select((uint32_t)(masks[i] >> shift), sum[i][r], vec_set1(-INFINITY));
            vec_store(s + i * LANES + r * VEC_LANES, sum[i][r]);
            most[r] = vec_max(sum[i][r], most[r]);
        }
    }
}

/* All keys of a block against one wide tile of queries. most starts at -inf. */
HD_NOINLINE void qk_wide(const char *k, int64_t k_row, int count, const char *q, int steps,
                         float *s, vec_t *most)
{
    vec_t top[FLASH_TILE];
    int j = 0;
    HD_UNROLL
    for (int r = 0; r < FLASH_TILE; r++) {
        top[r] = vec_set1(-INFINITY);
    }
#define TILE(n) qk_tile(n, FLASH_TILE, k + j * k_row, k_row, q, steps, s + j * LANES, top, NULL, 0)
    for (; j + FLASH_KEYS <= count; j += FLASH_KEYS)
        TILE(FLASH_KEYS);
    for (; FLASH_KEYS > 4 && j + 4 <= count; j += 4)
        TILE(4);
    for (; j + 2 <= count; j += 2)
        TILE(2);
    if (j < count)
        TILE(1);
#undef TILE
    HD_UNROLL
    for (int r = 0; r < FLASH_TILE; r++) {
        most[r] = top[r];
    }
}

/* The keys first .. end-1 of a block against one vector of queries, masked. */
HD_NOINLINE vec_t qk_narrow(const char *k, int64_t k_row, int first, int end, const char *q,
                            int steps, float *s, const uint64_t *masks, int shift)
{
    vec_t top = vec_set1(-INFINITY);
    int j = first;
#define TILE(n) qk_tile(n, 1, k + j * k_row, k_row, q, steps, s + j * LANES, &top, masks + j, shift)
    for (; j + FLASH_NARROW <= end; j += FLASH_NARROW)
        TILE(FLASH_NARROW);
    for (; j + 4 <= end; j += 4)
        TILE(4);
    for (; j < end; j++)
        TILE(1);
#undef TILE
    return top;
}

/* O^T of `columns` columns: scaled by corr, then the block's P^T V added. steps counts cells of
 * keys. */
HD_INLINE void pv_tile(const int columns, const int vectors, const char *v, int64_t v_row,
                       const char *p, int steps, float *o, const vec_t *corr)
{
    vec_t sum[FLASH_NARROW][FLASH_TILE];
    HD_UNROLL
    for (int i = 0; i < columns; i++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            sum[i][r] = vec_mul(vec_load(o + i * LANES + r * VEC_LANES), corr[r]);
        }
    }
    int step = 0;
#if FLASH_BY_ELEMENT
    step = pv_elements(columns, vectors, v, v_row, p, steps, sum);
#endif
    HD_UNROLL_BY for (; step < steps; step++)
    {
        vec_t b[FLASH_TILE];
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            b[r] = vec_load(p + (step * LANES + r * VEC_LANES) * 4);
            HD_OPAQUE(b[r]);
        }
        HD_UNROLL
        for (int i = 0; i < columns; i++) {
            vec_t a = vec_broadcast(v + step * v_row + i * 4);
            HD_OPAQUE(a);
            HD_UNROLL
            for (int r = 0; r < vectors; r++) {
                sum[i][r] = flash_dot(sum[i][r], a, b[r]);
            }
        }
    }
    HD_UNROLL
    for (int i = 0; i < columns; i++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_store(o + i * LANES + r * VEC_LANES, sum[i][r]);
        }
    }
}

HD_NOINLINE void pv_wide(const char *v, int64_t v_row, int dv, const char *p, int steps, float *o,
                         const vec_t *corr)
{
    int c = 0;
#define TILE(n) pv_tile(n, FLASH_TILE, v + c * 4, v_row, p, steps, o + c * LANES, corr)
    for (; c + FLASH_COLUMNS <= dv; c += FLASH_COLUMNS)
        TILE(FLASH_COLUMNS);
    for (; FLASH_COLUMNS > 4 && c + 4 <= dv; c += 4)
        TILE(4);
    for (; c + 2 <= dv; c += 2)
        TILE(2);
    if (c < dv)
        TILE(1);
#undef TILE
}

HD_NOINLINE void pv_narrow(const char *v, int64_t v_row, int dv, const char *p, int steps, float *o,
                           vec_t corr)
{
    int c = 0;
#define TILE(n) pv_tile(n, 1, v + c * 4, v_row, p, steps, o + c * LANES, &corr)
    for (; c + FLASH_NARROW <= dv; c += FLASH_NARROW)
        TILE(FLASH_NARROW);
    for (; c + 4 <= dv; c += 4)
        TILE(4);
    for (; c < dv; c++)
        TILE(1);
#undef TILE
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* The running reference of one vector of queries. `most` and `reference` are in units of log2. */
typedef struct flash_row {
    vec_t most, sum;
} flash_row_t;

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

/* Exponentials of the scores of keys first .. end-1, `vectors` wide, into P^T. With pairs, first is
 * even, and an odd end is filled up with zeros. scale is 1 where it was put into Q. */
HD_INLINE void flash_exponentials(const int vectors, const float *s, char *p, int first, int end,
                                  const vec_t *low, vec_t scale, vec_t *sum, const uint64_t *masks,
                                  int shift)
{
    for (int j = first; j < end; j += CELL) {
        vec_t y[CELL][FLASH_TILE];
        HD_UNROLL
        for (int e = 0; e < CELL; e++) {
            bool beyond = e && j + e >= end;
            HD_UNROLL
            for (int r = 0; r < vectors; r++) {
                const float *at = s + (beyond ? j : j + e) * LANES + r * VEC_LANES;
                y[e][r] = flash_relative(vec_load(at), scale, low[r]);
            }
            flash_exp2(y[e], vectors);
            HD_UNROLL
            for (int r = 0; r < vectors; r++) {
                if (masks || beyond)
                    y[e][r] = vec_select(beyond ? 0 : (uint32_t)(masks[j + e] >> shift), y[e][r],
                                         vec_zero());
                sum[r] = vec_add(sum[r], y[e][r]);
            }
        }
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            flash_store_weights(p + (j / CELL * LANES + r * VEC_LANES) * 4, y[0][r],
                                y[CELL - 1][r]);
        }
    }
}

#endif
