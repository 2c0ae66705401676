/* The results as JSON, schema "heed-bench-1". docs and tools that compare runs read this form. */
#define _GNU_SOURCE

#include "bench.h"

#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#ifndef HEED_COMMIT
#define HEED_COMMIT "unknown"
#endif

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown"
#endif

/* A new value replaces what is at `key`; jansson takes NULL as failure and the object stays short,
 * which `failed` remembers. */
static void set(json_t *object, const char *key, json_t *value, bool *failed)
{
    if (json_object_set_new(object, key, value))
        *failed = true;
}

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Nanoseconds, operations, bytes: whole numbers. */
static json_t *whole(double value)
{
    return isfinite(value) ? json_integer((json_int_t)llround(value)) : json_null();
}

/* A rate in 10^9 a second, null where there is none. */
static json_t *rate(double value)
{
    return value > 0 ? json_real(value / 1e9) : json_null();
}

static json_t *text(const char *value)
{
    return value ? json_string(value) : json_null();
}

static json_t *environment(bool *failed)
{
    json_t *object = json_object();

    for (char **entry = environ; entry && *entry; entry++) {
        const char *value = strchr(*entry, '=');
        char name[BENCH_NAME];
        if (!value || (strncmp(*entry, "HEED_", 5) && strncmp(*entry, "OMP_", 4)))
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(value - *entry), *entry);
        set(object, name, json_string(value + 1), failed);
    }
    return object;
}

static json_t *limits(const bench_limits_t *limits, bool *failed)
{
    json_t *object = json_object();

#define SET(field, unit) set(object, #field "_" #unit, rate(limits->field), failed);
    BENCH_LIMIT_LIST(SET)
#undef SET
    return object;
}

static json_t *card(const bench_run_t *run, bool *failed)
{
    json_t *object = json_object();
    char name[32];

    bench_device_name(run->device, name, sizeof(name));
    set(object, "device", json_string(name), failed);
    set(object, "name", json_string(run->card.name), failed);
    set(object, "multiprocessors", json_integer(run->card.multiprocessors), failed);
    set(object, "driver_version", json_integer(run->card.driver_version), failed);
    set(object, "runtime_version", json_integer(run->card.runtime_version), failed);
    set(object, "timing",
        json_string("events around single calls, last cache overwritten before each"), failed);
    return object;
}

static json_t *context(const bench_run_t *run, bool *failed)
{
    json_t *object = json_object();
    char isa[128];

    set(object, "version", json_string(heed_version()), failed);
    set(object, "commit", json_string(HEED_COMMIT), failed);
    set(object, "compiler", json_string(COMPILER), failed);
    set(object, "cpu", json_string(run->cpu.name), failed);
    set(object, "threads", json_integer(run->cpu.threads), failed);
    set(object, "env", environment(failed), failed);
    set(object, "isa", json_string(heed_isa_names(run->cpu.isa, isa, sizeof(isa))), failed);
    if (!bench_on_host(run))
        set(object, "card", card(run, failed), failed);
    set(object, "limits", limits(&run->limits, failed), failed);
    set(object, "limits_drift", number(run->limits_drift), failed);
    return object;
}

static json_t *samples(const bench_result_t *result, bool *failed)
{
    json_t *array = json_array();

    for (int i = 0; i < result->sample_count; i++)
        if (json_array_append_new(array, whole(result->samples[i])))
            *failed = true;
    return array;
}

static json_t *result_object(const bench_result_t *result, bool *failed)
{
    json_t *object = json_object();

    set(object, "prob", json_string(result->prob), failed);
    set(object, "label", json_string(result->label), failed);
    set(object, "impl", json_string(result->impl), failed);
    set(object, "device", json_string(result->device), failed);
    set(object, "dtype", json_string(result->dtype), failed);
    set(object, "threads", json_integer(result->threads), failed);
    set(object, "median_ns", whole(result->stats.median), failed);
    set(object, "min_ns", whole(result->stats.min), failed);
    set(object, "samples_ns", samples(result, failed), failed);
    set(object, "flops", whole(result->flops), failed);
    set(object, "bytes", whole(result->bytes), failed);
    set(object, "gflops", number(bench_gflops(result)), failed);
    set(object, "gbps", number(bench_gbps(result)), failed);
    set(object, "limit", text(result->limit), failed);
    set(object, "fraction_of_limit", number(result->fraction_of_limit), failed);
    set(object, "copy_ns", whole(result->copy_ns), failed);
    set(object, "estimate_ns", whole(result->estimate_ns), failed);
    set(object, "predicted", number(bench_predicted(result)), failed);
    set(object, "max_err", number(result->max_err), failed);
    set(object, "checked", text(result->checked), failed);
    if (result->beside) {
        set(object, "beside", text(result->beside), failed);
        set(object, "of_beside", number(result->of_beside), failed);
        set(object, "of_beside_predicted", number(result->beside_predicted), failed);
        set(object, "density", number(result->density), failed);
        set(object, "list_ns", whole(result->list_ns), failed);
    }
    return object;
}

static json_t *miss_object(const bench_miss_t *miss, bool *failed)
{
    json_t *object = json_object();

    set(object, "prob", json_string(miss->prob), failed);
    set(object, "impl", json_string(miss->impl), failed);
    set(object, "why", json_string(miss->why), failed);
    return object;
}

/* The misses that are wrong, or those that are refusals. */
static json_t *misses(const bench_run_t *run, bool wrong, bool *failed)
{
    json_t *array = json_array();

    for (int m = 0; m < run->miss_count; m++)
        if (run->misses[m].wrong == wrong &&
            json_array_append_new(array, miss_object(&run->misses[m], failed)))
            *failed = true;
    return array;
}

bool bench_report_json(const bench_run_t *run, FILE *to)
{
    json_t *root = json_object();
    json_t *results = json_array();
    bool failed = false;

    for (int r = 0; r < run->result_count; r++)
        if (json_array_append_new(results, result_object(&run->results[r], &failed)))
            failed = true;
    set(root, "schema", json_string("heed-bench-1"), &failed);
    set(root, "context", context(run, &failed), &failed);
    set(root, "results", results, &failed);
    set(root, "refused", misses(run, false, &failed), &failed);
    set(root, "failed", misses(run, true, &failed), &failed);
    if (!failed)
        failed = json_dumpf(root, to, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) != 0 ||
                 fputc('\n', to) == EOF;
    json_decref(root);
    return !failed;
}
