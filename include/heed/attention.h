/* Heed: attention.
 *
 *     out[b,i,h,:] = sum_j p_ij v[b,j,h/g,:]      p_i = softmax over the visible j of s_ij
 *     s_ij = scale * <q[b,i,h,:], k[b,j,h/g,:]>   g = H / Hk; softcap, bias and the like come after
 *     lse[b,h,i] = log sum_j exp(s_ij)            natural logarithm
 *
 * The blocked algorithm with an online softmax: Dao et al., FlashAttention (2022) and
 * FlashAttention-2 (2023); its partial states (out, lse) merge as in Milakov and Gimelshein (2018).
 * No implementation stores the Sq x Sk scores, except cpu:standard.
 *
 * A complete program:
 *
 *     heed_context_t *context;
 *     heed_attention_desc_t desc = heed_attention_desc();
 *     desc.q = HEED_TENSOR(q, HEED_F32, B, Sq, H, D);
 *     desc.k = HEED_TENSOR(k, HEED_F32, B, Sk, Hk, D);
 *     desc.v = HEED_TENSOR(v, HEED_F32, B, Sk, Hk, Dv);
 *     desc.out = HEED_TENSOR(out, HEED_F32, B, Sq, H, Dv);
 *     desc.causal = 1;
 *     if (heed_context_create(NULL, &context) || heed_attention(context, &desc))
 *         fprintf(stderr, "%s\n", heed_last_error());
 */
#ifndef HEED_ATTENTION_H
#define HEED_ATTENTION_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Operand order of heed_plan_execute. */
enum {
    HEED_ATTENTION_Q,
    HEED_ATTENTION_K,
    HEED_ATTENTION_V,
    HEED_ATTENTION_OUT,
    HEED_ATTENTION_LSE,
    HEED_ATTENTION_BIAS,
    HEED_ATTENTION_MASK,
    HEED_ATTENTION_ALIBI_SLOPES,
    HEED_ATTENTION_SINKS,
    HEED_ATTENTION_CU_SEQLENS_Q,
    HEED_ATTENTION_CU_SEQLENS_K,
    HEED_ATTENTION_SEQLENS_K,
    HEED_ATTENTION_PAGE_TABLE,
    HEED_ATTENTION_K_SCALE,
    HEED_ATTENTION_V_SCALE,
    HEED_ATTENTION_OPERANDS
};

/* Where the causal diagonal and the window's centre lie when Sq differs from Sk. */
typedef enum heed_align {
    HEED_ALIGN_BOTTOM_RIGHT = 0, /* query i sits at key i + Sk - Sq: FlashAttention 2.1 and later */
    HEED_ALIGN_TOP_LEFT = 1      /* query i sits at key i */
} heed_align_t;

/* A visibility as tiles: for each tile of queries, the key tiles that it may see, in compressed
 * rows. Pairs outside the listed tiles are masked; causal and window still apply inside them. The
 * arrays are host memory, belong to the caller and must outlive the plan; the plan of a device
 * copies them there once, when it is made. */
typedef struct heed_tile_list {
    uint32_t struct_size;
    int32_t tile_q;           /* queries in a tile: 64 or 128 */
    int32_t tile_k;           /* keys in a tile: 64 or 128 */
    int64_t batches;          /* B, or 1: the same for all */
    int64_t heads;            /* H, or 1: the same for all */
    int64_t rows;             /* ceil(Sq / tile_q) */
    const int64_t *row_start; /* [batches*heads*rows + 1], entries of row (b*heads + h)*rows + r */
    const int32_t *column;    /* [entries] key tile, ascending within a row */
    const int32_t *mask;      /* [entries] -1: full, else number of its mask; NULL: all full */
    const uint64_t *bits;     /* [masks][tile_k][tile_q/64], bit i%64 of word [j][i/64]: query i of
                                 the tile sees key j of the tile */
    int64_t masks;
} heed_tile_list_t;

/* Zero is the default of every field but the window. Fields are only ever added at the end. */
typedef struct heed_attention_desc {
    uint32_t struct_size; /* set by heed_attention_desc() */
    int32_t causal;       /* 1: query i sees keys up to its position */
    heed_align_t align;
    float scale;          /* 0: 1/sqrt(D); may be negative */
    int64_t window_left;  /* keys visible before the position, -1: all */
    int64_t window_right; /* keys visible after the position, -1: all */
    heed_tensor_t q;      /* [B,Sq,H,D]   f32, bf16, f16, e4m3; any strides, also of D */
    heed_tensor_t k;      /* [B,Sk,Hk,D]  q's dtype, or with q in f32, bf16, f16 any of these and
                             e4m3, e5m2, i8; H a multiple of Hk */
    heed_tensor_t v;      /* [B,Sk,Hk,Dv] as k, also of another dtype than k */
    heed_tensor_t out;    /* [B,Sq,H,Dv]  q's dtype or f32, of e4m3 bf16, f16 or f32; no two
                             elements at one address */
    heed_tensor_t lse;    /* [B,H,Sq] f32, optional */
    const heed_tile_list_t *tiles; /* NULL: every pair that causal and window leave */
    int32_t merge;  /* 1: (out, lse) hold a partial state over other keys: merge into it */
    int32_t unused; /* padding in version 0.1, whatever it holds */

    /* Modifiers of scores, in this order: t = scale * <q,k>; softcap; bias and ALiBi; masks. */
    float softcap;              /* above 0: t becomes softcap * tanh(t / softcap) */
    int32_t off_by_one;         /* 1: a sink of logit 0 in every head: exp / (1 + sum exp) */
    heed_tensor_t bias;         /* [B|1,H|1,Sq|1,Sk] f32, bf16, f16: added; -inf masks the pair */
    heed_tensor_t mask;         /* [B|1,H|1,Sq|1,Sk] bool: 0 masks the pair */
    heed_tensor_t alibi_slopes; /* [H] or [B,H] f32: less slope * |position of i - j| is added */
    heed_tensor_t sinks;        /* [H] f32: a logit without a value, in the denominator and lse */

    /* Sequences of different lengths. */
    heed_tensor_t cu_seqlens_q; /* [B+1] i32: sequence b has the queries from its number b to its
                                   number b+1; q, out are [1,total,H,D], lse is [1,H,total] */
    heed_tensor_t cu_seqlens_k; /* [B+1] i32: the same for keys; k, v are [1,total,Hk,D] */
    heed_tensor_t seqlens_k;    /* [B] i32: keys in use of the Sk that there is room for */
    heed_tensor_t page_table;   /* [B,max_pages] i32: keys from j * page_size on of sequence b lie
                                   in page page_table[b,j]; k, v are [pages,page_size,Hk,D], and Sk
                                   is max_pages * page_size */

    /* Keys and values of other types than q: their value is code * scale. */
    heed_tensor_t k_scale; /* [1], [Hk], or one a token and head, shaped as k without D; f32 */
    heed_tensor_t v_scale; /* the same for v */

    int64_t split_keys;      /* keys of a part that kernels for few queries compute on its own and
                                merge, 0: chosen. Others do not split */
    int32_t batch_invariant; /* 1: the bits of a row depend neither on the batch nor on threads */
    int32_t unchecked;       /* 1: trust lengths, page tables and scales: execute does not look */

    int32_t tiles_optional; /* 1: tiles approximate dense attention, which is computed instead where
                           it is predicted to be faster (cpu:dense); 0: tiles are what is meant */
    int32_t unused_end;     /* padding, whatever it holds */
} heed_attention_desc_t;

/* e4m3 is taken as it is: a scale of q and k belongs into `scale`, one of v is the caller's. Tensor
 * cores that multiply e4m3 round each weight p_ij to e4m3 on its way into out, which moves out by
 * up to 2^-4 of a mean of |v|, far less where many keys count; lse is that of unrounded weights. An
 * implementation with EXACT_E4M3 rounds no weight. No problem asks for that bit; it is in the list
 * for those who choose.
 *
 * A row that sees no key gives out 0 and lse -inf; a state with lse -inf merges as empty, whatever
 * its out holds. D and Dv are 1..512; each implementation says which it takes. Masked keys and
 * values are never let into a result, not even as NaN. B, Sq or Sk may be 0.
 *
 * Sinks. A row of a head with a sink and no key gives out 0 and lse the sink. Of states that are
 * merged one alone may count the sink. With off_by_one beside sinks both count.
 *
 * Ragged batches. B is the length of cu_seqlens less one, sequences may be empty, and each has its
 * own diagonal and window by its own lengths. Queries and keys are ragged independently of each
 * other: ragged queries with a paged cache are a step of a serving engine. Rows of out and lse
 * outside of all sequences are left as they are. Bias and mask count within the sequence: their
 * axes of ragged lengths are as long as the longest sequence or longer. Ragged batches take no tile
 * list.
 *
 * Caches. Keys from seqlens_k[b] on are not looked at, whatever they hold, nor are entries of the
 * page table that no key in use needs. Pages may be shared. A page table without seqlens_k: all
 * keys are in use. Positions count from the keys in use: with HEED_ALIGN_BOTTOM_RIGHT the last
 * query sits at the last of them.
 *
 * On the CPU executing looks at lengths, page tables and scales first, and fails with
 * HEED_ERROR_VALUE, index and value before anything is read or written. Device memory is the
 * caller's to check. */

static inline heed_attention_desc_t heed_attention_desc(void)
{
#ifdef __cplusplus
    heed_attention_desc_t desc = {};
#else
    heed_attention_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.window_left = -1;
    desc.window_right = -1;
    return desc;
}

/* Feature bits of an implementation and of a problem. */
#define HEED_ATTENTION_FEATURE_LIST(X)                     \
    X(F32, 0, "f32")                                       \
    X(BF16, 1, "bf16")                                     \
    X(F16, 2, "f16")                                       \
    X(OUT_F32, 3, "f32 output of narrower input")          \
    X(CAUSAL, 4, "causal")                                 \
    X(WINDOW, 5, "window")                                 \
    X(GROUPED, 6, "grouped heads")                         \
    X(LSE, 7, "lse")                                       \
    X(TILES, 8, "tile list")                               \
    X(MERGE, 9, "merge")                                   \
    X(STRIDED_DIM, 10, "strided head dim")                 \
    X(ODD_DIM, 11, "head dims that are no multiple of 16") \
    X(DV, 12, "Dv other than D")                           \
    X(E4M3, 13, "e4m3")                                    \
    X(EXACT_E4M3, 14, "e4m3 with unrounded weights")       \
    X(BIAS, 15, "bias")                                    \
    X(MASK, 16, "mask")                                    \
    X(ALIBI, 17, "alibi slopes")                           \
    X(SOFTCAP, 18, "softcap")                              \
    X(SINKS, 19, "sinks")                                  \
    X(RAGGED, 20, "ragged batches")                        \
    X(LENGTHS, 21, "lengths of keys")                      \
    X(PAGES, 22, "page table")                             \
    X(KV_DTYPE, 23, "keys and values of another type")     \
    X(KV_SCALE, 24, "scales of keys and values")           \
    X(INVARIANT, 25, "batch-invariant results")

#define HEED_ATTENTION_ENUM_(name, bit, text) HEED_ATTENTION_CAN_##name = 1 << bit,
#define HEED_ATTENTION_OR_(name, bit, text)   | 1 << bit
enum {
    HEED_ATTENTION_FEATURE_LIST(HEED_ATTENTION_ENUM_) /* one bit for each line */
    HEED_ATTENTION_CAN_ALL = 0 HEED_ATTENTION_FEATURE_LIST(HEED_ATTENTION_OR_),
    /* What inference adds to plain attention: modifiers, sequences, caches. */
    HEED_ATTENTION_CAN_EXTRA = HEED_ATTENTION_CAN_ALL & ~(HEED_ATTENTION_CAN_BIAS - 1),
    HEED_ATTENTION_CAN_PLAIN = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_EXTRA
};
#undef HEED_ATTENTION_ENUM_
#undef HEED_ATTENTION_OR_

/* heed_plan_create for attention. */
HEED_API HEED_MUST_USE heed_status_t heed_attention_plan(heed_context_t *context,
                                                         const heed_attention_desc_t *desc,
                                                         heed_plan_t **plan);

/* Plan, workspace from the context's allocator, execute on the tensors' data, clean up. For
 * repeated calls keep the plan instead. On a device the workspace is device memory in the order of
 * the default stream, and the call returns when the work is enqueued there; with a tile list it
 * waits until it is done. */
HEED_API HEED_MUST_USE heed_status_t heed_attention(heed_context_t *context,
                                                    const heed_attention_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
