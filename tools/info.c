#define _GNU_SOURCE
#include "info.h"
#include "options.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { KEY_JSON = 0x3000 };

typedef struct arguments {
    bool json;
    tool_options_t options;
} arguments_t;

/* ---- printing -------------------------------------------------------------------------------- */

static const char *string_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long integer_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *plural(long long count)
{
    return count == 1 ? "" : "s";
}

/* Prints a list of strings, `none` where it is empty. */
static void print_list(const json_t *list, const char *separator, const char *none)
{
    size_t i;
    json_t *item;
    if (json_array_size(list) == 0)
        printf("%s", none);
    json_array_foreach(list, i, item) printf("%s%s", i ? separator : "", json_string_value(item));
}

static void print_caches(const json_t *caches)
{
    size_t i;
    json_t *cache;
    char bytes[TOOL_NUMBER_SIZE];
    if (json_array_size(caches) == 0)
        return;
    printf("  caches      ");
    json_array_foreach(caches, i, cache)
    {
        long long sharing = integer_of(cache, "sharing");
        printf("%sL%lld %s", i ? ", " : "", integer_of(cache, "level"),
               tool_bytes((double)integer_of(cache, "bytes"), bytes));
        if (sharing > 1)
            printf(" for %lld cores", sharing);
    }
    printf("\n");
}

static void print_isa(const json_t *device)
{
    const json_t *may = json_object_get(device, "isa"), *has = json_object_get(device, "isa_cpu");
    printf("  instruction sets  ");
    print_list(may, " ", "scalar");
    if (!json_equal(may, has)) {
        printf(" (the CPU has ");
        print_list(has, " ", "scalar");
        printf(")");
    }
    printf("\n");
}

static void print_peaks(const json_t *peaks)
{
    if (json_is_true(json_object_get(peaks, "measured")))
        printf("  peaks       measured by heed tune: %s\n", string_of(peaks, "file"));
    else
        printf("  peaks       assumed: %s\n", string_of(peaks, "missing"));
}

/* A CUDA version is thousands and tens: 12040 is 12.4. */
static void print_cuda(const json_t *device)
{
    char shared[TOOL_NUMBER_SIZE], memory[TOOL_NUMBER_SIZE];
    long long driver = integer_of(device, "driver_version");
    long long runtime = integer_of(device, "runtime_version");
    printf("%s: %s\n", string_of(device, "device"), string_of(device, "name"));
    printf("  compute     capability %s, %lld multiprocessors at %lld MHz, %s shared memory\n",
           string_of(device, "compute_capability"), integer_of(device, "multiprocessors"),
           integer_of(device, "clock_khz") / 1000,
           tool_bytes((double)integer_of(device, "shared_bytes"), shared));
    print_caches(json_object_get(device, "caches"));
    printf("  memory      %s", tool_bytes((double)integer_of(device, "memory_bytes"), memory));
    if (integer_of(device, "memory_bandwidth") > 0)
        printf(", %.0f GB/s by bus width and clock",
               (double)integer_of(device, "memory_bandwidth") * 1e-9);
    printf("\n");
    printf("  CUDA        driver for %lld.%lld, backend for %lld.%lld\n", driver / 1000,
           driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

static void print_device(const json_t *device)
{
    if (json_object_get(device, "compute_capability")) {
        print_cuda(device);
        return;
    }
    char bytes[TOOL_NUMBER_SIZE];
    long long packages = integer_of(device, "packages"), cores = integer_of(device, "cores");
    long long units = integer_of(device, "hardware_threads"),
              quota = integer_of(device, "cpu_quota");
    long long nodes = integer_of(device, "numa_nodes"), threads = integer_of(device, "threads");
    printf("%s: %s\n", string_of(device, "device"), string_of(device, "name"));
    printf("  processors  %lld package%s, %lld core%s, %lld hardware thread%s, %lld NUMA node%s\n",
           packages, plural(packages), cores, plural(cores), units, plural(units), nodes,
           plural(nodes));
    printf("  may use     processors %s", string_of(device, "cpuset"));
    if (quota > 0)
        printf(", a quota of %lld CPU%s", quota, plural(quota));
    printf("; plans use %lld thread%s\n", threads, plural(threads));
    print_caches(json_object_get(device, "caches"));
    printf("  memory      %s\n", tool_bytes((double)integer_of(device, "memory_bytes"), bytes));
    print_isa(device);
    print_peaks(json_object_get(device, "peaks"));
    printf("  topology    %s\n", string_of(device, "topology"));
}

/* What an operation knows and an implementation of it does not do. */
static void print_lacks(const json_t *all, const json_t *features)
{
    size_t i, j;
    json_t *feature, *other;
    int lacks = 0;
    json_array_foreach(all, i, feature)
    {
        bool has = false;
        json_array_foreach(features, j, other) has = has || json_equal(feature, other);
        if (!has)
            printf("%s%s", lacks++ ? ", " : "; not for ", json_string_value(feature));
    }
}

static void print_impls(const json_t *operation)
{
    size_t i;
    json_t *impl;
    json_array_foreach(json_object_get(operation, "implementations"), i, impl)
    {
        bool usable = json_is_true(json_object_get(impl, "usable"));
        printf("  %-24s %s%s\n", string_of(impl, "name"),
               usable ? "usable" : "not usable: ", string_of(impl, "why"));
        printf("      %s", string_of(impl, "about"));
        print_lacks(json_object_get(operation, "features"), json_object_get(impl, "features"));
        printf("\n");
    }
}

static void print_auto(const json_t *list)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        char time[TOOL_NUMBER_SIZE];
        const char *error = string_of(entry, "error");
        const json_t *estimate = json_object_get(entry, "estimate_ns");
        printf("  auto: %s\n        -> ", string_of(entry, "problem"));
        if (*error)
            printf("%s\n", error);
        else
            printf("%s, %lld thread%s, estimated %s\n", string_of(entry, "impl"),
                   integer_of(entry, "threads"), plural(integer_of(entry, "threads")),
                   tool_time(json_is_real(estimate) ? json_real_value(estimate) : NAN, time));
    }
}

static void print_environment(const json_t *list)
{
    size_t i;
    json_t *entry;
    printf("environment\n");
    json_array_foreach(list, i, entry)
    {
        const json_t *value = json_object_get(entry, "value");
        printf("  %-18s %s\n      %s: %s\n", string_of(entry, "name"),
               json_is_string(value) ? json_string_value(value) : "(not set)",
               string_of(entry, "about"), string_of(entry, "values"));
    }
}

/* What carries messages between processes. */
static void print_transports(const json_t *list)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        const char *library = string_of(entry, "library");
        if (*library)
            printf("%s: %s\n", string_of(entry, "name"), library);
        else
            printf("no %s: %s\n", string_of(entry, "name"), string_of(entry, "why"));
    }
}

/* A tree for people. */
static void print_info(const json_t *info)
{
    size_t i;
    json_t *item;
    const char *key;
    printf("heed %s\n\n", string_of(info, "version"));
    json_array_foreach(json_object_get(info, "devices"), i, item) print_device(item);
    json_object_foreach(json_object_get(info, "missing"), key, item)
        printf("no %s: %s\n", key, json_string_value(item));
    print_transports(json_object_get(info, "transports"));
    if (*string_of(info, "blas"))
        printf("BLAS: %s\n", string_of(info, "blas"));
    else
        printf("no BLAS: linear layers and multi-head attention are refused\n");
    json_array_foreach(json_object_get(info, "operations"), i, item)
    {
        printf("\n%s\n", string_of(item, "name"));
        print_impls(item);
        print_auto(json_object_get(item, "auto"));
    }
    printf("\n");
    print_environment(json_object_get(info, "environment"));
}

/* ---- command --------------------------------------------------------------------------------- */

static const struct argp_option options[] = {
    {"json", KEY_JSON, 0, 0, "print JSON", 0},
    {0},
};

static const char doc[] =
    "Shows the machine, its devices, every implementation with what it needs and whether it can "
    "run here, what auto would use, and every environment variable."
    "\v"
    "Examples:\n"
    "  heed info\n"
    "  heed info --max-isa avx2\n"
    "  heed info --json | jq '.operations[].implementations[] | select(.usable).name'";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->options;
        return 0;
    case KEY_JSON:
        to->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cmd_info(int argc, char **argv)
{
    arguments_t arguments = {0};
    const struct argp_child children[] = {{&tool_options_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse, NULL, doc, children, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    heed_context_t *context = tool_context(&arguments.options);
    if (!context)
        return TOOL_FAILED;
    json_t *info = info_collect(context);
    heed_context_destroy(context);
    if (!info)
        return tool_fail("out of memory");
    if (!arguments.json)
        print_info(info);
    else if (json_dumpf(info, stdout, JSON_INDENT(2)) == 0)
        putchar('\n');
    json_decref(info);
    return TOOL_OK;
}
