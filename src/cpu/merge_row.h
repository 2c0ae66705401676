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
    for (int c = 0; c < a->dv; c++) {
        double old = (double)hd_element_load(a->out.dtype, out + c * a->out.elem);
        double now = weights[1] == 0 ? 0 : weights[1] * (double)row[c];
        row[c] = (float)(weights[0] * old + now);
    }
    return merged;
}

#endif
