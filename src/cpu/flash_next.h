/* What a thread fetches while tasks walk along their keys: the rows that their results go to, the
 * queries of its next tasks, and a part of the next head's keys and values.
 *
 * Measured on an Emerald Rapids core, two builds in turns (bench/turns/builds,
 * docs/performance.md): f32 in [B,S,H,D] or slices of a projection up to 512 tokens 1.07 to 1.25
 * times as fast, most of it from the rows of results, contiguous 1.06 to 1.09. AMX 1.05 to 1.2
 * where rows lie apart, of 1024 tokens and more 0.97 to 1.07, by which speed the core has;
 * contiguous 0.95 to 0.97, so not there. Of operands that the cache has kept fetching costs 1 to
 * 7 %, of heads larger than NEXT_HEAD_BYTES 4. */
#ifndef HD_FLASH_NEXT_H
#define HD_FLASH_NEXT_H

#include "flash_cost.h"
#include "flash_task.h"

/* Bytes of a head's keys and values that the second cache keeps beside those at hand, and the
 * multiply-adds of vectors for each line: one every 32 cycles. Twice as many were no faster. */
enum { NEXT_HEAD_BYTES = 256 << 10, NEXT_EVERY = 64 };

/* Rows of `view` that belong to the queries of a walk: walk `turn` of key head `key_head`, counted
 * through all sequences. */
static void add_queries(flash_ahead_t *ahead, const flash_job_t *job, const hd_view_t *view,
                        int64_t key_head, int64_t turn, int size, bool write)
{
    const hd_attention_t *a = &job->a;
    const flash_sizes_t *z = &job->z;
    int64_t b = key_head / a->key_heads, end = hd_min(turn * z->share + z->share, z->tasks);
    for (int64_t index = turn * z->share; index < end; index++) {
        flash_place_t place = place_of(a, z, b, index);
        int64_t head = key_head % a->key_heads * a->group + place.fold;
        for (int64_t h = 0; h < place.heads; h++)
            flash_add_rows(ahead, view, b, head + h, place.first, place.first + place.rows, size,
                           write);
    }
}

/* The walk's share of the keys and values that follow those of its head, or of its wave. With more
 * threads each fetches all for itself. */
static void add_keys(flash_ahead_t *ahead, const flash_job_t *job, int64_t key_head, int64_t turn)
{
    const hd_attention_t *a = &job->a;
    const flash_sizes_t *z = &job->z;
    int64_t next = key_head + (z->pack_k || z->pack_v ? z->wave : 1);
    int64_t bytes = a->keys * (a->k.elem * a->d + a->v.elem * a->dv);
    if (next >= a->batch * a->key_heads || bytes > NEXT_HEAD_BYTES || a->visible.tiles)
        return;
    int64_t b = next / a->key_heads, head = next % a->key_heads, keys = hd_keys(a, b);
    int64_t first = keys * turn / z->turns;
    int64_t end = hd_min(keys * (turn + z->threads) / z->turns, keys);
    flash_add_rows(ahead, &a->k, b, head, first, end, a->d, false);
    flash_add_rows(ahead, &a->v, b, head, first, end, a->dv, false);
}

/* Sets out for what comes during and after walk `turn` of a key head. */
static void look_to_next(flash_ahead_t *ahead, const flash_job_t *job, int64_t key_head,
                         int64_t turn)
{
    const hd_attention_t *a = &job->a;
    const flash_sizes_t *z = &job->z;
    int64_t next = key_head * z->turns + turn + z->threads;
    *ahead = (flash_ahead_t){.every = NEXT_EVERY};
    if (flash_bytes(a) <= AHEAD_BYTES || (FLASH_AMX && !flash_rows_apart(&a->out, a->dv)))
        return;
    add_queries(ahead, job, &a->out, key_head, turn, a->dv, true);
    if (next < a->batch * a->key_heads * z->turns)
        add_queries(ahead, job, &a->q, next / z->turns, next % z->turns, a->d, false);
    add_keys(ahead, job, key_head, turn);
    if (FLASH_AMX)
        flash_share_out(ahead, hd_ceil_div(a->keys, 4) * TILES * z->share);
}

#endif
