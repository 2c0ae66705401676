#include "values.h"

#include <string.h>

/* One element of a dtype that heed_cast does not take; false: not one of these either. */
static bool read_plain(const char *dtype, const char *at, double *to)
{
#define READ(name, type)                  \
    if (strcmp(dtype, name) == 0) {       \
        type value;                       \
        memcpy(&value, at, sizeof value); \
        *to = (double)value;              \
        return true;                      \
    }
    READ("F64", double)
    READ("I64", int64_t)
    READ("U64", uint64_t)
    READ("I32", int32_t)
    READ("U32", uint32_t)
    READ("I16", int16_t)
    READ("U16", uint16_t)
    READ("I8", int8_t)
    READ("U8", uint8_t)
    READ("BOOL", uint8_t)
#undef READ
    return false;
}

bool values_are_float(const st_dtype_t *dtype)
{
    return strncmp(dtype->name, "F", 1) == 0 || strcmp(dtype->name, "BF16") == 0;
}

static heed_status_t cast(heed_context_t *context, const st_tensor_t *tensor, int64_t from,
                          int64_t count, float *to)
{
    heed_cast_desc_t desc = heed_cast_desc();
    size_t size = heed_dtype_size(tensor->dtype->heed);
    desc.src = heed_tensor((char *)(uintptr_t)tensor->data + (size_t)from * size,
                           tensor->dtype->heed, 1, &count, NULL);
    desc.dst = heed_tensor(to, HEED_F32, 1, &count, NULL);
    return heed_cast(context, &desc);
}

bool values_known(heed_context_t *context, const st_dtype_t *dtype)
{
    double value;
    float single;
    char zeros[16] __attribute__((aligned(16))) = {0};
    if (read_plain(dtype->name, zeros, &value))
        return true;
    st_tensor_t probe = {.dtype = dtype, .data = zeros};
    return dtype->heed && cast(context, &probe, 0, 1, &single) == HEED_OK;
}

heed_status_t values_read(heed_context_t *context, const st_tensor_t *tensor, int64_t from,
                          int64_t count, double *to)
{
    static _Thread_local float singles[VALUES_PIECE];
    const char *at = (const char *)tensor->data + (size_t)from * (size_t)(tensor->dtype->bits / 8);
    int64_t done = 0;
    for (; done < count && read_plain(tensor->dtype->name, at, &to[done]); done++)
        at += tensor->dtype->bits / 8;
    if (done == count)
        return HEED_OK;
    heed_status_t status = cast(context, tensor, from, count, singles);
    for (int64_t i = 0; status == HEED_OK && i < count; i++)
        to[i] = (double)singles[i];
    return status;
}
