/* Linear layers split over ranks: what they are given, on the host or on a device, and whether all
 * ranks were given the same. */
#include "linear.h"

#include "blas.h"

#include <limits.h>
#include <string.h>

const char *heed_linear_library(void)
{
    const char *name = hd_blas_name();
    return name ? name : "";
}

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t check_place(const hd_linear_t *linear, const char *name,
                                 const heed_tensor_t *tensor)
{
    heed_device_t there = hd_linear_device(linear);
    if (tensor->device.type == there.type && (!linear->calls || tensor->device.id == there.id))
        return HEED_OK;
    return hd_fail(HEED_ERROR_UNSUPPORTED, "%s.device is %d:%d, but comm carries memory of %d:%d",
                   name, tensor->device.type, tensor->device.id, there.type, there.id);
}

/* By a BLAS f32; on a device x and w of one dtype, bias and out of that or f32. */
static heed_status_t check_dtype(const hd_linear_t *linear, const char *name, heed_dtype_t dtype)
{
    if (dtype == HEED_F32 || (linear->calls && (dtype == HEED_BF16 || dtype == HEED_F16)))
        return HEED_OK;
    return hd_fail(HEED_ERROR_DTYPE, "%s is %s: linear layers take f32%s", name,
                   heed_dtype_name(dtype), linear->calls ? ", bf16, f16" : " on the CPU");
}

static heed_status_t check_dtypes(const hd_linear_t *linear)
{
    heed_dtype_t x = linear->x.dtype, out = linear->out.dtype;
    if (linear->w.dtype != x)
        return hd_fail(HEED_ERROR_DTYPE, "w is %s, but x is %s", heed_dtype_name(linear->w.dtype),
                       heed_dtype_name(x));
    if (out != x && out != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "out is %s: it is f32 or as x %s", heed_dtype_name(out),
                       heed_dtype_name(x));
    if (linear->bias.ndim && linear->bias.dtype != out)
        return hd_fail(HEED_ERROR_DTYPE, "bias is %s, but out is %s",
                       heed_dtype_name(linear->bias.dtype), heed_dtype_name(out));
    return HEED_OK;
}

static heed_status_t check_tensor(const hd_linear_t *linear, const char *name,
                                  const heed_tensor_t *from, int ndim, bool output,
                                  heed_tensor_t *to, hd_axes_t *axes)
{
    HD_TRY(hd_tensor_complete(name, from, output, to, axes));
    if (to->ndim != ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not %d", name, to->ndim, ndim);
    HD_TRY(check_dtype(linear, name, to->dtype));
    HD_TRY(check_place(linear, name, from));
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
    if (linear->calls)
        return linear->calls->check(linear->comm.device.id, name, hd_tensor_data(from),
                                    linear->stream.native);
    return HEED_OK;
}

static heed_status_t check_sizes(hd_linear_t *linear)
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

static heed_status_t check(hd_linear_t *linear)
{
    const heed_linear_desc_t *desc = &linear->desc;
    if ((int)desc->split < 0 || desc->split > HEED_LINEAR_ROW || desc->gather < 0 ||
        desc->gather > 1 || desc->scatter < 0 || desc->scatter > 1 || desc->unchecked < 0 ||
        desc->unchecked > 1)
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.split=%d, gather=%d, scatter=%d, unchecked=%d: each is 0 or 1",
                       (int)desc->split, desc->gather, desc->scatter, desc->unchecked);
    if ((desc->gather && desc->split != HEED_LINEAR_COLUMN) ||
        (desc->scatter && desc->split != HEED_LINEAR_ROW))
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.split=%d: gather is for COLUMN (0), scatter for ROW (1)",
                       (int)desc->split);
    HD_TRY(check_tensor(linear, "x", &desc->x, 2, false, &linear->x, &linear->axes[0]));
    HD_TRY(check_tensor(linear, "w", &desc->w, 2, false, &linear->w, &linear->axes[1]));
    if (desc->bias.ndim)
        HD_TRY(
            check_tensor(linear, "bias", &desc->bias, 1, false, &linear->bias, &linear->axes[2]));
    HD_TRY(check_tensor(linear, "out", &desc->out, 2, true, &linear->out, &linear->axes[3]));
    HD_TRY(check_dtypes(linear));
    HD_TRY(check_sizes(linear));
    if (linear->calls)
        return linear->calls->multiply_memory(linear->comm.device.id, &linear->multiply_bytes);
    return hd_blas_check();
}

/* Memory for a product that is exchanged: all ranks' columns, or all rows before they are dealt. */
static heed_status_t allocate(hd_linear_t *linear)
{
    int64_t parts = linear->desc.gather ? linear->comm.size : linear->desc.scatter ? 1 : 0;
    int64_t size = (int64_t)heed_dtype_size(linear->out.dtype), bytes, all;
    linear->product_at = hd_round_up(linear->multiply_bytes, 256);
    if (!hd_mul(linear->m, linear->n, &bytes) || !hd_mul(bytes, parts * size, &bytes) ||
        !hd_add(bytes, (int64_t)linear->product_at, &all))
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY,
                       "a product of %lld by %lld on %d ranks is too large", (long long)linear->m,
                       (long long)linear->n, linear->comm.size);
    if (all == 0)
        return HEED_OK;
    return hd_device_alloc(linear->context, hd_linear_device(linear), "a product", (size_t)all,
                           linear->calls ? &linear->stream : NULL, &linear->block);
}

static heed_status_t agree(const hd_linear_t *linear, heed_status_t own)
{
    static const char *const names[] = {
        "split",        "gather",           "scatter",    "rows of x",    "rows of w",
        "columns of w", "presence of bias", "dtype of x", "dtype of out", "a number"};
    hd_greeting_t greeting;
    memset(&greeting, 0, sizeof(greeting));
    greeting.bad = own != HEED_OK;
    const int64_t numbers[] = {linear->desc.split,
                               linear->desc.gather,
                               linear->desc.scatter,
                               linear->m,
                               linear->n,
                               linear->k,
                               linear->bias.ndim,
                               (int64_t)linear->x.dtype,
                               (int64_t)linear->out.dtype};
    if (own == HEED_OK)
        memcpy(greeting.numbers, numbers, sizeof(numbers));
    return hd_comm_agree(linear->context, &linear->comm, &greeting, names, HD_COUNT(numbers));
}

/* ---- a layer --------------------------------------------------------------------------------- */

static heed_status_t open_device(hd_linear_t *linear)
{
    if (hd_comm_on_host(&linear->comm))
        return HEED_OK;
    HD_TRY(hd_device_check(linear->context, "comm.device", linear->comm.device));
    linear->calls = linear->context->backend->device;
    linear->stream = hd_comm_stream(&linear->comm);
    return HEED_OK;
}

/* The status of all ranks; own is what this one has found, its sentence the latest. */
static heed_status_t settle(const hd_linear_t *linear, heed_status_t own)
{
    hd_kept_t kept;
    if (linear->desc.unchecked == 1)
        return own;
    hd_keep(&kept, own);
    heed_status_t status = agree(linear, own);
    return own == HEED_OK ? status : hd_kept(&kept);
}

heed_status_t heed_parallel_linear(heed_context_t *context, const heed_comm_t *comm,
                                   const heed_linear_desc_t *desc)
{
    hd_linear_t linear = {.context = context};
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_comm_enter(comm, &linear.comm));
    HD_TRY(open_device(&linear));
    HD_TRY(hd_struct_copy(&linear.desc, sizeof(linear.desc), desc,
                          offsetof(heed_linear_desc_t, unchecked), "desc"));
    heed_status_t own = check(&linear);
    if (own == HEED_OK)
        own = allocate(&linear);
    heed_status_t status = settle(&linear, own);
    if (status == HEED_OK)
        status = hd_linear_run(&linear);
    heed_status_t freed = hd_device_free(context, hd_linear_device(&linear), linear.block,
                                         linear.calls ? &linear.stream : NULL);
    return status == HEED_OK ? freed : status;
}
