/* Casts, for every instruction set: rows of the last axis that follow each other go through
 * cast_row, all else element by element. A file that includes this defines
 *
 *     cast_row(from dtype, from, to dtype, to, n)     dense elements
 */
#ifndef HD_CAST_BODY_H
#define HD_CAST_BODY_H

#include "../common/element.h"
#include "parallel.h"

enum { CAST_CHUNK = 1 << 14, CAST_SERIAL = 1 << 16 };

typedef struct cast_job {
    const heed_cast_desc_t *desc;
    const char *src;
    char *dst;
    int64_t rows, row; /* row elements of one run of memory, or of one last axis */
    int64_t chunks;    /* of a row */
    bool dense;
} cast_job_t;

static bool cast_is_dense(const heed_tensor_t *tensor)
{
    int64_t stride = 1;
    for (int i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->shape[i] > 1 && tensor->strides[i] != stride)
            return false;
        stride *= tensor->shape[i];
    }
    return true;
}

/* Bytes from the first element to that of row number `row`, counting all axes but the last. */
static int64_t cast_row_offset(const heed_tensor_t *tensor, int64_t row)
{
    int64_t offset = 0;
    for (int i = tensor->ndim - 2; i >= 0; i--) {
        offset += row % tensor->shape[i] * tensor->strides[i];
        row /= tensor->shape[i];
    }
    return offset * hd_dtype_bytes(tensor->dtype);
}

static void cast_chunk(const cast_job_t *job, int64_t row, int64_t first, int64_t count)
{
    const heed_tensor_t *src = &job->desc->src, *dst = &job->desc->dst;
    int64_t src_size = hd_dtype_bytes(src->dtype), dst_size = hd_dtype_bytes(dst->dtype);
    int last = src->ndim - 1;
    int64_t src_step = job->dense ? src_size : src->strides[last] * src_size;
    int64_t dst_step = job->dense ? dst_size : dst->strides[last] * dst_size;
    const char *from = job->src + (job->dense ? 0 : cast_row_offset(src, row)) + first * src_step;
    char *to = job->dst + (job->dense ? 0 : cast_row_offset(dst, row)) + first * dst_step;
    if (src_step == src_size && dst_step == dst_size) {
        cast_row(src->dtype, from, dst->dtype, to, count);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        hd_element_store(dst->dtype, to + i * dst_step,
                         hd_element_load(src->dtype, from + i * src_step));
}

static void cast_work(const hd_team_t *team, void *arg)
{
    const cast_job_t *job = arg;
    int64_t total = job->rows * job->chunks;
    int64_t begin = total * team->rank / team->size, end = total * (team->rank + 1) / team->size;
    for (int64_t at = begin; at < end; at++) {
        int64_t first = at % job->chunks * CAST_CHUNK;
        cast_chunk(job, at / job->chunks, first, hd_min(CAST_CHUNK, job->row - first));
    }
}

static heed_status_t cast_run(const heed_launch_t *launch)
{
    const heed_cast_desc_t *desc = launch->desc;
    cast_job_t job = {
        .desc = desc, .src = launch->buffers[HEED_CAST_SRC], .dst = launch->buffers[HEED_CAST_DST]};
    int64_t elements = 1;
    for (int i = 0; i < desc->src.ndim; i++)
        elements *= desc->src.shape[i];
    if (elements == 0)
        return HEED_OK;
    job.dense = cast_is_dense(&desc->src) && cast_is_dense(&desc->dst);
    job.row = job.dense ? elements : desc->src.shape[desc->src.ndim - 1];
    job.rows = elements / job.row;
    job.chunks = hd_ceil_div(job.row, CAST_CHUNK);
    hd_parallel(elements < CAST_SERIAL ? 1 : launch->threads, cast_work, &job);
    return HEED_OK;
}

/* Memory alone: 10 GB/s a core, or `elements_per_ns` where the arithmetic is slower. */
static double cast_estimate_at(const heed_cast_desc_t *desc, int threads, double elements_per_ns)
{
    double elements = 1;
    for (int i = 0; i < desc->src.ndim; i++)
        elements *= (double)desc->src.shape[i];
    double bytes =
        elements * (double)(hd_dtype_bytes(desc->src.dtype) + hd_dtype_bytes(desc->dst.dtype));
    double memory = bytes / 10, compute = elements / elements_per_ns;
    return (memory > compute ? memory : compute) / threads + (threads > 1 ? 5000.0 : 200.0);
}

#endif
