/* Heed: dilated attention.
 *
 * Branch (w, r) cuts the tokens into segments of w and, in each segment, lets the tokens o, o + r,
 * o + 2r, ... see each other. Several branches together see near tokens densely and far ones
 * thinly, for a cost that grows with N: about 4 N D sum(w / r^2) operations a head.
 *
 *     heed_dilated_desc_t desc = heed_dilated_desc();
 *     desc.branches = 3;
 *     memcpy(desc.segments, (int64_t[]){2048, 4096, 8192}, 3 * sizeof(int64_t));
 *     memcpy(desc.rates, (int64_t[]){1, 2, 4}, 3 * sizeof(int64_t));
 *     desc.q = HEED_TENSOR(q, HEED_F32, B, N, H, D);
 *     ...
 *     if (heed_dilated_attention(context, &desc))
 *         fprintf(stderr, "%s\n", heed_last_error());
 *
 * Ding et al., LongNet (2023). Rows are read where they lie: no copy of gathered rows is made. */
#ifndef HEED_DILATED_H
#define HEED_DILATED_H

#include "comm.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Operand order of heed_plan_execute. */
enum {
    HEED_DILATED_Q,
    HEED_DILATED_K,
    HEED_DILATED_V,
    HEED_DILATED_OUT,
    HEED_DILATED_LSE,
    HEED_DILATED_OPERANDS
};

enum { HEED_DILATED_BRANCHES = 16 }; /* at most */

typedef enum heed_dilated_mode {
    /* One softmax over the union of all branches: a key that c branches show counts c times. No
     * token beyond N takes part. This is LongNet's mixture of branches by their lse, exactly. */
    HEED_DILATED_LONGNET = 0,
    /* LongNet as torchscale computes it: rows that fill up a segment are zeros and are not masked;
     * where a rate does not divide its segment, segment s lands at row s * ceil(w/r) * r; an lse of
     * exactly 0 counts as absent. For models trained with it. */
    HEED_DILATED_TORCHSCALE = 1,
    /* Heads are divided among the branches, the first H mod branches of them one head more; each
     * head has one branch, with offset (number of the branch) mod r. */
    HEED_DILATED_GROUPED = 2,
    /* GROUPED as dilated-attention-pytorch 0.2.0 computes it: branch i has the heads i * g .. i * g
     * + g - 1 with its own g, some heads never and some twice; each branch's rows are divided by
     * their sum over all positions, and all by the number of branches. N must be a multiple of
     * every segment. */
    HEED_DILATED_GROUPED_FKODOM = 3
} heed_dilated_mode_t;

/* The offset o of a head in LONGNET and TORCHSCALE, of Hk key heads; query heads take that of their
 * key head. */
typedef enum heed_offset_rule {
    HEED_OFFSET_PAPER = 0,     /* h mod r */
    HEED_OFFSET_TORCHSCALE = 1 /* h / ceil(Hk / r) */
} heed_offset_rule_t;

/* Zero is the default of every field. Fields are only ever added at the end. */
typedef struct heed_dilated_desc {
    uint32_t struct_size; /* set by heed_dilated_desc() */
    heed_dilated_mode_t mode;
    heed_offset_rule_t offset_rule;
    int32_t causal; /* 1: a query sees no later token */
    float scale;    /* 0: 1/sqrt(D) */
    int32_t branches;
    int64_t segments[HEED_DILATED_BRANCHES]; /* w: at least 1, not descending; above N it is N */
    int64_t rates[HEED_DILATED_BRANCHES];    /* r: at least 1; may be larger than w */
    heed_tensor_t q;                         /* [B,N,H,D] f32, bf16, f16; any strides */
    heed_tensor_t k;                         /* [B,N,Hk,D] q's dtype; H a multiple of Hk */
    heed_tensor_t v;                         /* [B,N,Hk,Dv] q's dtype */
    heed_tensor_t out;                       /* [B,N,H,Dv] q's dtype or f32 */
    heed_tensor_t lse; /* [B,H,N] f32, optional; not with GROUPED_FKODOM, whose rows have none */
    int32_t blocks;    /* "ring": into how many blocks it divides the tokens, 0: 4; at most 4096 */
    int32_t unused;    /* padding, whatever it holds */
    const heed_comm_t *comm; /* NULL: the tensors hold all tokens. Else those of this rank */
    int64_t tokens;          /* with comm: N of all ranks; 0 without */
} heed_dilated_desc_t;

/* Implementations. All compute the same function; what one cannot compute it refuses, with a reason
 * that heed_plan_verdict and `heed explain dilated` tell. "auto" takes the lowest estimate.
 *     cpu:standard      the definition in float64, every mode. Slow
 *     cpu:improved      attention on strided views, every mode. Its estimate is the sum of those of
 *                       the attentions that it runs, each by the kernel that is best for it
 *     cpu:ring          the schedule of a ring within one process: each block of queries meets the
 *                       blocks of keys in turn, merged as they come. The same arithmetic as
 *                       improved in more steps, a state of f32 beside a narrower out
 *     cpu:block_sparse  each branch is one attention under a tile list of its lattice. It computes
 *                       every pair of the tiles that a lattice touches: min(r, 64)^2 times the
 *                       arithmetic of a branch, which its estimate says; exact all the same
 *     cpu:distributed   the ring over a communicator: the only one that takes desc.comm
 * LONGNET and GROUPED by all of them, TORCHSCALE and GROUPED_FKODOM by standard and improved. Those
 * two make of branches what is no single softmax: improved then has a branch's rows, and their sum,
 * in f32 in its workspace. In the other modes that is an lse, where the caller wants none, and some
 * MiB a thread.
 *
 * Ranks have neighbouring parts of the tokens: rank r those of heed_ring_runs with
 * HEED_RING_CONTIGUOUS (ring.h). Each makes its own plan, then all execute: descriptors are
 * compared before keys and values go around, and a rank that differs, fails, or does not answer in
 * time is HEED_ERROR_COMM on all others. The communicator must outlive the plan, which one thread
 * at a time executes. A rank whose plan cannot be made should close its end, so that others need
 * not wait.
 *
 * A token that no branch shows anything gives out 0 and lse -inf. Branches are merged in the dtype
 * of out: with bf16 or f16 each merge rounds once. The gradient that fits the forward pass is that
 * of one softmax (all branches share lse and <dout, out>); torchscale's own treats the weights of
 * the branches as constants. */

static inline heed_dilated_desc_t heed_dilated_desc(void)
{
#ifdef __cplusplus
    heed_dilated_desc_t desc = {};
#else
    heed_dilated_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    return desc;
}

/* Feature bits of an implementation and of a problem. */
#define HEED_DILATED_FEATURE_LIST(X)           \
    X(LONGNET, 0, "longnet")                   \
    X(TORCHSCALE, 1, "torchscale")             \
    X(GROUPED, 2, "grouped")                   \
    X(GROUPED_FKODOM, 3, "grouped_fkodom")     \
    X(CAUSAL, 4, "causal")                     \
    X(GROUPED_HEADS, 5, "grouped query heads") \
    X(LSE, 6, "lse")                           \
    X(NARROW, 7, "bf16 and f16")               \
    X(RANKS, 8, "ranks")

#define HEED_DILATED_ENUM_(name, bit, text) HEED_DILATED_CAN_##name = 1 << bit,
#define HEED_DILATED_OR_(name, bit, text)   | 1 << bit
enum {
    HEED_DILATED_FEATURE_LIST(HEED_DILATED_ENUM_) /* one bit for each line */
    HEED_DILATED_CAN_ALL = 0 HEED_DILATED_FEATURE_LIST(HEED_DILATED_OR_)
};
#undef HEED_DILATED_ENUM_
#undef HEED_DILATED_OR_

/* heed_plan_create for dilated attention. */
HEED_API HEED_MUST_USE heed_status_t heed_dilated_attention_plan(heed_context_t *context,
                                                                 const heed_dilated_desc_t *desc,
                                                                 heed_plan_t **plan);

/* Plan, workspace from the context's allocator, execute on the tensors' data, clean up. One
 * implementation by name: heed_plan_create_named(context, "dilated", "ring", &desc, &plan). */
HEED_API HEED_MUST_USE heed_status_t heed_dilated_attention(heed_context_t *context,
                                                            const heed_dilated_desc_t *desc);

#ifdef __cplusplus
}
#endif
#endif
