/* heed bench: what its files share. cmd_bench.c is the command, arguments.c reads its options,
 * shapes.c reads problem lists, check.c compares with the reference, run.c times one problem,
 * copy.c times a copy beside it, beside.c schedules beside plain attention, device.c times on a
 * card, limits.c measures the machine, stats.c condenses samples, report.c and report_json.c write
 * the results. Nothing here knows an operation by name. */
#ifndef BENCH_H
#define BENCH_H

#include "bench_limits.h"

#include <heed/heed.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { BENCH_TEXT = 1024, BENCH_NAME = 64 };

/* Limits that differ by more before and after make results doubtful. */
#define BENCH_DRIFT 0.05

/* Predictions that are off by no more are good ones. */
#define BENCH_NEAR 1.5

/* ---- small helpers (util.c) ------------------------------------------------------------------ */

/* realloc that ends the program with a sentence when memory is out. */
void *bench_realloc(void *memory, size_t bytes);
char *bench_strdup(const char *text);
/* "heed bench: ..." on stderr. */
void bench_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The next item of a comma list, copied to item; false past the end. An item that is too long is
 * cut and then matches nothing. */
bool bench_next_item(const char **list, char *item, size_t size);
double bench_now_ns(void);
/* A line on stderr that the next one replaces, only where stderr is a terminal; "" clears it. */
void bench_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- statistics (stats.c) -------------------------------------------------------------------- */

typedef struct bench_stats {
    double median;
    double mad; /* median absolute deviation from the median */
    double min;
    double max;
} bench_stats_t;

/* Percentile p (0..100) of ascending values, interpolated; NaN for none. */
double bench_percentile(const double *sorted, int count, double p);
/* All fields NaN for no samples. */
bench_stats_t bench_stats(const double *samples, int count);

/* ---- problem lists (shapes.c) ---------------------------------------------------------------- */

typedef struct bench_problem {
    char *text; /* as heed_problem_text writes it */
    char *label;
} bench_problem_t;

typedef struct bench_problems {
    bench_problem_t *items;
    int count;
    int other; /* lines that belong to other operations */
} bench_problems_t;

/* Adds one problem of operation `op`, once for each type of its first operand in the list
 * `dtypes` (NULL: as it is);
 * what is there already is not added again. False after a complaint that starts with `where`. */
bool bench_problems_add(bench_problems_t *problems, const char *op, const char *text,
                        const char *label, const char *dtypes, const char *where);
/* Adds the lines of a file: "# ..." and empty lines are skipped, " # label" may follow a problem.
 */
bool bench_problems_read(bench_problems_t *problems, const char *op, const char *path,
                         const char *dtypes);
void bench_problems_free(bench_problems_t *problems);

/* ---- the run --------------------------------------------------------------------------------- */

typedef enum bench_format { BENCH_MARKDOWN, BENCH_CSV, BENCH_JSON } bench_format_t;

typedef struct bench_options {
    const char *op;
    const char *beside;         /* "sparse", "ring": attention by other means beside it; NULL: no */
    const char *shapes;         /* file, NULL: the problems of `probs`, else models.txt */
    char **probs;               /* from --prob, and words */
    char words[BENCH_TEXT * 2]; /* of one problem, from plain arguments */
    int prob_count;
    const char *impls;   /* patterns or "auto" */
    const char *dtypes;  /* NULL: as the problems say */
    const char *max_isa; /* NULL: as the environment says */
    heed_device_t device;
    bench_format_t format;
    double seconds; /* of sampling for each problem */
    int samples;    /* at least so many */
    int threads;    /* 0: the context's default */
    bool check;
    bool dry_run;
} bench_options_t;

/* An implementation that is measured, or "auto". */
typedef struct bench_contender {
    char name[BENCH_NAME];
    heed_context_t *context;
} bench_contender_t;

typedef struct bench_result {
    char *prob;
    char *label;
    char impl[BENCH_NAME]; /* the one that ran, also where "auto" was asked for */
    bool is_auto;          /* auto chose it, while others were asked for by name too */
    char device[16];
    char dtype[16]; /* of the first operand */
    int threads;
    double *samples; /* ns of one call */
    int sample_count;
    bench_stats_t stats;
    double flops;
    double bytes;
    double copy_ns;     /* memcpy of as many bytes, in the same turns; NaN or 0: not measured */
    double estimate_ns; /* NaN: unknown */
    double max_err;     /* NaN: not checked */
    char *checked;      /* the problem that was checked, NULL: none */
    const char *beside; /* what it ran beside (beside.h), NULL: nothing */
    double of_beside;   /* its part of that one's time, */
    double beside_predicted, density; /* of the predicted time, and of the operations */
    double list_ns;                   /* of making the tile list; NaN: there is none */
    /* Filled in at the end, when the limits are known. */
    const char *limit;        /* NULL: unknown */
    double fraction_of_limit; /* NaN: unknown */
} bench_result_t;

/* A problem that an implementation did not run, or got wrong. */
typedef struct bench_miss {
    char *prob;
    char impl[BENCH_NAME];
    char *why;
    bool wrong; /* false: it refused */
} bench_miss_t;

typedef struct bench_run {
    const bench_options_t *options;
    heed_context_t *context; /* any implementation: "auto" */
    heed_device_info_t cpu;
    heed_device_t device;    /* where problems lie */
    heed_device_info_t card; /* of a device that is not the host, and what it is timed with */
    heed_stream_t stream;
    heed_event_t *start, *end;
    void *flush;
    size_t flush_bytes;
    bench_contender_t *contenders;
    int contender_count;
    bench_result_t *results;
    int result_count;
    bench_miss_t *misses;
    int miss_count;
    bench_limits_t limits;
    char place[32];      /* "[3/28]", for progress */
    double limits_drift; /* largest relative difference between before and after */
} bench_run_t;

/* A context with the options' threads and instruction sets and only `impl` of the operation (NULL:
 * whatever auto allows). */
heed_status_t bench_context(const bench_options_t *options, const char *impl,
                            heed_context_t **context);

/* Records that `impl` did not give a result. */
void bench_miss(bench_run_t *run, const char *prob, const char *impl, bool wrong, const char *why);

/* Plans one problem with a contender; NULL after a refusal, whose sentence is then in why (run.c).
 */
heed_plan_t *bench_plan(const bench_run_t *run, const bench_contender_t *contender,
                        heed_problem_t *problem, char *why, size_t size);

/* Checks and times one problem with all contenders and appends to the results (run.c). */
void bench_problem(bench_run_t *run, const bench_problem_t *problem);

/* Frees the results and misses of a run. */
void bench_clear(bench_run_t *run);

/* The result's words: "cpu", "cuda:0" (run.c). */
void bench_device_name(heed_device_t device, char *name, size_t size);

/* The problem that stands for `text` in a check: itself, or smaller where the reference, which is
 * slow, would take too long. Writes its text; false after an error (check.c). */
bool bench_reduce(const char *text, char *reduced, size_t size);

/* Compares the implementation that `context` is made for with the reference. Sets checked (malloc)
 * and max_err and returns true, or returns false with the sentence in why (check.c). */
bool bench_check(heed_context_t *context, heed_device_t device, const char *text, char **checked,
                 double *max_err, char *why, size_t size);

/* ---- on a card (device.c) -------------------------------------------------------------------- */

bool bench_on_host(const bench_run_t *run);
/* What timing on run->device takes; false after a complaint. Ending follows in any case. */
bool bench_device_begin(bench_run_t *run);
void bench_device_end(bench_run_t *run);
/* Nanoseconds of one call; NaN after an error. */
double bench_device_sample(const bench_run_t *run, const heed_plan_t *plan, void *const *buffers,
                           int count, void *workspace, size_t workspace_bytes);
bench_limits_t bench_device_limits(const bench_run_t *run);

/* ---- a copy beside it (copy.c) --------------------------------------------------------------- */

typedef struct bench_copy bench_copy_t;

/* Memory for a memcpy that moves `bytes`, read and written ones together; NULL: there is none. */
bench_copy_t *bench_copy_new(double bytes, int threads);
/* Nanoseconds of one copy. */
double bench_copy_sample(bench_copy_t *copy, int64_t repeats);
void bench_copy_free(bench_copy_t *copy);

/* ---- reports (report.c, report_json.c) ------------------------------------------------------- */

/* Useful rates of a result, in 10^9 a second. */
double bench_gflops(const bench_result_t *result);
double bench_gbps(const bench_result_t *result);
/* A problem without its operation and without defaults, in backticks. */
void bench_short_problem(const char *prob, char *cell, size_t size);
/* The predicted time over the median; NaN: there was no prediction. */
double bench_predicted(const bench_result_t *result);
/* Says which limit binds the result and how near it comes. */
void bench_judge(const bench_run_t *run, bench_result_t *result);
void bench_report_markdown(const bench_run_t *run, FILE *to);
void bench_report_csv(const bench_run_t *run, FILE *to);
/* False: out of memory or the stream failed. */
bool bench_report_json(const bench_run_t *run, FILE *to);

#endif
