/* Attention over few keys: one body for every instruction set, with the tiles of flash_tile.h. A
 * short_ISA.c file defines what a flash_ISA.c file does.
 *
 * With at most 128 keys all scores of a tile of queries fit into the cache, so there is one softmax
 * and no running one, and no O^T that is scaled and stored again and again:
 *
 *     scores^T = K Q^T, queries in lanes        out = P V, head size in lanes
 *
 * P^T is what the second product broadcasts from, and V and the results are natural rows: nothing
 * is transposed but Q, and each row is divided by its sum as it is stored. A task is up to 64
 * queries of one head, worked on in tiles of LANES queries; all heads of all sequences are one
 * parallel region, and a thread takes runs of tasks, so that keys which must be packed (another
 * dtype, a strided head size, rows that fall into few cache sets) are packed once for those of a
 * key head. Measured: docs/performance.md. */
#ifndef HD_SHORT_BODY_H
#define HD_SHORT_BODY_H

#include "flash_cost.h"
#include "parallel.h"
#include "short_tile.h"

#include "../common/internal.h"

#include <stdatomic.h>

enum { SHORT_KEYS = 128, SHORT_SERIAL_FLOPS = 2000000, TASKS_A_THREAD = 16 };

#define SHORT_FEATURES                                                                      \
    (HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_BF16 | HEED_ATTENTION_CAN_F16 |            \
     HEED_ATTENTION_CAN_OUT_F32 | HEED_ATTENTION_CAN_CAUSAL | HEED_ATTENTION_CAN_WINDOW |   \
     HEED_ATTENTION_CAN_GROUPED | HEED_ATTENTION_CAN_LSE | HEED_ATTENTION_CAN_STRIDED_DIM | \
     HEED_ATTENTION_CAN_ODD_DIM | HEED_ATTENTION_CAN_DV)

/* ---- sizes: the same for workspace() and run() ----------------------------------------------- */

typedef struct short_sizes {
    int steps;                          /* cells of the head size */
    int columns;                        /* of V and of results, whole vectors */
    bool pack_k, pack_v;                /* not read where they lie */
    int64_t k_row, v_row;               /* bytes, packed */
    int64_t staging_row;                /* bytes */
    size_t q, s, p, staging, k, v, all; /* bytes of a thread's buffers */
    int64_t blocks, tasks, run;         /* of 64 queries; in all; that a thread takes at a time */
    int threads;
} short_sizes_t;

/* Whether rows can be read in place, and do not fall into a few sets of the first cache. */
static bool in_place(const hd_view_t *view, int size)
{
    return hd_view_is_plain(view, FLASH_PAIRS ? HEED_BF16 : HEED_F32) && size % CELL == 0 &&
           view->row % 2048 != 0;
}

static short_sizes_t short_sizes(const hd_attention_t *a, int threads)
{
    short_sizes_t z = {.steps = (a->d + CELL - 1) / CELL};
    z.columns = (int)hd_round_up((size_t)a->dv, VEC_LANES);
    z.pack_k = !in_place(&a->k, a->d);
    z.pack_v = FLASH_PAIRS || !in_place(&a->v, a->dv) || z.columns != a->dv;
    z.k_row = packed_k_row(a);
    z.v_row = (int64_t)z.columns * 4;
    z.staging_row = (int64_t)hd_round_up((size_t)hd_max(a->d, a->dv), VEC_LANES) * 4;
    z.q = hd_round_up((size_t)z.steps * LANES * 4, 64);
    z.s = hd_round_up((size_t)a->keys * LANES * 4, 64);
    z.p = FLASH_PAIRS ? hd_round_up((size_t)(a->keys + 1) / CELL * LANES * 4, 64) : 0;
    z.staging = hd_round_up((size_t)LANES * (size_t)z.staging_row, 64);
    z.k = z.pack_k ? hd_round_up((size_t)(a->keys * z.k_row), 64) : 0;
    z.v = z.pack_v ? hd_round_up((size_t)((a->keys + 1) / CELL * z.v_row), 64) : 0;
    z.all = z.q + z.s + z.p + z.staging + z.k + z.v + 192;
    z.blocks = hd_ceil_div(a->queries, ROWS);
    z.tasks = a->batch * a->heads * z.blocks;
    double work =
        2.0 * (double)(a->batch * a->heads) * (double)a->queries * (double)a->keys * (a->d + a->dv);
    z.threads = work < SHORT_SERIAL_FLOPS ? 1 : threads;
    z.threads = (int)hd_max(hd_min(z.threads, z.tasks), 1);
    z.run = hd_max(z.tasks / ((int64_t)z.threads * TASKS_A_THREAD), 1);
    return z;
}

/* ---- a task ---------------------------------------------------------------------------------- */

typedef struct short_job {
    hd_attention_t a;
    short_sizes_t z;
    char *states;
    atomic_llong next;
} short_job_t;

typedef struct short_task {
    const short_job_t *job;
    int64_t b, head, first; /* first query */
    int rows;
    int64_t packed; /* batch and key head of what k and v hold, -1: nothing */
    const char *k, *v;
    int64_t k_row, v_row;
    char *q, *p, *staging, *k_packed, *v_packed;
    float *s;
    uint64_t masks[SHORT_KEYS];
    flash_ahead_t *ahead; /* of the thread */
} short_task_t;

static void find_keys(short_task_t *task)
{
    const hd_attention_t *a = &task->job->a;
    const short_sizes_t *z = &task->job->z;
    int64_t key_head = task->head / a->group, name = task->b * a->key_heads + key_head;
    if (task->packed == name)
        return;
    task->packed = name;
    task->k = z->pack_k ? task->k_packed : hd_view_row(&a->k, task->b, 0, key_head);
    task->v = z->pack_v ? task->v_packed : hd_view_row(&a->v, task->b, 0, key_head);
    task->k_row = z->pack_k ? z->k_row : a->k.row;
    task->v_row = z->pack_v ? z->v_row : a->v.row;
    if (z->pack_k)
        pack_k(a, task->b, key_head, 0, (int)a->keys, task->k_packed);
    if (z->pack_v)
        pack_values(a, task->b, key_head, task->v_packed, z->v_row);
}

/* Q^T of the queries at .. at+lanes-1 of the task. */
static void pack_tile(short_task_t *task, int at, int lanes)
{
    const hd_attention_t *a = &task->job->a;
    for (int v = 0; v * VEC_LANES < lanes; v++) {
        const char *rows[VEC_LANES];
        for (int x = 0; x < VEC_LANES; x++) {
            int lane = v * VEC_LANES + x;
            rows[x] = lane < lanes
                          ? hd_view_row(&a->q, task->b, task->first + at + lane, task->head)
                          : NULL;
        }
        pack_q(a, rows, task->staging, task->job->z.staging_row, task->q + v * VEC_LANES * 4);
    }
}

static void store_lse(const short_task_t *task, int at, int lanes, const float *top,
                      const float *sum)
{
    for (int x = 0; x < lanes; x++) {
        float lse = -INFINITY;
        if (!flash_is_empty(top[x], sum[x]))
            lse = (float)((double)top[x] * 0.69314718055994530942 + log((double)sum[x]));
        memcpy(hd_view_row(&task->job->a.lse, task->b, task->first + at + x, task->head), &lse,
               sizeof(lse));
    }
}

/* Scores and weights of the keys low .. high-1, then 1 / sum in factor and the lse. */
static void weigh(short_task_t *task, int at, int lanes, int low, int high, bool masked,
                  float *factor)
{
    const hd_attention_t *a = &task->job->a;
    int vectors = (lanes + VEC_LANES - 1) / VEC_LANES;
    const uint64_t *masks = masked ? task->masks : NULL;
    vec_t scale = vec_set1(fabsf(a->scale) * 1.44269504088896340736f);
    vec_t most[FLASH_TILE], from[FLASH_TILE];
    flash_row_t row[FLASH_TILE];
    float top[LANES], sum[LANES];
    int end[FLASH_TILE]; /* keys that a vector sees, and those before it */
    for (int r = 0; r < vectors; r++) {
        int64_t last = task->first + at + hd_min((r + 1) * VEC_LANES, lanes) - 1;
        int64_t seen = masked ? hd_end_key(&a->visible, last) : high;
        end[r] = (int)hd_min(hd_ceil_div(seen, CELL) * CELL, high);
    }
    for (int r = 0; r < FLASH_TILE; r++) {
        most[r] = vec_set1(-INFINITY);
        row[r] = (flash_row_t){vec_set1(-INFINITY), vec_zero()};
    }
    for (int r = 0, key = low; r < vectors; key = end[r++])
        if (end[r] > key)
            qk_keys(vectors - r, task->k, task->k_row, key, end[r], task->q + r * VEC_LANES * 4,
                    task->job->z.steps, task->s + r * VEC_LANES, most + r, masks,
                    at + r * VEC_LANES, task->ahead);
    for (int r = 0; r < vectors; r++)
        flash_raise(&row[r], FLASH_PAIRS ? vec_mul(most[r], scale) : most[r], &from[r]);
    for (int r = 0, key = low; r < vectors; key = end[r++])
        if (end[r] > key)
            flash_exponentials(vectors - r, task->s + r * VEC_LANES, task->p + r * VEC_LANES * 4,
                               key, end[r], from + r, scale, row + r, masks, at + r * VEC_LANES);
    for (int r = 0; r < vectors; r++) {
        vec_store(top + r * VEC_LANES, row[r].most);
        vec_store(sum + r * VEC_LANES, row[r].sum);
    }
    for (int x = 0; x < vectors * VEC_LANES; x++)
        factor[x] = flash_is_empty(top[x], sum[x]) ? 0 : 1 / sum[x];
    if (a->lse.data)
        store_lse(task, at, lanes, top, sum);
}

/* The rows of a tile that a mask cuts, a few at a time, each from the keys that one of them sees.
 */
static void masked_rows(const short_task_t *task, int64_t first, int lanes, const float *factor,
                        char *const *to)
{
    enum { FEW = 4 };
    const hd_visibility_t *visible = &task->job->a.visible;
    for (int i = 0; i < lanes; i += FEW) {
        int rows = (int)hd_min(FEW, lanes - i);
        int high = (int)hd_end_key(visible, first + i + rows - 1);
        int low = (int)hd_min(hd_first_key(visible, first + i), high) / CELL;
        out_rows(task->p + ((int64_t)low * LANES + i) * 4, task->v + low * task->v_row, task->v_row,
                 (high + CELL - 1) / CELL - low, rows, task->job->z.columns, factor + i, to + i,
                 task->ahead);
    }
}

/* The queries at .. at+lanes-1 of the task. */
static void attend_queries(short_task_t *task, int at, int lanes, bool masked)
{
    const hd_attention_t *a = &task->job->a;
    const short_sizes_t *z = &task->job->z;
    int64_t first = task->first + at;
    bool direct = hd_view_is_plain(&a->out, HEED_F32) && z->columns == a->dv;
    int low = 0, high = (int)a->keys;
    char *to[LANES];
    float factor[LANES];
    if (masked) {
        high = (int)hd_end_key(&a->visible, first + lanes - 1);
        low = (int)hd_min(hd_first_key(&a->visible, first), high) / CELL * CELL;
    }
    pack_tile(task, at, lanes);
    weigh(task, at, lanes, low, high, masked, factor);
    for (int i = 0; i < lanes; i++)
        to[i] = direct ? hd_view_row(&a->out, task->b, first + i, task->head)
                       : task->staging + i * z->staging_row;
    const char *p = task->p + (int64_t)(low / CELL) * LANES * 4;
    const char *v = task->v + low / CELL * task->v_row;
    if (masked)
        masked_rows(task, first, lanes, factor, to);
    else
        out_rows(p, v, task->v_row, (high + CELL - 1) / CELL, lanes, z->columns, factor, to,
                 task->ahead);
    for (int i = 0; i < lanes; i++) {
        float *row = (float *)(void *)to[i];
        if (masked && row_has_nan(row, a->dv))
            out_careful(p + i * 4, v, task->v_row, high - low, a->dv, task->masks + low, at + i,
                        factor[i], row);
        if (!direct)
            row_from_f32(&a->out, row, a->dv, hd_view_row(&a->out, task->b, first + i, task->head));
    }
}

/* Sets out for what comes during this task and after it. Rows that lie apart are all fetched, at
 * once: 1.1 to 1.5 times as fast. Of rows that follow each other only queries, at leisure: 64
 * tokens are 3 to 6 % faster with those, 2 % with keys and values too, 4 % slower with results. */
static void look_to_next(short_task_t *task, int64_t next)
{
    const hd_attention_t *a = &task->job->a;
    const bool apart = flash_rows_apart(&a->out, a->dv);
    int64_t blocks = task->job->z.blocks, plane = next / blocks, first = next % blocks * ROWS;
    flash_ahead_t *ahead = task->ahead;
    *ahead = (flash_ahead_t){.every = apart ? 8 : 64};
    if (flash_bytes(a) <= AHEAD_BYTES)
        return;
    if (apart)
        flash_add_rows(ahead, &a->out, task->b, task->head, task->first, task->first + task->rows,
                       a->dv, true);
    if (next >= task->job->z.tasks)
        return;
    flash_add_rows(ahead, &a->q, plane / a->heads, plane % a->heads, first,
                   hd_min(first + ROWS, a->queries), a->d, false);
    if (!apart || first > 0 || plane % a->group > 0)
        return;
    plane /= a->group;
    flash_add_rows(ahead, &a->k, plane / a->key_heads, plane % a->key_heads, 0, a->keys, a->d,
                   false);
    flash_add_rows(ahead, &a->v, plane / a->key_heads, plane % a->key_heads, 0, a->keys, a->dv,
                   false);
}

static void attend_short(short_task_t *task, int64_t index)
{
    const hd_attention_t *a = &task->job->a;
    int64_t plane = index / task->job->z.blocks;
    task->b = plane / a->heads;
    task->head = plane % a->heads;
    task->first = index % task->job->z.blocks * ROWS;
    task->rows = (int)hd_min(ROWS, a->queries - task->first);
    find_keys(task);
    look_to_next(task, index + 1);
    bool masked = hd_first_key(&a->visible, task->first + task->rows - 1) > 0 ||
                  hd_end_key(&a->visible, task->first) < a->keys;
    for (int64_t j = 0; masked && j < a->keys; j++)
        task->masks[j] = hd_band_mask(&a->visible, j, task->first, task->rows);
    for (int at = 0; at < task->rows; at += LANES)
        attend_queries(task, at, (int)hd_min(task->rows - at, LANES), masked);
}

/* ---- the team -------------------------------------------------------------------------------- */

static void short_work(const hd_team_t *team, void *arg)
{
    short_job_t *job = arg;
    const short_sizes_t *z = &job->z;
    flash_ahead_t ahead;
    short_task_t task = {.job = job, .packed = -1};
    char *at = job->states + (size_t)team->rank * z->all;
    task.q = at;
    task.ahead = &ahead;
    task.s = (float *)(void *)(at += z->q);
    task.p = z->p ? (at += z->s) : (char *)task.s;
    task.staging = at += z->p ? z->p : z->s;
    task.k_packed = at += z->staging;
    task.v_packed = at + z->k;
    long long first;
    while ((first = atomic_fetch_add(&job->next, z->run)) < z->tasks)
        for (int64_t i = first; i < hd_min(first + z->run, z->tasks); i++)
            attend_short(&task, i);
}

static heed_status_t short_run(const heed_launch_t *launch)
{
    short_job_t job = {.a = hd_attention_of(launch), .states = launch->workspace};
    job.z = short_sizes(&job.a, launch->threads);
    atomic_init(&job.next, 0);
    if (job.z.tasks > 0)
        hd_parallel(job.z.threads, short_work, &job);
    return HEED_OK;
}

static size_t short_workspace(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    hd_attention_t a = hd_attention(desc, NULL);
    short_sizes_t z = short_sizes(&a, threads);
    return z.all * (size_t)z.threads;
}

static int short_supports(const void *desc, const heed_device_info_t *device, heed_why_t *why)
{
    (void)device;
    hd_attention_t a = hd_attention(desc, NULL);
    return a.keys <= SHORT_KEYS ||
           hd_refuse(why, HEED_ERROR_UNSUPPORTED, "k.shape[1]=%lld: takes up to %d keys",
                     (long long)a.keys, SHORT_KEYS);
}

/* As that of flash attention, but that the second product has no lanes of queries to lose, and no
 * team is waited for between packing and work. */
static double short_estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const flash_cost_t *cost = &flash_cost;
    hd_attention_t a = hd_attention(at, NULL);
    short_sizes_t z = short_sizes(&a, threads);
    double masked, keys = flash_mean_keys(&a, &masked), heads = (double)(a.batch * a.heads);
    double rows = heads * (double)a.queries;
    double lanes = heads * flash_round((double)a.queries, VEC_LANES);
    double products = lanes * flash_round(keys, FLASH_KEYS) * 2 * flash_round(a.d, CELL) +
                      rows * keys * 2 * z.columns;
    double beside = lanes * keys * cost->score;
    /* With one vector a tile, broadcasts bind. */
    double wide = a.queries > VEC_LANES ? cost->wide : 0.8 * cost->wide;
    /* Keys are packed for those of a key head that a thread takes at a time. */
    double packed = (z.pack_k ? a.d : 0) + (z.pack_v ? a.dv : 0);
    beside = beside / wide + rows * (a.d + a.dv) * cost->element +
             (double)(a.batch * a.key_heads * a.keys) * packed * cost->packed;
    double flops = products / wide + beside * flash_beside(&device->peaks, z.threads);
    double bytes = flash_bytes(&a);
    return flash_both(flops / flash_peak(&device->peaks, z.threads),
                      bytes / hd_read_rate(device, bytes, z.threads)) +
           hd_region_ns(device, z.threads) + 150;
}

#endif
