/* One task of decoding: all queries of a key head over the keys of a split, from Q to a partial
 * state; and what makes results of the states of a head's splits. */
#ifndef HD_DECODE_TASK_H
#define HD_DECODE_TASK_H

#include "decode_sizes.h"

#include <float.h>

/* A row's reference moves when a score lies this much above it, in log2. Weights are then below
 * 2^8, which f32 sums hold as well as those below 1. */
static const float decode_slack = 8;

/* What a row has summed up: out and sum are relative to 2^reference. */
typedef struct decode_state {
    float *out;       /* [row][z.dv] */
    float *sum;       /* [row][VEC_LANES] */
    float *reference; /* [row], -inf before the first score */
} decode_state_t;

/* Keys of one step, their weights and where their values are. */
typedef struct decode_block {
    int64_t key;
    int count; /* 0: none */
    bool full; /* all rows see all of its keys */
    float *weights; /* [row][DECODE_KEYS], scores before */
    const char *keys[DECODE_KEYS], *values[DECODE_KEYS];
} decode_block_t;

typedef struct decode_task {
    const hd_attention_t *a;
    const decode_sizes_t *z;
    int64_t b, key_head;
    decode_state_t state;
    float *q, *parts, *k_stage, *v_stage;
    decode_block_t blocks[2];
    const decode_tiles_t *k_tiles, *v_tiles;
    heed_dtype_t k_dtype, v_dtype; /* as the tiles read them */
    float k_factor, v_factor; /* of what is loaded to what is meant */
} decode_task_t;

static decode_state_t decode_state(const decode_sizes_t *z, char *at)
{
    decode_state_t state = {.out = (float *)(void *)at};
    state.sum = state.out + (int64_t)z->rows * z->dv;
    state.reference = state.sum + (int64_t)z->rows * VEC_LANES;
    return state;
}

/* The head and the query of a packed row. */
static int64_t decode_head(const decode_task_t *task, int row)
{
    return task->key_head * task->a->group + row % task->a->group;
}

static int64_t decode_query(const decode_task_t *task, int row)
{
    return row / task->a->group;
}

/* A row of n elements, put where loads of rows of `dtype` have them, and back. */
static void decode_permute(heed_dtype_t dtype, const float *from, int n, float *to)
{
    for (int c = 0; c < n; c++)
        to[decode_order(dtype, c)] = from[c];
}

static void decode_restore(heed_dtype_t dtype, const float *from, int n, float *to)
{
    for (int c = 0; c < n; c++)
        to[c] = from[decode_order(dtype, c)];
}

static void decode_begin(decode_task_t *task, float *row)
{
    const hd_attention_t *a = task->a;
    const decode_sizes_t *z = task->z;
    const vec_t factor = vec_set1(a->scale * 1.44269504088896340736f * task->k_factor);
    for (int r = 0; r < z->rows; r++) {
        float *q = task->q + r * z->d;
        memset(row, 0, (size_t)z->d * sizeof(*row));
        row_to_f32(&a->q, hd_view_row(&a->q, task->b, decode_query(task, r), decode_head(task, r)),
                   a->d, row);
        decode_permute(task->k_dtype, row, z->d, q);
        for (int c = 0; c < z->d; c += VEC_LANES)
            vec_store(q + c, vec_mul(vec_load(q + c), factor));
        task->state.reference[r] = -INFINITY;
    }
    memset(task->state.out, 0, (size_t)z->rows * (size_t)(z->dv + VEC_LANES) * sizeof(float));
}

/* Where the rows of keys or values key .. key+count-1 are. */
static void decode_find(const hd_view_t *view, const decode_task_t *task, int64_t key, int count,
                        const char **rows)
{
    const char *first = hd_view_row(view, task->b, key, task->key_head);
    const int64_t stride = view->row;
    for (int j = 0; j < count; j++)
        rows[j] = first + j * stride;
}

/* Rows that cannot be read where they lie are copied, as f32. NULL: they can. */
static void decode_stage(const hd_view_t *view, const char **rows, int count, int size, float *stage,
                         int stage_row)
{
    for (int j = 0; stage && j < count; j++) {
        row_to_f32(view, rows[j], size, stage + j * stage_row);
        rows[j] = (const char *)(stage + j * stage_row);
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* The sums over lanes, for a row: scores[DECODE_KEYS]. */
HD_INLINE void decode_fold(const float *parts, float *scores)
{
    HD_UNROLL
    for (int j = 0; j < DECODE_KEYS; j += VEC_LANES) {
        vec_t x[VEC_LANES];
        HD_UNROLL
        for (int i = 0; i < VEC_LANES; i++) {
            x[i] = vec_load(parts + (j + i) * VEC_LANES);
        }
        vec_transpose(x);
        HD_UNROLL
        for (int step = 1; step < VEC_LANES; step *= 2) {
            HD_UNROLL
            for (int i = 0; i + step < VEC_LANES; i += 2 * step) {
                x[i] = vec_add(x[i], x[i + step]);
            }
        }
        vec_store(scores + j, x[0]);
    }
}

static const decode_ahead_t decode_nothing = {0};

static void decode_scores(decode_task_t *task, decode_block_t *block, const decode_ahead_t *ahead)
{
    const decode_sizes_t *z = task->z;
    for (int r = 0, queries; r < z->rows; r += queries) {
        int left = z->rows - r, size = left >= 8 ? 3 : left >= 4 ? 2 : left >= 2 ? 1 : 0;
        queries = 1 << size;
        task->k_tiles->products[size](block->keys, block->count, r ? &decode_nothing : ahead, task->q + r * z->d, z->d, z->d, task->parts);
        for (int i = 0; i < queries; i++)
            decode_fold(task->parts + i * DECODE_KEYS * VEC_LANES,
                        block->weights + (r + i) * DECODE_KEYS);
    }
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* Makes what a row has summed up, and the weights that wait, relative to a higher reference. */
HD_NOINLINE void decode_raise(decode_task_t *task, float *waiting, int r, float most)
{
    const decode_sizes_t *z = task->z;
    float *out = task->state.out + r * z->dv, *sum = task->state.sum + r * VEC_LANES;
    const vec_t factor = vec_set1(exp2f(task->state.reference[r] - most));
    for (int c = 0; c < z->dv; c += VEC_LANES)
        vec_store(out + c, vec_mul(vec_load(out + c), factor));
    for (int j = 0; j < DECODE_KEYS; j += VEC_LANES)
        vec_store(waiting + r * DECODE_KEYS + j,
                  vec_mul(vec_load(waiting + r * DECODE_KEYS + j), factor));
    vec_store(sum, vec_mul(vec_load(sum), factor));
    task->state.reference[r] = most;
}

/* A row's scores become weights. Bits of `seen` are the keys that it sees. */
HD_INLINE void decode_weigh(decode_task_t *task, float *scores, float *waiting, int r,
                            uint32_t seen)
{
    scores += r * DECODE_KEYS;
    float *sum = task->state.sum + r * VEC_LANES;
    enum { VECTORS = DECODE_KEYS / VEC_LANES };
    vec_t x[VECTORS], most = vec_set1(-INFINITY);
    HD_UNROLL
    for (int i = 0; i < VECTORS; i++) {
        x[i] = vec_load(scores + i * VEC_LANES);
        if (seen != 0xffff)
            x[i] = vec_select(seen >> i * VEC_LANES, x[i], vec_set1(-INFINITY));
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
        if (seen != 0xffff)
            x[i] = vec_select(seen >> i * VEC_LANES, x[i], vec_zero());
        total = vec_add(total, x[i]);
        vec_store(scores + i * VEC_LANES, x[i]);
    }
    vec_store(sum, total);
}

/* ---- a block --------------------------------------------------------------------------------- */

/* Bits of the keys key .. key+count-1 that a query sees. */
static uint32_t decode_seen(const hd_visibility_t *visible, int64_t query, int64_t key, int count)
{
    int64_t low = hd_max(hd_first_key(visible, query) - key, 0);
    int64_t high = hd_min(hd_end_key(visible, query) - key, count);
    return low >= high ? 0 : (uint32_t)((1u << high) - (1u << low));
}

static void decode_weigh_block(decode_task_t *task, const decode_block_t *block,
                               const decode_block_t *waiting)
{
    for (int r = 0; r < task->z->rows; r++) {
        uint32_t seen = (1u << block->count) - 1;
        if (!block->full)
            seen = decode_seen(&task->a->visible, decode_query(task, r), block->key, block->count);
        decode_weigh(task, block->weights, waiting->weights, r, seen);
    }
}

/* A block that all rows see. */
static void decode_add_full(decode_task_t *task, const decode_block_t *block,
                            const decode_ahead_t *ahead)
{
    const decode_sizes_t *z = task->z;
    for (int r = 0, queries; r < z->rows; r += queries) {
        int left = z->rows - r, size = left >= 4 ? 2 : left >= 2 ? 1 : 0;
        queries = 1 << size;
        task->v_tiles->sums[size](block->values, block->count, r ? &decode_nothing : ahead, block->weights + r * DECODE_KEYS,
                                  task->state.out + r * z->dv, z->dv, z->dv);
    }
}

/* A block that some row sees in part: values that a row does not see stay out of its products, for
 * zero times NaN is NaN. What a row sees is taken run by run. */
static void decode_add_cut(decode_task_t *task, const decode_block_t *block)
{
    const decode_sizes_t *z = task->z;
    int count = block->count;
    for (int r = 0; r < z->rows; r++) {
        uint32_t seen = decode_seen(&task->a->visible, decode_query(task, r), block->key, count);
        for (int at = 0, end; at < count; at = end) {
            bool sees = seen >> at & 1;
            for (end = at + 1; end < count && (seen >> end & 1) == sees;)
                end++;
            if (sees)
                task->v_tiles->sums[0](block->values + at, end - at, &decode_nothing,
                                       block->weights + r * DECODE_KEYS + at,
                                       task->state.out + r * z->dv, z->dv, z->dv);
        }
    }
}

static void decode_add(decode_task_t *task, const decode_block_t *block,
                       const decode_ahead_t *ahead)
{
    if (!block->count)
        return;
    if (block->full)
        decode_add_full(task, block, ahead);
    else
        decode_add_cut(task, block);
}

/* Blocks start at multiples of DECODE_KEYS. */
static int64_t decode_block_end(int64_t key, int64_t end)
{
    return hd_min((key / DECODE_KEYS + 1) * DECODE_KEYS, end);
}

/* Keys first .. end-1 of the task's head, in blocks that start at multiples of DECODE_KEYS. The
 * values of a block are added after the scores of the next: the chain from scores to weights has
 * then something to run beside, and memory is never without a load. */
static void decode_keys(decode_task_t *task, int64_t first, int64_t end)
{
    const hd_attention_t *a = task->a;
    const decode_sizes_t *z = task->z;
    int64_t all_low = hd_first_key(&a->visible, a->queries - 1);
    int64_t all_high = hd_end_key(&a->visible, 0);
    const int k_bytes = task->k_stage ? 0 : a->d * (int)hd_dtype_bytes(task->k_dtype);
    const int v_bytes = task->v_stage ? 0 : a->dv * (int)hd_dtype_bytes(task->v_dtype);
    decode_block_t *block = &task->blocks[0], *waiting = &task->blocks[1], *swap;
    int64_t next = decode_block_end(first, end);
    waiting->count = 0;
    decode_find(&a->k, task, first, (int)(next - first), block->keys);
    for (int64_t key = first; key < end; key = next) {
        next = decode_block_end(key, end);
        int count = block->count = (int)(next - key);
        int after = (int)(decode_block_end(next, end) - next);
        block->key = key;
        block->full = all_low <= key && next <= all_high;
        decode_find(&a->v, task, key, count, block->values);
        decode_stage(&a->k, block->keys, count, a->d, task->k_stage, z->d);
        decode_scores(task, block, &(decode_ahead_t){block->values, count, v_bytes});
        decode_weigh_block(task, block, waiting);
        decode_stage(&a->v, waiting->values, waiting->count, a->dv, task->v_stage, z->dv);
        decode_find(&a->k, task, next, after, waiting->keys);
        decode_add(task, waiting, &(decode_ahead_t){waiting->keys, after, k_bytes});
        swap = waiting;
        waiting = block;
        block = swap;
    }
    decode_stage(&a->v, waiting->values, waiting->count, a->dv, task->v_stage, z->dv);
    decode_add(task, waiting, &decode_nothing);
}

/* ---- results --------------------------------------------------------------------------------- */

static float decode_total(const float *sum)
{
    float total = 0;
    for (int x = 0; x < VEC_LANES; x++)
        total += sum[x];
    return total;
}

/* The state of a row over all splits, in their order: out in `row`, and the sum, relative to
 * 2^*top. */
static float decode_gather(const decode_task_t *task, const char *states, int64_t count, int r,
                           float *row, float *top)
{
    const decode_sizes_t *z = task->z;
    float total = 0;
    *top = -INFINITY;
    for (int64_t s = 0; s < count; s++)
        *top = fmaxf(*top, decode_state(z, (char *)states + (size_t)s * z->state).reference[r]);
    memset(row, 0, (size_t)z->dv * sizeof(*row));
    for (int64_t s = 0; s < count; s++) {
        decode_state_t state = decode_state(z, (char *)states + (size_t)s * z->state);
        float sum = decode_total(state.sum + r * VEC_LANES);
        if (state.reference[r] == -INFINITY && !isnan(sum))
            continue;
        float factor = state.reference[r] == *top ? 1 : exp2f(state.reference[r] - *top);
        for (int c = 0; c < z->dv; c += VEC_LANES)
            vec_store(row + c, vec_fma(vec_load(state.out + r * z->dv + c), vec_set1(factor),
                                       vec_load(row + c)));
        total += factor * sum;
    }
    return total;
}

/* Stores a row's result from the states of its splits. */
static void decode_finish_row(const decode_task_t *task, const char *states, int64_t count, int r,
                              float *row)
{
    float *sums = row + hd_max(task->z->d, task->z->dv);
    const hd_attention_t *a = task->a;
    const decode_sizes_t *z = task->z;
    int64_t query = decode_query(task, r), head = decode_head(task, r);
    char *out = hd_view_row(&a->out, task->b, query, head);
    char *lse_to = a->lse.data ? hd_view_row(&a->lse, task->b, query, head) : NULL;
    float top, sum = decode_gather(task, states, count, r, sums, &top);
    bool empty = top == -INFINITY && !isnan(sum);
    double lse = empty ? -INFINITY : (double)top * 0.69314718055994530942 + log((double)sum);
    const vec_t factor = vec_set1(task->v_factor / sum);
    for (int c = 0; !empty && c < z->dv; c += VEC_LANES)
        vec_store(sums + c, vec_mul(vec_load(sums + c), factor));
    decode_restore(task->v_dtype, sums, a->dv, row);
    if (a->merge)
        lse = merge_row(a, out, lse_to, row, lse);
    row_from_f32(&a->out, row, a->dv, out);
    if (lse_to) {
        float value = (float)lse;
        memcpy(lse_to, &value, sizeof(value));
    }
}

#endif
