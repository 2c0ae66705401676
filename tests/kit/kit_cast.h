/* What the kit's files of casts share. (op_cast.c, cast_judge.c) */
#ifndef KIT_CAST_H
#define KIT_CAST_H

#include "kit.h"

/* Offset of element number i in row order. */
static inline int64_t offset_of(const heed_tensor_t *tensor, int64_t i)
{
    int64_t offset = 0;
    for (int axis = tensor->ndim - 1; axis >= 0; axis--) {
        offset += i % tensor->shape[axis] * tensor->strides[axis];
        i /= tensor->shape[axis];
    }
    return offset;
}

/* judge of kit_op_t: bit by bit, against a model in doubles and f32 arithmetic that shares nothing
 * with the library. The reference is judged by it too. */
void kit_cast_judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                    heed_problem_t *reference_problem, const kit_buffers_t *reference,
                    kit_verdict_t *verdict);

#endif
