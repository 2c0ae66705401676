/* Heed: implementations. The builtin ones are listed in src/common/impls.def; a program may add its
 * own, and "auto" will consider it like any other. */
#ifndef HEED_IMPL_H
#define HEED_IMPL_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why an implementation turns a problem down. */
typedef struct heed_why {
    heed_status_t status;
    char text[160];
} heed_why_t;

/* What run() gets. desc is the plan's own copy of the operation's descriptor, complete: defaults
 * are filled in, shape and strides are never NULL, tensor data is NULL. */
typedef struct heed_launch {
    const void *desc;
    void *const *buffers; /* in operand order, byte_offset added, NULL where absent */
    void *workspace;      /* aligned to 64 */
    size_t workspace_bytes;
    int32_t threads; /* team size to use at most */
    heed_stream_t stream;
    void *user;
    /* The descriptor's tile list where a device can read it: the struct and all that it points to
     * lie there. NULL: none was placed, the descriptor has what there is. */
    const struct heed_tile_list *tiles;
    void *state;                      /* what prepare made, NULL without it */
    const heed_device_info_t *device; /* of the plan */
} heed_launch_t;

/* All functions may be called from many threads at once. */
typedef struct heed_impl {
    uint32_t struct_size;
    const char *op;        /* "attention" */
    const char *name;      /* <device>:<method>[_<isa>], lower case: "cpu:flash_avx2" */
    const char *about;     /* one line */
    int32_t device_type;   /* HEED_DEVICE_* */
    uint64_t required_isa; /* HEED_ISA_*, 0: any */
    uint64_t features;     /* the operation's feature bits that it honours (HEED_ATTENTION_CAN_*) */
    /* Says yes, or no with a reason. Asked only where ISA and features fit. NULL: always yes. */
    int (*supports)(const void *desc, const heed_device_info_t *device, heed_why_t *why);
    /* Predicted nanoseconds. NULL or NaN: unknown, which sorts last. */
    double (*estimate)(const void *desc, const heed_device_info_t *device, int32_t threads);
    /* Workspace bytes for a team of at most `threads`. NULL: none. */
    size_t (*workspace)(const void *desc, const heed_device_info_t *device, int32_t threads);
    heed_status_t (*run)(const heed_launch_t *launch);
    void *user; /* handed to run */
    /* For schedules, which run other operations: called once, when the plan is made; may create
     * plans. desc lives as long as the state. *workspace is added to what `workspace` says. release
     * gives the state back. Both or none. */
    heed_status_t (*prepare)(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace);
    void (*release)(heed_context_t *context, void *state);
} heed_impl_t;

/* Adds a copy of *impl to this context (its strings are copied too). It stands ahead of the builtin
 * ones where estimates are equal. Errors: NULL, STRUCT_SIZE, VALUE (grammar of the name, unknown
 * bits), UNKNOWN_IMPL (no such operation), NAME_TAKEN, OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_register_impl(heed_context_t *context,
                                                        const heed_impl_t *impl);

/* Implementation number `index` of the context, user's first, then builtin in list order, then the
 * CUDA backend's if it is there, whether or not this machine can run it. NULL past the end. Lives
 * as long as the context. */
HEED_API const heed_impl_t *heed_impl_at(const heed_context_t *context, int index);

/* Whether this context could run the implementation at all (device, instruction set, HEED_IMPL and
 * HEED_SKIP_IMPL); if not, *why says what is missing. why may be NULL. */
HEED_API int heed_impl_usable(const heed_context_t *context, const heed_impl_t *impl,
                              heed_why_t *why);

#ifdef __cplusplus
}
#endif
#endif
