/* The second product of short attention, the head size in lanes: rows of P times rows of V. */
#ifndef HD_SHORT_TILE_H
#define HD_SHORT_TILE_H

#include "flash_rows.h"

/* The keys of a head as rows of cells of V, v_row bytes each, zeros behind Dv. */
static void pack_values(const hd_attention_t *a, int64_t b, int64_t head, char *to, int64_t v_row)
{
    for (int64_t j = 0; j < a->keys; j += CELL, to += v_row) {
        pack_v(a, b, head, j, (int)hd_min(CELL, a->keys - j), to);
        memset(to + packed_v_row(a), 0, (size_t)(v_row - packed_v_row(a)));
    }
}

/* `rows` rows of results, `vectors` vectors of columns of them: P^T is read as scalars, V where it
 * lies. steps counts cells of keys. */
HD_INLINE void out_tile(const int rows, const int vectors, const char *p, const char *v,
                        int64_t v_row, int steps, const float *factor, char *const *to,
                        int64_t column)
{
    vec_t sum[FLASH_NARROW][FLASH_TILE];
    HD_UNROLL
    for (int i = 0; i < rows; i++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            sum[i][r] = vec_zero();
        }
    }
    HD_UNROLL_BY for (int step = 0; step < steps; step++)
    {
        vec_t b[FLASH_TILE];
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            b[r] = vec_load(v + step * v_row + r * VEC_LANES * 4);
            HD_OPAQUE(b[r]);
        }
        HD_UNROLL
        for (int i = 0; i < rows; i++) {
            vec_t a = vec_broadcast(p + (step * LANES + i) * 4);
            HD_OPAQUE(a);
            HD_UNROLL
            for (int r = 0; r < vectors; r++) {
                sum[i][r] = flash_dot(sum[i][r], a, b[r]);
            }
        }
    }
    HD_UNROLL
    for (int i = 0; i < rows; i++) {
        vec_t scale = vec_set1(factor[i]);
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_store(to[i] + (column + r * VEC_LANES) * 4, vec_mul(sum[i][r], scale));
        }
    }
}

HD_INLINE void out_columns(const int vectors, const char *p, const char *v, int64_t v_row,
                           int steps, int rows, const float *factor, char *const *to, int column,
                           flash_ahead_t *ahead)
{
    const int height = tile_height(FLASH_KEYS, vectors);
    int i = 0;
    v += column * 4;
#define TILE(n)                                      \
    (flash_fetch_beside(ahead, n * vectors * steps), \
     out_tile(n, vectors, p + i * 4, v, v_row, steps, factor + i, to + i, column))
    FLASH_CUT(i, rows, height, vectors, TILE)
#undef TILE
}

/* to[i] = factor[i] times row i of P V, `columns` f32, written in whole vectors. V's rows are as
 * long. */
HD_NOINLINE void out_rows(const char *p, const char *v, int64_t v_row, int steps, int rows,
                          int columns, const float *factor, char *const *to, flash_ahead_t *ahead)
{
    for (int c = 0; c < columns; c += LANES) {
        int vectors = (int)hd_min((columns - c + VEC_LANES - 1) / VEC_LANES, FLASH_TILE);
#define WIDTH(n) out_columns(n, p, v, v_row, steps, rows, factor, to, c, ahead)
        FLASH_WIDTHS(vectors, WIDTH);
#undef WIDTH
    }
}

/* ---- the careful way ------------------------------------------------------------------------- */

/* Element `half` of a cell, as f32. */
static float cell_value(const char *at, int half)
{
#if FLASH_PAIRS
    uint16_t bits;
    memcpy(&bits, at + 2 * half, sizeof(bits));
    return hd_bf16_to_f32(bits);
#else
    float value;
    (void)half;
    memcpy(&value, at, sizeof(value));
    return value;
#endif
}

/* One row again, from the keys alone whose bit is on: what the others hold may be NaN. */
HD_NOINLINE void out_careful(const char *p, const char *v, int64_t v_row, int keys, int columns,
                             const uint64_t *masks, int bit, float factor, float *to)
{
    for (int c = 0; c < columns; c++) {
        float sum = 0;
        for (int j = 0; j < keys; j++)
            if (masks[j] >> bit & 1)
                sum += cell_value(p + (int64_t)(j / CELL) * LANES * 4, j % CELL) *
                       cell_value(v + j / CELL * v_row + c * 4, j % CELL);
        to[c] = sum * factor;
    }
}

static bool row_has_nan(const float *row, int n)
{
    float sum = 0;
    for (int c = 0; c < n; c++)
        sum += row[c] * 0;
    return sum != 0;
}

#endif
