#define _GNU_SOURCE
#include "info.h"
#include "text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- devices --------------------------------------------------------------------------------- */

static json_t *split_words(const char *text)
{
    json_t *list = json_array();
    while (*text) {
        size_t length = strcspn(text, " ");
        if (length)
            json_array_append_new(list, json_stringn(text, length));
        text += length + (text[length] == ' ');
    }
    return list;
}

static json_t *isa_list(uint64_t isa)
{
    char text[256];
    return isa ? split_words(heed_isa_names(isa, text, sizeof text)) : json_array();
}

static json_t *cache_list(const heed_device_info_t *info)
{
    json_t *list = json_array();
    for (int i = 0; i < info->cache_count; i++) {
        const heed_cache_info_t *cache = &info->caches[i];
        json_array_append_new(list, json_pack("{s:i, s:I, s:i}", "level", cache->level, "bytes",
                                              (json_int_t)cache->bytes, "sharing", cache->sharing));
    }
    return list;
}

/* What only a CUDA device has. */
static void add_cuda(json_t *entry, const heed_device_info_t *info)
{
    json_object_set_new(entry, "compute_capability",
                        json_sprintf("%d.%d", info->compute_major, info->compute_minor));
    json_object_set_new(entry, "multiprocessors", json_integer(info->multiprocessors));
    json_object_set_new(entry, "clock_khz", json_integer(info->clock_khz));
    json_object_set_new(entry, "shared_bytes", json_integer(info->shared_bytes));
    json_object_set_new(entry, "memory_bandwidth", json_integer(info->memory_bandwidth));
    json_object_set_new(entry, "driver_version", json_integer(info->driver_version));
    json_object_set_new(entry, "runtime_version", json_integer(info->runtime_version));
}

/* Rates in 10^9 a second, of one thread and of all; where they come from. */
static json_t *peaks_entry(const heed_context_t *context, const heed_peaks_t *peaks)
{
    json_t *entry = json_pack("{s:b, s:s, s:s?, s:i, s:f, s:f}", "measured", peaks->measured,
                              "file", heed_tune_file(context), "missing",
                              heed_tune_missing(context), "threads", peaks->threads, "region_ns",
                              peaks->region_ns, "region_thread_ns", peaks->region_thread_ns);
#define SET(field, unit, about)        \
    json_object_set_new(entry, #field, \
                        json_pack("[f, f]", peaks->field.one / 1e9, peaks->field.all / 1e9));
    HEED_RATE_LIST(SET)
#undef SET
    return entry;
}

static json_t *device_entry(const heed_context_t *context, const heed_device_info_t *info)
{
    char name[TOOL_NUMBER_SIZE];
    json_t *entry =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i}", "device",
                  tool_device(info->device, name), "name", info->name, "packages", info->packages,
                  "numa_nodes", info->numa_nodes, "cores", info->cores, "hardware_threads",
                  info->hardware_threads, "threads", info->threads, "cpu_quota", info->cpu_quota);
    if (!entry)
        return NULL;
    json_object_set_new(entry, "caches", cache_list(info));
    json_object_set_new(entry, "memory_bytes", json_integer(info->memory_bytes));
    json_object_set_new(entry, "cpuset", json_string(info->cpuset));
    json_object_set_new(entry, "topology", json_string(info->topology));
    json_object_set_new(entry, "isa", isa_list(info->isa));
    json_object_set_new(entry, "isa_cpu", isa_list(info->isa_cpu));
    if (info->device.type == HEED_DEVICE_CUDA)
        add_cuda(entry, info);
    else
        json_object_set_new(entry, "peaks", peaks_entry(context, &info->peaks));
    return entry;
}

static json_t *device_list(const heed_context_t *context)
{
    json_t *list = json_array();
    for (int i = 0; i < heed_device_count(context); i++) {
        heed_device_info_t info = {.struct_size = sizeof info};
        if (heed_device_info(context, i, &info) == HEED_OK)
            json_array_append_new(list, device_entry(context, &info));
    }
    return list;
}

static json_t *missing_devices(const heed_context_t *context)
{
    json_t *missing = json_object();
    const char *why = heed_device_missing(context, HEED_DEVICE_CUDA);
    if (why)
        json_object_set_new(missing, "cuda", json_string(why));
    return missing;
}

/* ---- implementations ------------------------------------------------------------------------- */

static json_t *feature_list(const char *op, uint64_t features)
{
    json_t *list = json_array();
    for (int bit = 0; bit < 64; bit++)
        if (features >> bit & 1 && heed_op_feature(op, bit))
            json_array_append_new(list, json_string(heed_op_feature(op, bit)));
    return list;
}

static json_t *impl_entry(const heed_context_t *context, const heed_impl_t *impl)
{
    heed_why_t why = {0};
    int usable = heed_impl_usable(context, impl, &why);
    return json_pack("{s:s, s:s, s:b, s:s, s:o, s:o}", "name", impl->name, "about",
                     impl->about ? impl->about : "", "usable", usable, "why",
                     usable ? "" : why.text, "required_isa", isa_list(impl->required_isa),
                     "features", feature_list(impl->op, impl->features));
}

static json_t *impl_list(const heed_context_t *context, const char *op)
{
    const heed_impl_t *impl;
    json_t *list = json_array();
    for (int i = 0; (impl = heed_impl_at(context, i)); i++)
        if (strcmp(impl->op, op) == 0)
            json_array_append_new(list, impl_entry(context, impl));
    return list;
}

/* ---- what auto would use --------------------------------------------------------------------- */

static json_t *plan_entry(const heed_plan_t *plan)
{
    char problem[1024];
    heed_plan_info_t info = {.struct_size = sizeof info};
    if (heed_plan_info(plan, &info))
        return NULL;
    heed_plan_problem(plan, problem, sizeof problem);
    json_t *entry = json_pack("{s:s, s:s, s:i}", "problem", problem, "impl", info.impl, "threads",
                              info.threads);
    json_object_set_new(entry, "estimate_ns",
                        isfinite(info.estimate_ns) ? json_real(info.estimate_ns) : json_null());
    return entry;
}

static json_t *auto_entry(heed_context_t *context, heed_problem_t *problem)
{
    void *desc;
    heed_plan_t *plan = NULL;
    heed_status_t status = heed_problem_desc(problem, &desc);
    if (!status)
        status = heed_plan_create(context, heed_problem_op(problem), desc, &plan);
    json_t *entry = status ? NULL : plan_entry(plan);
    heed_plan_destroy(plan);
    if (entry || !status)
        return entry;
    char text[1024];
    heed_problem_text(problem, text, sizeof text);
    return json_pack("{s:s, s:s}", "problem", text, "error", heed_last_error());
}

/* Writes alternative number `index` of a form "f32|bf16|f16" to `to`; false past the end. */
static bool alternative(const char *form, int index, char *to, size_t size)
{
    for (; index > 0; index--) {
        form = strchr(form, '|');
        if (!form)
            return false;
        form++;
    }
    snprintf(to, size, "%.*s", (int)strcspn(form, "|"), form);
    return true;
}

static const char *word_form(const char *op, const char *name)
{
    heed_op_word_t word;
    for (int i = 0; heed_op_word(op, i, &word); i++)
        if (strcmp(word.name, name) == 0)
            return word.form;
    return "";
}

/* The operation's default problem in the first two dtypes of its first operand. */
static json_t *auto_list(heed_context_t *context, const char *op)
{
    char dtype[32];
    heed_op_operand_t first;
    json_t *list = json_array();
    if (!heed_op_operand(op, 0, &first))
        return list;
    for (int i = 0; i < 2 && alternative(word_form(op, first.dtype), i, dtype, sizeof dtype); i++) {
        heed_problem_t *problem;
        if (heed_problem_parse(op, &problem))
            continue;
        if (heed_problem_set(problem, first.dtype, dtype) == HEED_OK)
            json_array_append_new(list, auto_entry(context, problem));
        heed_problem_destroy(problem);
    }
    return list;
}

static json_t *operation_list(heed_context_t *context)
{
    const char *op;
    json_t *list = json_array();
    for (int i = 0; (op = heed_op_name(i)); i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:o, s:o, s:o}", "name", op, "features",
                                        feature_list(op, UINT64_MAX), "implementations",
                                        impl_list(context, op), "auto", auto_list(context, op)));
    return list;
}

/* ---- transports ------------------------------------------------------------------------------ */

static json_t *transport_list(void)
{
    heed_comm_transport_t transport;
    json_t *list = json_array();
    for (int i = 0; heed_comm_transport(i, &transport); i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", transport.name, "library",
                                              transport.library, "why", transport.why));
    return list;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static json_t *environment_list(void)
{
    heed_env_info_t info;
    json_t *list = json_array();
    for (int i = 0; heed_env_info(i, &info); i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s?, s:s, s:s}", "name", info.name, "value",
                                        info.current, "values", info.values, "about", info.about));
    return list;
}

json_t *info_collect(heed_context_t *context)
{
    return json_pack("{s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "schema", 1, "version",
                     heed_version(), "blas", heed_linear_library(), "devices", device_list(context),
                     "missing", missing_devices(context), "transports", transport_list(),
                     "operations", operation_list(context), "environment", environment_list());
}
