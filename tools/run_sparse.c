/* `heed run sparse`: attention under tile lists, head by head, and what they cost and keep beside
 * dense attention. */
#define _GNU_SOURCE
#include "run_sparse.h"

#include "kit.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A block of queries and its results take at most so much; a head has so many blocks, of so many
 * queries, at least. */
static const size_t block_bytes = 32 << 20;
enum { BLOCKS = 32, LEAST_BLOCK = 4096, SAMPLE_RUNS = 4 };

/* ---- one block of one head ------------------------------------------------------------------- */

/* What was computed, and in which time. */
typedef struct sums {
    double seconds, predicted_ns, flops;
    int64_t calls, dense_calls; /* those that ran cpu:dense */
} sums_t;

/* What a pattern kept, over the compared rows of its heads. */
typedef struct kept {
    double off, size; /* squares of the error, and of dense out */
    double *recalls;
    int64_t rows, room;
} kept_t;

typedef struct job {
    const sparse_options_t *options;
    heed_context_t *context;
    long_input_t input;
    long_output_t output;
    int64_t group, block;
    sums_t sparse, dense, whole; /* whole: dense attention of everything, predicted */
    double list_seconds;
    kept_t kept[SPARSE_MOST_PATTERNS];
    char impl[64];
    double started;
} job_t;

/* Plans, and runs the plan; the time is of the run. */
static heed_status_t run_plan(job_t *job, const heed_attention_desc_t *desc, sums_t *sums)
{
    const heed_device_t host = {HEED_DEVICE_CPU, 0};
    heed_plan_info_t info = {.struct_size = sizeof info};
    heed_plan_t *plan;
    size_t bytes = 0, alignment;
    void *workspace = NULL,
         *buffers[] = {desc->q.data, desc->k.data, desc->v.data, desc->out.data, desc->lse.data};
    heed_status_t status = heed_attention_plan(job->context, desc, &plan);
    if (status != HEED_OK)
        return status;
    status = heed_plan_info(plan, &info);
    if (status == HEED_OK)
        status = heed_plan_workspace(plan, &bytes, &alignment);
    if (status == HEED_OK)
        status = heed_memory_alloc(job->context, host, bytes, &workspace);
    double start = long_now();
    if (status == HEED_OK)
        status = heed_plan_execute(plan, buffers, 5, workspace, bytes, NULL);
    sums->seconds += long_now() - start;
    sums->predicted_ns += info.estimate_ns;
    sums->flops += info.flops;
    sums->calls++;
    sums->dense_calls += strcmp(info.impl, "cpu:dense") == 0;
    if (desc->tiles)
        snprintf(job->impl, sizeof job->impl, "%s", info.impl);
    heed_status_t freed = heed_memory_free(job->context, host, workspace);
    heed_plan_destroy(plan);
    return status != HEED_OK ? status : freed;
}

/* The queries first .. first+count-1 of a head; tiles NULL: densely. Of a causal one the keys end
 * where the last query sits, so that its positions are those of the whole. */
static heed_status_t attend(job_t *job, int64_t b, int64_t head, int64_t first, int64_t count,
                            const heed_tile_list_t *tiles, long_block_t *block, sums_t *sums)
{
    const long_input_t *input = &job->input;
    heed_attention_desc_t desc = heed_attention_desc();
    sparse_slice_t slice = {.row_start = NULL};
    long_part_t q, k, v;
    int64_t keys = input->k.shape[1], end = first + count + keys - input->q.shape[1];
    desc.causal = job->options->all.causal;
    if (desc.causal)
        keys = end > 0 ? end : 0;
    if (tiles && !sparse_slice_new(tiles, first, count, keys, &slice)) {
        sparse_slice_free(&slice);
        return HEED_ERROR_OUT_OF_MEMORY;
    }
    long_block_shape(&job->output, count, 1, block);
    long_part(&input->q, b, first, count, head, 1, &q);
    long_part(&input->k, b, 0, keys, head / job->group, 1, &k);
    long_part(&input->v, b, 0, keys, head / job->group, 1, &v);
    desc.scale = (float)job->options->all.scale;
    desc.q = q.tensor;
    desc.k = k.tensor;
    desc.v = v.tensor;
    desc.out = block->out_tensor;
    desc.lse = block->lse_tensor;
    desc.tiles = tiles ? &slice.list : NULL;
    desc.tiles_optional = tiles && job->options->optional;
    heed_status_t status = run_plan(job, &desc, sums);
    sparse_slice_free(&slice);
    return status;
}

/* ---- beside dense attention ------------------------------------------------------------------ */

static double number(const long_block_t *block, int64_t i)
{
    return kit_load(block->out_tensor.dtype, block->out, i);
}

static bool keep_recall(kept_t *kept, double recall)
{
    if (kept->rows == kept->room) {
        int64_t room = kept->room ? 2 * kept->room : 4096;
        double *more = realloc(kept->recalls, (size_t)room * sizeof *more);
        if (!more)
            return false;
        kept->recalls = more;
        kept->room = room;
    }
    kept->recalls[kept->rows++] = recall;
    return true;
}

static bool compare(const long_block_t *sparse, const long_block_t *dense, kept_t *kept)
{
    int64_t dv = sparse->out_axes[0][3];
    for (int64_t i = 0; i < sparse->count; i++) {
        double lse = (double)dense->lse[i];
        if (!isinf(lse) && !keep_recall(kept, exp((double)sparse->lse[i] - lse)))
            return false;
        for (int64_t c = 0; c < dv; c++) {
            double known = number(dense, i * dv + c), off = number(sparse, i * dv + c) - known;
            kept->off += off * off;
            kept->size += known * known;
        }
    }
    return true;
}

/* Some runs of queries of the head, all of them where they are no more than --sample. */
static int sample_head(job_t *job, int64_t b, int64_t head, const heed_tile_list_t *tiles)
{
    int64_t queries = job->input.q.shape[1], tile = job->options->tile;
    int64_t runs = job->options->sample < queries ? SAMPLE_RUNS : 1;
    int64_t length = runs > 1 ? (job->options->sample / runs + tile - 1) / tile * tile : queries;
    kept_t *kept = &job->kept[head % job->options->count];
    long_block_t blocks[2];
    sums_t again = {0};
    if (length > queries)
        length = queries;
    int code = long_block_new(&job->output, length, 1, &blocks[0]);
    if (code == TOOL_OK)
        code = long_block_new(&job->output, length, 1, &blocks[1]);
    for (int64_t r = 0; r < runs && code == TOOL_OK; r++) {
        int64_t first = runs > 1 ? (queries - length) * r / (runs - 1) / tile * tile : 0;
        heed_status_t status = attend(job, b, head, first, length, NULL, &blocks[0], &job->dense);
        if (status == HEED_OK)
            status = attend(job, b, head, first, length, tiles, &blocks[1], &again);
        code = status ? tool_fail_status(status) : TOOL_OK;
        if (code == TOOL_OK && !compare(&blocks[1], &blocks[0], kept))
            code = tool_fail("out of memory");
    }
    long_block_free(&blocks[0]);
    long_block_free(&blocks[1]);
    return code;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* Predicts dense attention of a head. */
static heed_status_t predict_dense(job_t *job, int64_t b, int64_t head)
{
    heed_attention_desc_t desc = heed_attention_desc();
    heed_plan_info_t info = {.struct_size = sizeof info};
    heed_plan_t *plan;
    long_part_t q, k, v;
    long_part(&job->input.q, b, 0, job->input.q.shape[1], head, 1, &q);
    long_part(&job->input.k, b, 0, job->input.k.shape[1], head / job->group, 1, &k);
    long_part(&job->input.v, b, 0, job->input.v.shape[1], head / job->group, 1, &v);
    int64_t shape[4] = {1, q.shape[1], 1, v.shape[3]};
    desc.causal = job->options->all.causal;
    desc.q = q.tensor;
    desc.k = k.tensor;
    desc.v = v.tensor;
    desc.out = heed_tensor(NULL, job->output.dtype, 4, shape, NULL);
    heed_status_t status = heed_attention_plan(job->context, &desc, &plan);
    if (status != HEED_OK)
        return status;
    status = heed_plan_info(plan, &info);
    heed_plan_destroy(plan);
    job->whole.predicted_ns += info.estimate_ns;
    job->whole.flops += info.flops;
    return status;
}

static int run_head(job_t *job, int64_t b, int64_t head, long_block_t *block)
{
    heed_tile_list_t *tiles;
    int64_t queries = job->input.q.shape[1], heads = job->output.heads;
    int64_t done = (b * heads + head) * queries;
    double start = long_now();
    int code = sparse_list(job->context, job->options, &job->input, b, head, &tiles);
    job->list_seconds += long_now() - start;
    if (code != TOOL_OK)
        return code;
    heed_status_t status = predict_dense(job, b, head);
    if (status != HEED_OK)
        code = tool_fail_status(status);
    for (int64_t at = 0; at < queries && code == TOOL_OK; at += job->block) {
        int64_t count = queries - at < job->block ? queries - at : job->block;
        status = attend(job, b, head, at, count, tiles, block, &job->sparse);
        code = status ? tool_fail_status(status) : long_write(&job->output, block, b, at, head);
        long_progress((double)(done + at + count) /
                          ((double)job->output.batch * (double)heads * (double)queries),
                      job->started);
    }
    if (code == TOOL_OK && job->options->sample && !job->options->all.quiet)
        code = sample_head(job, b, head, tiles);
    heed_tiles_free(job->context, tiles);
    return code;
}

static void choose_block(job_t *job)
{
    const long_input_t *input = &job->input;
    int64_t tile = job->options->tile, queries = input->q.shape[1];
    size_t row = 4 + (size_t)input->v.shape[3] * heed_dtype_size(job->output.dtype) +
                 (size_t)input->q.shape[3] * heed_dtype_size(input->q.tensor.dtype);
    int64_t fit = (int64_t)(block_bytes / row), some = (queries + BLOCKS - 1) / BLOCKS;
    job->block = some > LEAST_BLOCK ? some : LEAST_BLOCK;
    job->block = job->block < fit ? job->block : fit;
    job->block = job->options->all.block ? job->options->all.block : job->block;
    job->block = (job->block + tile - 1) / tile * tile;
}

static int run_all(job_t *job)
{
    long_block_t block;
    int64_t queries = job->input.q.shape[1];
    int code = long_block_new(&job->output, job->block < queries ? job->block : queries, 1, &block);
    for (int64_t b = 0; b < job->output.batch; b++)
        for (int64_t head = 0; head < job->output.heads && code == TOOL_OK; head++)
            code = run_head(job, b, head, &block);
    long_block_free(&block);
    long_progress(1, job->started);
    return code;
}

/* ---- the report ------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report_kept(const job_t *job, int pattern)
{
    const kept_t *kept = &job->kept[pattern];
    double sum = 0;
    if (!kept->rows)
        return;
    qsort(kept->recalls, (size_t)kept->rows, sizeof *kept->recalls, ascending);
    for (int64_t i = 0; i < kept->rows; i++)
        sum += kept->recalls[i];
    printf(
        "  %.200s: recall %.5f, of the worst 1 %% of rows %.5f, output error %.3g, on %lld rows\n",
        job->options->patterns[pattern].text, sum / (double)kept->rows,
        kept->recalls[kept->rows / 100], kept->size > 0 ? sqrt(kept->off / kept->size) : 0,
        (long long)kept->rows);
}

static void report(const job_t *job, const char *problem)
{
    char time[3][TOOL_NUMBER_SIZE], memory[TOOL_NUMBER_SIZE];
    const sums_t *sparse = &job->sparse, *dense = &job->dense, *whole = &job->whole;
    printf("%s: %s, density %.4g %%, %s, %.3g GFLOP/s, list %s, peak memory %s\n", problem,
           job->impl, 100 * sparse->flops / whole->flops, tool_time(sparse->seconds * 1e9, time[0]),
           sparse->flops / sparse->seconds * 1e-9, tool_time(job->list_seconds * 1e9, time[1]),
           tool_bytes(long_peak_memory(), memory));
    if (sparse->dense_calls)
        printf("  dense attention was predicted to be faster in %lld of %lld blocks\n",
               (long long)sparse->dense_calls, (long long)sparse->calls);
    for (int i = 0; i < job->options->count; i++)
        report_kept(job, i);
    printf("  speed-up predicted %.2f", whole->predicted_ns / sparse->predicted_ns);
    if (dense->flops > 0)
        printf(", measured %.2f: dense attention takes %s by %.3g %% of its queries",
               dense->seconds * whole->flops / dense->flops / sparse->seconds,
               tool_time(dense->seconds * whole->flops / dense->flops * 1e9, time[2]),
               100 * dense->flops / whole->flops);
    printf("\n");
}

/* ---- the command ----------------------------------------------------------------------------- */

static int work(job_t *job)
{
    const sparse_options_t *options = job->options;
    char problem[512], q[96], k[96];
    int code = long_open(&options->all, &job->input);
    if (code != TOOL_OK)
        return code;
    int64_t heads = job->input.q.shape[2], key_heads = job->input.k.shape[2];
    if (key_heads < 1 || heads % key_heads)
        return tool_fail("%s: q has %lld heads, which is no multiple of k's %lld",
                         st_path(job->input.file), (long long)heads, (long long)key_heads);
    job->group = heads / key_heads;
    snprintf(problem, sizeof problem, "sparse q=%s k=%s causal=%d pattern=%.200s%s",
             long_shape(&job->input.q.tensor, q, sizeof q),
             long_shape(&job->input.k.tensor, k, sizeof k), options->all.causal,
             options->patterns[0].text, options->count > 1 ? ",..." : "");
    code = long_create(&options->all, &job->input, job->input.q.shape[1], problem, &job->output);
    if (code != TOOL_OK)
        return code;
    choose_block(job);
    job->started = long_now();
    code = run_all(job);
    if (code == TOOL_OK && !options->all.quiet)
        report(job, problem);
    return code == TOOL_OK ? long_commit(&options->all, &job->output) : code;
}

int run_sparse(int argc, char **argv)
{
    sparse_options_t arguments = {
        .density = -1, .scores = HEED_SCORE_ANTIDIAGONAL, .tile = 64, .sample = 4096};
    if (argp_parse(&sparse_argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    job_t job = {.options = &arguments};
    job.context = tool_context(&arguments.all.common);
    int code = job.context ? work(&job) : TOOL_FAILED;
    st_discard(job.output.writer);
    for (int i = 0; i < SPARSE_MOST_PATTERNS; i++)
        free(job.kept[i].recalls);
    long_close(&job.input);
    heed_context_destroy(job.context);
    free(arguments.file);
    return code;
}
