/* A backend: the implementations for a kind of device, and what finds such devices. It is linked in
 * where libheed is static, and else a plugin: libheed-cuda.so, which exports heed_plugin_v1 alone,
 * an hd_backend_enter_t, and takes nothing from libheed but hd_host_t. */
#ifndef HD_BACKEND_H
#define HD_BACKEND_H

#include "gemm.h"

#include <heed/heed.h>

#include <stddef.h>
#include <stdint.h>

/* To be raised with any change of the structs below or of what a kernel is given: heed_impl_t,
 * heed_launch_t, heed_device_info_t, the descriptors. */
enum { HD_BACKEND_ABI = 4 };

/* What libheed gives a backend. */
typedef struct hd_host {
    uint32_t struct_size;
    /* Stores the sentence for heed_last_error() and returns status. */
    heed_status_t (*fail)(heed_status_t status, const char *sentence);
} hd_host_t;

/* Memory, streams and events of the device with number `id`. `stream` is a native handle, NULL the
 * device's default stream. Only synchronize, event_elapsed, and the calls that say so, wait. A
 * status other than HEED_OK comes with a sentence. */
typedef struct hd_device_calls {
    /* Memory for any stream, and memory that is used and given back in the order of one stream. */
    heed_status_t (*alloc)(int32_t id, size_t bytes, void **memory);
    heed_status_t (*free)(int32_t id, void *memory);
    heed_status_t (*alloc_ordered)(int32_t id, size_t bytes, void *stream, void **memory);
    heed_status_t (*free_ordered)(int32_t id, void *memory, void *stream);
    /* Either side may be host memory or another device's. Pageable host memory may make it wait. */
    heed_status_t (*copy)(int32_t id, void *to, const void *from, size_t bytes, void *stream);
    heed_status_t (*set)(int32_t id, void *memory, int value, size_t bytes, void *stream);
    heed_status_t (*stream_create)(int32_t id, void **stream);
    heed_status_t (*stream_destroy)(int32_t id, void *stream);
    heed_status_t (*synchronize)(int32_t id, void *stream);
    heed_status_t (*event_create)(int32_t id, void **event);
    heed_status_t (*event_destroy)(int32_t id, void *event);
    heed_status_t (*event_record)(int32_t id, void *event, void *stream);
    heed_status_t (*event_elapsed)(int32_t id, void *first, void *last, double *ns);
    /* FLOP/s of a large product of matrices by the vendor's library, which is loaded for it. */
    heed_status_t (*matmul_rate)(int32_t id, heed_dtype_t dtype, double *rate);
    /* Whether kernels on the device may use this address, operand `name`. */
    heed_status_t (*check)(int32_t id, const char *name, const void *at, void *stream);
    /* Rows of `bytes` each within the device, to_step and from_step bytes apart. */
    heed_status_t (*copy_rows)(int32_t id, void *to, size_t to_step, const void *from,
                               size_t from_step, size_t bytes, int64_t rows, void *stream);
    /* The memory that multiply wants beside its matrices; UNSUPPORTED, with the reason, where the
     * vendor's library for products is missing. */
    heed_status_t (*multiply_memory)(int32_t id, size_t *bytes);
    /* a and b are f32, bf16 or f16, c the same or f32; sums are made in f32. */
    heed_status_t (*multiply)(int32_t id, const hd_gemm_t *gemm, heed_dtype_t operands,
                              heed_dtype_t result, void *memory, void *stream);
} hd_device_calls_t;

/* Everything lives as long as the process. abi and struct_size are read before all else. */
typedef struct hd_backend {
    uint32_t abi;
    uint32_t struct_size;
    const char *version; /* of Heed, which must be libheed's */
    const char *name;    /* "cuda" */
    const char *build;   /* what it was made with: "CUDA 13.0, sm_80 sm_90a" */
    int32_t device_type;
    int32_t impl_count;
    const heed_impl_t *const *impls;
    /* Describes at most `max` usable devices and returns their number. `why` gets a sentence about
     * what was not usable, "" if nothing. Called from any thread, for each context. */
    int (*detect)(heed_device_info_t *infos, int max, char *why, size_t why_size);
    const hd_device_calls_t *device;
} hd_backend_t;

#define HD_BACKEND_ENTER "heed_plugin_v1"
typedef const hd_backend_t *hd_backend_enter_t(const hd_host_t *host);

/* libheed's side (backend.c): the backend of this process, loaded by the first call. NULL: there is
 * none, and *why, which lives as long as the process, is the reason. */
const hd_backend_t *hd_backend_get(int ignore_environment, const char **why);

#endif
