/* The two products of flash attention on the matrix unit, in the layout of flash_tile.h: queries
 * are the columns of every tile of sums.
 *
 *     scores^T = K Q^T     left: 16 rows of K as they lie    right: Q^T in pairs, as packed anyway
 *     out^T = V^T P^T      left: V^T, packed by pack_v       right: P^T in pairs, as stored anyway
 *
 * A product is up to 32 rows of sums by up to 32 queries, two left by two right operands, so that
 * each is loaded once for two dots: while another thread keeps the core's load ports busy, loads
 * are what everything waits for. It goes on by halves of steps, 32 elements deep, which stand
 * between other work.
 *
 * Tried and left: four tiles of sums for scores and results by turns, two each, so that no dot
 * waits for the store of what its tile held before: 8 % faster with the core to itself, 12 to 15 %
 * slower beside another thread. */
#ifndef HD_FLASH_AMX_TILE_H
#define HD_FLASH_AMX_TILE_H

#include "amx.h"

enum { AMX_KEYS = 32, AMX_SUM_ROW = LANES * 4 };

/* Subnormal numbers become zero, in and out: a weight of that size counts for nothing, and each
 * vector with one would take the processor's slow path. Returns what flash_end takes. */
HD_INLINE uint32_t flash_begin(void)
{
    const amx_config_t config = amx_config(AMX_ROWS);
    const uint32_t before = _mm_getcsr();
    amx_begin(&config);
    _mm_setcsr(before | 0x8040);
    return before;
}

HD_INLINE void flash_end(uint32_t before)
{
    _mm_setcsr(before);
    amx_end();
}

typedef struct amx_product {
    const char *a, *b;     /* operands of the next step */
    int64_t a_row, a_step; /* bytes to a next row, and step */
    int64_t a_second;      /* bytes to rows 16 .. 31 */
    float *sums;
    int left;    /* steps */
    bool second; /* rows 16 .. 31 */
    bool half;   /* a first half of a step is done */
#if FLASH_PLANES > 1
    int64_t a_low, b_low; /* bytes to the low parts */
    bool low_by_low;      /* their product counts */
#endif
} amx_product_t;

HD_INLINE void amx_load_sums(const int vectors, const amx_product_t *m)
{
    amx_load(0, m->sums, AMX_SUM_ROW);
    if (vectors > 1)
        amx_load(1, m->sums + 16, AMX_SUM_ROW);
    if (m->second) {
        amx_load(2, m->sums + AMX_ROWS * LANES, AMX_SUM_ROW);
        if (vectors > 1)
            amx_load(3, m->sums + AMX_ROWS * LANES + 16, AMX_SUM_ROW);
    }
}

HD_INLINE void amx_store_sums(const int vectors, const amx_product_t *m)
{
    amx_store(0, m->sums, AMX_SUM_ROW);
    if (vectors > 1)
        amx_store(1, m->sums + 16, AMX_SUM_ROW);
    if (m->second) {
        amx_store(2, m->sums + AMX_ROWS * LANES, AMX_SUM_ROW);
        if (vectors > 1)
            amx_store(3, m->sums + AMX_ROWS * LANES + 16, AMX_SUM_ROW);
    }
}

HD_INLINE void amx_zero_sums(void)
{
    amx_zero(0);
    amx_zero(1);
    amx_zero(2);
    amx_zero(3);
}

#if FLASH_PLANES > 1
/* All products of the parts in 4 and 5 (high, low) with those in 6 and 7. */
#define AMX_DOTS(sum)           \
    do {                        \
        amx_dot(sum, 4, 6);     \
        amx_dot(sum, 4, 7);     \
        amx_dot(sum, 5, 6);     \
        if (m->low_by_low)      \
            amx_dot(sum, 5, 7); \
    } while (0)

HD_INLINE void amx_load_parts(const char *b, const amx_product_t *m)
{
    amx_load(6, b, AMX_SUM_ROW);
    amx_load(7, b + m->b_low, AMX_SUM_ROW);
}

/* Half a step: the rows of the first left operand, or of the second. Both parts of a left operand
 * meet both of two right ones, of which the second serves both halves: 10 loads for 12 or 16 dots.
 */
HD_INLINE void amx_half_step(const int vectors, amx_product_t *m)
{
    const char *a = m->a + (m->half ? m->a_second : 0), *b = m->b;
    if (!m->half || m->second) {
        amx_load(4, a, m->a_row);
        amx_load(5, a + m->a_low, m->a_row);
    }
    if (!m->half) {
        amx_load_parts(b, m);
        AMX_DOTS(0);
        if (vectors > 1) {
            amx_load_parts(b + 64, m);
            AMX_DOTS(1);
        }
        m->half = true;
        return;
    }
    if (m->second) {
        if (vectors > 1) {
            AMX_DOTS(3);
            amx_load_parts(b, m);
        }
        AMX_DOTS(2);
    }
    m->half = false;
    m->a += m->a_step;
    m->b = b + AMX_PAIRS * AMX_SUM_ROW;
    m->left--;
}
#undef AMX_DOTS
#else
/* Half a step: the rows of the first left operand, or of the second. */
HD_INLINE void amx_half_step(const int vectors, amx_product_t *m)
{
    const char *a = m->a, *b = m->b;
    const int64_t row = m->a_row;
    if (!m->half) {
        amx_load(6, b, AMX_SUM_ROW);
        amx_load(4, a, row);
        amx_dot(0, 4, 6);
        if (vectors > 1) {
            amx_load(7, b + 64, AMX_SUM_ROW);
            amx_dot(1, 4, 7);
        }
        m->half = true;
        return;
    }
    if (m->second) {
        amx_load(5, a + m->a_second, row);
        amx_dot(2, 5, 6);
        if (vectors > 1)
            amx_dot(3, 5, 7);
    }
    m->half = false;
    m->a = a + m->a_step;
    m->b = b + AMX_PAIRS * AMX_SUM_ROW;
    m->left--;
}
#endif

/* ---- one by one, for the careful way --------------------------------------------------------- */

#if FLASH_PLANES > 1
/* Scores of keys and one vector, in f32. */
static void amx_scores_1(const char *k, int64_t k_row, int count, const char *q, int steps,
                         float *s)
{
    const int part = steps / 2;
    for (int j = 0; j < count; j++) {
        vec_t sum = vec_zero();
        for (int c = 0; c < part * 2; c++) {
            const char *key = k + j * k_row + c * 2, *cell = q + c / 2 * AMX_SUM_ROW;
            vec_t query =
                vec_add(split_half(cell, c % 2), split_half(cell + part * AMX_SUM_ROW, c % 2));
            sum = vec_fma(vec_set1(split_number(key, key + part * 4)), query, sum);
        }
        vec_store(s + j * LANES, sum);
    }
}
#else
static void amx_scores_16(const char *k, int64_t k_row, const char *q, int steps, float *s)
{
    amx_zero(0);
    for (int step = 0; step < steps; step += AMX_PAIRS) {
        amx_load(4, k + step * 4, k_row);
        amx_load(6, q + step * AMX_SUM_ROW, AMX_SUM_ROW);
        amx_dot(0, 4, 6);
    }
    amx_store(0, s, AMX_SUM_ROW);
}

/* Scores of keys and one vector; the last few with tiles of as many rows. */
static void amx_scores_1(const char *k, int64_t k_row, int count, const char *q, int steps,
                         float *s)
{
    int j = 0;
    for (; j + AMX_ROWS <= count; j += AMX_ROWS)
        amx_scores_16(k + j * k_row, k_row, q, steps, s + j * LANES);
    if (j < count) {
        amx_config_t config = amx_config(count - j);
        amx_begin(&config);
        amx_scores_16(k + j * k_row, k_row, q, steps, s + j * LANES);
        config = amx_config(AMX_ROWS);
        amx_begin(&config);
    }
}
#endif

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
                    int steps, float *s, vec_t *most, const uint64_t *masks, int shift,
                    flash_ahead_t *ahead)
{
    (void)ahead;
    amx_scores_1(k + first * k_row, k_row, end - first, q, steps, s + first * LANES);
    amx_maxima(vectors, first, end, s + first * LANES, most, masks, shift);
}

/* Where element `key` % 2 of a pair of packed V^T is. */
HD_INLINE const char *flash_value_at(const char *v, int64_t v_row, int key, int column)
{
    return v + key / AMX_KEYS * (v_row * AMX_PAIRS) +
           column / AMX_ROWS * (FLASH_PLANES * AMX_TILE_BYTES) + column % AMX_ROWS * AMX_ROW_BYTES +
           (key % AMX_KEYS & ~1) * 2;
}

#endif
