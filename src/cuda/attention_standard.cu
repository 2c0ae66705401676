/* cuda:standard, attention as it is written down: scores by a product of matrices, softmax, output
 * by another product, with the scores in memory. Both products are cuBLAS'. It is what a user would
 * write, what the flash kernels are measured against, and a second opinion on the device.
 *
 * Work goes in chunks of query heads (all those of a key head, or many key heads where each has
 * one) and rows, so that scores, weights and sums of a chunk take at most BOUND bytes:
 *
 * 1. scores[g][r][j] = scale q k^T, f32, for every key, seen or not
 * 2. weigh: weights[g][r][j] = exp(score - largest), in the operands' dtype, zero where not seen;
 *    largest and sum of each row
 * 3. sums[g][r][:] = weights v, f32
 * 4. finish: divide, merge with the old state, round, store
 *
 * A masked value that is NaN or infinite makes its sum NaN, for zero times it is no zero: finish
 * then adds up that column again and leaves out the keys whose weight is zero.
 *
 * Has run in the emulator only, there with the cuBLAS of tests/cuda, which computes on the host. */
#include "attention_standard_kernels.cuh"
#include "cublas.h"
#include "cuda.h"

enum { PAD = 64, ALIGN = 256 };

static const int64_t BOUND = (int64_t)256 << 20;

/* How the work is cut, and where a chunk's arrays lie behind the products' workspace. */
typedef struct plan {
    int heads;    /* of a chunk */
    int rows;     /* of a chunk */
    int64_t keys; /* of a row of scores, padded */
    int64_t scores, weights, sums, stats, bytes;
} plan_t;

/* ---- cutting the work ------------------------------------------------------------------------ */

static int64_t row_bytes(const hd_attention_t *a, int64_t keys)
{
    int64_t weights = a->q.dtype == HEED_F32 ? 0 : hd_dtype_bytes(a->q.dtype);
    return keys * (4 + weights) + 4 * (int64_t)a->dv + 8;
}

static plan_t make_plan(const hd_attention_t *a)
{
    plan_t plan = {};
    plan.keys = hd_ceil_div(a->keys, PAD) * PAD;
    int64_t bytes = row_bytes(a, plan.keys), some = hd_min(a->queries, 64);
    int64_t heads = a->group > 1 ? a->group : a->heads;
    while (heads > 1 && heads * some * bytes > BOUND)
        heads = (heads + 1) / 2;
    int64_t rows = hd_max(hd_min(a->queries, BOUND / (heads * bytes)), 1), all = heads * rows;
    plan.heads = (int)heads;
    plan.rows = (int)rows;
    plan.scores = HD_PRODUCT_WORKSPACE;
    plan.weights = plan.scores + (a->q.dtype == HEED_F32 ? 0 : all * plan.keys * 4);
    plan.sums = plan.weights + all * plan.keys * hd_dtype_bytes(a->q.dtype);
    plan.stats = plan.sums + all * a->dv * 4;
    /* cuBLAS wants its workspace aligned to more than plans promise. */
    plan.bytes = plan.stats + all * 8 + ALIGN;
    return plan;
}

static char *align(void *workspace)
{
    return (char *)(((uintptr_t)workspace + ALIGN - 1) / ALIGN * ALIGN);
}

/* A step between rows that cuBLAS takes: of a single row, any will do. */
static int64_t step(const heed_tensor_t *tensor)
{
    return tensor->shape[1] > 1 ? tensor->strides[1] : tensor->shape[3];
}

/* ---- a chunk --------------------------------------------------------------------------------- */

static hd_matrix_t matrix(const hd_view_t *view, const heed_tensor_t *tensor, int64_t batch,
                          int64_t row, int64_t head, bool shared)
{
    hd_matrix_t made = {hd_view_row(view, batch, row, head), tensor->dtype, step(tensor), 0};
    made.batch = shared ? 0 : tensor->strides[2];
    return made;
}

static heed_status_t multiply(const heed_launch_t *launch, const params_t *p, int heads,
                              bool scores)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    const hd_attention_t *a = &p->a;
    int64_t key_head = p->head / a->group;
    bool shared = a->group > 1;
    hd_matrix_t weights = {p->weights, a->q.dtype, p->keys, p->rows * p->keys};
    hd_product_t product = {};
    product.rows = p->rows;
    product.batches = heads;
    if (scores) {
        product.a = matrix(&a->q, &desc->q, p->batch, p->row, p->head, false);
        product.b = matrix(&a->k, &desc->k, p->batch, 0, key_head, shared);
        product.c = (hd_matrix_t){(void *)p->scores, HEED_F32, p->keys, p->rows * p->keys};
        product.transposed = 1;
        product.columns = (int)a->keys;
        product.inner = a->d;
        product.alpha = a->scale;
    } else {
        product.a = weights;
        product.b = matrix(&a->v, &desc->v, p->batch, 0, key_head, shared);
        product.c = (hd_matrix_t){(void *)p->sums, HEED_F32, a->dv, (int64_t)p->rows * a->dv};
        product.columns = a->dv;
        product.inner = (int)a->keys;
        product.alpha = 1;
    }
    return hd_cuda_multiply(desc->q.device.id, &product, align(launch->workspace),
                            launch->stream.native);
}

static heed_status_t run_chunk(const heed_launch_t *launch, const params_t *p, int heads,
                               int *error)
{
    dim3 grid((unsigned)(heads * p->rows)), block(THREADS);
    void *stream = launch->stream.native;
    heed_status_t status = p->a.keys > 0 ? multiply(launch, p, heads, true) : HEED_OK;
    if (status != HEED_OK)
        return status;
    *error = HD_LAUNCH(weigh, grid, block, WARPS * sizeof(float), stream, *p);
    if (*error == 0 && p->a.keys > 0)
        status = multiply(launch, p, heads, false);
    if (*error == 0 && status == HEED_OK)
        *error = HD_LAUNCH(finish, grid, block, 0, stream, *p);
    return status;
}

static heed_status_t run_all(const heed_launch_t *launch, params_t *p, int *error)
{
    plan_t plan = make_plan(&p->a);
    const hd_attention_t *a = &p->a;
    char *memory = align(launch->workspace);
    heed_status_t status = HEED_OK;
    p->keys = plan.keys;
    p->scores = (float *)(memory + plan.scores);
    p->weights = memory + plan.weights;
    p->sums = (float *)(memory + plan.sums);
    p->stats = (float *)(memory + plan.stats);
    int heads;
    for (p->batch = 0; p->batch < a->batch; p->batch++)
        for (p->head = 0; p->head < a->heads; p->head += heads) {
            /* With groups, a chunk has one key head. */
            int64_t end = a->group > 1 ? (p->head / a->group + 1) * a->group : a->heads;
            heads = (int)hd_min(plan.heads, end - p->head);
            for (p->row = 0; p->row < a->queries && status == HEED_OK && *error == 0;
                 p->row += plan.rows) {
                p->rows = (int)hd_min(plan.rows, a->queries - p->row);
                status = run_chunk(launch, p, heads, error);
            }
        }
    return status;
}

/* ---- the host's side ------------------------------------------------------------------------- */

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    params_t p = {};
    p.a = hd_attention_of(launch);
    if (p.a.batch * p.a.heads * p.a.queries == 0)
        return HEED_OK;
    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(launch, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    int error = 0;
    status = run_all(launch, &p, &error);
    heed_status_t left = hd_cuda_leave(&scope, error, "cuda:standard");
    return status != HEED_OK ? status : left;
}

static int takes(const char *name, const heed_tensor_t *tensor, heed_why_t *why)
{
    int64_t row = step(tensor);
    if (row >= tensor->shape[3] && row <= INT32_MAX)
        return 1;
    return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                          "%s.strides[1]=%lld: cuBLAS takes %lld to 2^31-1", name, (long long)row,
                          (long long)tensor->shape[3]);
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    return takes("q", &desc->q, why) && takes("k", &desc->k, why) && takes("v", &desc->v, why) &&
           hd_cuda_can_multiply(device->device.id, why);
}

/* The scores pass through memory four times; a guess that nothing was measured for. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const int64_t *q = desc->q.shape;
    double pairs = (double)q[0] * (double)q[1] * (double)q[2] * (double)desc->k.shape[1];
    double bandwidth = device->memory_bandwidth > 0 ? (double)device->memory_bandwidth : 1e12;
    return 30000 + 1e9 * pairs * 20 / bandwidth;
}

static size_t workspace(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device, (void)threads;
    hd_attention_t a = hd_attention((const heed_attention_desc_t *)desc, NULL);
    return (size_t)make_plan(&a).bytes;
}

enum {
    CANNOT =
        HEED_ATTENTION_CAN_STRIDED_DIM | HEED_ATTENTION_CAN_E4M3 | HEED_ATTENTION_CAN_EXACT_E4M3
};

extern "C" const heed_impl_t hd_impl_cuda_standard;
const heed_impl_t hd_impl_cuda_standard = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:standard",
    .about = "product, softmax, product, by cuBLAS; the scores in memory",
    .device_type = HEED_DEVICE_CUDA,
    .features = HEED_ATTENTION_CAN_PLAIN & ~CANNOT,
    .supports = supports,
    .estimate = estimate,
    .workspace = workspace,
    .run = run,
};
