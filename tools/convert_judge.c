/* The errors of `heed convert`: what was written is decoded again and compared, piece by piece, in
 * as many threads as the context has. */
#define _GNU_SOURCE
#include "convert.h"

#include "safetensors_internal.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* Elements that are compared at a time: they stay in cache, and a cast of them needs no team. */
enum { PIECE = 1 << 15, MOST_THREADS = 64 };

typedef struct judge {
    heed_context_t *context;
    const convert_job_t *job;
    const void *from;
    heed_dtype_t dtype, to_dtype, scale_dtype;
    const convert_result_t *result;
    int64_t step; /* rows of a piece: whole rows of scales */
    atomic_llong next;
} judge_t;

typedef struct share {
    judge_t *judge;
    pthread_t thread;
    bool good;
    convert_report_t report;
    char why[256]; /* the thread's own sentence */
} share_t;

static heed_status_t compare(float *values, float *decoded, int64_t count, convert_report_t *report)
{
    heed_error_statistics_t statistics;
    heed_tensor_t x = heed_tensor(values, HEED_F32, 1, &count, NULL);
    heed_tensor_t y = heed_tensor(decoded, HEED_F32, 1, &count, NULL);
    heed_status_t status = heed_error_statistics(&x, &y, &statistics);
    if (status != HEED_OK)
        return status;
    report->signal += statistics.reference_squares;
    report->noise += statistics.error_squares;
    report->worst = fmax(report->worst, statistics.max_error);
    return HEED_OK;
}

static heed_status_t judge_rows(const judge_t *judge, int64_t row, float *values, float *decoded,
                                convert_report_t *report)
{
    const convert_grid_t *grid = &judge->job->grid;
    convert_grid_t plain = {.rows = grid->rows, .columns = grid->columns};
    int64_t rows = judge->step < grid->rows - row ? judge->step : grid->rows - row;
    heed_status_t status = convert_decode(judge->context, &plain, row, rows, judge->from,
                                          judge->dtype, NULL, 0, values);
    if (status == HEED_OK)
        status =
            convert_decode(judge->context, grid, row, rows, judge->result->codes, judge->to_dtype,
                           judge->result->scales, judge->scale_dtype, decoded);
    return status == HEED_OK ? compare(values, decoded, rows * grid->columns, report) : status;
}

static void *work(void *arg)
{
    share_t *share = arg;
    judge_t *judge = share->judge;
    size_t piece = (size_t)(judge->step * judge->job->grid.columns + 15) / 16 * 16;
    float *pieces = aligned_alloc(64, 2 * piece * sizeof *pieces);
    int64_t row;
    share->good = pieces != NULL;
    if (!pieces)
        snprintf(share->why, sizeof share->why, "out of memory for the report");
    while (share->good &&
           (row = atomic_fetch_add(&judge->next, judge->step)) < judge->job->grid.rows)
        if (judge_rows(judge, row, pieces, pieces + piece, &share->report) != HEED_OK) {
            share->good = false;
            snprintf(share->why, sizeof share->why, "%.255s", heed_last_error());
        }
    free(pieces);
    return NULL;
}

/* Rows of about a piece that share no scale with others. */
static int64_t rows_of_piece(const convert_grid_t *grid)
{
    int64_t step = PIECE / (grid->columns > 0 ? grid->columns : 1), unit = grid->block_rows;
    if (unit > 0 && unit < grid->rows)
        step = step / unit * unit > 0 ? step / unit * unit : unit;
    return step > 0 ? step : 1;
}

static int thread_count(heed_context_t *context)
{
    heed_device_info_t cpu = {.struct_size = sizeof cpu};
    int threads = heed_device_info(context, 0, &cpu) == HEED_OK ? cpu.threads : 1;
    return threads < 1 ? 1 : threads < MOST_THREADS ? threads : MOST_THREADS;
}

static bool gather(const share_t *share, const convert_job_t *job, convert_report_t *report,
                   st_error_t *error)
{
    if (!share->good)
        return st_fail(error, "%.200s: %.280s", job->from->name, share->why);
    report->signal += share->report.signal;
    report->noise += share->report.noise;
    report->worst = fmax(report->worst, share->report.worst);
    return true;
}

bool convert_judge(heed_context_t *context, const convert_target_t *target,
                   const convert_job_t *job, const void *from, heed_dtype_t dtype,
                   const convert_result_t *result, convert_report_t *report, st_error_t *error)
{
    share_t shares[MOST_THREADS];
    judge_t judge = {.context = context,
                     .job = job,
                     .from = from,
                     .dtype = dtype,
                     .to_dtype = target->dtype->heed,
                     .scale_dtype = target->scale == CONVERT_SCALE_MX ? HEED_E8M0 : HEED_F32,
                     .result = result,
                     .step = rows_of_piece(&job->grid)};
    int threads = thread_count(context), started = 1;
    bool good = true;
    for (int i = 0; i < threads; i++)
        shares[i] = (share_t){.judge = &judge};
    while (started < threads && job->grid.rows > judge.step * started &&
           pthread_create(&shares[started].thread, NULL, work, &shares[started]) == 0)
        started++;
    work(&shares[0]);
    for (int i = 0; i < started; i++) {
        if (i > 0)
            pthread_join(shares[i].thread, NULL);
        good = good && gather(&shares[i], job, report, error);
    }
    return good;
}
