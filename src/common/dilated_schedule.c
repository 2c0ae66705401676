#include "dilated_schedule.h"

#include <string.h>

void hd_dilated_release(heed_context_t *context, void *state)
{
    hd_dilated_schedule_t *schedule = state;
    if (!schedule)
        return;
    hd_steps_free(context, &schedule->steps);
    hd_free(context, schedule);
}

heed_status_t hd_dilated_prepare(heed_context_t *context, const void *desc, size_t size, bool wide,
                                 hd_dilated_add_fn_t *add,
                                 void (*undo)(heed_context_t *context, void *state), void **state,
                                 size_t *workspace)
{
    hd_dilated_schedule_t *schedule = hd_alloc(context, size);
    if (!schedule)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a schedule");
    memset(schedule, 0, size);
    schedule->context = context;
    schedule->desc = desc;
    hd_state_describe(&schedule->desc->out, &schedule->desc->lse, wide, -1, &schedule->state);
    heed_status_t status = add(schedule);
    if (status != HEED_OK) {
        undo(context, schedule);
        return status;
    }
    *state = schedule;
    *workspace = schedule->state.out_bytes + schedule->state.lse_bytes + schedule->steps.workspace;
    return HEED_OK;
}

heed_status_t hd_dilated_run(const heed_launch_t *launch)
{
    const hd_dilated_schedule_t *schedule = launch->state;
    const hd_state_t *state = &schedule->state;
    const heed_dilated_desc_t *desc = schedule->desc;
    void *out = launch->buffers[HEED_DILATED_OUT], *lse = launch->buffers[HEED_DILATED_LSE];
    char *buffers[HD_STEP_OPERANDS], *memory = launch->workspace;
    for (int n = HEED_ATTENTION_Q; n <= HEED_ATTENTION_V; n++)
        buffers[n] = launch->buffers[n];
    hd_state_buffers(state, out, lse, memory, &buffers[HEED_ATTENTION_OUT],
                     &buffers[HEED_ATTENTION_LSE]);
    if (!schedule->full)
        hd_state_clear(state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE],
                       launch->threads);
    HD_TRY(hd_steps_run(&schedule->steps, 0, schedule->steps.count, buffers,
                        memory + state->out_bytes + state->lse_bytes));
    hd_rows_t all = {.count = desc->q.shape[1], .distance = 1, .apart = 1};
    hd_state_store(state, buffers, &all, &desc->out, out, &desc->lse, lse, launch->threads);
    return HEED_OK;
}

/* The branch that shows every row something; -1: there is none. */
static int plain_branch(const heed_dilated_desc_t *desc)
{
    for (int i = 0; i < desc->branches && desc->mode == HEED_DILATED_LONGNET; i++)
        if (desc->rates[i] == 1)
            return i;
    return -1;
}

heed_status_t hd_dilated_all(hd_dilated_schedule_t *schedule, hd_dilated_branch_fn_t *each)
{
    const heed_dilated_desc_t *desc = schedule->desc;
    int plain = plain_branch(desc);
    schedule->full = plain >= 0;
    if (plain >= 0)
        HD_TRY(each(schedule, plain, false));
    for (int i = 0; i < desc->branches; i++)
        if (i != plain)
            HD_TRY(each(schedule, i, !hd_dilated_alone(desc)));
    return HEED_OK;
}
