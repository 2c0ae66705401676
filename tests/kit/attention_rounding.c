/* How far out may move where each weight is rounded to e4m3 before it multiplies its value.
 *
 * A weight w_j = p_j / l, with p_j up to 1 for the largest, is held as p_j 2^8 with 4 bits, and in
 * units of 2^-9 below 2^-6: rounding moves it by at most c_j = 2^-4 w_j + 2^-17 / l, for kernels
 * that subtract a reference up to twice as large as the largest score's.
 *
 *   surely   |error of out_d| <= sum_j c_j |v_jd|.
 *   likely   Roundings of different weights have nothing to do with each other, for where they lie
 *            between two numbers of e4m3 depends on the last bits of their logarithms. Weights
 * whose logarithms differ by less than 1/64 octave round alike: they make one term, C_d = sum c_j
 * |v_jd|. An error anywhere within -c .. c has the deviation c / sqrt(3): 7 deviations of the sum
 * are 4 sqrt(sum C_d^2).
 *
 * The bound is the smaller one, and what tensor cores cut off comes on top. A step adds 32 products
 * and the sum so far in units of 2^-13 of the largest, T_d at most, each 0 to 1 unit towards zero:
 * half a unit each where all have one sign, s_d of that where signs differ, and 5 deviations of
 * sqrt(33 / 12) units. Sums are flushed after 16 steps, and grow until then: on average half of
 * T_d.
 *
 * Scores that are off by up to c, which tensor cores cut off, change weights by factors of exp(-c)
 * to exp(c) over the same of their sum: out moves by (exp(2 c) - 1) sum_j w_j |v_jd - out_d| at
 * most.
 *
 * A value in the wrong place moves out by about |w_j| sqrt(2), which is more than this wherever a
 * few weights make up the row. */
#include "kit_attention.h"

#include <math.h>
#include <stdlib.h>

typedef struct weight {
    double log2; /* over the largest: 0 or less */
    int64_t key;
} weight_t;

static int by_size(const void *x, const void *y)
{
    double a = ((const weight_t *)x)->log2, b = ((const weight_t *)y)->log2;
    return (a < b) - (a > b);
}

/* The visible weights, largest first. Returns how many; *sum is l. */
static int64_t find_weights(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                            int64_t h, int64_t i, const uint8_t *sees, weight_t *weights,
                            double *sum)
{
    kit_sizes_t n = x->batch.n;
    const double *q = x->q + kit_at(b, i, h, n.sq, n.h, n.d);
    int64_t count = 0;
    for (int64_t j = 0; j < n.sk; j++) {
        if (!sees[j])
            continue;
        const double *k = x->k + kit_at(b, j, h / (n.h / n.hk), n.sk, n.hk, n.d);
        double dot = 0;
        for (int64_t d = 0; d < n.d; d++)
            dot += q[d] * k[d];
        double score = kit_attention_score(desc, x, b, h, i, j, dot);
        weights[count++] = (weight_t){score * 1.4426950408889634, j};
    }
    qsort(weights, (size_t)count, sizeof(*weights), by_size);
    *sum = 0;
    for (int64_t w = count - 1; w >= 0; w--) {
        weights[w].log2 -= weights[0].log2;
        *sum += exp2(weights[w].log2);
    }
    return count;
}

/* Adds the square of a finished term to the second part of the bound, and starts another. */
static void end_term(int64_t dv, double *term, double *squares)
{
    for (int64_t d = 0; d < dv; d++) {
        squares[d] += term[d] * term[d];
        term[d] = 0;
    }
}

/* What tensor cores cut off a sum of `count` terms: their sum and its deviation, their sizes, and
 * how many more of them have one sign than the other. */
static double cut_off(double count, double sum, double deviation, double sizes, double same)
{
    double steps = fmin(count / 32 + 1, 16), top = fmin(fabs(sum) + 3 * deviation, sizes);
    double coherent = 0.5 * 33 * fabs(same) / count * steps / 2;
    return 0x1p-13 * top * (coherent + 5 * sqrt(steps * 33 / 12));
}

bool kit_attention_rounding(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                            int64_t h, int64_t i, const uint8_t *sees, double cut, double *bound)
{
    kit_sizes_t n = x->batch.n;
    weight_t *weights = malloc((size_t)(n.sk + 1) * sizeof(*weights));
    double *term = calloc((size_t)n.dv * 6, sizeof(*term)), *squares = term + n.dv, sum;
    double *out = squares + n.dv, *spread = out + n.dv, *same = spread + n.dv, *apart = same + n.dv;
    if (!weights || !term) {
        free(weights);
        free(term);
        return false;
    }
    int64_t count = find_weights(desc, x, b, h, i, sees, weights, &sum);
    for (int64_t d = 0; d < n.dv; d++)
        bound[d] = 0;
    for (int64_t w = 0; w < count; w++) {
        double p = exp2(weights[w].log2) / sum, c = 0x1p-4 * p + 0x1p-17 / sum;
        const double *v = x->v + kit_at(b, weights[w].key, h / (n.h / n.hk), n.sk, n.hk, n.dv);
        if (w > 0 && floor(weights[w].log2 * 64) != floor(weights[w - 1].log2 * 64))
            end_term(n.dv, term, squares);
        for (int64_t d = 0; d < n.dv; d++) {
            term[d] += c * fabs(v[d]);
            bound[d] += c * fabs(v[d]);
            out[d] += p * v[d];
            spread[d] += p * v[d] * p * v[d];
            same[d] += (v[d] > 0) - (v[d] < 0);
        }
    }
    end_term(n.dv, term, squares);
    for (int64_t w = 0; w < count; w++) {
        double p = exp2(weights[w].log2) / sum;
        const double *v = x->v + kit_at(b, weights[w].key, h / (n.h / n.hk), n.sk, n.hk, n.dv);
        for (int64_t d = 0; d < n.dv; d++)
            apart[d] += p * fabs(v[d] - out[d]);
    }
    for (int64_t d = 0; d < n.dv; d++)
        bound[d] = fmin(bound[d], 4 * sqrt(squares[d])) + expm1(fmin(2 * cut, 1)) * apart[d] +
                   cut_off((double)count, out[d], sqrt(spread[d]), 16 * bound[d], same[d]);
    free(weights);
    free(term);
    return true;
}
