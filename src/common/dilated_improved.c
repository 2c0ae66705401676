/* cpu:improved of dilated attention: a schedule over the attention operation. Each branch is
 * attention on strided views (a segment is a batch entry, every r-th row a row, heads of one offset
 * the heads), and branches are merged by lse, which is one softmax over their union.
 *
 * The first branch of rate 1 shows every row something, and is written plainly; without one, rows
 * begin as empty states. Plans are made once and shared by pieces of equal shape. */
#include "dilated_steps.h"
#include "op.h"

#include <string.h>

typedef struct schedule {
    const heed_dilated_desc_t *desc;
    hd_state_t state; /* in the workspace, as far as it is not the caller's */
    bool starts_empty;
    hd_steps_t steps;
} schedule_t;

extern const hd_op_t hd_op_dilated;

static size_t state_bytes(const schedule_t *schedule)
{
    return schedule->state.lse_bytes; /* out is the caller's */
}

/* ---- preparing ------------------------------------------------------------------------------- */

static void release(heed_context_t *context, void *state)
{
    schedule_t *schedule = state;
    if (!schedule)
        return;
    hd_steps_free(context, &schedule->steps);
    hd_free(context, schedule);
}

static heed_status_t add_branches(heed_context_t *context, schedule_t *schedule)
{
    hd_dilated_part_t all = hd_dilated_whole(schedule->desc, &schedule->state);
    int plain = hd_dilated_plain(schedule->desc);
    schedule->starts_empty = plain < 0;
    if (plain >= 0)
        HD_TRY(hd_dilated_branch(context, &schedule->steps, &all, plain, false));
    for (int i = 0; i < schedule->desc->branches; i++)
        if (i != plain)
            HD_TRY(hd_dilated_branch(context, &schedule->steps, &all, i,
                                     !hd_dilated_alone(schedule->desc)));
    return HEED_OK;
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    schedule_t *schedule = hd_alloc(context, sizeof(*schedule));
    if (!schedule)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a schedule");
    memset(schedule, 0, sizeof(*schedule));
    schedule->desc = desc;
    hd_state_describe(&schedule->desc->out, &schedule->desc->lse, false, -1, &schedule->state);
    heed_status_t status = add_branches(context, schedule);
    if (status != HEED_OK) {
        release(context, schedule);
        return status;
    }
    *state = schedule;
    *workspace = state_bytes(schedule) + schedule->steps.workspace;
    return HEED_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

static heed_status_t run(const heed_launch_t *launch)
{
    const schedule_t *schedule = launch->state;
    const hd_state_t *state = &schedule->state;
    char *buffers[HD_STEP_OPERANDS], *memory = launch->workspace;
    for (int n = HEED_ATTENTION_Q; n <= HEED_ATTENTION_V; n++)
        buffers[n] = launch->buffers[n];
    hd_state_buffers(state, launch->buffers[HEED_DILATED_OUT], launch->buffers[HEED_DILATED_LSE],
                     memory, &buffers[HEED_ATTENTION_OUT], &buffers[HEED_ATTENTION_LSE]);
    if (schedule->starts_empty)
        hd_state_clear(state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE],
                       launch->threads);
    return hd_steps_run(&schedule->steps, 0, schedule->steps.count, buffers,
                        memory + state_bytes(schedule));
}

static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    hd_work_t work;
    hd_op_dilated.work(at, &work);
    return hd_dilated_ns(at, device, threads, work.flops, hd_dilated_step_count(at));
}

const heed_impl_t hd_impl_dilated_improved = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:improved",
    .about = "attention on strided views, branches merged by lse",
    .device_type = HEED_DEVICE_CPU,
    .features = HD_DILATED_EXACT,
    .estimate = estimate,
    .run = run,
    .prepare = prepare,
    .release = release,
};
