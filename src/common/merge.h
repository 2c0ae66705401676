/* The one place that knows how partial states merge. */
#ifndef HD_MERGE_H
#define HD_MERGE_H

#include <math.h>
#include <stdint.h>

/* The lse of `count` states -> their weights, which add up to 1, in the same place. Returns the lse
 * of all. -inf is an empty state of weight 0; NaN or +inf makes all NaN. */
static inline double hd_merge_weights(double *states, int64_t count)
{
    double top = -INFINITY, sum = 0;
    for (int64_t p = 0; p < count; p++)
        top = states[p] > top ? states[p] : top;
    for (int64_t p = 0; p < count; p++) {
        states[p] = states[p] == -INFINITY ? 0 : exp(states[p] - top);
        sum += states[p];
    }
    if (sum == 0)
        return -INFINITY;
    for (int64_t p = 0; p < count; p++)
        states[p] /= sum;
    return top + log(sum);
}

#endif
