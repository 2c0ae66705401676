/* Heed: ranks that exchange memory. A communicator is a small table of functions, so that threads,
 * MPI, NCCL or anything else can carry the same schedules. Threads of one process are part of Heed;
 * MPI and NCCL are plugins, loaded when a communicator of theirs is opened. */
#ifndef HEED_COMM_H
#define HEED_COMM_H

#include "context.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How numbers of several ranks become one. NaN wins over all else. */
typedef enum heed_reduce {
    HEED_REDUCE_SUM = 0,
    HEED_REDUCE_MAX = 1,
    HEED_REDUCE_MIN = 2
} heed_reduce_t;

/* One rank's end. All calls of a rank come from one thread at a time, not always the same: a
 * schedule may wait in a thread of its own. send and recv start a transfer and return; wait returns
 * when all that this rank has started is done, or fails. Until then one message may be on its way
 * from each rank to each. Between two ranks messages keep their order. A failure is for good: later
 * calls fail too. Statuses: COMM where another rank failed, left, or sent another size, or did not
 * answer in time; the sentence is set by heed_comm_fail.
 *
 * Memory is the host's but where a transport says otherwise. What is below user is optional, zero
 * where it is not known: collectives of the transport's own (not given: they are built from send,
 * recv and wait, or UNSUPPORTED where memory is a device's), and what it reaches, by which
 * schedules are chosen. They are called by all ranks with arguments that fit each other, after
 * those were compared; `bytes` and `count` are a part's, one for each rank. Fields are only ever
 * added at the end. */
typedef struct heed_comm {
    uint32_t struct_size;
    int32_t rank, size;
    heed_status_t (*send)(void *user, int32_t to, const void *data, size_t bytes);
    heed_status_t (*recv)(void *user, int32_t from, void *data, size_t bytes);
    heed_status_t (*wait)(void *user);
    void *user;
    heed_status_t (*barrier)(void *user);
    heed_status_t (*all_gather)(void *user, const void *own, size_t bytes, void *all);
    heed_status_t (*all_to_all)(void *user, const void *parts, size_t bytes, void *got);
    heed_status_t (*all_reduce)(void *user, heed_dtype_t dtype, heed_reduce_t reduce, size_t count,
                                void *data);
    heed_status_t (*reduce_scatter)(void *user, heed_dtype_t dtype, heed_reduce_t reduce,
                                    size_t count, const void *parts, void *own);
    double bytes_per_second; /* that one rank sends while it receives as many */
    double latency_ns;       /* of a small message */
    int32_t unchecked;       /* 1: collectives do not compare their arguments first */
    heed_device_t device;    /* whose memory messages lie in; zeros: the host's */
    const void *transport;   /* of heed_comm_open, for heed_comm_close */
    void *stream;            /* of device: where messages are enqueued, NULL its default one */
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

/* ---- processes: MPI and NCCL ----------------------------------------------------------------- */

/* Zero is the default of every field. Fields are only ever added at the end.
 *
 * "mpi": host memory (device memory too where the MPI is CUDA-aware, and the caller's own calls of
 * send and recv alone). handle is an MPI_Comm *, of which a duplicate is made; NULL: all of
 * MPI_COMM_WORLD. MPI is initialised if it is not, with MPI_THREAD_SERIALIZED, and finalised when
 * the process exits; a program that initialises it itself must ask for that level or more, for
 * schedules wait in a thread of their own. Opening is collective.
 *
 * "nccl": memory of one CUDA device for each rank. handle is an ncclComm_t, which stays the
 * caller's; NULL: one is made, for the current device, with `over` (a communicator of the same
 * ranks in host memory, such as one of MPI) telling all of them NCCL's id. Messages and collectives
 * are enqueued on `stream`, and are done when wait or the collective returns. Linear layers compute
 * on such a device (linear.h); attention over ranks packs on the host and refuses it. */
typedef struct heed_comm_config {
    uint32_t struct_size;  /* set by heed_comm_config() */
    int32_t timeout_ms;    /* a rank that waits longer for another fails; 0: for ever */
    const char *transport; /* "mpi", "nccl" */
    void *handle;
    const heed_comm_t *over;
    void *stream; /* a cudaStream_t, NULL: the default stream */
} heed_comm_config_t;

static inline heed_comm_config_t heed_comm_config(const char *transport)
{
#ifdef __cplusplus
    heed_comm_config_t config = {};
#else
    heed_comm_config_t config = {0};
#endif
    config.struct_size = (uint32_t)sizeof(config);
    config.transport = transport;
    return config;
}

/* Opens this rank's end. After a time-out, or where another rank has died, only ending is left, as
 * MPI and NCCL have it: closing then does not speak to others any more, and an MPI receive that had
 * begun may still be written to by later MPI calls of the program.
 * Errors: NULL, STRUCT_SIZE, VALUE, OUT_OF_MEMORY; UNSUPPORTED where the plugin is not installed,
 * with the reason; COMM. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_open(const heed_comm_config_t *config,
                                                    heed_comm_t *comm);

/* Every rank, when no call is under way. Does nothing to other communicators. */
HEED_API void heed_comm_close(heed_comm_t *comm);

/* The transports by number, which are loaded for it: what each runs on ("Open MPI v4.1.4 ..."), or
 * "" and the reason why it is not there. Returns 0 past the end, 1 otherwise. */
typedef struct heed_comm_transport {
    const char *name;
    const char *why; /* static */
    char library[160];
} heed_comm_transport_t;

HEED_API int heed_comm_transport(int index, heed_comm_transport_t *transport);

/* ---- collectives ----------------------------------------------------------------------------- */

/* Called by every rank of the communicator with the same kind, sizes, dtype and operator, which the
 * ranks compare before data moves (one small message between any two; not with comm.unchecked). A
 * rank that calls with bad arguments fails by itself and makes the others fail.
 * Errors: NULL, STRUCT_SIZE, VALUE, DTYPE, OUT_OF_MEMORY; COMM where ranks disagree, fail or do not
 * answer. Nothing is known about the memory of results then. */

/* Returns when every rank has come. UNSUPPORTED as the other collectives in a device's memory. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_barrier(const heed_comm_t *comm);

/* all[r] = own of rank r, `bytes` each. own may be this rank's place in all. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_all_gather(const heed_comm_t *comm, const void *own,
                                                          size_t bytes, void *all);

/* got[r] = parts[this rank] of rank r, `bytes` each; got and parts are apart. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_all_to_all(const heed_comm_t *comm,
                                                          const void *parts, size_t bytes,
                                                          void *got);

/* dtype is f32, f64, bf16, f16, i32, i64. Built from messages, numbers are summed in f64 (integers
 * wrap) in the ranks' order and rounded once; every rank gets the same bits. Memory for as many
 * bytes as data has comes from the context. */

/* data[i] of every rank becomes the reduction of all ranks' data[i], i < count. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_all_reduce(heed_context_t *context,
                                                          const heed_comm_t *comm,
                                                          heed_dtype_t dtype, heed_reduce_t reduce,
                                                          size_t count, void *data);

/* own[i] = reduction of all ranks' parts[this rank][i], i < count: parts has size * count numbers.
 * own may be this rank's place in parts. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_reduce_scatter(heed_context_t *context,
                                                              const heed_comm_t *comm,
                                                              heed_dtype_t dtype,
                                                              heed_reduce_t reduce, size_t count,
                                                              const void *parts, void *own);

/* Finds bytes_per_second and latency_ns by messages in both directions between neighbours, the
 * slowest rank's on all of them: of `bytes` (0: 4 MiB) and of one byte. Errors: as collectives. */
HEED_API HEED_MUST_USE heed_status_t heed_comm_measure(heed_context_t *context, size_t bytes,
                                                       heed_comm_t *comm);

#ifdef __cplusplus
}
#endif
#endif
