/* Decoding on the CPU, few queries over many keys: one body for every instruction set. A
 * decode_ISA.c file includes its vec_ISA.h, defines
 *
 *     DECODE_SUMS       vectors of a tile's accumulators in registers
 *     DECODE_HINT       the cache that rows are fetched into: 3 the first, 2 the second
 *     DECODE_KEY_COST   of a key, whatever is done with it, in flops at the peak
 *     DECODE_HIDDEN     the share of the shorter of arithmetic and memory that the other hides
 *
 * and decode_load_bf16, _e4m3, _e5m2, _i8, decode_most and decode_lane_sums, may have
 * decode_load_wide (DECODE_CODES_WIDE), then includes this file and names its heed_impl_t.
 *
 * A unit is up to 16 queries, of all heads of a group: they share one pass over K
 * and V, 16 keys at a time, so that neither stream is forgotten by the prefetcher while the other
 * is read. Rows are read where they lie, of any stored type, paged or not; those of a strided or
 * odd head size are staged as f32. The softmax's reference moves only when a score exceeds it by
 * 2^8.
 *
 * Keys are split at multiples of split_keys. What a split sums up depends on nothing but its keys,
 * and states are joined in the order of the keys, so that only split_keys decides the bits of a
 * result: neither threads nor the batch. Where the units fill the team a task does all splits of a
 * unit; where they do not, a task is a split, states lie in the workspace, and the team joins them
 * in a second phase. Ragged batches have units enough, and no workspace could be told for them. */
#ifndef HD_DECODE_BODY_H
#define HD_DECODE_BODY_H

#include "decode_estimate.h"
#include "decode_result.h"
#include "parallel.h"

#include <stdatomic.h>

typedef struct decode_job {
    hd_attention_t a;
    decode_sizes_t z;
    char *members, *states;
    atomic_llong next, next_unit;
} decode_job_t;

/* ---- a thread -------------------------------------------------------------------------------- */

typedef struct decode_member {
    decode_task_t task;
    decode_state_t whole, part; /* the thread's own */
} decode_member_t;

static void decode_set_buffers(decode_member_t *member, char *at)
{
    decode_task_t *task = &member->task;
    const decode_sizes_t *z = task->z;
    memset(at, 0, z->member); /* what pads rows is never written again */
    member->whole = decode_state(z, at);
    member->part = decode_state(z, at += z->state);
    task->q = (float *)(void *)(at += z->state);
    at += z->q;
    for (int i = 0; i < 2; i++) {
        task->blocks[i].weights = (float *)(void *)at;
        task->blocks[i].seen = (decode_bits_t *)(void *)(at += z->weights);
        at += z->seen;
    }
    task->parts = (float *)(void *)at;
    at += z->parts;
    task->k_stage = z->stage_k ? (float *)(void *)at : NULL;
    at += z->k_stage;
    task->v_stage = z->stage_v ? (float *)(void *)at : NULL;
    task->row = (float *)(void *)(at += z->v_stage);
    task->unit.q = (uint16_t *)(void *)(at += z->row);
    task->unit.keys = (uint16_t *)(void *)(at += z->unit_q);
    task->unit.weights = (uint16_t *)(void *)(at += z->unit_keys);
    task->unit.values = at + z->unit_weights;
}

static void decode_begin(decode_member_t *member, const decode_job_t *job, char *buffers)
{
    const hd_attention_t *a = &job->a;
    decode_task_t *task = &member->task;
    *task = (decode_task_t){.a = a, .z = &job->z};
    decode_set_buffers(member, buffers);
    task->k_dtype = task->k_stage ? HEED_F32 : a->k.dtype;
    task->v_dtype = task->v_stage ? HEED_F32 : a->v.dtype;
    task->modified = hd_modifies(&a->modifiers);
    task->k_scaled = !decode_is_common(&a->k_scale);
    task->v_scaled = !decode_is_common(&a->v_scale);
}

/* False: there is no such unit. */
static bool decode_set_unit(decode_task_t *task, int64_t unit)
{
    const hd_attention_t *a = task->a;
    task->first = unit % task->z->chunks * DECODE_QUERIES;
    task->key_head = unit / task->z->chunks % a->key_heads;
    task->b = unit / task->z->chunks / a->key_heads;
    task->visible = hd_visible(a, task->b);
    int64_t queries = hd_min(task->visible.queries - task->first, DECODE_QUERIES);
    task->rows = (int)(hd_max(queries, 0) * a->group);
    task->v_factor = decode_unit(task->v_dtype) * decode_common(&a->v_scale, task);
    return task->rows > 0;
}

/* The keys that any query of the unit sees. */
static int64_t decode_low(const decode_task_t *task)
{
    return hd_first_key(&task->visible, task->first);
}

static int64_t decode_high(const decode_task_t *task)
{
    return hd_end_key(&task->visible, decode_query(task, task->rows - 1));
}

/* ---- tasks ----------------------------------------------------------------------------------- */

/* Split number `split` of those that the unit sees, into the task's state. False: beyond them. */
static bool decode_run_split(decode_task_t *task, int64_t split)
{
    int64_t length = task->z->split_keys, low = decode_low(task), high = decode_high(task);
    int64_t first = (low / length + split) * length;
    decode_clear(task);
    if (hd_max(first, low) >= high)
        return false;
    decode_keys(task, hd_max(first, low), hd_min(first + hd_min(length, high), high));
    return true;
}

static void decode_pack_unit(decode_task_t *task)
{
    decode_pack(task);
    if (task->z->matrix)
        matrix_pack(task);
}

static void decode_run_unit(decode_member_t *member)
{
    decode_task_t *task = &member->task;
    decode_pack_unit(task);
    task->state = member->whole;
    decode_run_split(task, 0);
    task->state = member->part;
    for (int64_t split = 1; decode_run_split(task, split); split++)
        decode_join(task, &member->whole, &member->part);
    task->state = member->whole;
    decode_finish(task);
}

static void decode_join_unit(decode_task_t *task, char *states)
{
    const decode_sizes_t *z = task->z;
    task->state = decode_state(z, states);
    for (int64_t split = 1; split < z->splits; split++) {
        decode_state_t part = decode_state(z, states + (size_t)split * z->state);
        decode_join(task, &task->state, &part);
    }
    decode_finish(task);
}

static void decode_work(const hd_team_t *team, void *arg)
{
    decode_job_t *job = arg;
    const decode_sizes_t *z = &job->z;
    decode_member_t member;
    decode_task_t *task = &member.task;
    long long at;
    if (z->matrix)
        matrix_begin(z);
    decode_begin(&member, job, job->members + (size_t)team->rank * z->member);
    while ((at = atomic_fetch_add(&job->next, 1)) < z->units * z->splits) {
        if (!decode_set_unit(task, at / z->splits))
            continue;
        if (z->splits == 1) {
            decode_run_unit(&member);
            continue;
        }
        task->state = decode_state(z, job->states + (size_t)at * z->state);
        decode_pack_unit(task);
        decode_run_split(task, at % z->splits);
    }
    if (z->matrix)
        matrix_end();
    if (z->splits == 1)
        return;
    hd_team_barrier(team);
    while ((at = atomic_fetch_add(&job->next_unit, 1)) < z->units)
        if (decode_set_unit(task, at))
            decode_join_unit(task, job->states + (size_t)(at * z->splits) * z->state);
}

static heed_status_t decode_run(const heed_launch_t *launch)
{
    decode_job_t job = {.a = hd_attention_of(launch)};
    job.z = decode_sizes(launch->desc, launch->threads);
    job.states = launch->workspace;
    job.members = job.states + job.z.states;
    atomic_init(&job.next, 0);
    atomic_init(&job.next_unit, 0);
    if (job.z.units > 0)
        hd_parallel(job.z.threads, decode_work, &job);
    return HEED_OK;
}

static size_t decode_workspace(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    decode_sizes_t z = decode_sizes(desc, threads);
    return z.states + z.member * (size_t)z.threads;
}

#endif
