#define _GNU_SOURCE
#include "loop.h"

#include "crash.h"
#include "loop_options.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEAMS = 3, TEXT = 1024, MOST_FAILURES = 3 };

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
static heed_context_t *make_context(const kit_loop_t *loop, const char *op, const char *impl,
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

static bool begin_tested(const kit_loop_t *loop, const heed_impl_t *impl, tested_t *tested)
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
static heed_device_t device_of(const kit_loop_t *loop, const heed_impl_t *impl)
{
    bool given = loop->device.type == impl->device_type;
    return given ? loop->device : (heed_device_t){impl->device_type, 0};
}

/* The command that repeats a problem. */
static void write_command(const kit_loop_t *loop, const tested_t *tested, const char *text,
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
static void check_one(const kit_loop_t *loop, tested_t *tested, const char *text, uint64_t seed,
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

static void check_corners(const kit_loop_t *loop, tested_t *tested)
{
    for (int i = 0; tested->op->corners[i] && tested->failed < MOST_FAILURES; i++)
        for (int values = KIT_VALUES_PLAIN; values <= KIT_VALUES_EXTREME; values++)
            check_one(loop, tested, tested->op->corners[i], loop->seed, (kit_values_t)values,
                      i % TEAMS);
}

static void check_random(const kit_loop_t *loop, tested_t *tested, double seconds)
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

static void check_impl(kit_loop_t *loop, const heed_impl_t *impl, double seconds)
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

static bool is_extra(const kit_loop_t *loop, const heed_impl_t *impl)
{
    for (int i = 0; loop->extra && loop->extra[i]; i++)
        if (strcmp(impl->name, loop->extra[i]->name) == 0 &&
            strcmp(impl->op, loop->extra[i]->op) == 0)
            return true;
    return false;
}

static bool is_wanted(const kit_loop_t *loop, const char *op, const heed_impl_t *impl)
{
    return !loop->extra == !is_extra(loop, impl) &&
           (!loop->device.type || loop->device.type == impl->device_type) &&
           (!loop->op || strcmp(loop->op, impl->op) == 0) && (!op || strcmp(op, impl->op) == 0) &&
           (!loop->impl || fnmatch(loop->impl, impl->name, 0) == 0);
}

/* Calls check_impl for each implementation that is wanted and usable, or only counts them. */
static int each_impl(kit_loop_t *loop, const heed_context_t *context, const char *op,
                     double seconds, bool count_only)
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

static int run_loop(kit_loop_t *loop)
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

int kit_loop_main(int argc, char **argv, const heed_impl_t *const *extra)
{
    kit_loop_t loop = {.program = argv[0], .seconds = 10, .extra = extra};
    if (!kit_loop_options(argc, argv, &loop))
        return 2;
    kit_crash_watch();
    return run_loop(&loop);
}
