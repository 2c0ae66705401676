/* One row the plain way, by a warp, from global memory: for the rows that tensor cores cannot do.
 * They multiply masked values by a weight of zero, which is NaN where the value is none; and scores
 * beyond 2^20 leave no bits for a weight. Slow, and hardly ever needed.
 *
 * Two passes: the largest score; then weights, their sum and that of the values. Lanes hold a key
 * each for the scores and a few columns each for the values. */
#ifndef HD_FLASH_RESCUE_CUH
#define HD_FLASH_RESCUE_CUH

#include "../common/attention.h"
#include "../common/element.h"
#include "ptx.cuh"

#include <math.h>

/* TASK says which batch, head and key head; its own numbers, not copies in 64 bits: ptxas gives the
 * loops of the kernel what this function leaves it. */
template <class TASK> struct rescue {
    enum { COLUMNS = 256 / 32 };
    const hd_attention_t *a;
    const TASK *task;
    decltype(TASK::first) query;
    int lane;
    /* The result: column lane + 32 * c of the values' sum is out[c] / sum. */
    float most, sum, out[COLUMNS];

    static __device__ float dot(const hd_attention_t *a, const char *q, const char *k)
    {
        float sum = 0;
        for (int i = 0; i < a->d; i++)
            sum = fmaf(hd_element_load(a->q.dtype, q + i * a->q.elem),
                       hd_element_load(a->k.dtype, k + i * a->k.elem), sum);
        return sum;
    }

    /* Whether the row sees the lane's key, key0 + lane; then its score. */
    __device__ __forceinline__ bool score(const hd_walk_t *walk, const hd_block_t *block, int key,
                                          float *score)
    {
        if (key >= block->count || !(block->full || (hd_walk_mask(walk, block, key) & 1)))
            return false;
        *score = a->scale * dot(a, hd_view_row(&a->q, task->batch, query, task->head),
                                hd_view_row(&a->k, task->batch, block->key + key, task->key_head));
        return true;
    }

    /* NaN, once seen, stays: it is the row's result. */
    __device__ __forceinline__ void find_most(const hd_walk_t *walk, const hd_block_t *block)
    {
        for (int key0 = 0; key0 < block->count; key0 += 32) {
            float s = -INFINITY;
            (void)score(walk, block, key0 + lane, &s);
            most = hd_max_nan(most, s);
        }
    }

    __device__ __forceinline__ void add_values(const hd_walk_t *walk, const hd_block_t *block)
    {
        for (int key0 = 0; key0 < block->count; key0 += 32) {
            float s = 0;
            bool seen = score(walk, block, key0 + lane, &s);
            float weight = seen ? expf(s - (most == -INFINITY ? 0 : most)) : 0;
            sum += weight;
            unsigned all = __ballot_sync(~0u, seen);
            for (int j = 0; j < 32; j++) {
                float w = __shfl_sync(~0u, weight, j);
                if (!(all >> j & 1))
                    continue;
                const char *row =
                    hd_view_row(&a->v, task->batch, block->key + key0 + j, task->key_head);
#pragma unroll
                for (int c = 0; c < COLUMNS; c++)
                    if (lane + 32 * c < a->dv)
                        out[c] =
                            fmaf(w, hd_element_load(a->v.dtype, row + (lane + 32 * c) * a->v.elem),
                                 out[c]);
            }
        }
    }

    __device__ __forceinline__ void walk_keys(bool values)
    {
        hd_walk_t walk;
        hd_block_t block;
        hd_walk_begin(&walk, &a->visible, task->batch, task->head, query, 1);
        while (hd_walk_next(&walk, &block)) {
            if (values)
                add_values(&walk, &block);
            else
                find_most(&walk, &block);
            /* The row is NaN: no need to go on. */
            if (__any_sync(~0u, most != most))
                return;
        }
    }

    __device__ __forceinline__ void run()
    {
        lane = (int)threadIdx.x & 31;
        most = -INFINITY;
        sum = 0;
        for (int c = 0; c < COLUMNS; c++)
            out[c] = 0;
        walk_keys(false);
        for (int lanes = 16; lanes > 0; lanes /= 2)
            most = hd_max_nan(most, __shfl_xor_sync(~0u, most, lanes));
        walk_keys(true);
        sum = hd_warp_sum(sum);
        if (most != most)
            sum = most;
    }
};

#endif
