/* Merging of partial states on the CPU, for merge_standard.c and merge_scalar.c, which define
 * merge_sum_t and merge_add. A row at a time: the weights of its states, which take few doubles,
 * then each state's row times its weight into a row of sums, then the result. As the sums are
 * apart, the result may overwrite any of the states. Rows are dealt out evenly; each is summed in
 * the order of the states, so that the number of threads does not show in the bits. */
#ifndef HD_MERGE_BODY_H
#define HD_MERGE_BODY_H

#include "../common/element.h"
#include "../common/merge.h"
#include "../common/view.h"
#include "parallel.h"

enum { MERGE_SERIAL = 1 << 15 /* elements */ };

/* sums[i] += weight * element i of a row. */
static void merge_add(const hd_view_t *view, const char *row, int64_t n, double weight,
                      merge_sum_t *sums);

typedef struct merge_job {
    hd_view_t part, part_lse, out, lse;
    int64_t part_step, lse_step; /* bytes from one state to the next */
    int64_t parts, batch, queries, heads, n;
    bool into;
    char *workspace;
    size_t sums, each; /* bytes: of the sums, of a thread */
} merge_job_t;

/* Sizes alone where data is NULL. */
static merge_job_t merge_job(const heed_merge_desc_t *desc, void *const *data)
{
    const heed_tensor_t *from = &desc->part_out;
    const heed_tensor_t one = {
        .ndim = 4, .dtype = from->dtype, .shape = from->shape + 1, .strides = from->strides + 1};
    merge_job_t job = {.parts = from->shape[0], .into = desc->into != 0};
    job.part = hd_view(&one, data ? data[HEED_MERGE_PART_OUT] : NULL);
    job.part_lse = hd_lse_view(&(heed_tensor_t){.strides = desc->part_lse.strides + 1},
                               data ? data[HEED_MERGE_PART_LSE] : NULL);
    job.out = hd_view(&desc->out, data ? data[HEED_MERGE_OUT] : NULL);
    if (desc->lse.ndim)
        job.lse = hd_lse_view(&desc->lse, data ? data[HEED_MERGE_LSE] : NULL);
    job.part_step = from->strides[0] * hd_dtype_bytes(from->dtype);
    job.lse_step = desc->part_lse.strides[0] * 4;
    job.batch = desc->out.shape[0];
    job.queries = desc->out.shape[1];
    job.heads = desc->out.shape[2];
    job.n = desc->out.shape[3];
    job.sums = hd_round_up((size_t)job.n * sizeof(merge_sum_t), 64);
    job.each = job.sums + hd_round_up((size_t)(job.parts + 1) * sizeof(double), 64);
    return job;
}

static void merge_one_row(const merge_job_t *job, int64_t b, int64_t i, int64_t h, char *workspace)
{
    merge_sum_t *sums = (merge_sum_t *)(void *)workspace;
    double *weights = (double *)(void *)(workspace + job->sums);
    const char *part = hd_view_row(&job->part, b, i, h);
    const char *part_lse = hd_view_row(&job->part_lse, b, i, h);
    char *out = hd_view_row(&job->out, b, i, h), *lse_at = NULL;
    int64_t states = job->parts;
    for (int64_t p = 0; p < job->parts; p++)
        weights[p] = (double)hd_element_load(HEED_F32, part_lse + p * job->lse_step);
    if (job->lse.data)
        lse_at = hd_view_row(&job->lse, b, i, h);
    if (job->into)
        weights[states++] = (double)hd_element_load(HEED_F32, lse_at);
    float lse = (float)hd_merge_weights(weights, states);

    memset(sums, 0, (size_t)job->n * sizeof(*sums));
    for (int64_t p = 0; p < states; p++)
        if (weights[p] != 0 && p < job->parts)
            merge_add(&job->part, part + p * job->part_step, job->n, weights[p], sums);
        else if (weights[p] != 0)
            merge_add(&job->out, out, job->n, weights[p], sums);
    for (int64_t c = 0; c < job->n; c++)
        hd_element_store(job->out.dtype, out + c * job->out.elem, (float)sums[c]);
    if (lse_at)
        hd_element_store(HEED_F32, lse_at, lse);
}

static void merge_rows(const hd_team_t *team, void *arg)
{
    const merge_job_t *job = arg;
    int64_t rows = job->batch * job->queries * job->heads;
    char *workspace = job->workspace + (size_t)team->rank * job->each;
    int64_t end = rows * (team->rank + 1) / team->size;
    for (int64_t row = rows * team->rank / team->size; row < end; row++) {
        int64_t h = row % job->heads, i = row / job->heads % job->queries;
        merge_one_row(job, row / job->heads / job->queries, i, h, workspace);
    }
}

static int64_t merge_elements(const merge_job_t *job)
{
    return job->batch * job->queries * job->heads * job->n * (job->parts + job->into);
}

static heed_status_t merge_run(const heed_launch_t *launch)
{
    merge_job_t job = merge_job(launch->desc, launch->buffers);
    job.workspace = launch->workspace;
    hd_parallel(merge_elements(&job) < MERGE_SERIAL ? 1 : launch->threads, merge_rows, &job);
    return HEED_OK;
}

static size_t merge_workspace(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    return merge_job(desc, NULL).each * (size_t)threads;
}

/* So many elements a nanosecond and thread, and 20 ns for each row of a state. */
static double merge_estimate_at(const void *desc, int32_t threads, double speed)
{
    merge_job_t job = merge_job(desc, NULL);
    double elements = (double)merge_elements(&job);
    double rows = job.n ? elements / (double)job.n : 0;
    return (elements / speed + 20 * rows) / threads + (threads > 1 ? 5000.0 : 200.0);
}

#endif
