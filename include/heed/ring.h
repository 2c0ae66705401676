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

typedef struct heed_stream_desc {
    uint32_t struct_size;
    int32_t causal; /* 1: the last query sits at key keys - 1, as HEED_ALIGN_BOTTOM_RIGHT */
    float scale;    /* 0: 1/sqrt(D) */
    int64_t window_left, window_right; /* as in attention.h, -1: open */
    int64_t keys;      /* all that will come; needed where causal or a window is set, else 0 */
    heed_tensor_t q;   /* [B,Sq,H,D] f32, bf16, f16, with data; must stay until the end */
    heed_tensor_t out; /* [B,Sq,H,Dv] q's dtype or f32, with data */
    heed_tensor_t lse; /* [B,H,Sq] f32, optional */
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

/* One thread at a time per stream. A stream holds its context. Errors: those of attention; VALUE
 * for more keys than were announced, and at the end for fewer. heed_stream_end gives the stream
 * back in any case; heed_stream_cancel gives it back and leaves out as it is. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_begin(heed_context_t *context,
                                                       const heed_stream_desc_t *desc,
                                                       heed_attention_stream_t **stream);
HEED_API HEED_MUST_USE heed_status_t heed_stream_push(heed_attention_stream_t *stream,
                                                      const heed_tensor_t *k,
                                                      const heed_tensor_t *v);
HEED_API HEED_MUST_USE heed_status_t heed_stream_end(heed_attention_stream_t *stream);

/* How many keys a chunk should have: as few, a multiple of 1024, as are predicted to be within 1 %
 * of the speed of `bytes` of keys and values at a time. k and v have the shape, dtype and strides
 * of what will come, all or a part of it; their data is not looked at. Errors: as of a push. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_chunk(const heed_attention_stream_t *stream,
                                                       const heed_tensor_t *k,
                                                       const heed_tensor_t *v, size_t bytes,
                                                       int64_t *keys);
HEED_API void heed_stream_cancel(heed_attention_stream_t *stream);

/* ---- ring ------------------------------------------------------------------------------------ */

/* Which of N tokens a rank of P has. */
typedef enum heed_ring_layout {
    HEED_RING_CONTIGUOUS =
        0,                /* the r-th of P neighbouring parts. Causal, the last rank works most */
    HEED_RING_ZIGZAG = 1, /* parts r and 2P-1-r of 2P: causal work is the same for all */
    HEED_RING_STRIPED = 2 /* tokens r, r + P, r + 2P, ... (Brandon et al., 2023) */
} heed_ring_layout_t;

/* Tokens first, first + distance, ... */
typedef struct heed_ring_run {
    int64_t first, distance, count;
} heed_ring_run_t;

/* Writes the runs of tokens that `rank` has, in the order of its rows, and returns how many: 1
 * or 2. Parts differ by one token where N is not divisible. 0: a number is out of range. */
HEED_API int heed_ring_runs(heed_ring_layout_t layout, int32_t rank, int32_t size, int64_t tokens,
                            heed_ring_run_t runs[2]);

typedef struct heed_ring_desc {
    uint32_t struct_size;
    heed_ring_layout_t layout;
    int32_t causal;                    /* by the tokens' positions, whatever the layout */
    float scale;                       /* 0: 1/sqrt(D) */
    int64_t window_left, window_right; /* by positions, -1: open */
    int64_t tokens;                    /* N, of all ranks */
    int32_t whole;     /* 0: the tensors hold this rank's tokens alone, in the order of its runs.
                          1: they hold all N, and this rank reads and writes its own */
    heed_tensor_t q;   /* [B,n,H,D] f32, bf16, f16, with data */
    heed_tensor_t k;   /* [B,n,Hk,D] q's dtype */
    heed_tensor_t v;   /* [B,n,Hk,Dv] q's dtype */
    heed_tensor_t out; /* [B,n,H,Dv] q's dtype or f32 */
    heed_tensor_t lse; /* [B,H,n] f32, optional */
    heed_tensor_t cu_seqlens; /* [documents+1] i32 with data, optional: document d has the tokens
                                 from its number d to its number d+1, in every batch entry */
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

/* Attention of this rank's queries over the keys of all. Called by every rank with its own desc and
 * comm; sizes, dtype, layout, causal and windows have to agree, which is found out before keys and
 * values move. While a rank computes on one part the next is on its way. Queries see keys of their
 * own document alone (cu_seqlens, the same on all ranks: from 0 up to tokens, never falling; a
 * document may be empty, and lie on any number of ranks).
 * Errors: those of attention; COMM where ranks disagree, fail or do not answer. */
HEED_API HEED_MUST_USE heed_status_t heed_ring_attention(heed_context_t *context,
                                                         const heed_comm_t *comm,
                                                         const heed_ring_desc_t *desc);

/* A ring within this process: `ranks` threads of their own on the whole tensors (desc->whole is 1),
 * each with its part of the context's threads. */
HEED_API HEED_MUST_USE heed_status_t heed_ring_virtual(heed_context_t *context, int32_t ranks,
                                                       const heed_ring_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
