/* Pipeline schedules: who works on what, in which order. */
#include "pipeline.h"

#include <string.h>

/* Messages of which one end is written, the oldest first; `match` leads to the next. */
typedef struct pending {
    int32_t head, tail;
} pending_t;

typedef struct writer {
    const heed_pipeline_desc_t *desc;
    heed_action_t *actions;
    int32_t at, stage;
    pending_t channels[2 * HEED_MAX_PARTS]; /* [stage][chunk][gradient] of the receiver */
    int32_t forwards[2], backwards[2];      /* DUALPIPE: how many each chunk has */
    int32_t late_first, late_count;         /* DUALPIPE: backwards by weights put off */
    struct late {
        int32_t microbatch, chunk;
    } late[HEED_MAX_PARTS];
} writer_t;

static heed_action_t *add(writer_t *to, heed_action_kind_t kind, int32_t microbatch, int32_t chunk)
{
    heed_action_t *action = &to->actions[to->at++];
    *action = (heed_action_t){.kind = (uint8_t)kind,
                              .chunk = (uint8_t)chunk,
                              .microbatch = microbatch,
                              .peer = -1,
                              .match = -1};
    return action;
}

/* Joins both ends of a message: the second finds the first, since each end alone keeps order. */
static void join(writer_t *to, pending_t *channel, heed_action_t *action)
{
    heed_action_t *oldest = channel->head < 0 ? NULL : &to->actions[channel->head];
    int32_t own = (int32_t)(action - to->actions);
    if (oldest && oldest->kind != action->kind) {
        int32_t other = channel->head;
        channel->head = oldest->match;
        oldest->match = own;
        action->match = other;
        return;
    }
    if (oldest)
        to->actions[channel->tail].match = own;
    else
        channel->head = own;
    channel->tail = own;
}

/* The message before or after a part's work; none at the ends of the model. Activations go to the
 * next part, gradients to the one before. */
static void message(writer_t *to, heed_action_kind_t kind, int gradient, int32_t microbatch,
                    int32_t chunk)
{
    const heed_pipeline_desc_t *desc = to->desc;
    bool sends = kind == HEED_ACTION_SEND;
    int32_t other = hd_part(desc, to->stage, chunk) + (sends == !gradient ? 1 : -1);
    if (other < 0 || other >= hd_parts(desc))
        return;
    bool dual = desc->schedule == HEED_SCHEDULE_DUALPIPE;
    int32_t peer = hd_upward(desc, chunk) ? desc->stages - 1 - other : other % desc->stages;
    int32_t there = dual ? chunk : other / desc->stages;
    heed_action_t *action = add(to, kind, microbatch, chunk);
    action->gradient = (uint8_t)gradient;
    action->peer = peer;
    int32_t slot =
        sends ? peer * desc->chunks + there : to->stage * desc->chunks + chunk; /* receives */
    join(to, &to->channels[2 * slot + gradient], action);
}

static void forward(writer_t *to, int32_t microbatch, int32_t chunk)
{
    message(to, HEED_ACTION_RECV, 0, microbatch, chunk);
    add(to, HEED_ACTION_FORWARD, microbatch, chunk);
    message(to, HEED_ACTION_SEND, 0, microbatch, chunk);
}

/* One backward: its gradient goes on when all of it is done. */
static void backward(writer_t *to, int32_t microbatch, int32_t chunk)
{
    message(to, HEED_ACTION_RECV, 1, microbatch, chunk);
    add(to, HEED_ACTION_BACKWARD_INPUT, microbatch, chunk);
    add(to, HEED_ACTION_BACKWARD_WEIGHT, microbatch, chunk);
    message(to, HEED_ACTION_SEND, 1, microbatch, chunk);
}

/* Its first half: the gradient goes on, that of the weights comes later. */
static void backward_input(writer_t *to, int32_t microbatch, int32_t chunk)
{
    message(to, HEED_ACTION_RECV, 1, microbatch, chunk);
    add(to, HEED_ACTION_BACKWARD_INPUT, microbatch, chunk);
    message(to, HEED_ACTION_SEND, 1, microbatch, chunk);
}

/* ---- GPipe, 1F1B, interleaved ---------------------------------------------------------------- */

/* Turn k of a stage: microbatches come in groups of p, each group through chunk after chunk. */
static void turn(const heed_pipeline_desc_t *desc, int32_t k, bool back, int32_t *microbatch,
                 int32_t *chunk)
{
    int32_t p = desc->stages, v = desc->chunks;
    if (v == 1) {
        *microbatch = k;
        *chunk = 0;
        return;
    }
    *microbatch = k / (p * v) * p + k % p;
    *chunk = k % (p * v) / p;
    if (back)
        *chunk = v - 1 - *chunk;
}

/* `ahead` forwards, then forward and backward in turns. */
static void alternate(writer_t *to, int32_t ahead)
{
    int32_t turns = to->desc->microbatches * to->desc->chunks, microbatch, chunk;
    for (int32_t k = 0; k < turns + ahead; k++) {
        if (k < turns) {
            turn(to->desc, k, false, &microbatch, &chunk);
            forward(to, microbatch, chunk);
        }
        if (k >= ahead) {
            turn(to->desc, k - ahead, true, &microbatch, &chunk);
            backward(to, microbatch, chunk);
        }
    }
}

static int32_t ahead_of(const heed_pipeline_desc_t *desc, int32_t stage)
{
    int32_t p = desc->stages, m = desc->microbatches, v = desc->chunks, ahead;
    if (desc->schedule == HEED_SCHEDULE_GPIPE)
        return m;
    if (desc->schedule == HEED_SCHEDULE_1F1B)
        ahead = p - stage - 1;
    else
        ahead = m == p ? m * v : 2 * (p - stage - 1) + (v - 1) * p;
    return (int32_t)hd_min(ahead, m * v);
}

/* ---- zero bubble ----------------------------------------------------------------------------- */

/* After its first forwards a stage repeats B W F. W lags, further back the nearer a stage is to the
 * loss, so that every stage keeps as many activations as the first one does. */
static void zero_bubble(writer_t *to, bool second)
{
    const heed_pipeline_desc_t *desc = to->desc;
    int32_t m = desc->microbatches, left = desc->stages - to->stage;
    int32_t ahead = (int32_t)hd_min(second ? 2 * left - 1 : left, m);
    int32_t lag = second ? 2 * to->stage : to->stage;
    for (int32_t i = 0; i < ahead; i++)
        forward(to, i, 0);
    for (int32_t i = 0; i < m; i++) {
        backward_input(to, i, 0);
        if (i >= lag)
            add(to, HEED_ACTION_BACKWARD_WEIGHT, i - lag, 0);
        if (ahead + i < m)
            forward(to, ahead + i, 0);
    }
    for (int32_t i = (int32_t)hd_max(m - lag, 0); i < m; i++)
        add(to, HEED_ACTION_BACKWARD_WEIGHT, i, 0);
}

/* ---- DualPipe -------------------------------------------------------------------------------- */

/* Stages of the second half see the directions the other way round. */
static int32_t chunk_of(const writer_t *to, int32_t near)
{
    return to->stage < to->desc->stages / 2 ? near : 1 - near;
}

static int32_t microbatch_of(const writer_t *to, int32_t chunk, int32_t number)
{
    return number + chunk * (to->desc->microbatches / 2);
}

static void dual_forward(writer_t *to, int32_t near)
{
    int32_t chunk = chunk_of(to, near);
    forward(to, microbatch_of(to, chunk, to->forwards[chunk]++), chunk);
}

static void dual_backward(writer_t *to, int32_t near, bool late)
{
    int32_t chunk = chunk_of(to, near);
    int32_t microbatch = microbatch_of(to, chunk, to->backwards[chunk]++);
    backward_input(to, microbatch, chunk);
    if (late)
        to->late[to->late_count++] = (struct late){microbatch, chunk};
    else
        add(to, HEED_ACTION_BACKWARD_WEIGHT, microbatch, chunk);
}

static void dual_weight(writer_t *to)
{
    struct late late = to->late[to->late_first++];
    add(to, HEED_ACTION_BACKWARD_WEIGHT, late.microbatch, late.chunk);
}

/* A forward of one direction together with a backward of the other. */
static void dual_pair(writer_t *to, int32_t near)
{
    int32_t there = chunk_of(to, near), back = 1 - there;
    int32_t ahead = microbatch_of(to, there, to->forwards[there]++);
    int32_t behind = microbatch_of(to, back, to->backwards[back]++);
    message(to, HEED_ACTION_RECV, 0, ahead, there);
    message(to, HEED_ACTION_RECV, 1, behind, back);
    add(to, HEED_ACTION_FORWARD, ahead, there)->paired = 1;
    add(to, HEED_ACTION_BACKWARD_INPUT, behind, back)->paired = 1;
    add(to, HEED_ACTION_BACKWARD_WEIGHT, behind, back)->paired = 1;
    message(to, HEED_ACTION_SEND, 0, ahead, there);
    message(to, HEED_ACTION_SEND, 1, behind, back);
}

/* From the first forwards to pairs: `near` stages to the nearer end, `far` to the middle. */
static void dual_begin(writer_t *to, int32_t near, int32_t far)
{
    for (int32_t i = 0; i < 2 * far; i++)
        dual_forward(to, 0);
    for (int32_t i = 0; i <= near; i++) {
        dual_forward(to, 0);
        dual_forward(to, 1);
    }
    for (int32_t i = 0; i < far; i++) {
        dual_backward(to, 1, true);
        dual_weight(to);
        dual_forward(to, 1);
    }
}

/* From the last pairs to the end; what lags behind fills the gaps. */
static void dual_end(writer_t *to, int32_t near, int32_t far)
{
    bool late = false;
    for (int32_t i = 0; i < far; i++) {
        dual_backward(to, 1, false);
        dual_pair(to, 1);
    }
    for (int32_t i = 0; i <= near; i++) {
        bool half = i == (near + 1) / 2;
        late = late || (half && near % 2);
        dual_backward(to, 1, late);
        late = late || half;
        dual_backward(to, 0, late);
    }
    for (int32_t i = 0; i < far; i++) {
        dual_weight(to);
        dual_backward(to, 0, true);
    }
    while (to->late_first < to->late_count)
        dual_weight(to);
}

static void dualpipe(writer_t *to)
{
    int32_t p = to->desc->stages, m = to->desc->microbatches;
    int32_t near = (int32_t)hd_min(to->stage, p - 1 - to->stage), far = p / 2 - 1 - near;
    memset(to->forwards, 0, sizeof(to->forwards));
    memset(to->backwards, 0, sizeof(to->backwards));
    to->late_first = to->late_count = 0;
    dual_begin(to, near, far);
    for (int32_t i = 0; i < m / 2 - p + near + 1; i++) {
        if (i == 0 && far == 0) { /* the two in the middle wait for each other here */
            dual_forward(to, 0);
            dual_backward(to, 1, false);
        } else {
            dual_pair(to, 0);
        }
        dual_pair(to, 1);
    }
    dual_end(to, near, far);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static void write_stage(writer_t *to)
{
    switch (to->desc->schedule) {
    case HEED_SCHEDULE_GPIPE:
    case HEED_SCHEDULE_1F1B:
    case HEED_SCHEDULE_INTERLEAVED:
        alternate(to, ahead_of(to->desc, to->stage));
        break;
    case HEED_SCHEDULE_ZB_H1:
    case HEED_SCHEDULE_ZB_H2:
        zero_bubble(to, to->desc->schedule == HEED_SCHEDULE_ZB_H2);
        break;
    case HEED_SCHEDULE_DUALPIPE:
        dualpipe(to);
        break;
    }
}

heed_status_t heed_pipeline_schedule(const heed_pipeline_desc_t *from, heed_action_t *actions,
                                     int64_t room, int32_t *first)
{
    heed_pipeline_desc_t desc;
    if (!actions || !first)
        return hd_fail(HEED_ERROR_NULL, "%s is null", actions ? "first" : "actions");
    HD_TRY(hd_pipeline_read(from, &desc));
    if (room < hd_count_of(&desc))
        return hd_fail(HEED_ERROR_VALUE, "room=%lld, but there are %lld actions", (long long)room,
                       (long long)hd_count_of(&desc));
    writer_t to;
    to.desc = &desc;
    to.actions = actions;
    to.at = 0;
    for (int32_t i = 0; i < 2 * desc.stages * desc.chunks; i++)
        to.channels[i] = (pending_t){-1, -1};
    for (to.stage = 0; to.stage < desc.stages; to.stage++) {
        first[to.stage] = to.at;
        write_stage(&to);
    }
    first[desc.stages] = to.at;
    return HEED_OK;
}
