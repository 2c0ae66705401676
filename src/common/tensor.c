#include "internal.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    heed_dtype_t dtype;
    const char *name;
} dtypes[] = {
    {HEED_F32, "f32"},
    {HEED_BF16, "bf16"},
    {HEED_F16, "f16"},
    {HEED_F64, "f64"},
    {HEED_E4M3, "e4m3"},
    {HEED_E5M2, "e5m2"},
    {HEED_I8, "i8"},
    {HEED_I32, "i32"},
    {HEED_I64, "i64"},
    {HEED_U8, "u8"},
    {HEED_BOOL, "bool"},
    {HEED_E4M3FNUZ, "e4m3fnuz"},
    {HEED_E5M2FNUZ, "e5m2fnuz"},
    {HEED_E4M3IEEE, "e4m3ieee"},
    {HEED_E8M0, "e8m0"},
};

size_t heed_dtype_size(heed_dtype_t dtype)
{
    for (int i = 0; i < HD_COUNT(dtypes); i++)
        if (dtypes[i].dtype == dtype)
            return (dtype >> 8 & 0xff) / 8;
    return 0;
}

const char *heed_dtype_name(heed_dtype_t dtype)
{
    for (int i = 0; i < HD_COUNT(dtypes); i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return "?";
}

heed_status_t heed_dtype_parse(const char *name, heed_dtype_t *dtype)
{
    if (!name || !dtype)
        return hd_fail(HEED_ERROR_NULL, "%s is null", name ? "dtype" : "name");
    char known[128];
    hd_text_t text = hd_text(known, sizeof(known));
    for (int i = 0; i < HD_COUNT(dtypes); i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *dtype = dtypes[i].dtype;
            return HEED_OK;
        }
        hd_text_add(&text, "%s%s", i ? ", " : "", dtypes[i].name);
    }
    return hd_fail(HEED_ERROR_DTYPE, "dtype '%s' is unknown: there are %s", name, known);
}

bool hd_mul(int64_t a, int64_t b, int64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

bool hd_add(int64_t a, int64_t b, int64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

void hd_dense_strides(int ndim, const int64_t *shape, int64_t *strides)
{
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= hd_max(shape[i], 1);
    }
}

int64_t hd_tensor_elements(const heed_tensor_t *tensor)
{
    int64_t count = tensor->ndim > 0;
    for (int i = 0; i < tensor->ndim; i++)
        count *= tensor->shape[i];
    return count;
}

int64_t heed_tensor_span(const heed_tensor_t *tensor)
{
    if (!tensor || hd_tensor_elements(tensor) == 0)
        return 0;
    int64_t dense[HEED_MAX_NDIM];
    hd_dense_strides(tensor->ndim, tensor->shape, dense);
    const int64_t *strides = tensor->strides ? tensor->strides : dense;
    int64_t last = 0;
    for (int i = 0; i < tensor->ndim; i++)
        last += (tensor->shape[i] - 1) * strides[i];
    return last + 1;
}

/* The number of elements, counting empty axes as 1, must fit in half of an address space; then
 * every product of a part of the axes does. */
static heed_status_t check_shape(const char *name, const heed_tensor_t *tensor)
{
    int64_t elements = 1;
    for (int i = 0; i < tensor->ndim; i++) {
        int64_t length = tensor->shape[i];
        if (length < 0)
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld is negative", name, i,
                           (long long)length);
        if (!hd_mul(elements, hd_max(length, 1), &elements) || elements > INT64_MAX / 64)
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld: too many elements to address",
                           name, i, (long long)length);
    }
    return HEED_OK;
}

static heed_status_t check_strides(const char *name, const heed_tensor_t *tensor)
{
    int64_t last = 0;
    for (int i = 0; i < tensor->ndim; i++) {
        int64_t stride = tensor->strides[i], reach;
        if (stride < 0)
            return hd_fail(HEED_ERROR_STRIDE, "%s.strides[%d]=%lld is negative", name, i,
                           (long long)stride);
        if (!hd_mul(hd_max(tensor->shape[i] - 1, 0), stride, &reach) ||
            !hd_add(last, reach, &last) || last > INT64_MAX / 64)
            return hd_fail(HEED_ERROR_STRIDE, "%s.strides[%d]=%lld reaches beyond any address",
                           name, i, (long long)stride);
    }
    return HEED_OK;
}

/* Two elements share an address unless, in order of stride, each axis steps over all that the
 * smaller ones reach. */
static heed_status_t check_distinct(const char *name, const heed_tensor_t *tensor)
{
    int order[HEED_MAX_NDIM], count = 0;
    if (hd_tensor_elements(tensor) == 0)
        return HEED_OK;
    for (int i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] < 2)
            continue;
        int at = count++;
        for (; at > 0 && tensor->strides[order[at - 1]] > tensor->strides[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
    int64_t reach = 0;
    for (int i = 0; i < count; i++) {
        int axis = order[i];
        if (tensor->strides[axis] <= reach)
            return hd_fail(HEED_ERROR_STRIDE,
                           "%s.strides[%d]=%lld: elements of an output would share an address",
                           name, axis, (long long)tensor->strides[axis]);
        reach += (tensor->shape[axis] - 1) * tensor->strides[axis];
    }
    return HEED_OK;
}

heed_status_t hd_tensor_complete(const char *name, const heed_tensor_t *from, bool output,
                                 heed_tensor_t *to, hd_axes_t *axes)
{
    if (from->ndim < 1 || from->ndim > HEED_MAX_NDIM)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not 1 to %d", name, from->ndim,
                       HEED_MAX_NDIM);
    if (!from->shape)
        return hd_fail(HEED_ERROR_NULL, "%s.shape is null", name);
    if (heed_dtype_size(from->dtype) == 0)
        return hd_fail(HEED_ERROR_DTYPE, "%s.dtype=0x%x is unknown", name, from->dtype);
    if (from->byte_offset > INT64_MAX / 2)
        return hd_fail(HEED_ERROR_VALUE, "%s.byte_offset=%llu reaches beyond any address", name,
                       (unsigned long long)from->byte_offset);
    HD_TRY(check_shape(name, from));
    *to = *from;
    to->data = NULL;
    to->shape = axes->shape;
    to->strides = axes->strides;
    memcpy(axes->shape, from->shape, (size_t)from->ndim * sizeof(int64_t));
    if (from->strides)
        memcpy(axes->strides, from->strides, (size_t)from->ndim * sizeof(int64_t));
    else
        hd_dense_strides(from->ndim, axes->shape, axes->strides);
    HD_TRY(check_strides(name, to));
    return output ? check_distinct(name, to) : HEED_OK;
}
