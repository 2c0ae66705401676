/* `heed run ring`: attention over more keys than memory holds, streamed from a mapped file, or
 * passed around a ring of ranks within the process. */
#define _GNU_SOURCE
#include "run_ranks.h"
#include "run_ring.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a block of queries and its state take at most, and a chunk of keys and values. */
static const size_t block_bytes = 32 << 20, chunk_bytes = 16 << 20;

/* ---- what is visible ------------------------------------------------------------------------- */

typedef struct job {
    const ring_options_t *arguments;
    heed_context_t *context;
    long_input_t input;
    long_output_t output;
    heed_tensor_t cu_seqlens; /* where documents begin, ndim 0: one */
    int64_t starts;           /* how many */
    heed_comm_t comm;         /* of processes; size 0: none */
    int64_t first, rows;      /* queries */
    int64_t block, chunk;
    double pairs;       /* visible ones of one head */
    double done, spans; /* queries times keys that are walked over */
    double started;
} job_t;

/* Keys that the queries first .. first+count-1 see some of. */
static void find_span(const job_t *job, int64_t first, int64_t count, int64_t span[2])
{
    const ring_options_t *arguments = job->arguments;
    int64_t keys = job->input.k.shape[1], at = keys - job->input.q.shape[1] + first;
    int64_t left = arguments->window[0], right = arguments->all.causal ? 0 : arguments->window[1];
    span[0] = left < 0 || left > at ? 0 : at - left;
    span[1] = right < 0 || right >= keys - at - count ? keys : at + count + right;
    span[0] = span[0] < keys ? span[0] : keys;
    span[1] = span[1] > span[0] ? span[1] : span[0];
}

static void count_work(job_t *job)
{
    int64_t span[2];
    for (int64_t i = 0; i < job->rows; i++) {
        find_span(job, job->first + i, 1, span);
        job->pairs += (double)(span[1] - span[0]);
    }
    for (int64_t i = 0; i < job->rows; i += job->block) {
        int64_t count = job->rows - i < job->block ? job->rows - i : job->block;
        find_span(job, job->first + i, count, span);
        job->spans += (double)job->input.q.shape[0] * (double)count * (double)(span[1] - span[0]);
    }
}

/* ---- streaming ------------------------------------------------------------------------------- */

/* The part of a chunk that is within the span, in the order of the file. */
static void chunk_part(const long_tensor_t *of, int64_t b, int64_t from, int64_t end,
                       const int64_t span[2], long_part_t *part)
{
    from = from > span[0] ? from : span[0];
    end = end < span[1] ? end : span[1];
    long_part(of, b, from, end > from ? end - from : 0, 0, of->shape[2], part);
}

/* All keys of batch entry b, chunk by chunk; the next is fetched while one is worked on. */
static heed_status_t push_all(job_t *job, heed_attention_stream_t *stream, int64_t b,
                              int64_t queries, const int64_t span[2])
{
    const long_tensor_t *of[2] = {&job->input.k, &job->input.v};
    int64_t keys = of[0]->shape[1];
    heed_status_t status = HEED_OK;
    for (int64_t at = 0; at < keys && status == HEED_OK; at += job->chunk) {
        int64_t end = at + job->chunk < keys ? at + job->chunk : keys;
        long_part_t whole[2], seen;
        for (int n = 0; n < 2; n++) {
            long_part(of[n], b, at, end - at, 0, of[n]->shape[2], &whole[n]);
            chunk_part(of[n], b, end, end + job->chunk, span, &seen);
            if (seen.shape[1])
                long_will_need(&seen);
        }
        status = heed_stream_push(stream, &whole[0].tensor, &whole[1].tensor);
        for (int n = 0; n < 2; n++) {
            chunk_part(of[n], b, at, end, span, &seen);
            if (seen.shape[1])
                long_is_done(&seen);
        }
        job->done += (double)queries * (double)seen.shape[1];
        long_progress(job->done / job->spans, job->started);
    }
    return status;
}

static heed_status_t begin(const job_t *job, const long_part_t *q, int64_t after,
                           long_block_t *block, heed_attention_stream_t **stream)
{
    const ring_options_t *arguments = job->arguments;
    heed_stream_desc_t desc = heed_stream_desc();
    desc.causal = arguments->all.causal;
    desc.scale = (float)arguments->all.scale;
    desc.window_left = arguments->window[0];
    desc.window_right = arguments->window[1];
    desc.keys = job->input.k.shape[1];
    desc.after = after;
    desc.q = q->tensor;
    desc.out = block->out_tensor;
    desc.lse = block->lse_tensor;
    return heed_stream_begin(job->context, &desc, stream);
}

/* The queries first .. first+count-1 of batch entry b. */
static heed_status_t attend(job_t *job, int64_t b, int64_t first, int64_t count,
                            long_block_t *block)
{
    heed_attention_stream_t *stream;
    long_part_t q, k, v;
    int64_t span[2], keys = job->input.k.shape[1];
    long_block_shape(&job->output, count, job->output.heads, block);
    long_part(&job->input.q, b, first, count, 0, job->output.heads, &q);
    heed_status_t status = begin(job, &q, job->input.q.shape[1] - first - count, block, &stream);
    if (status != HEED_OK)
        return status;
    find_span(job, first, count, span);
    long_part(&job->input.k, b, 0, keys, 0, job->input.k.shape[2], &k);
    long_part(&job->input.v, b, 0, keys, 0, job->input.v.shape[2], &v);
    if (!job->chunk)
        status = heed_stream_chunk(stream, &k.tensor, &v.tensor, chunk_bytes, &job->chunk);
    if (status == HEED_OK)
        status = push_all(job, stream, b, count, span);
    if (status != HEED_OK)
        heed_stream_cancel(stream);
    else
        status = heed_stream_end(stream);
    long_is_done(&q);
    return status;
}

/* As many queries as fit together with their results and the state. */
static int64_t choose_block(const job_t *job)
{
    const long_input_t *input = &job->input;
    size_t state = job->output.dtype == HEED_F32 ? 0 : sizeof(float);
    size_t value = heed_dtype_size(job->output.dtype) + state;
    size_t row = (size_t)input->q.shape[2] *
                 ((size_t)input->v.shape[3] * value + 8 +
                  (size_t)input->q.shape[3] * heed_dtype_size(input->q.tensor.dtype));
    int64_t fit = row ? (int64_t)(block_bytes / row) / 64 * 64 : 64;
    return job->arguments->all.block ? job->arguments->all.block : fit > 64 ? fit : 64;
}

static int stream_all(job_t *job)
{
    long_block_t block;
    int64_t most = job->block < job->rows ? job->block : job->rows;
    int code = long_block_new(&job->output, most, job->output.heads, &block);
    for (int64_t b = 0; b < job->output.batch && code == TOOL_OK; b++)
        for (int64_t at = 0; at < job->rows && code == TOOL_OK; at += job->block) {
            int64_t count = job->rows - at < job->block ? job->rows - at : job->block;
            heed_status_t status = attend(job, b, job->first + at, count, &block);
            code = status ? tool_fail_status(status) : long_write(&job->output, &block, b, at, 0);
        }
    long_block_free(&block);
    long_progress(1, job->started);
    return code;
}

/* ---- a ring of ranks ------------------------------------------------------------------------- */

static heed_status_t ring(const job_t *job, const long_block_t *block)
{
    const ring_options_t *arguments = job->arguments;
    heed_context_parallel_desc_t desc = heed_context_parallel_desc();
    desc.method = arguments->method;
    desc.layout = arguments->layout;
    desc.causal = arguments->all.causal;
    desc.scale = (float)arguments->all.scale;
    desc.window_left = arguments->window[0];
    desc.window_right = arguments->window[1];
    desc.tokens = job->input.q.shape[1];
    desc.whole = 1;
    desc.q = job->input.q.tensor;
    desc.k = job->input.k.tensor;
    desc.v = job->input.v.tensor;
    desc.out = block->out_tensor;
    desc.lse = block->lse_tensor;
    desc.cu_seqlens = job->cu_seqlens;
    if (arguments->mpi)
        return heed_context_parallel_attention(job->context, &job->comm, &desc);
    return heed_context_parallel_virtual(job->context, arguments->ranks, &desc);
}

/* All batch entries are one block of the file. */
static int ring_all(job_t *job)
{
    const ring_options_t *arguments = job->arguments;
    long_block_t block;
    int64_t batch = job->output.batch;
    int code = long_block_new(&job->output, job->rows * batch, job->output.heads, &block);
    code = ranks_agree(job->context, &job->comm, code);
    if (code == TOOL_OK) {
        long_block_shape(&job->output, job->rows, job->output.heads, &block);
        block.out_axes[0][0] = block.lse_axes[0][0] = batch;
        heed_status_t status = ring(job, &block);
        code = status ? tool_fail_status(status) : TOOL_OK;
        if (code == TOOL_OK && arguments->mpi)
            code = ranks_collect(&job->comm, arguments->layout, batch, &job->output, &block);
    }
    for (int64_t b = 0; b < batch && code == TOOL_OK && ranks_writes(&job->comm); b++) {
        long_block_t entry = block;
        entry.out = (char *)block.out +
                    (size_t)(b * block.out_axes[1][0]) * heed_dtype_size(job->output.dtype);
        entry.lse = block.lse + b * block.lse_axes[1][0];
        code = long_write(&job->output, &entry, b, 0, 0);
    }
    long_block_free(&block);
    return code;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void describe(const job_t *job, char *text, size_t size)
{
    const ring_options_t *arguments = job->arguments;
    char q[96], k[96], how[96];
    if (ring_has_ranks(arguments))
        snprintf(how, sizeof how, "ranks=%d method=%s layout=%s",
                 arguments->mpi ? job->comm.size : arguments->ranks,
                 heed_context_parallel_name(arguments->method),
                 arguments->layout == HEED_RING_ZIGZAG    ? "zigzag"
                 : arguments->layout == HEED_RING_STRIPED ? "striped"
                                                          : "contiguous");
    else
        snprintf(how, sizeof how, "rows=%lld:%lld", (long long)job->first,
                 (long long)(job->first + job->rows));
    snprintf(text, size, "ring q=%s k=%s causal=%d window=%lld,%lld %s",
             long_shape(&job->input.q.tensor, q, sizeof q),
             long_shape(&job->input.k.tensor, k, sizeof k), arguments->all.causal,
             (long long)arguments->window[0], (long long)arguments->window[1], how);
}

static void report(const job_t *job, const char *problem)
{
    char time[TOOL_NUMBER_SIZE], memory[TOOL_NUMBER_SIZE], chunks[64] = "";
    const int64_t *q = job->input.q.shape;
    double seconds = long_now() - job->started;
    double flops =
        2 * job->pairs * (double)q[0] * (double)q[2] * (double)(q[3] + job->input.v.shape[3]);
    if (job->chunk)
        snprintf(chunks, sizeof chunks, "%lld keys at a time, ", (long long)job->chunk);
    printf("%s: %s%s, %.3g GFLOP/s, peak memory %s\n", problem, chunks,
           tool_time(seconds * 1e9, time), flops / seconds * 1e-9,
           tool_bytes(long_peak_memory(), memory));
}

static int check_rows(job_t *job)
{
    const ring_options_t *arguments = job->arguments;
    int64_t queries = job->input.q.shape[1], keys = job->input.k.shape[1];
    job->first = arguments->rows[0];
    job->rows = (arguments->rows[1] ? arguments->rows[1] : queries) - job->first;
    if (arguments->rows[1] > queries)
        return tool_fail("--query-rows %lld:%lld: %s has %lld queries", (long long)job->first,
                         (long long)arguments->rows[1], arguments->all.files.input,
                         (long long)queries);
    if (ring_has_ranks(arguments) && queries != keys)
        return tool_fail("%s: %lld queries and %lld keys: in a ring each token has both",
                         arguments->all.files.input, (long long)queries, (long long)keys);
    return TOOL_OK;
}

/* Documents of the file: cu_seqlens_q, and cu_seqlens_k alike. */
static int find_documents(job_t *job)
{
    static const char *const names[] = {"cu_seqlens_q", "cu_seqlens_k"};
    const st_tensor_t *starts[2];
    for (int i = 0; i < 2; i++) {
        starts[i] = st_find(job->input.file, names[i]);
        if (starts[i] && (starts[i]->dtype->heed != HEED_I32 || starts[i]->ndim != 1))
            return tool_fail("%s: %s is not an axis of I32", st_path(job->input.file), names[i]);
    }
    if (!starts[0] && !starts[1])
        return TOOL_OK;
    if (!starts[0] || !starts[1] || starts[0]->bytes != starts[1]->bytes ||
        memcmp(starts[0]->data, starts[1]->data, starts[0]->bytes) != 0)
        return tool_fail("%s: cu_seqlens_q and cu_seqlens_k differ: each token has a query and a "
                         "key",
                         st_path(job->input.file));
    if (!ring_has_ranks(job->arguments))
        return tool_fail("%s: cu_seqlens_q: a stream is one sequence; --ranks takes documents",
                         st_path(job->input.file));
    job->starts = starts[0]->shape[0];
    job->cu_seqlens =
        heed_tensor((void *)(uintptr_t)starts[0]->data, HEED_I32, 1, &job->starts, NULL);
    return TOOL_OK;
}

/* Opens what is read and what is written; all ranks do, or none. */
static int prepare(job_t *job, char *problem, size_t size)
{
    const ring_options_t *arguments = job->arguments;
    int code = long_open(&arguments->all, &job->input);
    if (code == TOOL_OK)
        code = check_rows(job);
    if (code == TOOL_OK)
        code = find_documents(job);
    code = ranks_agree(job->context, &job->comm, code);
    if (code != TOOL_OK)
        return code;
    describe(job, problem, size);
    if (ranks_writes(&job->comm))
        code = long_create(&arguments->all, &job->input, job->rows, problem, &job->output);
    else
        long_describe(&arguments->all, &job->input, job->rows, &job->output);
    return ranks_agree(job->context, &job->comm, code);
}

static int work(job_t *job)
{
    const ring_options_t *arguments = job->arguments;
    char problem[512];
    int code = arguments->mpi ? ranks_open(&job->comm) : TOOL_OK;
    if (code == TOOL_OK)
        code = prepare(job, problem, sizeof problem);
    if (code != TOOL_OK)
        return code;
    job->block = choose_block(job);
    job->chunk = arguments->chunk;
    count_work(job);
    job->started = long_now();
    code = ring_has_ranks(arguments) ? ring_all(job) : stream_all(job);
    if (code == TOOL_OK && !arguments->all.quiet && ranks_writes(&job->comm))
        report(job, problem);
    if (code == TOOL_OK && ranks_writes(&job->comm))
        code = long_commit(&arguments->all, &job->output);
    return code;
}

int run_ring(int argc, char **argv)
{
    ring_options_t arguments = {.window = {-1, -1}, .method = HEED_CONTEXT_PARALLEL_RING};
    if (argp_parse(&ring_argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    job_t job = {.arguments = &arguments};
    job.context = tool_context(&arguments.all.common);
    int code = job.context ? work(&job) : TOOL_FAILED;
    st_discard(job.output.writer);
    long_close(&job.input);
    heed_comm_close(&job.comm);
    heed_context_destroy(job.context);
    return code;
}
