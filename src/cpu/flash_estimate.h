/* What a flash attention call is predicted to take: a roofline over the peaks of heed_peaks_t with
 * the efficiencies that the tiles were measured to reach, and what small problems pay besides:
 * lanes that no query fills, blocks that a mask cuts, packing, tasks that threads cannot share
 * evenly, the start of a team. docs/tuning.md says how the figures were found. */
#ifndef HD_FLASH_ESTIMATE_H
#define HD_FLASH_ESTIMATE_H

#include "flash_cost.h"
#include "flash_sizes.h"

#include "../common/internal.h"

#if FLASH_AMX
#include "flash_amx_estimate.h"
#else

/* Flops of one query and the keys that it sees: the tiles at the end of a block of keys, and of the
 * value columns, take as long as full ones. */
static double flash_row_flops(const hd_attention_t *a, double keys)
{
    double blocks = floor(keys / HD_BLOCK_KEYS), rest = keys - blocks * HD_BLOCK_KEYS;
    /* Under a band `keys` is a mean, which ends nowhere. */
    if (flash_edges(a) == 0)
        rest = flash_round(rest, FLASH_KEYS);
    double tiled = blocks * flash_round(HD_BLOCK_KEYS, FLASH_KEYS) + rest;
    return 2 * tiled * flash_round(a->d, CELL) +
           keys * (2 * flash_round(a->dv, FLASH_COLUMNS) + flash_cost.score);
}

/* Flops at the peak that one task of `lanes` queries takes as long as. */
static double flash_task_flops(const hd_attention_t *a, int64_t lanes, double keys)
{
    const flash_cost_t *cost = &flash_cost;
    int64_t vectors = hd_ceil_div(lanes, VEC_LANES), loose = vectors % FLASH_TILE;
    double row = flash_row_flops(a, keys), row_key = keys > 0 ? row / keys : 0;
    double wide = (double)((vectors - loose) * VEC_LANES) * row;
    double narrow = (double)(loose * VEC_LANES) * row;
    /* Half of the blocks at an edge, and half a vector of lanes. */
    double cut = flash_edges(a) * (double)(lanes * (lanes + VEC_LANES)) / 2 * row_key;
    cut = cut < wide ? cut : wide;
    return (wide - cut) / cost->wide + (narrow + cut) / cost->narrow +
           (double)lanes * (a->d + a->dv) * cost->element;
}

/* All that is packed, block by block or before the tasks. */
static double flash_pack_flops(const hd_attention_t *a, const flash_sizes_t *z)
{
    const flash_cost_t *cost = &flash_cost;
    double rows = (double)(a->batch * a->key_heads * a->keys);
    double k = cost->packed + (hd_dtype_bytes(a->k.dtype) == 1 ? cost->coded : 0);
    double v = cost->packed + (hd_dtype_bytes(a->v.dtype) == 1 ? cost->coded : 0);
    return rows *
           ((z->pack_k || z->tile_k ? a->d * k : 0) + (z->pack_v || z->tile_v ? a->dv * v : 0));
}

/* Arithmetic, and operands brought in from where they lie. */
static double flash_estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    hd_attention_t a = hd_attention(at, NULL);
    flash_sizes_t z = flash_sizes(&a, threads);
    int64_t lanes = a.queries * z.fold,
            groups = a.batch * a.key_heads * (z.tasks / hd_max(z.blocks, 1));
    if (a.queries == 0)
        return 200;
    double masked, keys = flash_mean_keys(&a, &masked);
    double full = flash_task_flops(&a, hd_min(lanes, ROWS), keys);
    double last = flash_task_flops(&a, lanes - (z.blocks - 1) * ROWS, keys);
    double flops = (double)groups * ((double)(z.blocks - 1) * full + last);
    flops *= 1 + flash_cost.masked * masked;
    /* The last of a team's tasks, on average half done when the others find nothing left. */
    flops += (z.threads - 1) * full / 2 + flash_pack_flops(&a, &z);
    double bytes = flash_bytes(&a);
    return flash_both(flops / flash_peak(&device->peaks, z.threads),
                      bytes / hd_read_rate(device, bytes, z.threads)) +
           hd_region_ns(device, z.threads) + 200;
}

#endif

/* A tile list that only approximates dense attention is of no use where that is faster. */
static int flash_supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = at;
    heed_attention_desc_t dense = *desc;
    double masked;
    if (!desc->tiles || !desc->tiles_optional)
        return 1;
    dense.tiles = NULL;
    double ns = flash_estimate(desc, device, device->threads);
    double dense_ns = flash_estimate(&dense, device, device->threads);
    if (ns < dense_ns)
        return 1;
    hd_attention_t a = hd_attention(desc, NULL), b = hd_attention(&dense, NULL);
    double keys = flash_mean_keys(&a, &masked), all = flash_mean_keys(&b, &masked);
    return hd_refuse(why, HEED_ERROR_UNSUPPORTED,
                     "dense attention is predicted to take %.3g ms, %.3g %% of its tiles %.3g ms",
                     dense_ns * 1e-6, 100 * keys / all, ns * 1e-6);
}

#endif
