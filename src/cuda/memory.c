/* Memory, streams and events of a card, behind hd_device_calls_t. Each call makes the card current
 * for its own length and leaves the caller's as it was. */
#include "../common/backend.h"
#include "cublas.h"
#include "cuda.h"
#include "host.h"

#include <cuda_runtime_api.h>

/* Makes card `id` current, does `call`, makes the former one current, and returns the call's
 * status. */
#define ON_CARD(id, what, call)                                  \
    do {                                                         \
        hd_cuda_scope_t scope;                                   \
        heed_status_t status_ = hd_cuda_use((id), what, &scope); \
        if (status_ != HEED_OK)                                  \
            return status_;                                      \
        cudaError_t error_ = (call);                             \
        hd_cuda_restore(&scope);                                 \
        return hd_cuda_status(error_, (id), what);               \
    } while (0)

static cudaStream_t stream_of(void *native)
{
    return (cudaStream_t)native;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static heed_status_t allocate(int32_t id, size_t bytes, void **memory)
{
    ON_CARD(id, "memory", cudaMalloc(memory, bytes));
}

static heed_status_t give_back(int32_t id, void *memory)
{
    ON_CARD(id, "giving memory back", cudaFree(memory));
}

/* Memory pools came with CUDA 11.2 and are missing on some virtual cards. */
static int has_pools(int32_t id)
{
    int value = 0;
    return cudaDeviceGetAttribute(&value, cudaDevAttrMemoryPoolsSupported, id) == cudaSuccess &&
           value;
}

static heed_status_t allocate_ordered(int32_t id, size_t bytes, void *stream, void **memory)
{
    if (!has_pools(id))
        return allocate(id, bytes, memory);
    ON_CARD(id, "memory", cudaMallocAsync(memory, bytes, stream_of(stream)));
}

static heed_status_t give_back_ordered(int32_t id, void *memory, void *stream)
{
    if (has_pools(id))
        ON_CARD(id, "giving memory back", cudaFreeAsync(memory, stream_of(stream)));
    /* What may still use it has to end first. It is given back even after a failure. */
    cudaError_t error = cudaStreamSynchronize(stream_of(stream));
    heed_status_t status = give_back(id, memory);
    return error == cudaSuccess ? status : hd_cuda_status(error, id, "waiting");
}

static heed_status_t copy(int32_t id, void *to, const void *from, size_t bytes, void *stream)
{
    ON_CARD(id, "a copy", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)));
}

static heed_status_t set(int32_t id, void *memory, int value, size_t bytes, void *stream)
{
    ON_CARD(id, "setting memory", cudaMemsetAsync(memory, value, bytes, stream_of(stream)));
}

static heed_status_t copy_rows(int32_t id, void *to, size_t to_step, const void *from,
                               size_t from_step, size_t bytes, int64_t rows, void *stream)
{
    ON_CARD(id, "a copy of rows",
            cudaMemcpy2DAsync(to, to_step, from, from_step, bytes, (size_t)rows,
                              cudaMemcpyDeviceToDevice, stream_of(stream)));
}

/* ---- streams --------------------------------------------------------------------------------- */

static cudaError_t new_stream(void **stream)
{
    cudaStream_t made = NULL;
    cudaError_t error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    *stream = made;
    return error;
}

static heed_status_t stream_create(int32_t id, void **stream)
{
    ON_CARD(id, "a new stream", new_stream(stream));
}

static heed_status_t stream_destroy(int32_t id, void *stream)
{
    ON_CARD(id, "ending a stream", cudaStreamDestroy(stream_of(stream)));
}

static heed_status_t synchronize(int32_t id, void *stream)
{
    ON_CARD(id, "waiting", cudaStreamSynchronize(stream_of(stream)));
}

/* ---- events ---------------------------------------------------------------------------------- */

static cudaError_t new_event(void **event)
{
    cudaEvent_t made = NULL;
    cudaError_t error = cudaEventCreate(&made);
    *event = made;
    return error;
}

static heed_status_t event_create(int32_t id, void **event)
{
    ON_CARD(id, "a new event", new_event(event));
}

static heed_status_t event_destroy(int32_t id, void *event)
{
    ON_CARD(id, "ending an event", cudaEventDestroy((cudaEvent_t)event));
}

static heed_status_t event_record(int32_t id, void *event, void *stream)
{
    ON_CARD(id, "recording an event", cudaEventRecord((cudaEvent_t)event, stream_of(stream)));
}

static cudaError_t elapsed(void *first, void *last, double *ns)
{
    float ms = 0;
    cudaError_t error = cudaEventSynchronize((cudaEvent_t)last);
    if (error == cudaSuccess)
        error = cudaEventElapsedTime(&ms, (cudaEvent_t)first, (cudaEvent_t)last);
    *ns = (double)ms * 1e6;
    return error;
}

static heed_status_t event_elapsed(int32_t id, void *first, void *last, double *ns)
{
    ON_CARD(id, "reading an event", elapsed(first, last, ns));
}

const hd_device_calls_t hd_cuda_device_calls = {
    .alloc = allocate,
    .free = give_back,
    .alloc_ordered = allocate_ordered,
    .free_ordered = give_back_ordered,
    .copy = copy,
    .set = set,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .synchronize = synchronize,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .event_elapsed = event_elapsed,
    .matmul_rate = hd_cuda_matmul_rate,
    .check = hd_cuda_check,
    .copy_rows = copy_rows,
    .multiply_memory = hd_cuda_gemm_memory,
    .multiply = hd_cuda_gemm,
};
