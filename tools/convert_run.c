/* One tensor of `heed convert`: decoded where it was scaled, cast and measured in one call, handed
 * on to be written. */
#define _GNU_SOURCE
#include "convert.h"
#include "values.h"

#include "safetensors_internal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static void *grow(void **memory, size_t *have, size_t need)
{
    if (need <= *have && *memory)
        return *memory;
    free(*memory);
    *memory = aligned_alloc(64, (need + 64) / 64 * 64);
    *have = *memory ? need : 0;
    return *memory;
}

void convert_buffers_free(convert_buffers_t *buffers)
{
    for (int i = 0; i < 2; i++) {
        free(buffers->results[i].codes);
        free(buffers->results[i].scales);
    }
    free(buffers->scales);
    free(buffers->decoded);
}

static bool fail_status(st_error_t *error, const st_tensor_t *tensor)
{
    return st_fail(error, "%.200s: %.280s", tensor->name, heed_last_error());
}

/* ---- casts of a grid ------------------------------------------------------------------------- */

/* Rows of a tensor and the scales that lie over them. */
typedef struct part {
    int64_t shape[2];
    int64_t groups;
    heed_cast_desc_t desc;
} part_t;

static void part_init(part_t *part, const convert_grid_t *grid, int64_t rows, const void *from,
                      heed_dtype_t from_dtype, void *to, heed_dtype_t to_dtype)
{
    part->shape[0] = rows;
    part->shape[1] = grid->columns;
    part->groups = 0;
    part->desc = heed_cast_desc();
    part->desc.src = heed_tensor((void *)(uintptr_t)from, from_dtype, 2, part->shape, NULL);
    part->desc.dst = heed_tensor(to, to_dtype, 2, part->shape, NULL);
    if (grid->block_rows == 0)
        return;
    part->groups = (rows + grid->block_rows - 1) / grid->block_rows * grid->scale_columns;
    bool is_row = grid->block_rows == 1 && grid->scale_columns == 1;
    part->desc.scaling = is_row              ? HEED_SCALE_ROW
                         : part->groups == 1 ? HEED_SCALE_TENSOR
                                             : HEED_SCALE_BLOCK;
    part->desc.block[0] = grid->block_rows;
    part->desc.block[1] = grid->block_columns;
}

/* Codes times their stored scales, in f32. */
static heed_status_t decode(heed_context_t *context, const convert_grid_t *grid, const void *codes,
                            heed_dtype_t dtype, const void *scales, heed_dtype_t scale_dtype,
                            float *to)
{
    part_t part;
    part_init(&part, grid, grid->rows, codes, dtype, to, HEED_F32);
    if (grid->block_rows > 0) {
        part.desc.scale_use = HEED_SCALE_MULTIPLIES;
        part.desc.scale =
            heed_tensor((void *)(uintptr_t)scales, scale_dtype, 1, &part.groups, NULL);
    }
    return heed_cast(context, &part.desc);
}

/* The scales that a tensor is stored with, in a dtype that a cast takes. */
static const void *stored_scales(heed_context_t *context, const st_tensor_t *scale,
                                 convert_buffers_t *buffers, heed_dtype_t *dtype)
{
    *dtype = scale->dtype->bits == 8 ? HEED_E8M0 : HEED_F32;
    if (scale->dtype->bits == 8 || scale->dtype->heed == HEED_F32)
        return scale->data;
    size_t bytes = (size_t)scale->elements * sizeof(float);
    convert_grid_t plain = {.rows = 1, .columns = scale->elements};
    if (!grow(&buffers->scales, &buffers->scale_bytes, bytes) ||
        decode(context, &plain, scale->data, scale->dtype->heed, NULL, 0, buffers->scales) !=
            HEED_OK)
        return NULL;
    return buffers->scales;
}

/* Where the tensor's values are to be cast from: the file, or decoded memory. */
static const void *source(heed_context_t *context, const convert_job_t *job,
                          convert_buffers_t *buffers, heed_dtype_t *dtype, st_error_t *error)
{
    const st_tensor_t *from = job->from;
    heed_dtype_t scale_dtype;
    *dtype = from->dtype->heed;
    if (!job->scale_from)
        return from->data;
    size_t bytes = (size_t)from->elements * sizeof(float);
    const void *scales = stored_scales(context, job->scale_from, buffers, &scale_dtype);
    if (!scales || !grow(&buffers->decoded, &buffers->decoded_bytes, bytes)) {
        st_fail(error, "%.200s: out of memory for %zu bytes", from->name, bytes);
        return NULL;
    }
    if (decode(context, &job->from_grid, from->data, *dtype, scales, scale_dtype,
               buffers->decoded) != HEED_OK) {
        fail_status(error, from);
        return NULL;
    }
    *dtype = HEED_F32;
    return buffers->decoded;
}

static heed_status_t encode(heed_context_t *context, const convert_target_t *target,
                            const convert_job_t *job, const void *from, heed_dtype_t dtype,
                            convert_result_t *result, convert_report_t *report)
{
    part_t part;
    int64_t counts[HEED_CAST_COUNTS_SIZE] = {0}, count_size = HEED_CAST_COUNTS_SIZE;
    int64_t loss_size = HEED_CAST_LOSS_SIZE;
    double loss[HEED_CAST_LOSS_SIZE] = {0};
    bool mx = target->scale == CONVERT_SCALE_MX;
    part_init(&part, &job->grid, job->grid.rows, from, dtype, result->codes, target->dtype->heed);
    heed_status_t status = heed_cast_apply_preset(&part.desc, target->preset);
    if (status != HEED_OK)
        return status;
    if (report) {
        part.desc.counts = heed_tensor(counts, HEED_I64, 1, &count_size, NULL);
        part.desc.loss = heed_tensor(loss, HEED_F64, 1, &loss_size, NULL);
    }
    if (part.groups > 0) {
        part.desc.scale_use = HEED_SCALE_DIVIDES;
        part.desc.scale_form = mx ? HEED_SCALE_FORM_MX : HEED_SCALE_FORM_F32;
        part.desc.scale_out =
            heed_tensor(result->scales, mx ? HEED_E8M0 : HEED_F32, 1, &part.groups, NULL);
    }
    status = heed_cast(context, &part.desc);
    if (report)
        *report = (convert_report_t){
            .signal = loss[HEED_LOSS_SIGNAL],
            .noise = loss[HEED_LOSS_NOISE],
            .worst = loss[HEED_LOSS_WORST],
            .clipped = counts[HEED_COUNT_CLIPPED],
            .nans = counts[HEED_COUNT_NAN],
            .infinities = counts[HEED_COUNT_INF],
        };
    return status;
}

/* ---- one tensor ------------------------------------------------------------------------------ */

/* The file's pages of a tensor are asked for before they are needed. */
static void fetch_ahead(const st_tensor_t *tensor)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)tensor->data;
    uintptr_t start = at / page * page;
    madvise((void *)start, at - start + tensor->bytes, MADV_WILLNEED);
}

bool convert_tensor(heed_context_t *context, const convert_target_t *target,
                    const convert_job_t *job, convert_output_t *output, convert_buffers_t *buffers,
                    convert_report_t *report, st_error_t *error)
{
    const st_tensor_t *from = job->from;
    if (report)
        *report = (convert_report_t){0};
    fetch_ahead(from);
    if (!job->cast) {
        convert_piece_t copied = {job->output, from->data, from->bytes};
        return convert_output_put(output, &copied, 1, error);
    }
    heed_dtype_t dtype;
    convert_result_t *result = &buffers->results[buffers->turn ^= 1];
    const void *values = source(context, job, buffers, &dtype, error);
    if (!values)
        return false;
    size_t bytes = (size_t)from->elements * heed_dtype_size(target->dtype->heed);
    size_t groups = (size_t)(job->grid.scale_rows * job->grid.scale_columns);
    size_t scale_bytes = groups * (target->scale == CONVERT_SCALE_MX ? 1 : sizeof(float));
    if (!grow(&result->codes, &result->code_bytes, bytes) ||
        !grow(&result->scales, &result->scale_bytes, scale_bytes))
        return st_fail(error, "%.200s: out of memory for %zu bytes", from->name, bytes);
    if (encode(context, target, job, values, dtype, result, report) != HEED_OK)
        return fail_status(error, from);
    convert_piece_t pieces[] = {{job->output, result->codes, bytes},
                                {job->scale_output, result->scales, scale_bytes}};
    return convert_output_put(output, pieces, job->scale_output < 0 ? 1 : 2, error);
}
