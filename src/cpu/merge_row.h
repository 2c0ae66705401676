/* A finished row of attention into the state that is there. */
#ifndef HD_MERGE_ROW_H
#define HD_MERGE_ROW_H

#include "rows.h"

#include "../common/merge.h"

/* Merges a finished row with the state that is there, and returns the new lse. */
HD_NOINLINE double merge_row(const hd_attention_t *a, const char *out, const char *lse_at,
                             float *row, double lse)
{
    float old_lse;
    memcpy(&old_lse, lse_at, sizeof(old_lse));
    if (old_lse == -INFINITY) /* nothing there: whatever out holds is not looked at */
        return lse;
    double weights[] = {(double)old_lse, lse}, merged = hd_merge_weights(weights, 2);
    float old[512];
    row_to_f32(&a->out, out, a->dv, old);
    if (weights[1] == 0) /* the row may hold anything */
        memset(row, 0, (size_t)a->dv * sizeof(float));
    for (int c = 0; c < a->dv; c++)
        row[c] = (float)(weights[0] * (double)old[c] + weights[1] * (double)row[c]);
    return merged;
}

#endif
