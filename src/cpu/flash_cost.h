/* What predictions of kernels made of the tiles of flash_tile.h share: the efficiencies that tiles
 * were measured to reach, keys and bytes of a problem. docs/tuning.md says how they were found. */
#ifndef HD_FLASH_COST_H
#define HD_FLASH_COST_H

#include "flash_rows.h"

#include "../common/peaks.h"
#include "../common/tiles.h"

typedef struct flash_cost {
    double wide, narrow; /* of the peak, in tiles of many vectors and of one */
    double score;        /* a score's softmax, as flops at that rate */
    double element;      /* the same for an element of Q in and of out */
    double packed;       /* the same for an element of K or V that is packed */
    double masked;       /* what a tile with a mask costs beyond a full one, as a part of that */
} flash_cost_t;

#if FLASH_PLANES > 1
/* Three and a half dots of tiles for one. */
static const flash_cost_t flash_cost = {
    .wide = 0.14, .narrow = 0.08, .score = 60, .element = 100, .packed = 60, .masked = 0.07};
#elif FLASH_AMX
/* Of the peak of tiles, which products of full tiles reach, were it not for the exponentials. */
static const flash_cost_t flash_cost = {
    .wide = 0.5, .narrow = 0.3, .score = 150, .element = 300, .packed = 120, .masked = 0.07};
#else
static const flash_cost_t flash_cost = {
    .wide = 0.95, .narrow = 0.6, .score = 28, .element = 40, .packed = 25, .masked = 0.07};
#endif

/* Keys that a query sees on average; of a tile list all those of its tiles, and which part of them
 * is behind a mask. */
static inline double flash_mean_keys(const hd_attention_t *a, double *masked)
{
    *masked = 0;
    if (a->queries == 0)
        return 0;
    return a->visible.tiles ? hd_tiles_mean_keys(&a->visible, masked)
                            : hd_band_pairs(&a->visible) / (double)a->queries;
}

/* Edges of a band that run through the tiles: the diagonal, and the other side of a window. */
static inline int flash_edges(const hd_attention_t *a)
{
    const hd_visibility_t *v = &a->visible;
    if (v->tiles) /* its tiles are counted whole */
        return 0;
    return (v->right < a->keys) + (v->left < a->keys);
}

/* Flops a nanosecond of what this kernel's arithmetic is bound by. */
static inline double flash_peak(const heed_peaks_t *peaks, int threads)
{
    return FLASH_AMX     ? hd_rate(peaks, peaks->tile_bf16, threads)
           : FLASH_PAIRS ? hd_rate(peaks, peaks->dot_bf16, threads)
                         : hd_f32_rate(peaks, VEC_LANES, threads);
}

/* What work beside the products, in flops at the peak, comes to where the dot product is not the
 * twice of multiply-adds that it was measured against. */
static inline double flash_beside(const heed_peaks_t *peaks, int threads)
{
    return FLASH_PAIRS ? flash_peak(peaks, threads) / (2 * hd_f32_rate(peaks, VEC_LANES, threads))
                       : 1;
}

static inline double flash_round(double count, int to)
{
    return ceil(count / to) * to;
}

/* Every operand once. */
static inline double flash_bytes(const hd_attention_t *a)
{
    double keys = (double)(a->batch * a->key_heads * a->keys) * (double)hd_dtype_bytes(a->k.dtype);
    double queries = (double)(a->batch * a->heads * a->queries);
    return keys * (a->d + a->dv) + queries * (a->d * (double)hd_dtype_bytes(a->q.dtype) +
                                              a->dv * (double)hd_dtype_bytes(a->out.dtype));
}

#endif
