/* A backend: the implementations for a kind of device, and what finds such devices. It is linked in
 * where libheed is static, and else a plugin: libheed-cuda.so, which exports heed_plugin_v1 alone,
 * an hd_backend_enter_t, and takes nothing from libheed but hd_host_t. */
#ifndef HD_BACKEND_H
#define HD_BACKEND_H

#include <heed/heed.h>

#include <stddef.h>
#include <stdint.h>

/* To be raised with any change of the two structs below or of what a kernel is given: heed_impl_t,
 * heed_launch_t, heed_device_info_t, the descriptors. */
enum { HD_BACKEND_ABI = 1 };

/* What libheed gives a backend. */
typedef struct hd_host {
    uint32_t struct_size;
    /* Stores the sentence for heed_last_error() and returns status. */
    heed_status_t (*fail)(heed_status_t status, const char *sentence);
} hd_host_t;

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
} hd_backend_t;

#define HD_BACKEND_ENTER "heed_plugin_v1"
typedef const hd_backend_t *hd_backend_enter_t(const hd_host_t *host);

/* libheed's side (plugin.c): the backend of this process, loaded by the first call. NULL: there is
 * none, and *why, which lives as long as the process, is the reason. */
const hd_backend_t *hd_backend_get(int ignore_environment, const char **why);

#endif
