/* Layers into stages: the least time of the slowest, exactly. */
#include "internal.h"

#include <heed/pipeline.h>

/* Layers between an embedding and a head, as one row of items. */
typedef struct row {
    const int64_t *costs;
    int64_t embedding, head;
    int32_t layers, items; /* with the embedding and the head, where they cost anything */
} row_t;

static int64_t item(const row_t *row, int32_t i)
{
    if (row->embedding && i == 0)
        return row->embedding;
    i -= row->embedding > 0;
    return i < row->layers ? row->costs[i] : row->head;
}

/* Whether `stages` runs of at most `limit` hold all; writes where they begin unless starts is
 * NULL. Each takes as much as it can, but leaves an item for every later one. */
static bool fits(const row_t *row, int32_t stages, int64_t limit, int32_t *starts)
{
    int32_t at = 0;
    for (int32_t stage = 0; stage < stages; stage++) {
        int64_t sum = 0;
        if (starts)
            starts[stage] = at;
        int32_t end = row->items - (stages - 1 - stage);
        while (at < end && item(row, at) <= limit - sum)
            sum += item(row, at++);
    }
    return at == row->items;
}

static heed_status_t check_costs(const row_t *row, int64_t *sum, int64_t *largest)
{
    *sum = *largest = 0;
    if (row->embedding < 0 || row->head < 0)
        return hd_fail(HEED_ERROR_VALUE, "embedding=%lld, head=%lld: a cost is below 0",
                       (long long)row->embedding, (long long)row->head);
    for (int32_t i = 0; i < row->layers; i++)
        if (row->costs[i] < 0)
            return hd_fail(HEED_ERROR_VALUE, "costs[%d]=%lld is below 0", i,
                           (long long)row->costs[i]);
    for (int32_t i = 0; i < row->items; i++) {
        *largest = hd_max(*largest, item(row, i));
        if (!hd_add(*sum, item(row, i), sum) || *sum > INT64_C(1) << 62)
            return hd_fail(HEED_ERROR_VALUE, "the costs add up to more than 2^62");
    }
    return HEED_OK;
}

heed_status_t heed_pipeline_partition(const int64_t *costs, int32_t layers, int64_t embedding,
                                      int64_t head, int32_t stages, int32_t *starts,
                                      int64_t *slowest)
{
    int64_t low, high;
    if (!costs || !starts)
        return hd_fail(HEED_ERROR_NULL, "%s is null", costs ? "starts" : "costs");
    if (layers < 1 || layers > 1 << 24)
        return hd_fail(HEED_ERROR_VALUE, "layers=%d is not 1 to 2^24", layers);
    row_t row = {costs, embedding, head, layers, layers + (embedding > 0) + (head > 0)};
    if (stages < 1 || stages > row.items)
        return hd_fail(HEED_ERROR_VALUE, "stages=%d is not 1 to %d, with layers=%d", stages,
                       row.items, layers);
    HD_TRY(check_costs(&row, &high, &low));
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (fits(&row, stages, middle, NULL))
            high = middle;
        else
            low = middle + 1;
    }
    fits(&row, stages, high, starts);
    for (int32_t stage = 0; stage < stages; stage++)
        starts[stage] = (int32_t)hd_min(hd_max(starts[stage] - (embedding > 0), 0), layers);
    starts[stages] = layers;
    if (slowest)
        *slowest = high;
    return HEED_OK;
}
