/* `heed convert`: what is done with each tensor of a file, and doing it. */
#ifndef TOOLS_CONVERT_H
#define TOOLS_CONVERT_H

#include "options.h"
#include "safetensors.h"

typedef enum convert_scale {
    CONVERT_SCALE_AUTO, /* tensor for 8-bit targets, else none */
    CONVERT_SCALE_NONE,
    CONVERT_SCALE_TENSOR,
    CONVERT_SCALE_ROW,
    CONVERT_SCALE_BLOCK, /* 128 x 128 */
    CONVERT_SCALE_MX     /* 1 x 32, E8M0; of the target mxfp8 alone */
} convert_scale_t;

typedef struct convert_target {
    const st_dtype_t *dtype;
    convert_scale_t scale;
    heed_cast_preset_t preset;
    const char *include, *exclude; /* globs; NULL: not given */
} convert_target_t;

/* A tensor as rows of its last axis, which is how scales lie over it. */
typedef struct convert_grid {
    int64_t rows, columns;
    int64_t block_rows, block_columns; /* elements that share a scale; 0: none do */
    int64_t scale_rows, scale_columns; /* of the scales' own tensor */
} convert_grid_t;

typedef struct convert_job {
    const st_tensor_t *from;
    const st_tensor_t *scale_from; /* the scales that from is stored with; NULL: none */
    convert_grid_t from_grid;      /* how scale_from lies over it */
    bool cast;                     /* false: copied as it is */
    convert_grid_t grid;           /* of the scales that are written */
    int output, scale_output;      /* numbers of tensors of the output; -1: none */
} convert_job_t;

typedef struct convert_list {
    convert_job_t *jobs;
    int job_count;
    st_tensor_t *outputs; /* names and shapes belong to the list */
    int output_count;
    char **names;
    int64_t (*shapes)[HEED_MAX_NDIM];
} convert_list_t;

/* Decides for every tensor of the file. False after an error. */
bool convert_plan(const st_file_t *file, const convert_target_t *target, convert_list_t *list,
                  st_error_t *error);
void convert_list_free(convert_list_t *list);

/* What a cast did to one tensor. */
typedef struct convert_report {
    double signal, noise; /* sums of squares */
    double worst;         /* largest absolute error of finite numbers */
    int64_t clipped, nans, infinities;
} convert_report_t;

/* A part of a tensor of the output. */
typedef struct convert_piece {
    int index;
    const void *data;
    size_t bytes;
} convert_piece_t;

/* Writes in a thread of its own. NULL after an error. */
typedef struct convert_output convert_output_t;
convert_output_t *convert_output_new(st_writer_t *writer, st_error_t *error);

/* Waits until what was put last is written, then hands over one or two pieces, whose data stays as
 * it is until the next call has returned. False where writing failed, now or before. */
bool convert_output_put(convert_output_t *output, const convert_piece_t *pieces, int count,
                        st_error_t *error);

/* Waits until all is written and ends the thread. NULL is a failure that the caller knows of. */
bool convert_output_end(convert_output_t *output, st_error_t *error);

/* Buffers that grow to what the largest tensor needs; two of what is written, one of which the next
 * tensor is made in while the other is on its way. */
typedef struct convert_result {
    void *codes, *scales;
    size_t code_bytes, scale_bytes;
} convert_result_t;

typedef struct convert_buffers {
    convert_result_t results[2];
    int turn;
    void *scales, *decoded;
    size_t scale_bytes, decoded_bytes;
} convert_buffers_t;
void convert_buffers_free(convert_buffers_t *buffers);

/* Casts or copies one tensor into the output; what it did is measured where report is not NULL. */
bool convert_tensor(heed_context_t *context, const convert_target_t *target,
                    const convert_job_t *job, convert_output_t *output, convert_buffers_t *buffers,
                    convert_report_t *report, st_error_t *error);

#endif
