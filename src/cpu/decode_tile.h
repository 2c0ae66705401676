/* The register tiles of decoding, elements of the head size in lanes:
 *
 *     scores: K rows times queries, one sum of lanes a pair       out: weight times V row, added up
 *
 * Rows of K and V are read once, from their first byte to their last, one after the other: that is
 * what the hardware's prefetcher follows. Each is made f32 in registers, and used for all queries
 * of a tile before the next is read. A tile is 1, 2, 4 or (scores only) 8 queries. */
#ifndef HD_DECODE_TILE_H
#define HD_DECODE_TILE_H

#include "rows.h"

enum {
    DECODE_KEYS = 16,            /* of a block */
    DECODE_STEP = 2 * VEC_LANES, /* elements that a load makes */
};

/* Keeps the compiler from mixing the loads of two rows. */
#define DECODE_FENCE __asm__ volatile("" ::: "memory")

#ifndef QKPF
#define QKPF 1
#define PVPF 1
#endif
/* Rows that are read next, to be fetched while others are worked on. */
typedef struct decode_ahead {
    const char *const *rows;
    int count, bytes; /* 0 bytes: none */
} decode_ahead_t;

/* Fetches the share of step `at` of `steps`. */
HD_INLINE void decode_fetch(const decode_ahead_t *ahead, int at, int steps)
{
    if (!ahead->bytes)
        return;
    for (int j = at * ahead->count / steps; j < (at + 1) * ahead->count / steps; j++)
        for (int c = 0; c < ahead->bytes; c += 64)
            __builtin_prefetch(ahead->rows[j] + c, 0, 3);
}

/* DECODE_STEP elements of a row as f32; see decode_order for what is where. */
HD_INLINE void decode_load(const heed_dtype_t dtype, const char *at, vec_t *x)
{
    const uint16_t *halves = (const uint16_t *)(const void *)at;
    switch (dtype) {
    case HEED_F32:
        x[0] = vec_load(at);
        x[1] = vec_load(at + 4 * VEC_LANES);
        break;
    case HEED_BF16:
        decode_load_bf16(halves, x);
        break;
    case HEED_F16:
        x[0] = vec_load_f16(halves);
        x[1] = vec_load_f16(halves + VEC_LANES);
        break;
    default:
        decode_load_e4m3(at, x);
    }
    HD_OPAQUE(x[0]);
    HD_OPAQUE(x[1]);
}

/* Where element c of a row is after loading: of bf16 the even elements of a step come first, for
 * both halves of a pair are one instruction away. */
HD_INLINE int decode_order(heed_dtype_t dtype, int c)
{
    if (dtype != HEED_BF16)
        return c;
    return c / DECODE_STEP * DECODE_STEP + c % 2 * VEC_LANES + c % DECODE_STEP / 2;
}

/* Products of `queries` rows of q with each key, summed up but for the lanes:
 * parts[query][key][lane]. */
HD_INLINE void decode_products(const heed_dtype_t dtype, const int queries, const char *const *keys, int count, const decode_ahead_t *ahead, const float *q, int q_row, int d, float *parts)
{
    const int size = (int)hd_dtype_bytes(dtype);
    for (int j = 0; j < count; j++) {
        const char *key = keys[j];
        if (queries >= QKPF) decode_fetch(ahead, j, count);
        vec_t sum[8][2];
        HD_UNROLL
        for (int r = 0; r < queries; r++) {
            sum[r][0] = sum[r][1] = vec_zero();
        }
        DECODE_FENCE;
        HD_UNROLL_BY for (int c = 0; c < d; c += DECODE_STEP)
        {
            vec_t x[2];
            decode_load(dtype, key + c * size, x);
            HD_UNROLL
            for (int r = 0; r < queries; r++) {
                const float *at = q + r * q_row + c;
                sum[r][0] = vec_fma(vec_load(at), x[0], sum[r][0]);
                if (queries > 4) /* one sum each, or registers run out */
                    sum[r][0] = vec_fma(vec_load(at + VEC_LANES), x[1], sum[r][0]);
                else
                    sum[r][1] = vec_fma(vec_load(at + VEC_LANES), x[1], sum[r][1]);
            }
        }
        HD_UNROLL
        for (int r = 0; r < queries; r++) {
            vec_store(parts + (r * DECODE_KEYS + j) * VEC_LANES,
                      queries > 4 ? sum[r][0] : vec_add(sum[r][0], sum[r][1]));
        }
    }
}

/* out += weight * value over the keys of a block, for `queries` rows: columns of the out rows stay
 * in registers. p is [query][DECODE_KEYS]. */
HD_INLINE void decode_columns(const heed_dtype_t dtype, const int queries, const int vectors,
                              const char *const *values, int count, const float *p, float *o,
                              int o_row, int c)
{
    const int size = (int)hd_dtype_bytes(dtype);
    vec_t sum[4][8];
    HD_UNROLL
    for (int r = 0; r < queries; r++) {
        HD_UNROLL
        for (int i = 0; i < vectors; i++) {
            sum[r][i] = vec_load(o + r * o_row + c + i * VEC_LANES);
        }
    }
    for (int j = 0; j < count; j++) {
        const char *value = values[j] + c * size;
        vec_t x[2], weight[4];
        DECODE_FENCE;
        HD_UNROLL
        for (int r = 0; r < queries; r++) {
            weight[r] = vec_broadcast((const char *)(p + r * DECODE_KEYS + j));
            HD_OPAQUE(weight[r]);
        }
        HD_UNROLL
        for (int i = 0; i < vectors; i += 2) {
            decode_load(dtype, value + i * VEC_LANES * size, x);
            HD_UNROLL
            for (int r = 0; r < queries; r++) {
                sum[r][i] = vec_fma(weight[r], x[0], sum[r][i]);
                sum[r][i + 1] = vec_fma(weight[r], x[1], sum[r][i + 1]);
            }
        }
    }
    HD_UNROLL
    for (int r = 0; r < queries; r++) {
        HD_UNROLL
        for (int i = 0; i < vectors; i++) {
            vec_store(o + r * o_row + c + i * VEC_LANES, sum[r][i]);
        }
    }
}

/* The same for one query with out in memory, row by row. */
HD_INLINE void decode_rows(const heed_dtype_t dtype, const char *const *values, int count,
                           const decode_ahead_t *ahead, const float *p, float *o, int dv)
{
    const int size = (int)hd_dtype_bytes(dtype);
    for (int j = 0; j < count; j++) {
        const char *value = values[j];
        vec_t weight = vec_set1(p[j]);
        decode_fetch(ahead, j, count);
        DECODE_FENCE;
        HD_UNROLL_BY for (int c = 0; c < dv; c += DECODE_STEP)
        {
            vec_t x[2];
            decode_load(dtype, value + c * size, x);
            vec_store(o + c, vec_fma(weight, x[0], vec_load(o + c)));
            vec_store(o + c + VEC_LANES, vec_fma(weight, x[1], vec_load(o + c + VEC_LANES)));
        }
    }
}

HD_INLINE void decode_sums(const heed_dtype_t dtype, const int queries, const char *const *values,
                           int count, const decode_ahead_t *ahead, const float *p, float *o, int o_row, int dv)
{
#ifdef ROWS
    if (queries == 1 && dv > DECODE_SUMS * VEC_LANES) {
        decode_rows(dtype, values, count, ahead, p, o, dv);
        return;
    }
#endif
    const int wide = DECODE_SUMS / queries / 2 * 2; /* vectors of columns, even */
    const int passes = (int)hd_max(dv / (wide * VEC_LANES), 1);
    int c = 0;
    for (int pass = 0; c + wide * VEC_LANES <= dv; c += wide * VEC_LANES, pass++) {
        if (queries >= PVPF) decode_fetch(ahead, pass, passes);
        decode_columns(dtype, queries, wide, values, count, p, o, o_row, c);
    }
    for (; c < dv; c += DECODE_STEP)
        decode_columns(dtype, queries, 2, values, count, p, o, o_row, c);
}

/* One function for each dtype and each size of a tile. */
typedef void decode_products_fn(const char *const *keys, int count, const decode_ahead_t *ahead, const float *q, int q_row,
                                int d, float *parts);
typedef void decode_sums_fn(const char *const *values, int count, const decode_ahead_t *ahead, const float *p, float *o,
                            int o_row, int dv);

typedef struct decode_tiles {
    decode_products_fn *products[4]; /* of 1, 2, 4, 8 queries */
    decode_sums_fn *sums[3];         /* of 1, 2, 4 */
} decode_tiles_t;

#define DECODE_PRODUCTS(name, dtype, queries)                                                      \
    HD_NOINLINE void name##_products_##queries(const char *const *keys, int count, const decode_ahead_t *ahead, const float *q, \
                                               int q_row, int d, float *parts)                     \
    {                                                                                              \
        decode_products(dtype, queries, keys, count, ahead, q, q_row, d, parts);                          \
    }
#define DECODE_SUMS_OF(name, dtype, queries)                                                       \
    HD_NOINLINE void name##_sums_##queries(const char *const *values, int count, const decode_ahead_t *ahead, const float *p,   \
                                           float *o, int o_row, int dv)                            \
    {                                                                                              \
        decode_sums(dtype, queries, values, count, ahead, p, o, o_row, dv);                               \
    }
#define DECODE_TILES(name, dtype)                                                                  \
    DECODE_PRODUCTS(name, dtype, 1)                                                                \
    DECODE_PRODUCTS(name, dtype, 2)                                                                \
    DECODE_PRODUCTS(name, dtype, 4)                                                                \
    DECODE_PRODUCTS(name, dtype, 8)                                                                \
    DECODE_SUMS_OF(name, dtype, 1)                                                                 \
    DECODE_SUMS_OF(name, dtype, 2)                                                                 \
    DECODE_SUMS_OF(name, dtype, 4)                                                                 \
    static const decode_tiles_t name##_tiles = {                                                   \
        {name##_products_1, name##_products_2, name##_products_4, name##_products_8},              \
        {name##_sums_1, name##_sums_2, name##_sums_4}};

DECODE_TILES(f32, HEED_F32)
DECODE_TILES(bf16, HEED_BF16)
DECODE_TILES(f16, HEED_F16)
DECODE_TILES(e4m3, HEED_E4M3)

static const decode_tiles_t *decode_tiles(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? &f32_tiles
           : dtype == HEED_BF16 ? &bf16_tiles
           : dtype == HEED_F16  ? &f16_tiles
                                : &e4m3_tiles;
}

#endif
