/* One task of flash attention: up to 64 queries of one key head, from Q to stored rows. */
#ifndef HD_FLASH_TASK_H
#define HD_FLASH_TASK_H

#include "flash_sizes.h"

#include <stdatomic.h>

typedef struct flash_job {
    hd_attention_t a;
    flash_sizes_t z;
    char *packed, *states;
    int64_t wave_first, wave_heads;
    atomic_llong next;
} flash_job_t;

typedef struct flash_task {
    const flash_job_t *job;
    int64_t b, key_head, head, first; /* first query head, first query */
    int heads, rows;                  /* lane x is query first + x % rows of head + x / rows */
    int lanes;
    bool careful; /* let no masked value into a product, not even times zero */
    bool cut;     /* some block was partial */
    char *q, *p, *k_tile, *v_tile, *staging;
    float *s, *o;
    flash_row_t row[FLASH_VECTORS];
    uint64_t masks[HD_BLOCK_KEYS];
} flash_task_t;

/* Where a block's cells of K and V are. */
typedef struct flash_block {
    const char *k, *v;
    int64_t k_row, v_row;
    int count;
} flash_block_t;

static int vectors_of(const flash_task_t *task)
{
    return (task->lanes + VEC_LANES - 1) / VEC_LANES;
}

static flash_block_t find_block(flash_task_t *task, int64_t key, int count)
{
    const flash_job_t *job = task->job;
    const hd_attention_t *a = &job->a;
    const flash_sizes_t *z = &job->z;
    int64_t slot = task->b * a->key_heads + task->key_head - job->wave_first;
    const char *packed = job->packed + slot * (z->k_head + z->v_head);
    flash_block_t block = {.count = count, .k_row = packed_k_row(a), .v_row = packed_v_row(a)};
    if (z->pack_k) {
        block.k = packed + key * block.k_row;
    } else if (z->tile_k) {
        pack_k(a, task->b, task->key_head, key, count, task->k_tile);
        block.k = task->k_tile;
    } else {
        block.k = hd_view_row(&a->k, task->b, key, task->key_head);
        block.k_row = a->k.row;
    }
    if (z->pack_v) {
        block.v = packed + z->k_head + key / CELL * block.v_row;
    } else if (z->tile_v) {
        pack_v(a, task->b, task->key_head, key, count, task->v_tile);
        block.v = task->v_tile;
    } else {
        block.v = hd_view_row(&a->v, task->b, key, task->key_head);
        block.v_row = a->v.row;
    }
    return block;
}

static vec_t score_scale(const hd_attention_t *a)
{
    return vec_set1(fabsf(a->scale) * 1.44269504088896340736f);
}

/* The maximum of scaled scores from that of the raw ones. */
static vec_t scaled_most(const hd_attention_t *a, vec_t most)
{
    return FLASH_PAIRS ? vec_mul(most, score_scale(a)) : most;
}

/* A block that every query of a tile sees. */
static void attend_wide(flash_task_t *task, const flash_block_t *block, int tile)
{
    const hd_attention_t *a = &task->job->a;
    int steps = task->job->z.steps;
    float *o = task->o + (int64_t)tile * a->dv * LANES;
    flash_row_t *row = task->row + tile * FLASH_TILE;
    vec_t most[FLASH_TILE], low[FLASH_TILE], corr[FLASH_TILE], sum[FLASH_TILE];
    qk_wide(block->k, block->k_row, block->count, task->q + (int64_t)tile * steps * LANES * 4,
            steps, task->s, most);
    HD_UNROLL
    for (int r = 0; r < FLASH_TILE; r++) {
        corr[r] = flash_raise(&row[r], scaled_most(a, most[r]), &low[r]);
        sum[r] = row[r].sum;
    }
    flash_exponentials(FLASH_TILE, task->s, task->p, 0, block->count, low, score_scale(a), sum,
                       NULL, 0);
    HD_UNROLL
    for (int r = 0; r < FLASH_TILE; r++) {
        row[r].sum = sum[r];
    }
    pv_wide(block->v, block->v_row, a->dv, task->p, (block->count + CELL - 1) / CELL, o, corr);
}

/* O^T += V^T P^T of one vector, where a weight of zero hides whatever the value is. */
static void pv_careful(const flash_task_t *task, const flash_block_t *block, int first, int end,
                       float *o, vec_t corr, int shift, const char *p)
{
    int dv = task->job->a.dv;
    for (int c = 0; c < dv; c++) {
        vec_t sum = vec_mul(vec_load(o + c * LANES), corr);
        for (int j = first; j < end; j++) {
            vec_t weight = flash_load_weight(p + j / CELL * LANES * 4, j % CELL);
            vec_t value = flash_load_value(block->v + j / CELL * block->v_row + c * 4, j % CELL);
            sum = vec_select((uint32_t)(task->masks[j] >> shift), vec_fma(weight, value, sum), sum);
        }
        vec_store(o + c * LANES, sum);
    }
}

/* A block as one vector of queries sees it through the masks. */
static void attend_narrow(flash_task_t *task, const flash_block_t *block, int vector)
{
    const hd_attention_t *a = &task->job->a;
    int steps = task->job->z.steps, tile = vector / FLASH_TILE,
        at = vector % FLASH_TILE * VEC_LANES;
    int shift = vector * VEC_LANES, first = 0, end = block->count;
    uint64_t bits = ((UINT64_C(1) << VEC_LANES) - 1) << shift;
    while (first < end && !(task->masks[first] & bits))
        first++;
    while (first < end && !(task->masks[end - 1] & bits))
        end--;
    if (first >= end)
        return;
    first = first / CELL * CELL;

    const char *q = task->q + ((int64_t)tile * steps * LANES + at) * 4;
    float *o = task->o + (int64_t)tile * a->dv * LANES + at;
    flash_row_t *row = task->row + vector;
    vec_t low;
    vec_t most =
        qk_narrow(block->k, block->k_row, first, end, q, steps, task->s, task->masks, shift);
    vec_t corr = flash_raise(row, scaled_most(a, most), &low);
    flash_exponentials(1, task->s, task->p, first, end, &low, score_scale(a), &row->sum,
                       task->masks, shift);
    if (task->careful)
        pv_careful(task, block, first, end, o, corr, shift, task->p);
    else
        pv_narrow(block->v + first / CELL * block->v_row, block->v_row, a->dv,
                  task->p + first / CELL * LANES * 4, (end - first + CELL - 1) / CELL, o, corr);
}

/* Fills task->masks: those of the walk, once for each head of the task. */
static void make_masks(flash_task_t *task, const hd_walk_t *walk, const hd_block_t *at)
{
    if (at->full) {
        memset(task->masks, 0xff, sizeof(task->masks));
        return;
    }
    task->cut = true;
    hd_walk_masks(walk, at, task->masks);
    for (int j = 0; task->heads > 1 && j < at->count; j++) {
        uint64_t once = task->masks[j], all = 0;
        for (int g = 0; g < task->heads; g++)
            all |= once << g * task->rows;
        task->masks[j] = all;
    }
}

static void attend_block(flash_task_t *task, const hd_walk_t *walk, const hd_block_t *at)
{
    flash_block_t block = find_block(task, at->key, at->count);
    int vectors = vectors_of(task);
    uint64_t every = ~UINT64_C(0);
    /* The second half of an odd last cell may be a key that nobody here sees. */
    bool odd = at->count % CELL != 0;
    task->cut |= odd;
    if (!at->full || vectors % FLASH_TILE || odd)
        make_masks(task, walk, at);
    for (int j = 0; !at->full && j < at->count; j++)
        every &= task->masks[j];
    /* Lanes of a last vector that no query fills see what they like. */
    uint64_t spare = task->lanes < 64 ? ~UINT64_C(0) << task->lanes : 0;
    every |= spare;
    if (odd && task->careful)
        every = 0;
    for (int tile = 0; tile * FLASH_TILE < vectors; tile++) {
        uint64_t bits = LANES == 64 ? ~UINT64_C(0) : ((UINT64_C(1) << (LANES & 63)) - 1);
        bits <<= tile * LANES & 63;
        if ((tile + 1) * FLASH_TILE <= vectors && (every & bits) == bits) {
            attend_wide(task, &block, tile);
            continue;
        }
        for (int v = tile * FLASH_TILE; v < vectors && v < (tile + 1) * FLASH_TILE; v++)
            attend_narrow(task, &block, v);
    }
}

static bool has_nan(const flash_task_t *task)
{
    int64_t count = (int64_t)TILES * task->job->a.dv * LANES;
    vec_t sum = vec_zero();
    float lanes[VEC_LANES];
    for (int64_t i = 0; i < count; i += VEC_LANES)
        sum = vec_fma(vec_load(task->o + i), vec_zero(), sum);
    vec_store(lanes, sum);
    for (int x = 0; x < VEC_LANES; x++)
        if (lanes[x] != 0)
            return true;
    return false;
}

static void attend_keys(flash_task_t *task)
{
    const hd_attention_t *a = &task->job->a;
    hd_walk_t walk;
    hd_block_t block;
    memset(task->o, 0, (size_t)TILES * (size_t)a->dv * LANES * sizeof(float));
    for (int v = 0; v < FLASH_VECTORS; v++)
        task->row[v] = (flash_row_t){vec_set1(-INFINITY), vec_zero()};
    task->cut = false;
    hd_walk_begin(&walk, &a->visible, task->b, task->head, task->first, task->rows);
    while (hd_walk_next(&walk, &block))
        attend_block(task, &walk, &block);
}

static const char *query_row(const flash_task_t *task, int lane)
{
    return lane < task->lanes
               ? hd_view_row(&task->job->a.q, task->b, task->first + lane % task->rows,
                             task->head + lane / task->rows)
               : NULL;
}

static void pack_queries(flash_task_t *task)
{
    const flash_sizes_t *z = &task->job->z;
    for (int v = 0; v < vectors_of(task); v++) {
        const char *rows[VEC_LANES];
        for (int x = 0; x < VEC_LANES; x++)
            rows[x] = query_row(task, v * VEC_LANES + x);
        pack_q(&task->job->a, rows, task->staging, z->staging_row,
               task->q +
                   ((int64_t)(v / FLASH_TILE) * z->steps * LANES + v % FLASH_TILE * VEC_LANES) * 4);
    }
}

/* Normalises one vector's columns, and transposes them to rows of f32 at rows[lane]. */
static void transpose_out(const flash_task_t *task, int vector, vec_t factor, char *const *rows)
{
    int dv = task->job->a.dv;
    const float *o =
        task->o + (int64_t)(vector / FLASH_TILE) * dv * LANES + vector % FLASH_TILE * VEC_LANES;
    for (int c = 0; c < dv; c += VEC_LANES) {
        vec_t x[VEC_LANES];
        HD_UNROLL
        for (int i = 0; i < VEC_LANES; i++) {
            x[i] = c + i < dv ? vec_mul(vec_load(o + (c + i) * LANES), factor) : vec_zero();
        }
        vec_transpose(x);
        HD_UNROLL
        for (int i = 0; i < VEC_LANES; i++) {
            vec_store(rows[i] + c * 4, x[i]);
        }
    }
}

/* The maximum passes over NaN: a row whose scores are all NaN is told by its sum. */
static bool is_empty(float most, float sum)
{
    return most == -INFINITY && !isnan(sum);
}

static char *result_row(const flash_task_t *task, const hd_view_t *view, int lane)
{
    return hd_view_row(view, task->b, task->first + lane % task->rows,
                       task->head + lane / task->rows);
}

/* Rows in f32 that need nothing but their place go straight to it, the others by way of staging. */
static void finish_vector(flash_task_t *task, int vector)
{
    const hd_attention_t *a = &task->job->a;
    bool plain = !a->merge && hd_view_is_plain(&a->out, HEED_F32) && a->dv % VEC_LANES == 0;
    float most[VEC_LANES], sum[VEC_LANES], factor[VEC_LANES];
    char *rows[VEC_LANES];
    vec_store(most, task->row[vector].most);
    vec_store(sum, task->row[vector].sum);
    for (int x = 0; x < VEC_LANES; x++) {
        int lane = vector * VEC_LANES + x;
        bool empty = is_empty(most[x], sum[x]);
        factor[x] = empty ? 0 : 1 / sum[x];
        rows[x] = plain && !empty && lane < task->lanes
                      ? result_row(task, &a->out, lane)
                      : task->staging + x * task->job->z.staging_row;
    }
    transpose_out(task, vector, vec_load(factor), rows);

    for (int x = 0; x < VEC_LANES && vector * VEC_LANES + x < task->lanes; x++) {
        int lane = vector * VEC_LANES + x;
        char *out = result_row(task, &a->out, lane);
        double lse = -INFINITY;
        if (is_empty(most[x], sum[x]))
            memset(rows[x], 0, (size_t)a->dv * sizeof(float));
        else if (a->lse.data)
            lse = (double)most[x] * 0.69314718055994530942 + log((double)sum[x]);
        if (a->merge)
            lse = merge_row(a, out, result_row(task, &a->lse, lane), (float *)(void *)rows[x], lse);
        if (rows[x] != out)
            row_from_f32(&a->out, (const float *)(const void *)rows[x], a->dv, out);
        if (a->lse.data) {
            float value = (float)lse;
            memcpy(result_row(task, &a->lse, lane), &value, sizeof(value));
        }
    }
}

static void run_task(flash_task_t *task)
{
    pack_queries(task);
    task->careful = false;
    attend_keys(task);
    /* Zero times a masked NaN or infinity is NaN: where that may have happened, go again. */
    if (task->cut && has_nan(task)) {
        task->careful = true;
        attend_keys(task);
    }
    for (int v = 0; v < vectors_of(task); v++)
        finish_vector(task, v);
}

#endif
