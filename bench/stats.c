/* Condenses samples: medians, because a disturbed sample is far off and must not count by its size.
 */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_percentile(const double *sorted, int count, double p)
{
    if (count < 1)
        return NAN;
    double place = p / 100 * (count - 1);
    int below = (int)place;
    if (below >= count - 1)
        return sorted[count - 1];
    return sorted[below] + (place - below) * (sorted[below + 1] - sorted[below]);
}

bench_stats_t bench_stats(const double *samples, int count)
{
    bench_stats_t stats = {NAN, NAN, NAN, NAN};
    double *sorted;

    if (count < 1)
        return stats;
    sorted = bench_realloc(NULL, (size_t)count * sizeof(*sorted));
    memcpy(sorted, samples, (size_t)count * sizeof(*sorted));
    qsort(sorted, (size_t)count, sizeof(*sorted), ascending);
    stats.min = sorted[0];
    stats.max = sorted[count - 1];
    stats.median = bench_percentile(sorted, count, 50);
    for (int i = 0; i < count; i++)
        sorted[i] = fabs(sorted[i] - stats.median);
    qsort(sorted, (size_t)count, sizeof(*sorted), ascending);
    stats.mad = bench_percentile(sorted, count, 50);
    free(sorted);
    return stats;
}
