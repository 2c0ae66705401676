/* Sequences of an attention, and its rows as dense arrays wherever they lie. */
#include "kit_attention.h"

#include <stdlib.h>

static const heed_tensor_t *tensor_of(const heed_attention_desc_t *desc, int operand)
{
    switch (operand) {
    case HEED_ATTENTION_Q:
        return &desc->q;
    case HEED_ATTENTION_K:
        return &desc->k;
    case HEED_ATTENTION_V:
        return &desc->v;
    case HEED_ATTENTION_OUT:
        return &desc->out;
    case HEED_ATTENTION_LSE:
        return &desc->lse;
    case HEED_ATTENTION_K_SCALE:
        return &desc->k_scale;
    default:
        return &desc->v_scale;
    }
}

static int64_t stride_of(const heed_tensor_t *tensor, int axis)
{
    int64_t stride = 1;
    if (tensor->strides)
        return tensor->strides[axis];
    for (int i = axis + 1; i < tensor->ndim; i++)
        stride *= tensor->shape[i] > 0 ? tensor->shape[i] : 1;
    return stride;
}

/* Element of an operand of numbers, such as starts and page tables. */
static int64_t number(const heed_tensor_t *tensor, const void *data, int64_t i, int64_t j)
{
    int64_t at = i * stride_of(tensor, 0) + (tensor->ndim > 1 ? j * stride_of(tensor, 1) : 0);
    return (int64_t)kit_load(tensor->dtype, (const char *)data + tensor->byte_offset, at);
}

/* ---- lengths --------------------------------------------------------------------------------- */

static int64_t ragged_length(const heed_tensor_t *starts, const void *data, int64_t b)
{
    return number(starts, data, b + 1, 0) - number(starts, data, b, 0);
}

static int64_t key_count(const heed_attention_desc_t *desc, void *const *data, int64_t b)
{
    if (desc->seqlens_k.ndim)
        return number(&desc->seqlens_k, data[HEED_ATTENTION_SEQLENS_K], b, 0);
    if (desc->cu_seqlens_k.ndim)
        return ragged_length(&desc->cu_seqlens_k, data[HEED_ATTENTION_CU_SEQLENS_K], b);
    return desc->k.shape[1] * (desc->page_table.ndim ? desc->page_table.shape[1] : 1);
}

bool kit_batch_read(const heed_attention_desc_t *desc, void *const *data, kit_batch_t *batch)
{
    kit_sizes_t *n = &batch->n;
    bool ragged = desc->cu_seqlens_q.ndim;
    *batch = (kit_batch_t){0};
    n->b = ragged ? desc->cu_seqlens_q.shape[0] - 1 : desc->q.shape[0];
    n->h = desc->q.shape[2];
    n->hk = desc->k.shape[2];
    n->d = desc->q.shape[3];
    n->dv = desc->v.shape[3];
    batch->sq = calloc((size_t)n->b + 1, sizeof(int64_t));
    batch->sk = calloc((size_t)n->b + 1, sizeof(int64_t));
    if (!batch->sq || !batch->sk)
        return false;
    for (int64_t b = 0; b < n->b; b++) {
        batch->sq[b] =
            ragged ? ragged_length(&desc->cu_seqlens_q, data[HEED_ATTENTION_CU_SEQLENS_Q], b)
                   : desc->q.shape[1];
        batch->sk[b] = key_count(desc, data, b);
        n->sq = batch->sq[b] > n->sq ? batch->sq[b] : n->sq;
        n->sk = batch->sk[b] > n->sk ? batch->sk[b] : n->sk;
    }
    return true;
}

void kit_batch_free(kit_batch_t *batch)
{
    free(batch->sq);
    free(batch->sk);
    *batch = (kit_batch_t){0};
}

/* ---- rows ------------------------------------------------------------------------------------ */

static bool is_key(int operand)
{
    return operand == HEED_ATTENTION_K || operand == HEED_ATTENTION_V ||
           operand == HEED_ATTENTION_K_SCALE || operand == HEED_ATTENTION_V_SCALE;
}

/* Batch entry and row where row i of sequence b lies. */
static void place_of(const heed_attention_desc_t *desc, int operand, void *const *data, int64_t b,
                     int64_t i, int64_t *entry, int64_t *row)
{
    *entry = b;
    *row = i;
    if (is_key(operand) && desc->page_table.ndim) {
        int64_t page = desc->k.shape[1];
        *entry = number(&desc->page_table, data[HEED_ATTENTION_PAGE_TABLE], b, i / page);
        *row = i % page;
    } else if (is_key(operand) ? desc->cu_seqlens_k.ndim : desc->cu_seqlens_q.ndim) {
        *entry = 0;
        *row += is_key(operand)
                    ? number(&desc->cu_seqlens_k, data[HEED_ATTENTION_CU_SEQLENS_K], b, 0)
                    : number(&desc->cu_seqlens_q, data[HEED_ATTENTION_CU_SEQLENS_Q], b, 0);
    }
}

/* Offset of element (b, i, h, 0). */
static int64_t offset_of(const heed_attention_desc_t *desc, int operand, void *const *data,
                         int64_t b, int64_t i, int64_t h)
{
    const heed_tensor_t *tensor = tensor_of(desc, operand);
    int64_t entry, row, lse = operand == HEED_ATTENTION_LSE;
    place_of(desc, operand, data, b, i, &entry, &row);
    return entry * stride_of(tensor, 0) + row * stride_of(tensor, lse ? 2 : 1) +
           h * stride_of(tensor, lse ? 1 : 2);
}

/* How the dense array of an operand is walked. */
typedef struct shape {
    int64_t heads, dim, rows, step; /* rows: of a sequence at most; step: of the last axis */
    const int64_t *lengths;
    bool lse;
} shape_t;

static shape_t shape_of(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand)
{
    const heed_tensor_t *tensor = tensor_of(desc, operand);
    bool key = is_key(operand);
    shape_t shape = {.heads = key ? batch->n.hk : batch->n.h, .lse = operand == HEED_ATTENTION_LSE};
    shape.rows = key ? batch->n.sk : batch->n.sq;
    shape.lengths = key ? batch->sk : batch->sq;
    shape.dim = tensor->ndim == 3 ? 1 : tensor->shape[3];
    shape.step = tensor->ndim == 3 ? 0 : stride_of(tensor, 3);
    return shape;
}

static int64_t dense_at(const shape_t *shape, int64_t b, int64_t i, int64_t h)
{
    return shape->lse ? (b * shape->heads + h) * shape->rows + i
                      : kit_at(b, i, h, shape->rows, shape->heads, shape->dim);
}

typedef void move_t(heed_dtype_t dtype, char *data, int64_t offset, double *value);

static void load(heed_dtype_t dtype, char *data, int64_t offset, double *value)
{
    *value = kit_load(dtype, data, offset);
}

static void store(heed_dtype_t dtype, char *data, int64_t offset, double *value)
{
    kit_store(dtype, data, offset, *value);
}

static void each_element(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand,
                         void *const *data, double *values, move_t *move)
{
    const heed_tensor_t *tensor = tensor_of(desc, operand);
    shape_t shape = shape_of(desc, batch, operand);
    char *first = (char *)data[operand] + tensor->byte_offset;
    for (int64_t b = 0; b < batch->n.b; b++)
        for (int64_t i = 0; i < shape.lengths[b]; i++)
            for (int64_t h = 0; h < shape.heads; h++) {
                int64_t from = offset_of(desc, operand, data, b, i, h);
                double *row = values + dense_at(&shape, b, i, h);
                for (int64_t c = 0; c < shape.dim; c++)
                    move(tensor->dtype, first, from + c * shape.step, row + c);
            }
}

double *kit_rows_gather(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand,
                        void *const *data)
{
    shape_t shape = shape_of(desc, batch, operand);
    int64_t count = batch->n.b * shape.rows * shape.heads * shape.dim;
    double *values = calloc((size_t)count + 1, sizeof(*values));
    if (values)
        each_element(desc, batch, operand, data, values, load);
    return values;
}

void kit_rows_scatter(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand,
                      void *const *data, const double *values)
{
    each_element(desc, batch, operand, data, (double *)(uintptr_t)values, store);
}

double kit_scale_of(const heed_attention_desc_t *desc, int operand, void *const *data, int64_t b,
                    int64_t j, int64_t h)
{
    const heed_tensor_t *scale = tensor_of(desc, operand);
    if (!scale->ndim)
        return 1;
    const char *first = (const char *)data[operand] + scale->byte_offset;
    int64_t at = scale->ndim == 3       ? offset_of(desc, operand, data, b, j, h)
                 : scale->shape[0] == 1 ? 0
                                        : h * stride_of(scale, 0);
    return kit_load(HEED_F32, first, at);
}

/* ---- all inputs ------------------------------------------------------------------------------ */

static double *gather(const heed_tensor_t *tensor, const void *data, bool *good)
{
    int64_t strides[HEED_MAX_NDIM];
    heed_tensor_t dense = *tensor;
    if (!tensor->ndim)
        return NULL;
    for (int i = 0; i < tensor->ndim; i++)
        strides[i] = stride_of(tensor, i);
    dense.strides = strides;
    double *values = kit_gather(&dense, data);
    *good = *good && values;
    return values;
}

static void apply_scales(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand,
                         void *const *data, int64_t dim, double *values)
{
    const kit_sizes_t *n = &batch->n;
    for (int64_t b = 0; b < n->b; b++)
        for (int64_t j = 0; j < batch->sk[b]; j++)
            for (int64_t h = 0; h < n->hk; h++) {
                double scale = kit_scale_of(desc, operand, data, b, j, h);
                for (int64_t c = 0; c < dim; c++)
                    values[kit_at(b, j, h, n->sk, n->hk, dim) + c] *= scale;
            }
}

bool kit_attention_read(const heed_attention_desc_t *desc, void *const *data, kit_attention_t *x)
{
    bool good = kit_batch_read(desc, data, &x->batch);
    if (!good)
        return false;
    x->bias = gather(&desc->bias, data[HEED_ATTENTION_BIAS], &good);
    x->mask = gather(&desc->mask, data[HEED_ATTENTION_MASK], &good);
    x->slopes = gather(&desc->alibi_slopes, data[HEED_ATTENTION_ALIBI_SLOPES], &good);
    x->sinks = gather(&desc->sinks, data[HEED_ATTENTION_SINKS], &good);
    return good;
}

bool kit_attention_gather(const heed_attention_desc_t *desc, void *const *data, kit_attention_t *x)
{
    if (!kit_attention_read(desc, data, x))
        return false;
    x->q = kit_rows_gather(desc, &x->batch, HEED_ATTENTION_Q, data);
    x->k = kit_rows_gather(desc, &x->batch, HEED_ATTENTION_K, data);
    x->v = kit_rows_gather(desc, &x->batch, HEED_ATTENTION_V, data);
    if (!x->q || !x->k || !x->v)
        return false;
    if (desc->k_scale.ndim)
        apply_scales(desc, &x->batch, HEED_ATTENTION_K_SCALE, data, x->batch.n.d, x->k);
    if (desc->v_scale.ndim)
        apply_scales(desc, &x->batch, HEED_ATTENTION_V_SCALE, data, x->batch.n.dv, x->v);
    return true;
}

void kit_attention_free(kit_attention_t *x)
{
    double *arrays[] = {x->q,   x->k,   x->v,        x->bias,     x->mask,    x->slopes, x->sinks,
                        x->out, x->lse, x->want_out, x->want_lse, x->old_out, x->old_lse};
    for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
        free(arrays[i]);
    kit_batch_free(&x->batch);
    *x = (kit_attention_t){0};
}
