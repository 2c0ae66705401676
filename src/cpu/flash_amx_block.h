/* A step against the queries of a tile on the matrix unit: 32 keys at a time, so that their scores
 * never leave the first cache.
 *
 * The reference of a row moves only when a score lies more than 2^LAZY above it: what was summed so
 * far is then scaled, which happens a few times in a row of any length. Until then weights are
 * exponentials of the scores as they come, and no maximum has to be known before. */
#ifndef HD_FLASH_AMX_BLOCK_H
#define HD_FLASH_AMX_BLOCK_H

enum { LAZY = 8 };

/* 2^t of `count` vectors: by the exponent of floor(t), and a polynomial in the rest, degree 3,
 * minimax on [0, 1], 7.5e-5: the results are rounded to bf16. 2^-inf is 0, NaN stays. */
HD_INLINE void amx_exp2(vec_t *t, const int count)
{
    vec_t p[8];
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        vec_t f = _mm512_reduce_ps(t[i], 0x01 | 0x08); /* less its floor */
        p[i] = vec_fma(vec_set1(0.0780245227f), f, vec_set1(0.226067155f));
        p[i] = vec_fma(p[i], f, vec_set1(0.695833541f));
        p[i] = vec_fma(p[i], f, vec_set1(0.999925219f));
    }
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        t[i] = _mm512_scalef_ps(p[i], t[i]);
    }
}

/* Weights of keys j .. j+3 for `vectors` vectors; hidden are those from `end` on, and by masks. */
HD_INLINE void amx_weights_of(const int vectors, const bool exact, const float *s, char *p, int j,
                              int end, vec_t scale, const vec_t *low, vec_t *sum, vec_t *most,
                              const uint64_t *masks, int shift)
{
    vec_t y[4 * FLASH_TILE];
    HD_UNROLL
    for (int e = 0; e < 4; e++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_t *at = &y[e * vectors + r], x = vec_load(s + (j + e) * LANES + r * VEC_LANES);
            *at = exact ? vec_sub(vec_mul(x, scale), low[r])
                        : _mm512_fmsub_ps(x, scale, low[r]);
            if (masks || j + e >= end) {
                uint32_t bits = j + e >= end ? 0
                                : masks      ? (uint32_t)(masks[j + e] >> (shift + r * VEC_LANES))
                                             : 0xffff;
                *at = vec_select(bits, *at, vec_set1(-INFINITY));
            }
            if (!exact)
                most[r] = vec_max(*at, most[r]);
        }
    }
    amx_exp2(y, 4 * vectors);
    HD_UNROLL
    for (int e = 0; e < 4; e += 2) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_t even = y[e * vectors + r], odd = y[(e + 1) * vectors + r];
            sum[r] = vec_add(sum[r], vec_add(even, odd));
            flash_store_weights(p + ((j + e) / 2 * LANES + r * VEC_LANES) * 4, even, odd);
        }
    }
}

/* Weights of the keys first .. end-1, at most 32 of them, zeros up to 32, and their sums. Returns
 * whether a score lay too far above its reference: then nothing has happened. */
HD_INLINE bool amx_weights(const int vectors, const bool exact, const float *s, char *p, int first,
                           int end, vec_t scale, flash_row_t *row, const uint64_t *masks,
                           int shift)
{
    vec_t low[FLASH_TILE], sum[FLASH_TILE], most[FLASH_TILE];
    uint32_t above = 0;
    int j = first;
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        low[r] = vec_max(row[r].most, vec_set1(-FLT_MAX));
        sum[r] = row[r].sum;
        most[r] = vec_set1(-INFINITY);
    }
    for (; j + 4 <= end; j += 4)
        amx_weights_of(vectors, exact, s, p, j, INT32_MAX, scale, low, sum, most, masks, shift);
    for (; j < end; j += 4)
        amx_weights_of(vectors, exact, s, p, j, end, scale, low, sum, most, masks, shift);
    for (; j % AMX_KEYS; j += 2)
        for (int r = 0; r < vectors; r++)
            vec_store(p + (j / 2 * LANES + r * VEC_LANES) * 4, vec_zero());
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        above |= _mm512_cmp_ps_mask(most[r], vec_set1(LAZY), _CMP_GT_OQ);
    }
    if (!exact && above)
        return true;
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        row[r].sum = sum[r];
    }
    return false;
}

/* `exact` rounds a scaled score before the reference is taken from it, as the reference was: huge
 * scores would else lie far above themselves. */
HD_NOINLINE bool amx_softmax(int vectors, bool exact, const float *s, char *p, int first, int end,
                             vec_t scale, flash_row_t *row, const uint64_t *masks, int shift)
{
    bool above;
#define EXACT(n)  above = amx_weights(n, true, s, p, first, end, scale, row, masks, shift)
#define MASKED(n) above = amx_weights(n, false, s, p, first, end, scale, row, masks, shift)
#define PLAIN(n)  above = amx_weights(n, false, s, p, first, end, scale, row, NULL, 0)
    if (exact)
        FLASH_WIDTHS(vectors, EXACT);
    else if (masks)
        FLASH_WIDTHS(vectors, MASKED);
    else
        FLASH_WIDTHS(vectors, PLAIN);
#undef EXACT
#undef MASKED
#undef PLAIN
    return above;
}

/* A segment on its way. */
typedef struct amx_segment {
    flash_task_t *task;
    const flash_block_t *block;
    int vectors, lane, end;
    const uint64_t *masks;
    const char *q;
    float *s, *o;
    char *p;
    flash_row_t *row;
    int done; /* keys before it are in O^T */
} amx_segment_t;

static void amx_segment_scores(const amx_segment_t *m, int j)
{
    const flash_block_t *block = m->block;
    if (j < m->end)
        amx_scores(m->vectors, block->k + j * block->k_row, block->k_row,
                   (int)hd_min(AMX_KEYS, m->end - j), m->q, m->task->job->z.steps,
                   m->s + j * LANES);
}

/* Weights of the keys done .. j-1 to O^T. */
static void amx_segment_values(amx_segment_t *m, int j)
{
    const flash_block_t *block = m->block;
    if (m->done < j)
        pv_keys(m->vectors, block->v + m->done / CELL * block->v_row, block->v_row,
                m->task->job->a.dv, m->p + m->done / CELL * LANES * 4, (j - m->done + 1) / CELL,
                m->o, NULL);
    m->done = j;
}

/* Moves the references to the maxima of keys j .. end-1, and what is summed so far with them. */
static void amx_segment_raise(amx_segment_t *m, int j, int end)
{
    const hd_attention_t *a = &m->task->job->a;
    vec_t most[FLASH_TILE], low, corr[FLASH_TILE];
    for (int r = 0; r < FLASH_TILE; r++)
        most[r] = corr[r] = vec_set1(-INFINITY);
    amx_maxima(m->vectors, j, end, m->s, most, m->masks, m->lane);
    amx_segment_values(m, j);
    for (int r = 0; r < m->vectors; r++)
        corr[r] = flash_raise(&m->row[r], scaled_most(a, most[r]), &low);
    amx_scale(m->vectors, a->dv, m->o, corr);
}

/* The products of the next keys are under way while the exponentials of these are taken. */
static void amx_segment_run(amx_segment_t *m, int first)
{
    const hd_attention_t *a = &m->task->job->a;
    const bool modifies = hd_modifies(&a->modifiers);
    amx_segment_scores(m, first);
    for (int j = first; j < m->end; j += AMX_KEYS) {
        int end = (int)hd_min(j + AMX_KEYS, m->end);
        vec_t most[FLASH_TILE] = {vec_zero()}; /* of no use */
        amx_segment_scores(m, j + AMX_KEYS);
        if (modifies)
            flash_modify_scores(&m->task->modify, m->block->key, j, end, m->vectors, m->lane, m->s,
                                most, m->masks);
        if (amx_softmax(m->vectors, false, m->s, m->p, j, end, score_scale(a), m->row, m->masks,
                        m->lane)) {
            amx_segment_raise(m, j, end);
            amx_softmax(m->vectors, true, m->s, m->p, j, end, score_scale(a), m->row, m->masks,
                        m->lane);
        }
    }
    amx_segment_values(m, m->end);
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
            .end = s->end,
            .masks = s->masked ? task->masks : NULL,
            .q = task->q + ((int64_t)tile * steps * LANES + at) * 4,
            .s = task->s + at,
            .o = task->o + tile * value_columns(a) * LANES + at,
            .p = task->p + at * 4,
            .row = task->row + tile * FLASH_TILE + s->from,
            .done = s->first,
        };
        amx_segment_run(&m, s->first);
    }
}

#endif
