/* The plan of a transformer layer for the ranks of tensor parallelism. */
#include "split.h"

#include <string.h>

/* What the steps are made of. */
typedef struct layer {
    heed_layer_desc_t desc;
    int32_t rank;
    heed_range_t all;    /* of the hidden features */
    double tokens, unit; /* bytes of an element */
    double activations;  /* bytes of all tokens' hidden features */
} layer_t;

static heed_status_t check(heed_layer_desc_t *desc, int32_t rank)
{
    enum { MOST = 1 << 24 };
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"batch", desc->batch},
                 {"sequence", desc->sequence},
                 {"hidden", desc->hidden},
                 {"ffn", desc->ffn},
                 {"dim", desc->dim}};
    const struct {
        const char *name;
        int32_t value;
    } flags[] = {{"gated", desc->gated},
                 {"bias", desc->bias},
                 {"sequence_parallel", desc->sequence_parallel}};
    for (int i = 0; i < HD_COUNT(sizes); i++)
        if (sizes[i].value < 1 || sizes[i].value > MOST)
            return hd_fail(HEED_ERROR_VALUE, "desc.%s=%lld is not 1 to %d", sizes[i].name,
                           (long long)sizes[i].value, MOST);
    if (desc->heads > MOST || desc->heads * desc->dim > MOST)
        return hd_fail(HEED_ERROR_VALUE, "desc.heads=%lld times dim=%lld is more than %d",
                       (long long)desc->heads, (long long)desc->dim, MOST);
    for (int i = 0; i < HD_COUNT(flags); i++)
        if (flags[i].value < 0 || flags[i].value > 1)
            return hd_fail(HEED_ERROR_VALUE, "desc.%s=%d is not 0 or 1", flags[i].name,
                           flags[i].value);
    if (desc->ranks < 1 || rank < 0 || rank >= desc->ranks)
        return hd_fail(HEED_ERROR_VALUE, "rank=%d is not 0 to ranks-1, desc.ranks=%d", rank,
                       desc->ranks);
    if (desc->sequence_parallel && desc->ranks > desc->batch * desc->sequence)
        return hd_fail(HEED_ERROR_VALUE, "desc.ranks=%d is more than the %lld tokens", desc->ranks,
                       (long long)(desc->batch * desc->sequence));
    desc->dtype = desc->dtype ? desc->dtype : HEED_BF16;
    if (!heed_dtype_size(desc->dtype))
        return hd_fail(HEED_ERROR_DTYPE, "desc.dtype=0x%x is unknown", desc->dtype);
    return HEED_OK;
}

/* Tokens between the halves of the layer are split, so weights there see a part of them each. */
static void sum_gradients(const layer_t *layer, int32_t ranks, int64_t parameters,
                          heed_layer_step_t *step)
{
    if (ranks < 2)
        return;
    step->gradient_ranks = ranks;
    step->gradient_bytes =
        heed_collective_bytes(HEED_COLLECTIVE_ALL_REDUCE, ranks, (double)parameters * layer->unit);
}

static void norm(const layer_t *layer, heed_layer_step_t *step)
{
    int64_t parameters = layer->desc.hidden * (1 + layer->desc.bias);
    *step = (heed_layer_step_t){.name = "norm",
                                .rows = {layer->all},
                                .row_count = 1,
                                .parameters = parameters,
                                .gradient_ranks = 1};
    if (layer->desc.sequence_parallel)
        sum_gradients(layer, layer->desc.ranks, parameters, step);
}

/* A product with the rows and columns that step has; what follows it is by its kind. */
static void product(const layer_t *layer, const char *name, heed_linear_kind_t kind,
                    heed_layer_step_t *step)
{
    const heed_layer_desc_t *desc = &layer->desc;
    heed_linear_slice_t slice;
    int64_t rows = 0;
    for (int32_t i = 0; i < step->row_count; i++)
        rows += step->rows[i].count;
    hd_linear_collectives(kind, desc->ranks, desc->sequence_parallel, &slice);
    step->name = name;
    step->x = slice.x;
    step->y = slice.y;
    step->dy = slice.dy;
    step->dx = slice.dx;
    step->parameters = rows * (step->columns.count + desc->bias);
    step->flops = 2 * layer->tokens * (double)rows * (double)step->columns.count;
    step->forward_bytes = heed_collective_bytes(slice.x, desc->ranks, layer->activations) +
                          heed_collective_bytes(slice.y, desc->ranks, layer->activations);
    step->backward_bytes = heed_collective_bytes(slice.dy, desc->ranks, layer->activations) +
                           heed_collective_bytes(slice.dx, desc->ranks, layer->activations);
    step->gradient_ranks = 1;
    /* A row's bias is added to the tokens that the rank then has. */
    if (kind == HEED_LINEAR_ROW && desc->sequence_parallel && desc->bias)
        sum_gradients(layer, desc->ranks, rows, step);
}

static heed_status_t attention_steps(const layer_t *layer, heed_layer_plan_t *plan)
{
    const heed_layer_desc_t *desc = &layer->desc;
    heed_qkv_t qkv = {desc->heads, desc->kv_heads, desc->dim,
                      desc->dim,   desc->layout,   desc->policy};
    HD_TRY(heed_qkv_slice(&qkv, desc->ranks, layer->rank, &plan->qkv));
    heed_layer_step_t *in = &plan->steps[1], *attention = &plan->steps[2], *out = &plan->steps[3];
    memcpy(in->rows, plan->qkv.rows, sizeof(in->rows));
    in->row_count = plan->qkv.row_count;
    in->columns = layer->all;
    product(layer, "qkv", HEED_LINEAR_COLUMN, in);
    sum_gradients(layer, plan->qkv.copies,
                  2 * plan->qkv.kv_heads.count * desc->dim * (desc->hidden + desc->bias), in);
    *attention = (heed_layer_step_t){.name = "attention", .gradient_ranks = 1};
    attention->flops =
        4 * layer->tokens * (double)desc->sequence * (double)(plan->qkv.q_heads.count * desc->dim);
    out->rows[0] = layer->all;
    out->row_count = 1;
    out->columns =
        (heed_range_t){plan->qkv.q_heads.first * desc->dim, plan->qkv.q_heads.count * desc->dim};
    product(layer, "out", HEED_LINEAR_ROW, out);
    return HEED_OK;
}

static heed_status_t mlp_steps(const layer_t *layer, heed_layer_plan_t *plan)
{
    const heed_layer_desc_t *desc = &layer->desc;
    heed_layer_step_t *up = &plan->steps[5], *down = &plan->steps[6];
    heed_range_t part;
    HD_TRY(hd_split_part("desc.ffn", desc->ffn, desc->ranks, desc->policy, 1, layer->rank, &part));
    up->rows[0] = part;
    up->row_count = 1;
    if (desc->gated)
        HD_TRY(heed_gated_slice(desc->ffn, desc->layout, desc->ranks, layer->rank, desc->policy, 1,
                                up->rows, &up->row_count));
    up->columns = layer->all;
    product(layer, desc->gated ? "gate_up" : "up", HEED_LINEAR_COLUMN, up);
    down->rows[0] = layer->all;
    down->row_count = 1;
    down->columns = part;
    product(layer, "down", HEED_LINEAR_ROW, down);
    return HEED_OK;
}

heed_status_t heed_layer_plan(const heed_layer_desc_t *desc, int32_t rank, heed_layer_plan_t *plan)
{
    layer_t layer = {.rank = rank};
    if (!plan)
        return hd_fail(HEED_ERROR_NULL, "plan is null");
    HD_TRY(hd_struct_copy(&layer.desc, sizeof(layer.desc), desc, sizeof(layer.desc), "desc"));
    HD_TRY(check(&layer.desc, rank));
    layer.all = (heed_range_t){0, layer.desc.hidden};
    layer.tokens = (double)layer.desc.batch * (double)layer.desc.sequence;
    layer.unit = (double)heed_dtype_size(layer.desc.dtype);
    layer.activations = layer.tokens * (double)layer.desc.hidden * layer.unit;
    heed_layer_plan_t made = {0};
    norm(&layer, &made.steps[0]);
    HD_TRY(attention_steps(&layer, &made));
    norm(&layer, &made.steps[4]);
    HD_TRY(mlp_steps(&layer, &made));
    for (int i = 0; i < HEED_LAYER_STEPS; i++) {
        made.parameters += made.steps[i].parameters;
        made.forward_bytes += made.steps[i].forward_bytes;
        made.backward_bytes += made.steps[i].backward_bytes;
        made.gradient_bytes += made.steps[i].gradient_bytes;
        made.flops += made.steps[i].flops;
    }
    *plan = made;
    return HEED_OK;
}
