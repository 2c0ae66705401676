/* Views: where the rows of an operand lie. The only place that computes their addresses, strided,
 * ragged or paged; a view never copies. */
#ifndef HD_VIEW_H
#define HD_VIEW_H

#include "base.h"

typedef struct hd_view {
    char *data; /* NULL: absent */
    heed_dtype_t dtype;
    int64_t batch, row, head, elem;  /* strides in bytes; with pages, batch is that of pages */
    const int32_t *index;            /* NULL: strides are all; else starts of sequences or pages */
    int64_t index_batch, index_page; /* strides of index in elements */
    int64_t page;                    /* rows of a page, 0: index is starts */
} hd_view_t;

/* No kernel of the CUDA backend takes ragged or paged views: there they would cost registers. */
#if defined(__CUDACC__) || (defined(HD_EMULATED) && defined(__cplusplus))
#define HD_PLAIN_VIEWS 1
#else
#define HD_PLAIN_VIEWS 0
#endif

HD_DEVICE static inline char *hd_view_row(const hd_view_t *view, int64_t batch, int64_t row,
                                          int64_t head)
{
#if !HD_PLAIN_VIEWS
    if (view->index) {
        const int32_t *index = view->index + batch * view->index_batch;
        batch = 0;
        if (view->page) {
            batch = index[row / view->page * view->index_page];
            row %= view->page;
        } else {
            row += *index;
        }
    }
#endif
    return view->data + batch * view->batch + row * view->row + head * view->head;
}

/* How many rows from `row` on, of at most `count`, are view->row apart. */
HD_DEVICE static inline int64_t hd_view_run(const hd_view_t *view, int64_t row, int64_t count)
{
    return view->index && view->page ? hd_min(count, view->page - row % view->page) : count;
}

/* Whether a row's elements are of that dtype and follow each other. */
static inline bool hd_view_is_plain(const hd_view_t *view, heed_dtype_t dtype)
{
    return view->dtype == dtype && view->elem == hd_dtype_bytes(dtype);
}

/* An axis of one element may have any stride; where it serves all, it has none. */
static inline int64_t hd_stride(const heed_tensor_t *tensor, int axis)
{
    return tensor->shape[axis] == 1 ? 0 : tensor->strides[axis] * hd_dtype_bytes(tensor->dtype);
}

static inline hd_view_t hd_view(const heed_tensor_t *tensor, void *data)
{
    hd_view_t view = {.data = (char *)data, .dtype = tensor->dtype};
    int64_t size = hd_dtype_bytes(tensor->dtype);
    view.batch = tensor->strides[0] * size;
    view.row = tensor->strides[1] * size;
    view.head = tensor->strides[2] * size;
    view.elem = tensor->shape[3] > 1 ? tensor->strides[3] * size : size;
    return view;
}

/* Of an lse [B,H,Sq]: one number a row, elem is unused. */
static inline hd_view_t hd_lse_view(const heed_tensor_t *lse, void *data)
{
    hd_view_t view = {.data = (char *)data, .dtype = HEED_F32};
    view.batch = lse->strides[0] * 4;
    view.head = lse->strides[1] * 4;
    view.row = lse->strides[2] * 4;
    return view;
}

/* The rows of sequence b begin at starts[b]. */
static inline void hd_view_ragged(hd_view_t *view, const heed_tensor_t *starts, const void *data)
{
    view->index = (const int32_t *)data;
    view->index_batch = starts->strides[0];
}

static inline void hd_view_paged(hd_view_t *view, const heed_tensor_t *table, const void *data,
                                 int64_t page)
{
    view->index = (const int32_t *)data;
    view->index_batch = table->strides[0];
    view->index_page = table->strides[1];
    view->page = page;
}

#endif
