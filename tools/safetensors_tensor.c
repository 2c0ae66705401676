/* Safetensors: the dtypes, what a shape takes, and sentences. */
#include "safetensors_internal.h"

#include <stdio.h>
#include <string.h>

/* ---- sentences and dtypes -------------------------------------------------------------------- */

bool st_fail(st_error_t *error, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(error->text, sizeof error->text, format, list);
    va_end(list);
    for (char *c = error->text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    return false;
}

bool st_fail_in(st_error_t *error, const char *path)
{
    st_error_t inner = *error;
    return st_fail(error, "%.200s: %s", path, inner.text);
}

static const st_dtype_t dtypes[] = {
    {"F64", 64, HEED_F64},
    {"F32", 32, HEED_F32},
    {"F16", 16, HEED_F16},
    {"BF16", 16, HEED_BF16},
    {"I64", 64, HEED_I64},
    {"I32", 32, HEED_I32},
    {"I16", 16, 0},
    {"I8", 8, HEED_I8},
    {"U64", 64, 0},
    {"U32", 32, 0},
    {"U16", 16, 0},
    {"U8", 8, HEED_U8},
    {"BOOL", 8, HEED_BOOL},
    {"F8_E4M3", 8, HEED_E4M3},
    {"F8_E5M2", 8, HEED_E5M2},
    {"F8_E4M3FNUZ", 8, HEED_E4M3FNUZ},
    {"F8_E5M2FNUZ", 8, HEED_E5M2FNUZ},
    {"F8_E8M0", 8, HEED_E8M0},
    {"C64", 64, 0},
    {"F6_E2M3", 6, 0},
    {"F6_E3M2", 6, 0},
    {"F4", 4, 0},
};

enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };

const st_dtype_t *st_dtype_find(const char *name)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

const st_dtype_t *st_dtype_of(heed_dtype_t dtype)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (dtypes[i].heed && dtypes[i].heed == dtype)
            return &dtypes[i];
    return NULL;
}

bool st_fail_dtype(st_error_t *error, const char *tensor, const char *dtype)
{
    char known[256] = "";
    for (int i = 0; i < DTYPE_COUNT; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 dtypes[i].name);
    return st_fail(error, "%.64s.dtype is \"%.32s\"; known are %s", tensor, dtype, known);
}

const char *st_shape_text(const st_tensor_t *tensor, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < tensor->ndim && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", i ? "," : "",
                               (long long)tensor->shape[i]);
    if (at < size)
        snprintf(text + at, size - at, "]");
    return text;
}

bool st_measure(st_tensor_t *tensor, st_error_t *error)
{
    char shape[128];
    int64_t elements = 1, bits;
    for (int i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] < 0)
            return st_fail(error, "%.64s.shape[%d] is %lld; axis lengths are integers from 0 up",
                           tensor->name, i, (long long)tensor->shape[i]);
        if (__builtin_mul_overflow(elements, tensor->shape[i], &elements))
            return st_fail(error, "%.64s.shape is %s, too large to count its elements",
                           tensor->name, st_shape_text(tensor, shape, sizeof shape));
    }
    if (__builtin_mul_overflow(elements, (int64_t)tensor->dtype->bits, &bits))
        return st_fail(error, "%.64s.shape is %s of %s, too large to count its bytes", tensor->name,
                       st_shape_text(tensor, shape, sizeof shape), tensor->dtype->name);
    if (bits % 8)
        return st_fail(error, "%.64s.shape is %s of %s, which ends within a byte", tensor->name,
                       st_shape_text(tensor, shape, sizeof shape), tensor->dtype->name);
    tensor->elements = elements;
    tensor->bytes = (size_t)(bits / 8);
    return true;
}
