/* Tasks of flash attention, from Q to stored rows: up to 64 queries of one key head each. */
#ifndef HD_FLASH_TASK_H
#define HD_FLASH_TASK_H

#include "flash_block.h"
#include "merge_row.h"

static bool has_nan(const flash_task_t *task)
{
    int64_t count = (int64_t)TILES * value_columns(&task->job->a) * LANES;
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

/* ---- the walk -------------------------------------------------------------------------------- */

/* A task's way along its keys: the next step, and the block behind it. */
typedef struct flash_steps {
    hd_walk_t walk;
    hd_block_t at, ahead;
    bool any, more; /* whether there is such a step, such a block */
    bool pairs;     /* bias or mask decide what is visible */
} flash_steps_t;

/* With a bias or mask no block is known to be full. */
static bool next_block(flash_steps_t *steps)
{
    if (!hd_walk_next(&steps->walk, &steps->ahead))
        return false;
    steps->ahead.full = steps->ahead.full && !steps->pairs;
    return true;
}

/* Full blocks that follow each other make one step. */
static void next_step(flash_steps_t *steps)
{
    hd_block_t *at = &steps->at, *ahead = &steps->ahead;
    steps->any = steps->more;
    *at = *ahead;
    while (steps->more) {
        steps->more = next_block(steps);
        if (!steps->more || !at->full || !ahead->full || ahead->key != at->key + at->count ||
            at->count + ahead->count > STEP_KEYS)
            return;
        at->count += ahead->count;
    }
}

/* A row sums nothing, or its sink, which it then starts from. */
static flash_row_t first_row(const flash_task_t *task, int vector)
{
    const float *sink = task->modify.sink + vector * VEC_LANES;
    float sum[VEC_LANES];
    if (!hd_has_sinks(&task->job->a.modifiers))
        return (flash_row_t){vec_set1(-INFINITY), vec_zero()};
    for (int x = 0; x < VEC_LANES; x++)
        sum[x] = sink[x] == -INFINITY ? 0 : 1;
    return (flash_row_t){vec_load(sink), vec_load(sum)};
}

static void begin_keys(flash_task_t *task, flash_steps_t *steps)
{
    const hd_attention_t *a = &task->job->a;
    memset(task->o, 0, (size_t)TILES * (size_t)value_columns(a) * LANES * sizeof(float));
    for (int v = 0; v < FLASH_VECTORS; v++)
        task->row[v] = first_row(task, v);
    task->cut = false;
    steps->pairs = flash_masks_pairs(a);
    hd_walk_begin(&steps->walk, &task->modify.visible, task->b, task->head, task->first,
                  task->rows);
    steps->more = next_block(steps);
    next_step(steps);
}

/* Sets out for the next step of a task that walks alone through more than the cache has kept. */
static void look_ahead(flash_task_t *task, const flash_steps_t *steps)
{
    const hd_attention_t *a = &task->job->a;
    const flash_sizes_t *z = &task->job->z;
    const int64_t key = steps->ahead.key, count = steps->at.count;
    int64_t bytes = a->keys * (a->k.elem * a->d + a->v.elem * a->dv);
    if (!FLASH_AMX || !steps->more || z->turns > 1 || z->share > 1 ||
        bytes * a->batch * a->key_heads <= AHEAD_BYTES)
        return;
    int64_t end = hd_min(key + count, steps->walk.high);
    *task->ahead = (flash_ahead_t){.count = 0};
    flash_add_rows(task->ahead, &a->k, task->b, task->key_head, key, end, a->d, false);
    flash_add_rows(task->ahead, &a->v, task->b, task->key_head, key, end, a->dv, false);
    int64_t tiles = hd_ceil_div(vectors_of(task), FLASH_TILE);
    flash_share_out(task->ahead, hd_ceil_div(count, 4) * tiles);
}

/* All tasks along the keys, those first that come first: what one has read the others find in the
 * cache. Their key head is the same. */
static void attend_keys(flash_task_t *tasks, int count)
{
    flash_steps_t steps[MOST_SHARE];
    for (int t = 0; t < count; t++)
        begin_keys(&tasks[t], &steps[t]);
    for (;;) {
        int64_t key = INT64_MAX;
        flash_block_t block = {.count = 0};
        for (int t = 0; t < count; t++)
            if (steps[t].any)
                key = hd_min(key, steps[t].at.key);
        if (key == INT64_MAX)
            return;
        for (int t = 0; t < count; t++) {
            if (!steps[t].any || steps[t].at.key != key)
                continue;
            look_ahead(&tasks[t], &steps[t]);
            if (block.count < steps[t].at.count)
                block = find_block(&tasks[t], key, steps[t].at.count);
            attend_block(&tasks[t], &steps[t].walk, &steps[t].at, &block);
            next_step(&steps[t]);
        }
    }
}

/* ---- queries --------------------------------------------------------------------------------- */

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

/* ---- results --------------------------------------------------------------------------------- */

/* Normalises one vector's columns, and transposes them to rows of f32 at rows[lane]. */
static void transpose_out(const flash_task_t *task, int vector, vec_t factor, char *const *rows)
{
    int dv = task->job->a.dv;
    const float *o = task->o + vector / FLASH_TILE * value_columns(&task->job->a) * LANES +
                     vector % FLASH_TILE * VEC_LANES;
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
        bool empty = flash_is_empty(most[x], sum[x]);
        factor[x] = empty ? 0 : task->scales.v_factor / sum[x];
        rows[x] = plain && !empty && lane < task->lanes
                      ? result_row(task, &a->out, lane)
                      : task->staging + x * task->job->z.staging_row;
    }
    transpose_out(task, vector, vec_load(factor), rows);

    for (int x = 0; x < VEC_LANES && vector * VEC_LANES + x < task->lanes; x++) {
        int lane = vector * VEC_LANES + x;
        char *out = result_row(task, &a->out, lane);
        double lse = -INFINITY;
        if (flash_is_empty(most[x], sum[x]))
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

static void run_tasks(flash_task_t *tasks, int count)
{
    for (int t = 0; t < count; t++) {
        pack_queries(&tasks[t]);
        tasks[t].careful = false;
    }
    attend_keys(tasks, count);
    for (int t = 0; t < count; t++) {
        /* Zero times a masked NaN or infinity is NaN: where that may have happened, go again. The
         * zero may be a part of a number. */
        if ((tasks[t].cut || FLASH_PLANES > 1) && has_nan(&tasks[t])) {
            tasks[t].careful = true;
            attend_keys(&tasks[t], 1);
        }
        for (int v = 0; v < vectors_of(&tasks[t]); v++)
            finish_vector(&tasks[t], v);
    }
}

#endif
