/* In place of the kernels' files: every implementation of impls.def that the CUDA backend has, as
 * one that computes on the host what a kernel would compute on the card, through the same entering
 * and leaving. Slow, and simple enough to be believed. */
#include "attention.h"
#include "cuda.h"
#include "element.h"
#include "fake_runtime.h"

#include <math.h>

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct row {
    double most, sum, out[512];
} row_t;

static double load(const hd_view_t *view, const char *row, int64_t column)
{
    return (double)hd_element_load(view->dtype, row + column * view->elem);
}

static void see(const hd_attention_t *a, const char *query, int64_t b, int64_t h, int64_t key,
                row_t *row)
{
    const char *k = hd_view_row(&a->k, b, key, h / a->group);
    const char *v = hd_view_row(&a->v, b, key, h / a->group);
    double score = 0;
    for (int d = 0; d < a->d; d++)
        score += load(&a->q, query, d) * load(&a->k, k, d);
    score *= (double)a->scale;
    double most = fmax(row->most, score), old = row->sum > 0 ? exp(row->most - most) : 0;
    double weight = exp(score - most);
    for (int d = 0; d < a->dv; d++)
        row->out[d] = row->out[d] * old + weight * load(&a->v, v, d);
    row->sum = row->sum * old + weight;
    row->most = most;
}

static void store(const hd_attention_t *a, int64_t b, int64_t h, int64_t i, row_t *row)
{
    char *out = hd_view_row(&a->out, b, i, h);
    char *lse = a->lse.data ? hd_view_row(&a->lse, b, i, h) : NULL;
    double own = row->sum == 0 ? -INFINITY : row->most + log(row->sum), old = -INFINITY;
    if (a->merge)
        old = (double)hd_element_load(HEED_F32, lse);
    double top = isnan(own) ? own : fmax(own, old), mine = top == -INFINITY ? 0 : exp(own - top);
    double theirs = top == -INFINITY ? 0 : exp(old - top), all = mine + theirs;
    for (int d = 0; d < a->dv; d++) {
        double value = mine == 0 ? 0 : row->out[d] / row->sum * (mine / all);
        if (theirs > 0)
            value += theirs / all * load(&a->out, out, d);
        hd_element_store(a->out.dtype, out + d * a->out.elem, (float)value);
    }
    if (lse)
        hd_element_store(HEED_F32, lse, (float)(all == 0 ? -INFINITY : top + log(all)));
}

static void attend(void *params)
{
    const hd_attention_t *a = params;
    static row_t row;
    for (int64_t r = 0; r < a->batch * a->heads * a->queries; r++) {
        int64_t b = r / (a->heads * a->queries), h = r / a->queries % a->heads, i = r % a->queries;
        hd_walk_t walk;
        hd_block_t block;
        row = (row_t){.most = -INFINITY};
        hd_walk_begin(&walk, &a->visible, b, h, i, 1);
        while (hd_walk_next(&walk, &block))
            for (int j = 0; j < block.count; j++)
                if (block.full || hd_walk_mask(&walk, &block, j) & 1)
                    see(a, hd_view_row(&a->q, b, i, h), b, h, block.key + j, &row);
        store(a, b, h, i, &row);
    }
}

static heed_status_t run_attention(const heed_launch_t *launch)
{
    static const char *const names[] = {"q", "k", "v", "out", "lse"};
    hd_attention_t a = hd_attention_of(launch);
    heed_device_t device = ((const heed_attention_desc_t *)launch->desc)->q.device;
    hd_cuda_scope_t scope;
    heed_status_t status = hd_cuda_enter(launch, device, names, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    return hd_cuda_leave(&scope, (int)fake_launch(attend, &a), "cuda:fake");
}

/* Some, so that the way of a workspace is seen; nothing is written there. */
static size_t workspace_attention(const void *desc, const heed_device_info_t *device,
                                  int32_t threads)
{
    (void)desc, (void)device, (void)threads;
    return 1000;
}

/* ---- casts: dense ones without scales, by way of the workspace ------------------------------- */

typedef struct dense {
    const char *from;
    char *to;
    float *between;
    heed_dtype_t src, dst;
    int64_t count;
} dense_t;

static void cast(void *params)
{
    const dense_t *c = params;
    for (int64_t i = 0; i < c->count; i++)
        c->between[i] = hd_element_load(c->src, c->from + i * hd_dtype_bytes(c->src));
    for (int64_t i = 0; i < c->count; i++)
        hd_element_store(c->dst, c->to + i * hd_dtype_bytes(c->dst), c->between[i]);
}

static int64_t elements(const heed_tensor_t *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->ndim; i++)
        count *= tensor->shape[i];
    return count;
}

static heed_status_t run_cast(const heed_launch_t *launch)
{
    static const char *const names[] = {"src", "dst"};
    const heed_cast_desc_t *desc = launch->desc;
    dense_t c = {launch->buffers[HEED_CAST_SRC],
                 launch->buffers[HEED_CAST_DST],
                 launch->workspace,
                 desc->src.dtype,
                 desc->dst.dtype,
                 elements(&desc->src)};
    hd_cuda_scope_t scope;
    heed_status_t status = hd_cuda_enter(launch, desc->src.device, names, 2, &scope);
    if (status != HEED_OK)
        return status;
    return hd_cuda_leave(&scope, (int)fake_launch(cast, &c), "cuda:fake");
}

static size_t workspace_cast(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_cast_desc_t *desc = at;
    (void)device, (void)threads;
    return (size_t)elements(&desc->src) * sizeof(float);
}

enum {
    FEATURES_attention = HEED_ATTENTION_CAN_PLAIN,
    FEATURES_cast = HEED_CAST_CAN_F32 | HEED_CAST_CAN_BF16 | HEED_CAST_CAN_F16
};

#define HEED_OP(name)
#define HEED_IMPL(op, symbol)
#define HEED_CUDA_IMPL(op_, symbol)             \
    extern const heed_impl_t hd_impl_##symbol;  \
    const heed_impl_t hd_impl_##symbol = {      \
        .struct_size = sizeof(heed_impl_t),     \
        .op = #op_,                             \
        .name = "cuda:" #symbol,                \
        .about = "runs on the host, for tests", \
        .device_type = HEED_DEVICE_CUDA,        \
        .features = FEATURES_##op_,             \
        .workspace = workspace_##op_,           \
        .run = run_##op_,                       \
    };
#include "impls.def"
