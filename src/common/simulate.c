/* Schedules performed in time. */
#include "pipeline.h"

#include <string.h>

typedef struct channel {
    int32_t last;        /* match of the latest SEND, -1: none yet */
    int32_t sent, waits; /* so far, and of them not received */
    int32_t
        oldest; /* where sent is the bound or more: the SEND whose RECV makes room for the next */
} channel_t;

typedef struct player {
    const heed_pipeline_desc_t *desc;
    heed_action_t *actions;
    const int32_t *first;
    int32_t next[HEED_MAX_PARTS], live[HEED_MAX_PARTS];
    int64_t now[HEED_MAX_PARTS];
    heed_stage_report_t stages[HEED_MAX_PARTS];
    int32_t ready[HEED_MAX_PARTS], ready_count; /* stages that may go on */
    bool is_ready[HEED_MAX_PARTS];
    channel_t channels[2 * HEED_MAX_PARTS];
} player_t;

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t bad(int32_t stage, int32_t number, const char *what)
{
    return hd_fail(HEED_ERROR_VALUE, "stage %d, action %d: %s", stage, number, what);
}

static heed_status_t check_message(const heed_pipeline_desc_t *desc, const heed_action_t *actions,
                                   const int32_t *first, int32_t stage, int32_t i)
{
    const heed_action_t *action = &actions[i];
    int32_t number = i - first[stage];
    if (action->peer < 0 || action->peer >= desc->stages)
        return bad(stage, number, "its peer is no stage");
    if (action->match < first[action->peer] || action->match >= first[action->peer + 1])
        return bad(stage, number, "its match is not the peer's");
    const heed_action_t *other = &actions[action->match];
    if (other->match != i || other->peer != stage || other->gradient != action->gradient ||
        other->kind + action->kind != HEED_ACTION_SEND + HEED_ACTION_RECV)
        return bad(stage, number, "it does not fit its match");
    return HEED_OK;
}

static heed_status_t check_action(const heed_pipeline_desc_t *desc, const heed_action_t *actions,
                                  const int32_t *first, int32_t stage, int32_t i)
{
    const heed_action_t *action = &actions[i];
    if (action->kind > HEED_ACTION_RECV || action->gradient > 1 || action->chunk >= desc->chunks ||
        action->microbatch < 0 || action->microbatch >= desc->microbatches)
        return bad(stage, i - first[stage], "kind, chunk or microbatch is out of range");
    return hd_is_message(action) ? check_message(desc, actions, first, stage, i) : HEED_OK;
}

static heed_status_t check_first(const heed_pipeline_desc_t *desc, const int32_t *first)
{
    if (first[0] != 0)
        return hd_fail(HEED_ERROR_VALUE, "first[0]=%d is not 0", first[0]);
    for (int32_t stage = 0; stage < desc->stages; stage++)
        if (first[stage + 1] < first[stage])
            return hd_fail(HEED_ERROR_VALUE, "first[%d]=%d is below first[%d]=%d", stage + 1,
                           first[stage + 1], stage, first[stage]);
    return HEED_OK;
}

static heed_status_t check_actions(const heed_pipeline_desc_t *desc, const heed_action_t *actions,
                                   const int32_t *first)
{
    for (int32_t stage = 0; stage < desc->stages; stage++)
        for (int32_t i = first[stage]; i < first[stage + 1]; i++)
            HD_TRY(check_action(desc, actions, first, stage, i));
    return HEED_OK;
}

heed_status_t hd_pipeline_check(const heed_pipeline_desc_t *desc, const heed_action_t *actions,
                                const int32_t *first)
{
    HD_TRY(check_first(desc, first));
    return check_actions(desc, actions, first);
}

/* ---- time ------------------------------------------------------------------------------------ */

static int64_t weight_of(const player_t *play, int32_t stage, const heed_action_t *action)
{
    const int64_t *weights = play->desc->weights;
    return weights ? weights[hd_part(play->desc, stage, action->chunk)] : 1;
}

/* A pair's forward is shortened by what running together saves. */
static int64_t saved(const player_t *play, int32_t stage, const heed_action_t *action)
{
    const heed_pipeline_desc_t *desc = play->desc;
    const heed_action_t *next = action + 1;
    if (!desc->pair || !action->paired || next == play->actions + play->first[stage + 1] ||
        !next->paired)
        return 0;
    int64_t sum = desc->forward + desc->backward_input + desc->backward_weight;
    return (sum - desc->pair) *
           hd_min(weight_of(play, stage, action), weight_of(play, stage, next));
}

static int64_t duration(const player_t *play, int32_t stage, const heed_action_t *action)
{
    const heed_pipeline_desc_t *desc = play->desc;
    int64_t weight = weight_of(play, stage, action);
    switch (action->kind) {
    case HEED_ACTION_FORWARD:
        return desc->forward * weight - saved(play, stage, action);
    case HEED_ACTION_BACKWARD_INPUT:
        return desc->backward_input * weight;
    default:
        return desc->backward_weight * weight;
    }
}

static void work(player_t *play, int32_t stage, heed_action_t *action)
{
    heed_stage_report_t *report = &play->stages[stage];
    action->start = play->now[stage];
    action->end = play->now[stage] += duration(play, stage, action);
    if (report->start < 0)
        report->start = action->start;
    report->end = action->end;
    report->busy += action->end - action->start;
    if (action->kind == HEED_ACTION_FORWARD)
        play->live[stage]++;
    report->peak_activations = (int32_t)hd_max(report->peak_activations, play->live[stage]);
    if (action->kind == HEED_ACTION_BACKWARD_WEIGHT)
        play->live[stage]--;
}

/* ---- messages -------------------------------------------------------------------------------- */

static void make_ready(player_t *play, int32_t stage)
{
    if (play->is_ready[stage] || play->next[stage] == play->first[stage + 1])
        return;
    play->is_ready[stage] = true;
    play->ready[play->ready_count++] = stage;
}

static channel_t *channel_of(player_t *play, int32_t receiver, const heed_action_t *action)
{
    return &play->channels[2 * receiver * play->desc->chunks + hd_channel(play->actions, action)];
}

/* The next SEND of this channel in the sender's list. */
static int32_t following(const player_t *play, int32_t at, const heed_action_t *action)
{
    int32_t channel = hd_channel(play->actions, action);
    const heed_action_t *other;
    do
        other = &play->actions[++at];
    while (other->kind != HEED_ACTION_SEND || other->peer != action->peer ||
           hd_channel(play->actions, other) != channel);
    return at;
}

/* Returns false where the queue is full. */
static bool can_send(player_t *play, int32_t stage, const heed_action_t *action)
{
    const channel_t *channel = channel_of(play, action->peer, action);
    if (play->desc->queue == 0 || channel->sent < play->desc->queue)
        return true;
    if (channel->waits == play->desc->queue)
        return false;
    const heed_action_t *received = &play->actions[play->actions[channel->oldest].match];
    play->now[stage] = hd_max(play->now[stage], received->end);
    return true;
}

static heed_status_t send(player_t *play, int32_t stage, heed_action_t *action)
{
    channel_t *channel = channel_of(play, action->peer, action);
    int32_t number = (int32_t)(action - play->actions);
    if (action->match < channel->last)
        return bad(stage, number - play->first[stage], "it overtakes a message of its channel");
    channel->last = action->match;
    channel->waits++;
    if (channel->sent++ == 0)
        channel->oldest = number;
    else if (play->desc->queue && channel->sent > play->desc->queue)
        channel->oldest = following(play, channel->oldest, action);
    action->end = play->now[stage];
    if (play->next[action->peer] == action->match)
        make_ready(play, action->peer);
    return HEED_OK;
}

static void receive(player_t *play, int32_t stage, heed_action_t *action)
{
    channel_t *channel = channel_of(play, stage, action);
    const heed_action_t *sent = &play->actions[action->match];
    play->now[stage] = hd_max(play->now[stage], sent->end + play->desc->transfer);
    action->end = play->now[stage];
    channel->waits--;
    if (play->desc->queue)
        make_ready(play, action->peer);
}

/* Performs what the stage can, until it has to wait. */
static heed_status_t advance(player_t *play, int32_t stage)
{
    for (; play->next[stage] < play->first[stage + 1]; play->next[stage]++) {
        heed_action_t *action = &play->actions[play->next[stage]];
        HD_TRY(check_action(play->desc, play->actions, play->first, stage, play->next[stage]));
        if (!hd_is_message(action)) {
            work(play, stage, action);
            continue;
        }
        action->start = play->now[stage];
        if (action->kind == HEED_ACTION_SEND) {
            if (!can_send(play, stage, action))
                return HEED_OK;
            HD_TRY(send(play, stage, action));
        } else {
            if (play->next[action->peer] <= action->match) /* not sent yet */
                return HEED_OK;
            receive(play, stage, action);
        }
    }
    return HEED_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static heed_status_t play_all(player_t *play)
{
    int32_t stages = play->desc->stages;
    for (int32_t i = 0; i < 2 * stages * play->desc->chunks; i++)
        play->channels[i] = (channel_t){-1, 0, 0, -1};
    play->ready_count = 0;
    for (int32_t stage = stages - 1; stage >= 0; stage--) {
        play->next[stage] = play->first[stage];
        play->now[stage] = play->live[stage] = 0;
        play->is_ready[stage] = false;
        play->stages[stage] = (heed_stage_report_t){.start = -1};
        make_ready(play, stage);
    }
    while (play->ready_count) {
        int32_t stage = play->ready[--play->ready_count];
        play->is_ready[stage] = false;
        HD_TRY(advance(play, stage));
    }
    for (int32_t stage = 0; stage < stages; stage++) {
        int32_t next = play->next[stage];
        const heed_action_t *action = &play->actions[next];
        if (next < play->first[stage + 1])
            return hd_fail(HEED_ERROR_VALUE,
                           "deadlock: stage %d waits for ever to %s stage %d (microbatch %d), "
                           "desc.queue=%d",
                           stage, action->kind == HEED_ACTION_SEND ? "send to" : "receive from",
                           action->peer, action->microbatch, play->desc->queue);
    }
    return HEED_OK;
}

static void summarise(const player_t *play, heed_pipeline_report_t *report)
{
    int64_t start = INT64_MAX, end = 0, least = INT64_MAX;
    *report = (heed_pipeline_report_t){0};
    for (int32_t stage = 0; stage < play->desc->stages; stage++) {
        const heed_stage_report_t *own = &play->stages[stage];
        if (own->start < 0) /* a list without work */
            continue;
        int64_t span = own->end - own->start, bubble = span - own->busy;
        start = hd_min(start, own->start);
        end = hd_max(end, own->end);
        least = hd_min(least, own->busy);
        report->bubble = hd_max(report->bubble, bubble);
        if (span > 0 && (double)bubble / (double)span > report->bubble_fraction)
            report->bubble_fraction = (double)bubble / (double)span;
        report->peak_activations = (int32_t)hd_max(report->peak_activations, own->peak_activations);
    }
    if (least < INT64_MAX) {
        report->makespan = end - start;
        report->idle = report->makespan - least;
    }
}

heed_status_t heed_pipeline_simulate(const heed_pipeline_desc_t *from, heed_action_t *actions,
                                     const int32_t *first, heed_pipeline_report_t *report,
                                     heed_stage_report_t *stages)
{
    heed_pipeline_desc_t desc;
    if (!actions || !first || !report)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !actions ? "actions"
                       : !first ? "first"
                                : "report");
    HD_TRY(hd_pipeline_read(from, &desc));
    HD_TRY(check_first(&desc, first));
    player_t play;
    play.desc = &desc;
    play.actions = actions;
    play.first = first;
    /* Actions are checked as they are performed: one pass over the lists instead of two. Where that
     * ends early, the first bad action is the reason, if there is one. */
    heed_status_t played = play_all(&play);
    if (played != HEED_OK) {
        HD_TRY(check_actions(&desc, actions, first));
        return played;
    }
    summarise(&play, report);
    if (stages)
        memcpy(stages, play.stages, sizeof(*stages) * (size_t)desc.stages);
    return HEED_OK;
}
