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
 *           values whatever the weights are. Then out is rounded to its type.
 *           Weights rounded to f16, at most 1 beside an l of 1 or more, add 2^-11 of each, and
 *           2^-25 where they are subnormal.
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
#include "attention_bound.h"

#include <math.h>

#define U    0x1p-24
#define UNIT 0x1p-13 /* of tensor cores with e4m3 */

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
static double size_of_addend(const kit_judged_t *judged, int64_t b, int64_t h, int64_t i, int64_t j)
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
static void find_sizes(const kit_judged_t *judged, kit_row_t *row)
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
static void merge_bound(const kit_judged_t *judged, kit_row_t *row)
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
static double score_error(const kit_judged_t *judged, kit_row_t *row)
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

static void find_bound(const kit_judged_t *judged, kit_row_t *row)
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

void kit_row_bound(const kit_judged_t *judged, kit_row_t *row)
{
    find_sizes(judged, row);
    find_bound(judged, row);
}

/* Half the smallest step of a type, and what flushing subnormal numbers may lose on the way. */
static double smallest_step(heed_dtype_t dtype)
{
    return dtype == HEED_F16 ? 0x1p-25 + 0x1p-124 : 0x1p-124;
}

double kit_row_out_bound(const kit_row_t *row, heed_dtype_t dtype, double want)
{
    double before = row->out * row->v_max;
    return before + kit_unit_roundoff(dtype) * (fabs(want) + before) + U * fabs(want) +
           smallest_step(dtype);
}

double kit_row_lse_bound(const kit_row_t *row, double want)
{
    return row->lse + 4 * U * fabs(want);
}
