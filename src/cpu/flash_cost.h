/* What predictions of kernels made of the tiles of flash_tile.h share: the efficiencies that tiles
 * were measured to reach, keys and bytes of a problem. docs/tuning.md says how they were found. */
#ifndef HD_FLASH_COST_H
#define HD_FLASH_COST_H

#include "flash_rows.h"

#include "../common/peaks.h"
#include "../common/tiles.h"

#if !FLASH_AMX
typedef struct flash_cost {
    double wide, narrow; /* of the peak, in tiles of many vectors and of one */
    double score;        /* a score's softmax, as flops at that rate */
    double element;      /* the same for an element of Q in and of out */
    double packed;       /* the same for an element of K or V that is packed */
    double coded;        /* the same, besides, for one that is looked up in a table */
    double hidden;       /* of the shorter of arithmetic and memory, by the other */
    double masked;       /* what a tile with a mask costs beyond a full one, as a part of that */
} flash_cost_t;

/* What is hidden was measured with AVX-512 on Emerald Rapids, and with AVX2 on Zen 3, where nothing
 * of it showed. */
static const flash_cost_t flash_cost = {.wide = 0.95,
                                        .narrow = 0.6,
                                        .score = 28,
                                        .element = 40,
                                        .packed = 25,
                                        .coded = 170,
                                        .hidden = VEC_LANES == 16 ? 0.75 : 0,
                                        .masked = 0.07};

/* Arithmetic and memory together. */
static inline double flash_both(double arithmetic, double memory)
{
    return arithmetic + memory - flash_cost.hidden * fmin(arithmetic, memory);
}

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

#if !FLASH_AMX
/* Flops a nanosecond of what this kernel's arithmetic is bound by. */
static inline double flash_peak(const heed_peaks_t *peaks, int threads)
{
    return FLASH_PAIRS ? hd_rate(peaks, peaks->dot_bf16, threads)
                       : hd_f32_rate(peaks, VEC_LANES, threads);
}

/* What work beside the products, in flops at the peak, comes to where the dot product is not the
 * twice of multiply-adds that it was measured against. */
static inline double flash_beside(const heed_peaks_t *peaks, int threads)
{
    return FLASH_PAIRS ? flash_peak(peaks, threads) / (2 * hd_f32_rate(peaks, VEC_LANES, threads))
                       : 1;
}
#endif

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
