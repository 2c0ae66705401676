/* Scores of a block become weights, relative to a reference that seldom moves. */
#ifndef HD_DECODE_SOFTMAX_H
#define HD_DECODE_SOFTMAX_H

#include "decode_scores.h"

#include <float.h>

/* A row's reference moves when a score lies this much above it, in log2. Weights are then below
 * 2^8, which f32 sums hold as well as those below 1. */
static const float decode_slack = 8;

/* Makes what a row has summed up, and its weights that wait, relative to a higher reference. */
HD_NOINLINE void decode_raise(decode_task_t *task, float *waiting, int r, float most)
{
    const decode_sizes_t *z = task->z;
    float *out = task->state.out + r * z->dv, *sum = task->state.sum + r * VEC_LANES;
    const vec_t factor = vec_set1(exp2f(task->state.reference[r] - most));
    for (int c = 0; c < z->dv; c += VEC_LANES)
        vec_store(out + c, vec_mul(vec_load(out + c), factor));
    for (int j = 0; j < DECODE_KEYS; j += VEC_LANES)
        vec_store(waiting + j, vec_mul(vec_load(waiting + j), factor));
    vec_store(sum, vec_mul(vec_load(sum), factor));
    task->state.reference[r] = most;
}

/* A row's scores become weights. */
HD_INLINE void decode_weigh_row(decode_task_t *task, float *scores, float *waiting, int r,
                                decode_bits_t seen)
{
    enum { VECTORS = DECODE_KEYS / VEC_LANES };
    float *sum = task->state.sum + r * VEC_LANES;
    vec_t x[VECTORS], most = vec_set1(-INFINITY);
    HD_UNROLL
    for (int i = 0; i < VECTORS; i++) {
        x[i] = vec_load(scores + i * VEC_LANES);
        if (seen != decode_first_bits(DECODE_KEYS))
            x[i] = vec_select((uint32_t)(seen >> i * VEC_LANES), x[i], vec_set1(-INFINITY));
        most = vec_max(x[i], most);
    }
    float top = decode_most(most);
    if (top > task->state.reference[r] + decode_slack)
        decode_raise(task, waiting, r, top);
    /* While nothing is seen, -inf less the lowest number stays -inf. */
    const vec_t low = vec_set1(fmaxf(task->state.reference[r], -FLT_MAX));
    vec_t total = vec_load(sum);
    HD_UNROLL
    for (int i = 0; i < VECTORS; i++) {
        x[i] = vec_exp2(vec_sub(x[i], low));
        if (seen != decode_first_bits(DECODE_KEYS))
            x[i] = vec_select((uint32_t)(seen >> i * VEC_LANES), x[i], vec_zero());
        total = vec_add(total, x[i]);
        vec_store(scores + i * VEC_LANES, x[i]);
    }
    vec_store(sum, total);
}

static void decode_weigh(decode_task_t *task, decode_block_t *block, const decode_block_t *waiting,
                         decode_ahead_t ahead)
{
    for (int r = 0; r < task->rows; r++)
        block->seen[r] = block->full ? decode_first_bits(block->count)
                                     : decode_band(&task->visible, decode_query(task, r), block);
    if (task->k_scaled)
        decode_scale(task, &task->a->k_scale, block);
    if (task->modified)
        decode_modify(task, block);
    for (int r = 0; r < task->rows; r++) {
        decode_fetch_rows(&ahead, r, task->rows);
        decode_weigh_row(task, block->weights + r * DECODE_KEYS, waiting->weights + r * DECODE_KEYS,
                         r, block->seen[r]);
    }
    if (task->v_scaled)
        decode_scale(task, &task->a->v_scale, block);
}

#endif
