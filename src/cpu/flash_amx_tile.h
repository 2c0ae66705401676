/* The two products of flash attention on the matrix unit, in the layout of flash_tile.h: queries
 * are the columns of every tile of sums.
 *
 *     scores^T = K Q^T     left: 16 rows of K as they lie    right: Q^T in pairs, as packed anyway
 *     out^T = V^T P^T      left: V^T, packed by pack_v       right: P^T in pairs, as stored anyway
 *
 * Two left by two right operands: each is loaded once for two products, which a load port can
 * follow. Keys come 32 at a time; what is left of the last 32 are zeros in P^T and in packed V. */
#ifndef HD_FLASH_AMX_TILE_H
#define HD_FLASH_AMX_TILE_H

#include "amx.h"

enum { AMX_KEYS = 32 }; /* of one product of values */

HD_INLINE void flash_begin(void)
{
    const amx_config_t config = amx_config(AMX_ROWS);
    amx_begin(&config);
}

HD_INLINE void flash_end(void)
{
    amx_end();
}

/* Scores of 2 x 16 keys and 2 x 16 queries. */
HD_INLINE void amx_scores_2x2(const char *k, int64_t k_row, const char *q, int steps, float *s)
{
    const int64_t row = LANES * 4;
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
    for (int step = 0; step < steps; step += AMX_PAIRS) {
        amx_load(6, q + step * row, row);
        amx_load(4, k + step * 4, k_row);
        amx_dot(0, 4, 6);
        amx_load(7, q + step * row + 64, row);
        amx_dot(1, 4, 7);
        amx_load(5, k + step * 4 + 16 * k_row, k_row);
        amx_dot(2, 5, 6);
        amx_dot(3, 5, 7);
    }
    amx_store(0, s, row);
    amx_store(1, s + 16, row);
    amx_store(2, s + 16 * LANES, row);
    amx_store(3, s + 16 * LANES + 16, row);
}

/* Scores of as many keys as a tile has rows. */
HD_INLINE void amx_scores_1(const int vectors, const char *k, int64_t k_row, const char *q,
                            int steps, float *s)
{
    const int64_t row = LANES * 4;
    for (int r = 0; r < vectors; r++) {
        amx_zero(0);
        for (int step = 0; step < steps; step += AMX_PAIRS) {
            amx_load(4, k + step * 4, k_row);
            amx_load(6, q + step * row + r * 64, row);
            amx_dot(0, 4, 6);
        }
        amx_store(0, s + r * 16, row);
    }
}

HD_INLINE void amx_scores(const int vectors, const char *k, int64_t k_row, int count,
                          const char *q, int steps, float *s)
{
    int j = 0;
    for (; j + 32 <= count; j += 32) {
        int r = 0;
        for (; r + 2 <= vectors; r += 2)
            amx_scores_2x2(k + j * k_row, k_row, q + r * 64, steps, s + j * LANES + r * 16);
        if (r < vectors) {
            amx_scores_1(1, k + j * k_row, k_row, q + r * 64, steps, s + j * LANES + r * 16);
            amx_scores_1(1, k + (j + 16) * k_row, k_row, q + r * 64, steps,
                         s + (j + 16) * LANES + r * 16);
        }
    }
    for (; j + AMX_ROWS <= count; j += AMX_ROWS)
        amx_scores_1(vectors, k + j * k_row, k_row, q, steps, s + j * LANES);
    if (j < count) {
        amx_config_t config = amx_config(count - j);
        amx_begin(&config);
        amx_scores_1(vectors, k + j * k_row, k_row, q, steps, s + j * LANES);
        config = amx_config(AMX_ROWS);
        amx_begin(&config);
    }
}

/* Hides scores, and takes maxima. */
HD_INLINE void amx_maxima(const int vectors, int first, int end, float *s, vec_t *most,
                          const uint64_t *masks, int shift)
{
    vec_t top[FLASH_TILE];
    for (int r = 0; r < FLASH_TILE; r++)
        top[r] = r < vectors ? most[r] : vec_zero();
    for (int j = first; j < end; j++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            float *at = s + j * LANES + r * VEC_LANES;
            vec_t x = vec_load(at);
            if (masks) {
                uint32_t bits = (uint32_t)(masks[j] >> (shift + r * VEC_LANES));
                x = vec_select(bits, x, vec_set1(-INFINITY));
                vec_store(at, x);
            }
            top[r] = vec_max(x, top[r]);
        }
    }
    for (int r = 0; r < vectors; r++)
        most[r] = top[r];
}

HD_NOINLINE void qk_keys(int vectors, const char *k, int64_t k_row, int first, int end,
                         const char *q, int steps, float *s, vec_t *most, const uint64_t *masks,
                         int shift)
{
    amx_scores(vectors, k + first * k_row, k_row, end - first, q, steps, s + first * LANES);
#define MASKED(n) amx_maxima(n, first, end, s, most, masks, shift)
#define PLAIN(n)  amx_maxima(n, first, end, s, most, NULL, 0)
    if (masks)
        FLASH_WIDTHS(vectors, MASKED);
    else
        FLASH_WIDTHS(vectors, PLAIN);
#undef MASKED
#undef PLAIN
}

/* ---- values ---------------------------------------------------------------------------------- */

HD_INLINE void amx_values_2x2(const char *v, int64_t v_step, const char *p, int groups, float *o)
{
    const int64_t row = LANES * 4;
    amx_load(0, o, row);
    amx_load(1, o + 16, row);
    amx_load(2, o + 16 * LANES, row);
    amx_load(3, o + 16 * LANES + 16, row);
    for (int g = 0; g < groups; g++, v += v_step, p += AMX_PAIRS * row) {
        amx_load(6, p, row);
        amx_load(4, v, AMX_ROW_BYTES);
        amx_dot(0, 4, 6);
        amx_load(7, p + 64, row);
        amx_dot(1, 4, 7);
        amx_load(5, v + AMX_ROWS * AMX_ROW_BYTES, AMX_ROW_BYTES);
        amx_dot(2, 5, 6);
        amx_dot(3, 5, 7);
    }
    amx_store(0, o, row);
    amx_store(1, o + 16, row);
    amx_store(2, o + 16 * LANES, row);
    amx_store(3, o + 16 * LANES + 16, row);
}

HD_INLINE void amx_values_1(const char *v, int64_t v_step, const char *p, int groups, float *o)
{
    const int64_t row = LANES * 4;
    amx_load(0, o, row);
    for (int g = 0; g < groups; g++, v += v_step, p += AMX_PAIRS * row) {
        amx_load(6, p, row);
        amx_load(4, v, AMX_ROW_BYTES);
        amx_dot(0, 4, 6);
    }
    amx_store(0, o, row);
}

static void amx_scale(int vectors, int dv, float *o, const vec_t *corr)
{
    for (int c = 0; c < dv; c++)
        for (int r = 0; r < vectors; r++) {
            float *at = o + c * LANES + r * VEC_LANES;
            vec_store(at, vec_mul(vec_load(at), corr[r]));
        }
}

HD_NOINLINE void pv_keys(int vectors, const char *v, int64_t v_row, int dv, const char *p,
                         int steps, float *o, const vec_t *corr)
{
    const int64_t v_step = v_row * AMX_PAIRS;
    const int groups = (steps + AMX_PAIRS - 1) / AMX_PAIRS;
    if (corr)
        amx_scale(vectors, dv, o, corr);
    for (int c = 0; c < dv; c += 32) {
        bool two = c + 16 < dv;
        const char *columns = v + c * AMX_ROW_BYTES;
        float *to = o + c * LANES;
        int r = 0;
        for (; two && r + 2 <= vectors; r += 2)
            amx_values_2x2(columns, v_step, p + r * 64, groups, to + r * 16);
        for (; r < vectors; r++) {
            amx_values_1(columns, v_step, p + r * 64, groups, to + r * 16);
            if (two)
                amx_values_1(columns + AMX_ROWS * AMX_ROW_BYTES, v_step, p + r * 64, groups,
                             to + 16 * LANES + r * 16);
        }
    }
}

HD_INLINE const char *flash_value_at(const char *v, int64_t v_row, int key, int column)
{
    return v + key / AMX_KEYS * (v_row * AMX_PAIRS) + column * AMX_ROW_BYTES + (key % AMX_KEYS & ~1) * 2;
}

#endif
