/* Inputs for attention: q, k, v and the state that is merged into. */
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

static void normal(kit_random_t *random, double *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = kit_random_normal(random);
}

/* ---- the state that is merged into ----------------------------------------------------------- */

/* Old states are rounded to the inputs' type, so that a problem with out=f32 gets the same ones. */
static double rounded(heed_dtype_t dtype, double value)
{
    float held; /* room for any type */
    kit_store(dtype, &held, 0, value);
    return kit_load(dtype, &held, 0);
}

static double old_lse(kit_random_t *random, kit_values_t values)
{
    static const double extreme[] = {-INFINITY, 1e30, -1e30, 1e4, -1e4, 0, 88, -88};
    double plain = 3 + 2 * kit_random_normal(random);
    uint64_t pick = kit_random_next(random) % 16;
    if (values == KIT_VALUES_PLAIN)
        return pick == 0 ? -INFINITY : plain;
    return pick < 8 ? extreme[pick] : plain;
}

static void fill_state(kit_values_t values, const kit_inputs_t *in, void *const *data)
{
    const kit_sizes_t *n = &in->n;
    int64_t rows = n->b * n->h * n->sq;
    double *out = malloc((size_t)(rows * n->dv + 1) * sizeof(double));
    double *lse = malloc((size_t)(rows + 1) * sizeof(double));
    for (int64_t r = 0; out && lse && r < rows; r++) {
        int64_t b = r / (n->h * n->sq), h = r / n->sq % n->h, i = r % n->sq;
        double *row = out + kit_at(b, i, h, n->sq, n->h, n->dv);
        lse[r] = (double)(float)old_lse(in->random, values);
        for (int64_t d = 0; d < n->dv; d++)
            row[d] = lse[r] == -INFINITY
                         ? kit_attention_junk(in->random)
                         : rounded(in->desc->q.dtype, kit_random_normal(in->random));
    }
    if (out && lse) {
        kit_rows_scatter(in->desc, &in->x.batch, HEED_ATTENTION_OUT, data, out);
        kit_rows_scatter(in->desc, &in->x.batch, HEED_ATTENTION_LSE, data, lse);
    }
    free(out);
    free(lse);
}

/* Values of one sign in every second column: those sums grow with the keys, so that what tensor
 * cores cut off, and keys that were left out, show there at any length. */
static void one_sign(kit_inputs_t *in)
{
    for (int64_t i = 0; i < count_v(&in->n); i++)
        if (i % in->n.dv % 2)
            in->v[i] = fabs(in->v[i]);
}

/* What codes of a type with a scale are multiplied with, so that they use its range. */
static double stretch(heed_dtype_t dtype, bool scaled)
{
    double most = dtype == HEED_I8 ? 40 : dtype == HEED_E4M3 || dtype == HEED_E5M2 ? 8 : 1;
    return scaled ? most : 1;
}

/* The largest code of a type without infinities. */
static double largest_code(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3 ? 448 : dtype == HEED_E5M2 ? 57344 : INFINITY;
}

/* Keys or values to codes. What is no number stays so. */
static void put_codes(const kit_inputs_t *in, int operand, void *const *data, double *values,
                      int64_t count)
{
    bool key = operand == HEED_ATTENTION_K;
    heed_dtype_t dtype = key ? in->desc->k.dtype : in->desc->v.dtype;
    double factor = stretch(dtype, key ? in->desc->k_scale.ndim : in->desc->v_scale.ndim);
    double most = largest_code(dtype);
    for (int64_t i = 0; factor != 1 && i < count; i++)
        if (isfinite(values[i]))
            values[i] = fmax(-most, fmin(most, values[i] * factor));
    kit_rows_scatter(in->desc, &in->x.batch, operand, data, values);
}

/* Scales of keys or values; those of tokens that no sequence has stay poison. */
static void fill_scale(const kit_inputs_t *in, int operand, const heed_tensor_t *scale,
                       heed_dtype_t dtype, void *const *data)
{
    const kit_sizes_t *n = &in->n;
    double unit = 1 / stretch(dtype, true);
    for (int64_t h = 0; scale->ndim == 1 && h < scale->shape[0]; h++)
        kit_store(HEED_F32, data[operand], h, unit * (0.5 + kit_random_unit(in->random)));
    int64_t count = scale->ndim == 3 ? n->b * n->sk * n->hk : 0;
    double *values = malloc((size_t)(count + 1) * sizeof(double));
    for (int64_t i = 0; values && i < count; i++)
        values[i] = unit * (0.5 + kit_random_unit(in->random));
    if (values && scale->ndim == 3)
        kit_rows_scatter(in->desc, &in->x.batch, operand, data, values);
    free(values);
}

static void fill_scales(const kit_inputs_t *in, void *const *data)
{
    const heed_attention_desc_t *desc = in->desc;
    fill_scale(in, HEED_ATTENTION_K_SCALE, &desc->k_scale, desc->k.dtype, data);
    fill_scale(in, HEED_ATTENTION_V_SCALE, &desc->v_scale, desc->v.dtype, data);
}

void kit_attention_fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                        const kit_buffers_t *buffers)
{
    void *desc;
    if (heed_problem_desc(problem, &desc) != HEED_OK)
        return;
    kit_inputs_t in = {.desc = desc, .random = random};
    void *const *data = buffers->data;
    kit_attention_fill_extra(random, values, in.desc, data);
    bool good = kit_attention_read(in.desc, data, &in.x);
    in.n = in.x.batch.n;
    in.q = good ? malloc((size_t)(count_q(&in.n) + 1) * sizeof(double)) : NULL;
    in.k = good ? malloc((size_t)(count_k(&in.n) + 1) * sizeof(double)) : NULL;
    in.v = good ? malloc((size_t)(count_v(&in.n) + 1) * sizeof(double)) : NULL;
    if (in.q && in.k && in.v) {
        normal(random, in.q, count_q(&in.n));
        normal(random, in.k, count_k(&in.n));
        normal(random, in.v, count_v(&in.n));
        if (values == KIT_VALUES_EXTREME)
            kit_attention_make_extreme(&in);
        else if (in.desc->q.dtype == HEED_E4M3)
            one_sign(&in);
        kit_rows_scatter(in.desc, &in.x.batch, HEED_ATTENTION_Q, data, in.q);
        put_codes(&in, HEED_ATTENTION_K, data, in.k, count_k(&in.n));
        put_codes(&in, HEED_ATTENTION_V, data, in.v, count_v(&in.n));
        fill_scales(&in, data);
        if (in.desc->merge)
            fill_state(values, &in, data);
    }
    kit_buffers_keep(buffers);
    free(in.q);
    free(in.k);
    free(in.v);
    kit_attention_free(&in.x);
}
