#include "internal.h"

#include <string.h>

const char *hd_cuda_missing(void)
{
    return "this build of Heed has no CUDA backend";
}

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
    if (info->struct_size < sizeof(*info))
        return hd_fail(HEED_ERROR_STRUCT_SIZE, "info.struct_size=%u, the smallest known is %zu",
                       info->struct_size, sizeof(*info));
    if (index < 0 || index >= heed_device_count(context))
        return hd_fail(HEED_ERROR_NO_DEVICE, "device number %d: there are %d", index,
                       heed_device_count(context));
    *info = context->devices[index];
    return HEED_OK;
}

const char *heed_device_missing(const heed_context_t *context, int32_t type)
{
    if (!context || type == HEED_DEVICE_CPU)
        return NULL;
    return type == HEED_DEVICE_CUDA ? hd_cuda_missing() : "Heed knows no such device type";
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
        if (isa >> i & 1)
            hd_text_add(&out, "%s%s", out.length ? " " : "", names[i]);
    if (out.length == 0)
        hd_text_add(&out, "scalar");
    return text;
}
