/* Ranks: a communicator that has been looked at, agreeing on numbers, waiting beside other work. */
#ifndef HD_RANKS_H
#define HD_RANKS_H

#include "internal.h"

#include <heed/comm.h>

#include <pthread.h>

/* Copies the caller's table, whose optional end may be missing, and checks it. Errors: NULL,
 * STRUCT_SIZE, VALUE. comm_check.c */
heed_status_t hd_comm_enter(const heed_comm_t *from, heed_comm_t *to);

static inline bool hd_comm_on_host(const heed_comm_t *comm)
{
    return comm->device.type == 0 || comm->device.type == HEED_DEVICE_CPU;
}

static inline heed_stream_t hd_comm_stream(const heed_comm_t *comm)
{
    return (heed_stream_t){comm->device, comm->stream};
}

/* ---- agreement (comm_check.c) ---------------------------------------------------------------- */

enum { HD_GREETING_NUMBERS = 20 };

/* What all ranks must have alike. */
typedef struct hd_greeting {
    int64_t numbers[HD_GREETING_NUMBERS];
    float real;
    int32_t bad; /* the rank cannot take part, and says why itself */
} hd_greeting_t;

/* Shows every rank's greeting to every other, so that all of them fail where one does not fit: by a
 * sentence that names the number, or "rank 2 cannot take part". names has `count` for the numbers,
 * then one for `real`. Where own is bad the others hear of it and HEED_OK is returned. Only a
 * communicator whose messages lie on a device needs a context, which knows it: greetings then go
 * there and come back in the order of the communicator's stream, which is waited for. */
heed_status_t hd_comm_agree(heed_context_t *context, const heed_comm_t *comm,
                            const hd_greeting_t *own, const char *const *names, int count);

/* ---- waiting (comm_check.c) ------------------------------------------------------------------ */

/* comm->wait in a thread of its own, so that messages move while this one computes. */
typedef struct hd_waiter {
    const heed_comm_t *comm;
    pthread_t thread;
    bool started, beside;
    hd_kept_t waited;
} hd_waiter_t;

void hd_waiter_start(hd_waiter_t *waiter, const heed_comm_t *comm);

/* What wait returned, HEED_OK where none was started; but `computed`, of the other work, where that
 * has failed. With its sentence. */
heed_status_t hd_waiter_finish(hd_waiter_t *waiter, heed_status_t computed);

/* ---- collectives (comm_collect.c, comm_reduce.c) --------------------------------------------- */

typedef enum hd_call_kind {
    HD_ALL_GATHER,
    HD_ALL_TO_ALL,
    HD_ALL_REDUCE,
    HD_REDUCE_SCATTER
} hd_call_kind_t;

/* One collective, as every rank must have called it. */
typedef struct hd_call {
    heed_comm_t comm;
    heed_context_t *context; /* reductions only */
    hd_call_kind_t kind;
    heed_dtype_t dtype;
    heed_reduce_t reduce;
    size_t count; /* numbers, or bytes */
    char *memory; /* hd_reduce_memory's bytes */
} hd_call_t;

/* Opens comm, checks, allocates, and agrees; after HEED_OK hd_call_leave gives the memory back. */
heed_status_t hd_call_enter(hd_call_t *call, const heed_comm_t *comm, const void *first,
                            const void *second);
void hd_call_leave(hd_call_t *call);
size_t hd_reduce_memory(const hd_call_t *call);

/* all[own rank] is there. */
heed_status_t hd_gather(const heed_comm_t *comm, size_t bytes, char *all);
heed_status_t hd_exchange(const heed_comm_t *comm, const char *parts, size_t bytes, char *got);

/* The ranks t places on and t places back. */
static inline int32_t hd_rank_after(const heed_comm_t *comm, int64_t t)
{
    return (int32_t)((comm->rank + t) % comm->size);
}

static inline int32_t hd_rank_before(const heed_comm_t *comm, int64_t t)
{
    return (int32_t)((comm->rank + comm->size - t) % comm->size);
}

#endif
