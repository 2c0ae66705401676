/* The kernels of cuda:standard: weights of scores, and results of sums. attention_standard.cu has
 * the way of the whole. A block of two warps for each row. */
#ifndef HD_ATTENTION_STANDARD_KERNELS_CUH
#define HD_ATTENTION_STANDARD_KERNELS_CUH

#include "simt.cuh"

#include "../common/attention.h"
#include "../common/element.h"

#include <math.h>

enum { THREADS = HD_BLOCK_KEYS, WARPS = THREADS / 32 };

typedef struct params {
    hd_attention_t a;
    int64_t batch, head, row; /* first of the chunk */
    int rows;
    int64_t keys;
    const float *scores; /* [heads][rows][keys]; f32 weights take their place */
    char *weights;
    const float *sums; /* [heads][rows][dv] */
    float *stats;      /* [heads][rows][2]: largest score, sum */
} params_t;

typedef struct place {
    int64_t head, query, at; /* at: of the row in the chunk's arrays */
} place_t;

static __device__ inline place_t find_place(const params_t *p)
{
    place_t place;
    place.at = blockIdx.x;
    place.head = p->head + place.at / p->rows;
    place.query = p->row + place.at % p->rows;
    return place;
}

/* Over the block, in every thread. `memory` has a float for each warp. */
static __device__ float block_max(float value, float *memory)
{
    value = hd_warp_max(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        memory[threadIdx.x / 32] = value;
    __syncthreads();
    return fmaxf(memory[0], memory[1]);
}

static __device__ float block_sum(float value, float *memory)
{
    value = hd_warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        memory[threadIdx.x / 32] = value;
    __syncthreads();
    return memory[0] + memory[1];
}

static __device__ inline bool sees(const hd_walk_t *walk, const hd_block_t *block)
{
    int key = (int)threadIdx.x;
    return key < block->count && (block->full || (hd_walk_mask(walk, block, key) & 1));
}

static __device__ float find_most(const params_t *p, const place_t *place, const float *scores)
{
    hd_walk_t walk;
    hd_block_t block;
    float most = -INFINITY;
    hd_walk_begin(&walk, &p->a.visible, p->batch, place->head, place->query, 1);
    while (hd_walk_next(&walk, &block))
        if (sees(&walk, &block))
            most = fmaxf(most, scores[block.key + threadIdx.x]);
    return most;
}

static __device__ inline void store_weight(const params_t *p, char *row, int64_t key, float weight)
{
    heed_dtype_t dtype = p->a.q.dtype;
    hd_element_store(dtype, row + key * hd_dtype_bytes(dtype), weight);
}

/* Zeros for the keys from .. to-1. */
static __device__ void clear(const params_t *p, char *row, int64_t from, int64_t to)
{
    for (int64_t key = from + threadIdx.x; key < to; key += THREADS)
        store_weight(p, row, key, 0);
}

/* Blocks come in order, so that what lies between two of them is not seen. */
static __device__ float store_weights(const params_t *p, const place_t *place, const float *scores,
                                      char *row, float most)
{
    hd_walk_t walk;
    hd_block_t block;
    int64_t next = 0;
    float sum = 0, reference = most == -INFINITY ? 0 : most;
    hd_walk_begin(&walk, &p->a.visible, p->batch, place->head, place->query, 1);
    while (hd_walk_next(&walk, &block)) {
        clear(p, row, next, block.key);
        next = block.key + block.count;
        if ((int)threadIdx.x < block.count) {
            int64_t key = block.key + threadIdx.x;
            float weight = sees(&walk, &block) ? expf(scores[key] - reference) : 0;
            store_weight(p, row, key, weight);
            sum += weight;
        }
    }
    clear(p, row, next, p->keys);
    return sum;
}

static __global__ void __launch_bounds__(THREADS) weigh(const __grid_constant__ params_t p)
{
    HD_SHARED(memory);
    place_t place = find_place(&p);
    const float *scores = p.scores + place.at * p.keys;
    char *row = p.weights + place.at * p.keys * hd_dtype_bytes(p.a.q.dtype);
    float most = block_max(find_most(&p, &place, scores), (float *)memory);
    float sum = block_sum(store_weights(&p, &place, scores, row, most), (float *)memory);
    if (threadIdx.x == 0) {
        p.stats[2 * place.at] = most;
        p.stats[2 * place.at + 1] = sum;
    }
}

/* One column once more, from the keys that are seen alone. */
static __device__ float add_up(const params_t *p, const place_t *place, int column)
{
    heed_dtype_t dtype = p->a.q.dtype;
    int size = hd_dtype_bytes(dtype);
    const char *row = p->weights + place->at * p->keys * size;
    hd_walk_t walk;
    hd_block_t block;
    float sum = 0;
    hd_walk_begin(&walk, &p->a.visible, p->batch, place->head, place->query, 1);
    while (hd_walk_next(&walk, &block))
        for (int j = 0; j < block.count; j++) {
            int64_t key = block.key + j;
            const char *value = hd_view_row(&p->a.v, p->batch, key, place->head / p->a.group);
            if (block.full || (hd_walk_mask(&walk, &block, j) & 1))
                sum = fmaf(hd_element_load(dtype, row + key * size),
                           hd_element_load(dtype, value + column * p->a.v.elem), sum);
        }
    return sum;
}

/* What a row's sums and old output are multiplied by, and its new lse. */
typedef struct factors {
    float own, old, lse;
} factors_t;

static __device__ factors_t find_factors(const params_t *p, const place_t *place,
                                         const char *lse_at)
{
    float most = p->stats[2 * place->at], sum = p->stats[2 * place->at + 1];
    factors_t f = {sum == 0 ? 0 : 1 / sum, 0, sum == 0 ? -INFINITY : most + logf(sum)};
    float old = p->a.merge ? hd_element_load(HEED_F32, lse_at) : -INFINITY;
    float top = fmaxf(old, f.lse);
    if (p->a.merge && top != -INFINITY) {
        float own = expf(f.lse - top), theirs = expf(old - top);
        f.own *= own / (own + theirs);
        f.old = theirs / (own + theirs);
        f.lse = top + logf(own + theirs);
    }
    return f;
}

static __global__ void __launch_bounds__(THREADS) finish(const __grid_constant__ params_t p)
{
    place_t place = find_place(&p);
    char *out = hd_view_row(&p.a.out, p.batch, place.query, place.head);
    char *lse = p.a.lse.data ? hd_view_row(&p.a.lse, p.batch, place.query, place.head) : nullptr;
    factors_t f = find_factors(&p, &place, lse);
    for (int column = (int)threadIdx.x; column < p.a.dv; column += THREADS) {
        char *to = out + column * p.a.out.elem;
        float value = 0;
        if (f.own != 0) {
            value = p.sums[place.at * p.a.dv + column];
            value = f.own * (isfinite(value) ? value : add_up(&p, &place, column));
        }
        if (f.old != 0)
            value = fmaf(f.old, hd_element_load(p.a.out.dtype, to), value);
        hd_element_store(p.a.out.dtype, to, value);
    }
    /* Every thread has read the old one. */
    __syncthreads();
    if (lse && threadIdx.x == 0)
        hd_element_store(HEED_F32, lse, f.lse);
}

#endif
