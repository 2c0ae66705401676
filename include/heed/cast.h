/* Heed: casts between element types, rounding to nearest, ties to even (IEEE 754-2019).
 * f32, bf16, f16 in any pair. Overflow gives infinity; NaN stays NaN with its sign, and is
 * quiet where the result has fewer bits. */
#ifndef HEED_CAST_H
#define HEED_CAST_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Operand order of heed_plan_execute. */
enum { HEED_CAST_SRC, HEED_CAST_DST, HEED_CAST_OPERANDS };

/* Fields are only ever added at the end. */
typedef struct heed_cast_desc {
    uint32_t struct_size; /* set by heed_cast_desc() */
    heed_tensor_t src;    /* f32, bf16, f16; 1 to 8 axes, any strides */
    heed_tensor_t dst;    /* src's shape; no two elements at one address */
} heed_cast_desc_t;

static inline heed_cast_desc_t heed_cast_desc(void)
{
#ifdef __cplusplus
    heed_cast_desc_t desc = {};
#else
    heed_cast_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    return desc;
}

#define HEED_CAST_FEATURE_LIST(X) \
    X(F32, 0, "f32")              \
    X(BF16, 1, "bf16")            \
    X(F16, 2, "f16")              \
    X(STRIDED, 3, "strides")

#define HEED_CAST_ENUM_(name, bit, text) HEED_CAST_CAN_##name = 1 << bit,
#define HEED_CAST_OR_(name, bit, text)   | 1 << bit
enum {
    HEED_CAST_FEATURE_LIST(HEED_CAST_ENUM_) /* one bit for each line */
    HEED_CAST_CAN_ALL = 0 HEED_CAST_FEATURE_LIST(HEED_CAST_OR_)
};
#undef HEED_CAST_ENUM_
#undef HEED_CAST_OR_

/* heed_plan_create for casts. */
HEED_API HEED_MUST_USE heed_status_t heed_cast_plan(heed_context_t *context,
                                                    const heed_cast_desc_t *desc,
                                                    heed_plan_t **plan);

/* Plan, workspace, execute on the tensors' data, clean up. */
HEED_API HEED_MUST_USE heed_status_t heed_cast(heed_context_t *context,
                                               const heed_cast_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
