/* What a flash attention call is predicted to take: a roofline over the peaks of heed_peaks_t with
 * the efficiencies that the tiles were measured to reach, and what small problems pay besides:
 * lanes that no query fills, blocks that a mask cuts, packing, tasks that threads cannot share
 * evenly, the start of a team. docs/tuning.md says how the figures were found. */
#ifndef HD_FLASH_ESTIMATE_H
#define HD_FLASH_ESTIMATE_H

#include "flash_sizes.h"

#include "../common/peaks.h"

/* The rate of heed_peaks_t that this kernel's arithmetic is bound by. */
#ifndef FLASH_PEAK
#define FLASH_PEAK f32_portable
#endif

typedef struct flash_cost {
    double wide, narrow; /* of the peak, in tiles of many vectors and of one */
    double score;        /* a score's softmax, as flops at that rate */
    double element;      /* nanoseconds at 100 GFLOP/s for an element of Q in and of out */
    double packed;       /* the same for an element of K or V that is packed */
    double stream;       /* of the read bandwidth, where K and V are not used again */
} flash_cost_t;

static const flash_cost_t flash_cost = {
    .wide = 0.93, .narrow = 0.5, .score = 12, .element = 0.5, .packed = 0.25, .stream = 0.5};

/* Keys that a query sees on average, as far as is known without walking a tile list. */
static double flash_mean_keys(const hd_attention_t *a)
{
    if (a->queries == 0)
        return 0;
    return a->visible.tiles ? (double)a->keys : hd_band_pairs(&a->visible) / (double)a->queries;
}

/* Edges of a band that run through the tiles: the diagonal, and the other side of a window. */
static int flash_edges(const hd_attention_t *a)
{
    const hd_visibility_t *v = &a->visible;
    return (v->right < a->keys) + (v->left < a->keys);
}

/* Nanoseconds of one task of `lanes` queries. */
static double flash_task_ns(const hd_attention_t *a, const flash_cost_t *cost, int64_t lanes,
                            double keys, double peak)
{
    int64_t vectors = hd_ceil_div(lanes, VEC_LANES), loose = vectors % FLASH_TILE;
    double wide = (double)((vectors - loose) * VEC_LANES) * keys;
    double narrow = (double)(loose * VEC_LANES) * keys;
    /* Half of the blocks at an edge, and half a vector of lanes. */
    double cut = flash_edges(a) * (double)(lanes * (lanes + VEC_LANES)) / 2;
    cut = cut < wide ? cut : wide;
    double flops = 2.0 * (a->d + a->dv) + cost->score;
    double elements = (double)lanes * (a->d + a->dv) * cost->element * 100;
    return ((wide - cut) * flops / cost->wide + (narrow + cut) * flops / cost->narrow + elements) /
           peak;
}

/* All that is packed, block by block or before the tasks. */
static double flash_pack_ns(const hd_attention_t *a, const flash_sizes_t *z,
                            const flash_cost_t *cost, double peak)
{
    double rows = (double)(a->batch * a->key_heads * a->keys);
    double elements = (z->pack_k || z->tile_k ? a->d : 0) + (z->pack_v || z->tile_v ? a->dv : 0);
    return rows * elements * cost->packed * 100 / peak;
}

static double flash_estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    hd_attention_t a = hd_attention(at, NULL);
    flash_sizes_t z = flash_sizes(&a, threads);
    const flash_cost_t *cost = &flash_cost;
    double keys = flash_mean_keys(&a), peak = hd_rate(&device->peaks, device->peaks.FLASH_PEAK, 1);
    int64_t heads = a.batch * a.key_heads, folded = a.queries * z.fold;
    double full = flash_task_ns(&a, cost, hd_min(folded, ROWS), keys, peak);
    double last = flash_task_ns(&a, cost, folded - (z.blocks - 1) * ROWS, keys, peak);
    double work = (double)(heads * (z.tasks / hd_max(z.blocks, 1))) *
                  ((double)(z.blocks - 1) * full + (a.queries > 0 ? last : 0));
    /* The last of a team's tasks, on average half done when the others find nothing left. */
    double uneven = z.threads > 1 ? full * (z.threads - 1) / 2 : 0;
    double share = hd_rate(&device->peaks, device->peaks.FLASH_PEAK, z.threads) / peak;
    double compute = (work + uneven + flash_pack_ns(&a, &z, cost, peak)) / share;
    double bytes = (double)(heads * a.keys) * (a.d + a.dv) * (double)hd_dtype_bytes(a.k.dtype);
    double memory = bytes / (cost->stream * hd_read_rate(device, bytes, z.threads));
    return (compute > memory ? compute : memory) + hd_region_ns(device, z.threads) + 200;
}

#endif
