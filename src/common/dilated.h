/* The branches of dilated attention: which head has which offset, which tokens lie on a lattice. */
#ifndef HD_DILATED_H
#define HD_DILATED_H

#include "base.h"

/* Some key heads of one branch that have the same offset. */
typedef struct hd_piece {
    int branch;
    int64_t segment, rate, offset; /* segment is at most N */
    int64_t pitch;                 /* rows between results of segments: segment, or where
                                      torchscale puts them */
    int64_t first, step, count;    /* key heads first, first + step, ... */
} hd_piece_t;

/* What schedules over attention do: modes that are one softmax, over tokens of one rank. */
#define HD_DILATED_EXACT    \
    (HEED_DILATED_CAN_ALL & \
     ~(HEED_DILATED_CAN_TORCHSCALE | HEED_DILATED_CAN_GROUPED_FKODOM | HEED_DILATED_CAN_RANKS))

/* N: the tensors' tokens, or with ranks those of all. */
static inline int64_t hd_dilated_tokens(const heed_dilated_desc_t *desc)
{
    return desc->comm ? desc->tokens : desc->q.shape[1];
}

static inline bool hd_dilated_mixes(const heed_dilated_desc_t *desc)
{
    return desc->mode == HEED_DILATED_LONGNET || desc->mode == HEED_DILATED_TORCHSCALE;
}

/* Whether a row is shown something by one branch at most, so that nothing has to be merged. */
static inline bool hd_dilated_alone(const heed_dilated_desc_t *desc)
{
    return desc->mode == HEED_DILATED_GROUPED || desc->branches == 1;
}

static inline int64_t hd_dilated_segment(const heed_dilated_desc_t *desc, int branch)
{
    return hd_max(hd_min(desc->segments[branch], hd_dilated_tokens(desc)), 1);
}

/* Query heads of a branch in the modes that divide heads: [*first, *end). */
static inline void hd_dilated_group(const heed_dilated_desc_t *desc, int branch, int64_t *first,
                                    int64_t *end)
{
    int64_t heads = desc->q.shape[2], each = heads / desc->branches, more = heads % desc->branches;
    int64_t size = each + (branch < more);
    if (desc->mode == HEED_DILATED_GROUPED_FKODOM) {
        *first = hd_min(branch * size, heads);
        *end = hd_min(*first + size, heads);
    } else {
        *first = branch * each + hd_min(branch, more);
        *end = *first + size;
    }
}

/* Offset of a key head in the modes that mix branches. */
static inline int64_t hd_dilated_offset(const heed_dilated_desc_t *desc, int branch, int64_t head)
{
    int64_t rate = desc->rates[branch], heads = desc->k.shape[2];
    return desc->offset_rule == HEED_OFFSET_PAPER ? head % rate : head / hd_ceil_div(heads, rate);
}

/* Tokens of a segment of that length on the lattice. */
static inline int64_t hd_lattice_count(int64_t length, int64_t rate, int64_t offset)
{
    return offset < length ? hd_ceil_div(length - offset, rate) : 0;
}

#endif
