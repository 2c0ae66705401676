/* Linear layers split over ranks: a product of this rank's part, then a collective. */
#include "blas.h"
#include "ranks.h"

#include <heed/linear.h>

#include <limits.h>
#include <string.h>

typedef struct linear {
    heed_context_t *context;
    heed_comm_t comm;
    heed_linear_desc_t desc;
    heed_tensor_t x, w, bias, out; /* complete */
    hd_axes_t axes[4];
    int64_t m, n, k; /* of the local product */
    float *memory;   /* a product that does not go to out */
} linear_t;

const char *heed_linear_library(void)
{
    const char *name = hd_blas_name();
    return name ? name : "";
}

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t check_tensor(const char *name, const heed_tensor_t *from, int ndim,
                                  bool output, heed_tensor_t *to, hd_axes_t *axes)
{
    HD_TRY(hd_tensor_complete(name, from, output, to, axes));
    if (to->ndim != ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not %d", name, to->ndim, ndim);
    if (to->dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "%s is %s: linear layers take f32", name,
                       heed_dtype_name(to->dtype));
    if (from->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_UNSUPPORTED, "%s.device is no CPU", name);
    for (int i = 0; i < ndim; i++)
        if (to->shape[i] < 1 || to->shape[i] > INT_MAX)
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld is not 1 to %d", name, i,
                           (long long)to->shape[i], INT_MAX);
    if ((to->shape[ndim - 1] > 1 && to->strides[ndim - 1] != 1) ||
        (ndim == 2 && (to->strides[0] < to->shape[1] || to->strides[0] > INT_MAX)))
        return hd_fail(HEED_ERROR_STRIDE, "%s: its last axis is not dense, or its rows overlap",
                       name);
    if (!from->data)
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    return HEED_OK;
}

static heed_status_t check_sizes(linear_t *linear)
{
    const heed_linear_desc_t *desc = &linear->desc;
    int64_t size = linear->comm.size;
    linear->m = linear->x.shape[0];
    linear->k = linear->x.shape[1];
    linear->n = linear->w.shape[0];
    if (linear->w.shape[1] != linear->k)
        return hd_fail(HEED_ERROR_SHAPE, "w.shape[1]=%lld, but x.shape[1]=%lld",
                       (long long)linear->w.shape[1], (long long)linear->k);
    if (linear->bias.ndim && linear->bias.shape[0] != linear->n)
        return hd_fail(HEED_ERROR_SHAPE, "bias.shape[0]=%lld, but w.shape[0]=%lld",
                       (long long)linear->bias.shape[0], (long long)linear->n);
    if (desc->scatter && linear->m % size)
        return hd_fail(HEED_ERROR_SHAPE, "x.shape[0]=%lld is no multiple of the %lld ranks",
                       (long long)linear->m, (long long)size);
    int64_t rows = desc->scatter ? linear->m / size : linear->m;
    int64_t columns = desc->gather ? linear->n * size : linear->n;
    if (linear->out.shape[0] != rows || linear->out.shape[1] != columns)
        return hd_fail(HEED_ERROR_SHAPE, "out is [%lld,%lld], not [%lld,%lld]",
                       (long long)linear->out.shape[0], (long long)linear->out.shape[1],
                       (long long)rows, (long long)columns);
    if (desc->split == HEED_LINEAR_ROW && linear->out.strides[0] != columns && rows > 1)
        return hd_fail(HEED_ERROR_STRIDE, "out is not dense, but ranks add to it");
    return HEED_OK;
}

static heed_status_t check(linear_t *linear)
{
    const heed_linear_desc_t *desc = &linear->desc;
    if ((int)desc->split < 0 || desc->split > HEED_LINEAR_ROW || desc->gather < 0 ||
        desc->gather > 1 || desc->scatter < 0 || desc->scatter > 1)
        return hd_fail(HEED_ERROR_VALUE, "desc.split=%d, gather=%d, scatter=%d: each is 0 or 1",
                       (int)desc->split, desc->gather, desc->scatter);
    if ((desc->gather && desc->split != HEED_LINEAR_COLUMN) ||
        (desc->scatter && desc->split != HEED_LINEAR_ROW))
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.split=%d: gather is for COLUMN (0), scatter for ROW (1)",
                       (int)desc->split);
    HD_TRY(check_tensor("x", &desc->x, 2, false, &linear->x, &linear->axes[0]));
    HD_TRY(check_tensor("w", &desc->w, 2, false, &linear->w, &linear->axes[1]));
    if (desc->bias.ndim)
        HD_TRY(check_tensor("bias", &desc->bias, 1, false, &linear->bias, &linear->axes[2]));
    HD_TRY(check_tensor("out", &desc->out, 2, true, &linear->out, &linear->axes[3]));
    HD_TRY(check_sizes(linear));
    return hd_blas_check();
}

/* Memory for a product that is exchanged: all ranks' columns, or all rows before they are dealt. */
static heed_status_t allocate(linear_t *linear)
{
    size_t numbers = (size_t)linear->m * (size_t)linear->n;
    if (!linear->desc.gather && !linear->desc.scatter)
        return HEED_OK;
    if (linear->desc.gather)
        numbers *= (size_t)linear->comm.size;
    linear->memory = hd_alloc(linear->context, numbers * sizeof(float));
    if (!linear->memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a product of %zu numbers", numbers);
    return HEED_OK;
}

static heed_status_t agree(const linear_t *linear, heed_status_t own)
{
    static const char *const names[] = {
        "split",     "gather",       "scatter",          "rows of x",
        "rows of w", "columns of w", "presence of bias", "a number"};
    hd_greeting_t greeting;
    memset(&greeting, 0, sizeof(greeting));
    greeting.bad = own != HEED_OK;
    const int64_t numbers[] = {linear->desc.split, linear->desc.gather, linear->desc.scatter,
                               linear->m,          linear->n,           linear->k,
                               linear->bias.ndim};
    if (own == HEED_OK)
        memcpy(greeting.numbers, numbers, sizeof(numbers));
    return hd_comm_agree(&linear->comm, &greeting, names, HD_COUNT(numbers));
}

/* ---- running --------------------------------------------------------------------------------- */

static void multiply(const linear_t *linear, float *to, int64_t stride)
{
    hd_gemm_t gemm = {.m = (int)linear->m,
                      .n = (int)linear->n,
                      .k = (int)linear->k,
                      .a = (const float *)(void *)hd_tensor_data(&linear->desc.x),
                      .b = (const float *)(void *)hd_tensor_data(&linear->desc.w),
                      .c = to,
                      .lda = (int)hd_max(linear->x.strides[0], linear->k),
                      .ldb = (int)hd_max(linear->w.strides[0], linear->k),
                      .ldc = (int)stride};
    hd_blas_gemm(&gemm);
}

static void add_bias(const linear_t *linear, float *to, int64_t rows, int64_t stride)
{
    if (!linear->bias.ndim)
        return;
    const float *bias = (const float *)(void *)hd_tensor_data(&linear->desc.bias);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < linear->n; j++)
            to[i * stride + j] += bias[j];
}

/* Blocks [M,N/P] of all ranks, one behind the other, to columns of out. */
static heed_status_t gather_columns(const linear_t *linear, float *out)
{
    int64_t n = linear->n, block = linear->m * n, stride = linear->out.strides[0];
    float *own = linear->memory + linear->comm.rank * block;
    multiply(linear, own, n);
    add_bias(linear, own, linear->m, n);
    HD_TRY(heed_comm_all_gather(&linear->comm, own, (size_t)block * sizeof(float), linear->memory));
    for (int64_t r = 0; r < linear->comm.size; r++)
        for (int64_t i = 0; i < linear->m; i++)
            memcpy(out + i * stride + r * n, linear->memory + r * block + i * n,
                   (size_t)n * sizeof(float));
    return HEED_OK;
}

static heed_status_t run(linear_t *linear)
{
    float *out = (float *)(void *)hd_tensor_data(&linear->desc.out);
    int64_t stride = hd_max(linear->out.strides[0], linear->out.shape[1]);
    size_t numbers = (size_t)linear->out.shape[0] * (size_t)linear->n;
    if (linear->desc.gather)
        return gather_columns(linear, out);
    if (linear->desc.split == HEED_LINEAR_COLUMN) {
        multiply(linear, out, stride);
    } else if (linear->desc.scatter) {
        multiply(linear, linear->memory, linear->n);
        HD_TRY(heed_comm_reduce_scatter(linear->context, &linear->comm, HEED_F32, HEED_REDUCE_SUM,
                                        numbers, linear->memory, out));
    } else {
        multiply(linear, out, linear->n);
        HD_TRY(heed_comm_all_reduce(linear->context, &linear->comm, HEED_F32, HEED_REDUCE_SUM,
                                    numbers, out));
    }
    add_bias(linear, out, linear->out.shape[0], stride);
    return HEED_OK;
}

heed_status_t heed_parallel_linear(heed_context_t *context, const heed_comm_t *comm,
                                   const heed_linear_desc_t *desc)
{
    linear_t linear = {.context = context};
    char sentence[512];
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_comm_enter(comm, &linear.comm));
    if (!hd_comm_on_host(&linear.comm))
        return hd_fail(HEED_ERROR_UNSUPPORTED, "comm carries memory of a device");
    HD_TRY(hd_struct_copy(&linear.desc, sizeof(linear.desc), desc, sizeof(linear.desc), "desc"));
    heed_status_t own = check(&linear);
    if (own == HEED_OK)
        own = allocate(&linear);
    hd_text_t text = hd_text(sentence, sizeof(sentence));
    hd_text_add(&text, "%s", own == HEED_OK ? "" : heed_last_error());
    heed_status_t status = agree(&linear, own);
    if (own != HEED_OK)
        status = hd_fail(own, "%s", sentence);
    else if (status == HEED_OK)
        status = run(&linear);
    hd_free(context, linear.memory);
    return status;
}
