/* Flash attention on the CPU: one body for every instruction set. A tiles_ISA.h file defines
 *
 *     FLASH_PAIRS      1: cells are pairs of bf16 and flash_dot takes them
 *     FLASH_TILE       vectors of queries in a wide tile
 *     FLASH_VECTORS    vectors of queries in a task, at most 64 lanes
 *     FLASH_KEYS, FLASH_COLUMNS, FLASH_NARROW   see flash_tile.h
 *     FLASH_BY_ELEMENT 1, if at all: see flash_element.h
 *
 * and flash_weight, flash_store_weights (with pairs also flash_dot, flash_interleave). A
 * flash_ISA.c includes it, then this file, and names its heed_impl_t.
 *
 * A task is up to 64 queries of one key head: Q^T is packed once; then for each step of up to 128
 * keys that any of them sees: scores, running softmax, O^T += V^T P^T; at the end O^T is
 * normalised, transposed back, merged if asked for. With few queries, those of a whole group of
 * heads share a task. With many keys, tasks of a key head walk over them together, so that K and V
 * come from the outer caches once for 256 queries. K and V are read where they lie. They are packed
 * first, once for all tasks, where they have another dtype, a strided head size, or rows that do
 * not follow each other (whose lines would fall into few cache sets); for a single task block by
 * block. Packed heads are limited to PACK_BYTES at a time. What the next tasks need is fetched
 * meanwhile: flash_next.h.
 *
 * Measured with AVX2 on a Zen 3 core that shared its last cache with busy neighbours, one thread,
 * in turns, best samples in percent of the multiply-add peak (medians in brackets), 4096 keys: four
 * tasks to a walk instead of one 84.1 for 74.5 (69.7, 58.8) at head size 128, 83.8 for 83.7 (67.1,
 * 62.3) at 64. The next step prefetched into the second cache: no more than 0.4, left out. Twice as
 * many exponentials at once: 1.2 to 1.5. On AVX2, whose tiles of 16 queries fit diagonals anyway,
 * segments gave 1 at most, in a window; they are for the 64 lanes of AVX-512. */
#ifndef HD_FLASH_BODY_H
#define HD_FLASH_BODY_H

#include "flash_estimate.h"
#include "flash_next.h"
#include "parallel.h"

/* ---- the team -------------------------------------------------------------------------------- */

/* Task number `index` of key head b, key_head. */
static void set_task(flash_task_t *task, int64_t b, int64_t key_head, int64_t index)
{
    const hd_attention_t *a = &task->job->a;
    const flash_sizes_t *z = &task->job->z;
    flash_place_t place = place_of(a, z, b, index);
    task->b = b;
    task->key_head = key_head;
    task->head = key_head * a->group + place.fold;
    task->heads = place.heads;
    task->first = place.first;
    task->modify.a = a;
    task->modify.b = b;
    task->modify.visible = hd_visible(a, b);
    task->rows = place.rows;
    task->lanes = task->heads * task->rows;
    begin_scales(task);
    task->modifies = hd_modifies(&a->modifiers) || task->scales.k_each;
    if (task->rows > 0 && (task->modifies || hd_has_sinks(&a->modifiers)))
        flash_modify_begin(&task->modify, task->head, task->first, task->rows, task->lanes);
}

static void pack_wave(const hd_team_t *team, const flash_job_t *job)
{
    const hd_attention_t *a = &job->a;
    const flash_sizes_t *z = &job->z;
    int64_t blocks = hd_ceil_div(a->keys, HD_BLOCK_KEYS);
    for (int64_t at = team->rank; at < job->wave_heads * blocks; at += team->size) {
        /* Rows of neighbouring heads lie side by side: a page is visited once for all of them. */
        int64_t slot = at % job->wave_heads, key = at / job->wave_heads * HD_BLOCK_KEYS;
        int64_t b = (job->wave_first + slot) / a->key_heads;
        int64_t head = (job->wave_first + slot) % a->key_heads;
        int count = (int)hd_min(HD_BLOCK_KEYS, hd_keys(a, b) - key);
        char *packed = job->packed + slot * (z->k_head + z->v_head);
        if (z->pack_k)
            pack_k(a, b, head, key, count, packed + key * packed_k_row(a));
        if (z->pack_v)
            pack_v(a, b, head, key, count, packed + z->k_head + key / CELL * packed_v_row(a));
    }
}

/* The tasks of a walk have Q^T and O^T of their own, and the rest in common. */
static void set_buffers(flash_task_t *tasks, const flash_job_t *job, char *at, flash_ahead_t *ahead)
{
    const flash_sizes_t *z = &job->z;
    char *s = at + (size_t)z->share * (z->q + z->o), *p = z->p ? s + z->s : s;
    char *staging = p + (z->p ? z->p : z->s);
    for (int t = 0; t < z->share; t++, at += z->q + z->o) {
        tasks[t].job = job;
        tasks[t].ahead = ahead;
        tasks[t].q = at;
        tasks[t].o = (float *)(void *)(at + z->q);
        tasks[t].s = (float *)(void *)s;
        tasks[t].p = p;
        tasks[t].staging = staging;
        tasks[t].k_tile = staging + z->staging;
        tasks[t].v_tile = tasks[t].k_tile + z->k_tile;
        tasks[t].rest = tasks[t].v_tile + z->v_tile + z->addend;
        tasks[t].modify.addend = z->addend ? (float *)(void *)(tasks[t].v_tile + z->v_tile) : NULL;
    }
}

static void run_turn(flash_task_t *tasks, int64_t head, int64_t turn)
{
    const flash_sizes_t *z = &tasks[0].job->z;
    const hd_attention_t *a = &tasks[0].job->a;
    int64_t end = hd_min(turn * z->share + z->share, z->tasks);
    int count = 0;
    for (int64_t at = turn * z->share; at < end; at++) {
        set_task(&tasks[count], head / a->key_heads, head % a->key_heads, at);
        count += tasks[count].rows > 0; /* a sequence may be shorter than others */
    }
    look_to_next(tasks[0].ahead, tasks[0].job, head, turn);
    run_tasks(tasks, count);
}

static void work(const hd_team_t *team, void *arg)
{
    flash_job_t *job = arg;
    const hd_attention_t *a = &job->a;
    const flash_sizes_t *z = &job->z;
    int64_t heads = a->batch * a->key_heads;
    flash_task_t tasks[MOST_SHARE];
    flash_ahead_t ahead;
    const uint32_t before = flash_begin();
    set_buffers(tasks, job, job->states + (size_t)team->rank * z->state, &ahead);
    for (int64_t first = 0; first < heads; first += z->wave) {
        if (first)
            hd_team_barrier(team); /* nobody reads the last wave any more */
        if (team->rank == 0) {
            job->wave_first = first;
            job->wave_heads = hd_min(z->wave, heads - first);
            atomic_store(&job->next, 0);
        }
        hd_team_barrier(team);
        if (z->pack_k || z->pack_v) {
            pack_wave(team, job);
            hd_team_barrier(team);
        }
        long long at;
        while ((at = atomic_fetch_add(&job->next, 1)) < job->wave_heads * z->turns)
            run_turn(tasks, first + at / z->turns, at % z->turns);
    }
    flash_end(before);
}

/* Ragged queries are as many a sequence as the longest has, which is known only now. */
static void measure_tasks(const hd_attention_t *a, flash_sizes_t *z)
{
    int64_t longest = 0;
    for (int64_t b = 0; b < a->batch; b++)
        longest = hd_max(longest, hd_queries(a, b));
    choose_tasks(a, longest, z);
    z->turns = hd_ceil_div(z->tasks, z->share);
}

static heed_status_t flash_run(const heed_launch_t *launch)
{
    flash_job_t job = {.a = hd_attention_of(launch)};
    job.z = flash_sizes(&job.a, launch->threads);
    if (job.a.q.index)
        measure_tasks(&job.a, &job.z);
    job.packed = launch->workspace;
    job.states = job.packed + job.z.wave * (job.z.k_head + job.z.v_head);
    atomic_init(&job.next, 0);
    if (job.a.queries > 0)
        hd_parallel(job.z.threads, work, &job);
    return HEED_OK;
}

static size_t flash_workspace(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    hd_attention_t a = hd_attention(desc, NULL);
    flash_sizes_t z = flash_sizes(&a, threads);
    return (size_t)(z.wave * (z.k_head + z.v_head)) + z.state * (size_t)z.threads;
}

#endif
