/* Rows in and out of flash attention: keys and values into the cells that the tiles read, queries
 * into Q^T. */
#ifndef HD_FLASH_ROWS_H
#define HD_FLASH_ROWS_H

#include "flash_softmax.h"
#include "rows.h"

#if FLASH_CODES
#include "decode_avx512.h"
#endif

/* Multiplies a packed row with its scale. Of pairs it is another's to do, or there is none: they
 * would not be exact any more. */
HD_INLINE void scale_row(const hd_view_t *scale, int64_t b, int64_t key, int64_t head, int n,
                         char *row)
{
    float *to = (float *)(void *)row, factor;
    if (FLASH_PAIRS || !scale->dtype)
        return;
    factor = hd_scale(scale, b, key, head);
    for (int c = 0; c < n; c++)
        to[c] *= factor;
}

#if FLASH_PLANES > 1
/* A row of n elements, high parts, then low ones, each filled up with zeros to whole products. */
HD_INLINE void row_to_cells(const hd_view_t *view, const char *row, int n, char *to)
{
    const int part = (n + 31) & ~31;
    float numbers[512];
    row_to_f32(view, row, n, numbers);
    for (int c = n; c < part; c++)
        numbers[c] = 0;
    for (int c = 0; c < part; c += VEC_LANES) {
        vec_t high, low;
        flash_split(vec_load(numbers + c), &high, &low);
        split_store_row(to + c * 2, high);
        split_store_row(to + (part + c) * 2, low);
    }
}
#elif FLASH_CODES
/* 32 codes as bf16, which has every one of them. */
HD_INLINE __m512i codes_to_bf16(heed_dtype_t dtype, const char *at)
{
    vec_t x[2];
    if (dtype == HEED_E4M3) { /* which come as 2^-8 of what they are */
        decode_load_e4m3(at, x);
        x[0] = vec_mul(x[0], vec_set1(256));
        x[1] = vec_mul(x[1], vec_set1(256));
    } else if (dtype == HEED_E5M2) {
        decode_load_e5m2(at, x);
    } else {
        decode_load_i8(at, x);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]);
}

/* A row of n elements, as they are or decoded; the second half of an odd last cell is zero. */
HD_INLINE void row_to_cells(const hd_view_t *view, const char *row, int n, char *to)
{
    char gathered[512], last[64];
    const int size = (int)hd_dtype_bytes(view->dtype);
    if (n & 1)
        memset(to + n * 2, 0, 2);
    if (view->elem != size) {
        for (int c = 0; c < n; c++)
            memcpy((size == 1 ? gathered : to) + c * size, row + c * view->elem, (size_t)size);
        row = gathered;
    }
    if (size == 2) {
        if (view->elem == size)
            memcpy(to, row, (size_t)n * 2);
        return;
    }
    for (int c = 0; c < n; c += 32) {
        const bool whole = n - c >= 32;
        if (!whole)
            row = memcpy(last, row + c, (size_t)(n - c)) - c;
        __m512i cells = codes_to_bf16(view->dtype, row + c);
        if (whole)
            _mm512_storeu_si512(to + c * 2, cells);
        else
            _mm512_mask_storeu_epi16(to + c * 2, (1u << (n - c)) - 1, cells);
    }
}
#elif FLASH_PAIRS
/* A row of n 16-bit elements, copied; the second half of an odd last cell is zero. */
HD_INLINE void row_to_cells(const hd_view_t *view, const char *row, int n, char *to)
{
    uint16_t *cells = (uint16_t *)(void *)to;
    if (n & 1)
        cells[n] = 0;
    if (hd_view_is_plain(view, HEED_BF16)) {
        memcpy(cells, row, (size_t)n * 2);
        return;
    }
    for (int c = 0; c < n; c++)
        memcpy(cells + c, row + c * view->elem, 2);
}
#else
HD_INLINE void row_to_cells(const hd_view_t *view, const char *row, int n, char *to)
{
    row_to_f32(view, row, n, (float *)(void *)to);
}
#endif

/* Cells of the head size: a row of Q^T each. */
static inline int head_cells(const hd_attention_t *a)
{
    int cells = (a->d + CELL - 1) / CELL;
    return FLASH_AMX ? ((cells + 15) & ~15) * FLASH_PLANES : cells;
}

/* Bytes of a packed row of K, and of a packed cell row of V. */
static inline int64_t packed_k_row(const hd_attention_t *a)
{
    return (int64_t)head_cells(a) * 4;
}

/* Columns of packed V, and rows of O^T. */
static inline int64_t value_columns(const hd_attention_t *a)
{
    return FLASH_AMX ? (a->dv + 15) & ~15 : a->dv;
}

static inline int64_t packed_v_row(const hd_attention_t *a)
{
    return value_columns(a) * 4 * FLASH_PLANES;
}

HD_NOINLINE void pack_k(const hd_attention_t *a, int64_t b, int64_t head, int64_t key, int count,
                        char *to)
{
    const int64_t row = packed_k_row(a);
    const int64_t filled = FLASH_PLANES > 1 ? row : (int64_t)(a->d + CELL - 1) / CELL * 4;
    for (int j = 0; j < count; j++) {
        row_to_cells(&a->k, hd_view_row(&a->k, b, key + j, head), a->d, to + j * row);
        memset(to + j * row + filled, 0, (size_t)(row - filled));
        scale_row(&a->k_scale, b, key + j, head, a->d, to + j * row);
    }
}

#if FLASH_AMX
enum { AMX_PLACE = FLASH_PLANES * AMX_ROW_BYTES };

/* V^T of 32 columns of 32 rows, 16 after the other. The halves of an unpack hold columns 8 q to
 * 8 q + 3 and 8 q + 4 to 8 q + 7 in 128-bit lane q. */
HD_INLINE void amx_pack_columns(const char *rows, int64_t row, char *to)
{
    HD_UNROLL
    for (int half = 0; half < 2; half++) {
        const char *at = rows;
        vec_t x[VEC_LANES];
        HD_UNROLL
        for (int i = 0; i < VEC_LANES; i++, at += 2 * row) {
            HD_ADDRESS(at); /* or there are 32 of them, more than registers */
            __m512i even = _mm512_loadu_si512(at), odd = _mm512_loadu_si512(at + row);
            x[i] = _mm512_castsi512_ps(half ? _mm512_unpackhi_epi16(even, odd)
                                            : _mm512_unpacklo_epi16(even, odd));
        }
        vec_transpose(x);
        HD_UNROLL
        for (int i = 0; i < VEC_LANES; i++) {
            const int column = i / 4 * 8 + half * 4 + i % 4;
            vec_store(to + column / AMX_ROWS * FLASH_PLANES * AMX_TILE_BYTES +
                          column % AMX_ROWS * AMX_ROW_BYTES,
                      x[i]);
        }
    }
}

/* Columns c to c + n - 1 of up to 32 rows at `to`, AMX_PLACE bytes each, with zeros for what is
 * less than 32 of either; high parts are followed by low ones where there are such. */
HD_INLINE void amx_stage(const hd_attention_t *a, int64_t b, int64_t head, int64_t key, int count,
                         int c, int n, char *to)
{
    if (count < 32 || n < 32)
        memset(to, 0, 32 * AMX_PLACE);
    for (int j = 0; j < count; j++)
        row_to_cells(&a->v, hd_view_row(&a->v, b, key + j, head) + c * a->v.elem, n,
                     to + j * AMX_PLACE);
}

/* V^T of up to 32 keys, 16 columns after the other: for each column a row of 32 keys, first their
 * high parts, then the low ones where there are such. */
HD_INLINE void amx_pack_values(const hd_attention_t *a, int64_t b, int64_t head, int64_t key,
                               int count, char *to)
{
    char staged[32 * AMX_PLACE], spare[2 * FLASH_PLANES * AMX_TILE_BYTES];
    const bool in_place = FLASH_PLANES == 1 && hd_view_is_plain(&a->v, HEED_BF16) && count == 32 &&
                          hd_view_run(&a->v, key, 32) == 32;
    const char *first = in_place ? hd_view_row(&a->v, b, key, head) : NULL;
    for (int c = 0; c < a->dv; c += 32) {
        const int n = (int)hd_min(a->dv - c, 32);
        const bool direct = in_place && n == 32;
        const char *rows = direct ? first + c * 2 : staged;
        const int64_t row = direct ? a->v.row : AMX_PLACE;
        /* The second half of the last 32 columns may be beyond the buffer. */
        char *place = to + c / 16 * FLASH_PLANES * AMX_TILE_BYTES;
        char *tiles = n > 16 ? place : spare;
        if (!direct)
            amx_stage(a, b, head, key, count, c, n, staged);
        amx_pack_columns(rows, row, tiles);
#if FLASH_PLANES > 1
        amx_pack_columns(rows + AMX_ROW_BYTES, row, tiles + AMX_TILE_BYTES);
#endif
        if (tiles == spare)
            memcpy(place, spare, FLASH_PLANES * AMX_TILE_BYTES);
    }
}
#endif

/* key is a multiple of VALUE_KEYS; a last cell is filled up with zeros. */
HD_NOINLINE void pack_v(const hd_attention_t *a, int64_t b, int64_t head, int64_t key, int count,
                        char *to)
{
#if FLASH_AMX
    for (int j = 0; j < count; j += VALUE_KEYS)
        amx_pack_values(a, b, head, key + j, (int)hd_min(count - j, VALUE_KEYS),
                        to + j / CELL * packed_v_row(a));
#elif FLASH_PAIRS
    for (int j = 0; j < count; j += 2)
        flash_interleave(hd_view_row(&a->v, b, key + j, head),
                         j + 1 < count ? hd_view_row(&a->v, b, key + j + 1, head) : NULL, a->v.elem,
                         a->dv, to + j / 2 * packed_v_row(a));
#else
    for (int j = 0; j < count; j++) {
        row_to_cells(&a->v, hd_view_row(&a->v, b, key + j, head), a->dv, to + j * packed_v_row(a));
        scale_row(&a->v_scale, b, key + j, head, a->dv, to + j * packed_v_row(a));
    }
#endif
}

/* ---- queries --------------------------------------------------------------------------------- */

/* One vector of queries: lane x is row rows[x], NULL where there is none. Rows whose cells can be
 * read in whole vectors are read where they lie, the others from a padded copy in staging. */
HD_NOINLINE void pack_q(const hd_attention_t *a, const char *const *rows, char *staging,
                        int64_t row_bytes, char *to)
{
    const int steps = head_cells(a);
    const bool direct = hd_view_is_plain(&a->q, FLASH_PAIRS ? HEED_BF16 : HEED_F32) &&
                        a->d % (CELL * VEC_LANES) == 0;
    const vec_t scale = vec_set1(a->scale * 1.44269504088896340736f);
    const char *from[VEC_LANES];
    for (int x = 0; x < VEC_LANES; x++) {
        char *row = staging + x * row_bytes;
        from[x] = direct && rows[x] ? rows[x] : row;
        if (from[x] != row)
            continue;
        memset(row, 0, (size_t)row_bytes);
        if (rows[x])
            row_to_cells(&a->q, rows[x], a->d, row);
    }
    for (int c = 0; c < steps; c += VEC_LANES) {
        vec_t x[VEC_LANES];
        HD_UNROLL
        for (int i = 0; i < VEC_LANES; i++) {
            x[i] = vec_load(from[i] + c * 4);
            x[i] = FLASH_PAIRS ? flash_sign(x[i], a->scale < 0) : vec_mul(x[i], scale);
        }
        vec_transpose(x);
        for (int i = 0; i < VEC_LANES && c + i < steps; i++)
            vec_store(to + (c + i) * LANES * 4, x[i]);
    }
}

#endif
