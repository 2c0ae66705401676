/* Reductions over ranks: the transport's own, or of parts that were exchanged, in the ranks' order,
 * so that all of them get the same bits. */
#include "element.h"
#include "ranks.h"

#include <string.h>

/* ---- numbers --------------------------------------------------------------------------------- */

static double load(heed_dtype_t dtype, const char *at)
{
    double real;
    if (dtype != HEED_F64)
        return (double)hd_element_load(dtype, at);
    memcpy(&real, at, sizeof(real));
    return real;
}

static void store(heed_dtype_t dtype, char *at, double value)
{
    if (dtype == HEED_F64)
        memcpy(at, &value, sizeof(value));
    else
        hd_element_store(dtype, at, (float)value);
}

static int64_t load_integer(heed_dtype_t dtype, const char *at)
{
    int32_t small;
    int64_t large;
    if (dtype == HEED_I32) {
        memcpy(&small, at, sizeof(small));
        return small;
    }
    memcpy(&large, at, sizeof(large));
    return large;
}

static void store_integer(heed_dtype_t dtype, char *at, int64_t value)
{
    uint32_t small = (uint32_t)(uint64_t)value;
    if (dtype == HEED_I32)
        memcpy(at, &small, sizeof(small));
    else
        memcpy(at, &value, sizeof(value));
}

static double pick(heed_reduce_t reduce, double a, double b)
{
    if (reduce == HEED_REDUCE_SUM)
        return a + b;
    if (a != a || b != b)
        return a + b;
    return (reduce == HEED_REDUCE_MAX) == (b > a) ? b : a;
}

static int64_t pick_integer(heed_reduce_t reduce, int64_t a, int64_t b)
{
    if (reduce == HEED_REDUCE_SUM)
        return (int64_t)((uint64_t)a + (uint64_t)b);
    return (reduce == HEED_REDUCE_MAX) == (b > a) ? b : a;
}

/* to[i] = the reduction of from[0][i], from[1][i], ... in that order; the parts lie `stride` bytes
 * apart. to may be one of them. */
static void reduce_parts(const hd_call_t *call, size_t count, const char *from, size_t stride,
                         char *to)
{
    size_t each = heed_dtype_size(call->dtype);
    bool integer = call->dtype == HEED_I32 || call->dtype == HEED_I64;
    for (size_t i = 0; i < count; i++, from += each, to += each) {
        double sum = integer ? 0 : load(call->dtype, from);
        int64_t whole = integer ? load_integer(call->dtype, from) : 0;
        for (int32_t r = 1; r < call->comm.size; r++) {
            const char *part = from + (size_t)r * stride;
            if (integer)
                whole = pick_integer(call->reduce, whole, load_integer(call->dtype, part));
            else
                sum = pick(call->reduce, sum, load(call->dtype, part));
        }
        if (integer)
            store_integer(call->dtype, to, whole);
        else
            store(call->dtype, to, sum);
    }
}

/* ---- by messages ----------------------------------------------------------------------------- */

/* Numbers of a rank's part of an all-reduce. */
static size_t part_of(const hd_call_t *call)
{
    size_t size = (size_t)call->comm.size;
    return call->count / size + (call->count % size > 0);
}

static bool is_small(const hd_call_t *call)
{
    enum { SMALL = 32 << 10 };
    return call->count * heed_dtype_size(call->dtype) * (size_t)call->comm.size <= SMALL;
}

size_t hd_reduce_memory(const hd_call_t *call)
{
    size_t row = (size_t)call->comm.size * heed_dtype_size(call->dtype);
    if (call->kind == HD_REDUCE_SCATTER)
        return call->comm.reduce_scatter ? 0 : row * call->count;
    if (call->comm.all_reduce)
        return 0;
    return row * (is_small(call) ? call->count : 2 * part_of(call));
}

/* Everybody sends everything: one round, for what is small. */
static heed_status_t reduce_at_once(const hd_call_t *call, char *data)
{
    const heed_comm_t *comm = &call->comm;
    size_t bytes = call->count * heed_dtype_size(call->dtype);
    for (int32_t t = 1; t < comm->size; t++) {
        int32_t from = hd_rank_before(comm, t);
        HD_TRY(comm->send(comm->user, hd_rank_after(comm, t), data, bytes));
        HD_TRY(comm->recv(comm->user, from, call->memory + (size_t)from * bytes, bytes));
    }
    memcpy(call->memory + (size_t)comm->rank * bytes, data, bytes);
    HD_TRY(comm->wait(comm->user));
    reduce_parts(call, call->count, call->memory, bytes, data);
    return HEED_OK;
}

/* Each rank reduces a part and gives it to all. The last parts may be padded: the memory has all
 * parts twice, what goes out and what comes in. */
static heed_status_t reduce_by_parts(const hd_call_t *call, char *data)
{
    const heed_comm_t *comm = &call->comm;
    size_t each = part_of(call), element = heed_dtype_size(call->dtype);
    size_t bytes = each * element, all = bytes * (size_t)comm->size, used = call->count * element;
    char *out = call->memory, *in = call->memory + all;
    memcpy(out, data, used);
    memset(out + used, 0, all - used);
    HD_TRY(hd_exchange(comm, out, bytes, in));
    reduce_parts(call, each, in, bytes, out + (size_t)comm->rank * bytes);
    HD_TRY(hd_gather(comm, bytes, out));
    memcpy(data, out, used);
    return HEED_OK;
}

static heed_status_t scatter(const hd_call_t *call, const void *parts, void *own)
{
    const heed_comm_t *comm = &call->comm;
    size_t bytes = call->count * heed_dtype_size(call->dtype);
    if (comm->reduce_scatter)
        return comm->reduce_scatter(comm->user, call->dtype, call->reduce, call->count, parts, own);
    HD_TRY(hd_exchange(comm, parts, bytes, call->memory));
    reduce_parts(call, call->count, call->memory, bytes, own);
    return HEED_OK;
}

static heed_status_t reduce_all(const hd_call_t *call, void *data)
{
    const heed_comm_t *comm = &call->comm;
    if (comm->all_reduce)
        return comm->all_reduce(comm->user, call->dtype, call->reduce, call->count, data);
    return is_small(call) ? reduce_at_once(call, data) : reduce_by_parts(call, data);
}

heed_status_t heed_comm_reduce_scatter(heed_context_t *context, const heed_comm_t *comm,
                                       heed_dtype_t dtype, heed_reduce_t reduce, size_t count,
                                       const void *parts, void *own)
{
    hd_call_t call = {.kind = HD_REDUCE_SCATTER,
                      .context = context,
                      .dtype = dtype,
                      .reduce = reduce,
                      .count = count};
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_call_enter(&call, comm, parts, own));
    heed_status_t status = count ? scatter(&call, parts, own) : HEED_OK;
    hd_call_leave(&call);
    return status;
}

heed_status_t heed_comm_all_reduce(heed_context_t *context, const heed_comm_t *comm,
                                   heed_dtype_t dtype, heed_reduce_t reduce, size_t count,
                                   void *data)
{
    hd_call_t call = {.kind = HD_ALL_REDUCE,
                      .context = context,
                      .dtype = dtype,
                      .reduce = reduce,
                      .count = count};
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_call_enter(&call, comm, data, data));
    heed_status_t status = count ? reduce_all(&call, data) : HEED_OK;
    hd_call_leave(&call);
    return status;
}
