/* Heed: partial states of attention, merged.
 *
 *     lse[b,h,i]   = log sum_p exp(part_lse[p,b,h,i])                    natural logarithm
 *     out[b,i,h,:] = sum_p exp(part_lse[p,b,h,i] - lse[b,h,i]) part_out[p,b,i,h,:]
 *
 * The states come from attention (attention.h) of the same queries over keys that no two of them
 * share: pieces of a cache, chunks that arrive one after the other, the other cards of a ring.
 * Merged they are what attention over all the keys gives. The order of the states does not matter
 * beyond rounding, nor does merging some first (Milakov and Gimelshein, 2018).
 *
 *     heed_merge_desc_t desc = heed_merge_desc();
 *     desc.part_out = HEED_TENSOR(parts, HEED_F32, P, B, Sq, H, D);
 *     desc.part_lse = HEED_TENSOR(part_lse, HEED_F32, P, B, H, Sq);
 *     desc.out = HEED_TENSOR(out, HEED_F32, B, Sq, H, D);
 *     desc.lse = HEED_TENSOR(lse, HEED_F32, B, H, Sq);
 *     heed_attention_merge(context, &desc);
 *
 * Two states in memory of their own: one is the part, with P = 1, the other lies in (out, lse), and
 * desc.into = 1. So does a state that grows with each chunk. */
#ifndef HEED_MERGE_H
#define HEED_MERGE_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Operand order of heed_plan_execute. */
enum {
    HEED_MERGE_PART_OUT,
    HEED_MERGE_PART_LSE,
    HEED_MERGE_OUT,
    HEED_MERGE_LSE,
    HEED_MERGE_OPERANDS
};

/* Zero is the default of every field. Fields are only ever added at the end. */
typedef struct heed_merge_desc {
    uint32_t struct_size;   /* set by heed_merge_desc() */
    int32_t into;           /* 1: (out, lse) hold one more state; needs lse */
    heed_tensor_t part_out; /* [P,B,Sq,H,D] f32, bf16, f16; any strides; P may be 0 */
    heed_tensor_t part_lse; /* [P,B,H,Sq] f32 */
    heed_tensor_t out;      /* [B,Sq,H,D] f32, bf16, f16; no two elements at one address */
    heed_tensor_t lse;      /* [B,H,Sq] f32, optional */
} heed_merge_desc_t;

/* A state with lse -inf is empty: it adds nothing, whatever its out holds, NaN too. A row whose
 * states are all empty gives out 0 and lse -inf. A row with an lse of NaN or +inf gives NaN in out
 * and lse. A state's weight that is too small for float64 counts as 0. B, Sq, H, D and P may be 0.
 *
 * In place: out may be the memory of one of the states in part_out, with its dtype and strides, and
 * lse that of one in part_lse. Any other overlap of an output is refused by HEED_ERROR_VALUE. */

static inline heed_merge_desc_t heed_merge_desc(void)
{
#ifdef __cplusplus
    heed_merge_desc_t desc = {};
#else
    heed_merge_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    return desc;
}

/* Feature bits of an implementation and of a problem. */
#define HEED_MERGE_FEATURE_LIST(X)        \
    X(F32, 0, "f32")                      \
    X(BF16, 1, "bf16")                    \
    X(F16, 2, "f16")                      \
    X(STRIDED_DIM, 3, "strided head dim") \
    X(LSE, 4, "lse")                      \
    X(INTO, 5, "into a state")

#define HEED_MERGE_ENUM_(name, bit, text) HEED_MERGE_CAN_##name = 1 << bit,
#define HEED_MERGE_OR_(name, bit, text)   | 1 << bit
enum {
    HEED_MERGE_FEATURE_LIST(HEED_MERGE_ENUM_) /* one bit for each line */
    HEED_MERGE_CAN_ALL = 0 HEED_MERGE_FEATURE_LIST(HEED_MERGE_OR_)
};
#undef HEED_MERGE_ENUM_
#undef HEED_MERGE_OR_

/* heed_plan_create for merges. */
HEED_API HEED_MUST_USE heed_status_t heed_attention_merge_plan(heed_context_t *context,
                                                               const heed_merge_desc_t *desc,
                                                               heed_plan_t **plan);

/* Plan, workspace from the context's allocator, execute on the tensors' data, clean up. */
HEED_API HEED_MUST_USE heed_status_t heed_attention_merge(heed_context_t *context,
                                                          const heed_merge_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
