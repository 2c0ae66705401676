/* Ranges, for all that cuts something: shards, layers, batches, the tokens of a ring. */
#ifndef HD_SPLIT_H
#define HD_SPLIT_H

#include "internal.h"

#include <heed/split.h>

/* Part `part` of `parts` of n: the first ones are one larger. n may be less than parts. */
static inline heed_range_t hd_balanced(int64_t n, int64_t parts, int64_t part)
{
    int64_t each = n / parts, more = n % parts;
    return (heed_range_t){part * each + hd_min(part, more), each + (part < more)};
}

/* What heed_split refuses; `what` is the name of n in the sentence. */
heed_status_t hd_split_check(const char *what, int64_t n, int32_t parts, heed_split_policy_t policy,
                             int64_t align);

/* A part of what hd_split_check has let through. */
heed_range_t hd_split_range(int64_t n, int64_t parts, heed_split_policy_t policy, int64_t align,
                            int64_t part);

/* Both, and whether there is such a part. */
heed_status_t hd_split_part(const char *what, int64_t n, int32_t parts, heed_split_policy_t policy,
                            int64_t align, int32_t part, heed_range_t *range);

/* Fills the four collectives of slice alone (shard.c). */
void hd_linear_collectives(heed_linear_kind_t kind, int32_t ranks, int32_t sequence_parallel,
                           heed_linear_slice_t *slice);

#endif
