/* Heed: attention of one sequence whose tokens are spread over ranks (context parallelism), by
 * whichever exchange is cheapest. All of them give the results of one attention over all keys, up
 * to rounding, and keep their states in f32.
 *
 * With P ranks, N keys, H query and Hk key heads, D elements of b bytes, a rank sends in all
 *     RING           (P-1)/P 2 N Hk D b      in P-1 steps, each beside the computing of one part
 *     ALL_GATHER     (P-1)/P 2 N Hk D b      a slice of heads at a time, beside the one before;
 *                                            every rank needs memory for the keys of all
 *     ALL_TO_ALL     (P-1)/P^2 N D b (2 H + 2 Hk)   heads for tokens and back, before and after;
 *                                            the work of all ranks is equal whatever the mask
 *     ALL_TO_ALL_RING                        the two in rows and columns: heads are exchanged
 *                                            among `group` ranks, keys go around the P / group
 *                                            ranks of equal places
 *     PASS_Q         (P-1)/P (N D b + N (D + 1) 4) H   queries go around, results come back: for
 *                                            few queries over many keys
 *     TREE           2 reductions of queries x H x (D + 1) f32: every rank has all queries, as in
 *                                            decoding, and gets all results
 * (Liu et al., Ring Attention, 2023; Jacobs et al., DeepSpeed Ulysses, 2023; Fang and Zhao, USP,
 * 2024; Yang et al., Context Parallelism for Scalable Million-Token Inference, 2024; Shyam et al.,
 * Tree Attention, 2024.) */
#ifndef HEED_CONTEXT_PARALLEL_H
#define HEED_CONTEXT_PARALLEL_H

#include "ring.h"

#ifdef __cplusplus
extern "C" {
#endif

#define HEED_CONTEXT_PARALLEL_LIST(X)        \
    X(AUTO, 0, "auto")                       \
    X(RING, 1, "ring")                       \
    X(ALL_GATHER, 2, "all-gather")           \
    X(ALL_TO_ALL, 3, "all-to-all")           \
    X(ALL_TO_ALL_RING, 4, "all-to-all-ring") \
    X(PASS_Q, 5, "pass-q")                   \
    X(TREE, 6, "tree")

typedef enum heed_context_parallel_method {
#define HEED_CONTEXT_PARALLEL_ENUM_(name, value, text) HEED_CONTEXT_PARALLEL_##name = value,
    HEED_CONTEXT_PARALLEL_LIST(HEED_CONTEXT_PARALLEL_ENUM_)
#undef HEED_CONTEXT_PARALLEL_ENUM_
} heed_context_parallel_method_t;

/* Its text in the list above, "?" for an unknown one. Static. */
HEED_API const char *heed_context_parallel_name(heed_context_parallel_method_t method);

/* The fields of heed_ring_desc_t (ring.h) mean the same here, with n rows of queries and m of keys,
 * which differ where `queries` or `everywhere` is set. Zero is the default of every field but the
 * windows. Fields are only ever added at the end. */
typedef struct heed_context_parallel_desc {
    uint32_t struct_size; /* set by heed_context_parallel_desc() */
    heed_context_parallel_method_t method;
    heed_ring_layout_t layout;
    int32_t group; /* ALL_TO_ALL_RING: ranks that exchange heads, a divisor of P; 0: the cheapest */
    int32_t causal;
    float scale;
    int64_t window_left, window_right;
    int64_t tokens;     /* N, keys of all ranks */
    int64_t queries;    /* 0: every token has a query. Else so many, at the last tokens */
    int32_t everywhere; /* 1: every rank has all queries, and gets all of out and lse (TREE); 0:
                           they are spread by layout, the i-th as the i-th of `queries` tokens */
    int32_t whole;
    heed_tensor_t q;   /* [B,n,H,D] */
    heed_tensor_t k;   /* [B,m,Hk,D] */
    heed_tensor_t v;   /* [B,m,Hk,Dv] */
    heed_tensor_t out; /* [B,n,H,Dv] */
    heed_tensor_t lse; /* [B,H,n] */
    heed_tensor_t cu_seqlens;
} heed_context_parallel_desc_t;

static inline heed_context_parallel_desc_t heed_context_parallel_desc(void)
{
#ifdef __cplusplus
    heed_context_parallel_desc_t desc = {};
#else
    heed_context_parallel_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.window_left = desc.window_right = -1;
    return desc;
}

/* Attention of this rank's queries over the keys of all, into out and lse. Called by every rank
 * with its own desc and comm (comm.h); all but memory and strides has to agree, which is found out
 * before tokens move. Transfers go on in a thread of their own while this one and the context's
 * team compute. A context may serve many ranks at once. Memory for packed parts and states comes
 * from the context and is given back; desc and its tensors are used in the call alone.
 *
 * ALL_TO_ALL exchanges whole heads: H has to be a multiple of the ranks (of `group`), and Hk too,
 * or the ranks of Hk, where neighbouring ranks get the same key head.
 *
 * Errors of this rank, after which the others fail too: NULL, STRUCT_SIZE, VALUE, SHAPE, STRIDE,
 * DTYPE, OUT_OF_MEMORY; UNSUPPORTED where the method does not take the problem, or memory is not
 * the host's. COMM where ranks disagree, fail or do not answer in time. Where ranks disagree, out
 * and lse are as they were; after a later failure it is not known what they hold. */
HEED_API HEED_MUST_USE heed_status_t heed_context_parallel_attention(
    heed_context_t *context, const heed_comm_t *comm, const heed_context_parallel_desc_t *desc);

/* What one method is expected to cost the slowest rank. */
typedef struct heed_context_parallel_verdict {
    heed_context_parallel_method_t method;
    int32_t group;        /* ranks that exchange heads: 1 in a ring, all in ALL_TO_ALL */
    int32_t chosen;       /* 1: AUTO takes it, or it was asked for */
    heed_status_t status; /* HEED_OK: it takes the problem */
    char why[160];        /* reason of a refusal, "" otherwise */
    double bytes;         /* that the rank which sends most sends */
    double compute_ns;    /* of the rank that works most, step by step */
    double transfer_ns;   /* of all messages */
    double exposed_ns;    /* of those that no computing hides */
    double total_ns;
    double efficiency; /* of P ranks: computing of an equal share, without messages, over total */
} heed_context_parallel_verdict_t;

/* What AUTO would see with so many ranks whose messages have that rate and latency (0: what is
 * assumed where a communicator does not say: 10 GB/s, 10 us). The rate of computing is that of the
 * attention this context would plan for one rank's share. Only shapes are read, of tensors of any
 * rows, and cu_seqlens. Fills at most `most` verdicts and writes how many there are to *count. Any
 * thread. Errors: those of heed_context_parallel_attention that one rank can find; VALUE for ranks
 * beyond 1024. */
HEED_API HEED_MUST_USE heed_status_t heed_context_parallel_explain(
    heed_context_t *context, int32_t ranks, double bytes_per_second, double latency_ns,
    const heed_context_parallel_desc_t *desc, heed_context_parallel_verdict_t *verdicts,
    int32_t most, int32_t *count);

/* Attention over ranks within this process: `ranks` threads of their own, at most 64, on the whole
 * tensors (desc->whole is 1, everywhere is 0), each with its part of the context's threads. Errors:
 * those of heed_context_parallel_attention, of a rank that failed by itself. */
HEED_API HEED_MUST_USE heed_status_t heed_context_parallel_virtual(
    heed_context_t *context, int32_t ranks, const heed_context_parallel_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
