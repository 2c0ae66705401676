/* The register tiles of flash attention, queries in lanes:
 *
 *     scores^T = K Q^T     out^T = V^T P^T
 *
 * A lane is a query. Keys and values are read as scalars from their natural rows and broadcast, so
 * neither needs a transpose, and the softmax between the two products has no horizontal operation.
 * Everything is made of 32-bit cells: one f32, or with FLASH_PAIRS two bf16 that a dot product
 * takes at once (two neighbours of the head size in the first product, two keys in the second).
 *
 * A whole tile is FLASH_KEYS (or FLASH_COLUMNS) broadcasts times FLASH_TILE vectors. Where fewer
 * vectors see the keys, at the edges of a mask and with few queries, it is more broadcasts times
 * those vectors, FLASH_NARROW at most, so that there are always sums enough to hide the latency of
 * a multiply-add; what is left at the end of a range is shared out for the same reason. */
#ifndef HD_FLASH_TILE_H
#define HD_FLASH_TILE_H

#include "flash_ahead.h"

#ifndef FLASH_AMX
#define FLASH_AMX 0
#endif
#ifndef FLASH_PLANES
#define FLASH_PLANES 1
#endif
#ifndef FLASH_CODES /* K and V may be codes whose scales are not in the cells */
#define FLASH_CODES 0
#endif

#include <float.h>
#include <math.h>

enum {
    CELL = FLASH_PAIRS ? 2 : 1,
    VALUE_KEYS = FLASH_AMX ? 32 : CELL, /* keys that the second product takes at once */
    LANES = FLASH_TILE * VEC_LANES,     /* of a wide tile: the row length of Q^T, S^T and O^T */
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

/* ---- how a range is cut into tiles ----------------------------------------------------------- */

/* Broadcasts of a tile `vectors` wide. */
HD_INLINE int tile_height(const int whole, const int vectors)
{
    const int height = whole * FLASH_TILE / vectors;
    return height < FLASH_NARROW ? height : FLASH_NARROW;
}

/* Those of the next tile, where `rest` are left. A whole tile leaves no one or two behind, whose
 * few sums would wait for each other: 8 are 4 and 4. */
HD_INLINE int next_height(const int height, const int vectors, int rest)
{
    const int least = vectors == FLASH_TILE && height > 4 ? 3 : 1;
    if (rest == height || rest >= height + least)
        return height;
    return rest > 5 || rest == 4 || (rest == 5 && vectors < FLASH_TILE) ? 4 : rest;
}

/* Calls TILE(n) with constants n along at .. end-1. */
#define FLASH_CUT(at, end, height, vectors, TILE)                     \
    while ((at) < (end)) {                                            \
        const int n = next_height((height), (vectors), (end) - (at)); \
        if (n == (height))                                            \
            TILE((height));                                           \
        else if (n == 5)                                              \
            TILE(5);                                                  \
        else if (n == 4)                                              \
            TILE(4);                                                  \
        else if (n == 3)                                              \
            TILE(3);                                                  \
        else if (n == 2)                                              \
            TILE(2);                                                  \
        else                                                          \
            TILE(1);                                                  \
        (at) += n;                                                    \
    }

/* Calls WIDTH(n) with the constant n that equals `vectors`. */
#if FLASH_TILE == 2
#define FLASH_WIDTHS(vectors, WIDTH) \
    do {                             \
        if ((vectors) == 2)          \
            WIDTH(2);                \
        else                         \
            WIDTH(1);                \
    } while (0)
#else
#define FLASH_WIDTHS(vectors, WIDTH) \
    do {                             \
        if ((vectors) == 4)          \
            WIDTH(4);                \
        else if ((vectors) == 3)     \
            WIDTH(3);                \
        else if ((vectors) == 2)     \
            WIDTH(2);                \
        else                         \
            WIDTH(1);                \
    } while (0)
#endif

#if FLASH_AMX
#include "flash_amx_tile.h"
#else

HD_INLINE uint32_t flash_begin(void)
{
    return 0;
}

HD_INLINE void flash_end(uint32_t before)
{
    (void)before;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* S^T of `keys` keys and `vectors` query vectors, and their maxima. Lanes whose bit is off in masks
 * become -inf. */
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
    if (masks) {
        HD_UNROLL
        for (int i = 0; i < keys; i++) {
            HD_UNROLL
            for (int r = 0; r < vectors; r++) {
                uint32_t bits = (uint32_t)(masks[i] >> (shift + r * VEC_LANES));
                sum[i][r] = vec_select(bits, sum[i][r], vec_set1(-INFINITY));
            }
        }
    }
    HD_UNROLL
    for (int i = 0; i < keys; i++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_store(s + i * LANES + r * VEC_LANES, sum[i][r]);
            most[r] = vec_max(sum[i][r], most[r]);
        }
    }
}

HD_INLINE void qk_range(const int vectors, const char *k, int64_t k_row, int first, int end,
                        const char *q, int steps, float *s, vec_t *most, const uint64_t *masks,
                        int shift, flash_ahead_t *ahead)
{
    const int height = tile_height(FLASH_KEYS, vectors);
    vec_t top[FLASH_TILE];
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        top[r] = most[r];
    }
#define TILE(n)                                                                      \
    (flash_fetch_beside(ahead, n * vectors * steps),                                 \
     qk_tile(n, vectors, k + first * k_row, k_row, q, steps, s + first * LANES, top, \
             masks ? masks + first : NULL, shift))
    FLASH_CUT(first, end, height, vectors, TILE)
#undef TILE
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        most[r] = top[r];
    }
}

/* Scores of the keys first .. end-1 of a block for `vectors` vectors of queries, and the maxima,
 * from those in most on. q, s and most are at the first of these vectors; masks may be NULL. What
 * is ahead is fetched between. */
HD_NOINLINE void qk_keys(int vectors, const char *k, int64_t k_row, int first, int end,
                         const char *q, int steps, float *s, vec_t *most, const uint64_t *masks,
                         int shift, flash_ahead_t *ahead)
{
#define WIDTH(n) qk_range(n, k, k_row, first, end, q, steps, s, most, masks, shift, ahead)
    FLASH_WIDTHS(vectors, WIDTH);
#undef WIDTH
}

#endif

#endif
