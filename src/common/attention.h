/* The primitive as kernels see it: views, a visibility, a partial state.
 *
 * A view says where the rows of an operand lie, and is the only place that computes their
 * addresses: strided now; ragged, paged and every-r-th-row views change hd_view_row and nothing
 * else. */
#ifndef HD_ATTENTION_H
#define HD_ATTENTION_H

#include "visibility.h"

typedef struct hd_view {
    char *data; /* NULL: absent */
    heed_dtype_t dtype;
    int64_t batch, row, head, elem; /* strides in bytes */
} hd_view_t;

typedef struct hd_attention {
    hd_view_t q, k, v, out;
    hd_view_t lse; /* elem is unused: one number a row */
    hd_visibility_t visible;
    int64_t batch, queries, keys, heads, key_heads, group;
    int d, dv;
    float scale;
    bool merge; /* (out, lse) hold a state to merge into */
} hd_attention_t;

HD_DEVICE static inline char *hd_view_row(const hd_view_t *view, int64_t batch, int64_t row,
                                          int64_t head)
{
    return view->data + batch * view->batch + row * view->row + head * view->head;
}

/* Whether a row's elements are of that dtype and follow each other. */
static inline bool hd_view_is_plain(const hd_view_t *view, heed_dtype_t dtype)
{
    return view->dtype == dtype && view->elem == hd_dtype_bytes(dtype);
}

static inline hd_view_t hd_view(const heed_tensor_t *tensor, void *data)
{
    hd_view_t view = {.data = (char *)data, .dtype = tensor->dtype};
    int64_t size = hd_dtype_bytes(tensor->dtype);
    view.batch = tensor->strides[0] * size;
    view.row = tensor->strides[1] * size;
    view.head = tensor->strides[2] * size;
    /* An axis of one element may have any stride. */
    view.elem = tensor->shape[3] > 1 ? tensor->strides[3] * size : size;
    return view;
}

/* The primitive of a complete descriptor. data may be NULL: sizes alone. */
static inline hd_attention_t hd_attention(const heed_attention_desc_t *desc, void *const *data)
{
    hd_attention_t a = {.visible = hd_visibility(desc), .scale = desc->scale};
    a.q = hd_view(&desc->q, data ? data[HEED_ATTENTION_Q] : NULL);
    a.k = hd_view(&desc->k, data ? data[HEED_ATTENTION_K] : NULL);
    a.v = hd_view(&desc->v, data ? data[HEED_ATTENTION_V] : NULL);
    a.out = hd_view(&desc->out, data ? data[HEED_ATTENTION_OUT] : NULL);
    if (desc->lse.ndim) {
        a.lse.data = (char *)(data ? data[HEED_ATTENTION_LSE] : NULL);
        a.lse.dtype = HEED_F32;
        a.lse.batch = desc->lse.strides[0] * 4;
        a.lse.head = desc->lse.strides[1] * 4;
        a.lse.row = desc->lse.strides[2] * 4;
    }
    a.batch = desc->q.shape[0];
    a.queries = desc->q.shape[1];
    a.heads = desc->q.shape[2];
    a.d = (int)desc->q.shape[3];
    a.keys = desc->k.shape[1];
    a.key_heads = desc->k.shape[2];
    a.group = a.heads / a.key_heads;
    a.dv = (int)desc->v.shape[3];
    a.merge = desc->merge;
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
