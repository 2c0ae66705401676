#include "kit_attention.h"

#include <math.h>
#include <string.h>

kit_sizes_t kit_attention_sizes(const heed_attention_desc_t *desc)
{
    kit_sizes_t sizes;
    sizes.b = desc->q.shape[0];
    sizes.sq = desc->q.shape[1];
    sizes.sk = desc->k.shape[1];
    sizes.h = desc->q.shape[2];
    sizes.hk = desc->k.shape[2];
    sizes.d = desc->q.shape[3];
    sizes.dv = desc->v.shape[3];
    return sizes;
}

double kit_attention_scale(const heed_attention_desc_t *desc)
{
    return desc->scale != 0 ? (double)desc->scale : 1 / sqrt((double)desc->q.shape[3]);
}

static bool in_tile(const heed_tile_list_t *tiles, int64_t entry, int64_t query, int64_t key)
{
    int32_t mask = tiles->mask ? tiles->mask[entry] : -1;
    if (mask < 0)
        return true;
    int64_t words = tiles->tile_q / 64;
    const uint64_t *bits = tiles->bits + ((int64_t)mask * tiles->tile_k + key) * words;
    return bits[query / 64] >> (query % 64) & 1;
}

/* The pairs that the tile list leaves to query i. */
static void mark_tiles(const heed_tile_list_t *tiles, int64_t b, int64_t h, int64_t i, int64_t sk,
                       uint8_t *sees)
{
    if (tiles->batches == 1)
        b = 0;
    if (tiles->heads == 1)
        h = 0;
    int64_t row = (b * tiles->heads + h) * tiles->rows + i / tiles->tile_q;
    for (int64_t e = tiles->row_start[row]; e < tiles->row_start[row + 1]; e++) {
        int64_t first = (int64_t)tiles->column[e] * tiles->tile_k;
        for (int64_t j = 0; j < tiles->tile_k && first + j < sk; j++)
            sees[first + j] = in_tile(tiles, e, i % tiles->tile_q, j);
    }
}

int64_t kit_attention_sees(const heed_attention_desc_t *desc, int64_t b, int64_t h, int64_t i,
                           uint8_t *sees)
{
    int64_t sq = desc->q.shape[1], sk = desc->k.shape[1], count = 0;
    int64_t position = desc->align == HEED_ALIGN_TOP_LEFT ? i : i + sk - sq;
    memset(sees, !desc->tiles, (size_t)sk);
    if (desc->tiles)
        mark_tiles(desc->tiles, b, h, i, sk, sees);
    for (int64_t j = 0; j < sk; j++) {
        int64_t after = j - position;
        if ((desc->causal && after > 0) || (desc->window_left >= 0 && -after > desc->window_left) ||
            (desc->window_right >= 0 && after > desc->window_right))
            sees[j] = 0;
        count += sees[j];
    }
    return count;
}
