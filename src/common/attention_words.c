/* Attention's words: a problem string to a descriptor. attention_problem.c goes back. */
#include "attention_words.h"
#include "tiles.h"

#include <heed/tiles.h>

#include <string.h>

static heed_status_t read_strides(const char *text, heed_attention_desc_t *desc)
{
    heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out, &desc->lse};
    char group[160], number[32];
    int count = 0;
    for (; count < HD_COUNT(tensors) && hd_next_item(&text, "/", group, sizeof(group)); count++) {
        const char *at = group;
        int axis = 0;
        int64_t stride;
        for (; hd_next_item(&at, ":", number, sizeof(number)); axis++) {
            if (axis >= tensors[count]->ndim || !hd_parse_int(number, &stride))
                return hd_fail(HEED_ERROR_VALUE, "strides: '%s' is no stride of %s", number,
                               hd_attention_name(count));
            tensors[count]->strides[axis] = stride;
        }
        if (axis != tensors[count]->ndim)
            return hd_fail(HEED_ERROR_VALUE, "strides: %s takes %d", hd_attention_name(count),
                           tensors[count]->ndim);
    }
    if (count < HEED_ATTENTION_LSE)
        return hd_fail(HEED_ERROR_VALUE, "layout=custom needs strides=Q/K/V/OUT[/LSE]");
    return HEED_OK;
}

static heed_tensor_t make_tensor(heed_dtype_t dtype, hd_axes_t *axes, int64_t b, int64_t s,
                                 int64_t h, int64_t d)
{
    memcpy(axes->shape, (int64_t[]){b, s, h, d}, 4 * sizeof(int64_t));
    return heed_tensor(NULL, dtype, 4, axes->shape, axes->strides);
}

/* Whether a tensor of these sizes can be addressed; then no stride of a layout overflows. */
static bool fits(int64_t b, int64_t s, int64_t h, int64_t d)
{
    int64_t count = 0;
    return hd_mul(hd_max(b, 1), hd_max(s, 1), &count) && hd_mul(count, hd_max(h, 1), &count) &&
           hd_mul(count, hd_max(d, 1), &count) && count <= INT64_MAX / 64;
}

/* The sizes that other words follow from. */
typedef struct sizes {
    int64_t b, sq, sk, hq, hk, d, dv; /* sk: room for keys of a sequence, or all packed ones */
    int64_t q_batch, k_batch, k_rows; /* shape[0] of q, shape[0] and [1] of k */
    int64_t table;                    /* pages of a sequence at most */
} sizes_t;

static heed_status_t too_many(const sizes_t *n)
{
    return hd_fail(HEED_ERROR_SHAPE,
                   "b=%lld sq=%lld sk=%lld hq=%lld hk=%lld d=%lld dv=%lld: too many elements to "
                   "address",
                   (long long)n->b, (long long)n->sq, (long long)n->sk, (long long)n->hq,
                   (long long)n->hk, (long long)n->d, (long long)n->dv);
}

static heed_status_t find_sizes(const words_t *words, sizes_t *n)
{
    int64_t ragged = words->ragged, page = words->page;
    bool fused = words->layout == HD_FUSED;
    n->b = words->b;
    n->sq = words->sq;
    n->sk = words->sk < 0 ? n->sq : words->sk;
    n->hq = words->hq;
    n->hk = words->hk < 0 ? n->hq : words->hk;
    n->d = words->d;
    n->dv = words->dv < 0 ? n->d : words->dv;
    n->q_batch = ragged == HD_RAGGED_Q || ragged == HD_RAGGED_QK ? 1 : n->b;
    n->k_batch = ragged == HD_RAGGED_K || ragged == HD_RAGGED_QK ? 1 : n->b;
    n->k_rows = n->sk;
    if (page) {
        n->table = hd_ceil_div(n->sk, page);
        n->k_rows = page;
        if (!hd_mul(n->table, page, &n->sk) || !hd_mul(n->table, n->b, &n->k_batch))
            return too_many(n);
        n->k_batch = words->pages < 0 ? n->k_batch : words->pages;
    }
    if (fused && (page || n->q_batch != n->k_batch || n->sq != n->sk || n->d != n->dv))
        return hd_fail(HEED_ERROR_VALUE, "layout=fused needs sq=sk, d=dv and no pages");
    heed_dtype_t dtype = (heed_dtype_t)words->dtype;
    if (fused && (hd_stored_of(words->k_dtype, dtype) != dtype ||
                  hd_stored_of(words->v_dtype, dtype) != dtype))
        return hd_fail(HEED_ERROR_VALUE, "layout=fused needs k and v of q's type");
    if (words->strides[0] && words->layout != HD_CUSTOM)
        return hd_fail(HEED_ERROR_VALUE, "strides needs layout=custom");
    bool good = fits(n->b, n->sq, n->hq, hd_max(n->d, n->dv)) &&
                fits(n->k_batch, n->k_rows, n->hk, hd_max(n->d, n->dv)) &&
                fits(n->b, n->sk, n->hk, 1) &&
                (!fused || fits(n->b, n->sq, n->hq + 2 * n->hk, n->d));
    return good ? HEED_OK : too_many(n);
}

/* A dense operand with axes of its own. */
static heed_tensor_t dense(hd_storage_t *storage, int operand, heed_dtype_t dtype, int ndim,
                           const int64_t *shape)
{
    hd_axes_t *axes = &storage->axes[operand];
    memcpy(axes->shape, shape, (size_t)ndim * sizeof(int64_t));
    hd_dense_strides(ndim, axes->shape, axes->strides);
    return heed_tensor(NULL, dtype, ndim, axes->shape, axes->strides);
}

/* Axes of a bias or mask: a letter of "bhqk" for each that is not 1, keys always. */
static heed_status_t read_pairs(const char *word, const char *letters, heed_dtype_t dtype,
                                const sizes_t *n, int operand, hd_storage_t *storage,
                                heed_tensor_t *to)
{
    static const char names[] = "bhqk";
    const int64_t lengths[4] = {n->b, n->hq, n->sq, n->sk};
    int64_t shape[4], count = 1;
    const char *at = letters;
    for (int i = 0; i < 4; i++) {
        shape[i] = *at == names[i] ? lengths[i] : 1;
        at += *at == names[i];
        if (!hd_mul(count, hd_max(shape[i], 1), &count))
            return too_many(n);
    }
    if (*at || at == letters || at[-1] != 'k')
        return hd_fail(HEED_ERROR_SYNTAX, "%s: '%.20s' is no part of bhqk that ends in k", word,
                       letters);
    if (count > INT64_MAX / 64)
        return too_many(n);
    *to = dense(storage, operand, dtype, 4, shape);
    return HEED_OK;
}

static heed_status_t read_bias(const words_t *words, const sizes_t *n, hd_storage_t *storage,
                               heed_attention_desc_t *desc)
{
    char name[16];
    heed_dtype_t dtype;
    const char *colon = strchr(words->bias, ':');
    size_t length = colon ? (size_t)(colon - words->bias) : sizeof(name);
    if (length >= sizeof(name))
        return hd_fail(HEED_ERROR_SYNTAX, "bias=%.40s: it takes DTYPE:AXES, like f32:hqk",
                       words->bias);
    memcpy(name, words->bias, length);
    name[length] = 0;
    HD_TRY(heed_dtype_parse(name, &dtype));
    return read_pairs("bias", colon + 1, dtype, n, HEED_ATTENTION_BIAS, storage, &desc->bias);
}

static heed_status_t make_modifiers(const words_t *words, const sizes_t *n, hd_storage_t *storage,
                                    heed_attention_desc_t *desc)
{
    desc->softcap = (float)words->softcap;
    desc->off_by_one = (int32_t)words->off_by_one;
    if (words->bias[0])
        HD_TRY(read_bias(words, n, storage, desc));
    if (words->mask[0])
        HD_TRY(read_pairs("mask", words->mask, HEED_BOOL, n, HEED_ATTENTION_MASK, storage,
                          &desc->mask));
    if (words->alibi) {
        bool each = words->alibi == HD_ALIBI_BATCH;
        const int64_t shape[] = {n->b, n->hq};
        desc->alibi_slopes =
            dense(storage, HEED_ATTENTION_ALIBI_SLOPES, HEED_F32, 1 + each, shape + !each);
    }
    if (words->sinks)
        desc->sinks = dense(storage, HEED_ATTENTION_SINKS, HEED_F32, 1, &n->hq);
    return HEED_OK;
}

static heed_tensor_t make_scale(int64_t word, const sizes_t *n, int operand, hd_storage_t *storage)
{
    const int64_t one = 1, shape[] = {n->k_batch, n->k_rows, n->hk};
    if (word == HD_SCALE_NONE)
        return (heed_tensor_t){0};
    return dense(storage, operand, HEED_F32, word == HD_SCALE_TOKEN ? 3 : 1,
                 word == HD_SCALE_TENSOR ? &one
                 : word == HD_SCALE_HEAD ? &n->hk
                                         : shape);
}

static void make_sequences(const words_t *words, const sizes_t *n, hd_storage_t *storage,
                           heed_attention_desc_t *desc)
{
    const int64_t starts = n->b + 1, table[] = {n->b, n->table};
    if (words->ragged == HD_RAGGED_Q || words->ragged == HD_RAGGED_QK)
        desc->cu_seqlens_q = dense(storage, HEED_ATTENTION_CU_SEQLENS_Q, HEED_I32, 1, &starts);
    if (words->ragged == HD_RAGGED_K || words->ragged == HD_RAGGED_QK)
        desc->cu_seqlens_k = dense(storage, HEED_ATTENTION_CU_SEQLENS_K, HEED_I32, 1, &starts);
    if (words->lens)
        desc->seqlens_k = dense(storage, HEED_ATTENTION_SEQLENS_K, HEED_I32, 1, &n->b);
    if (words->page)
        desc->page_table = dense(storage, HEED_ATTENTION_PAGE_TABLE, HEED_I32, 2, table);
    desc->k_scale = make_scale(words->k_scale, n, HEED_ATTENTION_K_SCALE, storage);
    desc->v_scale = make_scale(words->v_scale, n, HEED_ATTENTION_V_SCALE, storage);
}

/* tiles=text:VISIBILITY, text128:VISIBILITY. A context of its own: what the environment asks of
 * others is not asked here, and its memory is malloc's. */
static heed_status_t read_visibility(const char *text, const sizes_t *n, heed_tile_list_t **tiles)
{
    heed_context_config_t config = heed_context_config();
    heed_tiles_grid_t grid = heed_tiles_grid(n->sq, n->sk);
    heed_context_t *context;
    const char *colon = strchr(text, ':');
    bool wide = strncmp(text, "text128:", 8) == 0;
    if (!colon || (!wide && strncmp(text, "text:", 5) != 0))
        return hd_fail(HEED_ERROR_VALUE, "tiles=%s: text:VISIBILITY, text128:VISIBILITY", text);
    grid.tile_q = grid.tile_k = wide ? 128 : 64;
    config.ignore_environment = 1;
    HD_TRY(heed_context_create(&config, &context));
    heed_status_t status = heed_tiles_from_text(context, &grid, colon + 1, tiles);
    heed_context_destroy(context);
    return status;
}

/* q, k, v, out and lse, in their layout. */
static heed_status_t make_operands(const words_t *words, const sizes_t *n, hd_storage_t *storage,
                                   heed_attention_desc_t *desc)
{
    hd_axes_t *axes = storage->axes;
    heed_dtype_t dtype = (heed_dtype_t)words->dtype;
    int64_t hq = n->hq, hk = n->hk, fused = words->layout == HD_FUSED ? hq + 2 * hk : 0;
    desc->q = make_tensor(dtype, &axes[0], n->q_batch, n->sq, hq, n->d);
    desc->k =
        make_tensor(hd_stored_of(words->k_dtype, dtype), &axes[1], n->k_batch, n->k_rows, hk, n->d);
    desc->v = make_tensor(hd_stored_of(words->v_dtype, dtype), &axes[2], n->k_batch, n->k_rows, hk,
                          n->dv);
    desc->out =
        make_tensor(hd_output_of(words->out, dtype), &axes[3], n->q_batch, n->sq, hq, n->dv);
    hd_layout_strides(words->layout, axes[0].shape, fused ? fused : hq, axes[0].strides);
    hd_layout_strides(words->layout, axes[1].shape, fused ? fused : hk, axes[1].strides);
    hd_layout_strides(words->layout, axes[2].shape, fused ? fused : hk, axes[2].strides);
    hd_layout_strides(words->layout, axes[3].shape, hq, axes[3].strides);
    if (words->lse || words->merge)
        desc->lse = dense(storage, HEED_ATTENTION_LSE, HEED_F32, 3,
                          (const int64_t[]){n->q_batch, hq, n->sq});
    return words->layout == HD_CUSTOM ? read_strides(words->strides, desc) : HEED_OK;
}

heed_status_t hd_attention_from_words(const void *at, void *to, hd_storage_t *storage)
{
    const words_t *words = at;
    heed_attention_desc_t *desc = to;
    sizes_t n = {0};
    HD_TRY(find_sizes(words, &n));
    *desc = heed_attention_desc();
    desc->causal = (int32_t)words->causal;
    desc->align = (heed_align_t)words->align;
    desc->scale = (float)words->scale;
    desc->window_left = words->window[0];
    desc->window_right = words->window[1];
    desc->merge = (int32_t)words->merge;
    desc->split_keys = words->split;
    desc->batch_invariant = (int32_t)words->invariant;
    desc->unchecked = (int32_t)words->unchecked;
    desc->tiles_optional = (int32_t)words->tiles_optional;
    HD_TRY(make_operands(words, &n, storage, desc));
    HD_TRY(make_modifiers(words, &n, storage, desc));
    make_sequences(words, &n, storage, desc);
    if (!words->tiles[0])
        return HEED_OK;
    heed_tile_list_t *tiles = NULL;
    if (strncmp(words->tiles, "text", 4) == 0)
        HD_TRY(read_visibility(words->tiles, &n, &tiles));
    else
        HD_TRY(hd_tiles_parse(words->tiles, n.b, n.hq, n.sq, n.sk, &tiles));
    storage->extra = tiles;
    desc->tiles = tiles;
    return HEED_OK;
}
