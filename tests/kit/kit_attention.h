/* Attention for the kit: what a query may see, computed from the descriptor and from nothing that
 * the library computes. */
#ifndef KIT_ATTENTION_H
#define KIT_ATTENTION_H

#include "kit.h"

/* The sizes of a problem by their names in the formulas. */
typedef struct kit_sizes {
    int64_t b, sq, sk, h, hk, d, dv;
} kit_sizes_t;

kit_sizes_t kit_attention_sizes(const heed_attention_desc_t *desc);

double kit_attention_scale(const heed_attention_desc_t *desc);

/* Sets sees[j] to 1 where query i of head h may see key j, to 0 elsewhere; returns how many it
 * sees. */
int64_t kit_attention_sees(const heed_attention_desc_t *desc, int64_t b, int64_t h, int64_t i,
                           uint8_t *sees);

/* Index into dense [B,S,H,D] elements. */
static inline int64_t kit_at(int64_t b, int64_t i, int64_t h, int64_t s, int64_t heads, int64_t dim)
{
    return ((b * s + i) * heads + h) * dim;
}

/* What is judged, dense [B,S,H,D] and [B,H,Sq]. lse, want_lse, and the old state that was merged
 * into may be NULL. */
typedef struct kit_attention {
    double *q, *k, *v;
    double *out, *lse;
    double *want_out, *want_lse;
    double *old_out, *old_lse;
    bool f16_weights;  /* each weight may have been rounded to f16 on its way into out */
    bool e4m3_weights; /* each weight may have been rounded to e4m3 on its way into out */
} kit_attention_t;

void kit_attention_judge_arrays(const heed_attention_desc_t *desc, const kit_attention_t *arrays,
                                kit_verdict_t *verdict);

/* How far each element of a row of out may move where the weights of the keys with sees[j] are
 * rounded to e4m3 and each score is off by up to `cut`: bound[Dv]. False: out of memory. All that
 * the row sees must be finite. */
bool kit_attention_rounding(const heed_attention_desc_t *desc, const kit_attention_t *arrays,
                            int64_t b, int64_t h, int64_t i, const uint8_t *sees, double cut,
                            double *bound);

/* fill and judge of kit_op_t. */
void kit_attention_fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                        const kit_buffers_t *buffers);
void kit_attention_judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                         heed_problem_t *reference_problem, const kit_buffers_t *reference,
                         kit_verdict_t *verdict);

#endif
