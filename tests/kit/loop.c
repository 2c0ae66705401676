#define _GNU_SOURCE
#include "loop.h"

#include "crash.h"

#include <argp.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEAMS = 3, TEXT = 1024, MOST_FAILURES = 3 };

typedef struct loop {
    const char *program;
    const char *impl, *op, *problem;
    uint64_t seed;
    kit_values_t values;
    bool seed_given, values_given;
    double seconds;
    int64_t count;
    int threads;          /* 0: 1, 2 and 3 in turn */
    heed_device_t device; /* of implementations that are wanted; type 0: any */
    const char *skip;     /* problems whose text matches are left out; NULL: none */
    double flops;         /* larger problems are left out; 0: none */
    bool verbose;
    const heed_impl_t *const *extra;
    bool failed;
} loop_t;

/* What is known of one implementation while it is checked. */
typedef struct tested {
    const heed_impl_t *impl;
    const kit_op_t *op;
    heed_context_t *contexts[TEAMS];
    heed_context_t *reference;
    int64_t passed, failed, refused;
    double worst;
} tested_t;

static const char *const value_names[] = {"plain", "extreme"};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- contexts -------------------------------------------------------------------------------- */

/* A context whose only implementation of `op` is `impl`. */
static heed_context_t *make_context(const loop_t *loop, const char *op, const char *impl,
                                    int threads)
{
    char only[160] = "";
    heed_context_t *context = NULL;
    heed_context_config_t config = heed_context_config();
    if (op)
        snprintf(only, sizeof(only), "%s=%s", op, impl);
    config.threads = threads;
    config.impl = only;
    heed_status_t status = heed_context_create(&config, &context);
    for (int i = 0; status == HEED_OK && loop->extra && loop->extra[i]; i++)
        status = heed_register_impl(context, loop->extra[i]);
    if (status == HEED_OK)
        return context;
    fprintf(stderr, "%s: %s: %s\n", loop->program, op ? only : "a context", heed_last_error());
    heed_context_destroy(context);
    return NULL;
}

static void end_tested(tested_t *tested)
{
    for (int i = 0; i < TEAMS; i++)
        heed_context_destroy(tested->contexts[i]);
    heed_context_destroy(tested->reference);
}

static bool begin_tested(const loop_t *loop, const heed_impl_t *impl, tested_t *tested)
{
    *tested = (tested_t){.impl = impl, .op = kit_op_find(impl->op)};
    if (!tested->op) {
        printf("FAIL %s %s: the kit does not know the operation\n", impl->op, impl->name);
        return false;
    }
    bool good = true;
    for (int i = 0; i < TEAMS; i++) {
        int threads = loop->threads ? loop->threads : i + 1;
        tested->contexts[i] = make_context(loop, impl->op, impl->name, threads);
        good = good && tested->contexts[i];
    }
    tested->reference = make_context(loop, impl->op, "cpu:standard", 1);
    if (good && tested->reference)
        return true;
    end_tested(tested);
    return false;
}

/* ---- one problem ----------------------------------------------------------------------------- */

/* Whether the problem asks for no more than the implementation declares, and for no sizes or
 * strides that it may refuse. */
static bool is_taken(const tested_t *tested, const char *text)
{
    heed_problem_t *problem = NULL;
    void *desc;
    bool taken = heed_problem_parse(text, &problem) == HEED_OK &&
                 heed_problem_desc(problem, &desc) == HEED_OK &&
                 !(tested->op->needs(desc) & ~tested->impl->features) &&
                 !kit_may_refuse(tested->impl, desc);
    heed_problem_destroy(problem);
    return taken;
}

/* What the implementation says in the sentence of the plan, which has the reasons of all. */
static void find_reason(const tested_t *tested, char *why, size_t size)
{
    const char *all = heed_last_error(), *from;
    char start[80];
    /* Others may name it where they say that they were not asked for. */
    snprintf(start, sizeof(start), "%s: ", tested->impl->name);
    from = strstr(all, start);
    from = from ? from : all;
    snprintf(why, size, "%.*s", (int)strcspn(from, ";"), from);
}

/* Where the implementation runs: the host, or the card that was asked for, else the first. */
static heed_device_t device_of(const loop_t *loop, const heed_impl_t *impl)
{
    bool given = loop->device.type == impl->device_type;
    return given ? loop->device : (heed_device_t){impl->device_type, 0};
}

/* The command that repeats a problem. */
static void write_command(const loop_t *loop, const tested_t *tested, const char *text,
                          uint64_t seed, kit_values_t values, int threads, char *to, size_t size)
{
    heed_device_t device = device_of(loop, tested->impl);
    char where[32] = "";
    if (device.id > 0)
        snprintf(where, sizeof(where), "--device cuda:%d ", (int)device.id);
    snprintf(to, size, "%s %s--op %s --impl %s --threads %d --seed %llu --values %s --prob '%s'",
             loop->program, where, tested->impl->op, tested->impl->name, threads,
             (unsigned long long)seed, value_names[values], text);
}

/* Output that is still buffered would be lost with a program that dies. */
static void prepare_for_the_worst(const char *command)
{
    char line[TEXT * 2];
    snprintf(line, sizeof(line), "died in\n  repeat: %.*s\n", TEXT * 2 - 32, command);
    kit_crash_note(line);
    fflush(stdout);
}

/* Floating-point operations of a problem; 0 where there is no plan for it. */
static double flops_of(const tested_t *tested, const char *text)
{
    heed_problem_t *problem = NULL;
    heed_plan_t *plan = NULL;
    void *desc;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    if (heed_problem_parse(text, &problem) == HEED_OK &&
        heed_problem_desc(problem, &desc) == HEED_OK &&
        heed_plan_create(tested->reference, tested->op->op, desc, &plan) == HEED_OK &&
        heed_plan_info(plan, &info) != HEED_OK)
        info.flops = 0;
    heed_plan_destroy(plan);
    heed_problem_destroy(problem);
    return info.flops;
}

/* Checks one problem; `team` chooses the context, and so the number of threads. */
static void check_one(const loop_t *loop, tested_t *tested, const char *text, uint64_t seed,
                      kit_values_t values, int team)
{
    kit_verdict_t verdict;
    char sentence[320];
    if ((loop->skip && fnmatch(loop->skip, text, 0) == 0) ||
        (loop->flops > 0 && flops_of(tested, text) > loop->flops))
        return;
    char command[TEXT * 2];
    int threads = loop->threads ? loop->threads : team + 1;
    write_command(loop, tested, text, seed, values, threads, command, sizeof(command));
    prepare_for_the_worst(command);
    kit_outcome_t outcome = kit_check(tested->contexts[team], device_of(loop, tested->impl),
                                      tested->reference, text, seed, values, &verdict);
    snprintf(sentence, sizeof(sentence), "%s", verdict.sentence);
    if (loop->verbose)
        printf("%s %s %s threads=%d seed=%llu %s: worst error %.3g of its bound\n", text,
               tested->impl->name, value_names[values], threads, (unsigned long long)seed,
               outcome == KIT_PASSED   ? "passed"
               : outcome == KIT_FAILED ? "failed"
                                       : "refused",
               verdict.worst_ratio);
    if (outcome == KIT_REFUSED && is_taken(tested, text)) {
        char why[280];
        find_reason(tested, why, sizeof(why));
        snprintf(sentence, sizeof(sentence), "refuses what it declares: %s", why);
        outcome = KIT_FAILED;
    }
    tested->passed += outcome == KIT_PASSED;
    tested->refused += outcome == KIT_REFUSED;
    if (outcome == KIT_PASSED && verdict.worst_ratio > tested->worst)
        tested->worst = verdict.worst_ratio;
    if (outcome != KIT_FAILED)
        return;
    tested->failed++;
    printf("FAIL %s %s: %s\n  repeat: %s\n", tested->impl->op, tested->impl->name, sentence,
           command);
    fflush(stdout);
}

static void check_corners(const loop_t *loop, tested_t *tested)
{
    for (int i = 0; tested->op->corners[i] && tested->failed < MOST_FAILURES; i++)
        for (int values = KIT_VALUES_PLAIN; values <= KIT_VALUES_EXTREME; values++)
            check_one(loop, tested, tested->op->corners[i], loop->seed, (kit_values_t)values,
                      i % TEAMS);
}

static void check_random(const loop_t *loop, tested_t *tested, double seconds)
{
    double end = now() + seconds;
    for (int64_t i = 0; tested->failed < MOST_FAILURES; i++) {
        char text[TEXT];
        if (loop->count > 0 ? i >= loop->count : now() >= end)
            return;
        uint64_t seed = loop->seed + (uint64_t)i;
        kit_random_t random = {seed};
        tested->op->draw(&random, tested->impl->features, text, sizeof(text));
        kit_values_t values = loop->values_given ? loop->values : (kit_values_t)(i / TEAMS % 2);
        check_one(loop, tested, text, seed, values, (int)(i % TEAMS));
    }
}

static void check_impl(loop_t *loop, const heed_impl_t *impl, double seconds)
{
    tested_t tested;
    if (!begin_tested(loop, impl, &tested)) {
        loop->failed = true;
        return;
    }
    if (loop->problem) {
        check_one(loop, &tested, loop->problem, loop->seed, loop->values, 0);
    } else {
        check_corners(loop, &tested);
        check_random(loop, &tested, seconds);
    }
    printf("%-10s %-24s %6lld passed, %lld failed, %lld refused; worst error %.2f of its bound\n",
           impl->op, impl->name, (long long)tested.passed, (long long)tested.failed,
           (long long)tested.refused, tested.worst);
    fflush(stdout);
    if (tested.failed || (!tested.passed && !kit_needs_ranks(impl)))
        loop->failed = true;
    end_tested(&tested);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool is_extra(const loop_t *loop, const heed_impl_t *impl)
{
    for (int i = 0; loop->extra && loop->extra[i]; i++)
        if (strcmp(impl->name, loop->extra[i]->name) == 0 &&
            strcmp(impl->op, loop->extra[i]->op) == 0)
            return true;
    return false;
}

static bool is_wanted(const loop_t *loop, const char *op, const heed_impl_t *impl)
{
    return !loop->extra == !is_extra(loop, impl) &&
           (!loop->device.type || loop->device.type == impl->device_type) &&
           (!loop->op || strcmp(loop->op, impl->op) == 0) && (!op || strcmp(op, impl->op) == 0) &&
           (!loop->impl || fnmatch(loop->impl, impl->name, 0) == 0);
}

/* Calls check_impl for each implementation that is wanted and usable, or only counts them. */
static int each_impl(loop_t *loop, const heed_context_t *context, const char *op, double seconds,
                     bool count_only)
{
    const heed_impl_t *impl;
    heed_why_t why;
    int count = 0;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++) {
        if (!is_wanted(loop, op, impl))
            continue;
        if (heed_impl_usable(context, impl, &why)) {
            count++;
            if (!count_only)
                check_impl(loop, impl, seconds);
        } else if (!count_only) {
            printf("%-10s %-24s skipped: %s\n", impl->op, impl->name, why.text);
        }
    }
    return count;
}

static char *problem_op(const char *text)
{
    return text ? strndup(text, strcspn(text, " \t")) : NULL;
}

static int run_loop(loop_t *loop)
{
    heed_context_t *context = make_context(loop, NULL, NULL, 0);
    if (!context)
        return 1;
    for (int i = 0; heed_op_name(i); i++) {
        if (kit_op_find(heed_op_name(i)))
            continue;
        printf("FAIL %s: the kit does not know the operation\n", heed_op_name(i));
        loop->failed = true;
    }
    char *op = problem_op(loop->problem);
    int count = each_impl(loop, context, op, 0, true);
    if (count == 0) {
        fprintf(stderr, "%s: no usable implementation to check\n", loop->program);
        loop->failed = true;
    }
    printf("seed %llu\n", (unsigned long long)loop->seed);
    each_impl(loop, context, op, loop->seconds / (count ? count : 1), false);
    heed_context_destroy(context);
    free(op);
    return loop->failed;
}

/* ---- the command line ------------------------------------------------------------------------ */

static const struct argp_option options[] = {
    {"impl", 'i', "PATTERN", 0, "Only implementations whose name matches; * matches anything", 0},
    {"op", 'o', "OP", 0, "Only this operation", 0},
    {"prob", 'p', "STRING", 0, "This problem alone", 0},
    {"device", 'd', "DEVICE", 0,
     "Only implementations for cpu, cuda or cuda:N, there (default: all, cards on cuda:0)", 0},
    {"seed", 's', "N", 0, "Where random problems and values start (default: from the clock)", 0},
    {"values", 'V', "KIND", 0, "plain or extreme (default: both; plain with --prob)", 0},
    {"seconds", 't', "S", 0, "Time for all of them together (default: 10)", 0},
    {"count", 'n', "N", 0, "Random problems for each, instead of a time", 0},
    {"threads", 'j', "N", 0, "Threads (default: 1, 2 and 3 in turn)", 0},
    {"skip", 'x', "PATTERN", 0, "Leave out problems whose text matches", 0},
    {"flops", 'f', "N", 0, "Leave out problems of more floating-point operations", 0},
    {"verbose", 'v', NULL, 0, "A line for each problem", 0},
    {0}};

static double number(struct argp_state *state, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        argp_error(state, "'%s' is not a number from %g to %g", text, low, high);
    return value;
}

static uint64_t seed_number(struct argp_state *state, const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end || text[0] == '-')
        argp_error(state, "'%s' is not a seed", text);
    return value;
}

static error_t read_option(int key, char *text, struct argp_state *state)
{
    loop_t *loop = state->input;
    switch (key) {
    case 'i':
        loop->impl = text;
        return 0;
    case 'o':
        loop->op = text;
        return 0;
    case 'p':
        loop->problem = text;
        return 0;
    case 'd':
        if (!kit_device_parse(text, &loop->device))
            argp_error(state, "a device is cpu, cuda or cuda:N, not '%s'", text);
        return 0;
    case 's':
        loop->seed = seed_number(state, text);
        loop->seed_given = true;
        return 0;
    case 'V':
        if (strcmp(text, "plain") != 0 && strcmp(text, "extreme") != 0)
            argp_error(state, "values are plain or extreme, not '%s'", text);
        loop->values = strcmp(text, "extreme") == 0 ? KIT_VALUES_EXTREME : KIT_VALUES_PLAIN;
        loop->values_given = true;
        return 0;
    case 't':
        loop->seconds = number(state, text, 0, 1e6);
        return 0;
    case 'n':
        loop->count = (int64_t)number(state, text, 1, 1e12);
        return 0;
    case 'j':
        loop->threads = (int)number(state, text, 1, 1024);
        return 0;
    case 'x':
        loop->skip = text;
        return 0;
    case 'f':
        loop->flops = number(state, text, 1, 1e30);
        return 0;
    case 'v':
        loop->verbose = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int kit_loop_main(int argc, char **argv, const heed_impl_t *const *extra)
{
    static const struct argp parser = {
        options, read_option, NULL, "Checks implementations against cpu:standard.",
        NULL,    NULL,        NULL};
    loop_t loop = {.program = argv[0], .seconds = 10, .extra = extra};
    argp_err_exit_status = 2;
    error_t error = argp_parse(&parser, argc, argv, 0, NULL, &loop);
    if (error) {
        fprintf(stderr, "%s: %s\n", argv[0], strerror(error));
        return 2;
    }
    if (!loop.seed_given)
        loop.seed = loop.problem ? 1 : (uint64_t)time(NULL) * 1000;
    kit_crash_watch();
    return run_loop(&loop);
}
