/* Attention for the kit: problems as dense arrays of doubles, and what a query may see, computed
 * from the descriptor and its buffers and from nothing that the library computes. */
#ifndef KIT_ATTENTION_H
#define KIT_ATTENTION_H

#include "kit.h"

/* The sizes of a problem by their names in the formulas. */
typedef struct kit_sizes {
    int64_t b, sq, sk, h, hk, d, dv; /* sq and sk: of the longest sequence */
} kit_sizes_t;

/* ---- sequences (attention_batch.c) ----------------------------------------------------------- */

typedef struct kit_batch {
    kit_sizes_t n;
    int64_t *sq, *sk; /* [B] of each sequence */
} kit_batch_t;

/* Reads the lengths from the buffers, which are by operand. False: out of memory. */
bool kit_batch_read(const heed_attention_desc_t *desc, void *const *data, kit_batch_t *batch);
void kit_batch_free(kit_batch_t *batch);

/* An operand's rows as dense [B,n.sq,H,D] or [B,n.sk,Hk,D], lse as [B,H,n.sq]; 0 where a sequence
 * has none. Keys and values are codes. Gathering gives a new array, NULL: out of memory. */
double *kit_rows_gather(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand,
                        void *const *data);
void kit_rows_scatter(const heed_attention_desc_t *desc, const kit_batch_t *batch, int operand,
                      void *const *data, const double *values);

/* The scale of a key's or value's codes. */
double kit_scale_of(const heed_attention_desc_t *desc, int operand, void *const *data, int64_t b,
                    int64_t j, int64_t h);

/* ---- one problem ----------------------------------------------------------------------------- */

/* What is judged. lse, want_lse, the operands that modify scores, and the old state that was merged
 * into may be NULL. */
typedef struct kit_attention {
    kit_batch_t batch;
    double *q, *k, *v;                    /* values, scales included */
    double *bias, *mask, *slopes, *sinks; /* in the shapes of their operands */
    double *out, *lse;
    double *want_out, *want_lse;
    double *old_out, *old_lse;
    bool f16_weights;   /* each weight may have been rounded to f16 on its way into out */
    bool split_weights; /* each weight may have been rounded to two bf16 */
    bool e4m3_weights;  /* each weight may have been rounded to e4m3 on its way into out */
} kit_attention_t;

/* Fills in the lengths and what modifies scores; then q, k and v too. False: out of memory.
 * kit_attention_free frees all arrays. */
bool kit_attention_read(const heed_attention_desc_t *desc, void *const *data, kit_attention_t *x);
bool kit_attention_gather(const heed_attention_desc_t *desc, void *const *data, kit_attention_t *x);
void kit_attention_free(kit_attention_t *x);

double kit_attention_scale(const heed_attention_desc_t *desc);

/* Sets sees[j] to 1 where query i of head h of sequence b may see key j, to 0 elsewhere, for all
 * n.sk keys; returns how many it sees. (attention_sees.c) */
int64_t kit_attention_sees(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                           int64_t h, int64_t i, uint8_t *sees);

/* The score of a pair from its product; what is added to it; the logit of the head's sink, -inf
 * where it has none. */
double kit_attention_score(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                           int64_t h, int64_t i, int64_t j, double dot);
double kit_attention_addend(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                            int64_t h, int64_t i, int64_t j);
double kit_attention_sink(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t h);

/* Index into dense [B,S,H,D] elements. */
static inline int64_t kit_at(int64_t b, int64_t i, int64_t h, int64_t s, int64_t heads, int64_t dim)
{
    return ((b * s + i) * heads + h) * dim;
}

void kit_attention_judge_arrays(const heed_attention_desc_t *desc, const kit_attention_t *arrays,
                                kit_verdict_t *verdict);

/* How far each element of a row of out may move where the weights of the keys with sees[j] are
 * rounded to e4m3 and each score is off by up to `cut`: bound[Dv]. False: out of memory. All that
 * the row sees must be finite. */
bool kit_attention_rounding(const heed_attention_desc_t *desc, const kit_attention_t *arrays,
                            int64_t b, int64_t h, int64_t i, const uint8_t *sees, double cut,
                            double *bound);

/* ---- inputs ---------------------------------------------------------------------------------- */

/* Lengths, page tables, scales, and operands that modify scores. (attention_extra.c) */
void kit_attention_fill_extra(kit_random_t *random, kit_values_t values,
                              const heed_attention_desc_t *desc, void *const *data);

typedef struct kit_inputs {
    const heed_attention_desc_t *desc;
    kit_sizes_t n;
    kit_attention_t x;
    double *q, *k, *v;
    kit_random_t *random;
} kit_inputs_t;

/* One way of being difficult, or two. (attention_extreme.c) */
void kit_attention_make_extreme(kit_inputs_t *in);

/* NaN or an infinity. */
double kit_attention_junk(kit_random_t *random);

/* draw, fill and judge of kit_op_t. (attention_draw.c, attention_fill.c, attention_judge.c) */
void kit_attention_draw(kit_random_t *random, uint64_t features, char *text, size_t size);
void kit_attention_fill(kit_random_t *random, kit_values_t values, heed_problem_t *problem,
                        const kit_buffers_t *buffers);
void kit_attention_judge(uint64_t features, heed_problem_t *problem, const kit_buffers_t *buffers,
                         heed_problem_t *reference_problem, const kit_buffers_t *reference,
                         kit_verdict_t *verdict);

#endif
