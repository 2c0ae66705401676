/* Inputs that are difficult: EXTREME picks one way of it for each problem, and replaces what no
 * query sees by NaN and infinities. Keys and values are codes here: their scales come on top. */
#include "kit_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t count_q(const kit_sizes_t *n)
{
    return n->b * n->sq * n->h * n->d;
}

static int64_t count_k(const kit_sizes_t *n)
{
    return n->b * n->sk * n->hk * n->d;
}

static int64_t count_v(const kit_sizes_t *n)
{
    return n->b * n->sk * n->hk * n->dv;
}

static void scale_by(double *values, int64_t count, double factor)
{
    for (int64_t i = 0; i < count; i++)
        values[i] *= factor;
}

/* ---- ways of being difficult ----------------------------------------------------------------- */

/* Scores of about 10^2 to 10^4.5: nearly one-hot, exp overflows without the maximum. */
static void huge_scores(kit_inputs_t *in)
{
    double size = pow(10, 2 + 2.5 * kit_random_unit(in->random)), d = (double)in->n.d;
    double scale = in->desc->scale != 0 ? fabs((double)in->desc->scale) : 1 / sqrt(d);
    double factor = sqrt(size / (scale * sqrt(d)));
    scale_by(in->q, count_q(&in->n), fmin(factor, 1e3));
    scale_by(in->k, count_k(&in->n), fmin(factor, 1e3));
}

/* Every score far below zero: a maximum that starts at 0 or at -1e4 gives empty rows. */
static void negative_scores(kit_inputs_t *in)
{
    double sign = in->desc->scale < 0 ? 1 : -1, size = sqrt(1e5 / sqrt((double)in->n.d));
    for (int64_t i = 0; i < count_q(&in->n); i++)
        in->q[i] = size + in->q[i] * 0x1p-6;
    for (int64_t i = 0; i < count_k(&in->n); i++)
        in->k[i] = sign * (size + in->k[i] * 0x1p-6);
}

/* Exact ties of the row maximum. */
static void repeated_keys(kit_inputs_t *in)
{
    int64_t row = in->n.hk * in->n.d, of = kit_random_int(in->random, 1, 3);
    for (int64_t b = 0; b < in->n.b; b++)
        for (int64_t j = of; j < in->n.sk; j++)
            memcpy(in->k + (b * in->n.sk + j) * row, in->k + (b * in->n.sk + j % of) * row,
                   (size_t)row * sizeof(double));
}

static void signed_zeros(kit_random_t *random, double *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = kit_random_next(random) & 1 ? -0.0 : 0.0;
}

static void zeros(kit_inputs_t *in)
{
    uint64_t which = kit_random_next(in->random) % 7 + 1;
    if (which & 1)
        signed_zeros(in->random, in->q, count_q(&in->n));
    if (which & 2)
        signed_zeros(in->random, in->k, count_k(&in->n));
    if (which & 4)
        signed_zeros(in->random, in->v, count_v(&in->n));
}

static void denormals(kit_inputs_t *in)
{
    heed_dtype_t dtype = in->desc->q.dtype;
    double factor = dtype == HEED_F16 ? 0x1p-19 : dtype == HEED_E4M3 ? 0x1p-8 : 0x1p-130;
    uint64_t which = kit_random_next(in->random) % 7 + 1;
    if (which & 1)
        scale_by(in->q, count_q(&in->n), factor);
    if (which & 2)
        scale_by(in->k, count_k(&in->n), factor);
    if (which & 4)
        scale_by(in->v, count_v(&in->n), factor);
}

/* The largest finite value of f16 and e4m3; with the others, where sums of f32 still hold: no
 * kernel is asked to survive the overflow of a sum of values. */
static double largest(heed_dtype_t dtype)
{
    return dtype == HEED_F16    ? 65504
           : dtype == HEED_E4M3 ? 448
           : dtype == HEED_E5M2 ? 57344
           : dtype == HEED_I8   ? 127
                                : 1e33;
}

/* Values up to the largest. Scores that f16 could not hold. */
static void near_max(kit_inputs_t *in)
{
    double most = largest(in->desc->v.dtype), size = most < 1e6 ? most / 3 : 1e32;
    for (int64_t i = 0; i < count_v(&in->n); i++)
        in->v[i] = copysign(fmin(most, size * fabs(in->v[i])), in->v[i]);
    scale_by(in->q, count_q(&in->n), 64);
    scale_by(in->k, count_k(&in->n), 64);
}

/* Scores that climb, fall or leap along the keys: the online maximum moves often, or
 * once. */
static void moving_maximum(kit_inputs_t *in)
{
    const kit_sizes_t *n = &in->n;
    int64_t way = kit_random_int(in->random, 0, 2), at = kit_random_int(in->random, 0, n->sk);
    double step = 0.1 + 2 * kit_random_unit(in->random);
    for (int64_t i = 0; i < count_q(n); i += n->d)
        in->q[i] = 4 * sqrt((double)n->d);
    for (int64_t j = 0; j < n->b * n->sk * n->hk; j++) {
        int64_t key = j / n->hk % n->sk;
        in->k[j * n->d] = step * (double)(way == 0 ? key : way == 1 ? -key : (key == at) * 50);
    }
}

/* All scores are 0 but those of one key with half of the queries: those weigh more than 2^127 times
 * as much, which neither a weight's exponent nor a sum of weights can hold. */
static void lone_outlier(kit_inputs_t *in)
{
    const kit_sizes_t *n = &in->n;
    double scale = in->desc->scale != 0 ? (double)in->desc->scale : 1 / sqrt((double)n->d);
    double size =
        sqrt((128 + 150 * kit_random_unit(in->random)) * 0.6931471805599453 / fabs(scale));
    int64_t at = kit_random_int(in->random, 0, n->sk), bit = 1 << kit_random_int(in->random, 0, 6);
    for (int64_t i = 0; i < count_q(n); i++)
        in->q[i] = i % n->d == 0 && i / n->d / n->h % n->sq & bit ? size : 0;
    for (int64_t i = 0; i < count_k(n); i++)
        in->k[i] = i % n->d == 0 && i / n->d / n->hk % n->sk == at ? copysign(size, scale) : 0;
}

/* One key far above the others, with values of 0: out is what the many small weights make of values
 * about 1, which is lost where small weights are. */
static void one_peak(kit_inputs_t *in)
{
    const kit_sizes_t *n = &in->n;
    double scale = in->desc->scale != 0 ? (double)in->desc->scale : 1 / sqrt((double)n->d);
    int64_t at = kit_random_int(in->random, 0, n->sk), row = n->hk * n->dv;
    double nats = 4 + 4 * kit_random_unit(in->random), size = sqrt(nats / fabs(scale));
    for (int64_t i = 0; i < count_q(n); i += n->d)
        in->q[i] = size;
    for (int64_t j = 0; j < n->b * n->sk * n->hk; j++)
        in->k[j * n->d] = j / n->hk % n->sk == at ? copysign(size, scale) : 0;
    for (int64_t i = 0; i < count_v(n); i++)
        in->v[i] = i / row % n->sk == at ? 0 : 1 + in->v[i] / 8;
}

/* ---- what nobody sees ------------------------------------------------------------------------ */

double kit_attention_junk(kit_random_t *random)
{
    static const double values[] = {NAN, INFINITY, -INFINITY, -NAN};
    return values[kit_random_next(random) % 4];
}

static void spoil_key(kit_inputs_t *in, int64_t key)
{
    uint64_t which = kit_random_next(in->random) % 3 + 1;
    for (int64_t d = 0; which & 1 && d < in->n.d; d++)
        in->k[key * in->n.d + d] = kit_attention_junk(in->random);
    for (int64_t d = 0; which & 2 && d < in->n.dv; d++)
        in->v[key * in->n.dv + d] = kit_attention_junk(in->random);
}

/* Puts NaN and infinities into keys that no query of their group sees. */
static void spoil_unseen(kit_inputs_t *in)
{
    const kit_sizes_t *n = &in->n;
    uint8_t *sees = malloc((size_t)n->sk + 1), *seen = malloc((size_t)n->sk + 1);
    const kit_batch_t *batch = &in->x.batch;
    int64_t group = n->h / n->hk;
    for (int64_t p = 0; sees && seen && p < n->b * n->hk; p++) {
        int64_t b = p / n->hk, g = p % n->hk;
        memset(seen, 0, (size_t)n->sk);
        for (int64_t r = 0; r < group * batch->sq[b]; r++) {
            kit_attention_sees(in->desc, &in->x, b, g * group + r / batch->sq[b], r % batch->sq[b],
                               sees);
            for (int64_t j = 0; j < n->sk; j++)
                seen[j] |= sees[j];
        }
        for (int64_t j = 0; j < n->sk; j++)
            if (!seen[j])
                spoil_key(in, (b * n->sk + j) * n->hk + g);
    }
    free(sees);
    free(seen);
}

/* Two ways in a row may leave what a type can hold, or what a score can: both would be infinities
 * that some query sees. */
static void hold(double *values, int64_t count, double most)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = fmax(-most, fmin(most, values[i]));
}

/* A few keys, or queries, that are no numbers: the rows that see them are lost, and no others. */
static void lost_rows(kit_inputs_t *in)
{
    const kit_sizes_t *n = &in->n;
    int64_t keys = n->b * n->sk * n->hk, queries = n->b * n->sq * n->h;
    for (int64_t i = kit_random_int(in->random, 1, 3); i > 0 && keys > 0 && queries > 0; i--) {
        spoil_key(in, kit_random_int(in->random, 0, keys - 1));
        double *q = in->q + kit_random_int(in->random, 0, queries - 1) * n->d;
        if (kit_random_next(in->random) % 2)
            q[kit_random_int(in->random, 0, n->d - 1)] = NAN;
    }
}

void kit_attention_make_extreme(kit_inputs_t *in)
{
    static void (*const ways[])(kit_inputs_t *) = {huge_scores,    negative_scores, repeated_keys,
                                                   zeros,          denormals,       near_max,
                                                   moving_maximum, lone_outlier,    one_peak};
    enum { WAYS = sizeof(ways) / sizeof(ways[0]) };
    ways[kit_random_next(in->random) % WAYS](in);
    if (kit_random_next(in->random) % 4 == 0)
        ways[kit_random_next(in->random) % WAYS](in);
    double most = largest(in->desc->q.dtype);
    hold(in->q, count_q(&in->n), fmin(most, 1e12));
    hold(in->k, count_k(&in->n), fmin(largest(in->desc->k.dtype), 1e12));
    /* Values are means of values: what q's type cannot hold, out may not. */
    double most_out = largest(in->desc->q.dtype) / (in->desc->v_scale.ndim ? 2 : 1);
    hold(in->v, count_v(&in->n), fmin(largest(in->desc->v.dtype), most_out));
    if (kit_random_next(in->random) % 6 == 0)
        lost_rows(in);
    spoil_unseen(in);
}
