/* A step, keys of one or two blocks, against the queries of a task.
 *
 * Full steps go tile by tile: scores, softmax, results. A block that a mask cuts is first cut into
 * segments, for each tile of queries: runs of keys that the same vectors of the tile see, in groups
 * of 8 keys. Each takes only these vectors, so that a diagonal costs what is visible but for
 * triangles of 8 keys; masks are looked at only where a vector sees some of its lanes. */
#ifndef HD_FLASH_BLOCK_H
#define HD_FLASH_BLOCK_H

#include "flash_sizes.h"
#include "flash_values.h"

#include <stdatomic.h>

typedef struct flash_job {
    hd_attention_t a;
    flash_sizes_t z;
    char *packed, *states;
    int64_t wave_first, wave_heads;
    atomic_llong next;
} flash_job_t;

/* Scales of codes: one for all of V (that of K is in flash_modify_t), or one for each key of a
 * step, with zeros up to a whole number of 32. */
typedef struct flash_scales {
    bool k_each, v_each;
    float v_factor;
    float k[FLASH_CODES ? STEP_KEYS : 1], v[FLASH_CODES ? STEP_KEYS : 1];
} flash_scales_t;

typedef struct flash_task {
    const flash_job_t *job;
    int64_t b, key_head, head, first; /* first query head, first query */
    int heads, rows;                  /* lane x is query first + x % rows of head + x / rows */
    int lanes;
    bool careful;  /* let no masked value into a product, not even times zero */
    bool cut;      /* some block was partial */
    bool modifies; /* scores pass through flash_modify_scores */
    char *q, *p, *k_tile, *v_tile, *staging, *rest;
    float *s, *o;
    flash_row_t row[FLASH_VECTORS];
    uint64_t masks[STEP_KEYS];
    flash_modify_t modify;
    flash_ahead_t *ahead; /* of the thread */
    flash_scales_t scales;
} flash_task_t;

/* Where the cells of K and V of a step are. */
typedef struct flash_block {
    const char *k, *v;
    int64_t k_row, v_row;
    const float *k_scale, *v_scale; /* of each key, NULL: one for all */
    int64_t key;                    /* the first */
    int count;
} flash_block_t;

static int vectors_of(const flash_task_t *task)
{
    return (task->lanes + VEC_LANES - 1) / VEC_LANES;
}

#if FLASH_CODES
/* A negative factor would turn the order of scores around: it goes with the keys. */
static void begin_scales(flash_task_t *task)
{
    const hd_attention_t *a = &task->job->a;
    flash_scales_t *s = &task->scales;
    float k = 1;
    s->k_each = !hd_scale_is_common(&a->k_scale);
    s->v_each = !hd_scale_is_common(&a->v_scale);
    if (!s->k_each)
        k = hd_scale(&a->k_scale, task->b, 0, task->key_head);
    s->k_each |= !(k > 0);
    s->v_factor = s->v_each ? 1 : hd_scale(&a->v_scale, task->b, 0, task->key_head);
    task->modify.k_factor = s->k_each ? 1 : k;
}

static const float *find_scales(const flash_task_t *task, const hd_view_t *scale, int64_t key,
                                int count, float *to)
{
    for (int j = 0; j < count; j++)
        to[j] = hd_scale(scale, task->b, key + j, task->key_head);
    for (int j = count; j % 32; j++)
        to[j] = 0;
    return to;
}
#else
static void begin_scales(flash_task_t *task)
{
    task->scales.v_factor = task->modify.k_factor = 1;
    task->scales.k_each = false;
}
#endif

static flash_block_t find_block(flash_task_t *task, int64_t key, int count)
{
    const flash_job_t *job = task->job;
    const hd_attention_t *a = &job->a;
    const flash_sizes_t *z = &job->z;
    int64_t slot = task->b * a->key_heads + task->key_head - job->wave_first;
    const char *packed = job->packed + slot * (z->k_head + z->v_head);
    flash_block_t block = {
        .key = key, .count = count, .k_row = packed_k_row(a), .v_row = packed_v_row(a)};
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
#if FLASH_CODES
    flash_scales_t *scales = &task->scales;
    if (scales->k_each)
        block.k_scale = find_scales(task, &a->k_scale, key, count, scales->k);
    if (scales->v_each)
        block.v_scale = find_scales(task, &a->v_scale, key, count, scales->v);
#endif
    return block;
}

/* Modified scores are scaled already. */
static vec_t score_scale(const flash_task_t *task)
{
    return task->modifies ? vec_set1(1) : raw_scale(&task->modify);
}

/* The maximum of scaled scores from that of the raw ones. */
static vec_t scaled_most(const flash_task_t *task, vec_t most)
{
    return FLASH_PAIRS ? vec_mul(most, score_scale(task)) : most;
}

/* ---- segments -------------------------------------------------------------------------------- */

/* Keys first .. end-1 of a block, as the vectors from .. from+vectors-1 of a tile see them. */
typedef struct flash_segment {
    int first, end, from, vectors;
    bool masked; /* some lane of them does not see some key of them */
} flash_segment_t;

enum { GROUP_KEYS = VALUE_KEYS > 8 ? VALUE_KEYS : 8, MOST_SEGMENTS = HD_BLOCK_KEYS / GROUP_KEYS };

/* Bits of the queries of one tile, moved to 0. */
static uint64_t tile_bits(uint64_t mask, int tile)
{
    uint64_t bits = mask >> (tile * LANES & 63);
    return LANES == 64 ? bits : bits & ((UINT64_C(1) << (LANES & 63)) - 1);
}

static int cut_segments(const flash_task_t *task, int tile, int count, uint64_t spare,
                        flash_segment_t *segments)
{
    int n = 0;
    for (int first = 0; first < count; first += GROUP_KEYS) {
        int end = (int)hd_min(first + GROUP_KEYS, count);
        uint64_t any = 0, all = ~UINT64_C(0);
        for (int j = first; j < end; j++) {
            any |= task->masks[j];
            all &= task->masks[j];
        }
        any = tile_bits(any & ~spare, tile);
        if (!any)
            continue;
        flash_segment_t s = {.first = first, .end = end, .from = __builtin_ctzll(any) / VEC_LANES};
        int last = (63 - __builtin_clzll(any)) / VEC_LANES;
        s.vectors = last + 1 - s.from;
        uint64_t seen = tile_bits(all | spare, tile) >> s.from * VEC_LANES;
        s.masked = ~seen << (64 - s.vectors * VEC_LANES) != 0;
        flash_segment_t *before = n ? &segments[n - 1] : NULL;
        if (before && before->end == first && before->from == s.from &&
            before->vectors == s.vectors && before->masked == s.masked)
            before->end = end;
        else
            segments[n++] = s;
    }
    return n;
}

/* ---- a tile ---------------------------------------------------------------------------------- */

#if FLASH_AMX
#include "flash_amx_block.h"
#else

/* O^T += V^T P^T. The segment that comes first scales O^T of its vectors by the way; what it lacks
 * of the vectors low .. high-1 is scaled alone. */
static void add_values(const flash_task_t *task, const flash_block_t *block, int tile,
                       const flash_segment_t *segments, int count, int low, int high,
                       const vec_t *corr)
{
    int dv = task->job->a.dv, widest = 0;
    float *o = task->o + tile * value_columns(&task->job->a) * LANES;
    for (int i = 1; i < count; i++)
        if (segments[i].vectors > segments[widest].vectors)
            widest = i;
    for (int r = low; r < high; r++)
        if (r < segments[widest].from || r >= segments[widest].from + segments[widest].vectors)
            for (int c = 0; c < dv; c++) {
                float *at = o + c * LANES + r * VEC_LANES;
                vec_store(at, vec_mul(vec_load(at), corr[r]));
            }
    for (int i = 0; i < count; i++) {
        const flash_segment_t *s = &segments[i == 0 ? widest : i == widest ? 0 : i];
        pv_keys(s->vectors, block->v + s->first / CELL * block->v_row, block->v_row, dv,
                task->p + (s->first / CELL * LANES + s->from * VEC_LANES) * 4,
                (s->end - s->first + CELL - 1) / CELL, o + s->from * VEC_LANES,
                i == 0 ? corr + s->from : NULL, task->ahead);
    }
}

/* The keys of `count` segments, at least one, against the queries of a tile. */
static void attend_tile(flash_task_t *task, const flash_block_t *block, int tile,
                        const flash_segment_t *segments, int count)
{
    int steps = task->job->z.steps, low = FLASH_TILE, high = 0;
    const char *q = task->q + (int64_t)tile * steps * LANES * 4;
    flash_row_t *row = task->row + tile * FLASH_TILE;
    vec_t most[FLASH_TILE], raw[FLASH_TILE], from[FLASH_TILE], corr[FLASH_TILE];
    for (int r = 0; r < FLASH_TILE; r++)
        most[r] = raw[r] = vec_set1(-INFINITY);
    for (int i = 0; i < count; i++) {
        const flash_segment_t *s = &segments[i];
        int at = s->from * VEC_LANES;
        qk_keys(s->vectors, block->k, block->k_row, s->first, s->end, q + at * 4, steps,
                task->s + at, (task->modifies ? raw : most) + s->from,
                s->masked ? task->masks : NULL, tile * LANES + at, task->ahead);
        if (task->modifies)
            flash_modify_scores(&task->modify, block->key, s->first, s->end, s->vectors,
                                tile * LANES + at, task->s + at, most + s->from,
                                s->masked ? task->masks : NULL, block->k_scale);
        low = (int)hd_min(low, s->from);
        high = (int)hd_max(high, s->from + s->vectors);
    }
    for (int r = low; r < high; r++)
        corr[r] = flash_raise(&row[r], scaled_most(task, most[r]), &from[r]);
    for (int i = 0; i < count; i++) {
        const flash_segment_t *s = &segments[i];
        int at = s->from * VEC_LANES;
        flash_exponentials(s->vectors, task->s + at, task->p + at * 4, s->first, s->end,
                           from + s->from, score_scale(task), row + s->from,
                           s->masked ? task->masks : NULL, tile * LANES + at);
    }
    add_values(task, block, tile, segments, count, low, high, corr);
}

#endif

/* ---- the careful way ------------------------------------------------------------------------- */

/* O^T += V^T P^T of one vector, where a weight of zero hides whatever the value is. */
static void pv_careful(const flash_task_t *task, const flash_block_t *block, int count, float *o,
                       vec_t corr, int shift, const char *p)
{
    int dv = task->job->a.dv;
    for (int c = 0; c < dv; c++) {
        vec_t sum = vec_mul(vec_load(o + c * LANES), corr);
        for (int j = 0; j < count; j++) {
            vec_t weight = flash_load_weight(p + j / CELL * LANES * 4, j % CELL);
            vec_t value = flash_load_value(flash_value_at(block->v, block->v_row, j, c), j % CELL);
            if (block->v_scale)
                weight = vec_mul(weight, vec_set1(block->v_scale[j]));
            sum = vec_select((uint32_t)(task->masks[j] >> shift), vec_fma(weight, value, sum), sum);
        }
        vec_store(o + c * LANES, sum);
    }
}

/* A block as one vector of queries sees it through the masks. */
static void attend_careful(flash_task_t *task, const flash_block_t *block, int count, int vector)
{
    const hd_attention_t *a = &task->job->a;
    int steps = task->job->z.steps, tile = vector / FLASH_TILE, shift = vector * VEC_LANES;
    int at = vector % FLASH_TILE * VEC_LANES;
    const char *q = task->q + ((int64_t)tile * steps * LANES + at) * 4;
    flash_row_t *row = task->row + vector;
    vec_t most = vec_set1(-INFINITY), low;
    qk_keys(1, block->k, block->k_row, 0, count, q, steps, task->s, &most, task->masks, shift,
            task->ahead);
    if (task->modifies) {
        most = vec_set1(-INFINITY);
        flash_modify_scores(&task->modify, block->key, 0, count, 1, shift, task->s, &most,
                            task->masks, block->k_scale);
    }
    vec_t corr = flash_raise(row, scaled_most(task, most), &low);
    flash_exponentials(1, task->s, task->p, 0, count, &low, score_scale(task), row, task->masks,
                       shift);
    pv_careful(task, block, count, task->o + tile * value_columns(a) * LANES + at, corr, shift,
               task->p);
}

/* ---- a block --------------------------------------------------------------------------------- */

/* Fills task->masks: those of the walk, once for each head of the task. */
static void make_masks(flash_task_t *task, const hd_walk_t *walk, const hd_block_t *at)
{
    const hd_attention_t *a = &task->job->a;
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
    if (flash_masks_pairs(a))
        flash_modify_masks(&task->modify, task->head, task->first, task->rows, task->lanes, at->key,
                           at->count, task->masks);
}

static void attend_block(flash_task_t *task, const hd_walk_t *walk, const hd_block_t *at,
                         const flash_block_t *block)
{
    int vectors = vectors_of(task);
    /* What fills up a last cell of values may be a key that nobody here sees. */
    bool odd = at->count % VALUE_KEYS != 0;
    task->cut |= odd;
    if (!at->full || odd || task->careful)
        make_masks(task, walk, at);
    if (task->careful && (!at->full || odd || FLASH_PLANES > 1)) {
        for (int v = 0; v < vectors; v++)
            attend_careful(task, block, at->count, v);
        return;
    }
    /* Lanes of a last vector that no query fills see what they like. */
    uint64_t spare = task->lanes < 64 ? ~UINT64_C(0) << task->lanes : 0;
    for (int tile = 0; tile * FLASH_TILE < vectors; tile++) {
        flash_segment_t segments[MOST_SEGMENTS];
        int count = 1;
        if (at->full)
            segments[0] = (flash_segment_t){
                0, at->count, 0, (int)hd_min(vectors - tile * FLASH_TILE, FLASH_TILE), false};
        else
            count = cut_segments(task, tile, at->count, spare, segments);
        if (count)
            attend_tile(task, block, tile, segments, count);
    }
}

#endif
