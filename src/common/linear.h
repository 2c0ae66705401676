/* A linear layer over ranks between its checks (linear.c) and its run (linear_run.c). */
#ifndef HD_LINEAR_H
#define HD_LINEAR_H

#include "backend.h"
#include "ranks.h"

#include <heed/linear.h>

typedef struct hd_linear {
    heed_context_t *context;
    heed_comm_t comm;
    heed_linear_desc_t desc;
    heed_tensor_t x, w, bias, out; /* complete */
    hd_axes_t axes[4];
    int64_t m, n, k; /* of the local product */
    /* Of a device, where the communicator carries its memory. */
    const hd_device_calls_t *calls; /* NULL: the host's */
    heed_stream_t stream;
    /* One block in the order of the stream: what multiply wants, and a product that does not go to
     * out. */
    void *block;
    size_t multiply_bytes, product_at;
} hd_linear_t;

static inline heed_device_t hd_linear_device(const hd_linear_t *linear)
{
    return linear->calls ? linear->comm.device : (heed_device_t){HEED_DEVICE_CPU, 0};
}

/* After all ranks have agreed, with the block. */
heed_status_t hd_linear_run(const hd_linear_t *linear);

#endif
