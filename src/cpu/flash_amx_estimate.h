/* What a call on the matrix unit is predicted to take: so much for each 32 keys and 32 queries,
 * dots at a share of the unit's peak and exponentials at the rate of f32, one after the other; for
 * each number that is packed; for each task; and for memory, most of which hides behind the
 * arithmetic where the next step is fetched ahead. Fitted to the best times of 61 problems on one
 * Emerald Rapids core, which another machine on its other thread slows down to less than half for
 * a while: a fifth is added (f16: a tenth), so that both speeds are as near as they can be. */
#ifndef HD_FLASH_AMX_ESTIMATE_H
#define HD_FLASH_AMX_ESTIMATE_H

#include "flash_cost.h"
#include "flash_sizes.h"

#include "../common/internal.h"

typedef struct amx_cost {
    double dots;           /* of the peak of tiles, loads and all */
    double score;          /* the others are flops at the rate of f32 */
    double element;        /* of q in and of out */
    double packed, coded;  /* of K and V where they are packed; where they are decoded, besides */
    double narrow;         /* a tile of 16 queries, as a part of one of 32 */
    double task_ns;        /* of a task besides */
    double hidden;         /* of the shorter of arithmetic and memory, where one task walks */
    double margin, masked; /* factors; masked is that of a tile with a mask */
} amx_cost_t;

#if FLASH_PLANES > 1
static const amx_cost_t amx_cost = {.dots = 0.1,
                                    .score = 4,
                                    .element = 50,
                                    .packed = 40,
                                    .narrow = 0.6,
                                    .task_ns = 3000,
                                    .hidden = 0.75,
                                    .margin = 1.1,
                                    .masked = 1.07};
#else
static const amx_cost_t amx_cost = {.dots = 0.35,
                                    .score = 20,
                                    .element = 34,
                                    .packed = 15,
                                    .coded = 27,
                                    .narrow = 0.6,
                                    .task_ns = 300,
                                    .hidden = 0.75,
                                    .margin = 1.22,
                                    .masked = 1.07};
#endif

/* The tiles of a task of `lanes` queries against `keys` keys, in nanoseconds. */
static double amx_task_ns(const hd_attention_t *a, int64_t lanes, double keys, double tile_rate,
                          double f32_rate)
{
    const amx_cost_t *cost = &amx_cost;
    const double dot = 2.0 * AMX_ROWS * AMX_ROWS * AMX_KEYS;
    int64_t vectors = hd_ceil_div(lanes, VEC_LANES);
    double tiles = (double)(vectors / FLASH_TILE) + (double)(vectors % FLASH_TILE) * cost->narrow;
    double dots = 4 * (flash_round(a->d, 32) + flash_round(a->dv, 32)) / 32;
    double once = dots * dot / (tile_rate * cost->dots) +
                  AMX_KEYS * FLASH_TILE * VEC_LANES * cost->score / f32_rate;
    return tiles * once * keys / AMX_KEYS;
}

static double amx_pack_flops(const hd_attention_t *a, const flash_sizes_t *z)
{
    const amx_cost_t *cost = &amx_cost;
    double rows = (double)(a->batch * a->key_heads * a->keys);
    double k = cost->packed + (hd_dtype_bytes(a->k.dtype) == 1 ? cost->coded : 0);
    double v = cost->packed + (hd_dtype_bytes(a->v.dtype) == 1 ? cost->coded : 0);
    return rows * ((z->pack_k || z->tile_k ? a->d * k : 0) + a->dv * v);
}

static double flash_estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    hd_attention_t a = hd_attention(at, NULL);
    flash_sizes_t z = flash_sizes(&a, threads);
    const heed_peaks_t *peaks = &device->peaks;
    if (a.queries == 0)
        return 200;
    double f32 = hd_f32_rate(peaks, VEC_LANES, z.threads), bytes = flash_bytes(&a);
    double tile = hd_rate(peaks, peaks->tile_bf16, z.threads);
    double masked, keys = flash_mean_keys(&a, &masked);
    /* A block at an edge takes as long as a whole one, and half of it is counted already; without
     * edges the last keys are filled up. */
    int edges = flash_edges(&a);
    keys = edges ? keys + HD_BLOCK_KEYS * edges : flash_round(keys, AMX_KEYS);
    int64_t lanes = a.queries * z.fold,
            groups = a.batch * a.key_heads * (z.tasks / hd_max(z.blocks, 1));
    double full = amx_task_ns(&a, hd_min(lanes, ROWS), keys, tile, f32);
    double last = amx_task_ns(&a, lanes - (z.blocks - 1) * ROWS, keys, tile, f32);
    double tiles = (double)groups * ((double)(z.blocks - 1) * full + last);
    tiles *= 1 + (amx_cost.masked - 1) * masked;
    /* The last of a team's tasks, on average half done when the others find nothing left. */
    tiles += (z.threads - 1) * full / 2;
    double beside =
        (double)(groups * lanes) * (a.d + a.dv) * amx_cost.element + amx_pack_flops(&a, &z);
    double other = beside / f32 + (double)(groups * z.blocks) * amx_cost.task_ns / z.threads;
    double memory = bytes / hd_read_rate(device, bytes, z.threads);
    double hidden = z.turns == 1 ? amx_cost.hidden * fmin(tiles, memory) : 0;
    return amx_cost.margin * (tiles + other) + memory - hidden + hd_region_ns(device, z.threads) +
           200;
}

#endif
