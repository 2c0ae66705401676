/* Heed: appending to a cache of keys and values.
 *
 * New keys and values go behind those that a sequence has, contiguous or in pages, converted to the
 * cache's type. A decode step appends, and attends with seqlens_k:
 *
 *     heed_kv_append_desc_t append = heed_kv_append_desc();
 *     append.k_new = HEED_TENSOR(k, HEED_BF16, B, 1, Hk, D);
 *     append.k = HEED_TENSOR(k_pages, HEED_E4M3, pages, page_size, Hk, D);
 *     append.page_table = HEED_TENSOR(table, HEED_I32, B, max_pages);
 *     append.seqlens_k = HEED_TENSOR(lengths, HEED_I32, B);
 *     ...
 *     append.advance = 1;
 *     heed_kv_append(context, &append);  then attention with the same k, v, page_table, seqlens_k
 */
#ifndef HEED_KV_H
#define HEED_KV_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All tensors are on the CPU and have their data. Fields are only ever added at the end. */
typedef struct heed_kv_append_desc {
    uint32_t struct_size; /* set by heed_kv_append_desc() */
    int32_t advance;      /* 1: seqlens_k grows by what was appended */
    heed_tensor_t k_new;  /* [B,S,Hk,D]  f32, bf16, f16; any strides */
    heed_tensor_t v_new;  /* [B,S,Hk,Dv] */
    heed_tensor_t k;      /* [B,Sk,Hk,D], or with a page table [pages,page_size,Hk,D]: f32, bf16,
                             f16, e4m3, e5m2, i8 */
    heed_tensor_t v;      /* as k with Dv, also of another type */
    heed_tensor_t page_table; /* [B,max_pages] i32, optional, as attention takes it */
    heed_tensor_t seqlens_k;  /* [B] i32: keys that each sequence has already */
    heed_tensor_t cu_seqlens; /* [B+1] i32, optional: new rows of b are from its number b to its
                                 number b+1; k_new and v_new are [1,total,Hk,D] */
    heed_tensor_t k_scale;    /* optional: [1] or [Hk] f32, given: codes are key / scale; or one a
                                 token and head, shaped as k without D: written, the largest
                                 magnitude of the key over the type's largest number (of f32,
                                 bf16 and f16: over 1), 1 for a key of zeros */
    heed_tensor_t v_scale;    /* the same for v */
} heed_kv_append_desc_t;

static inline heed_kv_append_desc_t heed_kv_append_desc(void)
{
#ifdef __cplusplus
    heed_kv_append_desc_t desc = {};
#else
    heed_kv_append_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    return desc;
}

/* Appends in the calling thread. Rounding is to nearest even; what is too large for e4m3, e5m2 or
 * i8 becomes their largest number, NaN stays NaN (0 in i8). Pages that are appended to must not be
 * shared with another sequence. Errors: NULL, STRUCT_SIZE, SHAPE, STRIDE, DTYPE, VALUE (a length
 * beyond the room, a page that is not there, a scale that is not above 0 and finite); nothing is
 * written then. */
HEED_API HEED_MUST_USE heed_status_t heed_kv_append(heed_context_t *context,
                                                    const heed_kv_append_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
