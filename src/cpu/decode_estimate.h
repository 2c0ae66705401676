/* What a decoding call takes, predicted: arithmetic, and reading keys and values. */
#ifndef HD_DECODE_ESTIMATE_H
#define HD_DECODE_ESTIMATE_H

#include "../common/peaks.h"
#include "decode_sizes.h"

/* In flops at the peak of multiply-adds, as measured on Zen 3: a score with its weight, one that is
 * modified, and what loading and converting an element of K or V costs beside its use. */
static const double decode_score_cost = 160, decode_modify_cost = 150;

static double decode_load_cost(heed_dtype_t dtype)
{
    return decode_is_wide(dtype) ? 5 : hd_dtype_bytes(dtype) == 1 ? 8 : 3;
}

/* The matrix unit takes all rows of a tile at once: a block costs what packing it does. As measured
 * on Emerald Rapids. */
static const double decode_unit_cost[2] = {10, 12} /* of an element, bf16 and codes */,
                    decode_unit_score = 130;

static double decode_flops(const hd_attention_t *a, const decode_sizes_t *z, double scores,
                           double reads)
{
    if (z->matrix)
        return scores * decode_unit_score +
               reads * (z->d * decode_unit_cost[a->k.dtype != HEED_BF16] +
                        z->dv * decode_unit_cost[a->v.dtype != HEED_BF16]);
    return scores * (2 * (z->d + z->dv) / 0.9 + decode_score_cost) +
           reads * (z->d * decode_load_cost(a->k.dtype) + z->dv * decode_load_cost(a->v.dtype) +
                    DECODE_KEY_COST);
}

/* Nanoseconds that a row takes beside its keys: a logarithm, and reordering. As measured on
 * Emerald Rapids. */
static double decode_row_ns(const decode_sizes_t *z)
{
    return 60 + 0.3 * (z->d + z->dv);
}

/* Arithmetic, and keys and values from where they lie, of which one hides a part of the other. Of
 * ragged batches only the mean is known. */
static double decode_estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_attention_desc_t *desc = at;
    hd_attention_t a = hd_attention(desc, NULL);
    decode_sizes_t z = decode_sizes(desc, threads);
    bool modified =
        desc->softcap > 0 || desc->bias.ndim || desc->mask.ndim || desc->alibi_slopes.ndim;
    double sequences = (double)hd_max(a.batch, 1), queries = (double)a.queries;
    double keys = sequences * (double)(a.key_heads * z.span);
    if (desc->cu_seqlens_k.ndim)
        keys /= sequences;
    if (desc->cu_seqlens_q.ndim)
        queries /= sequences;
    double passes = ceil(queries / DECODE_QUERIES), rows = queries * (double)a.group;
    double scores = keys * rows, reads = keys * passes;
    double flops = decode_flops(&a, &z, scores, reads);
    if (modified)
        flops += scores * decode_modify_cost;
    double ns = sequences * (double)a.key_heads * rows * decode_row_ns(&z) / z.threads;
    double bytes =
        reads * (double)(a.d * hd_dtype_bytes(a.k.dtype) + a.dv * hd_dtype_bytes(a.v.dtype));
    double arithmetic = flops / hd_f32_rate(&device->peaks, VEC_LANES, z.threads);
    double memory = bytes / hd_read_rate(device, bytes, z.threads);
    double hidden = (z.matrix ? 0.7 : DECODE_HIDDEN) * fmin(arithmetic, memory);
    return ns + arithmetic + memory - hidden + hd_region_ns(device, z.threads) + 200;
}

#endif
