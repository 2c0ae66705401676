/* Heed: the multi-head form of dilated attention: projections, attention, an optional LayerNorm
 * (MAGNETO: Wang et al., Foundation Transformers, 2022), projection.
 *
 *     heed_multihead_config_t config;
 *     heed_multihead_preset("standard", "embed_dim=768 num_heads=12 segment_lengths=2048,4096 "
 *                           "dilation_rates=1,2 causal=1", &config);
 *     heed_multihead_desc_t desc = heed_multihead_desc();
 *     desc.config = &config;
 *     desc.query = HEED_TENSOR(x, HEED_F32, B, N, 768);
 *     desc.q_weight = HEED_TENSOR(wq, HEED_F32, 768, 768);
 *     ...
 *     heed_multihead_dilated_attention(context, &desc);
 *
 * q = query Wq^T + bq, k = key Wk^T + bk, v = value Wv^T + bv, heads of neighbouring columns;
 * a = dilated attention (dilated.h); out = norm(a) Wo^T + bo, where norm is LayerNorm over all
 * columns or nothing. Products are made by the BLAS of the system (linear.h). On the CPU. */
#ifndef HEED_MULTIHEAD_H
#define HEED_MULTIHEAD_H

#include "dilated.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Made by heed_multihead_preset alone or changed afterwards; fields are only ever added at the end.
 * Names of the text form, which are those of the fields, have the values in their comments. */
typedef struct heed_multihead_config {
    uint32_t struct_size;
    char impl[32];            /* impl: a name as in heed_plan_create_named ("auto") */
    int64_t embed_dim;        /* E (768): a multiple of num_heads */
    int64_t num_heads;        /* H (12) */
    int64_t num_kv_heads;     /* 0: as many; else a divisor of num_heads */
    int32_t bias;             /* 0 or 1 (1): all four projections have one */
    int32_t layer_norm;       /* 0 or 1 (1) */
    float layer_norm_eps;     /* (1e-5) */
    float gamma_init;         /* (1): gain of the weights of v and out in heed_multihead_init */
    float scale;              /* 0: 1/sqrt(E / H) */
    heed_dilated_mode_t mode; /* longnet, torchscale, grouped, grouped_fkodom */
    heed_offset_rule_t offset_rule;                 /* paper, torchscale */
    int32_t causal;                                 /* 0 or 1 (0) */
    int32_t branches;                               /* numbers in each of the lists */
    int64_t segment_lengths[HEED_DILATED_BRANCHES]; /* 2048,4096,8192; rules as in dilated.h */
    int64_t dilation_rates[HEED_DILATED_BRANCHES];  /* 1,2,4 */
    heed_dtype_t dtype; /* f32, bf16 or f16: q, k and v are rounded to it for the attention */
    int32_t batch_step; /* batch entries whose q, k, v are in memory at a time, 0: all */
} heed_multihead_config_t;

/* Presets, with what they change of the defaults above:
 *     development       impl standard (the definition, in float64), segment_lengths 64,128,
 *                       dilation_rates 1,2: small and slow, to find mistakes with
 *     standard          nothing
 *     high_performance  dtype bf16: attention at the speed of bf16 where the machine has one;
 *                       q, k, v lose what lies below 2^-8
 *     memory_efficient  batch_step 1: memory of one batch entry
 *     research          batch_step 1, and layer_norm 0: the published LongNet mixture, each
 *                       sequence by itself, so that it does not depend on the batch it is in
 *
 * overrides is NULL or "key=value key=value", keys in the comments above, separated by spaces.
 * Errors: NULL, VALUE (unknown preset or key, with those there are; a value that is none). */
HEED_API HEED_MUST_USE heed_status_t heed_multihead_preset(const char *preset,
                                                           const char *overrides,
                                                           heed_multihead_config_t *config);

/* Zero is the default of every field. Fields are only ever added at the end. All tensors are f32 in
 * host memory, with data; rows of each may lie anywhere, the last axis is dense. K = num_kv_heads *
 * E / H. */
typedef struct heed_multihead_desc {
    uint32_t struct_size;                  /* set by heed_multihead_desc() */
    const heed_multihead_config_t *config; /* read during the call */
    heed_tensor_t query;                   /* [B,N,E] */
    heed_tensor_t key, value;              /* [B,N,E]; absent: query */
    heed_tensor_t out;                     /* [B,N,E]; not the memory of another */
    heed_tensor_t q_weight, q_bias;        /* [E,E], [E] */
    heed_tensor_t k_weight, k_bias;        /* [K,E], [K] */
    heed_tensor_t v_weight, v_bias;        /* [K,E], [K] */
    heed_tensor_t norm_gamma, norm_beta;   /* [E], [E]: with layer_norm; dense */
    heed_tensor_t out_weight, out_bias;    /* [E,E], [E] */
} heed_multihead_desc_t;

static inline heed_multihead_desc_t heed_multihead_desc(void)
{
#ifdef __cplusplus
    heed_multihead_desc_t desc = {};
#else
    heed_multihead_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    return desc;
}

/* Plan, workspace from the context's allocator, execute on the tensors' data, clean up.
 * Errors: NULL, STRUCT_SIZE, VALUE, SHAPE, STRIDE, DTYPE, OUT_OF_MEMORY; UNSUPPORTED where no BLAS
 * is installed, or the implementation refuses; UNKNOWN_IMPL. */
HEED_API HEED_MUST_USE heed_status_t
heed_multihead_dilated_attention(heed_context_t *context, const heed_multihead_desc_t *desc);

/* ---- plans: create once, execute many times ---------------------------------------------------
 *
 *     heed_multihead_plan_create(context, &desc, &plan);    data of desc's tensors may be NULL
 *     heed_multihead_plan_workspace(plan, &bytes, &alignment);
 *     void *buffers[HEED_MULTIHEAD_OPERANDS] = {[HEED_MULTIHEAD_QUERY] = x, ...};
 *     heed_multihead_plan_execute(plan, buffers, workspace, bytes); */
typedef struct heed_multihead_plan heed_multihead_plan_t;

/* Buffers of heed_multihead_plan_execute, in the order of the descriptor. */
enum {
    HEED_MULTIHEAD_QUERY,
    HEED_MULTIHEAD_KEY,
    HEED_MULTIHEAD_VALUE,
    HEED_MULTIHEAD_OUT,
    HEED_MULTIHEAD_Q_WEIGHT,
    HEED_MULTIHEAD_Q_BIAS,
    HEED_MULTIHEAD_K_WEIGHT,
    HEED_MULTIHEAD_K_BIAS,
    HEED_MULTIHEAD_V_WEIGHT,
    HEED_MULTIHEAD_V_BIAS,
    HEED_MULTIHEAD_NORM_GAMMA,
    HEED_MULTIHEAD_NORM_BETA,
    HEED_MULTIHEAD_OUT_WEIGHT,
    HEED_MULTIHEAD_OUT_BIAS,
    HEED_MULTIHEAD_OPERANDS
};

/* Checks and copies desc and its configuration, chooses the implementation of the attention, and
 * sizes the workspace. *plan is NULL after an error; the context must outlive it. Errors: as the
 * call above, but for missing data. */
HEED_API HEED_MUST_USE heed_status_t heed_multihead_plan_create(heed_context_t *context,
                                                                const heed_multihead_desc_t *desc,
                                                                heed_multihead_plan_t **plan);

/* NULL is fine. No execution of the plan may be under way. */
HEED_API void heed_multihead_plan_destroy(heed_multihead_plan_t *plan);

/* Bytes and alignment that heed_multihead_plan_execute needs: q, k, v and a in f32 of batch_step
 * entries, and what the attention needs. Errors: NULL. */
HEED_API HEED_MUST_USE heed_status_t
heed_multihead_plan_workspace(const heed_multihead_plan_t *plan, size_t *bytes, size_t *alignment);

/* Runs the plan. buffers has HEED_MULTIHEAD_OPERANDS addresses, each the first element of a tensor
 * with the planned layout, byte_offset not added, NULL where desc had none. Allocates nothing; any
 * thread, many at once, each with its own workspace. Errors: NULL (a buffer is missing), VALUE (one
 * is too many), WORKSPACE, and what the attention reports. */
HEED_API HEED_MUST_USE heed_status_t heed_multihead_plan_execute(const heed_multihead_plan_t *plan,
                                                                 void *const *buffers,
                                                                 void *workspace,
                                                                 size_t workspace_bytes);

/* Writes initial parameters to the desc's weights, biases and norm: weights normal with variance 2
 * gain^2 / (rows + columns) (Glorot and Bengio, 2010), gain 1 for q and k, gamma_init for v and
 * out; biases and beta 0, gamma 1. Same seed, same numbers. query, key, value and out may be
 * absent. Errors: NULL, STRUCT_SIZE, VALUE, SHAPE, STRIDE, DTYPE. */
HEED_API HEED_MUST_USE heed_status_t heed_multihead_init(const heed_multihead_desc_t *desc,
                                                         uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
