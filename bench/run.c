/* Times one problem: plan and check each contender, fill buffers that all of them share, warm up,
 * then sample in turns (A B A B), so that a machine that slows down slows them all. A sample
 * repeats short calls until it lasts a millisecond; on a card it is one call (device.c). */
#include "bench.h"

#include "kit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SAMPLES = 200, LOOKED_AT = 4096 };

static const double warm_up_ns = 2e7;
static const double sample_ns = 1e6;

typedef struct runner {
    const bench_contender_t *contender;
    heed_plan_t *plan; /* NULL: not in the race, or not any more */
    heed_plan_info_t info;
    void *workspace;
    size_t workspace_bytes;
    int64_t repeats; /* calls in one sample */
    double *samples;
    int sample_count;
    char *checked;
    double max_err;
    double copy_ns;
    bool is_auto;
} runner_t;

void bench_miss(bench_run_t *run, const char *prob, const char *impl, bool wrong, const char *why)
{
    bench_miss_t *miss;

    run->misses = bench_realloc(run->misses, (size_t)(run->miss_count + 1) * sizeof(*run->misses));
    miss = &run->misses[run->miss_count++];
    *miss = (bench_miss_t){.prob = bench_strdup(prob), .why = bench_strdup(why), .wrong = wrong};
    snprintf(miss->impl, sizeof(miss->impl), "%s", impl);
}

void bench_device_name(heed_device_t device, char *name, size_t size)
{
    if (device.type == HEED_DEVICE_CPU)
        snprintf(name, size, "cpu");
    else
        snprintf(name, size, "cuda:%d", (int)device.id);
}

/* ---- planning -------------------------------------------------------------------------------- */

/* Why auto would not take the contender either; the context's own sentence speaks of every
 * implementation, this one of the contender alone. */
static void find_reason(const bench_run_t *run, const char *name, heed_problem_t *problem,
                        const void *desc, char *why, size_t size)
{
    heed_verdict_t verdict;
    heed_plan_t *plan;

    snprintf(why, size, "%s", heed_last_error());
    if (heed_plan_create(run->context, heed_problem_op(problem), desc, &plan) != HEED_OK)
        return;
    for (int i = 0; heed_plan_verdict(plan, i, &verdict); i++)
        if (!strcmp(verdict.impl, name) && verdict.status != HEED_OK)
            snprintf(why, size, "%s", verdict.why);
    heed_plan_destroy(plan);
}

heed_plan_t *bench_plan(const bench_run_t *run, const bench_contender_t *contender,
                        heed_problem_t *problem, char *why, size_t size)
{
    heed_plan_t *plan = NULL;
    void *desc;

    if (kit_problem_desc(problem, run->device, &desc) != HEED_OK)
        snprintf(why, size, "%s", heed_last_error());
    else if (heed_plan_create(contender->context, heed_problem_op(problem), desc, &plan) != HEED_OK)
        find_reason(run, contender->name, problem, desc, why, size);
    return plan;
}

/* The runner leaves the race; what it has stays for the end. */
static void retire(bench_run_t *run, runner_t *runner, const char *prob, bool wrong,
                   const char *why)
{
    bench_miss(run, prob, runner->info.impl[0] ? runner->info.impl : runner->contender->name, wrong,
               why);
    heed_plan_destroy(runner->plan);
    runner->plan = NULL;
}

static bool new_workspace(const bench_run_t *run, runner_t *runner)
{
    size_t alignment;

    return heed_plan_workspace(runner->plan, &runner->workspace_bytes, &alignment) == HEED_OK &&
           heed_memory_alloc(run->context, run->device, runner->workspace_bytes,
                             &runner->workspace) == HEED_OK;
}

static void enter(bench_run_t *run, runner_t *runner, const char *prob, heed_problem_t *problem)
{
    char why[BENCH_TEXT * 2];

    runner->max_err = NAN;
    runner->info.struct_size = sizeof(runner->info);
    runner->plan = bench_plan(run, runner->contender, problem, why, sizeof(why));
    if (!runner->plan)
        retire(run, runner, prob, false, why);
    else if (heed_plan_info(runner->plan, &runner->info) != HEED_OK)
        retire(run, runner, prob, true, heed_last_error());
}

/* Where "auto" chose what is asked for by name too, that one is marked and auto need not run. */
static void join_auto(runner_t *runners, int count)
{
    for (int i = 0; i < count; i++) {
        runner_t *chosen = &runners[i];
        if (!chosen->plan || strcmp(chosen->contender->name, "auto") != 0)
            continue;
        chosen->is_auto = count > 1;
        for (int j = 0; j < count && chosen->plan; j++)
            if (j != i && runners[j].plan && !strcmp(runners[j].info.impl, chosen->info.impl)) {
                runners[j].is_auto = true;
                heed_plan_destroy(chosen->plan);
                chosen->plan = NULL;
            }
    }
}

/* Auto might choose another implementation for the problem that is checked, so it gets a context
 * for the one that it chose. */
static bool check(const bench_run_t *run, runner_t *runner, const char *prob, char *why,
                  size_t size)
{
    heed_context_t *context = runner->contender->context;
    bool is_auto = !strcmp(runner->contender->name, "auto");

    if (is_auto && bench_context(run->options, runner->info.impl, &context) != HEED_OK) {
        snprintf(why, size, "cannot be checked: %s", heed_last_error());
        return false;
    }
    bool good =
        bench_check(context, run->device, prob, &runner->checked, &runner->max_err, why, size);
    if (is_auto)
        heed_context_destroy(context);
    return good;
}

static void prepare(bench_run_t *run, runner_t *runner, const char *prob)
{
    char why[BENCH_TEXT * 2];

    bench_progress("%s %s %s: checking", run->place, runner->info.impl, prob);
    if (!new_workspace(run, runner))
        retire(run, runner, prob, true, heed_last_error());
    else if (run->options->check && !check(run, runner, prob, why, sizeof(why)))
        retire(run, runner, prob, true, why);
}

/* ---- timing ---------------------------------------------------------------------------------- */

/* Nanoseconds of one call, over `repeats` calls; NaN after an error. */
static double sample(const bench_run_t *run, runner_t *runner, const kit_buffers_t *buffers,
                     int64_t repeats)
{
    double start = bench_now_ns();

    if (!bench_on_host(run))
        return bench_device_sample(run, runner->plan, buffers->at, buffers->count,
                                   runner->workspace, runner->workspace_bytes);

    for (int64_t i = 0; i < repeats; i++)
        if (heed_plan_execute(runner->plan, buffers->at, buffers->count, runner->workspace,
                              runner->workspace_bytes, NULL) != HEED_OK)
            return NAN;
    return (bench_now_ns() - start) / (double)repeats;
}

/* Elements here and there of the outputs: the buffers held NaN before the first call, so a NaN is
 * one that was not written, or a wrong one, at the full size that the check may not have seen. */
static const char *find_nan(heed_problem_t *problem, const kit_buffers_t *buffers)
{
    kit_random_t random = {.state = 1};
    heed_op_operand_t operand;

    for (int o = 0; heed_op_operand(heed_problem_op(problem), o, &operand); o++) {
        const heed_tensor_t *tensor = heed_problem_tensor(problem, o);
        if (!operand.output || !buffers->data[o] || kit_elements(tensor) == 0)
            continue;
        const char *first = (const char *)buffers->data[o] + tensor->byte_offset;
        for (int i = 0; i < LOOKED_AT; i++) {
            int64_t at = 0;
            for (int a = 0; a < tensor->ndim; a++)
                at += kit_random_int(&random, 0, tensor->shape[a] - 1) * tensor->strides[a];
            if (isnan(kit_load(tensor->dtype, first, at)))
                return operand.name;
        }
    }
    return NULL;
}

/* Calls until caches, clock and threads are warm, and chooses the repeats of a sample. */
static void warm_up(bench_run_t *run, runner_t *runner, const char *prob, heed_problem_t *problem,
                    const kit_buffers_t *buffers)
{
    double best = INFINITY;
    double end = bench_now_ns() + warm_up_ns;
    char why[BENCH_TEXT];

    do {
        double ns = sample(run, runner, buffers, 1);
        if (isnan(ns)) {
            snprintf(why, sizeof(why), "execution failed: %s", heed_last_error());
            retire(run, runner, prob, true, why);
            return;
        }
        best = fmin(best, ns);
    } while (bench_now_ns() < end);
    runner->repeats = (int64_t)ceil(sample_ns / fmax(best, 1));
    if (run->options->check && kit_buffers_download(buffers) != HEED_OK) {
        retire(run, runner, prob, true, heed_last_error());
        return;
    }
    const char *bad = run->options->check ? find_nan(problem, buffers) : NULL;
    if (bad) {
        snprintf(why, sizeof(why), "wrong: %s holds NaN after the run", bad);
        retire(run, runner, prob, true, why);
    }
}

/* The copy that stands for the limit of problems without arithmetic on the host; NULL: none. */
static bench_copy_t *new_copy(const bench_run_t *run, const runner_t *runners, int count)
{
    for (int i = 0; i < count; i++)
        if (runners[i].plan && runners[i].info.flops == 0 && bench_on_host(run))
            return bench_copy_new(runners[i].info.bytes, runners[i].info.threads);
    return NULL;
}

/* One sample of each in turn, until there are enough and the time is used. */
static void race(bench_run_t *run, runner_t *runners, int count, const char *prob,
                 const kit_buffers_t *buffers)
{
    double end = bench_now_ns() + 1e9 * run->options->seconds;
    int least = run->options->samples;
    int most = least > MOST_SAMPLES ? least : MOST_SAMPLES;
    bench_copy_t *copy = new_copy(run, runners, count);
    double *copies = bench_realloc(NULL, (size_t)most * sizeof(*copies));
    int64_t copy_repeats = copy ? (int64_t)ceil(sample_ns / bench_copy_sample(copy, 1)) : 0;
    int turns = 0;

    for (int turn = 0; turn < least || (turn < most && bench_now_ns() < end); turn++, turns++) {
        copies[turn] = copy ? bench_copy_sample(copy, copy_repeats) : NAN;
        for (int i = 0; i < count; i++) {
            runner_t *runner = &runners[i];
            if (!runner->plan)
                continue;
            double ns = sample(run, runner, buffers, runner->repeats);
            if (isnan(ns)) {
                retire(run, runner, prob, true, heed_last_error());
                continue;
            }
            runner->samples =
                bench_realloc(runner->samples, (size_t)(turn + 1) * sizeof(*runner->samples));
            runner->samples[runner->sample_count++] = ns;
        }
    }
    for (int i = 0; i < count; i++)
        runners[i].copy_ns = copy ? bench_stats(copies, turns).median : NAN;
    bench_copy_free(copy);
    free(copies);
}

/* ---- one problem ----------------------------------------------------------------------------- */

static void add_result(bench_run_t *run, runner_t *runner, const bench_problem_t *problem,
                       heed_dtype_t dtype)
{
    bench_result_t *result;

    run->results =
        bench_realloc(run->results, (size_t)(run->result_count + 1) * sizeof(*run->results));
    result = &run->results[run->result_count++];
    *result = (bench_result_t){
        .prob = bench_strdup(problem->text),
        .label = bench_strdup(problem->label),
        .threads = runner->info.threads,
        .samples = runner->samples,
        .sample_count = runner->sample_count,
        .stats = bench_stats(runner->samples, runner->sample_count),
        .flops = runner->info.flops,
        .bytes = runner->info.bytes,
        .copy_ns = runner->copy_ns,
        .estimate_ns = runner->info.estimate_ns,
        .max_err = runner->max_err,
        .checked = runner->checked,
        .is_auto = runner->is_auto,
        .fraction_of_limit = NAN,
    };
    snprintf(result->impl, sizeof(result->impl), "%s", runner->info.impl);
    snprintf(result->dtype, sizeof(result->dtype), "%s", heed_dtype_name(dtype));
    bench_device_name(runner->info.device, result->device, sizeof(result->device));
    runner->samples = NULL;
    runner->checked = NULL;
}

/* Filled, and on the device; false: no memory, and there is nothing to be freed. */
static bool new_buffers(const bench_run_t *run, heed_problem_t *problem, const kit_op_t *op,
                        kit_buffers_t *buffers)
{
    kit_random_t random = {.state = 1};

    if (!kit_buffers_new(problem, 0, buffers))
        return false;
    op->fill(&random, KIT_VALUES_PLAIN, problem, buffers);
    if (kit_buffers_place(buffers, run->context, run->device) == HEED_OK &&
        kit_buffers_upload(buffers) == HEED_OK)
        return true;
    kit_buffers_free(buffers);
    return false;
}

/* Fills the shared buffers and lets the runners race. */
static void measure(bench_run_t *run, runner_t *runners, int count, const bench_problem_t *item,
                    heed_problem_t *problem)
{
    const kit_op_t *op = kit_op_find(heed_problem_op(problem));
    kit_buffers_t buffers = {0};

    if (!op || !new_buffers(run, problem, op, &buffers)) {
        for (int i = 0; i < count; i++)
            if (runners[i].plan)
                retire(run, &runners[i], item->text, true,
                       op ? "no memory for the tensors" : "the kit cannot fill this operation");
        return;
    }
    for (int i = 0; i < count; i++)
        if (runners[i].plan) {
            bench_progress("%s %s %s: timing", run->place, runners[i].info.impl, item->text);
            warm_up(run, &runners[i], item->text, problem, &buffers);
        }
    race(run, runners, count, item->text, &buffers);
    for (int i = 0; i < count; i++)
        if (runners[i].plan)
            add_result(run, &runners[i], item, heed_problem_tensor(problem, 0)->dtype);
    kit_buffers_free(&buffers);
}

void bench_problem(bench_run_t *run, const bench_problem_t *item)
{
    int count = run->contender_count;
    runner_t *runners = bench_realloc(NULL, (size_t)count * sizeof(*runners));
    heed_problem_t *problem = NULL;
    bool any = false;

    memset(runners, 0, (size_t)count * sizeof(*runners));
    if (heed_problem_parse(item->text, &problem) != HEED_OK) {
        bench_miss(run, item->text, "", true, heed_last_error());
        count = 0;
    }
    for (int i = 0; i < count; i++) {
        runners[i].contender = &run->contenders[i];
        enter(run, &runners[i], item->text, problem);
    }
    join_auto(runners, count);
    for (int i = 0; i < count; i++) {
        if (runners[i].plan)
            prepare(run, &runners[i], item->text);
        any = any || runners[i].plan;
    }
    if (any)
        measure(run, runners, count, item, problem);
    for (int i = 0; i < count; i++) {
        heed_plan_destroy(runners[i].plan);
        (void)heed_memory_free(run->context, run->device, runners[i].workspace);
        free(runners[i].samples);
        free(runners[i].checked);
    }
    heed_problem_destroy(problem);
    free(runners);
}

void bench_clear(bench_run_t *run)
{
    for (int r = 0; r < run->result_count; r++) {
        free(run->results[r].prob);
        free(run->results[r].label);
        free(run->results[r].samples);
        free(run->results[r].checked);
    }
    for (int m = 0; m < run->miss_count; m++) {
        free(run->misses[m].prob);
        free(run->misses[m].why);
    }
    free(run->results);
    free(run->misses);
    run->result_count = run->miss_count = 0;
}
