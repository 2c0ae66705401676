/* Scores of a block of keys: products, scales of keys, what modifies or hides them. */
#ifndef HD_DECODE_SCORES_H
#define HD_DECODE_SCORES_H

#include "decode_matrix.h"

/* The sums over lanes, for a row. */
HD_INLINE void decode_fold(const float *parts, float *scores)
{
    HD_UNROLL
    for (int j = 0; j < DECODE_KEYS; j += VEC_LANES) {
        vec_t x[VEC_LANES];
        HD_UNROLL
        for (int i = 0; i < VEC_LANES; i++) {
            x[i] = vec_load(parts + (j + i) * VEC_LANES);
        }
        vec_store(scores + j, decode_lane_sums(x));
    }
}

static void decode_scores(decode_task_t *task, decode_block_t *block, decode_ahead_t ahead)
{
    const decode_tiles_t *tiles = decode_tiles(task->k_dtype);
    const int d = task->z->d;
    if (task->z->matrix && block->count == DECODE_KEYS) {
        matrix_scores(task, block, ahead);
        return;
    }
    for (int r = 0, queries; r < task->rows; r += queries) {
        int left = task->rows - r, size = left >= 8 ? 3 : left >= 4 ? 2 : left >= 2 ? 1 : 0;
        queries = 1 << size;
        tiles->products[size](block->keys, block->count, &ahead, task->q + r * d, d, task->parts);
        for (int i = 0; i < queries; i++)
            decode_fold(task->parts + i * DECODE_KEYS * VEC_LANES,
                        block->weights + (r + i) * DECODE_KEYS);
        ahead.bytes = 0;
    }
}

/* Scales of a block's keys or values, times its scores or weights. */
HD_NOINLINE void decode_scale(const decode_task_t *task, const hd_view_t *scale,
                              const decode_block_t *block)
{
    float factor[DECODE_KEYS] = {0};
    for (int j = 0; j < block->count; j++)
        factor[j] = hd_scale(scale, task->b, block->key + j, task->key_head);
    for (int r = 0; r < task->rows; r++)
        for (int j = 0; j < DECODE_KEYS; j += VEC_LANES) {
            float *at = block->weights + r * DECODE_KEYS + j;
            vec_store(at, vec_mul(vec_load(at), vec_load(factor + j)));
        }
}

/* Bits of the keys of a block that the band lets a query see. */
static decode_bits_t decode_band(const hd_visibility_t *visible, int64_t query,
                                 const decode_block_t *block)
{
    int64_t low = hd_max(hd_first_key(visible, query) - block->key, 0);
    int64_t high = hd_min(hd_end_key(visible, query) - block->key, block->count);
    return low >= high ? 0 : decode_first_bits(high) & ~decode_first_bits(low);
}

/* What a row's bias adds to the scores of a block. Returns bits of the keys that mask and bias
 * hide.
 */
static decode_bits_t decode_addend(const decode_task_t *task, const decode_block_t *block, int r,
                                   float addend[DECODE_KEYS])
{
    const hd_modifiers_t *of = &task->a->modifiers;
    const int64_t head = decode_head(task, r), query = decode_query(task, r);
    decode_bits_t hidden = 0;
    memset(addend, 0, DECODE_KEYS * sizeof(*addend));
    if (of->mask.data) {
        const char *at = hd_view_row(&of->mask, task->b, query, head) + block->key * of->mask.elem;
        for (int j = 0; j < block->count; j++)
            hidden |= (decode_bits_t)(at[j * of->mask.elem] == 0) << j;
    }
    if (of->bias.data) {
        const char *at = hd_view_row(&of->bias, task->b, query, head) + block->key * of->bias.elem;
        row_to_f32(&of->bias, at, block->count, addend);
        for (int j = 0; j < DECODE_KEYS; j++)
            hidden |= (decode_bits_t)(addend[j] == -INFINITY) << j;
    }
    return hidden;
}

/* Modifies the scores of a block. What is masked is not seen. */
HD_NOINLINE void decode_modify(const decode_task_t *task, decode_block_t *block)
{
    const hd_modifiers_t *of = &task->a->modifiers;
    float addend[DECODE_KEYS], keys[DECODE_KEYS];
    for (int j = 0; j < DECODE_KEYS; j++)
        keys[j] = (float)(block->key + j);
    for (int r = 0; r < task->rows; r++) {
        float *scores = block->weights + r * DECODE_KEYS;
        const float slope = hd_slope(of, task->b, decode_head(task, r)) * MODIFY_LOG2E;
        const float position = (float)(decode_query(task, r) + task->visible.offset);
        const decode_bits_t seen = block->seen[r];
        block->seen[r] = seen & ~decode_addend(task, block, r, addend);
        if (block->seen[r] != seen)
            block->full = false;
        for (int j = 0; j < DECODE_KEYS; j += VEC_LANES) {
            vec_t x = vec_load(scores + j);
            if (of->softcap > 0)
                x = soften(x, of->softcap);
            if (of->bias.data)
                x = vec_fma(vec_load(addend + j), vec_set1(MODIFY_LOG2E), x);
            if (of->slopes.data)
                x = vec_sub(
                    x, alibi(vec_set1(slope), vec_sub(vec_set1(position), vec_load(keys + j))));
            vec_store(scores + j, x);
        }
    }
}

#endif
