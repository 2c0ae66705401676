/* Casts as an operation. */
#include "op_cast.h"

#include <string.h>

/* Below, for its functions read its tables. */
const hd_op_t hd_op_cast;

#define OPERAND(name, shape, dtype, output, optional, field)                      \
    {                                                                             \
        {name, shape, dtype, output, optional}, offsetof(heed_cast_desc_t, field) \
    }

static const hd_operand_t operands[] = {
    [HEED_CAST_SRC] = OPERAND("src", "n", "src", 0, 0, src),
    [HEED_CAST_DST] = OPERAND("dst", "n", "dst", 1, 0, dst),
    [HEED_CAST_SCALE] = OPERAND("scale", "", "scale_dtype", 0, 2, scale),
    [HEED_CAST_SCALE_OUT] = OPERAND("scale_out", "", "scale_dtype", 1, 2, scale_out),
    [HEED_CAST_AMAX] = OPERAND("amax", "", "f32", 1, 2, amax),
    [HEED_CAST_COUNTS] = OPERAND("counts", "", "i64", 1, 2, counts),
    [HEED_CAST_TRANSPOSED] = OPERAND("transposed", "n", "dst", 1, 2, transposed),
    [HEED_CAST_LOSS] = OPERAND("loss", "", "f64", 1, 2, loss),
};

typedef struct words {
    int64_t src, dst, n, rows, heads;
    int64_t stride[2];
    int64_t overflow, nan, rounding, seed;
    int64_t scale, block[2], compute, use, form, scale_dtype;
    double floor;
    int64_t amax, counts, transposed, loss;
} words_t;

#define FLOATS "f32|bf16|f16|e4m3|e5m2|e4m3fnuz|e5m2fnuz|e4m3ieee|e8m0"

static const hd_word_t word_table[] = {
    HD_WORD("src", FLOATS, "f32", "type of the source", 1, HD_WORD_DTYPE, src, 0, true),
    HD_WORD("dst", FLOATS, "bf16", "type of the result", 0, HD_WORD_DTYPE, dst, 0, true),
    HD_WORD("n", "N", "1048576", "elements", 1, HD_WORD_INT, n, 0, true),
    HD_WORD("rows", "N", "1", "of n elements in all", 0, HD_WORD_INT, rows, 1, false),
    HD_WORD("heads", "N", "1", "of each row: axes rows, heads, dim", 0, HD_WORD_INT, heads, 1,
            false),
    HD_WORD("stride", "S,D", "1,1", "distance of elements in source and result", 0, HD_WORD_PAIR,
            stride, 1, false),
    HD_WORD("overflow", "saturate|nosat|finite", "saturate", "what numbers beyond FP8 become", 0,
            HD_WORD_ENUM, overflow, 0, false),
    HD_WORD("nan", "positive|signed|quiet", "positive", "which NaN FP8 gets", 0, HD_WORD_ENUM, nan,
            0, false),
    HD_WORD("rounding", "nearest|zero|stochastic|up", "nearest", "to FP8", 0, HD_WORD_ENUM,
            rounding, 0, false),
    HD_WORD("seed", "N", "0", "of stochastic rounding", 0, HD_WORD_INT, seed, 0, false),
    HD_WORD("scale", "none|tensor|row|column|block|head", "none", "what shares a scale", 0,
            HD_WORD_ENUM, scale, 0, false),
    HD_WORD("block", "R,C", "1,128", "rows and columns of scale=block", 0, HD_WORD_PAIR, block, 1,
            false),
    HD_WORD("compute", "0|1", "0", "1: scales are computed, 0: given", 0, HD_WORD_BOOL, compute, 0,
            false),
    HD_WORD("use", "multiplies|divides", "multiplies", "how a scale is used", 0, HD_WORD_ENUM, use,
            0, false),
    HD_WORD("form", "f32|pow2|mx", "f32", "of computed scales", 0, HD_WORD_ENUM, form, 0, false),
    HD_WORD("scale_dtype", "f32|e8m0", "f32", "type of the scales", 0, HD_WORD_DTYPE, scale_dtype,
            0, false),
    HD_WORD("floor", "X", "0", "least amax of a computed scale", 0, HD_WORD_FLOAT, floor, 0, false),
    HD_WORD("amax", "0|1", "0", "largest magnitudes out", 0, HD_WORD_BOOL, amax, 0, false),
    HD_WORD("counts", "0|1", "0", "counts out", 0, HD_WORD_BOOL, counts, 0, false),
    HD_WORD("transposed", "0|1", "0", "a transposed copy out", 0, HD_WORD_BOOL, transposed, 0,
            false),
    HD_WORD("loss", "0|1", "0", "what was lost out", 0, HD_WORD_BOOL, loss, 0, false),
};

static const char *const feature_names[] = {
#define NAME(name, bit, text) [bit] = text,
    HEED_CAST_FEATURE_LIST(NAME)
#undef NAME
};

/* ---- addresses ------------------------------------------------------------------------------- */

static bool is_dense(const heed_tensor_t *tensor)
{
    int64_t dense[HEED_MAX_NDIM];
    hd_dense_strides(tensor->ndim, tensor->shape, dense);
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] > 1 && tensor->strides[i] != dense[i])
            return false;
    return true;
}

static bool same_strides(const heed_tensor_t *a, const heed_tensor_t *b)
{
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] > 1 && a->strides[i] != b->strides[i])
            return false;
    return true;
}

/* Whether a cast of src's memory onto itself reads everything before it is overwritten. */
static bool in_place_works(const heed_cast_desc_t *desc)
{
    size_t from = heed_dtype_size(desc->src.dtype), to = heed_dtype_size(desc->dst.dtype);
    if (desc->loss.ndim)
        return false;
    if (from == to)
        return same_strides(&desc->src, &desc->dst);
    return from > to && is_dense(&desc->src) && is_dense(&desc->dst) && !desc->transposed.ndim &&
           (desc->scaling == HEED_SCALE_NONE || desc->scaling == HEED_SCALE_TENSOR ||
            desc->scaling == HEED_SCALE_ROW);
}

static heed_status_t check(const void *at, void *const *buffers)
{
    const heed_cast_desc_t *desc = at;
    size_t bytes[HD_COUNT(operands)];
    for (int i = 0; i < HD_COUNT(operands); i++) {
        const heed_tensor_t *tensor = hd_op_tensor_const(&hd_op_cast, at, i);
        if (buffers[i])
            bytes[i] = (size_t)heed_tensor_span(tensor) * heed_dtype_size(tensor->dtype);
        for (int j = 0; buffers[i] && j < i; j++) {
            uintptr_t x = (uintptr_t)buffers[i], y = (uintptr_t)buffers[j];
            bool output = operands[i].info.output || operands[j].info.output;
            if (!y || !output || x >= y + bytes[j] || y >= x + bytes[i])
                continue;
            if (i == HEED_CAST_DST && x == y && in_place_works(desc))
                continue;
            return hd_fail(HEED_ERROR_VALUE, "%s at %p overlaps %s at %p%s", operands[i].info.name,
                           buffers[i], operands[j].info.name, buffers[j],
                           i == HEED_CAST_DST && x == y ? ", and this cast does not work in place"
                                                        : "");
        }
    }
    return HEED_OK;
}

/* ---- asking ---------------------------------------------------------------------------------- */

static uint64_t needs(const void *at)
{
    const heed_cast_desc_t *desc = at;
    bool strided = !is_dense(&desc->src) || !is_dense(&desc->dst);
    return hd_cast_dtype_bit(desc->src.dtype) | hd_cast_dtype_bit(desc->dst.dtype) |
           (strided ? HEED_CAST_CAN_STRIDED : 0) |
           (desc->rounding != HEED_ROUND_NEAREST ? HEED_CAST_CAN_ROUNDING : 0) |
           (desc->scale.ndim ? HEED_CAST_CAN_SCALE : 0) |
           (desc->scale_out.ndim ? HEED_CAST_CAN_COMPUTE : 0) |
           (desc->amax.ndim || desc->counts.ndim ? HEED_CAST_CAN_STATISTICS : 0) |
           (desc->transposed.ndim ? HEED_CAST_CAN_TRANSPOSED : 0) |
           (desc->loss.ndim ? HEED_CAST_CAN_LOSS : 0);
}

static void work(const void *at, hd_work_t *to)
{
    to->flops = 0;
    to->bytes = 0;
    for (int i = 0; i < HD_COUNT(operands); i++) {
        const heed_tensor_t *tensor = hd_op_tensor_const(&hd_op_cast, at, i);
        if (tensor->ndim)
            to->bytes +=
                (double)hd_tensor_elements(tensor) * (double)heed_dtype_size(tensor->dtype);
    }
}

/* ---- words ----------------------------------------------------------------------------------- */

static void words_tensor(heed_tensor_t *tensor, heed_dtype_t dtype, int ndim, const int64_t *shape,
                         int64_t stride, hd_axes_t *axes)
{
    memcpy(axes->shape, shape, (size_t)ndim * sizeof(*shape));
    hd_dense_strides(ndim, shape, axes->strides);
    for (int i = 0; i < ndim; i++)
        if (!hd_mul(axes->strides[i], stride, &axes->strides[i]))
            axes->strides[i] = INT64_MAX;
    *tensor = heed_tensor(NULL, dtype, ndim, axes->shape, axes->strides);
}

static heed_status_t words_shape(const words_t *words, int64_t *shape, int *ndim)
{
    int64_t parts;
    if (!hd_mul(words->rows, words->heads, &parts) || words->n % parts)
        return hd_fail(HEED_ERROR_VALUE, "n=%lld is no multiple of rows=%lld and heads=%lld",
                       (long long)words->n, (long long)words->rows, (long long)words->heads);
    *ndim = words->heads > 1 ? 3 : words->rows > 1 || words->transposed ? 2 : 1;
    shape[0] = *ndim > 1 ? words->rows : words->n;
    shape[1] = *ndim > 2 ? words->heads : words->n / words->rows;
    shape[2] = words->n / parts;
    return HEED_OK;
}

static heed_status_t from_words(const void *at, void *to, hd_storage_t *storage)
{
    const words_t *words = at;
    heed_cast_desc_t *desc = to;
    int64_t shape[3], groups[3], block[HEED_MAX_NDIM];
    const int64_t counts = HEED_CAST_COUNTS_SIZE, loss = HEED_CAST_LOSS_SIZE;
    int ndim = 1;
    hd_axes_t *axes = storage->axes;
    HD_TRY(words_shape(words, shape, &ndim));
    *desc = heed_cast_desc();
    words_tensor(&desc->src, (heed_dtype_t)words->src, ndim, shape, words->stride[0], &axes[0]);
    words_tensor(&desc->dst, (heed_dtype_t)words->dst, ndim, shape, words->stride[1], &axes[1]);
    desc->overflow = (int32_t)words->overflow;
    desc->nan = (int32_t)words->nan;
    desc->rounding = (int32_t)words->rounding;
    desc->seed = (uint64_t)words->seed;
    desc->scaling = (int32_t)words->scale;
    desc->scale_use = (int32_t)words->use;
    desc->scale_form = (int32_t)words->form;
    desc->amax_floor = (float)words->floor;
    memcpy(desc->block, words->block, sizeof(desc->block));
    hd_cast_blocks(desc, block);
    for (int i = 0; i < ndim; i++)
        groups[i] = hd_ceil_div(shape[i], block[i]);
    heed_dtype_t dtype = (heed_dtype_t)words->scale_dtype;
    if (words->scale)
        words_tensor(words->compute ? &desc->scale_out : &desc->scale, dtype, ndim, groups, 1,
                     &axes[2]);
    if (words->amax)
        words_tensor(&desc->amax, HEED_F32, ndim, groups, 1, &axes[3]);
    if (words->counts)
        words_tensor(&desc->counts, HEED_I64, 1, &counts, 1, &axes[4]);
    if (words->transposed) {
        int64_t swapped[3] = {shape[0], shape[1], shape[2]};
        swapped[ndim - 2] = shape[ndim - 1];
        swapped[ndim - 1] = shape[ndim - 2];
        words_tensor(&desc->transposed, (heed_dtype_t)words->dst, ndim, swapped, 1, &axes[5]);
    }
    if (words->loss)
        words_tensor(&desc->loss, HEED_F64, 1, &loss, 1, &axes[6]);
    return HEED_OK;
}

/* Axes are told only where they matter, more than three as three: the text says how much work it
 * was. */
static void to_words(const void *at, void *to)
{
    const heed_cast_desc_t *desc = at;
    words_t *words = to;
    int last = desc->src.ndim - 1;
    words->src = desc->src.dtype;
    words->dst = desc->dst.dtype;
    words->n = hd_tensor_elements(&desc->src);
    if (last > 0 && words->n > 0 && (desc->scaling > HEED_SCALE_TENSOR || desc->transposed.ndim)) {
        words->heads = last > 1 ? desc->src.shape[last - 1] : 1;
        words->rows = words->n / desc->src.shape[last] / words->heads;
    }
    words->stride[0] = is_dense(&desc->src) ? 1 : desc->src.strides[last];
    words->stride[1] = is_dense(&desc->dst) ? 1 : desc->dst.strides[last];
    words->overflow = desc->overflow;
    words->nan = desc->nan;
    words->rounding = desc->rounding;
    words->seed = (int64_t)(desc->seed & INT64_MAX);
    words->scale = desc->scaling;
    words->use = desc->scale_use;
    words->form = desc->scale_form;
    words->floor = (double)desc->amax_floor;
    if (desc->scaling == HEED_SCALE_BLOCK)
        memcpy(words->block, desc->block, sizeof(words->block));
    words->compute = desc->scale_out.ndim > 0;
    if (desc->scaling)
        words->scale_dtype = words->compute ? desc->scale_out.dtype : desc->scale.dtype;
    words->amax = desc->amax.ndim > 0;
    words->counts = desc->counts.ndim > 0;
    words->transposed = desc->transposed.ndim > 0;
    words->loss = desc->loss.ndim > 0;
}

const hd_op_t hd_op_cast = {
    .name = "cast",
    .desc_size = sizeof(heed_cast_desc_t),
    .desc_smallest = offsetof(heed_cast_desc_t, overflow), /* of version 0.1 */
    .words_size = sizeof(words_t),
    .operands = operands,
    .operand_count = HD_COUNT(operands),
    .words = word_table,
    .word_count = HD_COUNT(word_table),
    .features = feature_names,
    .feature_count = HD_COUNT(feature_names),
    .complete = hd_cast_complete,
    .check = check,
    .needs = needs,
    .work = work,
    .from_words = from_words,
    .to_words = to_words,
};

heed_status_t heed_cast_plan(heed_context_t *context, const heed_cast_desc_t *desc,
                             heed_plan_t **plan)
{
    return heed_plan_create(context, hd_op_cast.name, desc, plan);
}

heed_status_t heed_cast(heed_context_t *context, const heed_cast_desc_t *desc)
{
    return hd_run_once(context, hd_op_cast.name, desc);
}
