/* Schedules of pipelines against the published forms and against a second way of timing them; lists
 * of others; what is refused. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_STAGES = 64, MOST_ACTIONS = 1 << 17 };

static heed_action_t actions[MOST_ACTIONS];
static int32_t first[MOST_STAGES + 1];
static heed_stage_report_t stages[MOST_STAGES];

static const heed_schedule_t all[] = {HEED_SCHEDULE_GPIPE,       HEED_SCHEDULE_1F1B,
                                      HEED_SCHEDULE_INTERLEAVED, HEED_SCHEDULE_ZB_H1,
                                      HEED_SCHEDULE_ZB_H2,       HEED_SCHEDULE_DUALPIPE};
enum { ALL = sizeof(all) / sizeof(all[0]) };

/* Whether the schedule takes these numbers. */
static bool takes(heed_schedule_t schedule, int p, int m)
{
    if (schedule == HEED_SCHEDULE_INTERLEAVED)
        return p > 1 && m % p == 0;
    return schedule != HEED_SCHEDULE_DUALPIPE || (p % 2 == 0 && m % 2 == 0 && m >= 2 * p);
}

static void write_lists(const heed_pipeline_desc_t *desc)
{
    int64_t count;
    expect_ok(heed_pipeline_count(desc, &count));
    assert_true(count <= MOST_ACTIONS);
    expect_ok(heed_pipeline_schedule(desc, actions, count, first));
    assert_int_equal(first[desc->stages], count);
}

static heed_pipeline_report_t simulate(const heed_pipeline_desc_t *desc)
{
    heed_pipeline_report_t report;
    write_lists(desc);
    expect_ok(heed_pipeline_simulate(desc, actions, first, &report, stages));
    return report;
}

/* ---- closed forms ---------------------------------------------------------------------------- */

static void expect_numbers(const heed_pipeline_desc_t *desc, int64_t makespan, int64_t bubble,
                           int64_t idle, int32_t peak)
{
    heed_pipeline_report_t report = simulate(desc);
    if (report.makespan != makespan || report.bubble != bubble || report.idle != idle ||
        report.peak_activations != peak)
        fail_msg("%s, p=%d, m=%d, v=%d: makespan %lld, bubble %lld, idle %lld, peak %d; should be "
                 "%lld, %lld, %lld, %d",
                 heed_schedule_name(desc->schedule), desc->stages, desc->microbatches, desc->chunks,
                 (long long)report.makespan, (long long)report.bubble, (long long)report.idle,
                 report.peak_activations, (long long)makespan, (long long)bubble, (long long)idle,
                 peak);
}

/* Any times of F, B and W. */
static void test_one_backward(void **state)
{
    static const int64_t times[][3] = {{1, 1, 1}, {2, 3, 1}, {5, 7, 11}, {1, 0, 0}};
    (void)state;
    for (int p = 1; p <= 8; p++)
        for (int m = 1; m <= 32; m++)
            for (int t = 0; t < 4; t++) {
                heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_GPIPE, p, m);
                desc.forward = times[t][0];
                desc.backward_input = times[t][1];
                desc.backward_weight = times[t][2];
                int64_t one = times[t][0] + times[t][1] + times[t][2], bubble = (p - 1) * one;
                expect_numbers(&desc, m * one + bubble, bubble, bubble, m);
                desc.schedule = HEED_SCHEDULE_1F1B;
                expect_numbers(&desc, m * one + bubble, bubble, bubble, m < p ? m : p);
                assert_true(simulate(&desc).bubble_fraction == (double)(p - 1) / (m + p - 1));
                for (int r = 0; r < p; r++)
                    assert_int_equal(stages[r].peak_activations, m < p - r ? m : p - r);
                desc.schedule = HEED_SCHEDULE_INTERLEAVED;
                for (desc.chunks = 1; takes(desc.schedule, p, m) && desc.chunks <= 4;
                     desc.chunks++) {
                    int v = desc.chunks, peak = p * v + p - 1;
                    expect_numbers(&desc, m * v * one + bubble, bubble, bubble,
                                   m * v < peak ? m * v : peak);
                }
            }
}

/* F = B = W, as the published forms have it. */
static void test_split_backward(void **state)
{
    (void)state;
    for (int p = 1; p <= 8; p++)
        for (int m = 1; m <= 32; m++) {
            heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_ZB_H1, p, m);
            desc.forward = desc.backward_input = desc.backward_weight = 7;
            int64_t busy = 21 * m;
            if (m >= p)
                expect_numbers(&desc, busy + 7 * (p - 1), 7 * (p - 1), 7 * (p - 1), p);
            for (int r = 0; m >= p && r < p; r++)
                assert_int_equal(stages[r].peak_activations, p);
            desc.schedule = HEED_SCHEDULE_ZB_H2;
            if (m >= 2 * p - 1)
                expect_numbers(&desc, busy + 7 * (p - 1), 0, 7 * (p - 1), 2 * p - 1);
            desc.schedule = HEED_SCHEDULE_DUALPIPE;
            if (!takes(desc.schedule, p, m))
                continue;
            int64_t bubble = (p / 2 - 1) * (21 + 14 - 21);
            expect_numbers(&desc, busy + bubble, bubble, bubble, p + 1);
            desc.pair = 14; /* a pair takes as long as its backward: (p/2 - 1)(FB + B - 3W) */
            assert_int_equal(simulate(&desc).idle, (p / 2 - 1) * (14 + 14 - 21));
        }
}

/* With fewer microbatches than the forms ask for, splitting the backward still costs nothing. */
static void test_few_microbatches(void **state)
{
    (void)state;
    for (int p = 2; p <= 8; p++)
        for (int m = 1; m < 2 * p; m++) {
            heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, p, m);
            int64_t whole = simulate(&desc).makespan;
            desc.schedule = HEED_SCHEDULE_ZB_H1;
            assert_true(simulate(&desc).makespan < whole);
            desc.schedule = HEED_SCHEDULE_ZB_H2;
            assert_true(simulate(&desc).makespan < whole);
        }
}

/* ---- lists ----------------------------------------------------------------------------------- */

enum { MOST_MICROBATCHES = 32, MOST_CHUNKS = 4 };

/* A stage's list: each work once and in order, messages where they belong and nowhere else. */
static void expect_list(const heed_pipeline_desc_t *desc, int stage, int chunks, int parts)
{
    static int done[MOST_MICROBATCHES][MOST_CHUNKS];
    bool dual = desc->schedule == HEED_SCHEDULE_DUALPIPE;
    const heed_action_t *before = NULL, *got[2] = {NULL, NULL};
    memset(done, 0, sizeof(done));
    for (int i = first[stage]; i < first[stage + 1]; i++) {
        const heed_action_t *action = &actions[i];
        int part = heed_pipeline_part(desc, stage, action->chunk), m = action->microbatch;
        int backward = action->kind != HEED_ACTION_FORWARD;
        assert_true(part >= 0 && part < parts && action->chunk < chunks);
        assert_int_equal(dual ? m >= desc->microbatches / 2 : 0, dual ? action->chunk : 0);
        if (action->kind >= HEED_ACTION_SEND) {
            const heed_action_t *other = &actions[action->match];
            int there = heed_pipeline_part(desc, action->peer, other->chunk);
            bool sends = action->kind == HEED_ACTION_SEND;
            assert_int_equal(other->microbatch, m);
            assert_int_equal(other->match, i);
            assert_int_equal(there, part + (sends != action->gradient ? 1 : -1));
            assert_true(dual ? other->chunk == action->chunk : true);
            /* What is sent was made, for work of this very task. */
            assert_true(!sends || done[m][action->chunk] > action->gradient);
            if (!sends) {
                assert_null(got[action->gradient]);
                got[action->gradient] = action;
            }
            continue;
        }
        assert_int_equal(done[m][action->chunk], action->kind); /* F, then B, then W, each once */
        done[m][action->chunk]++;
        if (action->kind == HEED_ACTION_BACKWARD_WEIGHT)
            continue;
        /* Its message is there, unless it is at an end of the model. */
        const heed_action_t *message = got[backward];
        assert_int_equal(message == NULL, part == (backward ? parts - 1 : 0));
        assert_true(!message || (message->microbatch == m && message->chunk == action->chunk));
        got[backward] = NULL;
        before = action;
    }
    assert_non_null(before);
    int works = 0;
    for (int m = 0; m < desc->microbatches; m++)
        for (int c = 0; c < chunks; c++)
            works += done[m][c];
    assert_int_equal(works, 3 * desc->microbatches * (dual ? 1 : chunks));
}

static void test_lists(void **state)
{
    (void)state;
    for (int s = 0; s < ALL; s++)
        for (int p = 1; p <= 8; p++)
            for (int m = 1; m <= MOST_MICROBATCHES; m++)
                for (int v = 1; v <= (all[s] == HEED_SCHEDULE_INTERLEAVED ? MOST_CHUNKS : 1); v++) {
                    heed_pipeline_desc_t desc = heed_pipeline_desc(all[s], p, m);
                    desc.chunks = all[s] == HEED_SCHEDULE_INTERLEAVED ? v : 0;
                    if (!takes(all[s], p, m))
                        continue;
                    desc.queue = 1; /* no deadlock with queues as short as can be */
                    simulate(&desc);
                    bool dual = all[s] == HEED_SCHEDULE_DUALPIPE;
                    for (int stage = 0; stage < p; stage++)
                        expect_list(&desc, stage, dual ? 2 : v, p * v);
                }
}

/* The two stages in the middle begin their pairs one later: they wait for each other there. */
static void test_pairs(void **state)
{
    (void)state;
    for (int p = 2; p <= 8; p += 2)
        for (int m = 2 * p; m <= MOST_MICROBATCHES; m += 2) {
            heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_DUALPIPE, p, m);
            write_lists(&desc);
            for (int stage = 0; stage < p; stage++) {
                int near = stage < p - 1 - stage ? stage : p - 1 - stage, far = p / 2 - 1 - near;
                int pairs = 0;
                for (int i = first[stage]; i < first[stage + 1]; i++)
                    pairs += actions[i].kind == HEED_ACTION_FORWARD && actions[i].paired;
                assert_int_equal(pairs, 2 * (m / 2 - p + near + 1) + far - (far == 0));
            }
        }
}

/* ---- the same times in another way ----------------------------------------------------------- */

static int64_t ends[MOST_ACTIONS];

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t time_of(const heed_pipeline_desc_t *desc, int stage, const heed_action_t *action)
{
    const int64_t times[] = {desc->forward, desc->backward_input, desc->backward_weight, 0, 0};
    int part = heed_pipeline_part(desc, stage, action->chunk);
    return times[action->kind] * (desc->weights ? desc->weights[part] : 1);
}

/* The SEND whose RECV makes room for this one; -1: none. */
static int room_for(const heed_pipeline_desc_t *desc, int stage, int send)
{
    int ahead = desc->queue;
    if (!ahead)
        return -1;
    for (int i = send - 1; i >= first[stage]; i--)
        if (actions[i].kind == HEED_ACTION_SEND && actions[i].peer == actions[send].peer &&
            actions[i].gradient == actions[send].gradient &&
            actions[actions[i].match].chunk == actions[actions[send].match].chunk && --ahead == 0)
            return i;
    return -1;
}

/* Every action's end is the least that all it waits for allow: raised until nothing changes. */
static void expect_times(const heed_pipeline_desc_t *desc)
{
    int count = first[desc->stages], rounds = 0;
    bool moved = true;
    memset(ends, 0, sizeof(ends));
    while (moved) {
        moved = false;
        assert_true(++rounds <= count + 1); /* a cycle would go on for ever */
        for (int stage = 0; stage < desc->stages; stage++)
            for (int i = first[stage]; i < first[stage + 1]; i++) {
                const heed_action_t *action = &actions[i];
                int64_t start = i > first[stage] ? ends[i - 1] : 0;
                if (action->kind == HEED_ACTION_RECV)
                    start = later(start, ends[action->match] + desc->transfer);
                int room = action->kind == HEED_ACTION_SEND ? room_for(desc, stage, i) : -1;
                if (room >= 0)
                    start = later(start, ends[actions[room].match]);
                int64_t end = start + time_of(desc, stage, action);
                moved = moved || end != ends[i];
                ends[i] = end;
            }
    }
    for (int i = 0; i < count; i++)
        if (actions[i].end != ends[i])
            fail_msg("%s, p=%d, m=%d, queue=%d: action %d ends at %lld, should end at %lld",
                     heed_schedule_name(desc->schedule), desc->stages, desc->microbatches,
                     desc->queue, i, (long long)actions[i].end, (long long)ends[i]);
}

static void test_times(void **state)
{
    kit_random_t random = {5};
    int compared = 0;
    (void)state;
    for (int round = 0; round < 600; round++) {
        int p = (int)kit_random_int(&random, 1, 6), m = (int)kit_random_int(&random, 1, 14);
        heed_pipeline_desc_t desc = heed_pipeline_desc(all[round % ALL], p, m);
        int64_t weights[MOST_STAGES];
        if (desc.schedule == HEED_SCHEDULE_INTERLEAVED)
            desc.chunks = (int)kit_random_int(&random, 1, 3);
        if (!takes(desc.schedule, p, m))
            continue;
        for (int i = 0; i < MOST_STAGES; i++)
            weights[i] = kit_random_int(&random, 0, 5);
        desc.weights = round % 3 ? weights : NULL;
        desc.forward = kit_random_int(&random, 0, 9);
        desc.backward_input = kit_random_int(&random, 0, 9);
        desc.backward_weight = kit_random_int(&random, 0, 9);
        desc.transfer = kit_random_int(&random, 0, 6);
        desc.queue = (int)kit_random_int(&random, 0, 3);
        heed_pipeline_report_t report;
        write_lists(&desc);
        expect_ok(heed_pipeline_simulate(&desc, actions, first, &report, stages));
        expect_times(&desc);
        compared++;
    }
    assert_true(compared > 300);
}

/* ---- lists of others ------------------------------------------------------------------------- */

static void swap(int a, int b)
{
    heed_action_t kept = actions[a];
    actions[a] = actions[b];
    actions[b] = kept;
    int moved[] = {a, b};
    for (int i = 0; i < 2; i++)
        if (actions[moved[i]].kind >= HEED_ACTION_SEND)
            actions[actions[moved[i]].match].match = moved[i];
}

static int find(int stage, heed_action_kind_t kind, int nth)
{
    for (int i = first[stage]; i < first[stage + 1]; i++)
        if (actions[i].kind == kind && nth-- == 0)
            return i;
    fail();
    return -1;
}

static void test_other_lists(void **state)
{
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 2, 4);
    heed_pipeline_report_t report;
    (void)state;
    write_lists(&desc);
    /* Stage 0 asks for a gradient before it sends what that is made of. */
    swap(find(0, HEED_ACTION_SEND, 1), find(0, HEED_ACTION_RECV, 0));
    expect_ok(heed_pipeline_simulate(&desc, actions, first, &report, NULL));
    write_lists(&desc);
    swap(find(0, HEED_ACTION_SEND, 0), find(0, HEED_ACTION_RECV, 0));
    expect_fails(heed_pipeline_simulate(&desc, actions, first, &report, NULL), HEED_ERROR_VALUE,
                 "deadlock: stage 0 waits for ever to receive from stage 1 (microbatch 0)");
    write_lists(&desc);
    swap(find(0, HEED_ACTION_SEND, 0), find(0, HEED_ACTION_SEND, 1));
    expect_fails(heed_pipeline_simulate(&desc, actions, first, &report, NULL), HEED_ERROR_VALUE,
                 "overtakes");
    write_lists(&desc);
    const struct {
        const char *words;
        int value;
        int field;
    } bad[] = {{"action 1: its peer is no stage", 2, 0},
               {"action 1: its match is not the peer's", 0, 1},
               {"action 1: it does not fit its match", 1, 2}, /* a forward */
               {"action 1: it does not fit its match", 2, 2}, /* another RECV */
               {"action 1: kind, chunk or microbatch", 9, 3},
               {"action 1: kind, chunk or microbatch", 4, 4},
               {"action 1: kind, chunk or microbatch", 1, 5}};
    for (int i = 0; i < 7; i++) {
        write_lists(&desc);
        heed_action_t *action = &actions[1];
        switch (bad[i].field) {
        case 0:
            action->peer = bad[i].value;
            break;
        case 1:
            action->match = bad[i].value;
            break;
        case 2:
            action->match = bad[i].value == 1 ? first[1] + 1 : find(1, HEED_ACTION_RECV, 1);
            break;
        case 3:
            action->kind = (uint8_t)bad[i].value;
            break;
        case 4:
            action->microbatch = bad[i].value;
            break;
        default:
            action->chunk = (uint8_t)bad[i].value;
        }
        expect_fails(heed_pipeline_simulate(&desc, actions, first, &report, NULL), HEED_ERROR_VALUE,
                     bad[i].words);
    }
    write_lists(&desc);
    first[1] = -1;
    expect_fails(heed_pipeline_simulate(&desc, actions, first, &report, NULL), HEED_ERROR_VALUE,
                 "first[1]=-1 is below first[0]=0");
}

/* Stage 0 does all its forwards first, as in GPipe, and stage 1 forward and backward in turns: with
 * a queue of one, one waits to send activations and the other to send gradients. */
static void test_short_queue(void **state)
{
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 2, 4);
    heed_pipeline_report_t report;
    heed_action_t list[64];
    int at = 0;
    (void)state;
    write_lists(&desc);
    for (int late = 0; late < 2; late++)
        for (int i = first[0]; i < first[1]; i++) {
            bool ahead =
                actions[i].kind == HEED_ACTION_FORWARD || actions[i].kind == HEED_ACTION_SEND;
            if (ahead == !late)
                list[at++] = actions[i];
        }
    memcpy(actions, list, (size_t)at * sizeof(*actions));
    for (int i = 0; i < at; i++)
        if (actions[i].kind >= HEED_ACTION_SEND)
            actions[actions[i].match].match = i;
    expect_ok(heed_pipeline_simulate(&desc, actions, first, &report, NULL));
    expect_times(&desc);
    desc.queue = 1;
    expect_fails(
        heed_pipeline_simulate(&desc, actions, first, &report, NULL), HEED_ERROR_VALUE,
        "deadlock: stage 0 waits for ever to send to stage 1 (microbatch 3), desc.queue=1");
    desc.queue = 2;
    expect_ok(heed_pipeline_simulate(&desc, actions, first, &report, NULL));
    expect_times(&desc);
}

/* ---- refused --------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    const heed_pipeline_desc_t good = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 4, 8);
    static const int64_t weights[] = {1, 1, -1, 1};
    int64_t count;
    heed_schedule_t schedule;
    heed_pipeline_report_t report;
    (void)state;
    const struct {
        heed_schedule_t schedule;
        int32_t stages, microbatches, chunks, queue;
        int64_t forward, backward, pair, transfer;
        const int64_t *weights;
        const char *words;
    } bad[] = {
        {(heed_schedule_t)6, 4, 8, 0, 0, 1, 1, 0, 0, NULL, "desc.schedule=6"},
        {good.schedule, 0, 8, 0, 0, 1, 1, 0, 0, NULL, "desc.stages=0 is not 1 to 1024"},
        {good.schedule, 1025, 8, 0, 0, 1, 1, 0, 0, NULL, "desc.stages=1025"},
        {good.schedule, 4, 0, 0, 0, 1, 1, 0, 0, NULL, "desc.microbatches=0 is not 1 to"},
        {good.schedule, 4, 1 << 24, 0, 0, 1, 1, 0, 0, NULL, "desc.microbatches=16777216"},
        {good.schedule, 4, 8, 2, 0, 1, 1, 0, 0, NULL, "desc.chunks=2: 1f1b has 1"},
        {good.schedule, 4, 8, 0, -1, 1, 1, 0, 0, NULL, "desc.queue=-1"},
        {HEED_SCHEDULE_INTERLEAVED, 4, 8, 65, 0, 1, 1, 0, 0, NULL,
         "chunks=65: interleaved has 1 to"},
        {HEED_SCHEDULE_INTERLEAVED, 4, 9, 0, 0, 1, 1, 0, 0, NULL, "a multiple of them"},
        {HEED_SCHEDULE_INTERLEAVED, 1, 8, 0, 0, 1, 1, 0, 0, NULL, "takes 2 stages or more"},
        {HEED_SCHEDULE_DUALPIPE, 3, 8, 0, 0, 1, 1, 0, 0, NULL, "dualpipe takes an even number"},
        {HEED_SCHEDULE_DUALPIPE, 4, 6, 0, 0, 1, 1, 0, 0, NULL, "from 2 * stages on"},
        {good.schedule, 4, 8, 0, 0, -1, 1, 0, 0, NULL, "desc.forward=-1"},
        {good.schedule, 4, 8, 0, 0, 1, INT64_MAX, 0, 0, NULL, "desc.backward_input=9223372036854"},
        {good.schedule, 4, 8, 0, 0, 1, 1, 1, 0, NULL, "desc.pair=1 is not 2 to 3"},
        {good.schedule, 4, 8, 0, 0, 1, 1, 0, -1, NULL, "desc.transfer=-1"},
        {good.schedule, 4, 8, 0, 0, 1, 1, 0, 0, weights, "desc.weights[2]=-1"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        heed_pipeline_desc_t desc = good;
        desc.schedule = bad[i].schedule;
        desc.stages = bad[i].stages;
        desc.microbatches = bad[i].microbatches;
        desc.chunks = bad[i].chunks;
        desc.queue = bad[i].queue;
        desc.forward = bad[i].forward;
        desc.backward_input = bad[i].backward;
        desc.pair = bad[i].pair;
        desc.transfer = bad[i].transfer;
        desc.weights = bad[i].weights;
        expect_fails(heed_pipeline_count(&desc, &count), HEED_ERROR_VALUE, bad[i].words);
        assert_int_equal(heed_pipeline_part(&desc, 0, 0), -1);
    }
    expect_fails(heed_pipeline_count(NULL, &count), HEED_ERROR_NULL, "desc");
    expect_fails(heed_pipeline_count(&good, NULL), HEED_ERROR_NULL, "count");
    expect_fails(heed_pipeline_schedule(&good, actions, 10, first), HEED_ERROR_VALUE,
                 "room=10, but there are 192 actions");
    expect_fails(heed_pipeline_schedule(&good, NULL, 10, first), HEED_ERROR_NULL, "actions");
    expect_fails(heed_pipeline_schedule(&good, actions, 10, NULL), HEED_ERROR_NULL, "first");
    expect_fails(heed_pipeline_simulate(&good, actions, first, NULL, NULL), HEED_ERROR_NULL,
                 "report");
    expect_fails(heed_pipeline_simulate(&good, actions, NULL, &report, NULL), HEED_ERROR_NULL,
                 "first");
    expect_fails(heed_schedule_parse("2f2b", &schedule), HEED_ERROR_VALUE,
                 "there are gpipe, 1f1b, interleaved, zb-h1, zb-h2, dualpipe");
    expect_fails(heed_schedule_parse(NULL, &schedule), HEED_ERROR_NULL, "name");
    for (int i = 0; i < ALL; i++) {
        expect_ok(heed_schedule_parse(heed_schedule_name(all[i]), &schedule));
        assert_int_equal(schedule, all[i]);
    }
    assert_string_equal(heed_schedule_name((heed_schedule_t)-1), "?");
    assert_int_equal(heed_pipeline_part(&good, 4, 0), -1);
    assert_int_equal(heed_pipeline_part(&good, 0, 1), -1);
}

/* Milliseconds of this thread since the call before; its own time, for the machine has others to
 * serve. */
static double lap(void)
{
    static struct timespec before;
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    double ms =
        (double)(now.tv_sec - before.tv_sec) * 1e3 + (double)(now.tv_nsec - before.tv_nsec) * 1e-6;
    before = now;
    return ms;
}

/* A model of 128 layers on 64 stages, 128 microbatches: every call of every schedule within a
 * millisecond, and two for interleaved, which has twice as many actions as the others. The best of
 * runs that end with the first good one. */
static void test_fast(void **state)
{
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(HEED_TEST_EMULATED)
    const bool timed = true;
#else
    const bool timed = false; /* instrumented: once, and it may take its time */
#endif
    const int least = timed ? 20 : 1, last = timed ? 400 : 1;
    (void)state;
    for (int s = 0; s < ALL; s++) {
        heed_pipeline_desc_t desc = heed_pipeline_desc(all[s], 64, 128);
        heed_pipeline_report_t report;
        double write = INFINITY, play = INFINITY, most = desc.schedule == HEED_SCHEDULE_INTERLEAVED;
        for (int i = 0; i < least || (i < last && fmax(write, play) >= 1); i++) {
            lap();
            expect_ok(heed_pipeline_schedule(&desc, actions, MOST_ACTIONS, first));
            write = fmin(write, lap());
            expect_ok(heed_pipeline_simulate(&desc, actions, first, &report, NULL));
            play = fmin(play, lap());
        }
        printf("%s, 64 stages, 128 microbatches, %d actions: written in %.3f ms, simulated in "
               "%.3f ms\n",
               heed_schedule_name(all[s]), first[64], write, play);
        assert_true(!timed || (write < 1 + most && play < 1 + most));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_backward),
        cmocka_unit_test(test_split_backward),
        cmocka_unit_test(test_few_microbatches),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_other_lists),
        cmocka_unit_test(test_short_queue),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
