/* A step against the queries of a tile on the matrix unit: 32 keys at a time, so that their scores
 * never leave the first cache.
 *
 * The reference of a row moves only when a score lies more than 2^LAZY above it: what was summed so
 * far is then scaled, which happens a few times in a row of any length. Until then weights are
 * exponentials of the scores as they come, and no maximum has to be known before. */
#ifndef HD_FLASH_AMX_BLOCK_H
#define HD_FLASH_AMX_BLOCK_H

enum { LAZY = 256 };

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

/* Weights of two keys as pairs of bf16, halves rounded up: an addition each and a permutation,
 * where a conversion would take the port of the multiply-adds. A NaN here has zeros below. */
HD_INLINE void amx_store_pairs(char *p, vec_t even, vec_t odd)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    /* Word 2i + 1 to 2i. */
    const __m512i upper =
        _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    __m512i low = _mm512_add_epi32(_mm512_castps_si512(even), half);
    __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
    _mm512_storeu_si512(p, _mm512_mask_permutexvar_epi16(high, 0x55555555, upper, low));
}

/* Weights of keys j .. j+3 for `vectors` vectors; hidden are those from `end` on, and by masks. */
HD_INLINE void amx_weights_of(const int vectors, const bool exact, const float *s, char *p, int j,
                              int end, vec_t scale, const vec_t *low, vec_t *sum,
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
        }
    }
    amx_exp2(y, 4 * vectors);
    HD_UNROLL
    for (int e = 0; e < 4; e += 2) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_t even = y[e * vectors + r], odd = y[(e + 1) * vectors + r];
            sum[r] = vec_add(sum[r], vec_add(even, odd));
            amx_store_pairs(p + ((j + e) / 2 * LANES + r * VEC_LANES) * 4, even, odd);
        }
    }
}

/* A segment on its way: scores of the next 32 keys, and results of up to 128 before, are under way
 * while the exponentials of these 32 are taken. Weights of 128 keys are a batch: as deep as a
 * product of values is. */
typedef struct amx_segment {
    flash_task_t *task;
    const flash_block_t *block;
    int vectors, lane, first, end;
    const uint64_t *masks;
    const char *q;
    float *s, *o;
    char *p;
    flash_row_t *row;
    amx_products_t scores, values;
    int values_due; /* steps of values for 32 keys */
    int batch;      /* first key whose weights are in no product yet */
    int slot;       /* half of p that they are in */
} amx_segment_t;

enum { AMX_BATCH = 128 };

/* Where the weights of key j go. */
HD_INLINE char *amx_weights_at(const amx_segment_t *m, int j)
{
    return m->p + (m->slot * AMX_BATCH + j - m->batch) / CELL * AMX_SUM_ROW;
}

/* Where the scores of key j are: with modifiers each key has its row. */
HD_INLINE float *amx_scores_at(const amx_segment_t *m, int j)
{
    return m->s + (hd_modifies(&m->task->job->a.modifiers) ? j : j % (2 * AMX_KEYS)) * LANES;
}

/* The share of part `part` of 8 in the work under way. */
HD_INLINE void amx_advance(const int vectors, amx_segment_t *m, int part, int scores, int values)
{
    while (m->scores.left > scores * (7 - part) >> 3)
        amx_score_step(vectors, &m->scores);
    while (m->values.left > values - (m->values_due * (part + 1) >> 3) && m->values.left > 0)
        amx_value_step(vectors, &m->values);
}

/* Weights of the keys j .. end-1, at most 32 of them, zeros up to 32, and their sums. Returns
 * whether a score lay too far above its reference: then nothing has happened. */
HD_INLINE bool amx_weights(const int vectors, const bool exact, amx_segment_t *m, int first,
                           int end, const uint64_t *masks)
{
    const vec_t scale = score_scale(&m->task->job->a);
    const float *s = amx_scores_at(m, first) - first % AMX_KEYS * LANES;
    const int scores = m->scores.left, values = m->values.left;
    char *p = amx_weights_at(m, first);
    vec_t low[FLASH_TILE], sum[FLASH_TILE];
    uint32_t above = 0;
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        low[r] = vec_max(m->row[r].most, vec_set1(-FLT_MAX));
        sum[r] = vec_zero();
    }
    int count = end - first, j = 0;
    if (masks)
        masks += first;
    for (; j + 4 <= count; j += 4) {
        if (!exact)
            amx_advance(vectors, m, j / 4, scores, values);
        amx_weights_of(vectors, exact, s, p, j, INT32_MAX, scale, low, sum, masks, m->lane);
    }
    for (; j < count; j += 4)
        amx_weights_of(vectors, exact, s, p, j, count, scale, low, sum, masks, m->lane);
    for (; j < AMX_KEYS; j += 2)
        for (int r = 0; r < vectors; r++)
            vec_store(p + (j / 2 * LANES + r * VEC_LANES) * 4, vec_zero());
    HD_UNROLL
    for (int r = 0; r < vectors; r++) {
        above |= _mm512_cmp_ps_mask(sum[r], vec_set1(LAZY), _CMP_GT_OQ);
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
#define EXACT(n)  above = amx_weights(n, true, m, first, end, m->masks)
#define MASKED(n) above = amx_weights(n, false, m, first, end, m->masks)
#define PLAIN(n)  above = amx_weights(n, false, m, first, end, NULL)
    if (exact)
        FLASH_WIDTHS(m->vectors, EXACT);
    else if (m->masks)
        FLASH_WIDTHS(m->vectors, MASKED);
    else
        FLASH_WIDTHS(m->vectors, PLAIN);
#undef EXACT
#undef MASKED
#undef PLAIN
    return above;
}

/* ---- a segment ------------------------------------------------------------------------------- */

static void amx_finish_scores(amx_segment_t *m)
{
#define WIDTH(n)           \
    while (m->scores.left) \
    amx_score_step(n, &m->scores)
    FLASH_WIDTHS(m->vectors, WIDTH);
#undef WIDTH
}

static void amx_finish_values(amx_segment_t *m)
{
#define WIDTH(n)           \
    while (m->values.left) \
    amx_value_step(n, &m->values)
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
    m->scores = (amx_products_t){.depth = z->steps / AMX_PAIRS,
                                 .a = block->k + j * block->k_row,
                                 .b = m->q,
                                 .a_row = block->k_row,
                                 .a_step = AMX_ROW_BYTES,
                                 .sums = amx_scores_at(m, j)};
    if (count % AMX_ROWS) {
        for (int i = 0; i < count; i++)
            memcpy(m->task->rest + i * z->steps * 4, m->scores.a + i * block->k_row,
                   (size_t)z->steps * 4);
        m->scores.a = m->task->rest;
        m->scores.a_row = z->steps * 4;
    }
    m->scores.a_next = m->scores.a_row * AMX_ROWS;
    m->scores.left = m->scores.depth * (count > AMX_ROWS ? 2 : 1);
}

/* Sets out for the results of the keys batch .. j-1, after those before. */
static void amx_begin_values(amx_segment_t *m, int j)
{
    const flash_block_t *block = m->block;
    amx_finish_values(m);
    if (j == m->batch)
        return;
    m->values = (amx_products_t){.depth = (j - m->batch + AMX_KEYS - 1) / AMX_KEYS,
                                 .a = block->v + m->batch / CELL * block->v_row,
                                 .b = m->p + m->slot * AMX_BATCH / CELL * AMX_SUM_ROW,
                                 .a_row = AMX_ROW_BYTES,
                                 .a_step = block->v_row * AMX_PAIRS,
                                 .a_next = AMX_ROWS * AMX_ROW_BYTES,
                                 .sums = m->o};
    m->values.left = m->values.depth * m->values_due;
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
    amx_finish_values(m);
    for (int r = 0; r < m->vectors; r++)
        corr[r] = flash_raise(&m->row[r], scaled_most(a, most[r]), &low);
    for (int c = 0; c < a->dv; c++)
        for (int r = 0; r < m->vectors; r++) {
            float *at = m->o + c * LANES + r * VEC_LANES;
            vec_store(at, vec_mul(vec_load(at), corr[r]));
        }
}

static void amx_run_segment(amx_segment_t *m)
{
    const bool modifies = hd_modifies(&m->task->job->a.modifiers);
    amx_begin_scores(m, m->first);
    amx_finish_scores(m);
    for (int j = m->first; j < m->end; j += AMX_KEYS) {
        int end = (int)hd_min(j + AMX_KEYS, m->end);
        vec_t most[FLASH_TILE] = {vec_zero()}; /* of no use */
        if (j - m->batch == AMX_BATCH)
            amx_begin_values(m, j);
        amx_begin_scores(m, j + AMX_KEYS);
        if (modifies)
            flash_modify_scores(&m->task->modify, m->block->key, j, end, m->vectors, m->lane, m->s,
                                most, m->masks);
        if (amx_softmax(m, false, j, end)) {
            amx_raise(m, j, end);
            amx_softmax(m, true, j, end);
        }
        amx_finish_scores(m);
    }
    amx_begin_values(m, m->end);
    amx_finish_values(m);
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
            .values_due = (int)value_columns(a) / AMX_ROWS,
            .batch = s->first,
        };
        amx_run_segment(&m);
    }
}

#endif
