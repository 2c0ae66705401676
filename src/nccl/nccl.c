/* The NCCL transport: memory of one CUDA device a rank. Messages are kept until wait, which starts
 * them as one group, as NCCL wants, and asks the stream until a deadline. Collectives are NCCL's.
 * It has compiled; no machine has run it. */
#define _POSIX_C_SOURCE 200809L
#include "transport.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct message {
    void *data;
    size_t bytes;
    int other;
    bool receives;
} message_t;

typedef struct end {
    ncclComm_t comm;
    cudaStream_t stream;
    int rank, size, device, timeout_ms;
    bool own; /* the communicator was made here */
    bool broken;
    char why[200];
    int count, room;
    message_t *messages;
    void *token; /* a byte of the device, for barriers */
} end_t;

static const hd_host_t *host;

__attribute__((format(printf, 2, 3))) static heed_status_t fail(heed_status_t status,
                                                                const char *format, ...)
{
    char sentence[300];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    return host->fail(status, sentence);
}

/* For good: what is under way is aborted, which is all that NCCL can do then. */
static heed_status_t break_off(end_t *end, const char *what)
{
    if (!end->broken) {
        end->broken = true;
        snprintf(end->why, sizeof(end->why), "rank %d of %d %s", end->rank, end->size, what);
        if (end->own)
            ncclCommAbort(end->comm);
    }
    return host->fail(HEED_ERROR_COMM, end->why);
}

static heed_status_t nccl_result(end_t *end, ncclResult_t result)
{
    char what[160];
    if (end->broken)
        return host->fail(HEED_ERROR_COMM, end->why);
    if (result == ncclSuccess || result == ncclInProgress)
        return HEED_OK;
    snprintf(what, sizeof(what), "has an error of NCCL: %.120s", ncclGetErrorString(result));
    return break_off(end, what);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static heed_status_t until_done(end_t *end)
{
    const struct timespec nap = {0, 20000};
    double start = now_ms();
    for (cudaError_t state; (state = cudaStreamQuery(end->stream)) != cudaSuccess;) {
        ncclResult_t result = ncclSuccess;
        if (state != cudaErrorNotReady) {
            char what[160];
            snprintf(what, sizeof(what), "has an error of CUDA: %.120s", cudaGetErrorString(state));
            return break_off(end, what);
        }
        ncclCommGetAsyncError(end->comm, &result);
        heed_status_t status = nccl_result(end, result);
        if (status != HEED_OK)
            return status;
        if (end->timeout_ms && now_ms() - start > end->timeout_ms)
            return break_off(end, "waited longer than the time-out for another");
        nanosleep(&nap, NULL);
    }
    return HEED_OK;
}

/* ---- messages -------------------------------------------------------------------------------- */

static heed_status_t keep(end_t *end, message_t message)
{
    if (end->broken)
        return host->fail(HEED_ERROR_COMM, end->why);
    if (message.other < 0 || message.other >= end->size)
        return fail(HEED_ERROR_VALUE, "rank %d is not 0 to %d", message.other, end->size - 1);
    if (end->count == end->room) {
        int room = end->room ? 2 * end->room : 16;
        message_t *more = realloc(end->messages, (size_t)room * sizeof(*more));
        if (!more)
            return fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %d messages", room);
        end->messages = more;
        end->room = room;
    }
    end->messages[end->count++] = message;
    return HEED_OK;
}

static heed_status_t send(void *user, int32_t to, const void *data, size_t bytes)
{
    return keep(user, (message_t){(void *)(uintptr_t)data, bytes, to, false});
}

static heed_status_t recv(void *user, int32_t from, void *data, size_t bytes)
{
    return keep(user, (message_t){data, bytes, from, true});
}

static ncclResult_t start_all(const end_t *end)
{
    ncclResult_t result = ncclGroupStart();
    for (int i = 0; i < end->count && result == ncclSuccess; i++) {
        const message_t *at = &end->messages[i];
        result = at->receives
                     ? ncclRecv(at->data, at->bytes, ncclUint8, at->other, end->comm, end->stream)
                     : ncclSend(at->data, at->bytes, ncclUint8, at->other, end->comm, end->stream);
    }
    ncclResult_t ended = ncclGroupEnd();
    return result == ncclSuccess ? ended : result;
}

/* The calling thread may be another than the one that opened. */
static heed_status_t enter(end_t *end)
{
    if (end->broken)
        return host->fail(HEED_ERROR_COMM, end->why);
    cudaError_t error = cudaSetDevice(end->device);
    if (error != cudaSuccess)
        return fail(HEED_ERROR_DEVICE, "cudaSetDevice(%d): %s", end->device,
                    cudaGetErrorString(error));
    return HEED_OK;
}

static heed_status_t wait_all(void *user)
{
    end_t *end = user;
    heed_status_t status = enter(end);
    if (status == HEED_OK && end->count)
        status = nccl_result(end, start_all(end));
    end->count = 0;
    return status == HEED_OK ? until_done(end) : status;
}

/* ---- collectives ----------------------------------------------------------------------------- */

static heed_status_t finish(end_t *end, ncclResult_t result)
{
    heed_status_t status = nccl_result(end, result);
    return status == HEED_OK ? until_done(end) : status;
}

/* A reduction of one byte that nobody reads. */
static heed_status_t barrier(void *user)
{
    end_t *end = user;
    heed_status_t status = enter(end);
    if (status != HEED_OK)
        return status;
    return finish(
        end, ncclAllReduce(end->token, end->token, 1, ncclUint8, ncclMax, end->comm, end->stream));
}

static bool type_of(heed_dtype_t dtype, ncclDataType_t *type)
{
    switch (dtype) {
    case HEED_F32:
        *type = ncclFloat32;
        return true;
    case HEED_F64:
        *type = ncclFloat64;
        return true;
    case HEED_F16:
        *type = ncclFloat16;
        return true;
    case HEED_BF16:
        *type = ncclBfloat16;
        return true;
    case HEED_I32:
        *type = ncclInt32;
        return true;
    case HEED_I64:
        *type = ncclInt64;
        return true;
    default:
        return false;
    }
}

static ncclRedOp_t operator_of(heed_reduce_t reduce)
{
    return reduce == HEED_REDUCE_SUM ? ncclSum : reduce == HEED_REDUCE_MAX ? ncclMax : ncclMin;
}

static heed_status_t all_gather(void *user, const void *own, size_t bytes, void *all)
{
    end_t *end = user;
    heed_status_t status = enter(end);
    if (status != HEED_OK)
        return status;
    return finish(end, ncclAllGather(own, all, bytes, ncclUint8, end->comm, end->stream));
}

static heed_status_t all_to_all(void *user, const void *parts, size_t bytes, void *got)
{
    end_t *end = user;
    for (int r = 0; r < end->size; r++) {
        heed_status_t status = send(user, r, (const char *)parts + (size_t)r * bytes, bytes);
        if (status == HEED_OK)
            status = recv(user, r, (char *)got + (size_t)r * bytes, bytes);
        if (status != HEED_OK)
            return status;
    }
    return wait_all(user);
}

static heed_status_t all_reduce(void *user, heed_dtype_t dtype, heed_reduce_t reduce, size_t count,
                                void *data)
{
    end_t *end = user;
    ncclDataType_t type;
    heed_status_t status = enter(end);
    if (status != HEED_OK)
        return status;
    if (!type_of(dtype, &type))
        return fail(HEED_ERROR_DTYPE, "NCCL does not reduce this dtype");
    return finish(
        end, ncclAllReduce(data, data, count, type, operator_of(reduce), end->comm, end->stream));
}

static heed_status_t reduce_scatter(void *user, heed_dtype_t dtype, heed_reduce_t reduce,
                                    size_t count, const void *parts, void *own)
{
    end_t *end = user;
    ncclDataType_t type;
    heed_status_t status = enter(end);
    if (status != HEED_OK)
        return status;
    if (!type_of(dtype, &type))
        return fail(HEED_ERROR_DTYPE, "NCCL does not reduce this dtype");
    return finish(end, ncclReduceScatter(parts, own, count, type, operator_of(reduce), end->comm,
                                         end->stream));
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* Rank 0's id to all, by messages of the other communicator: from rank r to r + 1. */
static heed_status_t spread_id(const heed_comm_t *over, ncclUniqueId *id)
{
    heed_status_t status = HEED_OK;
    if (over->rank == 0 && ncclGetUniqueId(id) != ncclSuccess)
        return fail(HEED_ERROR_COMM, "NCCL gives no id");
    if (over->rank > 0)
        status = over->recv(over->user, over->rank - 1, id, sizeof(*id));
    if (status == HEED_OK && over->rank > 0)
        status = over->wait(over->user);
    if (status == HEED_OK && over->rank + 1 < over->size)
        status = over->send(over->user, over->rank + 1, id, sizeof(*id));
    if (status == HEED_OK && over->rank + 1 < over->size)
        status = over->wait(over->user);
    return status;
}

/* Without blocking, so that a rank that does not come is a time-out. */
static heed_status_t make(end_t *end, const heed_comm_t *over)
{
    const struct timespec nap = {0, 1000000};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    double start = now_ms();
    memset(&id, 0, sizeof(id));
    heed_status_t status = spread_id(over, &id);
    if (status != HEED_OK)
        return status;
    config.blocking = 0;
    end->rank = over->rank;
    end->size = over->size;
    end->own = true;
    ncclResult_t result = ncclCommInitRankConfig(&end->comm, over->size, id, over->rank, &config);
    while (result == ncclInProgress) {
        if (end->timeout_ms && now_ms() - start > end->timeout_ms)
            return break_off(end, "waited longer than the time-out for another");
        nanosleep(&nap, NULL);
        ncclCommGetAsyncError(end->comm, &result);
    }
    return nccl_result(end, result);
}

static heed_status_t adopt(end_t *end, void *handle)
{
    end->comm = handle;
    if (ncclCommUserRank(end->comm, &end->rank) != ncclSuccess ||
        ncclCommCount(end->comm, &end->size) != ncclSuccess ||
        ncclCommCuDevice(end->comm, &end->device) != ncclSuccess)
        return fail(HEED_ERROR_VALUE, "config.handle is no communicator of NCCL");
    return HEED_OK;
}

static void fill(end_t *end, heed_comm_t *comm)
{
    comm->rank = end->rank;
    comm->size = end->size;
    comm->send = send;
    comm->recv = recv;
    comm->wait = wait_all;
    comm->user = end;
    comm->barrier = barrier;
    comm->all_gather = all_gather;
    comm->all_to_all = all_to_all;
    comm->all_reduce = all_reduce;
    comm->reduce_scatter = reduce_scatter;
    comm->unchecked = 1;
    comm->device = (heed_device_t){HEED_DEVICE_CUDA, end->device};
    comm->stream = end->stream;
}

static heed_status_t make_token(end_t *end)
{
    int before = end->device;
    cudaGetDevice(&before);
    heed_status_t status = enter(end);
    if (status == HEED_OK &&
        (cudaMalloc(&end->token, 1) != cudaSuccess || cudaMemset(end->token, 0, 1) != cudaSuccess))
        status = fail(HEED_ERROR_OUT_OF_MEMORY, "no memory on cuda:%d for a barrier", end->device);
    cudaSetDevice(before);
    return status;
}

static void discard(end_t *end)
{
    if (end->token)
        cudaFree(end->token);
    if (end->own && end->comm && !end->broken)
        ncclCommDestroy(end->comm);
    free(end->messages);
    free(end);
}

static heed_status_t open_end(const heed_comm_config_t *config, heed_comm_t *comm)
{
    if (!config->handle && !config->over)
        return fail(HEED_ERROR_NULL,
                    "config.handle and config.over are null: one of them is needed");
    end_t *end = calloc(1, sizeof(*end));
    if (!end)
        return fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a communicator");
    end->timeout_ms = config->timeout_ms;
    end->stream = config->stream;
    heed_status_t status = HEED_OK;
    if (cudaGetDevice(&end->device) != cudaSuccess)
        status = fail(HEED_ERROR_NO_DEVICE, "there is no CUDA device");
    if (status == HEED_OK)
        status = config->handle ? adopt(end, config->handle) : make(end, config->over);
    if (status == HEED_OK)
        status = make_token(end);
    if (status == HEED_OK) {
        fill(end, comm);
    } else {
        discard(end);
    }
    return status;
}

static void close_end(heed_comm_t *comm)
{
    end_t *end = comm->user;
    discard(end);
    comm->user = NULL;
}

static void library(char *text, size_t size)
{
    int version = 0;
    ncclGetVersion(&version);
    snprintf(text, size, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

HD_TRANSPORT_DEFINE("nccl", library, open_end, close_end)
