/* What schedules of dilated attention within one process share: steps that add to one state, made
 * with the plan and run one after the other. */
#ifndef HD_DILATED_SCHEDULE_H
#define HD_DILATED_SCHEDULE_H

#include "dilated_steps.h"
#include "op.h"

typedef struct hd_dilated_schedule {
    heed_context_t *context;
    const heed_dilated_desc_t *desc;
    hd_state_t state; /* in the workspace, as far as it is not the caller's */
    bool full;        /* the steps write every row before they merge into it */
    hd_steps_t steps;
} hd_dilated_schedule_t;

/* Adds the steps, and says whether the schedule is full. */
typedef heed_status_t hd_dilated_add_fn_t(hd_dilated_schedule_t *schedule);

/* A zeroed schedule at the start of `size` bytes, and its steps. wide: the state is f32 whatever
 * out is. Without success *state is NULL, and what `add` has made beside steps is for `undo`. */
heed_status_t hd_dilated_prepare(heed_context_t *context, const void *desc, size_t size, bool wide,
                                 hd_dilated_add_fn_t *add,
                                 void (*undo)(heed_context_t *context, void *state), void **state,
                                 size_t *workspace);
void hd_dilated_release(heed_context_t *context, void *state);
heed_status_t hd_dilated_run(const heed_launch_t *launch);

/* Adds all branches over all tokens with `each`, that which can be written plainly first. */
typedef heed_status_t hd_dilated_branch_fn_t(hd_dilated_schedule_t *schedule, int branch,
                                             bool merge);
heed_status_t hd_dilated_all(hd_dilated_schedule_t *schedule, hd_dilated_branch_fn_t *each);

#endif
