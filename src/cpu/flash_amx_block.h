/* A step against the queries of a tile on the matrix unit, 32 keys at a time: their scores never
 * leave the first cache. Three things go on side by side: exponentials of 32 keys, the scores of
 * the next 32, and results of the 128 keys before these. Instructions of all three are mixed, for
 * the processor looks ahead only a few hundred. */
#ifndef HD_FLASH_AMX_BLOCK_H
#define HD_FLASH_AMX_BLOCK_H

#include "flash_amx_softmax.h"

enum { AMX_BATCH = 128 };

/* A segment on its way. Weights of 128 keys are a batch: as deep as a product of values is. */
typedef struct amx_segment {
    flash_task_t *task;
    const flash_block_t *block;
    int vectors, lane, first, end;
    const uint64_t *masks;
    const char *q;
    float *s, *o;
    char *p;
    flash_row_t *row;
    amx_product_t now;    /* under way */
    amx_product_t scores; /* left 0: none to come */
    amx_product_t values; /* of the first columns that are not in a product yet */
    int columns;          /* to come */
    int batch;            /* first key whose weights are in no product yet */
    int slot;             /* half of p that they are in */
    bool scoring;         /* `now` makes scores */
} amx_segment_t;

/* Where the weights of key j go. */
HD_INLINE char *amx_weights_at(const amx_segment_t *m, int j)
{
    return m->p + (m->slot * AMX_BATCH + j - m->batch) / CELL * AMX_SUM_ROW;
}

/* Where the scores of key j are: with modifiers each key has its row. */
HD_INLINE float *amx_scores_at(const amx_segment_t *m, int j)
{
    return m->s + (m->task->modifies ? j : j % (2 * AMX_KEYS)) * LANES;
}

/* Takes up the next product, scores first, for exponentials wait for them. */
HD_INLINE bool amx_start(const int vectors, amx_segment_t *m)
{
    if (m->scores.left) {
        m->now = m->scores;
        m->scores.left = 0;
        m->scoring = true;
        amx_zero_sums();
        return true;
    }
    if (m->columns <= 0)
        return false;
    m->now = m->values;
    m->now.second = m->columns > AMX_ROWS;
    m->values.a += 2 * FLASH_PLANES * AMX_TILE_BYTES;
    m->values.sums += 2 * AMX_ROWS * LANES;
    m->columns -= 2 * AMX_ROWS;
    m->scoring = false;
    amx_load_sums(vectors, &m->now);
    return true;
}

/* Half a step of what is to do; false: nothing is. */
HD_INLINE bool amx_advance(const int vectors, amx_segment_t *m)
{
    if (m->now.left == 0 && !amx_start(vectors, m))
        return false;
    amx_half_step(vectors, &m->now);
    if (m->now.left == 0)
        amx_store_sums(vectors, &m->now);
    return true;
}

/* Weights of the keys j .. end-1, at most 32 of them, zeros up to 32, and their sums. Returns
 * whether a score lay too far above its reference: then nothing has happened. */
HD_INLINE bool amx_weights(const int vectors, const bool exact, const bool fetching,
                           const float *v_scale, amx_segment_t *m, int first, int end,
                           const uint64_t *masks)
{
    const vec_t scale = score_scale(m->task);
    const float *s = amx_scores_at(m, first) - first % AMX_KEYS * LANES;
    /* Half steps: all of the next scores, and a quarter of a batch's results. */
    const int due =
        2 * (m->task->job->z.steps / FLASH_PLANES / AMX_PAIRS + (m->task->job->a.dv + 31) / 32);
    char *p = amx_weights_at(m, first);
    vec_t low[FLASH_TILE], sum[FLASH_TILE];
    uint32_t above = 0;
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        low[r] = vec_max(m->row[r].most, vec_set1(-FLT_MAX));
        sum[r] = vec_zero();
    }
    int count = end - first, j = 0, done = 0;
    if (masks)
        masks += first;
    if (v_scale)
        v_scale += first;
    for (; j + 4 <= count; j += 4) {
        for (; !exact && done < due * (j + 4) / AMX_KEYS; done++)
            amx_advance(vectors, m);
        if (fetching)
            flash_fetch(m->task->ahead, m->task->ahead->lines);
        amx_weights_of(vectors, exact, s, p, j, INT32_MAX, scale, low, sum, masks, m->lane,
                       v_scale);
    }
    for (; j < count; j += 4)
        amx_weights_of(vectors, exact, s, p, j, count, scale, low, sum, masks, m->lane, v_scale);
    for (; j < AMX_KEYS; j += 2)
        for (int r = 0; r < vectors; r++)
            amx_store_zeros(p + (j / 2 * LANES + r * VEC_LANES) * 4);
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        above |= _mm512_cmp_ps_mask(sum[r], vec_set1(AMX_WEIGHTS_MOST), _CMP_GT_OQ);
    }
    if (!exact && above)
        return true;
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        m->row[r].sum = vec_add(m->row[r].sum, sum[r]);
    }
    return false;
}

/* `exact` rounds a scaled score before the reference is taken from it, as the reference was: huge
 * scores would else lie far above themselves. */
HD_NOINLINE bool amx_softmax(amx_segment_t *m, bool exact, int first, int end)
{
    bool above;
#define EXACT(n)  above = amx_weights(n, true, false, m->block->v_scale, m, first, end, m->masks)
#define SCALED(n) above = amx_weights(n, false, false, m->block->v_scale, m, first, end, m->masks)
#define MASKED(n) above = amx_weights(n, false, false, NULL, m, first, end, m->masks)
#define PLAIN(n)  above = amx_weights(n, false, false, NULL, m, first, end, NULL)
#define AHEAD(n)  above = amx_weights(n, false, true, NULL, m, first, end, NULL)
    if (exact)
        FLASH_WIDTHS(m->vectors, EXACT);
    else if (FLASH_CODES && m->block->v_scale)
        FLASH_WIDTHS(m->vectors, SCALED);
    else if (m->masks)
        FLASH_WIDTHS(m->vectors, MASKED);
    else if (m->task->ahead->at < m->task->ahead->count)
        FLASH_WIDTHS(m->vectors, AHEAD);
    else
        FLASH_WIDTHS(m->vectors, PLAIN);
#undef EXACT
#undef SCALED
#undef MASKED
#undef PLAIN
#undef AHEAD
    return above;
}

/* ---- a segment ------------------------------------------------------------------------------- */

static void amx_finish_scores(amx_segment_t *m)
{
#define WIDTH(n)                                                  \
    while (m->scores.left > 0 || (m->scoring && m->now.left > 0)) \
    amx_advance(n, m)
    FLASH_WIDTHS(m->vectors, WIDTH);
#undef WIDTH
}

static void amx_finish(amx_segment_t *m)
{
#define WIDTH(n)              \
    while (amx_advance(n, m)) \
    continue
    FLASH_WIDTHS(m->vectors, WIDTH);
#undef WIDTH
}

/* Sets out for the scores of up to 32 keys from j on. Rows that the keys do not fill are read too:
 * those of a last few keys are copied where there are enough. */
static void amx_begin_scores(amx_segment_t *m, int j)
{
    const flash_block_t *block = m->block;
    const flash_sizes_t *z = &m->task->job->z;
    int count = (int)hd_min(m->end - j, AMX_KEYS);
    if (count <= 0)
        return;
    m->scores = (amx_product_t){.a = block->k + j * block->k_row,
                                .b = m->q,
                                .a_row = block->k_row,
                                .a_step = AMX_ROW_BYTES,
                                .a_second = block->k_row * AMX_ROWS,
                                .sums = amx_scores_at(m, j),
                                .left = z->steps / FLASH_PLANES / AMX_PAIRS,
                                .second = count > AMX_ROWS};
#if FLASH_PLANES > 1
    m->scores.a_low = z->steps / 2 * 4;
    m->scores.b_low = z->steps / 2 * AMX_SUM_ROW;
    m->scores.low_by_low = true;
#endif
    if (count % AMX_ROWS) {
        for (int i = 0; i < count; i++)
            memcpy(m->task->rest + i * z->steps * 4, m->scores.a + i * block->k_row,
                   (size_t)z->steps * 4);
        m->scores.a = m->task->rest;
        m->scores.a_row = z->steps * 4;
        m->scores.a_second = m->scores.a_row * AMX_ROWS;
    }
}

/* Sets out for the results of the keys batch .. j-1, after those before. */
static void amx_begin_values(amx_segment_t *m, int j)
{
    const flash_block_t *block = m->block;
    amx_finish(m);
    if (j == m->batch)
        return;
    m->values = (amx_product_t){.a = block->v + m->batch / CELL * block->v_row,
                                .b = m->p + m->slot * AMX_BATCH / CELL * AMX_SUM_ROW,
                                .a_row = AMX_ROW_BYTES,
                                .a_step = block->v_row * AMX_PAIRS,
                                .a_second = FLASH_PLANES * AMX_TILE_BYTES,
                                .sums = m->o,
                                .left = (j - m->batch + AMX_KEYS - 1) / AMX_KEYS};
#if FLASH_PLANES > 1
    m->values.a_low = SPLIT_VALUES;
    m->values.b_low = SPLIT_WEIGHTS;
#endif
    m->columns = m->task->job->a.dv;
    m->batch = j;
    m->slot ^= 1;
}

/* Moves the references to the maxima of keys j .. end-1, and what is summed so far with them. */
static void amx_raise(amx_segment_t *m, int j, int end)
{
    const hd_attention_t *a = &m->task->job->a;
    vec_t most[FLASH_TILE], low, corr[FLASH_TILE];
    for (int r = 0; r < FLASH_TILE; r++)
        most[r] = corr[r] = vec_set1(-INFINITY);
    amx_maxima(m->vectors, j, end, amx_scores_at(m, j), most, m->masks, m->lane);
    amx_begin_values(m, j);
    amx_finish(m);
    for (int r = 0; r < m->vectors; r++)
        corr[r] = flash_raise(&m->row[r], scaled_most(m->task, most[r]), &low);
    for (int c = 0; c < a->dv; c++)
        for (int r = 0; r < m->vectors; r++) {
            float *at = m->o + c * LANES + r * VEC_LANES;
            vec_store(at, vec_mul(vec_load(at), corr[r]));
        }
}

static void amx_run_segment(amx_segment_t *m)
{
    amx_begin_scores(m, m->first);
    amx_finish_scores(m);
    for (int j = m->first; j < m->end; j += AMX_KEYS) {
        int end = (int)hd_min(j + AMX_KEYS, m->end);
        vec_t most[FLASH_TILE] = {vec_zero()}; /* of no use */
        if (j - m->batch == AMX_BATCH)
            amx_begin_values(m, j);
        amx_begin_scores(m, j + AMX_KEYS);
        if (m->task->modifies)
            flash_modify_scores(&m->task->modify, m->block->key, j, end, m->vectors, m->lane, m->s,
                                most, m->masks, m->block->k_scale);
        if (amx_softmax(m, false, j, end)) {
            amx_raise(m, j, end);
            amx_softmax(m, true, j, end);
        }
        amx_finish_scores(m);
    }
    amx_begin_values(m, m->end);
    amx_finish(m);
}

static void attend_tile(flash_task_t *task, const flash_block_t *block, int tile,
                        const flash_segment_t *segments, int count)
{
    const hd_attention_t *a = &task->job->a;
    int steps = task->job->z.steps;
    for (int i = 0; i < count; i++) {
        const flash_segment_t *s = &segments[i];
        int at = s->from * VEC_LANES;
        amx_segment_t m = {
            .task = task,
            .block = block,
            .vectors = s->vectors,
            .lane = tile * LANES + at,
            .first = s->first,
            .end = s->end,
            .masks = s->masked ? task->masks : NULL,
            .q = task->q + ((int64_t)tile * steps * LANES + at) * 4,
            .s = task->s + at,
            .o = task->o + tile * value_columns(a) * LANES + at,
            .p = task->p + at * 4,
            .row = task->row + tile * FLASH_TILE + s->from,
            .batch = s->first,
        };
        amx_run_segment(&m);
    }
}

#endif
