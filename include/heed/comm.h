/* Heed: ranks that exchange memory. A communicator is a small table of functions, so that threads,
 * MPI or anything else can carry the same schedules. Heed brings that over threads of one process.
 */
#ifndef HEED_COMM_H
#define HEED_COMM_H

#include "context.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One rank's end. All calls of a rank come from one thread at a time. send and recv start a
 * transfer of host memory and return; wait returns when all that this rank has started is done, or
 * fails. Between two ranks messages keep their order. A failure is for good: later calls fail too.
 * Statuses: COMM where another rank failed, left, or sent another size, or did not answer in time;
 * the sentence is set by heed_comm_fail. */
typedef struct heed_comm {
    uint32_t struct_size;
    int32_t rank, size;
    heed_status_t (*send)(void *user, int32_t to, const void *data, size_t bytes);
    heed_status_t (*recv)(void *user, int32_t from, void *data, size_t bytes);
    heed_status_t (*wait)(void *user);
    void *user;
} heed_comm_t;

/* For implementers: keeps a sentence and returns HEED_ERROR_COMM. */
HEED_API heed_status_t heed_comm_fail(const char *sentence);

/* Ranks of one process. Makes comms[0 .. size-1], one for each of `size` threads of the caller. A
 * rank that waits longer than timeout_ms (0: for ever) for another fails, and with it all others.
 * Give every one of them back, in any order, when its thread is done with it: a rank that is given
 * back while others wait for it makes them fail. Errors: NULL, VALUE, OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_threads(heed_context_t *context, int32_t size,
                                                       int32_t timeout_ms, heed_comm_t *comms);
HEED_API void heed_comm_threads_free(heed_comm_t *comm);

#ifdef __cplusplus
}
#endif
#endif
