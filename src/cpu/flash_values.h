/* The second product of flash attention: O^T += V^T P^T, queries in lanes. */
#ifndef HD_FLASH_VALUES_H
#define HD_FLASH_VALUES_H

#include "flash_tile.h"

#if !FLASH_AMX

/* O^T of `columns` columns: scaled by corr where that is given, then P^T V of some keys added.
 * steps counts cells of keys. */
HD_INLINE void pv_tile(const int columns, const int vectors, const char *v, int64_t v_row,
                       const char *p, int steps, float *o, const vec_t *corr)
{
    vec_t sum[FLASH_NARROW][FLASH_TILE];
    HD_UNROLL
    for (int i = 0; i < columns; i++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            sum[i][r] = vec_load(o + i * LANES + r * VEC_LANES);
            if (corr)
                sum[i][r] = vec_mul(sum[i][r], corr[r]);
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

HD_INLINE void pv_range(const int vectors, const char *v, int64_t v_row, int dv, const char *p,
                        int steps, float *o, const vec_t *corr, flash_ahead_t *ahead)
{
    const int height = tile_height(FLASH_COLUMNS, vectors);
    int c = 0;
#define TILE(n)                                      \
    (flash_fetch_beside(ahead, n * vectors * steps), \
     pv_tile(n, vectors, v + c * 4, v_row, p, steps, o + c * LANES, corr))
    FLASH_CUT(c, dv, height, vectors, TILE)
#undef TILE
}

/* O^T += V^T P^T of `steps` cells of keys for `vectors` vectors of queries, after O^T was scaled by
 * corr where that is not NULL. p, o and corr are at the first of these vectors. What is ahead is
 * fetched between. */
HD_NOINLINE void pv_keys(int vectors, const char *v, int64_t v_row, int dv, const char *p,
                         int steps, float *o, const vec_t *corr, flash_ahead_t *ahead)
{
#define WIDTH(n) pv_range(n, v, v_row, dv, p, steps, o, corr, ahead)
    FLASH_WIDTHS(vectors, WIDTH);
#undef WIDTH
}

/* Where element `element` of a value cell row is, for flash_load_value. */
HD_INLINE const char *flash_value_at(const char *v, int64_t v_row, int key, int column)
{
    return v + key / CELL * v_row + column * 4;
}

#endif

#endif
