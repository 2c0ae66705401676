/* Scores of tiles: what is asked for, between the checks and the arithmetic. */
#ifndef HD_SCORES_H
#define HD_SCORES_H

#include "attention.h"

/* Queries and keys are taken in groups: of `group_q` and `group_k` rows, pooled into one (POOLED),
 * laid end to end (ANTIDIAGONAL; those of q in reverse) or single. */
typedef struct hd_scores {
    hd_view_t q, k;
    heed_score_kind_t kind;
    int64_t batch, heads, key_heads, queries, keys, offset;
    int tile_q, tile_k, d;
    int group_q, group_k;
    bool causal;
    float scale;
    float *scores; /* [batch][heads][rows][columns] */
} hd_scores_t;

/* Floats of scratch for all of a team, and the arithmetic itself. src/cpu/block_scores.c */
int64_t hd_scores_scratch(const hd_scores_t *scores, int threads);
void hd_scores_run(const hd_scores_t *scores, int threads, float *scratch);

#endif
