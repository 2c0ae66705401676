/* One stage of a pipeline over a link: its actions one after the other, pairs as one call where the
 * caller has a function for them. */
#include "pipeline.h"

#include <string.h>

/* Messages of a stage on their way in and out, of activations and of gradients. */
typedef struct runner {
    const heed_pipeline_desc_t *desc;
    const heed_action_t *actions;
    const heed_pipeline_calls_t *calls;
    const heed_pipeline_link_t *link;
    int32_t stage;
    void *in[2], *out[2];
    bool has_in[2];
    char before[256]; /* this thread's last sentence when the stage began */
} runner_t;

heed_status_t hd_pipeline_calls(const heed_pipeline_calls_t *from, heed_pipeline_calls_t *calls)
{
    static const size_t most = SIZE_MAX / 64;
    HD_TRY(hd_struct_copy(calls, sizeof(*calls), from, offsetof(heed_pipeline_calls_t, pair),
                          "calls"));
    if (!calls->forward || !calls->backward_input || !calls->backward_weight)
        return hd_fail(HEED_ERROR_NULL, "calls.%s is null",
                       !calls->forward          ? "forward"
                       : !calls->backward_input ? "backward_input"
                                                : "backward_weight");
    if (calls->activation_bytes > most || calls->gradient_bytes > most)
        return hd_fail(HEED_ERROR_VALUE, "calls.activation_bytes=%zu, gradient_bytes=%zu: too many",
                       calls->activation_bytes, calls->gradient_bytes);
    if (calls->timeout_ms < 0)
        return hd_fail(HEED_ERROR_VALUE, "calls.timeout_ms=%d is below 0", calls->timeout_ms);
    return HEED_OK;
}

size_t hd_pipeline_bytes(const heed_pipeline_calls_t *calls, int gradient)
{
    return gradient ? calls->gradient_bytes : calls->activation_bytes;
}

static heed_status_t name_failure(const runner_t *run, const heed_action_t *action,
                                  heed_status_t status)
{
    static const char *const names[] = {"forward", "backward_input", "backward_weight", "send",
                                        "recv"};
    const char *why = heed_last_error(); /* an older one says nothing of this failure */
    bool is_new = strncmp(why, run->before, sizeof(run->before) - 1) != 0;
    return hd_fail(status, "stage %d, %s of microbatch %d: %s", run->stage, names[action->kind],
                   action->microbatch, is_new ? why : heed_status_text(status));
}

static heed_status_t carry(runner_t *run, const heed_action_t *action)
{
    const heed_pipeline_link_t *link = run->link;
    int gradient = action->gradient;
    size_t bytes = hd_pipeline_bytes(run->calls, gradient);
    int32_t channel = hd_channel(run->actions, action);
    if (action->kind == HEED_ACTION_SEND)
        return link->send(link->user, action->peer, channel, run->out[gradient], bytes);
    if (run->has_in[gradient])
        return hd_fail(HEED_ERROR_VALUE, "the message before was not used");
    run->has_in[gradient] = true;
    return link->recv(link->user, action->peer, channel, run->in[gradient], bytes);
}

/* One call's task and messages: a forward comes from the part before and goes to the next, a
 * backward the other way. */
typedef struct work {
    heed_pipeline_task_t task;
    const void *in;
    void *out;
} work_t;

static heed_pipeline_task_t task_of(const runner_t *run, const heed_action_t *action)
{
    return (heed_pipeline_task_t){run->stage, action->chunk,
                                  hd_part(run->desc, run->stage, action->chunk),
                                  hd_parts(run->desc), action->microbatch};
}

static heed_status_t take_up(runner_t *run, const heed_action_t *action, work_t *work)
{
    int back = action->kind != HEED_ACTION_FORWARD;
    heed_pipeline_task_t task = task_of(run, action);
    bool is_first = task.part == (back ? task.parts - 1 : 0);
    bool is_last = task.part == (back ? 0 : task.parts - 1);
    if (is_first == run->has_in[back])
        return hd_fail(HEED_ERROR_VALUE, "%s",
                       is_first ? "a message came for it" : "no message came");
    run->has_in[back] = false;
    *work = (work_t){task, is_first ? NULL : run->in[back], is_last ? NULL : run->out[back]};
    return HEED_OK;
}

static heed_status_t work(runner_t *run, const heed_action_t *action)
{
    const heed_pipeline_calls_t *calls = run->calls;
    work_t one;
    if (action->kind == HEED_ACTION_BACKWARD_WEIGHT) {
        heed_pipeline_task_t task = task_of(run, action);
        return calls->backward_weight(calls->user, &task);
    }
    HD_TRY(take_up(run, action, &one));
    return (action->kind == HEED_ACTION_FORWARD ? calls->forward : calls->backward_input)(
        calls->user, &one.task, one.in, one.out);
}

/* Whether a forward and both halves of one backward begin here, for one call. */
static bool is_pair(const runner_t *run, const heed_action_t *action, int32_t left)
{
    const heed_action_t *input = action + 1, *weight = action + 2;
    return run->calls->pair && left >= 3 && action->kind == HEED_ACTION_FORWARD && action->paired &&
           input->kind == HEED_ACTION_BACKWARD_INPUT && input->paired &&
           weight->kind == HEED_ACTION_BACKWARD_WEIGHT && weight->paired &&
           input->chunk == weight->chunk && input->microbatch == weight->microbatch;
}

static heed_status_t work_pair(runner_t *run, const heed_action_t *action)
{
    const heed_pipeline_calls_t *calls = run->calls;
    work_t ahead, back;
    HD_TRY(take_up(run, action, &ahead));
    HD_TRY(take_up(run, action + 1, &back));
    return calls->pair(calls->user, &ahead.task, ahead.in, ahead.out, &back.task, back.in,
                       back.out);
}

static heed_status_t perform(runner_t *run, const int32_t *first)
{
    int32_t end = first[run->stage + 1];
    for (int32_t i = first[run->stage]; i < end; i++) {
        const heed_action_t *action = &run->actions[i];
        bool pair = is_pair(run, action, end - i);
        heed_status_t status = pair                    ? work_pair(run, action)
                               : hd_is_message(action) ? carry(run, action)
                                                       : work(run, action);
        if (status != HEED_OK)
            return name_failure(run, action, status);
        i += pair ? 2 : 0;
    }
    return HEED_OK;
}

heed_status_t hd_pipeline_run_stage(heed_context_t *context, const heed_pipeline_desc_t *desc,
                                    const heed_action_t *actions, const int32_t *first,
                                    int32_t stage, const heed_pipeline_calls_t *calls,
                                    const heed_pipeline_link_t *link)
{
    runner_t own = {.desc = desc, .actions = actions, .calls = calls, .link = link, .stage = stage};
    runner_t *run = &own;
    size_t bytes[2], at = 0;
    for (int gradient = 0; gradient < 2; gradient++)
        bytes[gradient] = hd_round_up(hd_pipeline_bytes(run->calls, gradient) + 1, 64);
    char *memory = hd_alloc_aligned(context, 2 * (bytes[0] + bytes[1]), 64);
    if (!memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for the messages of stage %d",
                       run->stage);
    for (int gradient = 0; gradient < 2; gradient++) {
        run->in[gradient] = memory + at;
        run->out[gradient] = memory + at + bytes[gradient];
        at += 2 * bytes[gradient];
    }
    hd_text_t before = hd_text(run->before, sizeof(run->before));
    hd_text_add(&before, "%s", heed_last_error());
    heed_status_t status = perform(run, first);
    hd_free(context, memory);
    return status;
}

heed_status_t heed_pipeline_run_stage(heed_context_t *context, const heed_pipeline_desc_t *from,
                                      const heed_action_t *actions, const int32_t *first,
                                      int32_t stage, const heed_pipeline_calls_t *from_calls,
                                      const heed_pipeline_link_t *link)
{
    heed_pipeline_desc_t desc;
    heed_pipeline_calls_t calls;
    if (!context || !actions || !first || !link || !link->send || !link->recv)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context   ? "context"
                       : !actions ? "actions"
                       : !first   ? "first"
                       : !link    ? "link"
                                  : "link.send or recv");
    HD_TRY(hd_pipeline_read(from, &desc));
    HD_TRY(hd_pipeline_calls(from_calls, &calls));
    HD_TRY(hd_pipeline_check(&desc, actions, first));
    if (stage < 0 || stage >= desc.stages)
        return hd_fail(HEED_ERROR_VALUE, "stage=%d is not 0 to %d", stage, desc.stages - 1);
    return hd_pipeline_run_stage(context, &desc, actions, first, stage, &calls, link);
}
