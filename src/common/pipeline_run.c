/* A stage over a link, and all stages of a pipeline as threads of one process. */
#define _GNU_SOURCE
#include "pipeline.h"

#include <pthread.h>
#include <string.h>

/* ---- one stage ------------------------------------------------------------------------------- */

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

static heed_status_t check_calls(const heed_pipeline_calls_t *from, heed_pipeline_calls_t *calls)
{
    static const size_t most = SIZE_MAX / 64;
    HD_TRY(hd_struct_copy(calls, sizeof(*calls), from, sizeof(*calls), "calls"));
    if (!calls->forward || !calls->backward_input || !calls->backward_weight)
        return hd_fail(HEED_ERROR_NULL, "calls.%s is null",
                       !calls->forward          ? "forward"
                       : !calls->backward_input ? "backward_input"
                                                : "backward_weight");
    if (calls->activation_bytes > most || calls->gradient_bytes > most)
        return hd_fail(HEED_ERROR_VALUE, "calls.activation_bytes=%zu, gradient_bytes=%zu: too many",
                       calls->activation_bytes, calls->gradient_bytes);
    return HEED_OK;
}

static size_t bytes_of(const heed_pipeline_calls_t *calls, int gradient)
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
    size_t bytes = bytes_of(run->calls, gradient);
    int32_t channel = hd_channel(run->actions, action);
    if (action->kind == HEED_ACTION_SEND)
        return link->send(link->user, action->peer, channel, run->out[gradient], bytes);
    if (run->has_in[gradient])
        return hd_fail(HEED_ERROR_VALUE, "the message before was not used");
    run->has_in[gradient] = true;
    return link->recv(link->user, action->peer, channel, run->in[gradient], bytes);
}

/* A forward comes from the part before and goes to the next, a backward the other way. */
static heed_status_t work(runner_t *run, const heed_action_t *action)
{
    const heed_pipeline_calls_t *calls = run->calls;
    int back = action->kind != HEED_ACTION_FORWARD;
    heed_pipeline_task_t task = {run->stage, action->chunk,
                                 hd_part(run->desc, run->stage, action->chunk), hd_parts(run->desc),
                                 action->microbatch};
    if (action->kind == HEED_ACTION_BACKWARD_WEIGHT)
        return calls->backward_weight(calls->user, &task);
    bool is_first = task.part == (back ? task.parts - 1 : 0);
    bool is_last = task.part == (back ? 0 : task.parts - 1);
    if (is_first == run->has_in[back])
        return hd_fail(HEED_ERROR_VALUE, "%s",
                       is_first ? "a message came for it" : "no message came");
    run->has_in[back] = false;
    return (back ? calls->backward_input : calls->forward)(
        calls->user, &task, is_first ? NULL : run->in[back], is_last ? NULL : run->out[back]);
}

static heed_status_t perform(runner_t *run, const int32_t *first)
{
    for (int32_t i = first[run->stage]; i < first[run->stage + 1]; i++) {
        const heed_action_t *action = &run->actions[i];
        heed_status_t status = hd_is_message(action) ? carry(run, action) : work(run, action);
        if (status != HEED_OK)
            return name_failure(run, action, status);
    }
    return HEED_OK;
}

/* desc, calls and lists are good. */
static heed_status_t run_stage(heed_context_t *context, runner_t *run, const int32_t *first)
{
    size_t bytes[2], at = 0;
    for (int gradient = 0; gradient < 2; gradient++)
        bytes[gradient] = hd_round_up(bytes_of(run->calls, gradient) + 1, 64);
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
    HD_TRY(check_calls(from_calls, &calls));
    HD_TRY(hd_pipeline_check(&desc, actions, first));
    if (stage < 0 || stage >= desc.stages)
        return hd_fail(HEED_ERROR_VALUE, "stage=%d is not 0 to %d", stage, desc.stages - 1);
    runner_t run = {
        .desc = &desc, .actions = actions, .calls = &calls, .link = link, .stage = stage};
    return run_stage(context, &run, first);
}

/* ---- queues between threads ------------------------------------------------------------------ */

/* One sender and one receiver: between `taken` and `put` lie the messages that wait. */
typedef struct queue {
    int64_t put, taken;
    char *slots;
} queue_t;

typedef struct hall {
    heed_context_t *context;
    heed_pipeline_desc_t desc;
    heed_pipeline_calls_t calls;
    const heed_action_t *actions;
    const int32_t *first;
    pthread_mutex_t lock;
    queue_t *queues; /* [stage][channel], of the receiver */
    struct member *members;
    int32_t member_count; /* whom to wake */
    heed_status_t status; /* the first failure */
    char sentence[512];
} hall_t;

typedef struct member {
    hall_t *hall;
    int32_t stage;
    pthread_cond_t changed; /* a message came, room was made, or the run is over */
    pthread_t thread;
} member_t;

static queue_t *queue_of(hall_t *hall, int32_t receiver, int32_t channel)
{
    return &hall->queues[2 * receiver * hall->desc.chunks + channel];
}

static void fail_all(hall_t *hall, heed_status_t status)
{
    pthread_mutex_lock(&hall->lock);
    if (hall->status == HEED_OK) {
        hd_text_t text = hd_text(hall->sentence, sizeof(hall->sentence));
        hd_text_add(&text, "%s", heed_last_error());
        hall->status = status;
    }
    for (int32_t i = 0; i < hall->member_count; i++)
        pthread_cond_broadcast(&hall->members[i].changed);
    pthread_mutex_unlock(&hall->lock);
}

/* Waits until the queue has a message, or room for one; the slot to use, NULL when the run is over.
 * Nobody else touches that slot, so it is copied without the lock. */
static char *wait_for(member_t *member, const queue_t *queue, bool sends, size_t bytes)
{
    hall_t *hall = member->hall;
    pthread_mutex_lock(&hall->lock);
    while (hall->status == HEED_OK &&
           (sends ? queue->put - queue->taken == hall->desc.queue : queue->put == queue->taken))
        pthread_cond_wait(&member->changed, &hall->lock);
    bool over = hall->status != HEED_OK;
    int64_t number = sends ? queue->put : queue->taken;
    pthread_mutex_unlock(&hall->lock);
    return over ? NULL : queue->slots + (size_t)(number % hall->desc.queue) * bytes;
}

static void done_with(hall_t *hall, int64_t *counter, int32_t other)
{
    pthread_mutex_lock(&hall->lock);
    (*counter)++;
    pthread_cond_signal(&hall->members[other].changed);
    pthread_mutex_unlock(&hall->lock);
}

static heed_status_t put(void *user, int32_t to, int32_t channel, const void *data, size_t bytes)
{
    member_t *member = user;
    queue_t *queue = queue_of(member->hall, to, channel);
    char *slot = wait_for(member, queue, true, bytes);
    if (!slot)
        return hd_fail(HEED_ERROR_COMM, "another stage failed");
    memcpy(slot, data, bytes);
    done_with(member->hall, &queue->put, to);
    return HEED_OK;
}

static heed_status_t take(void *user, int32_t from, int32_t channel, void *data, size_t bytes)
{
    member_t *member = user;
    queue_t *queue = queue_of(member->hall, member->stage, channel);
    char *slot = wait_for(member, queue, false, bytes);
    if (!slot)
        return hd_fail(HEED_ERROR_COMM, "another stage failed");
    memcpy(data, slot, bytes);
    done_with(member->hall, &queue->taken, from);
    return HEED_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void *run_member(void *user)
{
    member_t *member = user;
    hall_t *hall = member->hall;
    heed_pipeline_link_t link = {put, take, member};
    runner_t run = {.desc = &hall->desc,
                    .actions = hall->actions,
                    .calls = &hall->calls,
                    .link = &link,
                    .stage = member->stage};
    heed_status_t status = run_stage(hall->context, &run, hall->first);
    if (status != HEED_OK)
        fail_all(hall, status);
    return NULL;
}

/* Bytes of all slots; with `memory` the queues get theirs. */
static size_t place_slots(hall_t *hall, char *memory)
{
    size_t at = 0;
    for (int32_t i = 0; i < 2 * hall->desc.stages * hall->desc.chunks; i++) {
        if (memory)
            hall->queues[i] = (queue_t){0, 0, memory + at};
        at += (size_t)hall->desc.queue * bytes_of(&hall->calls, i % 2);
    }
    return at;
}

static void run_threads(hall_t *hall)
{
    int32_t stages = hall->desc.stages, started = 0;
    for (; hall->member_count < stages; hall->member_count++) {
        member_t *member = &hall->members[hall->member_count];
        *member = (member_t){.hall = hall, .stage = hall->member_count};
        if (pthread_cond_init(&member->changed, NULL))
            break;
    }
    while (
        hall->member_count == stages && started < stages &&
        !pthread_create(&hall->members[started].thread, NULL, run_member, &hall->members[started]))
        started++;
    if (started < stages)
        fail_all(hall, hd_fail(HEED_ERROR_OUT_OF_MEMORY, "stage %d of %d cannot be started",
                               started, stages));
    for (int32_t i = 0; i < started; i++)
        pthread_join(hall->members[i].thread, NULL);
    while (hall->member_count > 0)
        pthread_cond_destroy(&hall->members[--hall->member_count].changed);
}

/* One block: the actions, where stages begin, members, queues, slots. */
static heed_status_t run_in(hall_t *hall, char *memory, int64_t count, const size_t *sizes)
{
    heed_action_t *actions = (void *)memory;
    int32_t *first = (void *)(memory + sizes[0]);
    hall->members = (void *)(memory + sizes[0] + sizes[1]);
    hall->queues = (void *)(memory + sizes[0] + sizes[1] + sizes[2]);
    HD_TRY(heed_pipeline_schedule(&hall->desc, actions, count, first));
    /* Every schedule gets by with one message; a second lets the sender go on. */
    int32_t queue = hall->desc.queue ? hall->desc.queue : 2;
    hall->desc.queue = (int32_t)hd_min(queue, hall->desc.microbatches);
    hall->actions = actions;
    hall->first = first;
    size_t bytes = place_slots(hall, NULL);
    char *slots = hd_alloc_aligned(hall->context, bytes + 1, 64);
    if (!slots)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %zu bytes of queues", bytes);
    place_slots(hall, slots);
    heed_status_t status = HEED_OK;
    if (pthread_mutex_init(&hall->lock, NULL)) {
        status = hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no lock for the queues");
    } else {
        run_threads(hall);
        pthread_mutex_destroy(&hall->lock);
    }
    hd_free(hall->context, slots);
    return status != HEED_OK         ? status
           : hall->status != HEED_OK ? hd_fail(hall->status, "%s", hall->sentence)
                                     : HEED_OK;
}

heed_status_t heed_pipeline_run(heed_context_t *context, const heed_pipeline_desc_t *desc,
                                const heed_pipeline_calls_t *calls)
{
    hall_t hall = {.context = context, .status = HEED_OK};
    int64_t count;
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_pipeline_read(desc, &hall.desc));
    HD_TRY(check_calls(calls, &hall.calls));
    HD_TRY(heed_pipeline_count(&hall.desc, &count));
    size_t stages = (size_t)hall.desc.stages, chunks = (size_t)hall.desc.chunks;
    size_t sizes[] = {hd_round_up((size_t)count * sizeof(heed_action_t), 64),
                      hd_round_up((stages + 1) * sizeof(int32_t), 64),
                      hd_round_up(stages * sizeof(member_t), 64),
                      hd_round_up(2 * stages * chunks * sizeof(queue_t), 64)};
    char *memory = hd_alloc_aligned(context, sizes[0] + sizes[1] + sizes[2] + sizes[3], 64);
    if (!memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a pipeline of %d stages",
                       hall.desc.stages);
    heed_status_t status = run_in(&hall, memory, count, sizes);
    hd_free(context, memory);
    return status;
}
