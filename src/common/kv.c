/* Appending to a cache. Everything is checked before anything is written. */
#include "casting.h"
#include "internal.h"
#include "view.h"

#include <math.h>

enum { K_NEW, V_NEW, K, V, TABLE, LENGTHS, STARTS, K_SCALE, V_SCALE, OPERANDS };

static const struct {
    const char *name;
    size_t offset;
    int ndim; /* 0: 1 or 3 */
    bool output, optional;
} operands[OPERANDS] = {
#define OPERAND(field, ndim, output, optional)                                 \
    {                                                                          \
#field, offsetof(heed_kv_append_desc_t, field), ndim, output, optional \
    }
    [K_NEW] = OPERAND(k_new, 4, false, false),
    [V_NEW] = OPERAND(v_new, 4, false, false),
    [K] = OPERAND(k, 4, true, false),
    [V] = OPERAND(v, 4, true, false),
    [TABLE] = OPERAND(page_table, 2, false, true),
    [LENGTHS] = OPERAND(seqlens_k, 1, true, false),
    [STARTS] = OPERAND(cu_seqlens, 1, false, true),
    [K_SCALE] = OPERAND(k_scale, 0, false, true),
    [V_SCALE] = OPERAND(v_scale, 0, false, true),
#undef OPERAND
};

/* A complete descriptor: strides are explicit, data has its offset added. */
typedef struct append {
    heed_tensor_t t[OPERANDS];
    hd_axes_t axes[OPERANDS];
    int64_t batch, room;
    bool advance;
} append_t;

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t complete_one(append_t *a, const heed_kv_append_desc_t *desc, int i)
{
    const heed_tensor_t *from = (const heed_tensor_t *)((const char *)desc + operands[i].offset);
    const char *name = operands[i].name;
    if (from->ndim == 0 && operands[i].optional)
        return HEED_OK;
    HD_TRY(hd_tensor_complete(name, from, operands[i].output, &a->t[i], &a->axes[i]));
    if (operands[i].ndim ? from->ndim != operands[i].ndim : from->ndim != 1 && from->ndim != 3)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d: it takes %s axes", name, from->ndim,
                       operands[i].ndim == 4   ? "4"
                       : operands[i].ndim == 2 ? "2"
                       : operands[i].ndim      ? "1"
                                               : "1 or 3");
    if (from->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_VALUE, "%s is on device %d:%d, not on the CPU", name,
                       from->device.type, from->device.id);
    if (!from->data && hd_tensor_elements(from) > 0)
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    a->t[i].data = hd_tensor_data(from);
    if ((uintptr_t)a->t[i].data % (size_t)hd_dtype_bytes(from->dtype))
        return hd_fail(HEED_ERROR_ALIGNMENT, "%s at %p is not aligned to its %s", name,
                       a->t[i].data, heed_dtype_name(from->dtype));
    return HEED_OK;
}

static heed_status_t check_dtype(const append_t *a, int i)
{
    heed_dtype_t dtype = a->t[i].dtype;
    bool wide = dtype == HEED_F32 || dtype == HEED_BF16 || dtype == HEED_F16, good = true;
    if (!a->t[i].ndim)
        return HEED_OK;
    if (i == K_NEW || i == V_NEW)
        good = wide;
    else if (i == K || i == V)
        good = wide || dtype == HEED_E4M3 || dtype == HEED_E5M2 || dtype == HEED_I8;
    else
        good = dtype == (i == K_SCALE || i == V_SCALE ? HEED_F32 : HEED_I32);
    return good ? HEED_OK
                : hd_fail(HEED_ERROR_DTYPE, "%s is %s, which it does not take", operands[i].name,
                          heed_dtype_name(dtype));
}

static heed_status_t check_same(const append_t *a, int x, int axis, int64_t length, const char *why)
{
    if (a->t[x].shape[axis] == length)
        return HEED_OK;
    return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but %s %lld", operands[x].name, axis,
                   (long long)a->t[x].shape[axis], why, (long long)length);
}

static heed_status_t check_scale(const append_t *a, int scale, int of)
{
    const heed_tensor_t *t = &a->t[scale];
    if (t->ndim == 1 && t->shape[0] != 1)
        HD_TRY(check_same(a, scale, 0, a->t[of].shape[2], "the heads are"));
    for (int i = 0; t->ndim == 3 && i < 3; i++)
        HD_TRY(check_same(a, scale, i, a->t[of].shape[i], "the cache has"));
    for (int64_t i = 0; t->ndim == 1 && i < t->shape[0]; i++) {
        float value = ((const float *)t->data)[i * t->strides[0]];
        if (!isfinite(value) || value <= 0)
            return hd_fail(HEED_ERROR_VALUE, "%s[%lld]=%g: it is finite and above 0",
                           operands[scale].name, (long long)i, (double)value);
    }
    return HEED_OK;
}

static heed_status_t check_shapes(append_t *a)
{
    const heed_tensor_t *t = a->t;
    bool ragged = t[STARTS].ndim, paged = t[TABLE].ndim;
    a->batch = t[LENGTHS].shape[0];
    a->room = t[K].shape[1] * (paged ? t[TABLE].shape[1] : 1);
    HD_TRY(check_same(a, K_NEW, 0, ragged ? 1 : a->batch, "the batch is"));
    for (int i = 0; i < 3; i++) {
        HD_TRY(check_same(a, V_NEW, i, t[K_NEW].shape[i], "k_new has"));
        HD_TRY(check_same(a, V, i, t[K].shape[i], "k has"));
    }
    HD_TRY(check_same(a, K, 2, t[K_NEW].shape[2], "k_new has"));
    HD_TRY(check_same(a, K, 3, t[K_NEW].shape[3], "k_new has"));
    HD_TRY(check_same(a, V, 3, t[V_NEW].shape[3], "v_new has"));
    if (ragged)
        HD_TRY(check_same(a, STARTS, 0, a->batch + 1, "one more than the batch is"));
    if (paged)
        HD_TRY(check_same(a, TABLE, 0, a->batch, "the batch is"));
    else
        HD_TRY(check_same(a, K, 0, a->batch, "the batch is"));
    if (t[K].shape[1] > INT32_MAX || a->room > INT32_MAX)
        return hd_fail(HEED_ERROR_SHAPE, "room for %lld keys: at most 2^31-1", (long long)a->room);
    HD_TRY(check_scale(a, K_SCALE, K));
    return check_scale(a, V_SCALE, V);
}

static int32_t number(const heed_tensor_t *tensor, int64_t i)
{
    return ((const int32_t *)tensor->data)[i * tensor->strides[0]];
}

/* First new row of sequence b, and how many there are. */
static int64_t first_new(const append_t *a, int64_t b)
{
    return a->t[STARTS].ndim ? number(&a->t[STARTS], b) : 0;
}

static int64_t count_new(const append_t *a, int64_t b)
{
    const heed_tensor_t *starts = &a->t[STARTS];
    return starts->ndim ? number(starts, b + 1) - (int64_t)number(starts, b) : a->t[K_NEW].shape[1];
}

static int32_t page_of(const append_t *a, int64_t b, int64_t j)
{
    const heed_tensor_t *table = &a->t[TABLE];
    return ((const int32_t *)table->data)[b * table->strides[0] + j * table->strides[1]];
}

/* Where the rows of sequence b go: lengths, starts and pages. */
static heed_status_t check_sequence(const append_t *a, int64_t b)
{
    int64_t length = number(&a->t[LENGTHS], b), count = count_new(a, b), page = a->t[K].shape[1];
    int64_t start = first_new(a, b), rows = a->t[K_NEW].shape[1];
    if (start < 0 || count < 0 || start + count > rows)
        return hd_fail(
            HEED_ERROR_VALUE,
            "cu_seqlens[%lld]=%lld and %lld after it: starts rise from 0 to %lld at most",
            (long long)b, (long long)start, (long long)count, (long long)rows);
    if (length < 0 || length + count > a->room)
        return hd_fail(HEED_ERROR_VALUE,
                       "seqlens_k[%lld]=%lld and %lld new keys: there is room for %lld",
                       (long long)b, (long long)length, (long long)count, (long long)a->room);
    for (int64_t j = length / hd_max(page, 1); a->t[TABLE].ndim && j * page < length + count; j++)
        if (page_of(a, b, j) < 0 || page_of(a, b, j) >= a->t[K].shape[0])
            return hd_fail(HEED_ERROR_VALUE, "page_table[%lld,%lld]=%d: there are %lld pages",
                           (long long)b, (long long)j, page_of(a, b, j),
                           (long long)a->t[K].shape[0]);
    return HEED_OK;
}

/* ---- converting ------------------------------------------------------------------------------ */

static float largest_of(heed_dtype_t dtype)
{
    return dtype == HEED_I8     ? 127
           : dtype == HEED_F32  ? 1
           : dtype == HEED_BF16 ? 1
           : dtype == HEED_F16  ? 1
                                : hd_from_bits(hd_largest_bits(dtype));
}

static void store_code(heed_dtype_t dtype, char *to, float value)
{
    const hd_fp8_rule_t rule = {HEED_OVERFLOW_SATURATE, HEED_NAN_SIGNED, HEED_ROUND_NEAREST};
    if (dtype == HEED_I8)
        *(int8_t *)to = isnan(value) ? 0 : (int8_t)fmaxf(-127, fminf(127, nearbyintf(value)));
    else
        hd_cast_store(dtype, to, hd_cast_round(dtype, hd_to_bits(value), rule, 0));
}

/* The scale that makes the largest finite magnitude of a row the type's largest number. */
static float scale_of_row(const hd_view_t *from, const char *row, int64_t dim, heed_dtype_t dtype)
{
    float amax = 0;
    for (int64_t c = 0; c < dim; c++) {
        float size = fabsf(hd_element_load(from->dtype, row + c * from->elem));
        amax = size > amax && size <= 3.4e38f ? size : amax;
    }
    float scale = amax / largest_of(dtype);
    return scale > 0 ? scale : 1;
}

/* Appends rows of keys, or of values, to one sequence. */
static void append_rows(const append_t *a, int from_at, int to_at, int scale_at, int64_t b)
{
    const heed_tensor_t *scale = &a->t[scale_at];
    hd_view_t from = hd_view(&a->t[from_at], a->t[from_at].data);
    hd_view_t to = hd_view(&a->t[to_at], a->t[to_at].data);
    int64_t dim = a->t[to_at].shape[3], heads = a->t[to_at].shape[2], entry = first_new(a, b);
    if (a->t[TABLE].ndim)
        hd_view_paged(&to, &a->t[TABLE], a->t[TABLE].data, a->t[to_at].shape[1]);
    hd_view_t scales = to;
    if (scale->ndim == 3) {
        scales.batch = scale->strides[0] * 4;
        scales.row = scale->strides[1] * 4;
        scales.head = scale->strides[2] * 4;
    }
    scales.data = scale->data;
    for (int64_t i = 0; i < count_new(a, b) * heads; i++) {
        int64_t h = i % heads, key = number(&a->t[LENGTHS], b) + i / heads;
        const char *row = hd_view_row(&from, a->t[STARTS].ndim ? 0 : b, entry + i / heads, h);
        char *place = hd_view_row(&to, b, key, h);
        float factor = 1;
        if (scale->ndim == 3) {
            factor = scale_of_row(&from, row, dim, to.dtype);
            *(float *)(void *)hd_view_row(&scales, b, key, h) = factor;
        } else if (scale->ndim == 1) {
            factor =
                ((const float *)scale->data)[(scale->shape[0] > 1 ? h : 0) * scale->strides[0]];
        }
        for (int64_t c = 0; c < dim; c++)
            store_code(to.dtype, place + c * to.elem,
                       hd_element_load(from.dtype, row + c * from.elem) / factor);
    }
}

heed_status_t heed_kv_append(heed_context_t *context, const heed_kv_append_desc_t *from)
{
    append_t a = {.batch = 0};
    heed_kv_append_desc_t desc;
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_struct_copy(&desc, sizeof(desc), from, sizeof(desc), "desc"));
    for (int i = 0; i < OPERANDS; i++) {
        HD_TRY(complete_one(&a, &desc, i));
        HD_TRY(check_dtype(&a, i));
    }
    if (desc.advance < 0 || desc.advance > 1)
        return hd_fail(HEED_ERROR_VALUE, "advance=%d is 0 or 1", desc.advance);
    HD_TRY(check_shapes(&a));
    for (int64_t b = 0; b < a.batch; b++)
        HD_TRY(check_sequence(&a, b));
    for (int64_t b = 0; b < a.batch; b++) {
        append_rows(&a, K_NEW, K, K_SCALE, b);
        append_rows(&a, V_NEW, V, V_SCALE, b);
        if (desc.advance)
            ((int32_t *)a.t[LENGTHS].data)[b * a.t[LENGTHS].strides[0]] +=
                (int32_t)count_new(&a, b);
    }
    return HEED_OK;
}
