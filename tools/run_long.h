/* What `heed run ring` and `heed run sparse` share: q, k and v of a file where they are mapped, out
 * and lse written piece by piece, blocks of queries. */
#ifndef TOOLS_RUN_LONG_H
#define TOOLS_RUN_LONG_H

#include "options.h"
#include "run_files.h"
#include "safetensors.h"

#include <argp.h>

/* ---- the command line ------------------------------------------------------------------------ */

typedef struct long_options {
    run_files_t files;
    bool heads_first; /* tensors lie as [B,H,S,D] */
    heed_dtype_t out; /* 0: q's */
    double scale;     /* 0: 1/sqrt(D) */
    int causal;
    int block;  /* queries at a time, 0: chosen */
    bool quiet; /* no report */
    tool_options_t common;
} long_options_t;

/* A child for argp; its input is a long_options_t. */
extern const struct argp long_argp;

/* ---- files ----------------------------------------------------------------------------------- */

typedef struct long_tensor {
    heed_tensor_t tensor; /* [B,S,H,D] in the mapping */
    int64_t shape[4], strides[4];
    const st_tensor_t *file;
} long_tensor_t;

typedef struct long_input {
    st_file_t *file;
    long_tensor_t q, k, v;
    bool packed; /* no axis of the batch */
} long_input_t;

/* Tensors q, k, v of the file, whose B, S and Hk agree where they have to. An exit code. */
int long_open(const long_options_t *options, long_input_t *input);
void long_close(long_input_t *input);

/* The rows first .. first+count-1 of the heads from .. from+heads-1 of batch entry b. */
typedef struct long_part {
    heed_tensor_t tensor;
    int64_t shape[4], strides[4];
} long_part_t;
void long_part(const long_tensor_t *of, int64_t b, int64_t first, int64_t count, int64_t from,
               int64_t heads, long_part_t *part);

/* Tells the system that the rows will be needed, or are not needed again. */
void long_will_need(const long_part_t *part);
void long_is_done(const long_part_t *part);

typedef struct long_output {
    st_writer_t *writer;
    int64_t batch, rows, heads, dv;
    heed_dtype_t dtype;
    bool heads_first;
} long_output_t;

/* What the output will be, without a file: of a rank that does not write. */
void long_describe(const long_options_t *options, const long_input_t *input, int64_t rows,
                   long_output_t *output);

/* Begins the file with out [B,rows,H,Dv] and lse [B,H,rows] in the order of the input. */
int long_create(const long_options_t *options, const long_input_t *input, int64_t rows,
                const char *problem, long_output_t *output);

/* Rows of out and lse in memory: out as the file has its rows, lse [heads][count]. */
typedef struct long_block {
    void *out;
    float *lse;
    heed_tensor_t out_tensor, lse_tensor; /* [1,count,heads,Dv], [1,heads,count] */
    int64_t out_axes[2][4], lse_axes[2][4];
    int64_t count, heads;
} long_block_t;

/* Memory for `count` rows of `heads` heads; for fewer, long_block_shape sets the shapes. */
int long_block_new(const long_output_t *output, int64_t count, int64_t heads, long_block_t *block);
void long_block_shape(const long_output_t *output, int64_t count, int64_t heads,
                      long_block_t *block);
void long_block_free(long_block_t *block);
int long_write(long_output_t *output, const long_block_t *block, int64_t b, int64_t first,
               int64_t from);

/* Puts the file in its place and compares it where the options ask for that. */
int long_commit(const long_options_t *options, long_output_t *output);

/* ---- reports --------------------------------------------------------------------------------- */

double long_now(void); /* seconds */

/* The bar, with the time that is left. */
void long_progress(double part, double started);

/* The most memory that the process had, in bytes. */
double long_peak_memory(void);

/* Writes "[1,4096,8,64] bf16" and returns text. */
const char *long_shape(const heed_tensor_t *tensor, char *text, size_t size);

/* ---- the commands, of argv[0] "heed run ring" ------------------------------------------------ */

int run_ring(int argc, char **argv);
int run_sparse(int argc, char **argv);

#endif
