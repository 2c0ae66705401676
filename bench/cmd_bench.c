/* heed bench OP: checks implementations against the reference, times them on a list of problems,
 * and holds each time against what this machine can do at most, measured in the same run. */
#define _GNU_SOURCE

#include "arguments.h"
#include "beside.h"
#include "commands.h"
#include "compare.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the problem lists are: an absolute path, or one from the folder of the executable. */
#ifndef HEED_SHAPES_DIR
#define HEED_SHAPES_DIR "../share/heed/shapes"
#endif

/* ---- problems -------------------------------------------------------------------------------- */

/* The path of the default list: the operation's own, if there is one, else models.txt. */
static void default_shapes(const char *op, char *path, size_t size)
{
    char folder[BENCH_TEXT] = "";
    ssize_t length = 0;

    if (HEED_SHAPES_DIR[0] != '/')
        length = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    folder[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[1] = '\0';
    snprintf(path, size, "%s%s/%s.txt", folder, HEED_SHAPES_DIR, op);
    if (access(path, R_OK))
        snprintf(path, size, "%s%s/models.txt", folder, HEED_SHAPES_DIR);
}

static bool read_problems(const bench_options_t *options, bench_problems_t *problems)
{
    char path[BENCH_TEXT * 2];

    for (int i = 0; i < options->prob_count; i++)
        if (!bench_problems_add(problems, options->op, options->probs[i], NULL, options->dtypes,
                                "--prob"))
            return false;
    snprintf(path, sizeof(path), "%s", options->shapes ? options->shapes : "");
    if (!options->shapes && !options->prob_count) {
        default_shapes(options->beside ? options->beside : options->op, path, sizeof(path));
        if (access(path, R_OK)) {
            bench_complain("the default list %s is not there: give --prob, or --shapes with a "
                           "file such as bench/shapes/models.txt of the source",
                           path);
            return false;
        }
    }
    if (path[0] && !bench_problems_read(problems, options->op, path, options->dtypes))
        return false;
    if (problems->other)
        bench_complain("note: skipped %d problem%s of other operations in %s", problems->other,
                       problems->other == 1 ? "" : "s", path);
    if (!problems->count)
        bench_complain("there is no problem of %s%s%s", options->op, path[0] ? " in " : "", path);
    return problems->count > 0;
}

/* ---- contenders ------------------------------------------------------------------------------ */

heed_status_t bench_context(const bench_options_t *options, const char *impl,
                            heed_context_t **context)
{
    heed_context_config_t config = heed_context_config();
    char pattern[BENCH_NAME * 2];

    config.threads = options->threads;
    config.max_cpu_isa = options->max_isa;
    if (impl) {
        snprintf(pattern, sizeof(pattern), "%s=%s", options->op, impl);
        config.impl = pattern;
    }
    return heed_context_create(&config, context);
}

/* Adds a contender that is not there yet; impl NULL: auto. */
static bool add_contender(bench_run_t *run, const char *impl)
{
    const char *name = impl ? impl : "auto";
    bench_contender_t *contender;

    for (int i = 0; i < run->contender_count; i++)
        if (!strcmp(run->contenders[i].name, name))
            return true;
    run->contenders = bench_realloc(run->contenders,
                                    (size_t)(run->contender_count + 1) * sizeof(*run->contenders));
    contender = &run->contenders[run->contender_count];
    snprintf(contender->name, sizeof(contender->name), "%s", name);
    if (bench_context(run->options, impl, &contender->context) != HEED_OK) {
        bench_complain("%s", heed_last_error());
        return false;
    }
    run->contender_count++;
    return true;
}

/* Adds every implementation of the operation that a pattern names. */
static bool add_matching(bench_run_t *run, const char *pattern)
{
    const heed_impl_t *impl;
    bool found = false;

    for (int i = 0; (impl = heed_impl_at(run->context, i)); i++) {
        if (strcmp(impl->op, run->options->op) || fnmatch(pattern, impl->name, 0))
            continue;
        found = true;
        if (!add_contender(run, impl->name))
            return false;
    }
    if (!found) {
        bench_complain("--impl: no implementation of %s is called %s; there are:", run->options->op,
                       pattern);
        for (int i = 0; (impl = heed_impl_at(run->context, i)); i++)
            if (!strcmp(impl->op, run->options->op))
                fprintf(stderr, "  %s\n", impl->name);
    }
    return found;
}

static bool add_contenders(bench_run_t *run)
{
    const char *list = run->options->impls;
    char pattern[BENCH_NAME];

    while (bench_next_item(&list, pattern, sizeof(pattern)))
        if (strcmp(pattern, "auto") ? !add_matching(run, pattern) : !add_contender(run, NULL))
            return false;
    if (!run->contender_count)
        bench_complain("--impl names no implementation");
    return run->contender_count > 0;
}

/* ---- running --------------------------------------------------------------------------------- */

static int print_plans(const bench_run_t *run, const bench_problems_t *problems)
{
    for (int p = 0; p < problems->count; p++) {
        heed_problem_t *problem;
        if (heed_problem_parse(problems->items[p].text, &problem) != HEED_OK)
            return TOOL_FAILED; /* it was read before */
        printf("%s%s%s\n", problems->items[p].text, problems->items[p].label[0] ? " # " : "",
               problems->items[p].label);
        for (int i = 0; i < run->contender_count; i++) {
            char why[BENCH_TEXT * 2];
            heed_plan_info_t info = {.struct_size = sizeof(info)};
            heed_plan_t *plan = bench_plan(run, &run->contenders[i], problem, why, sizeof(why));
            if (!plan || heed_plan_info(plan, &info) != HEED_OK)
                printf("    %s refuses: %s\n", run->contenders[i].name, why);
            else
                printf("    %s, %d threads, predicted %.3f ms\n", info.impl, (int)info.threads,
                       info.estimate_ns / 1e6);
            heed_plan_destroy(plan);
        }
        heed_problem_destroy(problem);
    }
    return TOOL_OK;
}

/* A fifth of a second for each is enough; who is in a hurry with problems is with limits too. */
static bench_limits_t measure_limits(const bench_run_t *run)
{
    double each = fmin(0.2, 0.02 + run->options->seconds);
    return bench_on_host(run) ? bench_limits_measure(&run->cpu, run->cpu.threads, each)
                              : bench_device_limits(run);
}

static int run_problems(bench_run_t *run, const bench_problems_t *problems)
{
    bool wrong = false;

    bench_progress("measuring the machine's limits");
    run->limits = measure_limits(run);
    for (int p = 0; p < problems->count; p++) {
        snprintf(run->place, sizeof(run->place), "[%d/%d]", p + 1, problems->count);
        if (run->options->beside)
            bench_beside(run, &problems->items[p]);
        else
            bench_problem(run, &problems->items[p]);
    }
    bench_progress("measuring the machine's limits again");
    bench_limits_t after = measure_limits(run);
    bench_progress("%s", "");
    run->limits_drift = bench_limits_merge(&run->limits, &after);
    for (int r = 0; r < run->result_count; r++)
        bench_judge(run, &run->results[r]);
    for (int m = 0; m < run->miss_count; m++)
        wrong = wrong || run->misses[m].wrong;
    return wrong || !run->result_count ? TOOL_FAILED : TOOL_OK;
}

/* Misses go to stderr too where the format has no place for them. */
static int report(const bench_run_t *run)
{
    switch (run->options->format) {
    case BENCH_JSON:
        if (!bench_report_json(run, stdout)) {
            bench_complain("the results cannot be written");
            return TOOL_FAILED;
        }
        break;
    case BENCH_CSV:
        bench_report_csv(run, stdout);
        break;
    case BENCH_MARKDOWN:
        bench_report_markdown(run, stdout);
        bench_beside_report(run, stdout);
        return TOOL_OK;
    }
    for (int m = 0; m < run->miss_count; m++)
        bench_complain("%s %s %s: %s", run->misses[m].impl,
                       run->misses[m].wrong ? "FAILED" : "refuses", run->misses[m].prob,
                       run->misses[m].why);
    if (run->limits_drift > BENCH_DRIFT)
        bench_complain("note: the limits before and after the run differ by up to %.0f %%",
                       100 * run->limits_drift);
    return TOOL_OK;
}

static void free_run(bench_run_t *run)
{
    bench_clear(run);
    for (int i = 0; i < run->contender_count; i++)
        heed_context_destroy(run->contenders[i].context);
    bench_device_end(run);
    heed_context_destroy(run->context);
    free(run->contenders);
}

/* The context, the machine, and the contenders. */
static bool start_run(bench_run_t *run)
{
    run->cpu.struct_size = sizeof(run->cpu);
    run->device = run->options->device;
    if (bench_context(run->options, NULL, &run->context) != HEED_OK ||
        heed_device_info(run->context, 0, &run->cpu) != HEED_OK) {
        bench_complain("%s", heed_last_error());
        return false;
    }
    return bench_device_begin(run) && add_contenders(run);
}

int cmd_bench(int argc, char **argv)
{
    bench_options_t options = {
        .impls = "auto", .seconds = 1, .samples = 5, .check = true, .device = {HEED_DEVICE_CPU, 0}};
    bench_run_t run = {.options = &options};
    bench_problems_t problems = {0};
    int code = TOOL_USAGE;

    if (argc > 1 && !strcmp(argv[1], "compare")) {
        static char name[] = "heed bench compare";
        argv[1] = name;
        return cmd_compare(argc - 1, argv + 1);
    }
    if (!argp_parse(&bench_argp, argc, argv, 0, NULL, &options) && start_run(&run) &&
        read_problems(&options, &problems)) {
        if (options.dry_run) {
            code = print_plans(&run, &problems);
        } else {
            code = run_problems(&run, &problems);
            int written = report(&run);
            code = code ? code : written;
        }
    }
    bench_problems_free(&problems);
    free_run(&run);
    free(options.probs);
    return code;
}
