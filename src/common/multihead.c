/* Multi-head dilated attention: linear layers of one rank around the dilated operation. */
#include "internal.h"
#include "loop.h"
#include "mix.h"

#include <heed/cast.h>
#include <heed/linear.h>
#include <heed/multihead.h>

#include <math.h>
#include <string.h>

typedef struct multihead {
    heed_context_t *context;
    heed_multihead_config_t config;
    heed_multihead_desc_t desc; /* key and value are those of query where absent */
    heed_comm_t comm;           /* of this rank alone */
    int64_t batch, tokens, embed, keys;
    int64_t step;         /* batch entries at a time */
    float *q, *k, *v, *a; /* [step,N,E], [step,N,K] twice, [step,N,E] */
} multihead_t;

/* ---- checking -------------------------------------------------------------------------------- */

typedef struct wanted {
    const char *name;
    const heed_tensor_t *tensor;
    bool there; /* 0: must be absent */
    bool output;
    int ndim;
    int64_t shape[3]; /* -1: any */
} wanted_t;

static heed_status_t check_tensor(const wanted_t *want)
{
    heed_tensor_t full;
    hd_axes_t axes;
    if (!want->there)
        return want->tensor->ndim
                   ? hd_fail(HEED_ERROR_VALUE, "%s is there, but the configuration has none",
                             want->name)
                   : HEED_OK;
    HD_TRY(hd_tensor_complete(want->name, want->tensor, want->output, &full, &axes));
    if (full.ndim != want->ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not %d", want->name, full.ndim, want->ndim);
    for (int a = 0; a < full.ndim; a++)
        if (want->shape[a] >= 0 && full.shape[a] != want->shape[a])
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld is not %lld", want->name, a,
                           (long long)full.shape[a], (long long)want->shape[a]);
    if (full.dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "%s is %s: multi-head attention takes f32", want->name,
                       heed_dtype_name(full.dtype));
    if (want->tensor->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_UNSUPPORTED, "%s.device is no CPU", want->name);
    if (full.shape[full.ndim - 1] > 1 && full.strides[full.ndim - 1] != 1)
        return hd_fail(HEED_ERROR_STRIDE, "%s: its last axis is not dense", want->name);
    if (hd_tensor_elements(&full) && !want->tensor->data)
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", want->name);
    return HEED_OK;
}

static heed_status_t check_all(const wanted_t *wanted, int count)
{
    for (int i = 0; i < count; i++)
        HD_TRY(check_tensor(&wanted[i]));
    return HEED_OK;
}

static heed_status_t check_config(multihead_t *to)
{
    const heed_multihead_config_t *config = &to->config;
    int64_t kv = config->num_kv_heads ? config->num_kv_heads : config->num_heads;
    if (config->num_heads < 1 || config->embed_dim < 1 || config->embed_dim % config->num_heads)
        return hd_fail(HEED_ERROR_VALUE, "embed_dim=%lld is no multiple of num_heads=%lld",
                       (long long)config->embed_dim, (long long)config->num_heads);
    if (kv < 1 || config->num_heads % kv)
        return hd_fail(HEED_ERROR_VALUE, "num_kv_heads=%lld does not divide num_heads=%lld",
                       (long long)kv, (long long)config->num_heads);
    if (config->batch_step < 0)
        return hd_fail(HEED_ERROR_VALUE, "batch_step=%d is negative", config->batch_step);
    if (!(config->layer_norm_eps >= 0) || !isfinite(config->gamma_init))
        return hd_fail(HEED_ERROR_VALUE, "layer_norm_eps=%g, gamma_init=%g: finite, eps 0 or more",
                       (double)config->layer_norm_eps, (double)config->gamma_init);
    if (!memchr(config->impl, 0, sizeof(config->impl)))
        return hd_fail(HEED_ERROR_VALUE, "impl does not end");
    to->embed = config->embed_dim;
    to->keys = config->embed_dim / config->num_heads * kv;
    return HEED_OK;
}

/* Copies desc and config, and checks the parameters. */
static heed_status_t open_parameters(const heed_multihead_desc_t *desc, bool output,
                                     multihead_t *to)
{
    HD_TRY(hd_struct_copy(&to->desc, sizeof(to->desc), desc, sizeof(to->desc), "desc"));
    HD_TRY(hd_struct_copy(&to->config, sizeof(to->config), to->desc.config, sizeof(to->config),
                          "desc.config"));
    HD_TRY(check_config(to));
    const heed_multihead_desc_t *d = &to->desc;
    int64_t e = to->embed, k = to->keys;
    bool bias = to->config.bias, norm = to->config.layer_norm;
    const wanted_t wanted[] = {
        {"q_weight", &d->q_weight, true, output, 2, {e, e}},
        {"k_weight", &d->k_weight, true, output, 2, {k, e}},
        {"v_weight", &d->v_weight, true, output, 2, {k, e}},
        {"out_weight", &d->out_weight, true, output, 2, {e, e}},
        {"q_bias", &d->q_bias, bias, output, 1, {e}},
        {"k_bias", &d->k_bias, bias, output, 1, {k}},
        {"v_bias", &d->v_bias, bias, output, 1, {k}},
        {"out_bias", &d->out_bias, bias, output, 1, {e}},
        {"norm_gamma", &d->norm_gamma, norm, output, 1, {e}},
        {"norm_beta", &d->norm_beta, norm, output, 1, {e}},
    };
    return check_all(wanted, HD_COUNT(wanted));
}

static heed_status_t open_tokens(multihead_t *to)
{
    heed_multihead_desc_t *d = &to->desc;
    const wanted_t query = {"query", &d->query, true, false, 3, {-1, -1, to->embed}};
    HD_TRY(check_tensor(&query));
    int64_t b = to->batch = d->query.shape[0], n = to->tokens = d->query.shape[1];
    const wanted_t wanted[] = {
        {"key", &d->key, d->key.ndim > 0, false, 3, {b, n, to->embed}},
        {"value", &d->value, d->value.ndim > 0, false, 3, {b, n, to->embed}},
        {"out", &d->out, true, true, 3, {b, n, to->embed}},
    };
    HD_TRY(check_all(wanted, HD_COUNT(wanted)));
    if (!d->key.ndim)
        d->key = d->query;
    if (!d->value.ndim)
        d->value = d->query;
    to->step = to->config.batch_step ? hd_min(to->config.batch_step, b) : b;
    return HEED_OK;
}

/* ---- projections ----------------------------------------------------------------------------- */

/* Batch entry b of a [B,N,C] tensor as a matrix. */
static heed_tensor_t entry_of(const heed_tensor_t *from, int64_t b, hd_axes_t *axes)
{
    hd_dense_strides(3, from->shape, axes->strides);
    if (from->strides)
        memcpy(axes->strides, from->strides, 3 * sizeof(int64_t));
    char *data = hd_tensor_data(from) + b * axes->strides[0] * (int64_t)sizeof(float);
    memcpy(axes->shape, from->shape + 1, 2 * sizeof(int64_t));
    memmove(axes->strides, axes->strides + 1, 2 * sizeof(int64_t));
    return heed_tensor(data, HEED_F32, 2, axes->shape, axes->strides);
}

static heed_tensor_t matrix_of(float *data, int64_t rows, int64_t columns, hd_axes_t *axes)
{
    axes->shape[0] = rows;
    axes->shape[1] = columns;
    return heed_tensor(data, HEED_F32, 2, axes->shape, NULL);
}

static heed_status_t project(const multihead_t *to, const heed_tensor_t *x,
                             const heed_tensor_t *weight, const heed_tensor_t *bias,
                             const heed_tensor_t *out)
{
    heed_linear_desc_t linear = heed_linear_desc();
    linear.x = *x;
    linear.w = *weight;
    linear.bias = *bias;
    linear.out = *out;
    return heed_parallel_linear(to->context, &to->comm, &linear);
}

/* q, k and v of the batch entries first .. first+count-1. */
static heed_status_t project_in(const multihead_t *to, int64_t first, int64_t count)
{
    const heed_multihead_desc_t *d = &to->desc;
    const struct {
        const heed_tensor_t *x, *weight, *bias;
        float *to;
        int64_t columns;
    } all[] = {{&d->query, &d->q_weight, &d->q_bias, to->q, to->embed},
               {&d->key, &d->k_weight, &d->k_bias, to->k, to->keys},
               {&d->value, &d->v_weight, &d->v_bias, to->v, to->keys}};
    for (int i = 0; i < HD_COUNT(all); i++)
        for (int64_t b = 0; b < count; b++) {
            hd_axes_t axes[2];
            heed_tensor_t x = entry_of(all[i].x, first + b, &axes[0]);
            heed_tensor_t out = matrix_of(all[i].to + b * to->tokens * all[i].columns, to->tokens,
                                          all[i].columns, &axes[1]);
            HD_TRY(project(to, &x, all[i].weight, all[i].bias, &out));
        }
    return HEED_OK;
}

static heed_status_t project_out(const multihead_t *to, int64_t first, int64_t count)
{
    for (int64_t b = 0; b < count; b++) {
        hd_axes_t axes[2];
        heed_tensor_t x =
            matrix_of(to->a + b * to->tokens * to->embed, to->tokens, to->embed, &axes[0]);
        heed_tensor_t out = entry_of(&to->desc.out, first + b, &axes[1]);
        HD_TRY(project(to, &x, &to->desc.out_weight, &to->desc.out_bias, &out));
    }
    return HEED_OK;
}

/* ---- attention and norm ---------------------------------------------------------------------- */

/* Rounds to the attention's type, in place. */
static heed_status_t narrow(const multihead_t *to, float *data, int64_t count)
{
    heed_cast_desc_t cast = heed_cast_desc();
    if (to->config.dtype == HEED_F32)
        return HEED_OK;
    cast.src = heed_tensor(data, HEED_F32, 1, &count, NULL);
    cast.dst = heed_tensor(data, to->config.dtype, 1, &count, NULL);
    return heed_cast(to->context, &cast);
}

static heed_status_t execute(const multihead_t *to, const heed_dilated_desc_t *desc)
{
    heed_plan_t *plan;
    size_t bytes, alignment;
    HD_TRY(heed_plan_create_named(to->context, "dilated", to->config.impl, desc, &plan));
    heed_status_t status = heed_plan_workspace(plan, &bytes, &alignment);
    void *workspace = bytes ? hd_alloc_aligned(to->context, bytes, alignment) : NULL;
    void *const buffers[] = {to->q, to->k, to->v, to->a};
    if (bytes && !workspace)
        status = hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a workspace of %zu bytes", bytes);
    if (status == HEED_OK)
        status = heed_plan_execute(plan, buffers, HD_COUNT(buffers), workspace, bytes, NULL);
    hd_free(to->context, workspace);
    heed_plan_destroy(plan);
    return status;
}

static heed_status_t attend(const multihead_t *to, int64_t count)
{
    const heed_multihead_config_t *config = &to->config;
    int64_t n = to->tokens, h = config->num_heads, d = to->embed / h, hk = to->keys / d;
    int64_t wide[] = {count, n, h, d}, few[] = {count, n, hk, d};
    heed_dilated_desc_t desc = heed_dilated_desc();
    desc.mode = config->mode;
    desc.offset_rule = config->offset_rule;
    desc.causal = config->causal;
    desc.scale = config->scale;
    desc.branches = config->branches;
    memcpy(desc.segments, config->segment_lengths, sizeof(desc.segments));
    memcpy(desc.rates, config->dilation_rates, sizeof(desc.rates));
    desc.q = heed_tensor(to->q, config->dtype, 4, wide, NULL);
    desc.k = heed_tensor(to->k, config->dtype, 4, few, NULL);
    desc.v = heed_tensor(to->v, config->dtype, 4, few, NULL);
    desc.out = heed_tensor(to->a, HEED_F32, 4, wide, NULL);
    HD_TRY(narrow(to, to->q, count * n * to->embed));
    HD_TRY(narrow(to, to->k, count * n * to->keys));
    HD_TRY(narrow(to, to->v, count * n * to->keys));
    return execute(to, &desc);
}

/* (x - mean) / sqrt(variance + eps) * gamma + beta of one row, in place (Ba et al., Layer
 * Normalization, 2016). */
static void normalize_row(void *at, int worker, int64_t i)
{
    const multihead_t *to = at;
    const float *gamma = (const float *)(void *)hd_tensor_data(&to->desc.norm_gamma);
    const float *beta = (const float *)(void *)hd_tensor_data(&to->desc.norm_beta);
    float *row = to->a + i * to->embed;
    double mean = 0, variance = 0;
    (void)worker;
    for (int64_t c = 0; c < to->embed; c++)
        mean += (double)row[c];
    mean /= (double)to->embed;
    for (int64_t c = 0; c < to->embed; c++)
        variance += ((double)row[c] - mean) * ((double)row[c] - mean);
    double scale = 1 / sqrt(variance / (double)to->embed + (double)to->config.layer_norm_eps);
    for (int64_t c = 0; c < to->embed; c++)
        row[c] = (float)(((double)row[c] - mean) * scale * (double)gamma[c] + (double)beta[c]);
}

/* ---- running --------------------------------------------------------------------------------- */

/* q, k, v and a in one block, each at a multiple of 64 bytes. */
static heed_status_t allocate(multihead_t *to, char **memory)
{
    const int64_t columns[] = {to->embed, to->keys, to->keys, to->embed};
    float **const parts[] = {&to->q, &to->k, &to->v, &to->a};
    size_t at[4], bytes = 0;
    for (int i = 0; i < 4; i++) {
        int64_t count;
        if (!hd_mul(to->step, to->tokens, &count) || !hd_mul(count, columns[i], &count) ||
            count > INT64_MAX / 64)
            return hd_fail(HEED_ERROR_SHAPE, "query: too many elements to address");
        at[i] = bytes;
        bytes += hd_round_up((size_t)count * sizeof(float), 64);
    }
    *memory = hd_alloc_aligned(to->context, bytes, 64);
    if (!*memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY,
                       "no memory for q, k, v and the attention, %zu bytes", bytes);
    for (int i = 0; i < 4; i++)
        *parts[i] = (float *)(void *)(*memory + at[i]);
    return HEED_OK;
}

static heed_status_t run(multihead_t *to)
{
    int threads = to->context->devices[0].threads;
    for (int64_t b = 0; b < to->batch; b += to->step) {
        int64_t count = hd_min(to->step, to->batch - b);
        HD_TRY(project_in(to, b, count));
        HD_TRY(attend(to, count));
        if (to->config.layer_norm)
            hd_loop(threads, count * to->tokens, normalize_row, to);
        HD_TRY(project_out(to, b, count));
    }
    return HEED_OK;
}

heed_status_t heed_multihead_dilated_attention(heed_context_t *context,
                                               const heed_multihead_desc_t *desc)
{
    multihead_t to = {.context = context};
    char *memory = NULL;
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(open_parameters(desc, false, &to));
    HD_TRY(open_tokens(&to));
    if (to.batch == 0 || to.tokens == 0)
        return HEED_OK;
    HD_TRY(heed_comm_threads(context, 1, 0, &to.comm));
    heed_status_t status = allocate(&to, &memory);
    if (status == HEED_OK)
        status = run(&to);
    hd_free(context, memory);
    heed_comm_threads_free(&to.comm);
    return status;
}

/* ---- initial parameters ---------------------------------------------------------------------- */

static double unit(uint64_t *state)
{
    *state += HD_MIX_STEP;
    return ((double)(hd_mix(*state) >> 11) + 0.5) * 0x1p-53;
}

/* Box and Muller, 1958. */
static double normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(unit(state)));
    return radius * cos(6.283185307179586477 * unit(state));
}

static void fill_weight(const heed_tensor_t *weight, double gain, uint64_t seed)
{
    int64_t rows = weight->shape[0], columns = weight->shape[1];
    int64_t stride = weight->strides ? weight->strides[0] : columns;
    double deviation = gain * sqrt(2 / (double)(rows + columns));
    float *data = (float *)(void *)hd_tensor_data(weight);
    uint64_t state = hd_mix(seed);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            data[i * stride + j] = (float)(deviation * normal(&state));
}

static void fill_vector(const heed_tensor_t *vector, float value)
{
    float *data = (float *)(void *)hd_tensor_data(vector);
    for (int64_t i = 0; vector->ndim && i < vector->shape[0]; i++)
        data[i] = value;
}

heed_status_t heed_multihead_init(const heed_multihead_desc_t *desc, uint64_t seed)
{
    multihead_t to = {.context = NULL};
    HD_TRY(open_parameters(desc, true, &to));
    const heed_multihead_desc_t *d = &to.desc;
    double gamma = (double)to.config.gamma_init;
    fill_weight(&d->q_weight, 1, seed);
    fill_weight(&d->k_weight, 1, seed + 1);
    fill_weight(&d->v_weight, gamma, seed + 2);
    fill_weight(&d->out_weight, gamma, seed + 3);
    const heed_tensor_t *const zeros[] = {&d->q_bias, &d->k_bias, &d->v_bias, &d->out_bias,
                                          &d->norm_beta};
    for (int i = 0; i < HD_COUNT(zeros); i++)
        fill_vector(zeros[i], 0);
    fill_vector(&d->norm_gamma, 1);
    return HEED_OK;
}
