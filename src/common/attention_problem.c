/* Attention's words: a descriptor to a problem string. attention_words.c goes the other way. */
#include "attention_words.h"
#include "tiles.h"

#include <math.h>
#include <stdio.h>

/* Whether all four tensors lie in this layout; axes of length 1 fit any stride. */
static bool has_layout(const heed_attention_desc_t *desc, int64_t layout)
{
    const heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out};
    int64_t row = desc->q.shape[2] + 2 * desc->k.shape[2], strides[4];
    if (layout == HD_FUSED &&
        (desc->q.shape[1] != desc->k.shape[1] || desc->q.shape[3] != desc->v.shape[3] ||
         desc->q.shape[0] != desc->k.shape[0] || desc->page_table.ndim ||
         desc->q.dtype != desc->k.dtype || desc->q.dtype != desc->v.dtype))
        return false;
    for (int i = 0; i < HD_COUNT(tensors); i++) {
        bool wide = layout == HD_FUSED && i != HEED_ATTENTION_OUT;
        hd_layout_strides(layout, tensors[i]->shape, wide ? row : tensors[i]->shape[2], strides);
        for (int a = 0; a < 4; a++)
            if (tensors[i]->shape[a] > 1 && tensors[i]->strides[a] != strides[a])
                return false;
    }
    if (!desc->lse.ndim)
        return true;
    hd_dense_strides(3, desc->lse.shape, strides);
    for (int a = 0; a < 3; a++)
        if (desc->lse.shape[a] > 1 && desc->lse.strides[a] != strides[a])
            return false;
    return true;
}

static void print_strides(const heed_attention_desc_t *desc, char *text)
{
    const heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out, &desc->lse};
    hd_text_t out = hd_text(text, HD_WORD_TEXT_SIZE);
    for (int i = 0; i < HD_COUNT(tensors); i++)
        for (int a = 0; a < tensors[i]->ndim; a++)
            hd_text_add(&out, "%s%lld", a ? ":" : i ? "/" : "", (long long)tensors[i]->strides[a]);
}

/* Axes of a bias or mask that are not 1, as letters; keys always. */
static void print_pairs(const heed_tensor_t *tensor, char *text)
{
    hd_text_t out = hd_text(text, HD_WORD_TEXT_SIZE);
    if (tensor->ndim && tensor->dtype != HEED_BOOL)
        hd_text_add(&out, "%s:", heed_dtype_name(tensor->dtype));
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] != 1 || i == 3)
            hd_text_add(&out, "%c", "bhqk"[i]);
}

static int64_t word_of_scale(const heed_tensor_t *scale)
{
    return scale->ndim == 0       ? HD_SCALE_NONE
           : scale->ndim == 3     ? HD_SCALE_TOKEN
           : scale->shape[0] == 1 ? HD_SCALE_TENSOR
                                  : HD_SCALE_HEAD;
}

/* Words beyond those of plain attention. */
static void extra_to_words(const heed_attention_desc_t *desc, words_t *words)
{
    bool q = desc->cu_seqlens_q.ndim, k = desc->cu_seqlens_k.ndim;
    words->k_dtype = hd_word_of_stored(desc->k.dtype, desc->q.dtype);
    words->v_dtype = hd_word_of_stored(desc->v.dtype, desc->q.dtype);
    words->softcap = (double)desc->softcap;
    words->off_by_one = desc->off_by_one;
    print_pairs(&desc->bias, words->bias);
    print_pairs(&desc->mask, words->mask);
    words->alibi = desc->alibi_slopes.ndim; /* 1: by head, 2: by batch and head */
    words->sinks = desc->sinks.ndim > 0;
    words->ragged = q && k ? HD_RAGGED_QK : q ? HD_RAGGED_Q : k ? HD_RAGGED_K : HD_RAGGED_NONE;
    words->lens = desc->seqlens_k.ndim > 0;
    words->k_scale = word_of_scale(&desc->k_scale);
    words->v_scale = word_of_scale(&desc->v_scale);
    words->split = desc->split_keys;
    words->invariant = desc->batch_invariant;
    words->unchecked = desc->unchecked;
    words->tiles_optional = desc->tiles_optional;
    if (!desc->page_table.ndim)
        return;
    words->page = desc->k.shape[1];
    words->pages = desc->k.shape[0];
}

void hd_attention_to_words(const void *at, void *to)
{
    const heed_attention_desc_t *desc = at;
    words_t *words = to;
    const int64_t *q = desc->q.shape, *k = desc->k.shape;
    words->dtype = desc->q.dtype;
    words->b = hd_sequences(desc);
    words->sq = q[1];
    words->sk = k[1] * (desc->page_table.ndim ? desc->page_table.shape[1] : 1);
    words->hq = q[2];
    words->hk = k[2];
    words->d = q[3];
    words->dv = desc->v.shape[3];
    words->causal = desc->causal;
    words->align = desc->align;
    words->window[0] = desc->window_left;
    words->window[1] = desc->window_right;
    words->scale = desc->scale == (float)(1 / sqrt((double)q[3])) ? 0 : (double)desc->scale;
    words->out = hd_word_of_output(desc->out.dtype, desc->q.dtype);
    words->lse = desc->lse.ndim > 0;
    words->merge = desc->merge;
    extra_to_words(desc, words);
    words->layout = HD_BSHD;
    while (words->layout < HD_CUSTOM && !has_layout(desc, words->layout))
        words->layout++;
    if (words->layout == HD_CUSTOM)
        print_strides(desc, words->strides);
    if (desc->tiles) {
        int64_t rows = desc->tiles->batches * desc->tiles->heads * desc->tiles->rows;
        snprintf(words->tiles, sizeof(words->tiles), "list:%lld-entries",
                 (long long)desc->tiles->row_start[rows]);
    }
}
