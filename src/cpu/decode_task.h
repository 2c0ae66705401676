/* A unit of decoding over the keys of a split, from Q to a partial state. */
#ifndef HD_DECODE_TASK_H
#define HD_DECODE_TASK_H

#include "decode_sizes.h"
#include "modify.h"

#include <float.h>

/* A row's reference moves when a score lies this much above it, in log2. Weights are then below
 * 2^8, which f32 sums hold as well as those below 1. */
static const float decode_slack = 8;

/* What rows have summed up: out and sum are relative to 2^reference. */
typedef struct decode_state {
    float *out;       /* [row][z.dv] */
    float *sum;       /* [row][VEC_LANES] */
    float *reference; /* [row], -inf before the first score */
} decode_state_t;

/* Keys of one step. */
typedef struct decode_block {
    int64_t key;
    int count;      /* 0: none */
    bool full;      /* all rows see all of its keys */
    float *weights; /* [row][DECODE_KEYS], scores before */
    uint32_t *seen; /* [row] bits of the keys that it sees */
    const char *keys[DECODE_KEYS], *values[DECODE_KEYS];
} decode_block_t;

typedef struct decode_task {
    const hd_attention_t *a;
    const decode_sizes_t *z;
    int64_t b, key_head, first; /* of the queries */
    int rows;                   /* row r is query first + r / group of head r % group */
    hd_visibility_t visible;    /* of sequence b */
    bool modified;
    bool k_scaled, v_scaled; /* key by key */
    float v_factor;          /* of what is summed up to what is meant */
    decode_state_t state;
    float *q, *parts, *k_stage, *v_stage, *row;
    decode_block_t blocks[2];
    const char *next_keys[DECODE_KEYS];
    heed_dtype_t k_dtype, v_dtype; /* as the tiles read them */
} decode_task_t;

static decode_state_t decode_state(const decode_sizes_t *z, char *at)
{
    decode_state_t state = {.out = (float *)(void *)at};
    state.sum = state.out + (int64_t)z->rows * z->dv;
    state.reference = state.sum + (int64_t)z->rows * VEC_LANES;
    return state;
}

static int64_t decode_head(const decode_task_t *task, int row)
{
    return task->key_head * task->a->group + row % task->a->group;
}

static int64_t decode_query(const decode_task_t *task, int row)
{
    return task->first + row / task->a->group;
}

/* Whether a scale is the same for all rows of a head. */
static bool decode_is_common(const hd_view_t *scale)
{
    return !scale->data || (!scale->index && scale->row == 0);
}

static float decode_common(const hd_view_t *scale, const decode_task_t *task)
{
    return decode_is_common(scale) ? hd_scale(scale, task->b, 0, task->key_head) : 1;
}

static void decode_clear(const decode_task_t *task)
{
    const decode_sizes_t *z = task->z;
    for (int r = 0; r < task->rows; r++)
        task->state.reference[r] = -INFINITY;
    memset(task->state.sum, 0, (size_t)task->rows * VEC_LANES * sizeof(float));
    memset(task->state.out, 0, (size_t)task->rows * (size_t)z->dv * sizeof(float));
}

/* The queries of a unit as f32, scaled, where loads of rows of K have them. */
static void decode_pack(decode_task_t *task)
{
    const hd_attention_t *a = task->a;
    const decode_sizes_t *z = task->z;
    float factor =
        a->scale * MODIFY_LOG2E * decode_unit(task->k_dtype) * decode_common(&a->k_scale, task);
    for (int r = 0; r < task->rows; r++) {
        float *q = task->q + r * z->d;
        memset(q, 0, (size_t)z->d * sizeof(*q));
        row_to_f32(&a->q, hd_view_row(&a->q, task->b, decode_query(task, r), decode_head(task, r)),
                   a->d, task->row);
        decode_arrange(task->k_dtype, a->d, false, task->row, factor, q);
    }
}

/* Where the rows of keys or values key .. key+count-1 are. */
static void decode_find(const hd_view_t *view, const decode_task_t *task, int64_t key, int count,
                        const char **rows)
{
    const int64_t stride = view->row;
    for (int j = 0, run; j < count; j += run) {
        const char *first = hd_view_row(view, task->b, key + j, task->key_head);
        run = (int)hd_view_run(view, key + j, count - j);
        for (int i = 0; i < run; i++)
            rows[j + i] = first + i * stride;
    }
}

/* Rows that cannot be read where they lie are copied, as f32. stage NULL: they can. */
static void decode_stage(const hd_view_t *view, const char **rows, int count, int size,
                         float *stage, int stage_row)
{
    for (int j = 0; stage && j < count; j++) {
        row_to_f32(view, rows[j], size, stage + j * stage_row);
        rows[j] = (const char *)(stage + j * stage_row);
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

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
static uint32_t decode_band(const hd_visibility_t *visible, int64_t query,
                            const decode_block_t *block)
{
    int64_t low = hd_max(hd_first_key(visible, query) - block->key, 0);
    int64_t high = hd_min(hd_end_key(visible, query) - block->key, block->count);
    return low >= high ? 0 : (uint32_t)((1u << high) - (1u << low));
}

/* What a row's bias adds to the scores of a block. Returns bits of the keys that mask and bias
 * hide.
 */
static uint32_t decode_addend(const decode_task_t *task, const decode_block_t *block, int r,
                              float addend[DECODE_KEYS])
{
    const hd_modifiers_t *of = &task->a->modifiers;
    const int64_t head = decode_head(task, r), query = decode_query(task, r);
    uint32_t hidden = 0;
    memset(addend, 0, DECODE_KEYS * sizeof(*addend));
    if (of->mask.data) {
        const char *at = hd_view_row(&of->mask, task->b, query, head) + block->key * of->mask.elem;
        for (int j = 0; j < block->count; j++)
            hidden |= (uint32_t)(at[j * of->mask.elem] == 0) << j;
    }
    if (of->bias.data) {
        const char *at = hd_view_row(&of->bias, task->b, query, head) + block->key * of->bias.elem;
        row_to_f32(&of->bias, at, block->count, addend);
        for (int j = 0; j < DECODE_KEYS; j++)
            hidden |= (uint32_t)(addend[j] == -INFINITY) << j;
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
        const uint32_t seen = block->seen[r];
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

/* ---- softmax --------------------------------------------------------------------------------- */

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
                                uint32_t seen)
{
    enum { VECTORS = DECODE_KEYS / VEC_LANES };
    float *sum = task->state.sum + r * VEC_LANES;
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

static void decode_weigh(decode_task_t *task, decode_block_t *block, const decode_block_t *waiting)
{
    for (int r = 0; r < task->rows; r++)
        block->seen[r] = block->full ? (1u << block->count) - 1
                                     : decode_band(&task->visible, decode_query(task, r), block);
    if (task->k_scaled)
        decode_scale(task, &task->a->k_scale, block);
    if (task->modified)
        decode_modify(task, block);
    for (int r = 0; r < task->rows; r++)
        decode_weigh_row(task, block->weights + r * DECODE_KEYS, waiting->weights + r * DECODE_KEYS,
                         r, block->seen[r]);
    if (task->v_scaled)
        decode_scale(task, &task->a->v_scale, block);
}

/* ---- values ---------------------------------------------------------------------------------- */

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
    if (block->full)
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
        decode_weigh(task, block, waiting);
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
