/* Inside a plan: the operation, its complete descriptor, every candidate's verdict, the choice. */
#ifndef HD_PLAN_H
#define HD_PLAN_H

#include "op.h"

enum { HD_WORKSPACE_ALIGN = 64 };

typedef struct hd_verdict {
    const heed_impl_t *impl;
    heed_why_t why; /* status HEED_OK: could have run */
    double estimate_ns;
} hd_verdict_t;

struct heed_plan {
    heed_context_t *context;
    const hd_op_t *op;
    const heed_impl_t *impl;
    heed_plan_info_t info;
    size_t workspace;
    int buffer_count; /* operands up to the last one that is there */
    hd_verdict_t *verdicts;
    int verdict_count;
    void *desc; /* complete */
    hd_axes_t *axes;
    void *placed; /* what the descriptor points to, on the plan's device; NULL: nothing */
    void *state;  /* of a schedule */
};

/* Number of implementations of the operation in this context. */
int hd_candidates(const heed_context_t *context, const hd_op_t *op);

/* Whether it goes by that name: a pattern of the whole or of what follows the colon; NULL and
 * "auto" are any. select.c */
bool hd_impl_is_named(const heed_impl_t *impl, const char *name);

/* Fills one verdict for each candidate on the device, in list order, and returns the number of the
 * cheapest of that name that can run, or -1 with the reason of a failure set. select.c */
int hd_select(const heed_context_t *context, const hd_op_t *op, const heed_device_info_t *device,
              const void *desc, const char *name, hd_verdict_t *verdicts);

#endif
