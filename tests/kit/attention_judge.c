/* How far an implementation may lie from the exact result, from its inputs alone.
 *
 * Let u = 2^-24 and g(n) = n u / (1 - n u), the relative error of a sum of n rounded terms in any
 * order (Higham, Accuracy and Stability, 3.1). For the query i, over the keys j that it sees:
 *
 *   score   s_ij is a sum of D products, times scale, times log2(e), minus the row maximum: it is
 *           off by at most a_i = g(D + 4) |scale| max_j sum_d |q_id k_jd|; the sum is at most
 *           |q_i| |k_j| (Cauchy-Schwarz).
 *   weight  p_ij = exp(s_ij - m): relative error exp(a_i) - 1, and e for the polynomial: 2^-20,
 *           with bf16 inputs 2^-13, for there p_ij is rounded to bf16 on its way into o.
 *           On tensor cores with f16 inputs p_ij is rounded too, for their operands are of one
 *           type: 2^-11, and 2^-25 of the largest p_ij at least, for f16 has no smaller steps.
 *           Others multiply f16 as f32.
 *   sums    l = sum_j p_ij, o = sum_j p_ij v_j: n additions, one multiplication for each tile of
 *           16 keys or more, a division: g(n + n / 16 + 8) of sum_j p_ij |v_j| <= l V_i, where
 *           V_i = max_j |v_j|.
 *   out     o / l: the errors of both add up, and with bf16 inputs 2^-8 of o. As a part of V_i:
 *           exp(2 a_i) - 1 + 2 g(n + n / 16 + 8) + 2 e [+ 2^-8], at most 2, for out is a mean of
 *           values whatever the weights are. Then out is rounded to its type. Weights rounded to
 * f16, at most 1 beside an l of 1 or more, add 2^-11 of each, and 2^-25 where they are subnormal.
 *           Weights of two bf16 add 2^-17 for their rounding to nearest or 2^-16 away from it, and
 *           as much again where products of both low parts are left out: 2^-15.
 *   lse     m + log(l): a_i + g(n + n / 16 + 8) + e + 4 u |lse|.
 *   merge   x = exp(L - lse') and 1 - x weigh the old state and the new; x moves by at most a
 *           quarter of the error of L - lse', so that out moves by that error of
 *           max(V_i, |old out|). The error is that of lse, and of differences of logarithms,
 *           which count only where they are below 200.
 *
 * Tensor cores that multiply e4m3 (implementations without EXACT_E4M3) add 32 products and the sum
 * so far in units of 2^-13 of the largest of them, cutting off the rest: in each of the D / 32
 * steps of a score, half a unit for every sign that has no other beside it, and 5 deviations of
 * sqrt(33 / 12) units. What that and the rounding of the weights do to out is in
 * attention_rounding.c.
 *
 * Values below the smallest normal number may be flushed to zero, in the result and on the way. */
#include "kit_attention.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define U    0x1p-24
#define UNIT 0x1p-13 /* of tensor cores with e4m3 */

typedef struct judged {
    const heed_attention_desc_t *desc;
    kit_sizes_t n;
    kit_verdict_t *verdict;
    kit_attention_t x;
    double *k_norm, *v_max; /* [B,Sk,Hk] */
    uint8_t *sees;          /* [Sk] */
    double *exact;          /* [Dv], then weights [Sk] */
    double *rounding;       /* [Dv] of the row, what rounded weights may do to out */
} judged_t;

/* What one row is allowed. */
typedef struct row {
    int64_t b, h, i;
    int64_t keys;    /* that it sees */
    bool finite;     /* all that it sees is a number */
    double old_lse;  /* -inf where nothing is merged */
    double scores;   /* |scale| |q_i| max |k_j| */
    double v_max;    /* of visible values and of the old state */
    double cut;      /* what a score may lose in tensor cores */
    double addend;   /* the largest that is added to a score */
    double sink;     /* -inf: none */
    double out, lse; /* bounds; out without its final rounding */
    double exact_lse;
} row_t;

static double gamma_of(double n)
{
    return n * U / (1 - n * U);
}

/* Whether keys or values are codes that are multiplied with a scale. */
static bool scaled(const heed_attention_desc_t *desc)
{
    return desc->k_scale.ndim || desc->v_scale.ndim;
}

static double exp_error(const heed_attention_desc_t *desc)
{
    return desc->q.dtype == HEED_BF16 ? 0x1p-13 : 0x1p-20;
}

/* ---- comparing one number -------------------------------------------------------------------- */

static void complain(kit_verdict_t *verdict, double ratio, const char *what, const row_t *row,
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

static void compare(kit_verdict_t *verdict, const char *what, const row_t *row, int64_t d,
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

/* ---- the bound of a row ---------------------------------------------------------------------- */

/* What a score may lose in tensor cores. */
static double cut_off(const double *q, const double *k, int64_t d)
{
    double sum = 0, coherent = 0, squares = 0;
    for (int64_t from = 0; from < d; from += 32) {
        double top = fabs(sum), same = (sum > 0) - (sum < 0);
        for (int64_t i = from; i < from + 32 && i < d; i++) {
            top = fmax(top, fabs(q[i] * k[i]));
            same += (q[i] * k[i] > 0) - (q[i] * k[i] < 0);
            sum += q[i] * k[i];
        }
        coherent += UNIT * top * fabs(same) / 2;
        squares += UNIT * top * UNIT * top * 33 / 12;
    }
    return coherent + 5 * sqrt(squares);
}

/* |bias| + |slope * distance|. */
static double size_of_addend(const judged_t *judged, int64_t b, int64_t h, int64_t i, int64_t j)
{
    if (!judged->x.bias && !judged->x.slopes)
        return 0;
    kit_attention_t alone = judged->x;
    alone.slopes = NULL;
    double bias = kit_attention_addend(judged->desc, &alone, b, h, i, j);
    double both = kit_attention_addend(judged->desc, &judged->x, b, h, i, j);
    return fabs(bias) + fabs(both - bias);
}

/* The largest |scale| |q_i| |k_j| and the largest |v_j| that a row sees. */
static void find_sizes(const judged_t *judged, row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    const double *q = judged->x.q + kit_at(row->b, row->i, row->h, n->sq, n->h, n->d);
    double square = 0, k_norm = 0;
    for (int64_t d = 0; d < n->d; d++)
        square += q[d] * q[d];
    row->finite = isfinite(square);
    row->keys = kit_attention_sees(judged->desc, &judged->x, row->b, row->h, row->i, judged->sees);
    for (int64_t j = 0; j < n->sk; j++) {
        if (!judged->sees[j])
            continue;
        int64_t at = kit_at(row->b, j, row->h / (n->h / n->hk), n->sk, n->hk, 1);
        row->finite = row->finite && isfinite(judged->k_norm[at] + judged->v_max[at]);
        k_norm = fmax(k_norm, judged->k_norm[at]);
        if (judged->x.e4m3_weights)
            row->cut = fmax(row->cut, cut_off(q, judged->x.k + at * n->d, n->d));
        row->v_max = fmax(row->v_max, judged->v_max[at]);
        row->addend = fmax(row->addend, size_of_addend(judged, row->b, row->h, row->i, j));
    }
    row->cut *= fabs(kit_attention_scale(judged->desc));
    row->scores = row->keys ? fabs(kit_attention_scale(judged->desc)) * sqrt(square) * k_norm : 0;
}

/* What the old state adds: to the largest value, and to the bounds. */
static void merge_bound(const judged_t *judged, row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    int64_t at = kit_at(row->b, row->i, row->h, n->sq, n->h, n->dv);
    double e = exp_error(judged->desc), sink = row->sink == -INFINITY ? 0 : fabs(row->sink);
    bool empty = row->keys == 0 && row->sink == -INFINITY;
    double new_lse = empty ? 0 : fmax(row->scores + row->addend, sink) + log((double)row->keys + 1);
    double old_max = 0;
    for (int64_t d = 0; d < n->dv; d++)
        old_max = fmax(old_max, fabs(judged->x.old_out[at + d]));
    double logs = 8 * U * (new_lse + fmin(fabs(row->old_lse), new_lse + 200));
    double moved = empty ? 8 * U : row->lse + logs + e;
    row->v_max = fmax(row->v_max, old_max);
    row->out = fmin(row->out + fmin(2, expm1(moved)), 2);
    row->lse += logs + e;
    if (row->old_lse > -new_lse - 200) /* else it is lost beside the new one */
        row->lse += 8 * U * fabs(row->old_lse);
}

/* What a score may be off by, but for what tensor cores cut off. */
static double score_error(const judged_t *judged, row_t *row)
{
    const heed_attention_desc_t *desc = judged->desc;
    double cap = (double)desc->softcap;
    double error = gamma_of((double)judged->n.d + (scaled(desc) ? 8 : 4)) * row->scores;
    if (cap > 0) {
        error = fmin(error, 2 * cap) + 16 * U * cap;
        row->scores = fmin(row->scores, cap);
    }
    if (row->addend > 0)
        error += 6 * U * (row->scores + row->addend);
    return error;
}

static void find_bound(const judged_t *judged, row_t *row)
{
    double score = score_error(judged, row);
    row->sink = kit_attention_sink(judged->desc, &judged->x, row->h);
    double sums = gamma_of((double)row->keys * 17 / 16 + (scaled(judged->desc) ? 12 : 8));
    double e = exp_error(judged->desc), weight = expm1(2 * score) + 2 * sums + 2 * e;
    if (judged->desc->q.dtype == HEED_BF16)
        weight += 0x1p-8;
    if (judged->x.f16_weights)
        weight += 0x1p-11 + (double)row->keys * 0x1p-25;
    if (judged->x.split_weights)
        weight += 0x1p-15;
    row->out = row->keys ? fmin(weight, 2) : 0;
    row->lse = row->keys || row->sink != -INFINITY ? score + row->cut + sums + e : 0;
    row->old_lse = -INFINITY;
    if (!judged->x.old_lse)
        return;
    const kit_sizes_t *n = &judged->n;
    row->old_lse = judged->x.old_lse[kit_at(row->b, row->h, row->i, n->h, n->sq, 1)];
    if (row->old_lse != -INFINITY)
        merge_bound(judged, row);
}

/* ---- judging a row --------------------------------------------------------------------------- */

static bool is_empty(const row_t *row)
{
    return row->keys == 0 && row->old_lse == -INFINITY && row->sink == -INFINITY;
}

/* Half the smallest step of a type, and what flushing subnormal numbers may lose on the way. */
static double smallest_step(heed_dtype_t dtype)
{
    return dtype == HEED_F16 ? 0x1p-25 + 0x1p-124 : 0x1p-124;
}

static double out_bound(const row_t *row, heed_dtype_t dtype, double want)
{
    double before = row->out * row->v_max;
    return before + kit_unit_roundoff(dtype) * (fabs(want) + before) + U * fabs(want) +
           smallest_step(dtype);
}

/* f16 has no number from 65520 on: what may be there may be infinite. */
static bool may_overflow(heed_dtype_t dtype, double got, double want, double bound)
{
    return dtype == HEED_F16 && isinf(got) && want * got > 0 && fabs(want) + bound >= 65520;
}

static void judge_out(const judged_t *judged, const row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    heed_dtype_t dtype = judged->desc->out.dtype;
    int64_t at = kit_at(row->b, row->i, row->h, n->sq, n->h, n->dv);
    for (int64_t d = 0; d < n->dv; d++) {
        double want = is_empty(row) ? 0 : judged->x.want_out[at + d];
        double bound = is_empty(row) ? 0 : out_bound(row, dtype, want) + judged->rounding[d];
        if (!may_overflow(dtype, judged->x.out[at + d], want, bound))
            compare(judged->verdict, "out", row, d, judged->x.out[at + d], want, bound);
    }
}

static void judge_lse(const judged_t *judged, const row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    int64_t at = kit_at(row->b, row->h, row->i, n->h, n->sq, 1);
    double want = is_empty(row) ? -INFINITY : judged->x.want_lse[at];
    double bound = is_empty(row) ? 0 : row->lse + 4 * U * fabs(want);
    compare(judged->verdict, "lse", row, -1, judged->x.lse[at], want, bound);
}

/* ---- the reference itself -------------------------------------------------------------------- */

/* The row in double, by the formula: exact[Dv], exact_lse. */
static void compute_row(const judged_t *judged, row_t *row)
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
static void judge_reference(const judged_t *judged, row_t *row)
{
    const kit_sizes_t *n = &judged->n;
    int64_t at = kit_at(row->b, row->i, row->h, n->sq, n->h, n->dv);
    if (is_empty(row) || !row->finite)
        return;
    compute_row(judged, row);
    for (int64_t d = 0; d < n->dv; d++)
        compare(judged->verdict, "reference out", row, d, judged->x.want_out[at + d],
                judged->exact[d], out_bound(row, HEED_F32, judged->exact[d]));
    if (judged->x.want_lse)
        compare(judged->verdict, "reference lse", row, -1,
                judged->x.want_lse[kit_at(row->b, row->h, row->i, n->h, n->sq, 1)], row->exact_lse,
                row->lse + 4 * U * fabs(row->exact_lse));
}

/* Zeros where no weight is rounded. */
static void find_rounding(const judged_t *judged, const row_t *row)
{
    for (int64_t d = 0; d < judged->n.dv; d++)
        judged->rounding[d] = 0;
    if (judged->x.e4m3_weights && row->finite && row->keys)
        kit_attention_rounding(judged->desc, &judged->x, row->b, row->h, row->i, judged->sees,
                               row->cut, judged->rounding);
}

static void judge_rows(const judged_t *judged)
{
    const kit_sizes_t *n = &judged->n;
    int64_t rows = n->b * n->h * n->sq, every = rows / 3 + 1;
    for (int64_t r = 0; r < rows; r++) {
        row_t row = {.b = r / (n->h * n->sq), .h = r / n->sq % n->h, .i = r % n->sq};
        if (row.i >= judged->x.batch.sq[row.b])
            continue;
        find_sizes(judged, &row);
        find_bound(judged, &row);
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
static bool find_norms(judged_t *judged)
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
    judged_t judged = {.desc = desc, .verdict = verdict, .x = *arrays};
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
