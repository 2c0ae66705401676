/* Heed: memory, streams and events of a device, so that a C program can use a card without its
 * toolkit. The CPU is a device like any other here: its memory comes from the context's allocator,
 * copies are done when they return, its one stream is the calling thread.
 *
 *     heed_device_t card = {HEED_DEVICE_CUDA, 0};
 *     heed_memory_alloc(context, card, bytes, &q);
 *     heed_memory_copy(context, q, card, host_q, (heed_device_t){HEED_DEVICE_CPU, 0}, bytes, NULL);
 *     desc.q = HEED_TENSOR(q, HEED_BF16, B, S, H, D);
 *     desc.q.device = card;
 *
 * A program that has memory and streams of its own, from CUDA, PyTorch or another, uses those and
 * nothing of this file. Errors of all: NULL, NO_DEVICE (the context has no such device), and DEVICE
 * with the driver's own words. */
#ifndef HEED_MEMORY_H
#define HEED_MEMORY_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- memory ---------------------------------------------------------------------------------- */

/* Memory on a device, aligned to 256 bytes, for any stream. May wait for the device. bytes may be
 * 0. *memory is NULL after an error. Errors: OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_memory_alloc(heed_context_t *context,
                                                       heed_device_t device, size_t bytes,
                                                       void **memory);

/* Gives it back; NULL is fine. Nothing that uses it may be under way. */
HEED_API heed_status_t heed_memory_free(heed_context_t *context, heed_device_t device,
                                        void *memory);

/* Copies between devices, or within one. stream NULL: on the default stream, and waits until it is
 * done. Else it is enqueued on that stream, and both sides must stay as they are until it is done;
 * with host memory on one side it may nevertheless wait. Errors: VALUE (the stream belongs to
 * neither device). */
HEED_API HEED_MUST_USE heed_status_t heed_memory_copy(heed_context_t *context, void *to,
                                                      heed_device_t to_device, const void *from,
                                                      heed_device_t from_device, size_t bytes,
                                                      const heed_stream_t *stream);

/* Sets every byte to `value`, 0 to 255; stream as above. */
HEED_API HEED_MUST_USE heed_status_t heed_memory_set(heed_context_t *context, void *memory,
                                                     heed_device_t device, int value, size_t bytes,
                                                     const heed_stream_t *stream);

/* ---- streams --------------------------------------------------------------------------------- */

/* A stream that is not ordered with the default one. Errors: OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_create(heed_context_t *context,
                                                        heed_device_t device,
                                                        heed_stream_t *stream);

/* What is enqueued is still done. Only for streams of heed_stream_create. */
HEED_API heed_status_t heed_stream_destroy(heed_context_t *context, const heed_stream_t *stream);

/* Waits until all that was enqueued is done, and reports what went wrong meanwhile. A stream whose
 * native is NULL is its device's default one. */
HEED_API HEED_MUST_USE heed_status_t heed_stream_synchronize(heed_context_t *context,
                                                             const heed_stream_t *stream);

/* ---- time ------------------------------------------------------------------------------------ */

/* A point in a stream. It holds a reference to its context. */
typedef struct heed_event heed_event_t;

HEED_API HEED_MUST_USE heed_status_t heed_event_create(heed_context_t *context,
                                                       heed_device_t device, heed_event_t **event);
/* NULL is fine. */
HEED_API void heed_event_destroy(heed_event_t *event);

/* Marks the point after all that is enqueued so far; stream NULL: the default one. Errors: VALUE
 * (a stream of another device). */
HEED_API HEED_MUST_USE heed_status_t heed_event_record(heed_event_t *event,
                                                       const heed_stream_t *stream);

/* Waits for `last`, and tells the nanoseconds from `first` to it. Errors: VALUE (not recorded, or
 * of two devices). */
HEED_API HEED_MUST_USE heed_status_t heed_event_elapsed(const heed_event_t *first,
                                                        const heed_event_t *last, double *ns);

/* ---- limits ---------------------------------------------------------------------------------- */

/* What a device reaches at a large product of matrices of that dtype, in FLOP/s, by its vendor's
 * library (cuBLAS, loaded for this). For benchmarks: it takes a while and waits. Errors:
 * UNSUPPORTED (there is no such library, no such product; the CPU), OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_device_matmul_rate(heed_context_t *context,
                                                             heed_device_t device,
                                                             heed_dtype_t dtype, double *rate);

#ifdef __cplusplus
}
#endif
#endif
