/* Multi-head dilated attention: products by the BLAS around the dilated operation. A plan has those
 * of the attention and of the casts, for whole steps of the batch and for what is left of it. */
#include "blas.h"
#include "loop.h"
#include "multihead_parts.h"

#include <heed/cast.h>

#include <math.h>
#include <string.h>

enum { WHOLE, REST, SIZES };

/* Plans for so many batch entries; none where count is 0. */
typedef struct stage {
    int64_t count;
    heed_plan_t *attention;
    heed_plan_t *narrow_q, *narrow_k; /* of q, of k and v; NULL in f32 */
} stage_t;

struct heed_multihead_plan {
    heed_context_t *context;
    hd_multihead_t of;
    stage_t stages[SIZES];
    size_t at[4]; /* of q, k, v and a in the workspace */
    size_t own;   /* their bytes; what the plans need comes after them */
    size_t workspace;
};

/* ---- planning -------------------------------------------------------------------------------- */

static heed_status_t plan_cast(heed_multihead_plan_t *plan, int64_t count, heed_plan_t **to)
{
    heed_cast_desc_t cast = heed_cast_desc();
    cast.src = heed_tensor(NULL, HEED_F32, 1, &count, NULL);
    cast.dst = heed_tensor(NULL, plan->of.config.dtype, 1, &count, NULL);
    return heed_plan_create(plan->context, "cast", &cast, to);
}

static heed_status_t plan_attention(heed_multihead_plan_t *plan, stage_t *stage)
{
    const heed_multihead_config_t *config = &plan->of.config;
    int64_t n = plan->of.tokens, h = config->num_heads, d = plan->of.embed / h;
    int64_t wide[] = {stage->count, n, h, d}, few[] = {stage->count, n, plan->of.keys / d, d};
    heed_dilated_desc_t desc = heed_dilated_desc();
    desc.mode = config->mode;
    desc.offset_rule = config->offset_rule;
    desc.causal = config->causal;
    desc.scale = config->scale;
    desc.branches = config->branches;
    memcpy(desc.segments, config->segment_lengths, sizeof(desc.segments));
    memcpy(desc.rates, config->dilation_rates, sizeof(desc.rates));
    desc.q = heed_tensor(NULL, config->dtype, 4, wide, NULL);
    desc.k = heed_tensor(NULL, config->dtype, 4, few, NULL);
    desc.v = heed_tensor(NULL, config->dtype, 4, few, NULL);
    desc.out = heed_tensor(NULL, HEED_F32, 4, wide, NULL);
    return heed_plan_create_named(plan->context, "dilated", config->impl, &desc, &stage->attention);
}

static heed_status_t plan_stage(heed_multihead_plan_t *plan, stage_t *stage, int64_t count)
{
    size_t alignment, bytes;
    stage->count = count;
    if (count == 0)
        return HEED_OK;
    HD_TRY(plan_attention(plan, stage));
    heed_plan_t *const *plans[] = {&stage->attention, &stage->narrow_q, &stage->narrow_k};
    if (plan->of.config.dtype != HEED_F32) {
        int64_t rows = count * plan->of.tokens;
        HD_TRY(plan_cast(plan, rows * plan->of.embed, &stage->narrow_q));
        HD_TRY(plan_cast(plan, rows * plan->of.keys, &stage->narrow_k));
    }
    for (int i = 0; i < HD_COUNT(plans); i++) {
        if (!*plans[i])
            continue;
        HD_TRY(heed_plan_workspace(*plans[i], &bytes, &alignment));
        plan->workspace = plan->own + bytes > plan->workspace ? plan->own + bytes : plan->workspace;
    }
    return HEED_OK;
}

/* q, k, v and a, each at a multiple of 64 bytes. */
static void place(heed_multihead_plan_t *plan)
{
    const hd_multihead_t *of = &plan->of;
    const int64_t columns[] = {of->embed, of->keys, of->keys, of->embed};
    for (int i = 0; i < HD_COUNT(columns); i++) {
        plan->at[i] = plan->own;
        plan->own += hd_round_up((size_t)(of->step * of->tokens * columns[i]) * sizeof(float), 64);
    }
    plan->workspace = plan->own;
}

static heed_status_t make(heed_multihead_plan_t *plan, const heed_multihead_desc_t *desc, bool data)
{
    heed_multihead_desc_t full;
    hd_multihead_t *of = &plan->of;
    HD_TRY(hd_struct_copy(&full, sizeof(full), desc, sizeof(full), "desc"));
    HD_TRY(hd_multihead_parameters(&full, data, false, of));
    HD_TRY(hd_multihead_tokens(&full, data, of));
    if (of->batch == 0 || of->tokens == 0)
        return HEED_OK;
    HD_TRY(hd_blas_check());
    place(plan);
    HD_TRY(plan_stage(plan, &plan->stages[WHOLE], of->step));
    return plan_stage(plan, &plan->stages[REST], of->batch % of->step);
}

static heed_status_t create(heed_context_t *context, const heed_multihead_desc_t *desc, bool data,
                            heed_multihead_plan_t **plan)
{
    *plan = hd_alloc(context, sizeof(**plan));
    if (!*plan)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a plan");
    memset(*plan, 0, sizeof(**plan));
    (*plan)->context = context;
    heed_status_t status = make(*plan, desc, data);
    if (status == HEED_OK)
        return HEED_OK;
    heed_multihead_plan_destroy(*plan);
    *plan = NULL;
    return status;
}

heed_status_t heed_multihead_plan_create(heed_context_t *context, const heed_multihead_desc_t *desc,
                                         heed_multihead_plan_t **plan)
{
    if (!context || !plan)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "plan" : "context");
    return create(context, desc, false, plan);
}

void heed_multihead_plan_destroy(heed_multihead_plan_t *plan)
{
    if (!plan)
        return;
    for (int i = 0; i < SIZES; i++) {
        heed_plan_destroy(plan->stages[i].attention);
        heed_plan_destroy(plan->stages[i].narrow_q);
        heed_plan_destroy(plan->stages[i].narrow_k);
    }
    hd_free(plan->context, plan);
}

heed_status_t heed_multihead_plan_workspace(const heed_multihead_plan_t *plan, size_t *bytes,
                                            size_t *alignment)
{
    if (!plan || !bytes || !alignment)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !plan    ? "plan"
                       : !bytes ? "bytes"
                                : "alignment");
    *bytes = plan->workspace;
    *alignment = 64;
    return HEED_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct running {
    const heed_multihead_plan_t *plan;
    void *const *buffers;
    float *q, *k, *v, *a;
    char *rest; /* of the workspace, and its bytes */
    size_t rest_bytes;
} running_t;

/* to = from weight^T + bias, all tokens of one batch entry. */
static void project(const running_t *run, const float *from, int64_t from_row, int weight,
                    float *to, int64_t to_row)
{
    const hd_multihead_t *of = &run->plan->of;
    const heed_tensor_t *w = &of->tensors[weight];
    const float *bias = run->buffers[weight + 1]; /* the operand after it */
    int64_t columns = w->shape[0];
    const hd_gemm_t gemm = {.m = (int)of->tokens,
                            .n = (int)columns,
                            .k = (int)of->embed,
                            .a = from,
                            .b = run->buffers[weight],
                            .c = to,
                            .lda = (int)hd_max(from_row, of->embed),
                            .ldb = (int)hd_max(w->strides[0], of->embed),
                            .ldc = (int)hd_max(to_row, columns)};
    hd_blas_gemm(&gemm);
    for (int64_t i = 0; of->config.bias && i < of->tokens; i++)
        for (int64_t j = 0; j < columns; j++)
            to[i * gemm.ldc + j] += bias[j];
}

/* Batch entry b of a [B,N,E] operand; key and value are query where they are absent. */
static float *entry_of(const running_t *run, int operand, int64_t b, int64_t *row)
{
    const heed_tensor_t *tensors = run->plan->of.tensors;
    if (tensors[operand].ndim == 0)
        operand = HEED_MULTIHEAD_QUERY;
    *row = tensors[operand].strides[1];
    return (float *)run->buffers[operand] + b * tensors[operand].strides[0];
}

/* q, k and v of `count` batch entries from `first` on. */
static void project_in(const running_t *run, int64_t first, int64_t count)
{
    const hd_multihead_t *of = &run->plan->of;
    const struct {
        int operand, weight;
        float *to;
        int64_t columns;
    } all[] = {{HEED_MULTIHEAD_QUERY, HEED_MULTIHEAD_Q_WEIGHT, run->q, of->embed},
               {HEED_MULTIHEAD_KEY, HEED_MULTIHEAD_K_WEIGHT, run->k, of->keys},
               {HEED_MULTIHEAD_VALUE, HEED_MULTIHEAD_V_WEIGHT, run->v, of->keys}};
    for (int i = 0; i < HD_COUNT(all); i++)
        for (int64_t b = 0; b < count; b++) {
            int64_t row;
            const float *from = entry_of(run, all[i].operand, first + b, &row);
            project(run, from, row, all[i].weight, all[i].to + b * of->tokens * all[i].columns,
                    all[i].columns);
        }
}

static void project_out(const running_t *run, int64_t first, int64_t count)
{
    const hd_multihead_t *of = &run->plan->of;
    for (int64_t b = 0; b < count; b++) {
        int64_t row;
        float *to = entry_of(run, HEED_MULTIHEAD_OUT, first + b, &row);
        project(run, run->a + b * of->tokens * of->embed, of->embed, HEED_MULTIHEAD_OUT_WEIGHT, to,
                row);
    }
}

/* Rounds to the attention's type, in place. */
static heed_status_t narrow(const running_t *run, const heed_plan_t *cast, float *data)
{
    void *const buffers[] = {data, data};
    return cast ? heed_plan_execute(cast, buffers, 2, run->rest, run->rest_bytes, NULL) : HEED_OK;
}

static heed_status_t attend(const running_t *run, const stage_t *stage)
{
    void *const buffers[] = {run->q, run->k, run->v, run->a};
    HD_TRY(narrow(run, stage->narrow_q, run->q));
    HD_TRY(narrow(run, stage->narrow_k, run->k));
    HD_TRY(narrow(run, stage->narrow_k, run->v));
    return heed_plan_execute(stage->attention, buffers, HD_COUNT(buffers), run->rest,
                             run->rest_bytes, NULL);
}

/* (x - mean) / sqrt(variance + eps) * gamma + beta of one row, in place (Ba et al., Layer
 * Normalization, 2016). */
static void normalize_row(void *at, int worker, int64_t i)
{
    const running_t *run = at;
    const hd_multihead_t *of = &run->plan->of;
    const float *gamma = run->buffers[HEED_MULTIHEAD_NORM_GAMMA];
    const float *beta = run->buffers[HEED_MULTIHEAD_NORM_BETA];
    float *row = run->a + i * of->embed;
    double mean = 0, variance = 0;
    (void)worker;
    for (int64_t c = 0; c < of->embed; c++)
        mean += (double)row[c];
    mean /= (double)of->embed;
    for (int64_t c = 0; c < of->embed; c++)
        variance += ((double)row[c] - mean) * ((double)row[c] - mean);
    double scale = 1 / sqrt(variance / (double)of->embed + (double)of->config.layer_norm_eps);
    for (int64_t c = 0; c < of->embed; c++)
        row[c] = (float)(((double)row[c] - mean) * scale * (double)gamma[c] + (double)beta[c]);
}

static heed_status_t run_steps(const running_t *run)
{
    const heed_multihead_plan_t *plan = run->plan;
    const hd_multihead_t *of = &plan->of;
    for (int64_t b = 0; b < of->batch; b += of->step) {
        const stage_t *stage = &plan->stages[b + of->step > of->batch ? REST : WHOLE];
        project_in(run, b, stage->count);
        HD_TRY(attend(run, stage));
        if (of->config.layer_norm)
            hd_loop(plan->context->devices[0].threads, stage->count * of->tokens, normalize_row,
                    (void *)(uintptr_t)run);
        project_out(run, b, stage->count);
    }
    return HEED_OK;
}

static heed_status_t check_buffers(const heed_multihead_plan_t *plan, void *const *buffers,
                                   const void *workspace, size_t workspace_bytes)
{
    if (!plan || !buffers)
        return hd_fail(HEED_ERROR_NULL, "%s is null", plan ? "buffers" : "plan");
    for (int i = 0; i < HEED_MULTIHEAD_OPERANDS; i++) {
        const heed_tensor_t *tensor = &plan->of.tensors[i];
        bool there = tensor->ndim && hd_tensor_elements(tensor);
        if (there && !buffers[i])
            return hd_fail(HEED_ERROR_NULL, "buffers[%d] is null: the plan has %s", i,
                           hd_multihead_names[i]);
        if (!tensor->ndim && buffers[i])
            return hd_fail(HEED_ERROR_VALUE, "buffers[%d]: the plan has no %s", i,
                           hd_multihead_names[i]);
    }
    if (plan->workspace && (!workspace || workspace_bytes < plan->workspace))
        return hd_fail(HEED_ERROR_WORKSPACE, "workspace of %zu bytes: the plan needs %zu",
                       workspace ? workspace_bytes : 0, plan->workspace);
    if ((uintptr_t)workspace % 64)
        return hd_fail(HEED_ERROR_WORKSPACE, "workspace is not at a multiple of 64");
    return HEED_OK;
}

heed_status_t heed_multihead_plan_execute(const heed_multihead_plan_t *plan, void *const *buffers,
                                          void *workspace, size_t workspace_bytes)
{
    HD_TRY(check_buffers(plan, buffers, workspace, workspace_bytes));
    if (plan->of.batch == 0 || plan->of.tokens == 0)
        return HEED_OK;
    char *memory = workspace;
    float *parts[4];
    for (int i = 0; i < HD_COUNT(parts); i++)
        parts[i] = (float *)(void *)(memory + plan->at[i]);
    const running_t run = {.plan = plan,
                           .buffers = buffers,
                           .q = parts[0],
                           .k = parts[1],
                           .v = parts[2],
                           .a = parts[3],
                           .rest = plan->workspace > plan->own ? memory + plan->own : NULL,
                           .rest_bytes = plan->workspace - plan->own};
    return run_steps(&run);
}

heed_status_t heed_multihead_dilated_attention(heed_context_t *context,
                                               const heed_multihead_desc_t *desc)
{
    heed_multihead_plan_t *plan;
    void *buffers[HEED_MULTIHEAD_OPERANDS] = {NULL};
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(create(context, desc, true, &plan));
    for (int i = 0; i < HEED_MULTIHEAD_OPERANDS; i++)
        if (plan->of.tensors[i].ndim)
            buffers[i] = hd_tensor_data(hd_multihead_tensor(desc, i));
    size_t bytes = plan->workspace;
    void *workspace = bytes ? hd_alloc_aligned(context, bytes, 64) : NULL;
    heed_status_t status =
        bytes && !workspace
            ? hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a workspace of %zu bytes", bytes)
            : heed_multihead_plan_execute(plan, buffers, workspace, bytes);
    hd_free(context, workspace);
    heed_multihead_plan_destroy(plan);
    return status;
}
