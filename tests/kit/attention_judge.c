/* Judges results of attention, row by row, against the bounds of attention_bound.c, and the
 * reference against the formula. */
#include "attention_bound.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- comparing one number -------------------------------------------------------------------- */

static void complain(kit_verdict_t *verdict, double ratio, const char *what, const kit_row_t *row,
                     int64_t d, double got, double want, double bound)
{
    if (ratio <= verdict->worst_ratio)
        return;
    verdict->worst_ratio = ratio;
    if (ratio <= 1)
        return;
    int at = snprintf(verdict->sentence, sizeof(verdict->sentence), "%s[", what);
    at += snprintf(verdict->sentence + at, sizeof(verdict->sentence) - (size_t)at,
                   d < 0 ? "%lld,%lld,%lld" : "%lld,%lld,%lld,%lld", (long long)row->b,
                   (long long)(d < 0 ? row->h : row->i), (long long)(d < 0 ? row->i : row->h),
                   (long long)d);
    snprintf(verdict->sentence + at, sizeof(verdict->sentence) - (size_t)at,
             "] = %.9g, should be %.9g +- %.3g (%lld visible keys)", got, want, bound,
             (long long)row->keys);
}

static void compare(kit_verdict_t *verdict, const char *what, const kit_row_t *row, int64_t d,
                    double got, double want, double bound)
{
    /* What a row that sees NaN or infinity comes to depends on which weights vanish. */
    if ((isnan(got) && isnan(want)) || (!row->finite && !isnan(want)))
        return;
    double err = got == want ? 0 : fabs(got - want);
    if (isnan(err)) /* one of them is NaN, or infinities of both signs */
        err = INFINITY;
    if (err > verdict->max_err)
        verdict->max_err = err;
    complain(verdict, err == 0 ? 0 : err / bound, what, row, d, got, want, bound);
}

/* ---- judging a row --------------------------------------------------------------------------- */

static bool is_empty(const kit_row_t *row)
{
    return row->keys == 0 && row->old_lse == -INFINITY && row->sink == -INFINITY;
}

/* f16 has no number from 65520 on: what may be there may be infinite. */
static bool may_overflow(heed_dtype_t dtype, double got, double want, double bound)
{
    return dtype == HEED_F16 && isinf(got) && want * got > 0 && fabs(want) + bound >= 65520;
}

static void judge_out(const kit_judged_t *judged, const kit_row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    heed_dtype_t dtype = judged->desc->out.dtype;
    int64_t at = kit_at(row->b, row->i, row->h, n->sq, n->h, n->dv);
    for (int64_t d = 0; d < n->dv; d++) {
        double want = is_empty(row) ? 0 : judged->x.want_out[at + d];
        double bound =
            is_empty(row) ? 0 : kit_row_out_bound(row, dtype, want) + judged->rounding[d];
        if (!may_overflow(dtype, judged->x.out[at + d], want, bound))
            compare(judged->verdict, "out", row, d, judged->x.out[at + d], want, bound);
    }
}

static void judge_lse(const kit_judged_t *judged, const kit_row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    int64_t at = kit_at(row->b, row->h, row->i, n->h, n->sq, 1);
    double want = is_empty(row) ? -INFINITY : judged->x.want_lse[at];
    double bound = is_empty(row) ? 0 : kit_row_lse_bound(row, want);
    compare(judged->verdict, "lse", row, -1, judged->x.lse[at], want, bound);
}

/* ---- the reference itself -------------------------------------------------------------------- */

/* The row in double, by the formula: exact[Dv], exact_lse. */
static void compute_row(const kit_judged_t *judged, kit_row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    const double *q = judged->x.q + kit_at(row->b, row->i, row->h, n->sq, n->h, n->d);
    double *weight = judged->exact + n->dv, most = fmax(row->old_lse, row->sink), sum = 0;
    int64_t group = row->h / (n->h / n->hk), at;
    for (int64_t j = 0; j < n->sk; j++) {
        weight[j] = -INFINITY;
        if (!judged->sees[j])
            continue;
        at = kit_at(row->b, j, group, n->sk, n->hk, n->d);
        double dot = 0;
        for (int64_t d = 0; d < n->d; d++)
            dot += q[d] * judged->x.k[at + d];
        weight[j] = kit_attention_score(judged->desc, &judged->x, row->b, row->h, row->i, j, dot);
        most = fmax(most, weight[j]);
    }
    double old = row->old_lse == -INFINITY ? 0 : exp(row->old_lse - most);
    at = kit_at(row->b, row->i, row->h, n->sq, n->h, n->dv);
    for (int64_t d = 0; d < n->dv; d++)
        judged->exact[d] = old > 0 ? old * judged->x.old_out[at + d] : 0;
    for (int64_t j = 0; j < n->sk; j++) {
        if (!judged->sees[j])
            continue;
        double p = exp(weight[j] - most);
        at = kit_at(row->b, j, group, n->sk, n->hk, n->dv);
        for (int64_t d = 0; d < n->dv; d++)
            judged->exact[d] += p * judged->x.v[at + d];
        sum += p;
    }
    sum += exp(row->sink - most);
    for (int64_t d = 0; d < n->dv; d++)
        judged->exact[d] /= sum + old;
    row->exact_lse = most + log(sum + old);
}

/* The reference is checked on a few rows by what this file computes, so that a fault shared by all
 * implementations shows. */
static void judge_reference(const kit_judged_t *judged, kit_row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    int64_t at = kit_at(row->b, row->i, row->h, n->sq, n->h, n->dv);
    if (is_empty(row) || !row->finite)
        return;
    compute_row(judged, row);
    for (int64_t d = 0; d < n->dv; d++)
        compare(judged->verdict, "reference out", row, d, judged->x.want_out[at + d],
                judged->exact[d], kit_row_out_bound(row, HEED_F32, judged->exact[d]));
    if (judged->x.want_lse)
        compare(judged->verdict, "reference lse", row, -1,
                judged->x.want_lse[kit_at(row->b, row->h, row->i, n->h, n->sq, 1)], row->exact_lse,
                kit_row_lse_bound(row, row->exact_lse));
}

/* Zeros where no weight is rounded. */
static void find_rounding(const kit_judged_t *judged, const kit_row_t *row)
{
    for (int64_t d = 0; d < judged->n.dv; d++)
        judged->rounding[d] = 0;
    if (judged->x.e4m3_weights && row->finite && row->keys)
        kit_attention_rounding(judged->desc, &judged->x, row->b, row->h, row->i, judged->sees,
                               row->cut, judged->rounding);
}

static void judge_rows(const kit_judged_t *judged)
{
    const kit_sizes_t *n = &judged->n;
    int64_t rows = n->b * n->h * n->sq, every = rows / 3 + 1;
    for (int64_t r = 0; r < rows; r++) {
        kit_row_t row = {.b = r / (n->h * n->sq), .h = r / n->sq % n->h, .i = r % n->sq};
        if (row.i >= judged->x.batch.sq[row.b])
            continue;
        kit_row_bound(judged, &row);
        find_rounding(judged, &row);
        judge_out(judged, &row);
        if (judged->x.lse)
            judge_lse(judged, &row);
        if ((r + every / 2) % every == 0)
            judge_reference(judged, &row);
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Norms of keys and sizes of values, each over its last axis. */
static bool find_norms(kit_judged_t *judged)
{
    const kit_sizes_t *n = &judged->n;
    int64_t keys = n->b * n->sk * n->hk;
    judged->k_norm = calloc((size_t)keys + 1, sizeof(double));
    judged->v_max = calloc((size_t)keys + 1, sizeof(double));
    judged->sees = malloc((size_t)n->sk + 1);
    judged->exact = malloc((size_t)(n->dv + n->sk) * sizeof(double));
    judged->rounding = malloc((size_t)n->dv * sizeof(double));
    if (!judged->k_norm || !judged->v_max || !judged->sees || !judged->exact || !judged->rounding)
        return false;
    for (int64_t j = 0; j < keys; j++) {
        for (int64_t d = 0; d < n->d; d++)
            judged->k_norm[j] += judged->x.k[j * n->d + d] * judged->x.k[j * n->d + d];
        judged->k_norm[j] = sqrt(judged->k_norm[j]);
        for (int64_t d = 0; d < n->dv; d++) {
            double size = fabs(judged->x.v[j * n->dv + d]);
            if (!(size <= judged->v_max[j]) && !isnan(judged->v_max[j]))
                judged->v_max[j] = size;
        }
    }
    return true;
}

static void no_memory(kit_verdict_t *verdict)
{
    verdict->worst_ratio = INFINITY;
    snprintf(verdict->sentence, sizeof(verdict->sentence), "no memory to judge the outputs");
}

void kit_attention_judge_arrays(const heed_attention_desc_t *desc, const kit_attention_t *arrays,
                                kit_verdict_t *verdict)
{
    kit_judged_t judged = {.desc = desc, .verdict = verdict, .x = *arrays};
    *verdict = (kit_verdict_t){0};
    judged.n = arrays->batch.n;
    if (find_norms(&judged))
        judge_rows(&judged);
    else
        no_memory(verdict);
    free(judged.k_norm);
    free(judged.v_max);
    free(judged.sees);
    free(judged.exact);
    free(judged.rounding);
}

/* An output's rows, NULL where it is absent. */
static double *gather(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand,
                      void *const *inputs, void *output)
{
    void *data[HEED_ATTENTION_OPERANDS];
    if (operand == HEED_ATTENTION_LSE && !desc->lse.ndim)
        return NULL;
    memcpy(data, inputs, sizeof(data));
    data[operand] = output;
    return kit_rows_gather(desc, batch, operand, data);
}

/* Rows that are of no sequence, which packed operands may have, are left as they were. */
static bool others_intact(const heed_attention_desc_t *desc, const kit_buffers_t *buffers)
{
    const heed_tensor_t *out = &desc->out, *starts = &desc->cu_seqlens_q;
    if (!starts->ndim || !kit_elements(out))
        return true;
    const int32_t *start = buffers->data[HEED_ATTENTION_CU_SEQLENS_Q];
    double *now = kit_gather(out, buffers->data[HEED_ATTENTION_OUT]);
    double *before = kit_gather(out, buffers->before[HEED_ATTENTION_OUT]);
    int64_t row = out->shape[2] * out->shape[3];
    bool intact = now && before;
    for (int64_t i = 0; intact && i < kit_elements(out); i++)
        if (i / row < start[0] || i / row >= start[starts->shape[0] - 1])
            intact = memcmp(&now[i], &before[i], sizeof(now[i])) == 0;
    free(now);
    free(before);
    return intact;
}

static bool gather_all(const heed_attention_desc_t *desc,
                       const heed_attention_desc_t *reference_desc, const kit_buffers_t *buffers,
                       const kit_buffers_t *reference, kit_attention_t *x)
{
    enum { OUT = HEED_ATTENTION_OUT, LSE = HEED_ATTENTION_LSE };
    const kit_batch_t *batch = &x->batch;
    void *const *inputs = buffers->data;
    if (!kit_attention_gather(desc, inputs, x))
        return false;
    x->out = gather(desc, batch, OUT, inputs, buffers->data[OUT]);
    x->lse = gather(desc, batch, LSE, inputs, buffers->data[LSE]);
    x->want_out = gather(reference_desc, batch, OUT, inputs, reference->data[OUT]);
    x->want_lse = gather(reference_desc, batch, LSE, inputs, reference->data[LSE]);
    if (desc->merge) {
        x->old_out = gather(desc, batch, OUT, inputs, buffers->before[OUT]);
        x->old_lse = gather(desc, batch, LSE, inputs, buffers->before[LSE]);
    }
    return x->out && x->want_out && !x->lse == !x->want_lse && !desc->merge == !x->old_lse &&
           !desc->merge == !x->old_out;
}

void kit_attention_judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                         heed_problem_t *reference_problem, const kit_buffers_t *reference,
                         kit_verdict_t *verdict)
{
    void *desc = NULL, *reference_desc = NULL;
    kit_attention_t x = {0};
    *verdict = (kit_verdict_t){0};
    if (heed_problem_desc(problem, &desc) != HEED_OK ||
        heed_problem_desc(reference_problem, &reference_desc) != HEED_OK ||
        !gather_all(desc, reference_desc, buffers, reference, &x)) {
        no_memory(verdict);
    } else {
        const heed_attention_desc_t *at = desc;
        x.f16_weights = at->q.dtype == HEED_F16 && features & KIT_TENSOR_CORES;
        x.split_weights = (features & KIT_SPLIT_WEIGHTS) != 0;
        x.e4m3_weights = at->q.dtype == HEED_E4M3 && !(features & HEED_ATTENTION_CAN_EXACT_E4M3);
        kit_attention_judge_arrays(at, &x, verdict);
        if (!verdict->sentence[0] && !others_intact(at, buffers)) {
            verdict->worst_ratio = INFINITY;
            snprintf(verdict->sentence, sizeof(verdict->sentence),
                     "wrote to rows of out that are of no sequence");
        }
    }
    kit_attention_free(&x);
}
