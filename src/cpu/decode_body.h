/* Decoding on the CPU, few queries over many keys: one body for every instruction set. A
 * decode_ISA.c file includes its vec_ISA.h, defines
 *
 *     DECODE_ISA_FLOPS  multiply-add flops a core does in a cycle, for the estimate
 *     DECODE_SUMS       vectors of a tile's accumulators
 *
 * and decode_load_e4m3 and decode_most, then includes this file and names its heed_impl_t.
 *
 * A task is all queries of a key head, those of every head of its group, over the keys of a split:
 * one pass over K and V, 16 keys at a time, so that neither stream is forgotten by the prefetcher
 * while the other is read. The softmax's reference moves only when a score exceeds it by 2^8. Rows
 * are read where they lie; of a strided or odd head size they are staged as f32, a block at a time.
 *
 * Splits start at multiples of split_keys. There are more than one where batch and key heads do not
 * fill the team; then tasks leave their states in the workspace, and the team merges them in the
 * order of the splits in a second phase. What a split gives depends on nothing but its keys. */
#ifndef HD_DECODE_BODY_H
#define HD_DECODE_BODY_H

#include "../common/internal.h"
#include "decode_task.h"
#include "parallel.h"

#include <stdatomic.h>

typedef struct decode_job {
    hd_attention_t a;
    decode_sizes_t z;
    char *members, *states;
    atomic_llong next, next_unit;
} decode_job_t;

static void decode_set_buffers(decode_task_t *task, char *at)
{
    const decode_sizes_t *z = task->z;
    task->state = decode_state(z, at);
    task->q = (float *)(void *)(at += z->state);
    task->blocks[0].weights = (float *)(void *)(at += z->q);
    task->blocks[1].weights = (float *)(void *)(at += z->weights);
    task->parts = (float *)(void *)(at += z->weights);
    at += z->parts;
    task->k_stage = z->stage_k ? (float *)(void *)at : NULL;
    at += z->k_stage;
    task->v_stage = z->stage_v ? (float *)(void *)at : NULL;
    /* The columns that pad a staged row stay zero. */
    memset(task->blocks[0].weights, 0, 2 * z->weights + z->parts + z->k_stage + z->v_stage);
}

/* e4m3 is loaded as 2^-8 of itself. */
static float decode_loaded(const hd_view_t *view, bool stage)
{
    return view->dtype == HEED_E4M3 && !stage ? 256 : 1;
}

static void decode_set_unit(decode_task_t *task, int64_t unit)
{
    task->b = unit / task->a->key_heads;
    task->key_head = unit % task->a->key_heads;
}

static void decode_finish(const decode_task_t *task, const char *states, int64_t count, float *row)
{
    for (int r = 0; r < task->z->rows; r++)
        decode_finish_row(task, states, count, r, row);
}

static void decode_work(const hd_team_t *team, void *arg)
{
    decode_job_t *job = arg;
    const decode_sizes_t *z = &job->z;
    decode_task_t task = {.a = &job->a, .z = z};
    char *buffers = job->members + (size_t)team->rank * z->member;
    float *row = (float *)(void *)(buffers + z->member - z->row);
    long long at;
    decode_set_buffers(&task, buffers);
    task.k_dtype = z->stage_k ? HEED_F32 : job->a.k.dtype;
    task.v_dtype = z->stage_v ? HEED_F32 : job->a.v.dtype;
    task.k_tiles = decode_tiles(task.k_dtype);
    task.v_tiles = decode_tiles(task.v_dtype);
    task.k_factor = decode_loaded(&job->a.k, z->stage_k);
    task.v_factor = decode_loaded(&job->a.v, z->stage_v);
    while ((at = atomic_fetch_add(&job->next, 1)) < z->units * z->splits) {
        int64_t first = (z->first_split + at % z->splits) * z->split_keys;
        decode_set_unit(&task, at / z->splits);
        if (z->splits > 1)
            task.state = decode_state(z, job->states + (size_t)at * z->state);
        decode_begin(&task, row);
        decode_keys(&task, hd_max(first, z->low), hd_min(first + z->split_keys, z->high));
        if (z->splits == 1)
            decode_finish(&task, buffers, 1, row);
    }
    if (z->splits == 1)
        return;
    hd_team_barrier(team);
    while ((at = atomic_fetch_add(&job->next_unit, 1)) < z->units) {
        decode_set_unit(&task, at);
        decode_finish(&task, job->states + (size_t)(at * z->splits) * z->state, z->splits, row);
    }
}

static heed_status_t decode_run(const heed_launch_t *launch)
{
    decode_job_t job = {.a = hd_attention_of(launch)};
    job.z = decode_sizes(&job.a, launch->threads);
    job.states = launch->workspace;
    job.members = job.states + job.z.states;
    atomic_init(&job.next, 0);
    atomic_init(&job.next_unit, 0);
    if (job.a.queries > 0)
        hd_parallel(job.z.threads, decode_work, &job);
    return HEED_OK;
}

static size_t decode_workspace(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    hd_attention_t a = hd_attention(desc, NULL);
    decode_sizes_t z = decode_sizes(&a, threads);
    return z.states + z.member * (size_t)z.threads;
}

static int decode_supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = at;
    (void)device;
    if (desc->q.shape[1] > DECODE_QUERIES)
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "q.shape[1]=%lld: for few queries, at most %d",
                         (long long)desc->q.shape[1], DECODE_QUERIES);
    return 1;
}

/* What is read at 10 GB/s a core, or what is computed, whichever takes longer. */
static double decode_estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    hd_attention_t a = hd_attention(at, NULL);
    decode_sizes_t z = decode_sizes(&a, threads);
    double pairs = (double)z.units * (double)(z.high - z.low);
    double flops = 2 * pairs * z.rows * (z.d + z.dv);
    double bytes = pairs * (a.d + a.dv) * (double)hd_dtype_bytes(a.k.dtype);
    double compute = flops / (0.6 * 3 * DECODE_ISA_FLOPS * z.threads);
    double memory = bytes / (10.0 * z.threads);
    return (compute > memory ? compute : memory) + (z.threads > 1 ? 5000.0 : 100.0);
}

#endif
