#include "backend.h"
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *default_alloc(void *user, size_t bytes, size_t align)
{
    (void)user;
    return aligned_alloc(align, hd_round_up(bytes, align));
}

static void default_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

void *hd_alloc_aligned(const heed_context_t *context, size_t bytes, size_t align)
{
    return context->allocator.alloc(context->allocator.user, bytes ? bytes : 1, align);
}

void *hd_alloc(const heed_context_t *context, size_t bytes)
{
    return hd_alloc_aligned(context, bytes, 64);
}

void hd_free(const heed_context_t *context, void *memory)
{
    if (memory)
        context->allocator.free(context->allocator.user, memory);
}

void hd_log(const heed_context_t *context, heed_log_level_t level, const char *format, ...)
{
    char line[1024];
    if (!hd_logs(context, level))
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (context->log)
        context->log(context->log_user, level, line);
    else if (context->settings.log_to_stderr)
        fprintf(stderr, "%s\n", line);
}

static heed_status_t check_config(const heed_context_config_t *config)
{
    if (!config->allocator.alloc != !config->allocator.free)
        return hd_fail(HEED_ERROR_VALUE, "config.allocator.%s is null, the other function is not",
                       config->allocator.alloc ? "free" : "alloc");
    if (!config->device_allocator.alloc != !config->device_allocator.free)
        return hd_fail(HEED_ERROR_VALUE,
                       "config.device_allocator.%s is null, the other function is not",
                       config->device_allocator.alloc ? "free" : "alloc");
    if (config->ignore_environment < 0 || config->ignore_environment > 1)
        return hd_fail(HEED_ERROR_VALUE, "config.ignore_environment=%d is not 0 or 1",
                       config->ignore_environment);
    return HEED_OK;
}

static void detect(heed_context_t *context)
{
    heed_device_info_t *cpu = &context->devices[0];
    context->device_count = 1;
    cpu->struct_size = sizeof(*cpu);
    hd_topology_detect(cpu);
    cpu->isa_cpu = hd_cpuid_isa();
    cpu->isa = cpu->isa_cpu & context->settings.isa_cap;
    int32_t threads = cpu->cores;
    if (cpu->cpu_quota > 0 && cpu->cpu_quota < threads)
        threads = cpu->cpu_quota;
    cpu->threads = context->settings.threads ? context->settings.threads : threads;
    if (context->settings.tune_default)
        hd_tune_default(cpu->name, context->settings.tune_file,
                        sizeof(context->settings.tune_file));
    if (hd_tune_read(context->settings.tune_file, cpu, context->tune_why,
                     sizeof(context->tune_why)))
        hd_log(context, HEED_LOG_WARN, "heed v1 tune ignored why=\"%s\"", context->tune_why);
}

static void detect_backend(heed_context_t *context, int ignore_environment)
{
    const char *why;
    context->backend = hd_backend_get(ignore_environment, &why);
    snprintf(context->backend_why, sizeof(context->backend_why), "%s", why);
    if (!context->backend)
        return;
    context->device_count +=
        context->backend->detect(&context->devices[1], HD_MAX_DEVICES - 1, context->backend_why,
                                 sizeof(context->backend_why));
}

heed_status_t heed_context_create(const heed_context_config_t *config, heed_context_t **context)
{
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    *context = NULL;
    heed_context_config_t full = heed_context_config();
    if (config)
        HD_TRY(hd_struct_copy(&full, sizeof(full), config,
                              offsetof(heed_context_config_t, device_allocator), "config"));
    HD_TRY(check_config(&full));

    hd_settings_t settings = {0};
    HD_TRY(hd_settings_read(&full, &settings));

    heed_allocator_t allocator = full.allocator;
    if (!allocator.alloc)
        allocator = (heed_allocator_t){default_alloc, default_free, NULL};
    heed_context_t *made = allocator.alloc(allocator.user, sizeof(*made), 64);
    if (!made)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a context");
    memset(made, 0, sizeof(*made));
    atomic_init(&made->references, 1);
    made->settings = settings;
    made->allocator = allocator;
    made->device_allocator = full.device_allocator;
    made->log = full.log;
    made->log_user = full.log_user;
    detect(made);
    detect_backend(made, full.ignore_environment);
    *context = made;
    return HEED_OK;
}

void hd_context_retain(heed_context_t *context)
{
    atomic_fetch_add(&context->references, 1);
}

void heed_context_destroy(heed_context_t *context)
{
    if (!context || atomic_fetch_sub(&context->references, 1) > 1)
        return;
    for (int i = 0; i < context->user_impl_count; i++)
        hd_free(context, context->user_impls[i]);
    hd_free(context, context->user_impls);
    heed_allocator_t allocator = context->allocator;
    allocator.free(allocator.user, context);
}
