/* What multi-head dilated attention takes. */
#include "multihead_parts.h"

#include <math.h>
#include <string.h>

const char *const hd_multihead_names[] = {
    "query",  "key",      "value",  "out",        "q_weight",  "q_bias",     "k_weight",
    "k_bias", "v_weight", "v_bias", "norm_gamma", "norm_beta", "out_weight", "out_bias"};

const heed_tensor_t *hd_multihead_tensor(const heed_multihead_desc_t *desc, int operand)
{
    const heed_tensor_t *const tensors[] = {
        &desc->query,      &desc->key,       &desc->value,      &desc->out,      &desc->q_weight,
        &desc->q_bias,     &desc->k_weight,  &desc->k_bias,     &desc->v_weight, &desc->v_bias,
        &desc->norm_gamma, &desc->norm_beta, &desc->out_weight, &desc->out_bias};
    return tensors[operand];
}

typedef struct wanted {
    int operand;
    bool there; /* 0: must be absent */
    int ndim;
    int64_t shape[3]; /* -1: any */
} wanted_t;

static heed_status_t check_place(const char *name, const heed_tensor_t *tensor,
                                 const heed_tensor_t *full, bool data)
{
    if (full->dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "%s is %s: multi-head attention takes f32", name,
                       heed_dtype_name(full->dtype));
    if (tensor->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_UNSUPPORTED, "%s.device is no CPU", name);
    if (full->shape[full->ndim - 1] > 1 && full->strides[full->ndim - 1] != 1)
        return hd_fail(HEED_ERROR_STRIDE, "%s: its last axis is not dense", name);
    if (data && hd_tensor_elements(full) && !tensor->data)
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    return HEED_OK;
}

static heed_status_t check_tensor(const heed_multihead_desc_t *desc, const wanted_t *want,
                                  bool data, bool output, hd_multihead_t *to)
{
    const char *name = hd_multihead_names[want->operand];
    const heed_tensor_t *tensor = hd_multihead_tensor(desc, want->operand);
    heed_tensor_t *full = &to->tensors[want->operand];
    *full = (heed_tensor_t){0};
    if (!want->there)
        return tensor->ndim
                   ? hd_fail(HEED_ERROR_VALUE, "%s is there, but the configuration has none", name)
                   : HEED_OK;
    HD_TRY(hd_tensor_complete(name, tensor, output, full, &to->axes[want->operand]));
    if (full->ndim != want->ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not %d", name, full->ndim, want->ndim);
    for (int a = 0; a < full->ndim; a++)
        if (want->shape[a] >= 0 && full->shape[a] != want->shape[a])
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld is not %lld", name, a,
                           (long long)full->shape[a], (long long)want->shape[a]);
    for (int a = (int)hd_max(full->ndim - 2, 0); a < full->ndim; a++) /* the BLAS's integers */
        if (full->shape[a] > INT32_MAX || full->strides[a] > INT32_MAX)
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, stride %lld: at most 2^31-1", name,
                           a, (long long)full->shape[a], (long long)full->strides[a]);
    return check_place(name, tensor, full, data);
}

static heed_status_t check_config(hd_multihead_t *to)
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

heed_status_t hd_multihead_parameters(const heed_multihead_desc_t *desc, bool data, bool output,
                                      hd_multihead_t *to)
{
    HD_TRY(hd_struct_copy(&to->config, sizeof(to->config), desc->config, sizeof(to->config),
                          "desc.config"));
    HD_TRY(check_config(to));
    int64_t e = to->embed, k = to->keys;
    bool bias = to->config.bias, norm = to->config.layer_norm;
    const wanted_t wanted[] = {
        {HEED_MULTIHEAD_Q_WEIGHT, true, 2, {e, e}}, {HEED_MULTIHEAD_K_WEIGHT, true, 2, {k, e}},
        {HEED_MULTIHEAD_V_WEIGHT, true, 2, {k, e}}, {HEED_MULTIHEAD_OUT_WEIGHT, true, 2, {e, e}},
        {HEED_MULTIHEAD_Q_BIAS, bias, 1, {e}},      {HEED_MULTIHEAD_K_BIAS, bias, 1, {k}},
        {HEED_MULTIHEAD_V_BIAS, bias, 1, {k}},      {HEED_MULTIHEAD_OUT_BIAS, bias, 1, {e}},
        {HEED_MULTIHEAD_NORM_GAMMA, norm, 1, {e}},  {HEED_MULTIHEAD_NORM_BETA, norm, 1, {e}},
    };
    for (int i = 0; i < HD_COUNT(wanted); i++)
        HD_TRY(check_tensor(desc, &wanted[i], data, output, to));
    return HEED_OK;
}

heed_status_t hd_multihead_tokens(const heed_multihead_desc_t *desc, bool data, hd_multihead_t *to)
{
    const heed_tensor_t *query = &to->tensors[HEED_MULTIHEAD_QUERY];
    const wanted_t first = {HEED_MULTIHEAD_QUERY, true, 3, {-1, -1, to->embed}};
    HD_TRY(check_tensor(desc, &first, data, false, to));
    int64_t b = to->batch = query->shape[0], n = to->tokens = query->shape[1];
    const wanted_t wanted[] = {
        {HEED_MULTIHEAD_KEY, desc->key.ndim > 0, 3, {b, n, to->embed}},
        {HEED_MULTIHEAD_VALUE, desc->value.ndim > 0, 3, {b, n, to->embed}},
        {HEED_MULTIHEAD_OUT, true, 3, {b, n, to->embed}},
    };
    for (int i = 0; i < HD_COUNT(wanted); i++)
        HD_TRY(check_tensor(desc, &wanted[i], data, wanted[i].operand == HEED_MULTIHEAD_OUT, to));
    to->step = to->config.batch_step ? hd_min(to->config.batch_step, b) : b;
    int64_t count;
    if (!hd_mul(to->step, n, &count) || !hd_mul(count, to->embed, &count) || count > INT64_MAX / 64)
        return hd_fail(HEED_ERROR_SHAPE, "query: too many elements to address");
    return HEED_OK;
}
