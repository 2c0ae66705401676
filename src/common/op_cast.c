/* Casts as an operation. */
#include "op.h"

#include <string.h>

static const hd_operand_t operands[] = {
    [HEED_CAST_SRC] = {{"src", "n", "src", 0, 0}, offsetof(heed_cast_desc_t, src)},
    [HEED_CAST_DST] = {{"dst", "n", "dst", 1, 0}, offsetof(heed_cast_desc_t, dst)},
};

typedef struct words {
    int64_t src, dst, n;
    int64_t stride[2];
} words_t;

static const hd_word_t word_table[] = {
    HD_WORD("src", "f32|bf16|f16", "f32", "type of the source", 1, HD_WORD_DTYPE, src, 0, true),
    HD_WORD("dst", "f32|bf16|f16", "bf16", "type of the result", 0, HD_WORD_DTYPE, dst, 0, true),
    HD_WORD("n", "N", "1048576", "elements", 1, HD_WORD_INT, n, 0, true),
    HD_WORD("stride", "S,D", "1,1", "distance of elements in source and result", 0, HD_WORD_PAIR,
            stride, 1, false),
};

static const char *const feature_names[] = {
#define NAME(name, bit, text) [bit] = text,
    HEED_CAST_FEATURE_LIST(NAME)
#undef NAME
};

static uint64_t dtype_bit(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? HEED_CAST_CAN_F32
           : dtype == HEED_BF16 ? HEED_CAST_CAN_BF16
           : dtype == HEED_F16  ? HEED_CAST_CAN_F16
                                : 0;
}

static heed_status_t complete(void *at)
{
    const heed_cast_desc_t *desc = at;
    const heed_tensor_t *src = &desc->src, *dst = &desc->dst;
    if (!dtype_bit(src->dtype) || !dtype_bit(dst->dtype))
        return hd_fail(HEED_ERROR_DTYPE, "src is %s and dst is %s: casts take f32, bf16, f16",
                       heed_dtype_name(src->dtype), heed_dtype_name(dst->dtype));
    if (src->ndim != dst->ndim)
        return hd_fail(HEED_ERROR_SHAPE, "dst.ndim=%d, but src.ndim=%d", dst->ndim, src->ndim);
    for (int i = 0; i < src->ndim; i++)
        if (src->shape[i] != dst->shape[i])
            return hd_fail(HEED_ERROR_SHAPE, "dst.shape[%d]=%lld, but src.shape[%d]=%lld", i,
                           (long long)dst->shape[i], i, (long long)src->shape[i]);
    return HEED_OK;
}

static bool is_dense(const heed_tensor_t *tensor)
{
    int64_t dense[HEED_MAX_NDIM];
    hd_dense_strides(tensor->ndim, tensor->shape, dense);
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] > 1 && tensor->strides[i] != dense[i])
            return false;
    return true;
}

static uint64_t needs(const void *at)
{
    const heed_cast_desc_t *desc = at;
    bool strided = !is_dense(&desc->src) || !is_dense(&desc->dst);
    return dtype_bit(desc->src.dtype) | dtype_bit(desc->dst.dtype) |
           (strided ? HEED_CAST_CAN_STRIDED : 0);
}

static void work(const void *at, hd_work_t *to)
{
    const heed_cast_desc_t *desc = at;
    double elements = (double)hd_tensor_elements(&desc->src);
    to->flops = 0;
    to->bytes =
        elements * (double)(heed_dtype_size(desc->src.dtype) + heed_dtype_size(desc->dst.dtype));
}

static heed_status_t from_words(const void *at, void *to, hd_storage_t *storage)
{
    const words_t *words = at;
    heed_cast_desc_t *desc = to;
    *desc = heed_cast_desc();
    heed_tensor_t *tensors[] = {&desc->src, &desc->dst};
    int64_t dtypes[] = {words->src, words->dst};
    for (int i = 0; i < 2; i++) {
        storage->axes[i].shape[0] = words->n;
        storage->axes[i].strides[0] = words->stride[i];
        *tensors[i] = heed_tensor(NULL, (heed_dtype_t)dtypes[i], 1, storage->axes[i].shape,
                                  storage->axes[i].strides);
    }
    return HEED_OK;
}

/* More axes than one are told as their product: the text says how much work it was. */
static void to_words(const void *at, void *to)
{
    const heed_cast_desc_t *desc = at;
    words_t *words = to;
    words->src = desc->src.dtype;
    words->dst = desc->dst.dtype;
    words->n = hd_tensor_elements(&desc->src);
    words->stride[0] = is_dense(&desc->src) ? 1 : desc->src.strides[desc->src.ndim - 1];
    words->stride[1] = is_dense(&desc->dst) ? 1 : desc->dst.strides[desc->dst.ndim - 1];
}

const hd_op_t hd_op_cast = {
    .name = "cast",
    .desc_size = sizeof(heed_cast_desc_t),
    .desc_smallest = sizeof(heed_cast_desc_t),
    .words_size = sizeof(words_t),
    .operands = operands,
    .operand_count = HD_COUNT(operands),
    .words = word_table,
    .word_count = HD_COUNT(word_table),
    .features = feature_names,
    .feature_count = HD_COUNT(feature_names),
    .complete = complete,
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
