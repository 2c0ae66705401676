/* Merging of partial states as an operation. The mathematics is in include/heed/merge.h. */
#include "op.h"

#include <string.h>

/* Below, for its functions read its tables. */
const hd_op_t hd_op_merge;

#define OPERAND(name, shape, dtype, output, optional, field)                       \
    {                                                                              \
        {name, shape, dtype, output, optional}, offsetof(heed_merge_desc_t, field) \
    }

static const hd_operand_t operands[] = {
    [HEED_MERGE_PART_OUT] = OPERAND("part_out", "parts,b,sq,h,d", "dtype", 0, 0, part_out),
    [HEED_MERGE_PART_LSE] = OPERAND("part_lse", "parts,b,h,sq", "f32", 0, 0, part_lse),
    [HEED_MERGE_OUT] = OPERAND("out", "b,sq,h,d", "out", 1, 0, out),
    [HEED_MERGE_LSE] = OPERAND("lse", "b,h,sq", "f32", 1, 1, lse),
};

enum { BSHD, BHSD };

typedef struct words {
    int64_t dtype, parts, b, sq, h, d;
    int64_t out, lse, into, layout;
    int64_t stride[2];
} words_t;

static const hd_word_t word_table[] = {
    HD_WORD("dtype", "f32|bf16|f16", "f32", "type of the states", 1, HD_WORD_DTYPE, dtype, 0, true),
    HD_WORD("parts", "N", "4", "states", 1, HD_WORD_INT, parts, 0, true),
    HD_WORD("b", "N", "1", "batch", 1, HD_WORD_INT, b, 0, true),
    HD_WORD("sq", "N", "1024", "queries", 1, HD_WORD_INT, sq, 0, true),
    HD_WORD("h", "N", "8", "heads", 1, HD_WORD_INT, h, 0, true),
    HD_WORD("d", "N", "64", "head size", 1, HD_WORD_INT, d, 0, true),
    HD_WORD("out", "same|f32|bf16|f16", "same", "type of the output", 0, HD_WORD_ENUM, out, 0,
            false),
    HD_WORD("lse", "0|1", "0", "the log-sum-exp is an output too", 0, HD_WORD_BOOL, lse, 0, false),
    HD_WORD("into", "0|1", "0", "(out, lse) hold one more state", 0, HD_WORD_BOOL, into, 0, false),
    HD_WORD("layout", "bshd|bhsd", "bshd", "order in memory, of each state", 0, HD_WORD_ENUM,
            layout, 0, false),
    HD_WORD("stride", "S,D", "1,1", "distance of elements in states and result", 0, HD_WORD_PAIR,
            stride, 1, false),
};

static const char *const feature_names[] = {
#define NAME(name, bit, text) [bit] = text,
    HEED_MERGE_FEATURE_LIST(NAME)
#undef NAME
};

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t check_dtypes(const heed_merge_desc_t *desc)
{
    const heed_tensor_t *outs[] = {&desc->part_out, &desc->out};
    const heed_tensor_t *lses[] = {&desc->part_lse, &desc->lse};
    for (int i = 0; i < 2; i++) {
        heed_dtype_t dtype = outs[i]->dtype;
        if (dtype != HEED_F32 && dtype != HEED_BF16 && dtype != HEED_F16)
            return hd_fail(HEED_ERROR_DTYPE, "%s is %s; states are f32, bf16 or f16",
                           operands[2 * i].info.name, heed_dtype_name(dtype));
        if (lses[i]->ndim && lses[i]->dtype != HEED_F32)
            return hd_fail(HEED_ERROR_DTYPE, "%s is %s; it takes f32",
                           operands[2 * i + 1].info.name, heed_dtype_name(lses[i]->dtype));
    }
    return HEED_OK;
}

/* Axes of each tensor by number in part_out, which has them all. */
static heed_status_t check_shapes(const heed_merge_desc_t *desc)
{
    static const struct {
        int ndim, axis[5];
    } wanted[] = {{5, {0, 1, 2, 3, 4}}, {4, {0, 1, 3, 2}}, {4, {1, 2, 3, 4}}, {3, {1, 3, 2}}};
    for (int i = 0; i < HD_COUNT(operands); i++) {
        const heed_tensor_t *tensor = hd_op_tensor_const(&hd_op_merge, desc, i);
        const char *name = operands[i].info.name;
        if (i == HEED_MERGE_LSE && tensor->ndim == 0)
            continue;
        if (tensor->ndim != wanted[i].ndim)
            return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, merging takes %d axes", name,
                           tensor->ndim, wanted[i].ndim);
        for (int axis = 0; axis < tensor->ndim; axis++) {
            int from = wanted[i].axis[axis];
            if (tensor->shape[axis] != desc->part_out.shape[from])
                return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but part_out.shape[%d]=%lld",
                               name, axis, (long long)tensor->shape[axis], from,
                               (long long)desc->part_out.shape[from]);
        }
    }
    return HEED_OK;
}

static heed_status_t complete(void *at)
{
    heed_merge_desc_t *desc = at;
    HD_TRY(check_shapes(desc));
    HD_TRY(check_dtypes(desc));
    if (desc->into < 0 || desc->into > 1)
        return hd_fail(HEED_ERROR_VALUE, "into=%d is not 0 or 1", desc->into);
    if (desc->into && !desc->lse.ndim)
        return hd_fail(HEED_ERROR_VALUE, "into=1 needs lse: a state is (out, lse)");
    return HEED_OK;
}

/* ---- addresses ------------------------------------------------------------------------------- */

/* Whether the output is one of the states, element by element. */
static bool is_a_state(const heed_tensor_t *parts, uintptr_t from, const heed_tensor_t *output,
                       uintptr_t to)
{
    uintptr_t step = (uintptr_t)(parts->strides[0] * hd_dtype_bytes(parts->dtype));
    if (parts->dtype != output->dtype)
        return false;
    for (int i = 0; i < output->ndim; i++)
        if (output->shape[i] > 1 && output->strides[i] != parts->strides[i + 1])
            return false;
    for (int64_t p = 0; p < parts->shape[0]; p++)
        if (to == from + (uintptr_t)p * step)
            return true;
    return false;
}

static heed_status_t check(const void *desc, void *const *buffers)
{
    for (int i = HEED_MERGE_OUT; i < HD_COUNT(operands); i++)
        for (int j = 0; j < i; j++) {
            const heed_tensor_t *a = hd_op_tensor_const(&hd_op_merge, desc, i);
            const heed_tensor_t *b = hd_op_tensor_const(&hd_op_merge, desc, j);
            uintptr_t x = (uintptr_t)buffers[i], y = (uintptr_t)buffers[j];
            size_t x_bytes = (size_t)heed_tensor_span(a) * heed_dtype_size(a->dtype);
            size_t y_bytes = (size_t)heed_tensor_span(b) * heed_dtype_size(b->dtype);
            if (!x || !y || x >= y + y_bytes || y >= x + x_bytes)
                continue;
            if (j == i - HEED_MERGE_OUT && is_a_state(b, y, a, x))
                continue;
            return hd_fail(HEED_ERROR_VALUE,
                           "%s at %p overlaps %s at %p, and is none of its states",
                           operands[i].info.name, buffers[i], operands[j].info.name, buffers[j]);
        }
    return HEED_OK;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static uint64_t dtype_bit(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? HEED_MERGE_CAN_F32
           : dtype == HEED_BF16 ? HEED_MERGE_CAN_BF16
                                : HEED_MERGE_CAN_F16;
}

static bool is_strided(const heed_tensor_t *tensor)
{
    int last = tensor->ndim - 1;
    return tensor->shape[last] > 1 && tensor->strides[last] != 1;
}

static uint64_t needs(const void *at)
{
    const heed_merge_desc_t *desc = at;
    bool strided = is_strided(&desc->part_out) || is_strided(&desc->out);
    return dtype_bit(desc->part_out.dtype) | dtype_bit(desc->out.dtype) |
           (strided ? HEED_MERGE_CAN_STRIDED_DIM : 0) | (desc->lse.ndim ? HEED_MERGE_CAN_LSE : 0) |
           (desc->into ? HEED_MERGE_CAN_INTO : 0);
}

/* A multiplication and an addition for each element of a state; states are read, results written.
 */
static void work(const void *at, hd_work_t *to)
{
    const heed_merge_desc_t *desc = at;
    double states = (double)desc->part_out.shape[0] + desc->into;
    to->flops = 2 * states * (double)hd_tensor_elements(&desc->out);
    to->bytes = 0;
    for (int i = 0; i < HD_COUNT(operands); i++) {
        const heed_tensor_t *tensor = hd_op_tensor_const(&hd_op_merge, at, i);
        double times = operands[i].info.output ? 1 + desc->into : 1;
        if (tensor->ndim)
            to->bytes +=
                times * (double)hd_tensor_elements(tensor) * (double)heed_dtype_size(tensor->dtype);
    }
}

/* ---- words ----------------------------------------------------------------------------------- */

/* Strides of axes [first axis,] b, sq, h, d in memory of that layout. */
static void layout_strides(int64_t layout, int ndim, const int64_t *shape, int64_t stride,
                           int64_t *strides)
{
    int64_t order[HEED_MAX_NDIM];
    memcpy(order, shape, (size_t)ndim * sizeof(*shape));
    if (layout == BHSD) {
        order[ndim - 3] = shape[ndim - 2];
        order[ndim - 2] = shape[ndim - 3];
    }
    hd_dense_strides(ndim, order, strides);
    if (layout == BHSD) {
        int64_t swap = strides[ndim - 3];
        strides[ndim - 3] = strides[ndim - 2];
        strides[ndim - 2] = swap;
    }
    for (int i = 0; i < ndim; i++)
        if (!hd_mul(strides[i], stride, &strides[i]))
            strides[i] = INT64_MAX;
}

static heed_status_t from_words(const void *at, void *to, hd_storage_t *storage)
{
    const words_t *words = at;
    heed_merge_desc_t *desc = to;
    const int64_t shape[] = {words->parts, words->b, words->sq, words->h, words->d};
    const int64_t lse_shape[] = {words->parts, words->b, words->h, words->sq};
    static const heed_dtype_t outs[] = {0, HEED_F32, HEED_BF16, HEED_F16};
    heed_dtype_t dtype = (heed_dtype_t)words->dtype, out = words->out ? outs[words->out] : dtype;
    *desc = heed_merge_desc();
    desc->into = (int32_t)words->into;
    for (int i = 0; i < HEED_MERGE_OPERANDS; i++) {
        bool is_lse = i % 2, whole = i >= HEED_MERGE_OUT;
        if (i == HEED_MERGE_LSE && !words->lse && !words->into)
            continue;
        int ndim = (is_lse ? 4 : 5) - whole;
        hd_axes_t *axes = &storage->axes[i];
        memcpy(axes->shape, (is_lse ? lse_shape : shape) + whole, (size_t)ndim * sizeof(*shape));
        if (is_lse)
            hd_dense_strides(ndim, axes->shape, axes->strides);
        else
            layout_strides(words->layout, ndim, axes->shape, words->stride[whole], axes->strides);
        *hd_op_tensor(&hd_op_merge, desc, i) = heed_tensor(NULL,
                                                           is_lse  ? HEED_F32
                                                           : whole ? out
                                                                   : dtype,
                                                           ndim, axes->shape, axes->strides);
    }
    return HEED_OK;
}

/* Strides are told by the distance of elements, and by whether a head's rows follow each other. */
static void to_words(const void *at, void *to)
{
    const heed_merge_desc_t *desc = at;
    words_t *words = to;
    const heed_tensor_t *parts = &desc->part_out, *out = &desc->out;
    words->dtype = parts->dtype;
    words->parts = parts->shape[0];
    words->b = parts->shape[1];
    words->sq = parts->shape[2];
    words->h = parts->shape[3];
    words->d = parts->shape[4];
    if (out->dtype != parts->dtype)
        words->out = out->dtype == HEED_F32 ? 1 : out->dtype == HEED_BF16 ? 2 : 3;
    words->lse = desc->lse.ndim > 0;
    words->into = desc->into;
    words->layout = out->shape[1] > 1 && out->shape[2] > 1 && out->strides[2] > out->strides[1];
    words->stride[0] = is_strided(parts) ? hd_max(parts->strides[4], 1) : 1;
    words->stride[1] = is_strided(out) ? hd_max(out->strides[3], 1) : 1;
}

const hd_op_t hd_op_merge = {
    .name = "merge",
    .desc_size = sizeof(heed_merge_desc_t),
    .desc_smallest = sizeof(heed_merge_desc_t),
    .words_size = sizeof(words_t),
    .operands = operands,
    .operand_count = HD_COUNT(operands),
    .words = word_table,
    .word_count = HD_COUNT(word_table),
    .features = feature_names,
    .feature_count = HD_COUNT(feature_names),
    .complete = complete,
    .check = check,
    .needs = needs,
    .work = work,
    .from_words = from_words,
    .to_words = to_words,
};

heed_status_t heed_attention_merge_plan(heed_context_t *context, const heed_merge_desc_t *desc,
                                        heed_plan_t **plan)
{
    return heed_plan_create(context, hd_op_merge.name, desc, plan);
}

heed_status_t heed_attention_merge(heed_context_t *context, const heed_merge_desc_t *desc)
{
    return hd_run_once(context, hd_op_merge.name, desc);
}
