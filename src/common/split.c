/* Ranges, and the tensors that they are parts of. */
#include "split.h"

#include <string.h>

static const int64_t most = INT64_C(1) << 62;

heed_status_t hd_split_check(const char *what, int64_t n, int32_t parts, heed_split_policy_t policy,
                             int64_t align)
{
    if ((int)policy < 0 || policy > HEED_SPLIT_ALIGNED)
        return hd_fail(HEED_ERROR_VALUE, "policy=%d is no heed_split_policy_t", (int)policy);
    if (n < 1 || n > most)
        return hd_fail(HEED_ERROR_VALUE, "%s=%lld is not 1 to 2^62", what, (long long)n);
    if (align < 1 || (policy != HEED_SPLIT_ALIGNED && align != 1))
        return hd_fail(HEED_ERROR_VALUE, "align=%lld: %s", (long long)align,
                       align < 1 ? "it is 1 or more" : "the policy knows none but 1");
    if (n % align)
        return hd_fail(HEED_ERROR_VALUE, "%s=%lld is no multiple of align=%lld", what, (long long)n,
                       (long long)align);
    if (parts < 1 || parts > n / align)
        return hd_fail(HEED_ERROR_VALUE, "parts=%d is not 1 to %lld (%s=%lld, align=%lld)", parts,
                       (long long)(n / align), what, (long long)n, (long long)align);
    if (policy == HEED_SPLIT_EQUAL && n % parts)
        return hd_fail(HEED_ERROR_VALUE, "%s=%lld does not divide into parts=%d equal ones", what,
                       (long long)n, parts);
    return HEED_OK;
}

heed_range_t hd_split_range(int64_t n, int64_t parts, heed_split_policy_t policy, int64_t align,
                            int64_t part)
{
    if (policy == HEED_SPLIT_CEIL) {
        int64_t each = hd_ceil_div(n, parts);
        /* part * each may lie beyond n, but by less than parts. */
        int64_t first = hd_min(part * each, n);
        return (heed_range_t){first, hd_min(each, n - first)};
    }
    heed_range_t blocks = hd_balanced(n / align, parts, part);
    return (heed_range_t){blocks.first * align, blocks.count * align};
}

heed_status_t heed_split(int64_t n, int32_t parts, heed_split_policy_t policy, int64_t align,
                         heed_range_t *ranges)
{
    if (!ranges)
        return hd_fail(HEED_ERROR_NULL, "ranges is null");
    HD_TRY(hd_split_check("n", n, parts, policy, align));
    for (int32_t part = 0; part < parts; part++)
        ranges[part] = hd_split_range(n, parts, policy, align, part);
    return HEED_OK;
}

heed_status_t hd_split_part(const char *what, int64_t n, int32_t parts, heed_split_policy_t policy,
                            int64_t align, int32_t part, heed_range_t *range)
{
    HD_TRY(hd_split_check(what, n, parts, policy, align));
    if (part < 0 || part >= parts)
        return hd_fail(HEED_ERROR_VALUE, "part=%d is not 0 to %d", part, parts - 1);
    *range = hd_split_range(n, parts, policy, align, part);
    return HEED_OK;
}

heed_status_t heed_split_part(int64_t n, int32_t parts, heed_split_policy_t policy, int64_t align,
                              int32_t part, heed_range_t *range)
{
    if (!range)
        return hd_fail(HEED_ERROR_NULL, "range is null");
    return hd_split_part("n", n, parts, policy, align, part, range);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static heed_status_t check_axis(const char *name, const heed_tensor_t *tensor, int32_t axis)
{
    if (axis < 0 || axis >= tensor->ndim)
        return hd_fail(HEED_ERROR_VALUE, "axis=%d: %s has axes 0 to %d", axis, name,
                       tensor->ndim - 1);
    return HEED_OK;
}

heed_status_t heed_split_view(const heed_tensor_t *tensor, int32_t axis, heed_range_t range,
                              heed_view_t *view)
{
    if (!tensor || !view)
        return hd_fail(HEED_ERROR_NULL, "%s is null", tensor ? "view" : "tensor");
    heed_tensor_t whole;
    hd_axes_t axes;
    HD_TRY(hd_tensor_complete("tensor", tensor, false, &whole, &axes));
    HD_TRY(check_axis("tensor", &whole, axis));
    int64_t length = axes.shape[axis];
    if (range.first < 0 || range.count < 0 || range.count > length ||
        range.first > length - range.count)
        return hd_fail(HEED_ERROR_VALUE,
                       "range.first=%lld, count=%lld reaches beyond tensor.shape[%d]=%lld",
                       (long long)range.first, (long long)range.count, axis, (long long)length);
    memcpy(view->shape, axes.shape, sizeof(view->shape));
    memcpy(view->strides, axes.strides, sizeof(view->strides));
    view->shape[axis] = range.count;
    view->tensor = *tensor;
    view->tensor.shape = view->shape;
    view->tensor.strides = view->strides;
    view->tensor.byte_offset +=
        (uint64_t)(range.first * axes.strides[axis]) * (uint64_t)hd_dtype_bytes(tensor->dtype);
    return HEED_OK;
}

/* Copies what lies below `axis`, whole rows at once where both are dense in their last axis. */
static void copy_below(const heed_tensor_t *from, const char *source, const heed_tensor_t *to,
                       char *target, int axis)
{
    int64_t bytes = hd_dtype_bytes(from->dtype), count = from->shape[axis];
    int64_t step = from->strides[axis] * bytes, stride = to->strides[axis] * bytes;
    bool last = axis == from->ndim - 1;
    if (last && step == bytes && stride == bytes) {
        memcpy(target, source, (size_t)(count * bytes));
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        if (last)
            memcpy(target + i * stride, source + i * step, (size_t)bytes);
        else
            copy_below(from, source + i * step, to, target + i * stride, axis + 1);
    }
}

static heed_status_t check_host(const char *name, const heed_tensor_t *tensor)
{
    if (tensor->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_VALUE, "%s.device.type=%d is not the CPU", name,
                       tensor->device.type);
    return HEED_OK;
}

/* One part, `first` along the axis; checked when target is NULL, else copied. */
static heed_status_t gather_part(const heed_tensor_t *from, int32_t number, int32_t axis,
                                 const heed_tensor_t *whole, int64_t first, char *target)
{
    heed_tensor_t part;
    hd_axes_t axes;
    char name[32];
    hd_text_t text = hd_text(name, sizeof(name));
    hd_text_add(&text, "parts[%d]", number);
    HD_TRY(hd_tensor_complete(name, from, false, &part, &axes));
    HD_TRY(check_host(name, from));
    if (part.ndim != whole->ndim || part.dtype != whole->dtype)
        return hd_fail(part.ndim != whole->ndim ? HEED_ERROR_SHAPE : HEED_ERROR_DTYPE,
                       "%s has %d axes of %s, whole has %d of %s", name, part.ndim,
                       heed_dtype_name(part.dtype), whole->ndim, heed_dtype_name(whole->dtype));
    for (int i = 0; i < part.ndim; i++)
        if (i == axis ? part.shape[i] > whole->shape[i] - first : part.shape[i] != whole->shape[i])
            return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but whole.shape[%d]=%lld%s", name,
                           i, (long long)part.shape[i], i, (long long)whole->shape[i],
                           i == axis ? " has no room for it behind the others" : "");
    if (hd_tensor_elements(&part) && !from->data)
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    if (target && hd_tensor_elements(&part))
        copy_below(&part, hd_tensor_data(from), whole,
                   target + first * whole->strides[axis] * hd_dtype_bytes(part.dtype), 0);
    return HEED_OK;
}

heed_status_t heed_split_gather(const heed_tensor_t *parts, int32_t count, int32_t axis,
                                const heed_tensor_t *whole)
{
    heed_tensor_t to;
    hd_axes_t axes;
    if (!parts || !whole)
        return hd_fail(HEED_ERROR_NULL, "%s is null", parts ? "whole" : "parts");
    if (count < 1)
        return hd_fail(HEED_ERROR_VALUE, "count=%d is not 1 or more", count);
    HD_TRY(hd_tensor_complete("whole", whole, true, &to, &axes));
    HD_TRY(check_host("whole", whole));
    HD_TRY(check_axis("whole", &to, axis));
    if (hd_tensor_elements(&to) && !whole->data)
        return hd_fail(HEED_ERROR_NULL, "whole.data is null");
    int64_t first = 0;
    for (int32_t i = 0; i < count; i++) {
        HD_TRY(gather_part(&parts[i], i, axis, &to, first, NULL));
        first += parts[i].shape[axis];
    }
    if (first != to.shape[axis])
        return hd_fail(HEED_ERROR_SHAPE, "the parts' shape[%d] add up to %lld, whole has %lld",
                       axis, (long long)first, (long long)to.shape[axis]);
    first = 0;
    for (int32_t i = 0; i < count; first += parts[i].shape[axis], i++)
        HD_TRY(gather_part(&parts[i], i, axis, &to, first, hd_tensor_data(whole)));
    return HEED_OK;
}
