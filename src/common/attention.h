/* The primitive as kernels see it: views, a visibility, modifiers of scores, a partial state.
 *
 * A kernel loops over the sequences b of the batch, takes what is particular to one from
 * hd_visible, and addresses from hd_view_row with rows counted within the sequence. */
#ifndef HD_ATTENTION_H
#define HD_ATTENTION_H

#include "modifiers.h"

typedef struct hd_attention {
    hd_view_t q, k, v, out;
    hd_view_t lse;           /* elem is unused: one number a row */
    hd_visibility_t visible; /* of every sequence, where all are of one length */
    int64_t batch;           /* sequences */
    int64_t queries, keys;   /* of a sequence at most; of all together where they are ragged */
    int64_t heads, key_heads, group;
    int d, dv;
    float scale;
    bool merge; /* (out, lse) hold a state to merge into */
    bool bottom_right;
    const int32_t *lengths; /* keys in use of each sequence, NULL: all */
    int64_t lengths_step;
    hd_view_t k_scale, v_scale; /* f32, rows as those of k and v; dtype 0: none */
    hd_modifiers_t modifiers;
    int64_t split_keys; /* 0: chosen */
    bool batch_invariant;
} hd_attention_t;

/* ---- one sequence ---------------------------------------------------------------------------- */

/* Length of sequence b where the view is ragged. */
HD_DEVICE static inline int64_t hd_view_length(const hd_view_t *view, int64_t b)
{
    const int32_t *start = view->index + b * view->index_batch;
    return start[view->index_batch] - start[0];
}

HD_DEVICE static inline int64_t hd_queries(const hd_attention_t *a, int64_t b)
{
    return a->q.index ? hd_view_length(&a->q, b) : a->queries;
}

HD_DEVICE static inline int64_t hd_keys(const hd_attention_t *a, int64_t b)
{
    if (a->lengths)
        return a->lengths[b * a->lengths_step];
    return a->k.index && !a->k.page ? hd_view_length(&a->k, b) : a->keys;
}

/* Whether sequences differ from each other in length. */
HD_DEVICE static inline bool hd_is_uneven(const hd_attention_t *a)
{
    return a->q.index || a->lengths || (a->k.index && !a->k.page);
}

/* What the queries of sequence b may see: its lengths are visible.queries and visible.keys. */
HD_DEVICE static inline hd_visibility_t hd_visible(const hd_attention_t *a, int64_t b)
{
    hd_visibility_t visible = a->visible;
    visible.queries = hd_queries(a, b);
    visible.keys = hd_keys(a, b);
    visible.offset = a->bottom_right ? visible.keys - visible.queries : 0;
    return visible;
}

/* Scale of a key's or value's codes. */
HD_DEVICE static inline float hd_scale(const hd_view_t *scale, int64_t b, int64_t row, int64_t head)
{
    return scale->data ? *(const float *)(const void *)hd_view_row(scale, b, row, head) : 1;
}

/* Whether all keys or values of a head have one scale. */
static inline bool hd_scale_is_common(const hd_view_t *scale)
{
    return !scale->data || (!scale->index && scale->row == 0);
}

/* ---- from a descriptor ----------------------------------------------------------------------- */

static inline void *hd_data(void *const *data, int operand)
{
    return data ? data[operand] : NULL;
}

/* Of one number, one a head, or one a row of k or v, whose view is `rows`. */
static inline hd_view_t hd_scale_view(const heed_tensor_t *scale, void *data, const hd_view_t *rows)
{
    hd_view_t view = {.data = (char *)data, .dtype = scale->dtype};
    if (scale->ndim == 1)
        view.head = hd_stride(scale, 0);
    if (scale->ndim != 3)
        return view;
    view = *rows;
    view.data = (char *)data;
    view.dtype = HEED_F32;
    view.batch = scale->strides[0] * 4;
    view.row = scale->strides[1] * 4;
    view.head = scale->strides[2] * 4;
    return view;
}

/* Sequences of their own lengths, and where their rows lie. */
static inline void hd_set_sequences(hd_attention_t *a, const heed_attention_desc_t *desc,
                                    void *const *data)
{
    const heed_tensor_t *starts = &desc->cu_seqlens_q, *table = &desc->page_table;
    if (starts->ndim) {
        const void *at = hd_data(data, HEED_ATTENTION_CU_SEQLENS_Q);
        a->batch = starts->shape[0] - 1;
        hd_view_ragged(&a->q, starts, at);
        hd_view_ragged(&a->out, starts, at);
        hd_view_ragged(&a->lse, starts, at);
    }
    starts = &desc->cu_seqlens_k;
    if (starts->ndim) {
        hd_view_ragged(&a->k, starts, hd_data(data, HEED_ATTENTION_CU_SEQLENS_K));
        hd_view_ragged(&a->v, starts, hd_data(data, HEED_ATTENTION_CU_SEQLENS_K));
    }
    if (table->ndim) {
        const void *at = hd_data(data, HEED_ATTENTION_PAGE_TABLE);
        hd_view_paged(&a->k, table, at, desc->k.shape[1]);
        hd_view_paged(&a->v, table, at, desc->k.shape[1]);
    }
    if (desc->seqlens_k.ndim) {
        a->lengths = (const int32_t *)hd_data(data, HEED_ATTENTION_SEQLENS_K);
        a->lengths_step = desc->seqlens_k.strides[0];
    }
}

/* The primitive of a complete descriptor. data may be NULL: sizes alone. */
static inline hd_attention_t hd_attention(const heed_attention_desc_t *desc, void *const *data)
{
    hd_attention_t a = {.visible = hd_visibility(desc), .scale = desc->scale};
    a.q = hd_view(&desc->q, hd_data(data, HEED_ATTENTION_Q));
    a.k = hd_view(&desc->k, hd_data(data, HEED_ATTENTION_K));
    a.v = hd_view(&desc->v, hd_data(data, HEED_ATTENTION_V));
    a.out = hd_view(&desc->out, hd_data(data, HEED_ATTENTION_OUT));
    if (desc->lse.ndim)
        a.lse = hd_lse_view(&desc->lse, hd_data(data, HEED_ATTENTION_LSE));
    a.batch = desc->q.shape[0];
    a.queries = a.visible.queries;
    a.heads = desc->q.shape[2];
    a.d = (int)desc->q.shape[3];
    a.keys = a.visible.keys;
    a.key_heads = desc->k.shape[2];
    a.group = a.heads / a.key_heads;
    a.dv = (int)desc->v.shape[3];
    a.merge = desc->merge;
    a.bottom_right = desc->align == HEED_ALIGN_BOTTOM_RIGHT;
    a.split_keys = desc->split_keys;
    a.batch_invariant = desc->batch_invariant != 0;
    hd_set_sequences(&a, desc, data);
    a.k_scale = hd_scale_view(&desc->k_scale, hd_data(data, HEED_ATTENTION_K_SCALE), &a.k);
    a.v_scale = hd_scale_view(&desc->v_scale, hd_data(data, HEED_ATTENTION_V_SCALE), &a.v);
    a.modifiers = hd_modifiers(desc, data);
    return a;
}

/* The primitive of a launch: its tile list is the one that was placed where the kernel runs, if one
 * was. Then the list is for the kernel alone: the host's own is in the descriptor. */
static inline hd_attention_t hd_attention_of(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    hd_attention_t a = hd_attention(desc, launch->buffers);
    if (launch->tiles)
        a.visible.tiles = launch->tiles;
    return a;
}

#endif
