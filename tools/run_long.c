/* Long attention from file to file: q, k and v where they are mapped, out and lse as they come. */
#define _GNU_SOURCE
#include "run_long.h"

#include "run.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* ---- input ----------------------------------------------------------------------------------- */

static int bind(const long_options_t *options, long_input_t *input, const char *name,
                long_tensor_t *to)
{
    const st_tensor_t *file = st_find(input->file, name);
    const char *path = st_path(input->file);
    if (!file)
        return tool_fail("%s: has no tensor %s", path, name);
    if (!file->dtype->heed)
        return tool_fail("%s: %s is %s, which no operation takes", path, name, file->dtype->name);
    if (file->ndim != 4 && file->ndim != 3)
        return tool_fail("%s: %s has %d axes: it takes 4, or 3 without the batch", path, name,
                         file->ndim);
    int lacks = 4 - file->ndim, s = options->heads_first ? 2 : 1;
    int64_t shape[4] = {1};
    memcpy(shape + lacks, file->shape, (size_t)file->ndim * sizeof *shape);
    to->shape[0] = shape[0];
    to->shape[1] = shape[s];
    to->shape[2] = shape[3 - s];
    to->shape[3] = shape[3];
    to->strides[3] = 1;
    if (options->heads_first) { /* the file's axes are b, h, s, d */
        to->strides[1] = shape[3];
        to->strides[2] = shape[3] * shape[2];
    } else {
        to->strides[1] = shape[3] * shape[2];
        to->strides[2] = shape[3];
    }
    to->strides[0] = shape[1] * shape[2] * shape[3];
    to->file = file;
    to->tensor =
        heed_tensor((void *)(uintptr_t)file->data, file->dtype->heed, 4, to->shape, to->strides);
    input->packed = lacks;
    return TOOL_OK;
}

static int check_same(const long_input_t *input, const long_tensor_t *a, const long_tensor_t *b,
                      int axis, const char *what)
{
    if (a->shape[axis] == b->shape[axis])
        return TOOL_OK;
    return tool_fail("%s: %s has %lld %s, but %s has %lld", st_path(input->file), a->file->name,
                     (long long)a->shape[axis], what, b->file->name, (long long)b->shape[axis]);
}

int long_open(const long_options_t *options, long_input_t *input)
{
    st_error_t error;
    int code = TOOL_OK;
    input->file = st_open(options->files.input, &error);
    if (!input->file)
        return tool_fail("%s", error.text);
    if ((code = bind(options, input, "q", &input->q)) != TOOL_OK ||
        (code = bind(options, input, "k", &input->k)) != TOOL_OK ||
        (code = bind(options, input, "v", &input->v)) != TOOL_OK ||
        (code = check_same(input, &input->k, &input->q, 0, "batch entries")) != TOOL_OK ||
        (code = check_same(input, &input->v, &input->k, 0, "batch entries")) != TOOL_OK ||
        (code = check_same(input, &input->v, &input->k, 1, "tokens")) != TOOL_OK ||
        (code = check_same(input, &input->v, &input->k, 2, "heads")) != TOOL_OK)
        return code;
    if (input->q.file->ndim != input->k.file->ndim || input->k.file->ndim != input->v.file->ndim)
        return tool_fail("%s: q, k and v have %d, %d and %d axes", st_path(input->file),
                         input->q.file->ndim, input->k.file->ndim, input->v.file->ndim);
    return TOOL_OK;
}

void long_close(long_input_t *input)
{
    st_close(input->file);
}

void long_part(const long_tensor_t *of, int64_t b, int64_t first, int64_t count, int64_t from,
               int64_t heads, long_part_t *part)
{
    size_t at = (size_t)(b * of->strides[0] + first * of->strides[1] + from * of->strides[2]);
    memcpy(part->strides, of->strides, sizeof part->strides);
    memcpy(part->shape, (int64_t[]){1, count, heads, of->shape[3]}, sizeof part->shape);
    part->tensor = heed_tensor((char *)of->tensor.data + at * heed_dtype_size(of->tensor.dtype),
                               of->tensor.dtype, 4, part->shape, part->strides);
}

/* The runs of bytes that a part is made of: one, or one a head. */
static void advise(const long_part_t *part, void (*advice)(const void *data, size_t bytes))
{
    const heed_tensor_t *tensor = &part->tensor;
    size_t size = heed_dtype_size(tensor->dtype), rows = (size_t)part->shape[1];
    if (part->strides[1] > part->strides[2]) {
        advice(tensor->data, rows * (size_t)part->strides[1] * size);
        return;
    }
    for (int64_t h = 0; h < part->shape[2]; h++)
        advice((char *)tensor->data + (size_t)(h * part->strides[2]) * size,
               rows * (size_t)part->strides[1] * size);
}

void long_will_need(const long_part_t *part)
{
    advise(part, st_will_need);
}

void long_is_done(const long_part_t *part)
{
    advise(part, st_is_done);
}

/* ---- output ---------------------------------------------------------------------------------- */

void long_describe(const long_options_t *options, const long_input_t *input, int64_t rows,
                   long_output_t *output)
{
    *output = (long_output_t){.batch = input->q.shape[0],
                              .rows = rows,
                              .heads = input->q.shape[2],
                              .dv = input->v.shape[3],
                              .heads_first = options->heads_first};
    output->dtype = options->out ? options->out : input->q.tensor.dtype;
}

int long_create(const long_options_t *options, const long_input_t *input, int64_t rows,
                const char *problem, long_output_t *output)
{
    st_error_t error;
    long_describe(options, input, rows, output);
    int64_t out[4] = {output->batch, rows, output->heads, output->dv};
    int64_t lse[3] = {output->batch, output->heads, rows};
    if (output->heads_first) {
        out[1] = output->heads;
        out[2] = rows;
    }
    int lacks = input->packed;
    const st_tensor_t tensors[] = {
        {.name = "out",
         .dtype = st_dtype_of(output->dtype),
         .ndim = 4 - lacks,
         .shape = out + lacks},
        {.name = "lse", .dtype = st_dtype_of(HEED_F32), .ndim = 3 - lacks, .shape = lse + lacks}};
    json_t *metadata =
        json_pack("{s:s+, s:s}", "producer", "heed ", heed_version(), "problem", problem);
    output->writer = st_create(options->files.output, tensors, 2, metadata, &error);
    json_decref(metadata);
    return output->writer ? TOOL_OK : tool_fail("%s", error.text);
}

int long_block_new(const long_output_t *output, int64_t count, int64_t heads, long_block_t *block)
{
    size_t rows = (size_t)(count * heads);
    memset(block, 0, sizeof *block);
    block->out = malloc(rows * (size_t)output->dv * heed_dtype_size(output->dtype) + 1);
    block->lse = malloc(rows * sizeof(float) + 1);
    if (!block->out || !block->lse)
        return tool_fail("out of memory for %lld rows of the output", (long long)count);
    long_block_shape(output, count, heads, block);
    return TOOL_OK;
}

void long_block_shape(const long_output_t *output, int64_t count, int64_t heads,
                      long_block_t *block)
{
    int64_t dv = output->dv, head = output->heads_first ? count * dv : dv;
    const int64_t out[2][4] = {
        {1, count, heads, dv},
        {count * heads * dv, output->heads_first ? dv : heads * dv, head, 1}};
    const int64_t lse[2][4] = {{1, heads, count}, {heads * count, count, 1}};
    memcpy(block->out_axes, out, sizeof out);
    memcpy(block->lse_axes, lse, sizeof lse);
    block->count = count;
    block->heads = heads;
    block->out_tensor =
        heed_tensor(block->out, output->dtype, 4, block->out_axes[0], block->out_axes[1]);
    block->lse_tensor =
        heed_tensor(block->lse, HEED_F32, 3, block->lse_axes[0], block->lse_axes[1]);
}

void long_block_free(long_block_t *block)
{
    free(block->out);
    free(block->lse);
}

/* `runs` runs of `length` elements that lie one behind the other in memory, and `distance` elements
 * apart in the file. */
static bool put(long_output_t *output, int index, const void *data, size_t element, int64_t at,
                int64_t runs, int64_t length, int64_t distance, st_error_t *error)
{
    bool good = true;
    size_t bytes = (size_t)length * element;
    if (distance == length) {
        bytes *= (size_t)runs;
        runs = runs > 0;
    }
    for (int64_t i = 0; good && i < runs; i++)
        good = st_put(output->writer, index, (size_t)(at + i * distance) * element,
                      (const char *)data + (size_t)i * bytes, bytes, error);
    return good;
}

int long_write(long_output_t *output, const long_block_t *block, int64_t b, int64_t first,
               int64_t from)
{
    st_error_t error;
    int64_t rows = output->rows, dv = output->dv, count = block->count, heads = block->heads;
    int64_t head = b * output->heads + from;
    size_t element = heed_dtype_size(output->dtype);
    bool good =
        output->heads_first
            ? put(output, 0, block->out, element, (head * rows + first) * dv, heads, count * dv,
                  rows * dv, &error)
            : put(output, 0, block->out, element, ((b * rows + first) * output->heads + from) * dv,
                  count, heads * dv, output->heads * dv, &error);
    good = good && put(output, 1, block->lse, sizeof(float), head * rows + first, heads, count,
                       rows, &error);
    return good ? TOOL_OK : tool_fail("%s", error.text);
}

int long_commit(const long_options_t *options, long_output_t *output)
{
    st_error_t error;
    st_writer_t *writer = output->writer;
    output->writer = NULL;
    if (!st_commit(writer, &error))
        return tool_fail("%s", error.text);
    if (!options->files.golden)
        return TOOL_OK;
    st_file_t *file = st_open(options->files.output, &error);
    if (!file)
        return tool_fail("%s", error.text);
    st_tensor_t tensors[2] = {*st_find(file, "out"), *st_find(file, "lse")};
    int code = run_golden(options->files.golden, tensors, 2, options->files.tolerance);
    st_close(file);
    return code;
}

/* ---- reports --------------------------------------------------------------------------------- */

double long_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

void long_progress(double part, double started)
{
    double passed = long_now() - started;
    if (part >= 1)
        tool_progress(0, NULL);
    else if (part > 0)
        tool_progress(part, "%.1f %%  %.0f s left", 100 * part, passed / part * (1 - part));
    else
        tool_progress(part, "0 %%");
}

double long_peak_memory(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? NAN : (double)usage.ru_maxrss * 1024;
}

const char *long_shape(const heed_tensor_t *tensor, char *text, size_t size)
{
    size_t at = 0;
    for (int a = 0; a < tensor->ndim && at < size; a++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", a ? "," : "[",
                               (long long)tensor->shape[a]);
    if (at < size)
        snprintf(text + at, size - at, "] %s", heed_dtype_name(tensor->dtype));
    return text;
}
