/* The results of decoding: where a row's numbers go, and the launch that merges the splits. */
#ifndef HD_DECODE_MERGE_CUH
#define HD_DECODE_MERGE_CUH

#include "decode.h"

#include "../common/element.h"

#include <math.h>

enum { DECODE_MERGE_WARPS = 4, DECODE_MERGE_THREADS = 32 * DECODE_MERGE_WARPS };

/* A row of out and of lse, and the factors of what was computed and of what is there already. */
typedef struct decode_target {
    char *out, *lse_at;
    float lse, mine, theirs;
} decode_target_t;

/* lse is base 2, -inf for a row without a key. No thread may store before all have this. */
static __device__ inline decode_target_t decode_target(const decode_params_t *p, int64_t unit,
                                                       int row, float lse)
{
    const hd_attention_t *a = &p->a;
    int64_t batch = unit / a->key_heads, query = row / a->group;
    int64_t head = unit % a->key_heads * a->group + row % a->group;
    decode_target_t target = {hd_view_row(&a->out, batch, query, head), nullptr, lse, 1, 0};
    if (a->lse.data)
        target.lse_at = hd_view_row(&a->lse, batch, query, head);
    if (lse == -INFINITY)
        target.mine = 0;
    if (a->merge) {
        float old = *(const float *)target.lse_at * 1.44269504f, top = fmaxf(old, lse);
        if (top != -INFINITY) {
            float mine = hd_ex2(lse - top), theirs = hd_ex2(old - top);
            target.mine = mine / (mine + theirs);
            target.theirs = theirs / (mine + theirs);
            target.lse = top + hd_lg2(mine + theirs);
        }
    }
    return target;
}

static __device__ inline void decode_store(const decode_params_t *p, const decode_target_t *target,
                                           int column, float value)
{
    const hd_view_t *out = &p->a.out;
    char *at = target->out + column * out->elem;
    /* A factor of zero also takes what is no number. */
    float result = target->mine == 0 ? 0 : target->mine * value;
    if (target->theirs != 0)
        result = fmaf(target->theirs, hd_element_load(out->dtype, at), result);
    hd_element_store(out->dtype, at, result);
}

static __device__ inline void decode_store_lse(const decode_target_t *target)
{
    if (target->lse_at)
        *(float *)target->lse_at = target->lse * 0.693147180559945f;
}

/* ---- merging the splits ---------------------------------------------------------------------- */

/* One block for each row. Each warp adds up every fourth split, a lane four columns at a time; the
 * warps' sums are added in order, so that a result is the same each time. */
template <bool DEPENDENT>
static __global__ void __launch_bounds__(DECODE_MERGE_THREADS)
    decode_merge(const __grid_constant__ decode_params_t p)
{
    HD_SHARED(memory);
    float *weights = (float *)memory, *sums = weights + DECODE_MAX_SPLITS;
    int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
    int64_t unit = blockIdx.x / p.rows;
    int row = (int)(blockIdx.x % p.rows);
    int64_t state = unit * p.splits * p.rows + row;
    const float *lse = p.partial_lse + state;
    const float *out = p.partial + state * p.partial_stride;
    int64_t step = (int64_t)p.rows * p.partial_stride;
#if HD_SM90
    if (DEPENDENT)
        hd_grid_wait();
#endif

    /* Each warp finds the same maximum and sum. */
    float most = -INFINITY, total = 0;
    for (int s = lane; s < p.splits; s += 32)
        most = fmaxf(most, lse[(int64_t)s * p.rows]);
    most = hd_warp_max(most);
    float reference = most == -INFINITY ? 0 : most;
    for (int s = lane; s < p.splits; s += 32)
        total += hd_ex2(lse[(int64_t)s * p.rows] - reference);
    total = hd_warp_sum(total);
    if (thread < p.splits)
        weights[thread] = hd_ex2(lse[(int64_t)thread * p.rows] - reference);
    __syncthreads();

    float *sum = sums + warp * DECODE_DIM;
    for (int column = 4 * lane; column < p.partial_stride; column += 4 * 32) {
        float4 of = {0, 0, 0, 0};
#pragma unroll 4
        for (int s = warp; s < p.splits; s += DECODE_MERGE_WARPS) {
            float4 values = *(const float4 *)(out + s * step + column);
            float weight = weights[s];
            of.x = fmaf(weight, values.x, of.x);
            of.y = fmaf(weight, values.y, of.y);
            of.z = fmaf(weight, values.z, of.z);
            of.w = fmaf(weight, values.w, of.w);
        }
        *(float4 *)(sum + column) = of;
    }
    decode_target_t target =
        decode_target(&p, unit, row, total == 0 ? -INFINITY : most + hd_lg2(total));
    __syncthreads();

    float scale = total == 0 ? 0 : 1 / total;
    for (int column = thread; column < p.a.dv; column += DECODE_MERGE_THREADS) {
        float value = 0;
        for (int w = 0; w < DECODE_MERGE_WARPS; w++)
            value += sums[w * DECODE_DIM + column];
        decode_store(&p, &target, column, value * scale);
    }
    if (thread == 0)
        decode_store_lse(&target);
}

static inline dim3 decode_merge_grid(const decode_params_t *p)
{
    return dim3((unsigned)(p->units * p->rows));
}

static inline size_t decode_merge_shared()
{
    return (DECODE_MAX_SPLITS + DECODE_MERGE_WARPS * DECODE_DIM) * sizeof(float);
}

#endif
