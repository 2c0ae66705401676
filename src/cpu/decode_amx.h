/* The products of decoding on the matrix unit, for blocks of DECODE_KEYS keys of bf16 or FP8:
 *
 *     scores = K Q^T     left: 16 keys as they lie, 32 elements deep     right: q, packed once
 *     out += P V         left: weights as bf16, 32 keys deep     right: V, its rows paired
 *
 * up to 16 rows of a unit at once, whose sums are a tile's rows or columns. FP8 is made bf16 on the
 * way into the operands. Pairs of V come in the order of decode_load, so that sums may be added to
 * either way. Subnormal bf16 counts as zero. */
#ifndef HD_DECODE_AMX_H
#define HD_DECODE_AMX_H

#include "amx.h"
#include "decode_task.h"

enum {
    MATRIX_DEPTH = 2 * AMX_PAIRS,               /* elements of a row of an operand */
    MATRIX_STEPS = DECODE_KEYS / MATRIX_DEPTH,  /* of the weights of a block */
    MATRIX_PART = MATRIX_STEPS * AMX_TILE_BYTES /* bytes of 16 columns of V */
};

/* Tiles: 0 and 1 scores, 2 and 3 sums of values, 4 keys, 5 weights, 6 queries, 7 values. */
static void matrix_begin(const decode_sizes_t *z)
{
    amx_config_t config = amx_config(AMX_ROWS);
    config.rows[2] = config.rows[3] = config.rows[5] = (uint8_t)hd_min(z->rows, AMX_ROWS);
    amx_begin(&config);
}

static void matrix_end(void)
{
    amx_end();
}

/* Where element c of a row of K is once it is bf16: of 64 codes, unpacking takes the lower halves
 * of every sixteen first. */
static int matrix_place(heed_dtype_t dtype, int d, int c)
{
    if (!decode_is_wide(dtype) || c / 64 * 64 + 64 > d)
        return c;
    return c / 64 * 64 + c % 16 / 8 * 32 + c % 64 / 16 * 8 + c % 8;
}

/* Queries as right operands, [sixteen rows][pair][row][2], unscaled, for they are bf16. */
static void matrix_pack(decode_task_t *task)
{
    const hd_attention_t *a = task->a;
    const int d = task->z->d;
    task->unit.factor = a->scale * MODIFY_LOG2E * decode_common(&a->k_scale, task);
    for (int r = 0; r < task->rows; r++) {
        const char *from = hd_view_row(&a->q, task->b, decode_query(task, r), decode_head(task, r));
        uint16_t *to = task->unit.q + r / AMX_ROWS * AMX_ROWS * d + r % AMX_ROWS * 2;
        for (int c = 0; c < d; c++) {
            int at = matrix_place(task->k_dtype, d, c);
            memcpy(to + at / 2 * (2 * AMX_ROWS) + at % 2, from + c * a->q.elem, sizeof(*to));
        }
    }
}

/* ---- codes ----------------------------------------------------------------------------------- */

/* 64 codes. The last 32 of a row come twice, eight in each 64 bits, so that the lower halves have
 * them all. */
HD_INLINE __m512i matrix_codes(const char *at, bool wide)
{
    const __m512i order = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
    if (wide)
        return _mm512_loadu_si512(at);
    __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)at);
    return _mm512_permutexvar_epi64(order, _mm512_castsi256_si512(codes));
}

/* Codes as bf16: lower halves of every sixteen, and where there are 64, the upper ones. */
HD_INLINE void matrix_store_codes(const heed_dtype_t dtype, __m512i codes, char *low, char *high)
{
    __m512i word[2];
    cast_decode(dtype, false, codes, word);
    _mm512_storeu_si512(low, _mm512_unpacklo_epi8(word[0], word[1]));
    if (high)
        _mm512_storeu_si512(high, _mm512_unpackhi_epi8(word[0], word[1]));
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Rows of K as bf16, each in the order of matrix_place. */
HD_INLINE void matrix_copy_keys(const heed_dtype_t dtype, const char *const *keys, int d, char *to)
{
    for (int j = 0; j < DECODE_KEYS; j++, to += d * 2) {
        if (dtype == HEED_BF16) {
            memcpy(to, keys[j], (size_t)d * 2);
            continue;
        }
        for (int c = 0; c < d; c += 64) {
            const bool wide = c + 64 <= d;
            char *low = to + c * 2;
            matrix_store_codes(dtype, matrix_codes(keys[j] + c, wide), low, wide ? low + 64 : NULL);
        }
    }
}

/* The keys of a block as a left operand; returns the bytes from one to the next. */
static int64_t matrix_keys(const decode_task_t *task, const decode_block_t *block, const char **at)
{
    const hd_view_t *k = &task->a->k;
    const int d = task->z->d;
    char *copy = (char *)task->unit.keys;
    if (task->k_dtype == HEED_BF16 && hd_view_run(k, block->key, DECODE_KEYS) == DECODE_KEYS) {
        *at = block->keys[0];
        return k->row;
    }
    *at = copy;
    if (task->k_dtype == HEED_BF16)
        matrix_copy_keys(HEED_BF16, block->keys, d, copy);
    else if (task->k_dtype == HEED_E4M3)
        matrix_copy_keys(HEED_E4M3, block->keys, d, copy);
    else
        matrix_copy_keys(HEED_E5M2, block->keys, d, copy);
    return d * 2;
}

/* Products of 32 keys with sixteen rows of q: [key][row]. */
HD_INLINE void matrix_products(const char *keys, int64_t stride, const uint16_t *q, int d,
                               const decode_ahead_t *ahead, float *to)
{
    amx_zero(0);
    amx_zero(1);
    for (int c = 0; c < d; c += MATRIX_DEPTH) {
        const char *at = keys + c * 2;
        decode_fetch_rows(ahead, c / MATRIX_DEPTH, d / MATRIX_DEPTH);
        amx_load(6, q + c * AMX_ROWS, AMX_ROW_BYTES);
        amx_load(4, at, stride);
        amx_dot(0, 4, 6);
        amx_load(4, at + AMX_ROWS * stride, stride);
        amx_dot(1, 4, 6);
    }
    amx_store(0, to, AMX_ROW_BYTES);
    amx_store(1, to + AMX_ROWS * AMX_ROWS, AMX_ROW_BYTES);
}

/* Scores of a block that is whole. */
static void matrix_scores(decode_task_t *task, decode_block_t *block, decode_ahead_t ahead)
{
    const int d = task->z->d;
    const vec_t factor = vec_set1(task->unit.factor);
    const char *keys;
    const int64_t stride = matrix_keys(task, block, &keys);
    for (int first = 0; first < task->rows; first += AMX_ROWS) {
        matrix_products(keys, stride, task->unit.q + first * d, d, &ahead, task->parts);
        for (int j = 0; j < DECODE_KEYS; j += VEC_LANES) {
            vec_t x[VEC_LANES];
            for (int i = 0; i < VEC_LANES; i++)
                x[i] = vec_load(task->parts + (j + i) * AMX_ROWS);
            vec_transpose(x);
            for (int r = first; r < hd_min(task->rows, first + AMX_ROWS); r++)
                vec_store(block->weights + r * DECODE_KEYS + j, vec_mul(x[r - first], factor));
        }
        ahead.bytes = 0;
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Columns of two rows of V, each of one with the same of the other: [sixteen columns][pair of
 * keys][column][2], of every 32 those of even index first. */
HD_INLINE void matrix_pair_halves(const char *even, const char *odd, int columns, char *to)
{
    const __mmask32 upper = 0xaaaaaaaa;
    for (int c = 0; c < columns; c += 32, to += 2 * MATRIX_PART) {
        __m512i a = _mm512_loadu_si512(even + c * 2), b = _mm512_loadu_si512(odd + c * 2);
        _mm512_storeu_si512(to, _mm512_mask_blend_epi16(upper, a, _mm512_slli_epi32(b, 16)));
        _mm512_storeu_si512(to + MATRIX_PART,
                            _mm512_mask_blend_epi16(upper, _mm512_srli_epi32(a, 16), b));
    }
}

/* The same of codes: bytes are paired before they are bf16. */
HD_INLINE void matrix_pair_codes(const heed_dtype_t dtype, const char *even, const char *odd,
                                 int columns, char *to)
{
    enum { C_IF_ELSE_B = 0xe4 }; /* c ? a : b */
    const __m512i low = _mm512_set1_epi16(0xff);
    const bool wide = columns == DECODE_MATRIX_COLUMNS;
    const __m512i a = matrix_codes(even, wide), b = matrix_codes(odd, wide);
    const __m512i b_up = _mm512_slli_epi16(b, 8), a_down = _mm512_srli_epi16(a, 8);
    char *high = wide ? to + 2 * MATRIX_PART : NULL;
    matrix_store_codes(dtype, _mm512_ternarylogic_epi32(a, b_up, low, C_IF_ELSE_B), to, high);
    high = wide ? to + 3 * MATRIX_PART : NULL;
    matrix_store_codes(dtype, _mm512_ternarylogic_epi32(a_down, b, low, C_IF_ELSE_B),
                       to + MATRIX_PART, high);
}

/* Columns c .. c + columns - 1 of a block's values as right operands. */
HD_INLINE void matrix_values(const decode_task_t *task, const decode_block_t *block,
                             const decode_ahead_t *ahead, int c, int columns)
{
    const int pairs = DECODE_KEYS / 2, bytes = (int)hd_dtype_bytes(task->v_dtype);
    const int steps = (int)hd_ceil_div(task->z->dv, DECODE_MATRIX_COLUMNS) * pairs;
    for (int k = 0; k < pairs; k++) {
        const char *even = block->values[2 * k] + c * bytes;
        const char *odd = block->values[2 * k + 1] + c * bytes;
        char *to = task->unit.values + k * AMX_ROW_BYTES;
        decode_fetch_rows(ahead, c / DECODE_MATRIX_COLUMNS * pairs + k, steps);
        if (task->v_dtype == HEED_BF16)
            matrix_pair_halves(even, odd, columns, to);
        else if (task->v_dtype == HEED_E4M3)
            matrix_pair_codes(HEED_E4M3, even, odd, columns, to);
        else
            matrix_pair_codes(HEED_E5M2, even, odd, columns, to);
    }
}

/* Weights as left operands: [sixteen rows][step][row][32 keys]. */
static void matrix_weights(const decode_task_t *task, const decode_block_t *block)
{
    for (int r = 0; r < task->rows; r++)
        for (int j = 0; j < DECODE_KEYS; j += MATRIX_DEPTH) {
            const float *from = block->weights + r * DECODE_KEYS + j;
            uint16_t *to = task->unit.weights + r / AMX_ROWS * AMX_ROWS * DECODE_KEYS +
                           j * AMX_ROWS + r % AMX_ROWS * MATRIX_DEPTH;
            __m512bh both = _mm512_cvtne2ps_pbh(vec_load(from + VEC_LANES), vec_load(from));
            _mm512_storeu_si512(to, (__m512i)both);
        }
}

/* out += weights times 32 columns of values. */
HD_INLINE void matrix_sums(const uint16_t *weights, const char *values, float *out, int dv)
{
    amx_load(2, out, dv * 4);
    amx_load(3, out + 16, dv * 4);
    for (int i = 0; i < MATRIX_STEPS; i++) {
        amx_load(5, (const char *)weights + i * AMX_TILE_BYTES, AMX_ROW_BYTES);
        amx_load(7, values + i * AMX_TILE_BYTES, AMX_ROW_BYTES);
        amx_dot(2, 5, 7);
        amx_load(7, values + MATRIX_PART + i * AMX_TILE_BYTES, AMX_ROW_BYTES);
        amx_dot(3, 5, 7);
    }
    amx_store(2, out, dv * 4);
    amx_store(3, out + 16, dv * 4);
}

/* Adds a block that is whole and that all rows see. */
static void matrix_add(decode_task_t *task, const decode_block_t *block, decode_ahead_t ahead)
{
    const int dv = task->z->dv;
    decode_ahead_t later = {.rows = ahead.rows + DECODE_KEYS / 2, .bytes = ahead.bytes};
    matrix_weights(task, block);
    for (int c = 0, columns; c < dv; c += columns) {
        columns = (int)hd_min(dv - c, DECODE_MATRIX_COLUMNS);
        matrix_values(task, block, &ahead, c, columns);
        for (int i = 0; i < columns; i += 32) {
            decode_fetch_rows(&later, (c + i) / 32, dv / 32);
            for (int first = 0; first < task->rows; first += AMX_ROWS)
                matrix_sums(task->unit.weights + first * DECODE_KEYS,
                            task->unit.values + i / 16 * MATRIX_PART,
                            task->state.out + first * dv + c + i, dv);
        }
    }
}

#endif
