#include "kit_attention.h"

#include <math.h>
#include <string.h>

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

/* Position of query i on the axis of keys. */
static int64_t position_of(const heed_attention_desc_t *desc, const kit_batch_t *batch, int64_t b,
                           int64_t i)
{
    return desc->align == HEED_ALIGN_TOP_LEFT ? i : i + batch->sk[b] - batch->sq[b];
}

/* Number of a pair in a bias or mask whose axes of length 1 serve all. */
static int64_t pair_at(const heed_tensor_t *tensor, int64_t b, int64_t h, int64_t i, int64_t j)
{
    const int64_t *shape = tensor->shape;
    int64_t at = shape[0] == 1 ? 0 : b;
    at = at * shape[1] + (shape[1] == 1 ? 0 : h);
    at = at * shape[2] + (shape[2] == 1 ? 0 : i);
    return at * shape[3] + j;
}

int64_t kit_attention_sees(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                           int64_t h, int64_t i, uint8_t *sees)
{
    int64_t sk = x->batch.sk[b], position = position_of(desc, &x->batch, b, i), count = 0;
    memset(sees, 0, (size_t)x->batch.n.sk);
    memset(sees, !desc->tiles, (size_t)sk);
    if (desc->tiles)
        mark_tiles(desc->tiles, b, h, i, sk, sees);
    for (int64_t j = 0; j < sk; j++) {
        int64_t after = j - position;
        if ((desc->causal && after > 0) || (desc->window_left >= 0 && -after > desc->window_left) ||
            (desc->window_right >= 0 && after > desc->window_right) ||
            (x->mask && x->mask[pair_at(&desc->mask, b, h, i, j)] == 0) ||
            (x->bias && x->bias[pair_at(&desc->bias, b, h, i, j)] == -INFINITY))
            sees[j] = 0;
        count += sees[j];
    }
    return count;
}

double kit_attention_addend(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                            int64_t h, int64_t i, int64_t j)
{
    double sum = x->bias ? x->bias[pair_at(&desc->bias, b, h, i, j)] : 0;
    if (x->slopes) {
        int64_t row = desc->alibi_slopes.ndim == 2 ? b * x->batch.n.h : 0;
        sum -= x->slopes[row + h] * fabs((double)(position_of(desc, &x->batch, b, i) - j));
    }
    return sum;
}

double kit_attention_score(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t b,
                           int64_t h, int64_t i, int64_t j, double dot)
{
    double score = dot * kit_attention_scale(desc), cap = (double)desc->softcap;
    if (cap > 0)
        score = cap * tanh(score / cap);
    return score + kit_attention_addend(desc, x, b, h, i, j);
}

double kit_attention_sink(const heed_attention_desc_t *desc, const kit_attention_t *x, int64_t h)
{
    double sink = x->sinks ? x->sinks[h] : -INFINITY;
    return !desc->off_by_one ? sink : fmax(sink, 0) + log(exp(-fabs(sink)) + 1);
}
