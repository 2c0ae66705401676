/* The register tiles of decoding, elements of the head size in lanes:
 *
 *     scores: a row of K times queries, summed up but for the lanes     out += weight * row of V
 *
 * A row is made f32 in registers and used for all queries of a tile, 1, 2, 4 or (scores only) 8,
 * before the next is read. Rows are read from their first byte to their last, one after the other:
 * that is what the hardware's prefetcher follows. While keys are worked on, the values that are
 * needed next are fetched, row beside row, and while values are, the next keys. */
#ifndef HD_DECODE_TILE_H
#define HD_DECODE_TILE_H

#include "decode_load.h"

/* 1: there is a matrix unit. */
#ifndef DECODE_MATRIX
#define DECODE_MATRIX 0
#endif

/* Keys of a block, up to 64. */
#ifndef DECODE_KEYS
#define DECODE_KEYS 16
#endif

/* Bits of the keys of a block. */
typedef uint64_t decode_bits_t;

HD_INLINE decode_bits_t decode_first_bits(int64_t count)
{
    return count < 64 ? (UINT64_C(1) << count) - 1 : UINT64_MAX;
}

enum {
    DECODE_MOST_QUERIES = 8, /* of a tile */
};

/* Keeps the compiler from mixing the loads of two rows. */
#define DECODE_FENCE __asm__ volatile("" ::: "memory")

/* Rows that are read next, to be fetched while others are worked on. */
typedef struct decode_ahead {
    const char *const *rows;
    int bytes; /* of a row, 0: nothing to fetch */
} decode_ahead_t;

HD_INLINE void decode_fetch(const char *from, int first, int end)
{
    for (int c = first; c < end; c += 64)
        __builtin_prefetch(from + c, 0, DECODE_HINT);
}

/* Of the next DECODE_KEYS / 2 rows, fetches those that are due at step `step` of `steps`. */
HD_INLINE void decode_fetch_rows(const decode_ahead_t *ahead, int step, int steps)
{
    const int rows = DECODE_KEYS / 2;
    if (ahead->bytes)
        for (int j = rows * step / steps; j < rows * (step + 1) / steps; j++)
            decode_fetch(ahead->rows[j], 0, ahead->bytes);
}

/* Adds the products of one load. With many queries there is one sum each, or registers run out. */
HD_INLINE void decode_multiply(const heed_dtype_t dtype, const int vectors, const int queries,
                               const char *key, const float *q, int d,
                               vec_t sum[DECODE_MOST_QUERIES][2])
{
    const int sums = queries > 4 ? 1 : 2;
    vec_t x[4];
    decode_load_vectors(dtype, vectors, key, x);
    HD_UNROLL
    for (int r = 0; r < queries; r++) {
        HD_UNROLL
        for (int i = 0; i < vectors; i++) {
            vec_t *to = &sum[r][i % sums];
            *to = vec_fma(vec_load(q + r * d + i * VEC_LANES), x[i], *to);
        }
    }
}

/* Products of `queries` rows of q with each key: parts[query][key][lane]. */
HD_INLINE void decode_products(const heed_dtype_t dtype, const int queries, const char *const *keys,
                               int count, const decode_ahead_t *ahead, const float *q, int d,
                               float *parts)
{
    const int size = (int)hd_dtype_bytes(dtype), wide = decode_width(dtype, 4) * VEC_LANES;
    for (int j = 0; j < count; j++) {
        const char *key = keys[j];
        vec_t sum[DECODE_MOST_QUERIES][2];
        int c = 0;
        HD_UNROLL
        for (int r = 0; r < queries; r++) {
            sum[r][0] = sum[r][1] = vec_zero();
        }
        if (ahead->bytes)
            decode_fetch(ahead->rows[j], 0, ahead->bytes);
        DECODE_FENCE;
        HD_UNROLL_BY for (; c + wide <= d; c += wide)
        {
            decode_multiply(dtype, wide / VEC_LANES, queries, key + c * size, q + c, d, sum);
        }
        if (c < d)
            decode_multiply(dtype, 2, queries, key + c * size, q + c, d, sum);
        HD_UNROLL
        for (int r = 0; r < queries; r++) {
            vec_store(parts + (r * DECODE_KEYS + j) * VEC_LANES,
                      queries > 4 ? sum[r][0] : vec_add(sum[r][0], sum[r][1]));
        }
    }
}

/* out += weight * value for columns c and up of `queries` rows, which stay in registers. p is
 * [query][DECODE_KEYS], o [query][dv]. The first columns fetch the rest of each row, so that rows
 * come from memory in their order. */
HD_INLINE void decode_columns(const heed_dtype_t dtype, const int queries, const int vectors,
                              const char *const *values, int count, const decode_ahead_t *ahead,
                              const float *p, float *o, int dv, int c)
{
    const int size = (int)hd_dtype_bytes(dtype), bytes = vectors * VEC_LANES * size;
    const int width = decode_width(dtype, vectors);
    vec_t sum[4][DECODE_SUMS];
    HD_UNROLL
    for (int r = 0; r < queries; r++) {
        HD_UNROLL
        for (int i = 0; i < vectors; i++) {
            sum[r][i] = vec_load(o + r * dv + c + i * VEC_LANES);
        }
    }
    for (int j = 0; j < count; j++) {
        const char *value = values[j] + c * size;
        vec_t x[4], weight[4];
        DECODE_FENCE;
        if (c == 0)
            decode_fetch(value, bytes, dv * size);
        if (c == 0 && ahead->bytes)
            decode_fetch(ahead->rows[j], 0, ahead->bytes);
        HD_UNROLL
        for (int r = 0; r < queries; r++) {
            weight[r] = vec_broadcast((const char *)(p + r * DECODE_KEYS + j));
            HD_OPAQUE(weight[r]);
        }
        HD_UNROLL
        for (int i = 0; i < vectors; i += width) {
            decode_load_vectors(dtype, width, value + i * VEC_LANES * size, x);
            HD_UNROLL
            for (int r = 0; r < queries; r++) {
                HD_UNROLL
                for (int k = 0; k < width; k++) {
                    sum[r][i + k] = vec_fma(weight[r], x[k], sum[r][i + k]);
                }
            }
        }
    }
    HD_UNROLL
    for (int r = 0; r < queries; r++) {
        HD_UNROLL
        for (int i = 0; i < vectors; i++) {
            vec_store(o + r * dv + c + i * VEC_LANES, sum[r][i]);
        }
    }
}

/* The same for one query of f32, row by row, out in the first cache. */
HD_INLINE void decode_rows(const char *const *values, int count, const float *p, float *o, int dv)
{
    for (int j = 0; j < count; j++) {
        const vec_t weight = vec_set1(p[j]);
        DECODE_FENCE;
        HD_UNROLL_BY for (int c = 0; c < dv; c += VEC_LANES)
        {
            vec_t x = vec_load(values[j] + 4 * c);
            vec_store(o + c, vec_fma(weight, x, vec_load(o + c)));
        }
    }
}

/* Whether decode_rows is taken: then V, as K, comes faster without being fetched. */
static bool decode_by_rows(heed_dtype_t dtype, int queries, int dv)
{
    return dtype == HEED_F32 && queries == 1 && dv > DECODE_SUMS * VEC_LANES;
}

HD_INLINE void decode_sums(const heed_dtype_t dtype, const int queries, const char *const *values,
                           int count, const decode_ahead_t *ahead, const float *p, float *o, int dv)
{
    const int wide = DECODE_SUMS / queries / 2 * 2; /* vectors of columns, even */
    int c = 0;
    if (decode_by_rows(dtype, queries, dv)) {
        decode_rows(values, count, p, o, dv);
        return;
    }
    for (; c + wide * VEC_LANES <= dv; c += wide * VEC_LANES)
        decode_columns(dtype, queries, wide, values, count, ahead, p, o, dv, c);
    if (wide > 8 && c + 8 * VEC_LANES <= dv) {
        decode_columns(dtype, queries, 8, values, count, ahead, p, o, dv, c);
        c += 8 * VEC_LANES;
    }
    if (wide > 4 && c + 4 * VEC_LANES <= dv) {
        decode_columns(dtype, queries, 4, values, count, ahead, p, o, dv, c);
        c += 4 * VEC_LANES;
    }
    for (; c < dv; c += DECODE_STEP)
        decode_columns(dtype, queries, 2, values, count, ahead, p, o, dv, c);
}

/* ---- one function for each dtype and each size of a tile ------------------------------------- */

typedef void decode_products_fn(const char *const *keys, int count, const decode_ahead_t *ahead,
                                const float *q, int d, float *parts);
typedef void decode_sums_fn(const char *const *values, int count, const decode_ahead_t *ahead,
                            const float *p, float *o, int dv);

typedef struct decode_tiles {
    decode_products_fn *products[4]; /* of 1, 2, 4, 8 queries */
    decode_sums_fn *sums[3];         /* of 1, 2, 4 */
} decode_tiles_t;

/* The head sizes of most models have code of their own, without counters of steps. */
#define DECODE_PRODUCTS(name, dtype, queries)                                                      \
    HD_NOINLINE void name##_products_##queries(const char *const *keys, int count,                 \
                                               const decode_ahead_t *ahead, const float *q, int d, \
                                               float *parts)                                       \
    {                                                                                              \
        if (d == 128)                                                                              \
            decode_products(dtype, queries, keys, count, ahead, q, 128, parts);                    \
        else if (d == 64)                                                                          \
            decode_products(dtype, queries, keys, count, ahead, q, 64, parts);                     \
        else                                                                                       \
            decode_products(dtype, queries, keys, count, ahead, q, d, parts);                      \
    }
#define DECODE_SUMS_OF(name, dtype, queries)                                                      \
    HD_NOINLINE void name##_sums_##queries(const char *const *values, int count,                  \
                                           const decode_ahead_t *ahead, const float *p, float *o, \
                                           int dv)                                                \
    {                                                                                             \
        if (dv == 128)                                                                            \
            decode_sums(dtype, queries, values, count, ahead, p, o, 128);                         \
        else if (dv == 64)                                                                        \
            decode_sums(dtype, queries, values, count, ahead, p, o, 64);                          \
        else                                                                                      \
            decode_sums(dtype, queries, values, count, ahead, p, o, dv);                          \
    }
#define DECODE_TILES(name, dtype)                                                     \
    DECODE_PRODUCTS(name, dtype, 1)                                                   \
    DECODE_PRODUCTS(name, dtype, 2)                                                   \
    DECODE_PRODUCTS(name, dtype, 4)                                                   \
    DECODE_PRODUCTS(name, dtype, 8)                                                   \
    DECODE_SUMS_OF(name, dtype, 1)                                                    \
    DECODE_SUMS_OF(name, dtype, 2)                                                    \
    DECODE_SUMS_OF(name, dtype, 4)                                                    \
    static const decode_tiles_t name##_tiles = {                                      \
        {name##_products_1, name##_products_2, name##_products_4, name##_products_8}, \
        {name##_sums_1, name##_sums_2, name##_sums_4}};

DECODE_TILES(f32, HEED_F32)
DECODE_TILES(bf16, HEED_BF16)
DECODE_TILES(f16, HEED_F16)
DECODE_TILES(e4m3, HEED_E4M3)
DECODE_TILES(e5m2, HEED_E5M2)
DECODE_TILES(i8, HEED_I8)

static const decode_tiles_t *decode_tiles(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? &f32_tiles
           : dtype == HEED_BF16 ? &bf16_tiles
           : dtype == HEED_F16  ? &f16_tiles
           : dtype == HEED_E4M3 ? &e4m3_tiles
           : dtype == HEED_E5M2 ? &e5m2_tiles
                                : &i8_tiles;
}

#endif
