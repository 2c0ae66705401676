/* cuda:flash_simt, flash attention without tensor cores, for any card and any problem.
 * Simple on purpose: the kernel that faster ones are compared with.
 *
 * A block of 4 warps takes 16 queries of one head, 4 a warp, and walks the keys in blocks of 64
 * with an online softmax. Everything is f32 inside.
 *
 * - Scores: a lane holds keys `lane` and `lane + 32`. K passes through shared memory in pieces of
 *   64 keys by 32 columns; the queries lie there whole.
 * - Weights pass through shared memory too, each warp its own.
 * - Output: a lane holds the columns lane, lane + 32, ... V passes in pieces like K's.
 *
 * Rows never meet and no atomics are used, so that a result is the same each time. The weight of a
 * masked key is MASKED, which selects the old sum in place of a product: no masked value gets in,
 * not even a NaN. */
#include "simt.cuh"
#include "cuda.h"

#include "../common/attention.h"
#include "../common/element.h"

#include <math.h>

enum {
    WARPS = 4,
    THREADS = 32 * WARPS,
    WARP_ROWS = 4,
    ROWS = WARPS * WARP_ROWS,
    KEYS = HD_BLOCK_KEYS,
    PIECE = 32,        /* columns of K or V at a time */
    STRIDE = PIECE + 4 /* of a row of the piece: 16-byte reads by 8 lanes touch 32 banks */
};

/* In place of a weight, which is 0 to 1 or NaN. */
#define MASKED -1.0f

typedef struct params {
    hd_attention_t a;
    int64_t tiles;     /* of ROWS queries in a head */
    int query_columns; /* D rounded up to PIECE */
} params_t;

/* Where things lie in the block's shared memory. */
typedef struct shared {
    float *piece;    /* [KEYS][STRIDE] */
    float *weights;  /* [ROWS][KEYS] */
    float *queries;  /* [ROWS][query_columns], zeros after D */
    uint64_t *masks; /* [KEYS] */
} shared_t;

static __device__ inline shared_t divide(unsigned char *memory)
{
    shared_t s;
    s.masks = (uint64_t *)memory;
    s.piece = (float *)(s.masks + KEYS);
    s.weights = s.piece + KEYS * STRIDE;
    s.queries = s.weights + ROWS * KEYS;
    return s;
}

static size_t shared_bytes(int query_columns)
{
    return KEYS * sizeof(uint64_t) +
           sizeof(float) * (size_t)(KEYS * STRIDE + ROWS * KEYS + ROWS * query_columns);
}

/* What a block works on. */
typedef struct task {
    int64_t batch, head, key_head;
    int64_t first; /* query */
    int rows;
} task_t;

static __device__ inline task_t find_task(const params_t *p, int64_t index)
{
    task_t task;
    task.first = index % p->tiles * ROWS;
    task.head = index / p->tiles % p->a.heads;
    task.batch = index / p->tiles / p->a.heads;
    task.key_head = task.head / p->a.group;
    task.rows = (int)hd_min(p->a.queries - task.first, ROWS);
    return task;
}

static __device__ inline float load(const hd_view_t *view, const char *row, int column)
{
    return hd_element_load(view->dtype, row + column * view->elem);
}

static __device__ void load_queries(const params_t *p, const task_t *task, const shared_t *s)
{
    int columns = p->query_columns;
    for (int i = (int)threadIdx.x; i < ROWS * columns; i += THREADS) {
        int row = i / columns, column = i % columns;
        float value = 0;
        if (row < task->rows && column < p->a.d)
            value = load(&p->a.q, hd_view_row(&p->a.q, task->batch, task->first + row, task->head),
                         column);
        s->queries[i] = value;
    }
}

/* Columns from .. from+PIECE-1 of the block's keys, zeros where there are none. A barrier on either
 * side: all are done with the former piece, all see this one. */
static __device__ __attribute__((noinline)) void load_piece(const hd_view_t *view,
                                                            const task_t *task,
                                                            const hd_block_t *block, int from,
                                                            int width, const shared_t *s)
{
    int column = (int)threadIdx.x % PIECE;
    __syncthreads();
#pragma unroll 4
    for (int key = (int)threadIdx.x / PIECE; key < KEYS; key += THREADS / PIECE) {
        float value = 0;
        if (key < block->count && from + column < width)
            value = load(view, hd_view_row(view, task->batch, block->key + key, task->key_head),
                         from + column);
        s->piece[key * STRIDE + column] = value;
    }
    __syncthreads();
}

static __device__ inline float dot4(float4 x, float4 y, float sum)
{
    return fmaf(x.w, y.w, fmaf(x.z, y.z, fmaf(x.y, y.y, fmaf(x.x, y.x, sum))));
}

/* scores[r][half] of the warp's row r and key lane + 32 * half, not yet scaled. */
static __device__ void score(const params_t *p, const task_t *task, const hd_block_t *block,
                             const shared_t *s, float scores[WARP_ROWS][2])
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const float *low = s->piece + lane * STRIDE, *high = low + 32 * STRIDE;
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++)
        scores[r][0] = scores[r][1] = 0;
    for (int from = 0; from < p->a.d; from += PIECE) {
        load_piece(&p->a.k, task, block, from, p->a.d, s);
        const float *queries = s->queries + warp * WARP_ROWS * p->query_columns + from;
        for (int c = 0; c < PIECE; c += 4) {
            float4 key0 = *(const float4 *)(low + c), key1 = *(const float4 *)(high + c);
#pragma unroll
            for (int r = 0; r < WARP_ROWS; r++) {
                float4 query = *(const float4 *)(queries + r * p->query_columns + c);
                scores[r][0] = dot4(query, key0, scores[r][0]);
                scores[r][1] = dot4(query, key1, scores[r][1]);
            }
        }
    }
}

/* Whether query `row` of the task sees key `key` of the block. */
static __device__ inline bool sees(const hd_block_t *block, const shared_t *s, int row, int key)
{
    return key < block->count && (block->full || (s->masks[key] >> row & 1));
}

/* A row so far. The output is in registers of its own. */
typedef struct state {
    float most; /* largest score, -inf before the first */
    float sum;  /* of the lane's weights */
} state_t;

/* Turns a row's scores into weights and returns the factor for what was summed before. */
static __device__ float weigh(float score0, float score1, bool seen0, bool seen1, state_t *state,
                              float *weights)
{
    int lane = (int)threadIdx.x % 32;
    float most = fmaxf(state->most, hd_warp_max(fmaxf(score0, score1)));
    /* Nothing seen yet: any finite reference gives weights of zero. */
    float reference = most == -INFINITY ? 0 : most;
    float weight0 = expf(score0 - reference), weight1 = expf(score1 - reference);
    float factor = expf(state->most - reference);
    weights[lane] = seen0 ? weight0 : MASKED;
    weights[lane + 32] = seen1 ? weight1 : MASKED;
    state->sum = fmaf(state->sum, factor, weight0 + weight1);
    state->most = most;
    return factor;
}

/* out[r][t] of column lane + 32 * t. */
template <int COLUMNS>
static __device__ void add_values(const params_t *p, const task_t *task, const hd_block_t *block,
                                  const shared_t *s, float out[WARP_ROWS][COLUMNS])
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const float *weights = s->weights + warp * WARP_ROWS * KEYS;
#pragma unroll
    for (int t = 0; t < COLUMNS; t++) {
        /* The same for the whole block, so that its barriers meet. */
        if (t * PIECE >= p->a.dv)
            break;
        load_piece(&p->a.v, task, block, t * PIECE, p->a.dv, s);
#pragma unroll 4
        for (int key = 0; key < KEYS; key++) {
            float value = s->piece[key * STRIDE + lane];
#pragma unroll
            for (int r = 0; r < WARP_ROWS; r++) {
                float weight = weights[r * KEYS + key];
                out[r][t] = weight == MASKED ? out[r][t] : fmaf(weight, value, out[r][t]);
            }
        }
    }
}

/* Normalises a row, merges it with what is there, and stores. */
template <int COLUMNS>
static __device__ void store_row(const params_t *p, const task_t *task, int row, state_t state,
                                 const float out[COLUMNS])
{
    int lane = (int)threadIdx.x % 32;
    const hd_attention_t *a = &p->a;
    float sum = hd_warp_sum(state.sum), old_weight = 0;
    bool empty = sum == 0;
    float lse = empty ? -INFINITY : state.most + logf(sum), weight = empty ? 0 : 1 / sum;
    int64_t query = task->first + row;
    char *to = hd_view_row(&a->out, task->batch, query, task->head);
    char *lse_to = a->lse.data ? hd_view_row(&a->lse, task->batch, query, task->head) : nullptr;
    if (a->merge) {
        float old = hd_element_load(HEED_F32, lse_to), top = fmaxf(old, lse);
        if (top != -INFINITY) {
            float mine = expf(lse - top), theirs = expf(old - top);
            weight *= mine / (mine + theirs);
            old_weight = theirs / (mine + theirs);
            lse = top + logf(mine + theirs);
        }
    }
#pragma unroll
    for (int t = 0; t < COLUMNS; t++) {
        int column = lane + 32 * t;
        if (column >= a->dv)
            break;
        float value = weight == 0 ? 0 : weight * out[t];
        if (old_weight != 0)
            value = fmaf(old_weight, load(&a->out, to, column), value);
        hd_element_store(a->out.dtype, to + column * a->out.elem, value);
    }
    /* Every lane has read the old one. */
    __syncwarp();
    if (lse_to && lane == 0)
        hd_element_store(HEED_F32, lse_to, lse);
}

/* One block of keys for the warp's rows. */
template <int COLUMNS>
static __device__ void attend_block(const params_t *p, const task_t *task, const hd_block_t *block,
                                    const shared_t *s, state_t states[WARP_ROWS],
                                    float out[WARP_ROWS][COLUMNS])
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    float scores[WARP_ROWS][2];
    score(p, task, block, s, scores);
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        int row = warp * WARP_ROWS + r;
        bool seen0 = sees(block, s, row, lane), seen1 = sees(block, s, row, lane + 32);
        float score0 = seen0 ? p->a.scale * scores[r][0] : -INFINITY;
        float score1 = seen1 ? p->a.scale * scores[r][1] : -INFINITY;
        float factor = weigh(score0, score1, seen0, seen1, &states[r], s->weights + row * KEYS);
#pragma unroll
        for (int t = 0; t < COLUMNS; t++)
            out[r][t] *= factor;
    }
    add_values<COLUMNS>(p, task, block, s, out);
}

template <int COLUMNS>
static __global__ void __launch_bounds__(THREADS) attend(const __grid_constant__ params_t p)
{
    HD_SHARED(memory);
    shared_t s = divide(memory);
    task_t task = find_task(&p, blockIdx.x);
    int warp = (int)threadIdx.x / 32;
    state_t states[WARP_ROWS];
    float out[WARP_ROWS][COLUMNS];
#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++) {
        states[r].most = -INFINITY;
        states[r].sum = 0;
#pragma unroll
        for (int t = 0; t < COLUMNS; t++)
            out[r][t] = 0;
    }

    load_queries(&p, &task, &s);
    hd_walk_t walk;
    hd_block_t block;
    hd_walk_begin(&walk, &p.a.visible, task.batch, task.head, task.first, task.rows);
    while (hd_walk_next(&walk, &block)) {
        /* The former masks were read before the barriers of add_values. */
        if (!block.full && (int)threadIdx.x < block.count)
            s.masks[threadIdx.x] = hd_walk_mask(&walk, &block, (int)threadIdx.x);
        attend_block<COLUMNS>(&p, &task, &block, &s, states, out);
    }

#pragma unroll
    for (int r = 0; r < WARP_ROWS; r++)
        if (warp * WARP_ROWS + r < task.rows)
            store_row<COLUMNS>(&p, &task, warp * WARP_ROWS + r, states[r], out[r]);
}

/* ---- the host's side ------------------------------------------------------------------------- */

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    params_t p = {hd_attention_of(launch)};
    p.tiles = hd_ceil_div(p.a.queries, ROWS);
    p.query_columns = (p.a.d + PIECE - 1) / PIECE * PIECE;
    int64_t blocks = p.tiles * p.a.heads * p.a.batch;
    if (blocks == 0)
        return HEED_OK;

    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(launch, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    dim3 grid((unsigned)blocks), block(THREADS);
    size_t shared = shared_bytes(p.query_columns);
    void *stream = launch->stream.native;
    int error = p.a.dv <= 128 ? HD_LAUNCH(attend<4>, grid, block, shared, stream, p)
                              : HD_LAUNCH(attend<16>, grid, block, shared, stream, p);
    return hd_cuda_leave(&scope, error, "cuda:flash_simt");
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    if (device->compute_major < HD_CUDA_MIN_MAJOR)
        return hd_cuda_refuse(
            why, HEED_ERROR_UNSUPPORTED, "needs compute capability %d.%d: this card has %d.%d",
            HD_CUDA_MIN_MAJOR, HD_CUDA_MIN_MINOR, device->compute_major, device->compute_minor);
    const int64_t *q = desc->q.shape;
    double blocks = (double)hd_ceil_div(q[1], ROWS) * (double)q[0] * (double)q[2];
    if (blocks > INT32_MAX)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape: %.0f blocks of %d queries, one launch takes %d", blocks,
                              ROWS, INT32_MAX);
    return 1;
}

/* A launch, and a tenth of the card's multiply-adds: a guess that nothing was measured for. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const int64_t *q = desc->q.shape;
    hd_visibility_t visible = hd_visibility(desc);
    double pairs = hd_band_pairs(&visible) * (double)q[0] * (double)q[2];
    double clock_ghz = device->clock_khz > 0 ? device->clock_khz * 1e-6 : 1.4;
    double a_nanosecond = 0.1 * 2 * 128 * clock_ghz * device->multiprocessors;
    return 5000 + 2 * pairs * (double)(q[3] + desc->v.shape[3]) / a_nanosecond;
}

extern "C" const heed_impl_t hd_impl_flash_simt;
const heed_impl_t hd_impl_flash_simt = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:flash_simt",
    .about = "blocked, online softmax, in f32 without tensor cores; any card",
    .device_type = HEED_DEVICE_CUDA,
    .features = HEED_ATTENTION_CAN_PLAIN,
    .supports = supports,
    .estimate = estimate,
    .run = run,
};
