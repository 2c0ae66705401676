/* Pipelines: runs of every schedule, within a process and stage by stage, with random delays,
 * failures, time-outs and little memory. */
#define _GNU_SOURCE
#include "pipeline_model.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static model_t model;
static heed_action_t actions[4096];
static int32_t first[MOST_STAGES + 1];

static void test_runs(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (int round = 0; round < 4 * RUNS; round++) {
        const struct run *run = &runs[round % RUNS];
        int parts = run->stages * (run->chunks ? run->chunks : 1);
        heed_pipeline_desc_t desc = desc_of(run);
        make_model(&model, parts);
        model.delay_us = round < RUNS ? 0 : 200u << round / RUNS;
        heed_pipeline_calls_t calls = calls_of(&model);
        expect_ok(heed_pipeline_run(context, &desc, &calls));
        assert_int_equal(model.calls, 3 * parts * run->microbatches);
        expect_model(&model, parts, run->microbatches);
    }
    heed_context_destroy(context);
}

/* DualPipe's pairs as one call: as many as its lists have; other schedules have none. */
static void test_pairs(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (int n = 0; n < RUNS; n++) {
        const struct run *run = &runs[n];
        int parts = run->stages * (run->chunks ? run->chunks : 1), pairs = 0;
        heed_pipeline_desc_t desc = desc_of(run);
        make_model(&model, parts);
        model.delay_us = 100;
        heed_pipeline_calls_t calls = calls_of(&model);
        calls.pair = pair;
        expect_ok(heed_pipeline_run(context, &desc, &calls));
        expect_model(&model, parts, run->microbatches);
        expect_ok(heed_pipeline_schedule(&desc, actions, 4096, first));
        for (int i = 0; i < first[run->stages]; i++)
            pairs += actions[i].paired && actions[i].kind == HEED_ACTION_FORWARD;
        assert_int_equal(model.pairs, pairs);
        assert_int_equal(pairs > 0, run->schedule == HEED_SCHEDULE_DUALPIPE);
    }
    heed_context_destroy(context);
}

/* A stage that hangs: the others end in time, and no call begins afterwards. */
static void test_timeout(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 4, 8);
    (void)state;
    for (int stage = 0; stage < 4; stage++) {
        make_model(&model, 4);
        model.hang_stage = stage;
        heed_pipeline_calls_t calls = calls_of(&model);
        calls.timeout_ms = 300;
        heed_status_t status = heed_pipeline_run(context, &desc, &calls);
        assert_int_equal(status, HEED_ERROR_COMM);
        assert_non_null(strstr(heed_last_error(), "did not answer within 300 ms"));
        assert_true(model.calls < 3 * 4 * 8);
        assert_true(model.after_hang <= 2); /* up to its next message */
    }
    heed_pipeline_calls_t calls = calls_of(&model);
    calls.timeout_ms = -1;
    expect_fails(heed_pipeline_run(context, &desc, &calls), HEED_ERROR_VALUE, "timeout_ms=-1");
    heed_context_destroy(context);
}

/* Any work may fail: the run ends, with that work's status and sentence. */
static void test_failures(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_ZB_H1, 4, 8);
    heed_pipeline_calls_t calls = calls_of(&model);
    char words[96];
    (void)state;
    for (int stage = 0; stage < 4; stage++)
        for (int m = 0; m < 8; m += 3) {
            make_model(&model, 4);
            model.delay_us = 100;
            model.fail_stage = stage;
            model.fail_microbatch = m;
            model.fail_quietly = m == 3;
            snprintf(words, sizeof(words), "stage %d, forward of microbatch %d: %s", stage, m,
                     m == 3 ? "a device reported a failure" : "the network is down");
            expect_fails(heed_pipeline_run(context, &desc, &calls),
                         m == 3 ? HEED_ERROR_DEVICE : HEED_ERROR_COMM, words);
        }
    heed_context_destroy(context);
}

/* ---- a stage over a link --------------------------------------------------------------------- */

/* A link made of the caller's own: unbounded lists of messages under one lock. */
typedef struct post {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int count;
    bool down;
    struct {
        int to, channel, from;
        bool taken;
        double data[WIDTH];
    } letters[4096];
} post_t;

typedef struct office {
    post_t *post;
    int stage;
    heed_status_t status;
    char sentence[256];
    pthread_t thread;
    heed_context_t *context;
    const heed_pipeline_desc_t *desc;
    const heed_pipeline_calls_t *calls;
} office_t;

static post_t post;

static heed_status_t send_letter(void *user, int32_t to, int32_t channel, const void *data,
                                 size_t bytes)
{
    office_t *office = user;
    assert_int_equal(bytes, sizeof(double) * WIDTH);
    pthread_mutex_lock(&post.lock);
    int at = post.count++;
    post.letters[at].to = to;
    post.letters[at].from = office->stage;
    post.letters[at].channel = channel;
    memcpy(post.letters[at].data, data, bytes);
    pthread_cond_broadcast(&post.changed);
    pthread_mutex_unlock(&post.lock);
    return HEED_OK;
}

static heed_status_t recv_letter(void *user, int32_t from, int32_t channel, void *data,
                                 size_t bytes)
{
    office_t *office = user;
    bool got = false;
    pthread_mutex_lock(&post.lock);
    while (!got && !post.down) {
        for (int i = 0; i < post.count && !got; i++)
            if (!post.letters[i].taken && post.letters[i].to == office->stage &&
                post.letters[i].from == from && post.letters[i].channel == channel) {
                memcpy(data, post.letters[i].data, bytes);
                got = post.letters[i].taken = true;
            }
        if (!got)
            pthread_cond_wait(&post.changed, &post.lock);
    }
    pthread_mutex_unlock(&post.lock);
    return got ? HEED_OK : heed_comm_fail("the link is down");
}

static void *run_office(void *user)
{
    office_t *office = user;
    heed_pipeline_link_t link = {send_letter, recv_letter, office};
    office->status = heed_pipeline_run_stage(office->context, office->desc, actions, first,
                                             office->stage, office->calls, &link);
    snprintf(office->sentence, sizeof(office->sentence), "%s",
             office->status ? heed_last_error() : "");
    pthread_mutex_lock(&post.lock);
    post.down = post.down || office->status;
    pthread_cond_broadcast(&post.changed);
    pthread_mutex_unlock(&post.lock);
    return NULL;
}

static void open_post(void)
{
    memset(&post, 0, sizeof(post));
    pthread_mutex_init(&post.lock, NULL);
    pthread_cond_init(&post.changed, NULL);
}

static void close_post(void)
{
    pthread_cond_destroy(&post.changed);
    pthread_mutex_destroy(&post.lock);
}

static void run_offices(heed_context_t *context, const heed_pipeline_desc_t *desc,
                        office_t *offices)
{
    heed_pipeline_calls_t calls = calls_of(&model);
    open_post();
    expect_ok(heed_pipeline_schedule(desc, actions, 4096, first));
    for (int s = 0; s < desc->stages; s++) {
        offices[s] = (office_t){
            .post = &post, .stage = s, .context = context, .desc = desc, .calls = &calls};
        assert_int_equal(pthread_create(&offices[s].thread, NULL, run_office, &offices[s]), 0);
    }
    for (int s = 0; s < desc->stages; s++)
        pthread_join(offices[s].thread, NULL);
    close_post();
}

static void test_links(void **state)
{
    heed_context_t *context = expect_context(NULL);
    office_t offices[8];
    (void)state;
    for (int i = 0; i < RUNS; i++) {
        heed_pipeline_desc_t desc = desc_of(&runs[i]);
        int parts = desc.stages * (desc.chunks ? desc.chunks : 1);
        make_model(&model, parts);
        model.delay_us = 50;
        run_offices(context, &desc, offices);
        for (int s = 0; s < desc.stages; s++)
            if (offices[s].status)
                fail_msg("%s", offices[s].sentence);
        expect_model(&model, parts, desc.microbatches);
    }
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 3, 6);
    make_model(&model, 3);
    model.fail_stage = 2;
    model.fail_microbatch = 1;
    run_offices(context, &desc, offices);
    assert_non_null(strstr(offices[2].sentence, "stage 2, forward of microbatch 1: the network"));
    for (int s = 0; s < 2; s++)
        assert_non_null(strstr(offices[s].sentence, ": the link is down"));
    heed_context_destroy(context);
}

/* ---- refused --------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 2, 4);
    heed_pipeline_link_t link = {send_letter, recv_letter, NULL};
    heed_pipeline_calls_t good = calls_of(&model), bad = good;
    (void)state;
    make_model(&model, 2);
    bad.backward_weight = NULL;
    expect_fails(heed_pipeline_run(context, &desc, &bad), HEED_ERROR_NULL, "calls.backward_weight");
    bad = good;
    bad.struct_size = 4;
    expect_fails(heed_pipeline_run(context, &desc, &bad), HEED_ERROR_STRUCT_SIZE, "calls");
    bad = good;
    bad.gradient_bytes = SIZE_MAX;
    expect_fails(heed_pipeline_run(context, &desc, &bad), HEED_ERROR_VALUE, "gradient_bytes=");
    expect_fails(heed_pipeline_run(NULL, &desc, &good), HEED_ERROR_NULL, "context");
    expect_fails(heed_pipeline_run(context, NULL, &good), HEED_ERROR_NULL, "desc");
    desc.microbatches = 0;
    expect_fails(heed_pipeline_run(context, &desc, &good), HEED_ERROR_VALUE, "microbatches=0");
    /* Queues whose bytes are more than a size can hold. */
    bad = good;
    bad.activation_bytes = bad.gradient_bytes = SIZE_MAX / 64;
    desc.microbatches = desc.queue = 32;
    expect_fails(heed_pipeline_run(context, &desc, &bad), HEED_ERROR_OUT_OF_MEMORY,
                 "no memory for queues of 32 messages");
    desc.microbatches = 4;
    desc.queue = 0;
    expect_ok(heed_pipeline_schedule(&desc, actions, 4096, first));
    expect_fails(heed_pipeline_run_stage(context, &desc, actions, first, 2, &good, &link),
                 HEED_ERROR_VALUE, "stage=2 is not 0 to 1");
    link.recv = NULL;
    expect_fails(heed_pipeline_run_stage(context, &desc, actions, first, 1, &good, &link),
                 HEED_ERROR_NULL, "link.send or recv");
    expect_fails(heed_pipeline_run_stage(context, &desc, NULL, first, 1, &good, &link),
                 HEED_ERROR_NULL, "actions is null");
    assert_int_equal(model.calls, 0);
    /* A list in which a backward comes before its gradient does. */
    link = (heed_pipeline_link_t){send_letter, recv_letter, &(office_t){.stage = 0}};
    desc.microbatches = 1;
    expect_ok(heed_pipeline_schedule(&desc, actions, 4096, first));
    heed_action_t late = actions[2];
    assert_int_equal(late.kind, HEED_ACTION_RECV);
    actions[2] = actions[3];
    actions[3] = late;
    actions[late.match].match = 3;
    open_post();
    expect_fails(heed_pipeline_run_stage(context, &desc, actions, first, 0, &good, &link),
                 HEED_ERROR_VALUE, "stage 0, backward_input of microbatch 0: no message came");
    close_post();
    heed_context_destroy(context);
}

/* Memory that is refused, one call after the other. */
typedef struct short_memory {
    int left, live;
} short_memory_t;

static void *take(void *user, size_t bytes, size_t align)
{
    short_memory_t *memory = user;
    if (__atomic_sub_fetch(&memory->left, 1, __ATOMIC_SEQ_CST) < 0)
        return NULL;
    __atomic_add_fetch(&memory->live, 1, __ATOMIC_SEQ_CST);
    return aligned_alloc(align, (bytes + align - 1) / align * align);
}

static void give(void *user, void *at)
{
    short_memory_t *memory = user;
    __atomic_sub_fetch(&memory->live, 1, __ATOMIC_SEQ_CST);
    free(at);
}

static void test_memory(void **state)
{
    short_memory_t memory = {1000, 0};
    heed_context_config_t config = heed_context_config();
    heed_context_t *context;
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 3, 4);
    heed_pipeline_calls_t calls = calls_of(&model);
    heed_status_t status = HEED_ERROR_OUT_OF_MEMORY;
    (void)state;
    config.ignore_environment = 1;
    config.allocator = (heed_allocator_t){.alloc = take, .free = give, .user = &memory};
    expect_ok(heed_context_create(&config, &context));
    int before = memory.live, tries = 0;
    for (; status; tries++) {
        make_model(&model, 3);
        memory.left = tries;
        status = heed_pipeline_run(context, &desc, &calls);
        assert_int_equal(memory.live, before);
        if (status)
            assert_int_equal(status, HEED_ERROR_OUT_OF_MEMORY);
    }
    assert_int_equal(tries, 1 + 2 + 3); /* lists, slots, and the messages of three stages */
    expect_model(&model, 3, 4);
    heed_context_destroy(context);
    assert_int_equal(memory.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),   cmocka_unit_test(test_failures),
        cmocka_unit_test(test_pairs),  cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_links),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests_name("pipeline", tests, NULL, NULL);
}
