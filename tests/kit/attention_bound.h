/* How far a row may lie from the exact result; attention_bound.c derives it. */
#ifndef KIT_ATTENTION_BOUND_H
#define KIT_ATTENTION_BOUND_H

#include "kit_attention.h"

/* A problem that is judged. */
typedef struct kit_judged {
    const heed_attention_desc_t *desc;
    kit_sizes_t n;
    kit_verdict_t *verdict;
    kit_attention_t x;
    double *k_norm, *v_max; /* [B,Sk,Hk] */
    uint8_t *sees;          /* [Sk] */
    double *exact;          /* [Dv], then weights [Sk] */
    double *rounding;       /* [Dv] of the row, what rounded weights may do to out */
} kit_judged_t;

/* What one row is allowed. */
typedef struct kit_row {
    int64_t b, h, i;
    int64_t keys;    /* that it sees */
    bool finite;     /* all that it sees is a number */
    double old_lse;  /* -inf where nothing is merged */
    double scores;   /* |scale| |q_i| max |k_j| */
    double v_max;    /* of visible values and of the old state */
    double cut;      /* what a score may lose in tensor cores */
    double addend;   /* the largest that is added to a score */
    double sink;     /* -inf: none */
    double out, lse; /* bounds; out without its final rounding */
    double exact_lse;
} kit_row_t;

/* All that the row's b, h and i say of its bounds; judged->sees is that row's afterwards. */
void kit_row_bound(const kit_judged_t *judged, kit_row_t *row);

/* How far an element of out of that type may be from `want`, and lse from its own. */
double kit_row_out_bound(const kit_row_t *row, heed_dtype_t dtype, double want);
double kit_row_lse_bound(const kit_row_t *row, double want);

#endif
