#include "internal.h"

#include <string.h>

int heed_device_count(const heed_context_t *context)
{
    return context ? context->device_count : 0;
}

const heed_device_info_t *hd_device_find(const heed_context_t *context, heed_device_t device)
{
    for (int i = 0; i < context->device_count; i++) {
        const heed_device_info_t *info = &context->devices[i];
        if (info->device.type == device.type && info->device.id == device.id)
            return info;
    }
    return NULL;
}

heed_status_t heed_device_info(const heed_context_t *context, int index, heed_device_info_t *info)
{
    if (!context || !info)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "info" : "context");
    size_t smallest = offsetof(heed_device_info_t, compute_major);
    if (info->struct_size < smallest)
        return hd_fail(HEED_ERROR_STRUCT_SIZE, "info.struct_size=%u, the smallest known is %zu",
                       info->struct_size, smallest);
    if (index < 0 || index >= heed_device_count(context))
        return hd_fail(HEED_ERROR_NO_DEVICE, "device number %d: there are %d", index,
                       heed_device_count(context));
    size_t size = info->struct_size < sizeof(*info) ? info->struct_size : sizeof(*info);
    memcpy(info, &context->devices[index], size);
    info->struct_size = (uint32_t)size;
    return HEED_OK;
}

const char *heed_device_missing(const heed_context_t *context, int32_t type)
{
    if (!context)
        return NULL;
    for (int i = 0; i < context->device_count; i++)
        if (context->devices[i].device.type == type)
            return NULL;
    return type == HEED_DEVICE_CUDA ? context->backend_why : "Heed knows no such device type";
}

double heed_cache_bytes(const heed_device_info_t *info, int level, int threads)
{
    for (int c = 0; info && c < info->cache_count; c++) {
        const heed_cache_info_t *cache = &info->caches[c];
        if (cache->level == level) {
            int sharing = cache->sharing > 0 ? cache->sharing : 1;
            int cores = info->cores > 0 && info->cores < threads ? info->cores : threads;
            return (double)cache->bytes * ((cores + sharing - 1) / sharing);
        }
    }
    return 0;
}

const char *heed_tune_file(const heed_context_t *context)
{
    return context ? context->settings.tune_file : "";
}

const char *heed_tune_missing(const heed_context_t *context)
{
    return context && context->tune_why[0] ? context->tune_why : NULL;
}

const char *heed_isa_names(uint64_t isa, char *text, size_t size)
{
    static const char *const names[] = {
#define NAME(isa, bit, text, about) [bit] = text,
        HEED_ISA_LIST(NAME)
#undef NAME
    };
    if (!text || size == 0)
        return "";
    hd_text_t out = hd_text(text, size);
    for (int i = 0; i < HD_COUNT(names); i++)
        if (names[i] && isa >> i & 1)
            hd_text_add(&out, "%s%s", out.length ? " " : "", names[i]);
    if (out.length == 0)
        hd_text_add(&out, "scalar");
    return text;
}
