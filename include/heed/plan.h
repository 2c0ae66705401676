/* Heed: plans. describe -> plan -> execute.
 *
 * Making a plan validates the descriptor, asks every implementation, chooses one and sizes the
 * workspace; it may allocate. A plan never changes after that: any number of threads may execute it
 * at once, each with its own workspace. Executing allocates nothing, takes no lock, and reads
 * nothing of the descriptor's memory but tile lists, which must outlive the plan.
 *
 * On a device, executing enqueues on the caller's stream and returns: it never waits, and it may be
 * captured into a CUDA graph, as long as the plan was made before. What the plan itself keeps on
 * the device (its copy of a tile list) is placed when it is made, which waits.
 *
 * Each operation has a typed way in (heed_attention_plan, heed_cast_plan); all the rest is here. */
#ifndef HEED_PLAN_H
#define HEED_PLAN_H

#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct heed_plan heed_plan_t;

/* Plans operation `op` ("attention") for the descriptor of that operation, desc. The typed
 * functions call this. Errors: NULL, STRUCT_SIZE, VALUE, SHAPE, STRIDE, DTYPE, UNKNOWN_IMPL (no
 * such operation), UNSUPPORTED, NO_DEVICE, FALLBACK, OUT_OF_MEMORY. *plan is NULL after an error.
 */
HEED_API HEED_MUST_USE heed_status_t heed_plan_create(heed_context_t *context, const char *op,
                                                      const void *desc, heed_plan_t **plan);

/* The same by implementations of one name alone: all of it ("cpu:ring"), what follows the colon
 * ("ring"), or a pattern in which * stands for anything. "auto" and NULL: all of them. The
 * context's own lists (HEED_IMPL) still apply. Errors: those of heed_plan_create; UNKNOWN_IMPL
 * where nothing has that name, with the names there are; UNSUPPORTED with its reason where it
 * refuses. */
HEED_API HEED_MUST_USE heed_status_t heed_plan_create_named(heed_context_t *context, const char *op,
                                                            const char *impl, const void *desc,
                                                            heed_plan_t **plan);

/* NULL is fine. No execution of the plan may be under way, on a device neither. */
HEED_API void heed_plan_destroy(heed_plan_t *plan);

/* Bytes and alignment that heed_plan_execute needs; bytes may be 0. Errors: NULL. */
HEED_API HEED_MUST_USE heed_status_t heed_plan_workspace(const heed_plan_t *plan, size_t *bytes,
                                                         size_t *alignment);

/* Runs the plan. buffers are the operands' addresses in the operation's order (HEED_ATTENTION_Q,
 * ...), each the first element of a tensor with the planned layout, byte_offset not added; an
 * absent operand is NULL, trailing absent ones may be left out. Any thread, many at once, each with
 * its own workspace; inside a caller's OpenMP parallel region it stays in the calling thread.
 * Errors: NULL (an operand is missing), VALUE (buffers for absent operands, or too many),
 * ALIGNMENT, WORKSPACE, and what the implementation reports. */
HEED_API HEED_MUST_USE heed_status_t heed_plan_execute(const heed_plan_t *plan,
                                                       void *const *buffers, int buffer_count,
                                                       void *workspace, size_t workspace_bytes,
                                                       const heed_stream_t *stream);

typedef struct heed_plan_info {
    uint32_t struct_size;
    int32_t threads;      /* team size asked for */
    heed_device_t device; /* where it runs */
    char op[32];          /* "attention" */
    char impl[64];        /* "cpu:flash_avx2" */
    double estimate_ns;   /* predicted time, NaN where unknown */
    double flops;         /* useful floating-point operations: masked pairs count for nothing */
    double bytes;         /* each operand's bytes once */
    uint64_t workspace_bytes;
    int32_t fallback; /* 1: this is not the device that was asked for */
    char fallback_why[160];
    uint64_t device_bytes; /* device memory that the plan keeps: its copy of a tile list */
} heed_plan_info_t;

/* Fills as much of *info as its struct_size, which the caller has set, has room for.
 * Errors: NULL, STRUCT_SIZE. */
HEED_API HEED_MUST_USE heed_status_t heed_plan_info(const heed_plan_t *plan,
                                                    heed_plan_info_t *info);

/* One candidate of a plan, as auto saw it. Strings live as long as the plan. */
typedef struct heed_verdict {
    const char *impl;
    int32_t chosen;       /* 1: this one runs */
    heed_status_t status; /* HEED_OK: it could have run */
    const char *why;      /* reason of a refusal, "" otherwise */
    double estimate_ns;   /* NaN where unknown or refused */
} heed_verdict_t;

/* Verdict number `index`, best first in list order. Returns 0 past the end, 1 otherwise. */
HEED_API int heed_plan_verdict(const heed_plan_t *plan, int index, heed_verdict_t *verdict);

/* Writes the plan's problem string, "attention dtype=f32 b=1 ...", which heed_problem_parse reads
 * back, and returns its full length without the terminator; it is cut to size. */
HEED_API size_t heed_plan_problem(const heed_plan_t *plan, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
