/* All stages of a pipeline as threads of one process. */
#define _GNU_SOURCE
#include "pipeline.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

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
    hd_kept_t failure;    /* the first */
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
    if (hall->failure.status == HEED_OK)
        hd_keep(&hall->failure, status);
    for (int32_t i = 0; i < hall->member_count; i++)
        pthread_cond_broadcast(&hall->members[i].changed);
    pthread_mutex_unlock(&hall->lock);
}

static struct timespec deadline_of(const hall_t *hall)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    int64_t ns = time.tv_nsec + (int64_t)hall->calls.timeout_ms * 1000000;
    return (struct timespec){time.tv_sec + ns / 1000000000, ns % 1000000000};
}

static bool is_over(const member_t *member, const queue_t *queue, bool sends)
{
    const hall_t *hall = member->hall;
    return hall->failure.status != HEED_OK ||
           (sends ? queue->put - queue->taken != hall->desc.queue : queue->put != queue->taken);
}

/* Waits until the queue has a message, or room for one; *slot is where, and nobody else touches
 * that slot, so it is copied without the lock. */
static heed_status_t wait_for(member_t *member, const queue_t *queue, int32_t other, bool sends,
                              size_t bytes, char **slot)
{
    hall_t *hall = member->hall;
    struct timespec deadline = deadline_of(hall);
    int timed_out = 0;
    pthread_mutex_lock(&hall->lock);
    while (!timed_out && !is_over(member, queue, sends)) {
        if (hall->calls.timeout_ms)
            timed_out = pthread_cond_timedwait(&member->changed, &hall->lock, &deadline);
        else
            pthread_cond_wait(&member->changed, &hall->lock);
    }
    bool failed = hall->failure.status != HEED_OK, late = !is_over(member, queue, sends);
    int64_t number = sends ? queue->put : queue->taken;
    pthread_mutex_unlock(&hall->lock);
    *slot = queue->slots + (size_t)(number % hall->desc.queue) * bytes;
    if (failed)
        return hd_fail(HEED_ERROR_COMM, "another stage failed");
    if (late)
        return hd_fail(HEED_ERROR_COMM, "stage %d did not answer within %d ms", other,
                       hall->calls.timeout_ms);
    return HEED_OK;
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
    char *slot;
    HD_TRY(wait_for(member, queue, to, true, bytes, &slot));
    memcpy(slot, data, bytes);
    done_with(member->hall, &queue->put, to);
    return HEED_OK;
}

static heed_status_t take(void *user, int32_t from, int32_t channel, void *data, size_t bytes)
{
    member_t *member = user;
    queue_t *queue = queue_of(member->hall, member->stage, channel);
    char *slot;
    HD_TRY(wait_for(member, queue, from, false, bytes, &slot));
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
    heed_status_t status = hd_pipeline_run_stage(hall->context, &hall->desc, hall->actions,
                                                 hall->first, member->stage, &hall->calls, &link);
    if (status != HEED_OK)
        fail_all(hall, status);
    return NULL;
}

static void place_slots(hall_t *hall, char *memory)
{
    for (int32_t i = 0; i < 2 * hall->desc.stages * hall->desc.chunks; i++) {
        hall->queues[i] = (queue_t){0, 0, memory};
        memory += (size_t)hall->desc.queue * hd_pipeline_bytes(&hall->calls, i % 2);
    }
}

/* On a clock that nobody sets. */
static bool cond_make(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes))
        return false;
    bool made = !pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) &&
                !pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
    return made;
}

static void run_threads(hall_t *hall)
{
    int32_t stages = hall->desc.stages, started = 0;
    for (; hall->member_count < stages; hall->member_count++) {
        member_t *member = &hall->members[hall->member_count];
        *member = (member_t){.hall = hall, .stage = hall->member_count};
        if (!cond_make(&member->changed))
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
    int64_t bytes, each = (int64_t)(hall->calls.activation_bytes + hall->calls.gradient_bytes);
    char *slots = NULL;
    if (hd_mul(each, (int64_t)hall->desc.stages * hall->desc.chunks, &bytes) &&
        hd_mul(bytes, hall->desc.queue, &bytes))
        slots = hd_alloc_aligned(hall->context, (size_t)bytes + 1, 64);
    if (!slots)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for queues of %d messages",
                       hall->desc.queue);
    place_slots(hall, slots);
    heed_status_t status = HEED_OK;
    if (pthread_mutex_init(&hall->lock, NULL)) {
        status = hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no lock for the queues");
    } else {
        run_threads(hall);
        pthread_mutex_destroy(&hall->lock);
    }
    hd_free(hall->context, slots);
    return status == HEED_OK ? hd_kept(&hall->failure) : status;
}

heed_status_t heed_pipeline_run(heed_context_t *context, const heed_pipeline_desc_t *desc,
                                const heed_pipeline_calls_t *calls)
{
    hall_t hall = {.context = context, .failure = {.status = HEED_OK}};
    int64_t count;
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_pipeline_read(desc, &hall.desc));
    HD_TRY(hd_pipeline_calls(calls, &hall.calls));
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
