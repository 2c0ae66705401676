/* The steps of dilated attention: each branch is attention on strided views, where a segment is a
 * batch entry, every r-th row a row, and heads of one offset the heads. */
#ifndef HD_DILATED_STEPS_H
#define HD_DILATED_STEPS_H

#include "dilated.h"
#include "steps.h"

/* A part of the work: some queries over some keys, tokens in a row. Row 0 of q, of out and of lse
 * is token query_base; that of k and v key_base. */
typedef struct hd_dilated_part {
    const heed_dilated_desc_t *desc;
    heed_tensor_t q, k, v;
    const hd_state_t *state; /* out and lse */
    int64_t query_base, key_base;
    int64_t query_first, query_end, key_first, key_end; /* tokens */
} hd_dilated_part_t;

/* All queries over all keys. */
hd_dilated_part_t hd_dilated_whole(const heed_dilated_desc_t *desc, const hd_state_t *state);

/* Calls `each` for every group of key heads that have one offset in the branch. */
typedef heed_status_t hd_piece_fn_t(void *arg, const hd_piece_t *piece);
heed_status_t hd_dilated_pieces(const heed_dilated_desc_t *desc, int branch, hd_piece_fn_t *each,
                                void *arg);

/* Adds the attention of the piece's heads in `segments` whole segments from token `first` on, each
 * `tokens` long at most; where tiles are given only what they leave visible. merge 0: rows are
 * written, not merged into. */
heed_status_t hd_dilated_square(heed_context_t *context, hd_steps_t *steps,
                                const hd_dilated_part_t *part, const hd_piece_t *piece,
                                const heed_tile_list_t *tiles, int64_t first, int64_t segments,
                                int64_t tokens, bool merge);

/* Adds what a branch shows the part's queries of its keys. merge may be false only where queries
 * and keys are the same tokens. */
heed_status_t hd_dilated_branch(heed_context_t *context, hd_steps_t *steps,
                                const hd_dilated_part_t *part, int branch, bool merge);

#endif
