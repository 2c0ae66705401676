/* The walk of a unit over the keys of a split: scores, weights, and values added a block later. */
#ifndef HD_DECODE_KEYS_H
#define HD_DECODE_KEYS_H

#include "decode_softmax.h"

static void decode_add_full(decode_task_t *task, const decode_block_t *block, decode_ahead_t ahead)
{
    const decode_tiles_t *tiles = decode_tiles(task->v_dtype);
    const int dv = task->z->dv;
    for (int r = 0, queries; r < task->rows; r += queries) {
        int left = task->rows - r, size = left >= 4 ? 2 : left >= 2 ? 1 : 0;
        queries = 1 << size;
        tiles->sums[size](block->values, block->count, &ahead, block->weights + r * DECODE_KEYS,
                          task->state.out + r * dv, dv);
        ahead.bytes = 0;
    }
}

/* Values that a row does not see stay out of its products, for zero times NaN is NaN. What it sees
 * is taken run by run. */
static void decode_add_cut(decode_task_t *task, const decode_block_t *block)
{
    const decode_tiles_t *tiles = decode_tiles(task->v_dtype);
    const int dv = task->z->dv;
    const decode_ahead_t nothing = {0};
    for (int r = 0; r < task->rows; r++)
        for (int at = 0, end; at < block->count; at = end) {
            bool sees = block->seen[r] >> at & 1;
            for (end = at + 1; end < block->count && (block->seen[r] >> end & 1) == sees;)
                end++;
            if (sees)
                tiles->sums[0](block->values + at, end - at, &nothing,
                               block->weights + r * DECODE_KEYS + at, task->state.out + r * dv, dv);
        }
}

static void decode_add(decode_task_t *task, decode_block_t *block, decode_ahead_t ahead)
{
    const hd_attention_t *a = task->a;
    if (!block->count)
        return;
    decode_stage(&a->v, block->values, block->count, a->dv, task->v_stage, task->z->dv);
    if (block->full && task->z->matrix && block->count == DECODE_KEYS)
        matrix_add(task, block, ahead);
    else if (block->full)
        decode_add_full(task, block, ahead);
    else
        decode_add_cut(task, block);
}

/* Blocks end at multiples of DECODE_KEYS. */
static int64_t decode_block_end(int64_t key, int64_t end)
{
    return hd_min((key / DECODE_KEYS + 1) * DECODE_KEYS, end);
}

/* Adds the keys first .. end-1 to the task's state. The values of a block are added after the
 * scores of the next: the chain from scores to weights has then something to run beside, and values
 * have been fetched when they are needed. */
static void decode_keys(decode_task_t *task, int64_t first, int64_t end)
{
    const hd_attention_t *a = task->a;
    const hd_visibility_t *visible = &task->visible;
    int64_t all_low = hd_first_key(visible, decode_query(task, task->rows - 1));
    int64_t all_high = hd_end_key(visible, task->first);
    decode_ahead_t values = {.bytes = a->dv * (int)hd_dtype_bytes(task->v_dtype)};
    decode_ahead_t keys = {.rows = task->next_keys};
    const int key_bytes = task->k_stage ? 0 : a->d * (int)hd_dtype_bytes(task->k_dtype);
    decode_block_t *block = &task->blocks[0], *waiting = &task->blocks[1];
    if (task->v_stage || decode_by_rows(task->v_dtype, task->rows, a->dv))
        values.bytes = 0;
    waiting->count = 0;
    decode_find(&a->k, task, first, (int)(decode_block_end(first, end) - first), task->next_keys);
    for (int64_t key = first, next; key < end; key = next) {
        next = decode_block_end(key, end);
        block->key = key;
        block->count = (int)(next - key);
        block->full = all_low <= key && next <= all_high;
        memcpy(block->keys, task->next_keys, sizeof(block->keys));
        decode_find(&a->v, task, key, block->count, block->values);
        decode_stage(&a->k, block->keys, block->count, a->d, task->k_stage, task->z->d);
        values.rows = block->values;
        decode_scores(task, block, values);
        decode_ahead_t later = {.rows = block->values + DECODE_KEYS / 2};
        if (task->z->matrix && block->count == DECODE_KEYS)
            later.bytes = values.bytes;
        decode_weigh(task, block, waiting, later);
        const int64_t after = decode_block_end(next, end);
        keys.bytes = after - next >= DECODE_KEYS ? key_bytes : 0;
        decode_find(&a->k, task, next, (int)(after - next), task->next_keys);
        decode_add(task, waiting, keys);
        decode_block_t *swap = waiting;
        waiting = block;
        block = swap;
    }
    keys.bytes = 0;
    decode_add(task, waiting, keys);
}

#endif
