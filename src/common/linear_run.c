/* The work of a linear layer over ranks, in memory of the host or of a device. On a device all of
 * it is enqueued on the communicator's stream, which orders it. */
#include "blas.h"
#include "linear.h"

#include <string.h>

static size_t element(const hd_linear_t *linear)
{
    return heed_dtype_size(linear->out.dtype);
}

/* Rows of `bytes` each, to_step and from_step bytes apart. */
static heed_status_t copy_rows(const hd_linear_t *linear, char *to, size_t to_step,
                               const char *from, size_t from_step, size_t bytes, int64_t rows)
{
    if (linear->calls)
        return linear->calls->copy_rows(linear->comm.device.id, to, to_step, from, from_step, bytes,
                                        rows, linear->stream.native);
    for (int64_t i = 0; i < rows; i++)
        memcpy(to + (size_t)i * to_step, from + (size_t)i * from_step, bytes);
    return HEED_OK;
}

/* The bias to every row, by copies of twice as many rows each. */
static heed_status_t place_bias(const hd_linear_t *linear, char *to, size_t step)
{
    size_t bytes = (size_t)linear->n * element(linear);
    HD_TRY(copy_rows(linear, to, step, hd_tensor_data(&linear->desc.bias), bytes, bytes, 1));
    for (int64_t rows = 1; rows < linear->m; rows *= 2)
        HD_TRY(copy_rows(linear, to + (size_t)rows * step, step, to, step, bytes,
                         hd_min(rows, linear->m - rows)));
    return HEED_OK;
}

/* x w^T into rows `stride` numbers apart, on top of the bias where it is `biased`. */
static heed_status_t multiply(const hd_linear_t *linear, char *to, int64_t stride, bool biased)
{
    const hd_gemm_t gemm = {.m = (int)linear->m,
                            .n = (int)linear->n,
                            .k = (int)linear->k,
                            .a = hd_tensor_data(&linear->desc.x),
                            .b = hd_tensor_data(&linear->desc.w),
                            .c = to,
                            .lda = (int)hd_max(linear->x.strides[0], linear->k),
                            .ldb = (int)hd_max(linear->w.strides[0], linear->k),
                            .ldc = (int)stride,
                            .adds = biased && linear->bias.ndim};
    if (gemm.adds)
        HD_TRY(place_bias(linear, to, (size_t)stride * element(linear)));
    if (linear->calls)
        return linear->calls->multiply(linear->comm.device.id, &gemm, linear->x.dtype,
                                       linear->out.dtype, linear->block, linear->stream.native);
    hd_blas_gemm(&gemm);
    return HEED_OK;
}

/* Blocks [M,N/P] of all ranks, one behind the other, to columns of out. */
static heed_status_t gather_columns(const hd_linear_t *linear, char *product, char *out,
                                    int64_t stride)
{
    size_t row = (size_t)linear->n * element(linear), block = (size_t)linear->m * row;
    char *own = product + (size_t)linear->comm.rank * block;
    HD_TRY(multiply(linear, own, linear->n, true));
    HD_TRY(heed_comm_all_gather(&linear->comm, own, block, product));
    for (int32_t r = 0; r < linear->comm.size; r++)
        HD_TRY(copy_rows(linear, out + (size_t)r * row, (size_t)stride * element(linear),
                         product + (size_t)r * block, row, row, linear->m));
    return HEED_OK;
}

/* Products are added over ranks; that of rank 0 brings the bias. */
static heed_status_t add_rows(const hd_linear_t *linear, char *product, char *out)
{
    bool scatter = linear->desc.scatter != 0;
    size_t count = (size_t)linear->out.shape[0] * (size_t)linear->n;
    HD_TRY(multiply(linear, scatter ? product : out, linear->n, linear->comm.rank == 0));
    if (scatter)
        return heed_comm_reduce_scatter(linear->context, &linear->comm, linear->out.dtype,
                                        HEED_REDUCE_SUM, count, product, out);
    return heed_comm_all_reduce(linear->context, &linear->comm, linear->out.dtype, HEED_REDUCE_SUM,
                                count, out);
}

heed_status_t hd_linear_run(const hd_linear_t *linear)
{
    char *out = hd_tensor_data(&linear->desc.out), *product = linear->block;
    int64_t stride = hd_max(linear->out.strides[0], linear->out.shape[1]);
    product = product ? product + linear->product_at : NULL;
    if (linear->desc.split == HEED_LINEAR_ROW)
        return add_rows(linear, product, out);
    if (linear->desc.gather)
        return gather_columns(linear, product, out, stride);
    return multiply(linear, out, stride, true);
}
