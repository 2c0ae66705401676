/* Heed: attention of more keys than are in one place: streamed in chunks, or spread over ranks that
 * pass their keys and values around a ring (Liu et al., Ring Attention with Blockwise Transformers,
 * 2023; the merge of partial results by lse as in attention.h).
 *
 * Results are those of one attention over all keys, up to rounding. States are kept in f32 whatever
 * the dtype of out. */
#ifndef HEED_RING_H
#define HEED_RING_H

#include "attention.h"
#include "comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- streaming ------------------------------------------------------------------------------- */

/* A loop over chunks of keys and values as they come: from memory, a mapped file, a socket.
 *
 *     heed_stream_desc_t desc = heed_stream_desc();
 *     desc.q = ..., desc.out = ..., desc.keys = total, desc.causal = 1;
 *     heed_attention_stream_t *stream;
 *     heed_stream_begin(context, &desc, &stream);
 *     while (read(k, v, count))
 *         heed_stream_push(stream, &k, &v);      [B,count,Hk,D], [B,count,Hk,Dv]
 *     heed_stream_end(stream);                   writes out and lse
 *
 * Memory: that of q and out, a state in f32 where out is narrower, and the workspace of a chunk.
 *
 * Queries may be a shard of more: those that come after its last are `after`. Keys that none of its
 * queries sees are pushed as all others, and their data is not looked at. */
typedef struct heed_attention_stream heed_attention_stream_t;

/* Zero is the default of every field but the windows. Fields are only ever added at the end.
 * Tensors lie in host memory, with any strides. */
typedef struct heed_stream_desc {
    uint32_t struct_size; /* set by heed_stream_desc() */
    int32_t causal;       /* 1: the last query sits at key keys - 1, as HEED_ALIGN_BOTTOM_RIGHT */
    float scale;          /* 0: 1/sqrt(D) */
    int64_t window_left, window_right; /* as in attention.h, -1: open */
    int64_t keys;      /* all that will come; needed where causal or a window is set, else 0 */
    heed_tensor_t q;   /* [B,Sq,H,D] f32, bf16, f16, with data */
    heed_tensor_t out; /* [B,Sq,H,Dv] q's dtype or f32, with data */
    heed_tensor_t lse; /* [B,H,Sq] f32, optional, with data */
    int64_t after;     /* queries behind those of q: its last sits at key keys - 1 - after */
} heed_stream_desc_t;

static inline heed_stream_desc_t heed_stream_desc(void)
{
#ifdef __cplusplus
    heed_stream_desc_t desc = {};
#else
    heed_stream_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.window_left = desc.window_right = -1;
    return desc;
}

/* A stream is used by one thread at a time, several streams by many; each computes in the calling
 * thread and the context's team. It holds its context. */

/* Makes *stream, the caller's to end or to cancel; NULL after an error. The data of q, out and lse
 * must stay until then: out and lse may serve as the state meanwhile, and hold nothing of use
 * before the end. desc and the arrays of its shapes and strides are copied.
 * Errors: NULL, STRUCT_SIZE, VALUE, SHAPE, STRIDE, DTYPE, OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_begin(heed_context_t *context,
                                                       const heed_stream_desc_t *desc,
                                                       heed_attention_stream_t **stream);

/* Merges the next keys and values: k [B,count,Hk,D] and v [B,count,Hk,Dv] of q's dtype, count from
 * 0 up, H a multiple of Hk, which is the same in all chunks. They are done with when it returns. A
 * chunk that is refused for its arguments changes nothing. Errors: NULL, SHAPE, STRIDE, DTYPE,
 * UNSUPPORTED, OUT_OF_MEMORY; VALUE for more keys than were announced. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_push(heed_attention_stream_t *stream,
                                                      const heed_tensor_t *k,
                                                      const heed_tensor_t *v);

/* Writes out and lse, and gives the stream back in any case. Errors: NULL; VALUE where fewer keys
 * have come than were announced: there is no result then. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_end(heed_attention_stream_t *stream);

/* Gives the stream back without a result; NULL is allowed. */
HEED_API void heed_stream_cancel(heed_attention_stream_t *stream);

/* How many keys a chunk should have: as few, a multiple of 1024, as are predicted to be within 1 %
 * of the speed of `bytes` of keys and values at a time. k and v have the shape, dtype and strides
 * of what will come, all or a part of it, of which *keys is no more than all; their data is not
 * looked at. Errors: those of a push. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_chunk(const heed_attention_stream_t *stream,
                                                       const heed_tensor_t *k,
                                                       const heed_tensor_t *v, size_t bytes,
                                                       int64_t *keys);

/* ---- ring ------------------------------------------------------------------------------------ */

/* Which of N tokens a rank of P has. */
typedef enum heed_ring_layout {
    HEED_RING_CONTIGUOUS = 0, /* the r-th of P neighbours; causal, the last rank works most */
    HEED_RING_ZIGZAG = 1,     /* parts r and 2P-1-r of 2P: causal work is the same for all */
    HEED_RING_STRIPED = 2     /* tokens r, r + P, r + 2P, ... (Brandon et al., 2023) */
} heed_ring_layout_t;

/* Tokens first, first + distance, ... */
typedef struct heed_ring_run {
    int64_t first, distance, count;
} heed_ring_run_t;

/* Writes the runs of tokens that `rank` of `size` has, in the order of its rows, and returns how
 * many: 1, or 2 with ZIGZAG. Parts differ by one token where N is not divisible; a run may be
 * empty. 0: runs is NULL, or a number is out of range; tokens go up to 2^40. Any thread. */
HEED_API int heed_ring_runs(heed_ring_layout_t layout, int32_t rank, int32_t size, int64_t tokens,
                            heed_ring_run_t runs[2]);

/* Zero is the default of every field but the windows. Fields are only ever added at the end.
 * Tensors lie in host memory, with any strides, out and lse without two elements at one address. */
typedef struct heed_ring_desc {
    uint32_t struct_size; /* set by heed_ring_desc() */
    heed_ring_layout_t layout;
    int32_t causal;                    /* by the tokens' positions, whatever the layout */
    float scale;                       /* 0: 1/sqrt(D) */
    int64_t window_left, window_right; /* by positions, -1: open */
    int64_t tokens;                    /* N, of all ranks */
    int32_t whole;     /* 0: the tensors hold this rank's tokens alone, in the order of its runs.
                          1: they hold all N, and this rank reads and writes its own */
    heed_tensor_t q;   /* [B,n,H,D] f32, bf16, f16, with data, as all that follow */
    heed_tensor_t k;   /* [B,n,Hk,D] q's dtype; H a multiple of Hk */
    heed_tensor_t v;   /* [B,n,Hk,Dv] q's dtype */
    heed_tensor_t out; /* [B,n,H,Dv] q's dtype or f32 */
    heed_tensor_t lse; /* [B,H,n] f32, optional */
    heed_tensor_t cu_seqlens; /* [documents+1] i32, optional: document d has the tokens from its
                                 number d up to its number d+1, in every batch entry. From 0 to
                                 tokens, never falling; a document may be empty, and lie on any
                                 number of ranks. Queries see keys of their own document alone */
} heed_ring_desc_t;

static inline heed_ring_desc_t heed_ring_desc(void)
{
#ifdef __cplusplus
    heed_ring_desc_t desc = {};
#else
    heed_ring_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.window_left = desc.window_right = -1;
    return desc;
}

/* heed_context_parallel_attention (context_parallel.h) by the method RING, with the same errors:
 * attention of this rank's queries over the keys of all, while a rank computes on one part the next
 * is on its way. */
HEED_API HEED_MUST_USE heed_status_t heed_ring_attention(heed_context_t *context,
                                                         const heed_comm_t *comm,
                                                         const heed_ring_desc_t *desc);

/* The same within this process: heed_context_parallel_virtual. */
HEED_API HEED_MUST_USE heed_status_t heed_ring_virtual(heed_context_t *context, int32_t ranks,
                                                       const heed_ring_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
