/* Collectives: the transport's own, or built from send, recv and wait. All of a round's messages
 * are under way at once where the rounds do not need each other. */
#include "ranks.h"

#include <stdint.h>
#include <string.h>

/* ---- checking -------------------------------------------------------------------------------- */

static bool is_summed(heed_dtype_t dtype)
{
    return dtype == HEED_F32 || dtype == HEED_F64 || dtype == HEED_BF16 || dtype == HEED_F16 ||
           dtype == HEED_I32 || dtype == HEED_I64;
}

static heed_status_t check(const hd_call_t *call, const void *first, const void *second)
{
    if (call->kind == HD_ALL_REDUCE || call->kind == HD_REDUCE_SCATTER) {
        if (!is_summed(call->dtype))
            return hd_fail(HEED_ERROR_DTYPE, "dtype=%s: f32, f64, bf16, f16, i32, i64 are reduced",
                           heed_dtype_name(call->dtype));
        if ((int)call->reduce < 0 || call->reduce > HEED_REDUCE_MIN)
            return hd_fail(HEED_ERROR_VALUE, "reduce=%d is no heed_reduce_t", (int)call->reduce);
    }
    size_t each = call->kind >= HD_ALL_REDUCE ? heed_dtype_size(call->dtype) : 1;
    if (call->count > (size_t)INT64_MAX / 2 / each / (size_t)call->comm.size)
        return hd_fail(HEED_ERROR_VALUE, "%zu for each of %d ranks is too much", call->count,
                       call->comm.size);
    if (call->count && (!first || !second))
        return hd_fail(HEED_ERROR_NULL, "%s memory is null", first ? "the second" : "the first");
    return HEED_OK;
}

/* In device memory there is nothing to build from: the numbers that ranks would compare, and the
 * parts that they would add, are the host's. */
static heed_status_t check_native(hd_call_t *call)
{
    const heed_comm_t *comm = &call->comm;
    const bool has[] = {[HD_ALL_GATHER] = comm->all_gather != NULL,
                        [HD_ALL_TO_ALL] = comm->all_to_all != NULL,
                        [HD_ALL_REDUCE] = comm->all_reduce != NULL,
                        [HD_REDUCE_SCATTER] = comm->reduce_scatter != NULL};
    if (hd_comm_on_host(comm))
        return HEED_OK;
    call->comm.unchecked = 1;
    return has[call->kind] ? HEED_OK
                           : hd_fail(HEED_ERROR_UNSUPPORTED,
                                     "comm brings no collective of this kind for its device");
}

/* What only reductions need, before the ranks agree: later nobody may be missing. */
static heed_status_t allocate(hd_call_t *call)
{
    if (!call->context)
        return HEED_OK;
    size_t bytes = hd_reduce_memory(call);
    call->memory = hd_alloc(call->context, bytes + 1);
    if (!call->memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %zu bytes to reduce in", bytes);
    return HEED_OK;
}

/* All ranks have made the same call, or all of them fail. */
static heed_status_t agree(const hd_call_t *call, heed_status_t own)
{
    static const char *const names[] = {"the kind of collective", "dtype", "reduce", "count",
                                        "a number"};
    hd_greeting_t greeting;
    memset(&greeting, 0, sizeof(greeting));
    greeting.bad = own != HEED_OK;
    greeting.numbers[0] = call->kind;
    greeting.numbers[1] = (int64_t)call->dtype;
    greeting.numbers[2] = call->reduce;
    greeting.numbers[3] = (int64_t)call->count;
    return hd_comm_agree(call->context, &call->comm, &greeting, names, 4);
}

heed_status_t hd_call_enter(hd_call_t *call, const heed_comm_t *comm, const void *first,
                            const void *second)
{
    hd_kept_t kept;
    HD_TRY(hd_comm_enter(comm, &call->comm));
    HD_TRY(check_native(call));
    heed_status_t own = check(call, first, second);
    if (own == HEED_OK)
        own = allocate(call);
    if (own == HEED_OK && call->comm.unchecked)
        return HEED_OK;
    hd_keep(&kept, own);
    heed_status_t agreed = call->comm.unchecked ? own : agree(call, own);
    if (own == HEED_OK && agreed == HEED_OK)
        return HEED_OK;
    hd_call_leave(call);
    return own == HEED_OK ? agreed : hd_kept(&kept);
}

void hd_call_leave(hd_call_t *call)
{
    if (call->memory)
        hd_free(call->context, call->memory);
    call->memory = NULL;
}

/* ---- moving ---------------------------------------------------------------------------------- */

/* Each round tells twice as many ranks that this one, and all that it has heard of, have come. */
heed_status_t heed_comm_barrier(const heed_comm_t *comm)
{
    heed_comm_t opened;
    const heed_comm_t *at = &opened;
    char token = 0, got;
    HD_TRY(hd_comm_enter(comm, &opened));
    if (at->barrier)
        return at->barrier(at->user);
    if (!hd_comm_on_host(at))
        return hd_fail(HEED_ERROR_UNSUPPORTED, "comm brings no barrier for its device");
    for (int64_t t = 1; t < at->size; t *= 2) {
        HD_TRY(at->send(at->user, hd_rank_after(at, t), &token, 1));
        HD_TRY(at->recv(at->user, hd_rank_before(at, t), &got, 1));
        HD_TRY(at->wait(at->user));
    }
    return HEED_OK;
}

/* A ring: in each round the part that came last goes on, so that every link carries one message. */
heed_status_t hd_gather(const heed_comm_t *comm, size_t bytes, char *all)
{
    for (int32_t t = 0; t + 1 < comm->size; t++) {
        size_t has = (size_t)hd_rank_before(comm, t) * bytes,
               next = (size_t)hd_rank_before(comm, t + 1) * bytes;
        HD_TRY(comm->send(comm->user, hd_rank_after(comm, 1), all + has, bytes));
        HD_TRY(comm->recv(comm->user, hd_rank_before(comm, 1), all + next, bytes));
        HD_TRY(comm->wait(comm->user));
    }
    return HEED_OK;
}

heed_status_t heed_comm_all_gather(const heed_comm_t *comm, const void *own, size_t bytes,
                                   void *all)
{
    hd_call_t call = {.kind = HD_ALL_GATHER, .count = bytes};
    HD_TRY(hd_call_enter(&call, comm, own, all));
    const heed_comm_t *at = &call.comm;
    if (bytes == 0)
        return HEED_OK;
    if (at->all_gather)
        return at->all_gather(at->user, own, bytes, all);
    memmove((char *)all + (size_t)at->rank * bytes, own, bytes);
    return hd_gather(at, bytes, all);
}

heed_status_t hd_exchange(const heed_comm_t *comm, const char *parts, size_t bytes, char *got)
{
    for (int32_t t = 1; t < comm->size; t++) {
        int32_t to = hd_rank_after(comm, t), from = hd_rank_before(comm, t);
        HD_TRY(comm->send(comm->user, to, parts + (size_t)to * bytes, bytes));
        HD_TRY(comm->recv(comm->user, from, got + (size_t)from * bytes, bytes));
    }
    memcpy(got + (size_t)comm->rank * bytes, parts + (size_t)comm->rank * bytes, bytes);
    return comm->wait(comm->user);
}

heed_status_t heed_comm_all_to_all(const heed_comm_t *comm, const void *parts, size_t bytes,
                                   void *got)
{
    hd_call_t call = {.kind = HD_ALL_TO_ALL, .count = bytes};
    HD_TRY(hd_call_enter(&call, comm, parts, got));
    if (bytes == 0)
        return HEED_OK;
    if (call.comm.all_to_all)
        return call.comm.all_to_all(call.comm.user, parts, bytes, got);
    return hd_exchange(&call.comm, parts, bytes, got);
}

/* ---- measuring ------------------------------------------------------------------------------- */

/* Nanoseconds of `times` messages of so many bytes to the next rank and from the one before. */
static heed_status_t time_messages(const heed_comm_t *comm, const char *from, char *to,
                                   size_t bytes, int times, double *ns)
{
    HD_TRY(heed_comm_barrier(comm));
    double start = hd_now_ns();
    for (int i = 0; i < times; i++) {
        HD_TRY(comm->send(comm->user, hd_rank_after(comm, 1), from, bytes));
        HD_TRY(comm->recv(comm->user, hd_rank_before(comm, 1), to, bytes));
        HD_TRY(comm->wait(comm->user));
    }
    *ns = (hd_now_ns() - start) / times;
    return HEED_OK;
}

static heed_status_t measure(heed_context_t *context, size_t bytes, char *memory, heed_comm_t *comm)
{
    double ns[2];
    HD_TRY(time_messages(comm, memory, memory + bytes, 1, 16, &ns[0]));
    HD_TRY(time_messages(comm, memory, memory + bytes, bytes, 1, &ns[1]));
    HD_TRY(time_messages(comm, memory, memory + bytes, bytes, 4, &ns[1]));
    HD_TRY(heed_comm_all_reduce(context, comm, HEED_F64, HEED_REDUCE_MAX, 2, ns));
    comm->latency_ns = ns[0];
    comm->bytes_per_second = (double)bytes * 1e9 / (ns[1] > ns[0] ? ns[1] - ns[0] : ns[1] + 1);
    return HEED_OK;
}

heed_status_t heed_comm_measure(heed_context_t *context, size_t bytes, heed_comm_t *comm)
{
    heed_comm_t opened;
    bytes = bytes ? bytes : 4 << 20;
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_comm_enter(comm, &opened));
    if (comm->struct_size < sizeof(*comm))
        return hd_fail(HEED_ERROR_STRUCT_SIZE, "comm.struct_size=%u has no place for a rate",
                       comm->struct_size);
    if (!hd_comm_on_host(&opened))
        return hd_fail(HEED_ERROR_UNSUPPORTED, "messages in device memory are not measured");
    if (opened.size == 1)
        return HEED_OK;
    /* Every rank must come, with memory or without. */
    char *memory = bytes < SIZE_MAX / 2 ? hd_alloc(context, 2 * bytes) : NULL;
    int32_t missing = memory == NULL;
    heed_status_t status =
        heed_comm_all_reduce(context, &opened, HEED_I32, HEED_REDUCE_MAX, 1, &missing);
    if (status == HEED_OK && missing)
        status = hd_fail(HEED_ERROR_OUT_OF_MEMORY, "a rank has no memory for %zu bytes", bytes);
    if (status == HEED_OK) {
        memset(memory, 0, bytes);
        status = measure(context, bytes, memory, &opened);
    }
    hd_free(context, memory);
    comm->latency_ns = opened.latency_ns;
    comm->bytes_per_second = opened.bytes_per_second;
    return status;
}
