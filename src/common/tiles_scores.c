/* heed_block_scores: the checks. */
#include "internal.h"
#include "scores.h"
#include "tiles_build.h"

#include <math.h>

static heed_status_t check_tensor(const heed_tensor_t *from, const char *name, hd_axes_t *axes,
                                  heed_tensor_t *to)
{
    HD_TRY(hd_tensor_complete(name, from, false, to, axes));
    if (to->ndim != 4)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, scores take 4 axes", name, to->ndim);
    if (to->dtype != HEED_F32 && to->dtype != HEED_BF16 && to->dtype != HEED_F16)
        return hd_fail(HEED_ERROR_DTYPE, "%s is %s: scores take f32, bf16, f16", name,
                       heed_dtype_name(to->dtype));
    if (from->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_NO_DEVICE, "%s lies on device %d:%d: scores are made on the CPU",
                       name, from->device.type, from->device.id);
    if (!from->data && hd_tensor_elements(to) > 0)
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    return HEED_OK;
}

static heed_status_t check_shapes(const heed_tiles_grid_t *grid, const heed_tensor_t *q,
                                  const heed_tensor_t *k)
{
    const int64_t want_q[] = {grid->batches, grid->queries, grid->heads, q->shape[3]};
    const int64_t want_k[] = {grid->batches, grid->keys, k->shape[2], q->shape[3]};
    for (int a = 0; a < 4; a++) {
        if (q->shape[a] != want_q[a])
            return hd_fail(HEED_ERROR_SHAPE, "q.shape[%d]=%lld, but grid has %lld", a,
                           (long long)q->shape[a], (long long)want_q[a]);
        if (k->shape[a] != want_k[a])
            return hd_fail(HEED_ERROR_SHAPE, "k.shape[%d]=%lld is not %lld", a,
                           (long long)k->shape[a], (long long)want_k[a]);
    }
    if (k->dtype != q->dtype)
        return hd_fail(HEED_ERROR_DTYPE, "k is %s, but q is %s", heed_dtype_name(k->dtype),
                       heed_dtype_name(q->dtype));
    if (q->shape[3] < 1 || q->shape[3] > 512)
        return hd_fail(HEED_ERROR_SHAPE, "q.shape[3]=%lld: 1 to 512", (long long)q->shape[3]);
    if (k->shape[2] < 1 || q->shape[2] % k->shape[2])
        return hd_fail(HEED_ERROR_SHAPE, "q has %lld heads, which is no multiple of k's %lld",
                       (long long)q->shape[2], (long long)k->shape[2]);
    return HEED_OK;
}

static heed_status_t check_parameters(const heed_block_scores_desc_t *desc)
{
    if ((int)desc->kind < 0 || desc->kind > HEED_SCORE_MAX)
        return hd_fail(HEED_ERROR_VALUE, "desc.kind=%d is no heed_score_kind_t", (int)desc->kind);
    if (!isfinite(desc->scale))
        return hd_fail(HEED_ERROR_VALUE, "desc.scale=%g is not finite", (double)desc->scale);
    if (desc->causal < 0 || desc->causal > 1)
        return hd_fail(HEED_ERROR_VALUE, "desc.causal=%d is not 0 or 1", desc->causal);
    if (desc->align != HEED_ALIGN_BOTTOM_RIGHT && desc->align != HEED_ALIGN_TOP_LEFT)
        return hd_fail(HEED_ERROR_VALUE, "desc.align=%d is no heed_align_t", (int)desc->align);
    if (desc->stride < 0 || desc->stride > 64 || (desc->stride && 64 % desc->stride))
        return hd_fail(HEED_ERROR_VALUE, "desc.stride=%d does not divide 64", desc->stride);
    return HEED_OK;
}

static void set_groups(hd_scores_t *scores, int stride)
{
    if (scores->kind == HEED_SCORE_POOLED) {
        scores->group_q = scores->tile_q;
        scores->group_k = scores->tile_k;
    } else {
        bool single = scores->kind != HEED_SCORE_ANTIDIAGONAL;
        scores->group_q = scores->group_k = single ? 1 : stride ? stride : 16;
        scores->scale /= (float)scores->group_k;
    }
}

heed_status_t heed_block_scores(heed_context_t *context, const heed_tiles_grid_t *grid,
                                const heed_block_scores_desc_t *from, float *scores)
{
    heed_tiles_grid_t full;
    heed_block_scores_desc_t desc;
    heed_tensor_t q, k;
    hd_axes_t axes[2];
    if (!context || !from || !scores)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context ? "context"
                       : !from  ? "desc"
                                : "scores");
    HD_TRY(hd_grid_check(grid, &full));
    HD_TRY(hd_struct_copy(&desc, sizeof(desc), from, sizeof(desc), "desc"));
    HD_TRY(check_tensor(&desc.q, "q", &axes[0], &q));
    HD_TRY(check_tensor(&desc.k, "k", &axes[1], &k));
    HD_TRY(check_shapes(&full, &q, &k));
    HD_TRY(check_parameters(&desc));

    hd_scores_t job = {.kind = desc.kind,
                       .batch = full.batches,
                       .heads = full.heads,
                       .key_heads = k.shape[2],
                       .queries = full.queries,
                       .keys = full.keys,
                       .tile_q = full.tile_q,
                       .tile_k = full.tile_k,
                       .d = (int)q.shape[3],
                       .causal = desc.causal,
                       .scores = scores};
    job.q = hd_view(&q, hd_tensor_data(&desc.q));
    job.k = hd_view(&k, hd_tensor_data(&desc.k));
    job.offset = desc.align == HEED_ALIGN_BOTTOM_RIGHT ? full.keys - full.queries : 0;
    job.scale = desc.scale != 0 ? desc.scale : (float)(1 / sqrt((double)job.d));
    set_groups(&job, desc.stride);
    if (full.queries == 0 || full.keys == 0)
        return HEED_OK;

    int threads = context->devices[0].threads;
    float *scratch = hd_alloc_aligned(context, (size_t)hd_scores_scratch(&job, threads) * 4, 64);
    if (!scratch)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for the keys of %lld tokens in f32",
                       (long long)full.keys);
    hd_scores_run(&job, threads, scratch);
    hd_free(context, scratch);
    return HEED_OK;
}
