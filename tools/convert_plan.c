/* What `heed convert` does with each tensor: the names, dtypes and shapes of the output. */
#define _GNU_SOURCE
#include "convert.h"
#include "values.h"

#include "safetensors_internal.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, MX_BLOCK = 32 };

/* ---- names ----------------------------------------------------------------------------------- */

/* Where vLLM and Transformers look for the scales of `name`: NAME_scale, and NAME_scale_inv for
 * blocks of 128 x 128. Both multiply the codes. */
static const char *const scale_suffixes[] = {"_scale", "_scale_inv"};

static const char *suffix_for(convert_scale_t scale)
{
    return scale_suffixes[scale == CONVERT_SCALE_BLOCK];
}

static const st_tensor_t *find_scale(const st_file_t *file, const st_tensor_t *tensor)
{
    char name[1024];
    for (int i = 0; i < 2; i++) {
        const st_tensor_t *found;
        int length = snprintf(name, sizeof name, "%.1000s%s", tensor->name, scale_suffixes[i]);
        if ((size_t)length >= strlen(tensor->name) && (found = st_find(file, name)))
            return found;
    }
    return NULL;
}

static bool is_eight_bits(const st_dtype_t *dtype)
{
    return dtype->bits == 8 && values_are_float(dtype);
}

/* The tensor whose scales this one holds; NULL: it is no such tensor. */
static const st_tensor_t *find_scaled(const st_file_t *file, const st_tensor_t *tensor)
{
    char name[1024];
    size_t length = strlen(tensor->name);
    for (int i = 0; i < 2; i++) {
        size_t tail = strlen(scale_suffixes[i]);
        if (length <= tail || length - tail > 1000 ||
            strcmp(tensor->name + length - tail, scale_suffixes[i]) != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(length - tail), tensor->name);
        const st_tensor_t *of = st_find(file, name);
        if (of && is_eight_bits(of->dtype) && find_scale(file, of) == tensor)
            return of;
    }
    return NULL;
}

static bool can_cast(const st_dtype_t *dtype)
{
    return is_eight_bits(dtype)
               ? dtype->heed != 0
               : dtype->heed == HEED_F32 || dtype->heed == HEED_F16 || dtype->heed == HEED_BF16;
}

/* Named ones are cast; without names all floating-point tensors, but to 8 bits only those with two
 * axes or more: nobody stores biases and norms in FP8. */
static bool is_wanted(const convert_target_t *target, const st_tensor_t *tensor)
{
    if (tensor->elements == 0 || !can_cast(tensor->dtype))
        return false;
    if (target->exclude && fnmatch(target->exclude, tensor->name, 0) == 0)
        return false;
    if (target->include)
        return fnmatch(target->include, tensor->name, 0) == 0;
    return tensor->ndim >= 2 || target->dtype->bits > 8;
}

/* A tensor that is asked for by name and cannot be cast is an error, not a copy. */
static bool check_named(const convert_target_t *target, const st_tensor_t *tensor,
                        st_error_t *error)
{
    if (!target->include || tensor->elements == 0 || can_cast(tensor->dtype) ||
        fnmatch(target->include, tensor->name, 0) != 0 ||
        (target->exclude && fnmatch(target->exclude, tensor->name, 0) == 0))
        return true;
    return st_fail(error, "%.200s is %s, which is not cast: F32, F16, BF16 and 8-bit floats are",
                   tensor->name, tensor->dtype->name);
}

/* ---- grids ----------------------------------------------------------------------------------- */

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static convert_grid_t grid_of(const st_tensor_t *tensor, int64_t block_rows, int64_t block_columns)
{
    convert_grid_t grid = {.rows = 1, .columns = 1};
    if (tensor->ndim > 0)
        grid.columns = tensor->shape[tensor->ndim - 1];
    for (int i = 0; i + 1 < tensor->ndim; i++)
        grid.rows *= tensor->shape[i];
    if (block_rows == 0)
        return grid;
    grid.block_rows = block_rows < 0 ? grid.rows : block_rows;
    grid.block_columns = block_columns < 0 ? grid.columns : block_columns;
    grid.scale_rows = ceil_div(grid.rows, grid.block_rows);
    grid.scale_columns = ceil_div(grid.columns, grid.block_columns);
    return grid;
}

static convert_grid_t grid_for(const st_tensor_t *tensor, convert_scale_t scale)
{
    switch (scale) {
    case CONVERT_SCALE_TENSOR:
        return grid_of(tensor, -1, -1);
    case CONVERT_SCALE_ROW:
        return grid_of(tensor, 1, -1);
    case CONVERT_SCALE_BLOCK:
        return grid_of(tensor, BLOCK, BLOCK);
    case CONVERT_SCALE_MX:
        return grid_of(tensor, 1, MX_BLOCK);
    default:
        return grid_of(tensor, 0, 0);
    }
}

/* How stored scales lie over a tensor, told by how many there are and their dtype. */
static bool read_grid(const st_tensor_t *tensor, const st_tensor_t *scale, convert_grid_t *grid,
                      st_error_t *error)
{
    bool codes = strcmp(scale->dtype->name, "U8") == 0 || scale->dtype->heed == HEED_E8M0;
    static const convert_scale_t plain[] = {CONVERT_SCALE_TENSOR, CONVERT_SCALE_ROW,
                                            CONVERT_SCALE_BLOCK};
    char text[128];
    *grid = grid_for(tensor, CONVERT_SCALE_MX);
    if (codes && scale->elements == grid->scale_rows * grid->scale_columns)
        return true;
    for (int i = 0; !codes && values_are_float(scale->dtype) && i < 3; i++) {
        *grid = grid_for(tensor, plain[i]);
        if (scale->elements == grid->scale_rows * grid->scale_columns)
            return true;
    }
    return st_fail(error, "%.200s is %s %s: no scales for a tensor of %lld x %lld", scale->name,
                   scale->dtype->name, st_shape_text(scale, text, sizeof text),
                   (long long)grid->rows, (long long)grid->columns);
}

/* ---- the list -------------------------------------------------------------------------------- */

/* The next tensor of the output, or -1: out of memory. */
static int add_output(convert_list_t *list, const char *name, const char *suffix,
                      const st_dtype_t *dtype, int ndim, const int64_t *shape)
{
    int index = list->output_count;
    if (asprintf(&list->names[index], "%s%s", name, suffix) < 0) {
        list->names[index] = NULL;
        return -1;
    }
    if (ndim > 0)
        memcpy(list->shapes[index], shape, (size_t)ndim * sizeof *shape);
    list->outputs[index] = (st_tensor_t){
        .name = list->names[index], .dtype = dtype, .ndim = ndim, .shape = list->shapes[index]};
    return list->output_count++;
}

static int add_scale(convert_list_t *list, const convert_target_t *target, const convert_job_t *job)
{
    const st_tensor_t *from = job->from;
    int64_t shape[HEED_MAX_NDIM] = {1};
    int ndim = 1;
    if (target->scale != CONVERT_SCALE_TENSOR) {
        ndim = from->ndim > 0 ? from->ndim : 1;
        if (from->ndim > 0)
            memcpy(shape, from->shape, (size_t)ndim * sizeof *shape);
        shape[ndim - 1] = job->grid.scale_columns;
        if (target->scale == CONVERT_SCALE_BLOCK) {
            /* Leading axes are rows like the second last: blocks run over all of them. */
            shape[0] = job->grid.scale_rows;
            shape[1] = job->grid.scale_columns;
            ndim = 2;
        }
    }
    const char *dtype = target->scale == CONVERT_SCALE_MX ? "U8" : "F32";
    return add_output(list, from->name, suffix_for(target->scale), st_dtype_find(dtype), ndim,
                      shape);
}

static bool plan_tensor(const st_file_t *file, const convert_target_t *target,
                        const st_tensor_t *tensor, convert_list_t *list, st_error_t *error)
{
    convert_job_t *job = &list->jobs[list->job_count++];
    *job = (convert_job_t){.from = tensor, .output = -1, .scale_output = -1};
    job->cast = is_wanted(target, tensor);
    if (!check_named(target, tensor, error))
        return false;
    if (job->cast && is_eight_bits(tensor->dtype))
        job->scale_from = find_scale(file, tensor);
    if (job->scale_from && !read_grid(tensor, job->scale_from, &job->from_grid, error))
        return false;
    const st_dtype_t *dtype = job->cast ? target->dtype : tensor->dtype;
    job->grid = grid_for(tensor, job->cast ? target->scale : CONVERT_SCALE_NONE);
    job->output = add_output(list, tensor->name, "", dtype, tensor->ndim, tensor->shape);
    if (job->output >= 0 && job->grid.block_rows > 0)
        job->scale_output = add_scale(list, target, job);
    if (job->output < 0 || (job->grid.block_rows > 0 && job->scale_output < 0))
        return st_fail(error, "out of memory for the list of tensors");
    return true;
}

bool convert_plan(const st_file_t *file, const convert_target_t *target, convert_list_t *list,
                  st_error_t *error)
{
    const st_tensor_t *tensor;
    int count = 0;
    while (st_at(file, count))
        count++;
    size_t most = 2 * (size_t)count + 1;
    *list = (convert_list_t){.jobs = calloc(most, sizeof *list->jobs),
                             .outputs = calloc(most, sizeof *list->outputs),
                             .names = calloc(most, sizeof *list->names),
                             .shapes = calloc(most, sizeof *list->shapes)};
    if (!list->jobs || !list->outputs || !list->names || !list->shapes)
        return st_fail(error, "out of memory for the list of tensors");
    for (int i = 0; (tensor = st_at(file, i)); i++) {
        if (tensor->ndim > HEED_MAX_NDIM)
            return st_fail(error, "%.200s has %d axes: at most %d", tensor->name, tensor->ndim,
                           HEED_MAX_NDIM);
        /* Scales of a tensor that is decoded are used up. */
        const st_tensor_t *scaled = find_scaled(file, tensor);
        if (!(scaled && is_wanted(target, scaled)) &&
            !plan_tensor(file, target, tensor, list, error))
            return false;
    }
    return true;
}

void convert_list_free(convert_list_t *list)
{
    for (int i = 0; list->names && i < list->output_count; i++)
        free(list->names[i]);
    free(list->names);
    free(list->shapes);
    free(list->outputs);
    free(list->jobs);
}
