/* Attention over ranks: what all methods share. A method adds steps when it is prepared, which
 * happens before ranks agree, so that nobody is missing later; then it moves and computes. */
#ifndef HD_CONTEXT_PARALLEL_H
#define HD_CONTEXT_PARALLEL_H

#include "ranks.h"
#include "steps.h"

#include <heed/context_parallel.h>

/* Tokens by position, in the order of the rows that hold them. */
typedef struct hd_tokens {
    heed_ring_run_t runs[2];
    int count;
    int64_t rows;
    int64_t offset; /* position of the first of all, which `whole` tensors begin with */
} hd_tokens_t;

/* Documents packed into one sequence: number d has the positions from starts[d * stride] up to the
 * next start. */
typedef struct hd_documents {
    const int32_t *starts; /* NULL: all tokens are one */
    int64_t stride, count, tokens;
} hd_documents_t;

/* The heads of one member of a group: `count` of the queries, the key_count that belong to them. */
typedef struct hd_deal {
    int64_t count, key_count, key_first;
} hd_deal_t;

typedef struct hd_cp hd_cp_t;

typedef struct hd_cp_method {
    heed_status_t (*prepare)(hd_cp_t *cp); /* adds steps, reserves memory */
    heed_status_t (*run)(hd_cp_t *cp);
} hd_cp_method_t;

struct hd_cp {
    heed_context_t *context;
    heed_comm_t comm;
    heed_context_parallel_desc_t desc; /* with the method and group that were chosen */
    heed_tensor_t q, k, v, out, lse;   /* complete, the caller's */
    hd_axes_t axes[HD_STEP_OPERANDS];
    hd_tokens_t queries, keys; /* this rank's */
    hd_documents_t documents;
    hd_state_t state;
    hd_steps_t steps;
    int64_t *phase_end; /* steps of phase t end there */
    size_t bytes;       /* of memory, so far */
    char *memory;
    char *buffers[HD_STEP_OPERANDS];
    /* Of the methods; places are in bytes from memory. */
    hd_deal_t deal;            /* heads of this rank: all, where they are not exchanged */
    hd_tokens_t group_queries; /* of this rank's group */
    int64_t largest, slices;
    size_t message, state_at, workspace_at, part_at[2], send_at, got_at, heads_at;
};

extern const hd_cp_method_t hd_cp_ring, hd_cp_all_gather, hd_cp_pass_q, hd_cp_tree;

/* ---- who has what (cp_tokens.c) -------------------------------------------------------------- */

/* Ranks in groups of `group`: those that exchange heads. Their tokens together are one or two runs
 * in every layout. */
typedef struct hd_grid {
    int32_t size, group, groups;
    bool striped;
} hd_grid_t;

hd_grid_t hd_grid(heed_ring_layout_t layout, int32_t size, int32_t group);
int32_t hd_grid_rank(const hd_grid_t *grid, int32_t number, int32_t member);
void hd_grid_place(const hd_grid_t *grid, int32_t rank, int32_t *number, int32_t *member);

/* Tokens of group `number`; those of one rank with groups of 1. */
hd_tokens_t hd_grid_tokens(const hd_grid_t *grid, heed_ring_layout_t layout, int32_t number,
                           int64_t tokens, int64_t offset);

/* Tokens of a rank: of the keys, or of the queries. */
hd_tokens_t hd_cp_keys(const heed_context_parallel_desc_t *desc, int32_t size, int32_t rank);
hd_tokens_t hd_cp_queries(const heed_context_parallel_desc_t *desc, int32_t size, int32_t rank);

/* First row of run `number`, and the row of a position that is there. */
int64_t hd_tokens_first(const hd_tokens_t *tokens, int number);
int64_t hd_tokens_row(const hd_tokens_t *tokens, int64_t position);

/* The band between a run of queries and a run of keys of equal distances: row i of the queries sees
 * rows i + low .. i + high of the keys. */
void hd_cp_band(const heed_context_parallel_desc_t *desc, const heed_ring_run_t *queries,
                const heed_ring_run_t *keys, int64_t *low, int64_t *high);

/* What two runs have of one document, and how many of their rows come before. */
typedef struct hd_shared {
    heed_ring_run_t queries, keys;
    int64_t query_row, key_row;
} hd_shared_t;

/* The first document that may have tokens of both, and what they have of document d: false where it
 * and all behind it have none. */
int64_t hd_documents_find(const hd_documents_t *documents, const heed_ring_run_t *queries,
                          const heed_ring_run_t *keys);
bool hd_documents_share(const hd_documents_t *documents, int64_t d, const heed_ring_run_t *queries,
                        const heed_ring_run_t *keys, hd_shared_t *shared);

/* ---- checking (cp_check.c) ------------------------------------------------------------------- */

heed_status_t hd_cp_check(hd_cp_t *cp);

/* Parts of it: the descriptor's numbers, and what tensors of any rows must have in common. */
heed_status_t hd_cp_check_numbers(const hd_cp_t *cp);
heed_status_t hd_cp_check_kinds(const hd_cp_t *cp);

/* desc.cu_seqlens into cp->documents. */
heed_status_t hd_cp_check_documents(hd_cp_t *cp);

/* own is what this rank has found; COMM where another cannot take part or differs. */
heed_status_t hd_cp_agree(const hd_cp_t *cp, heed_status_t own);

/* Deals heads out among a group. False, with the reason, where that cannot be. */
bool hd_cp_deal(int64_t heads, int64_t key_heads, int32_t group, int32_t member, hd_deal_t *deal,
                heed_why_t *why);

/* ---- steps and memory (cp_steps.c) ----------------------------------------------------------- */

/* One side of an attention: tensors, where they begin in their buffers, and which tokens they hold.
 * In `whole` ones a row is a position. */
typedef struct hd_side {
    heed_tensor_t first, second; /* q alone; k and v; out and lse */
    int64_t at[2];
    const hd_tokens_t *tokens;
    bool whole;
} hd_side_t;

/* Adds the steps of these queries over these keys; results are out and lse. Keys may lie further
 * apart than queries. */
heed_status_t hd_cp_add(hd_cp_t *cp, const hd_side_t *queries, const hd_side_t *results,
                        const hd_side_t *keys);

/* Heads first .. first+count-1 of a tensor, `axis` its heads; *at grows by their offset in bytes.
 */
heed_tensor_t hd_cp_heads(const heed_tensor_t *from, int axis, int64_t first, int64_t count,
                          hd_axes_t *axes, int64_t *at);

/* A dense [B,rows,heads,dim] tensor of `like`'s batch, dim and dtype. */
heed_tensor_t hd_cp_dense(const heed_tensor_t *like, int64_t rows, int64_t heads, hd_axes_t *axes);
size_t hd_cp_bytes(const heed_tensor_t *like, int64_t rows, int64_t heads);

/* Rows first, first + distance, ... of a tensor with data, and heads from `head` on. */
typedef struct hd_move {
    const heed_tensor_t *tensor;
    char *data;
    int64_t first, distance, head;
} hd_move_t;

/* Copies `count` rows of `heads` heads between tensors of one dtype. */
void hd_cp_move(const hd_cp_t *cp, const hd_move_t *from, const hd_move_t *to, int64_t count,
                int64_t heads);

/* This rank's rows of the caller's tensor, heads first .., into dense memory; returns its end. */
char *hd_cp_pack(const hd_cp_t *cp, const heed_tensor_t *tensor, void *data,
                 const hd_tokens_t *tokens, int64_t head, int64_t heads, char *to);

/* The other way: dense rows to this rank's rows of the caller's tensor, heads `head` and on. */
void hd_cp_unpack(const hd_cp_t *cp, const heed_tensor_t *dense, char *from,
                  const hd_tokens_t *tokens, const heed_tensor_t *tensor, void *data, int64_t head);

/* Room for so many bytes in the memory that hd_cp_allocate gets. */
size_t hd_cp_reserve(hd_cp_t *cp, size_t bytes);
heed_status_t hd_cp_allocate(hd_cp_t *cp);

/* The steps since the last phase are one. Phases are numbered from 0. */
heed_status_t hd_cp_phases(hd_cp_t *cp, int64_t count);
heed_status_t hd_cp_run_phase(hd_cp_t *cp, int64_t phase);

/* The state in its memory, empty; its rows to the caller's. */
void hd_cp_begin(hd_cp_t *cp);
void hd_cp_end(hd_cp_t *cp);

/* The descriptor of a ring as one of attention over ranks. */
void hd_ring_describe(const heed_ring_desc_t *ring, heed_context_parallel_desc_t *parallel);

/* ---- heads for tokens (cp_exchange.c) -------------------------------------------------------- */

/* The members of this rank's group deal out q, k, v: after it buffers[Q] has the group's queries,
 * part 0 its keys and values, of this rank's heads. And the results back. */
void hd_cp_exchange_prepare(hd_cp_t *cp);
heed_status_t hd_cp_exchange_in(hd_cp_t *cp);
heed_status_t hd_cp_exchange_out(hd_cp_t *cp);

/* ---- which method (cp_model.c) --------------------------------------------------------------- */

/* Fills at most `most` verdicts, one for each method and group; *count of them there are. The
 * tensors of cp count by batch, heads, elements and dtype alone. None is chosen yet. */
heed_status_t hd_cp_verdicts(const hd_cp_t *cp, heed_context_parallel_verdict_t *verdicts, int most,
                             int *count);

/* Method and group of the cheapest into cp->desc, the same on all ranks, which all call this. */
heed_status_t hd_cp_choose(hd_cp_t *cp);

#endif
