/* The two products of flash attention on the matrix unit, in the layout of flash_tile.h: queries
 * are the columns of every tile of sums.
 *
 *     scores^T = K Q^T     left: 16 rows of K as they lie    right: Q^T in pairs, as packed anyway
 *     out^T = V^T P^T      left: V^T, packed by pack_v       right: P^T in pairs, as stored anyway
 *
 * A product is 16 rows of sums by up to 32 queries and goes on step by step, 32 elements deep, so
 * that its steps can stand between other work: the unit takes 16 cycles for a dot and the loads
 * beside it, in which a vector port is free. Sums are not renamed: a dot waits for the store of
 * what its tile held before. So scores have tiles 2, 3 and 5, results 0, 1 and 4, and one of each
 * is under way. Both take their right operands through 6 and 7. */
#ifndef HD_FLASH_AMX_TILE_H
#define HD_FLASH_AMX_TILE_H

#include "amx.h"

enum { AMX_KEYS = 32, AMX_SUM_ROW = LANES * 4 };

HD_INLINE void flash_begin(void)
{
    const amx_config_t config = amx_config(AMX_ROWS);
    amx_begin(&config);
}

HD_INLINE void flash_end(void)
{
    amx_end();
}

/* Products of one kind, one after the other, each of `depth` steps. */
typedef struct amx_products {
    int left;                      /* steps of all of them */
    int at, depth;                 /* step of the one under way */
    const char *a, *b;             /* operands of its first step */
    int64_t a_row, a_step, a_next; /* bytes to a next row, step, product */
    float *sums;
} amx_products_t;

HD_INLINE void amx_next_step(amx_products_t *m)
{
    m->left--;
    if (++m->at < m->depth)
        return;
    m->at = 0;
    m->a += m->a_next;
    m->sums += AMX_ROWS * LANES;
}

/* One step towards scores of 16 keys. */
HD_INLINE void amx_score_step(const int vectors, amx_products_t *m)
{
    const char *b = m->b + m->at * (AMX_PAIRS * AMX_SUM_ROW);
    if (m->at == 0) {
        amx_zero(2);
        if (vectors > 1)
            amx_zero(3);
    }
    amx_load(5, m->a + m->at * m->a_step, m->a_row);
    amx_load(6, b, AMX_SUM_ROW);
    amx_dot(2, 5, 6);
    if (vectors > 1) {
        amx_load(7, b + 64, AMX_SUM_ROW);
        amx_dot(3, 5, 7);
    }
    if (m->at == m->depth - 1) {
        amx_store(2, m->sums, AMX_SUM_ROW);
        if (vectors > 1)
            amx_store(3, m->sums + 16, AMX_SUM_ROW);
    }
    amx_next_step(m);
}

/* One step towards results of 16 columns. */
HD_INLINE void amx_value_step(const int vectors, amx_products_t *m)
{
    const char *b = m->b + m->at * (AMX_PAIRS * AMX_SUM_ROW);
    if (m->at == 0) {
        amx_load(0, m->sums, AMX_SUM_ROW);
        if (vectors > 1)
            amx_load(1, m->sums + 16, AMX_SUM_ROW);
    }
    amx_load(4, m->a + m->at * m->a_step, m->a_row);
    amx_load(6, b, AMX_SUM_ROW);
    amx_dot(0, 4, 6);
    if (vectors > 1) {
        amx_load(7, b + 64, AMX_SUM_ROW);
        amx_dot(1, 4, 7);
    }
    if (m->at == m->depth - 1) {
        amx_store(0, m->sums, AMX_SUM_ROW);
        if (vectors > 1)
            amx_store(1, m->sums + 16, AMX_SUM_ROW);
    }
    amx_next_step(m);
}

/* ---- one by one, for the careful way --------------------------------------------------------- */

/* Scores of as many keys as a tile has rows, and one vector. */
static void amx_scores_1(const char *k, int64_t k_row, const char *q, int steps, float *s)
{
    amx_zero(0);
    for (int step = 0; step < steps; step += AMX_PAIRS) {
        amx_load(4, k + step * 4, k_row);
        amx_load(6, q + step * AMX_SUM_ROW, AMX_SUM_ROW);
        amx_dot(0, 4, 6);
    }
    amx_store(0, s, AMX_SUM_ROW);
}

/* Hides scores, and takes maxima. */
HD_INLINE void amx_maxima(int vectors, int first, int end, float *s, vec_t *most,
                          const uint64_t *masks, int shift)
{
    for (int r = 0; r < vectors; r++) {
        for (int j = first; j < end; j++) {
            float *at = s + (j - first) * LANES + r * VEC_LANES;
            uint32_t bits = masks ? (uint32_t)(masks[j] >> (shift + r * VEC_LANES)) : 0xffff;
            vec_t x = vec_select(bits, vec_load(at), vec_set1(-INFINITY));
            vec_store(at, x);
            most[r] = vec_max(x, most[r]);
        }
    }
}

/* As in flash_tile.h, for one vector. */
static void qk_keys(int vectors, const char *k, int64_t k_row, int first, int end, const char *q,
                    int steps, float *s, vec_t *most, const uint64_t *masks, int shift)
{
    int j = first;
    for (; j + AMX_ROWS <= end; j += AMX_ROWS)
        amx_scores_1(k + j * k_row, k_row, q, steps, s + j * LANES);
    if (j < end) {
        amx_config_t config = amx_config(end - j);
        amx_begin(&config);
        amx_scores_1(k + j * k_row, k_row, q, steps, s + j * LANES);
        config = amx_config(AMX_ROWS);
        amx_begin(&config);
    }
    amx_maxima(vectors, first, end, s + first * LANES, most, masks, shift);
}

/* Where element `key` % 2 of a pair of packed V^T is. */
HD_INLINE const char *flash_value_at(const char *v, int64_t v_row, int key, int column)
{
    return v + key / AMX_KEYS * (v_row * AMX_PAIRS) + column * AMX_ROW_BYTES +
           (key % AMX_KEYS & ~1) * 2;
}

#endif
