/* Pipelines: the cut into stages against every other cut, and runs of every schedule with random
 * delays, failures and little memory. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* ---- the cut --------------------------------------------------------------------------------- */

enum { MOST_LAYERS = 128, MOST_STAGES = 64 };

/* The least time of the slowest of `stages` runs of items at .. items-1, each of at least one. */
static int64_t least(const int64_t *items, int count, int at, int stages)
{
    int64_t sum = 0, best = INT64_MAX;
    if (stages == 1) {
        for (; at < count; at++)
            sum += items[at];
        return sum;
    }
    for (int end = at + 1; end <= count - (stages - 1); end++) {
        sum += items[end - 1];
        int64_t rest = least(items, count, end, stages - 1), slowest = sum > rest ? sum : rest;
        best = slowest < best ? slowest : best;
    }
    return best;
}

/* The time of the slowest stage, told from where stages begin. */
static int64_t slowest_of(const int64_t *costs, int64_t embedding, int64_t head, int stages,
                          const int32_t *starts)
{
    int64_t slowest = 0;
    for (int s = 0; s < stages; s++) {
        int64_t sum = (s == 0 ? embedding : 0) + (s == stages - 1 ? head : 0);
        int most = (s == 0 && embedding) || (s == stages - 1 && head) ? 0 : 1;
        assert_true(starts[s + 1] - starts[s] >= most);
        for (int i = starts[s]; i < starts[s + 1]; i++)
            sum += costs[i];
        slowest = sum > slowest ? sum : slowest;
    }
    return slowest;
}

static void test_partition(void **state)
{
    kit_random_t random = {3};
    (void)state;
    for (int round = 0; round < 3000; round++) {
        int64_t items[16], slowest;
        int32_t starts[16];
        int layers = (int)kit_random_int(&random, 1, 9), count = 0;
        int64_t embedding = kit_random_int(&random, -20, 20),
                head = kit_random_int(&random, -20, 20);
        embedding = embedding > 0 ? embedding : 0;
        head = head > 0 ? head : 0;
        if (embedding)
            items[count++] = embedding;
        int64_t *costs = items + count;
        for (int i = 0; i < layers; i++)
            items[count++] = kit_random_int(&random, round % 5 ? 0 : 7, round % 5 ? 20 : 7);
        if (head)
            items[count++] = head;
        for (int stages = 1; stages <= count; stages++) {
            expect_ok(
                heed_pipeline_partition(costs, layers, embedding, head, stages, starts, &slowest));
            assert_int_equal(starts[0], 0);
            assert_int_equal(starts[stages], layers);
            assert_int_equal(slowest, least(items, count, 0, stages));
            assert_int_equal(slowest, slowest_of(costs, embedding, head, stages, starts));
        }
        expect_fails(
            heed_pipeline_partition(costs, layers, embedding, head, count + 1, starts, NULL),
            HEED_ERROR_VALUE, "stages=");
    }
}

/* Equal layers are dealt out as ceil(n / parts) has it, as long as none is left without. */
static void test_partition_known(void **state)
{
    int64_t costs[MOST_LAYERS], slowest;
    int32_t starts[MOST_STAGES + 1];
    double best = 1e9;
    (void)state;
    for (int i = 0; i < MOST_LAYERS; i++)
        costs[i] = 1;
    expect_ok(heed_pipeline_partition(costs, 10, 0, 0, 3, starts, &slowest));
    assert_memory_equal(starts, ((int32_t[]){0, 4, 8, 10}), 4 * sizeof(*starts));
    assert_int_equal(slowest, 4);
    /* An embedding and a head that cost a layer each: 4p - 2 layers fill p stages evenly. */
    expect_ok(heed_pipeline_partition(costs, 14, 1, 1, 4, starts, &slowest));
    assert_memory_equal(starts, ((int32_t[]){0, 3, 7, 11, 14}), 5 * sizeof(*starts));
    assert_int_equal(slowest, 4);
    for (int i = 0; i < MOST_LAYERS; i++)
        costs[i] = INT64_C(1000000000) + i * 7919 % 104729;
    for (int i = 0; i < 20; i++) {
        struct timespec from, to;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        expect_ok(heed_pipeline_partition(costs, MOST_LAYERS, 500, 900, MOST_STAGES, starts, NULL));
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        double ms =
            (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) * 1e-6;
        best = ms < best ? ms : best;
    }
    printf("128 layers in 64 stages: %.4f ms\n", best);
    assert_true(best < 1);
}

static void test_partition_refused(void **state)
{
    int64_t costs[] = {1, -2, 3}, large[] = {INT64_C(1) << 62, 1};
    int32_t starts[8];
    (void)state;
    expect_fails(heed_pipeline_partition(NULL, 3, 0, 0, 2, starts, NULL), HEED_ERROR_NULL, "costs");
    expect_fails(heed_pipeline_partition(costs, 3, 0, 0, 2, NULL, NULL), HEED_ERROR_NULL, "starts");
    expect_fails(heed_pipeline_partition(costs, 3, 0, 0, 2, starts, NULL), HEED_ERROR_VALUE,
                 "costs[1]=-2 is below 0");
    expect_fails(heed_pipeline_partition(costs, 1, -1, 0, 1, starts, NULL), HEED_ERROR_VALUE,
                 "embedding=-1");
    expect_fails(heed_pipeline_partition(costs, 0, 0, 0, 1, starts, NULL), HEED_ERROR_VALUE,
                 "layers=0");
    expect_fails(heed_pipeline_partition(costs, 3, 0, 0, 0, starts, NULL), HEED_ERROR_VALUE,
                 "stages=0 is not 1 to 3");
    expect_fails(heed_pipeline_partition(large, 2, 0, 0, 1, starts, NULL), HEED_ERROR_VALUE,
                 "more than 2^62");
}

/* ---- a model to run -------------------------------------------------------------------------- */

enum { MICROBATCHES = 16, WIDTH = 5, MOST_PARTS = 32 };

/* Part i multiplies by its weight and adds its number; the loss is the sum of the outputs. Numbers
 * stay whole and small, so that the order of sums does not show. */
typedef struct model {
    double weight[MOST_PARTS];
    double gradient[MOST_PARTS][MICROBATCHES]; /* of the weight */
    double inputs[MICROBATCHES][WIDTH];
    double kept[2][MOST_PARTS][MICROBATCHES][WIDTH]; /* what came in, forward and backward */
    double outputs[MICROBATCHES][WIDTH], input_gradients[MICROBATCHES][WIDTH];
    int copies; /* 2: the second half of the microbatches runs on another copy */
    unsigned delay_us;
    atomic_int stage_busy[MOST_STAGES], calls, live, pairs;
    int fail_stage, fail_microbatch; /* -1: none fails */
    bool fail_quietly;
    int hang_stage; /* -1: none hangs */
    atomic_int has_hung, after_hang;
} model_t;

/* Work takes its time; a stage does one thing at once. */
static heed_status_t begin(model_t *model, const heed_pipeline_task_t *task, unsigned salt)
{
    assert_int_equal(atomic_fetch_add(&model->stage_busy[task->stage], 1), 0);
    atomic_fetch_add(&model->calls, 1);
    if (model->delay_us) {
        kit_random_t random = {salt * 7919u + (unsigned)(task->part * 131 + task->microbatch)};
        usleep((useconds_t)kit_random_int(&random, 0, model->delay_us));
    }
    model->after_hang += model->has_hung;
    if (task->stage == model->hang_stage && !model->has_hung) {
        usleep(1500 * 1000); /* five time-outs */
        model->has_hung = 1;
    }
    if (task->stage == model->fail_stage && task->microbatch == model->fail_microbatch) {
        atomic_fetch_sub(&model->stage_busy[task->stage], 1);
        if (model->fail_quietly)
            return HEED_ERROR_DEVICE;
        return heed_comm_fail("the network is down");
    }
    return HEED_OK;
}

static heed_status_t end(model_t *model, const heed_pipeline_task_t *task)
{
    atomic_fetch_sub(&model->stage_busy[task->stage], 1);
    return HEED_OK;
}

static heed_status_t forward(void *user, const heed_pipeline_task_t *task, const void *in,
                             void *out)
{
    model_t *model = user;
    bool is_last = task->part == task->parts - 1;
    heed_status_t status = begin(model, task, 1);
    if (status)
        return status;
    assert_int_equal(in == NULL, task->part == 0);
    assert_int_equal(out == NULL, is_last);
    const double *x = in ? in : model->inputs[task->microbatch];
    double *y = is_last ? model->outputs[task->microbatch] : out;
    memcpy(model->kept[0][task->part][task->microbatch], x, sizeof(double) * WIDTH);
    for (int i = 0; i < WIDTH; i++)
        y[i] = x[i] * model->weight[task->part] + task->part;
    return end(model, task);
}

static heed_status_t backward_input(void *user, const heed_pipeline_task_t *task, const void *in,
                                    void *out)
{
    static const double ones[WIDTH] = {1, 1, 1, 1, 1};
    model_t *model = user;
    heed_status_t status = begin(model, task, 2);
    if (status)
        return status;
    assert_int_equal(in == NULL, task->part == task->parts - 1);
    assert_int_equal(out == NULL, task->part == 0);
    const double *dy = in ? in : ones;
    double *dx = out ? out : model->input_gradients[task->microbatch];
    memcpy(model->kept[1][task->part][task->microbatch], dy, sizeof(double) * WIDTH);
    for (int i = 0; i < WIDTH; i++)
        dx[i] = dy[i] * model->weight[task->part];
    return end(model, task);
}

static heed_status_t backward_weight(void *user, const heed_pipeline_task_t *task)
{
    model_t *model = user;
    int part = task->part, m = task->microbatch;
    heed_status_t status = begin(model, task, 3);
    if (status)
        return status;
    for (int i = 0; i < WIDTH; i++)
        model->gradient[part][m] += model->kept[0][part][m][i] * model->kept[1][part][m][i];
    return end(model, task);
}

/* Both at once, the forward last: its results must not depend on the backward beside it. */
static heed_status_t pair(void *user, const heed_pipeline_task_t *ahead, const void *in, void *out,
                          const heed_pipeline_task_t *back, const void *gradient_in,
                          void *gradient_out)
{
    model_t *model = user;
    assert_int_equal(ahead->stage, back->stage);
    assert_int_not_equal(ahead->microbatch, back->microbatch);
    atomic_fetch_add(&model->pairs, 1);
    heed_status_t status = backward_input(user, back, gradient_in, gradient_out);
    if (!status)
        status = backward_weight(user, back);
    return status ? status : forward(user, ahead, in, out);
}

static void make_model(model_t *model, int parts)
{
    memset(model, 0, sizeof(*model));
    model->fail_stage = model->fail_microbatch = model->hang_stage = -1;
    for (int i = 0; i < parts; i++)
        model->weight[i] = i % 3 ? 1 : -2;
    for (int m = 0; m < MICROBATCHES; m++)
        for (int i = 0; i < WIDTH; i++)
            model->inputs[m][i] = m * WIDTH + i;
}

static heed_pipeline_calls_t calls_of(model_t *model)
{
    heed_pipeline_calls_t calls = {.struct_size = sizeof(calls),
                                   .forward = forward,
                                   .backward_input = backward_input,
                                   .backward_weight = backward_weight,
                                   .activation_bytes = sizeof(double) * WIDTH,
                                   .gradient_bytes = sizeof(double) * WIDTH,
                                   .user = model};
    return calls;
}

/* What the model gives without any pipeline. */
static void expect_model(const model_t *model, int parts, int microbatches)
{
    for (int m = 0; m < microbatches; m++) {
        double x[MOST_PARTS + 1][WIDTH], dy = 1;
        memcpy(x[0], model->inputs[m], sizeof(x[0]));
        for (int q = 0; q < parts; q++)
            for (int i = 0; i < WIDTH; i++)
                x[q + 1][i] = x[q][i] * model->weight[q] + q;
        assert_memory_equal(model->outputs[m], x[parts], sizeof(x[0]));
        for (int q = parts - 1; q >= 0; q--) {
            double sum = 0;
            for (int i = 0; i < WIDTH; i++)
                sum += x[q][i] * dy;
            assert_true(model->gradient[q][m] == sum);
            dy *= model->weight[q];
        }
        for (int i = 0; i < WIDTH; i++)
            assert_true(model->input_gradients[m][i] == dy);
    }
}

static const struct run {
    heed_schedule_t schedule;
    int stages, microbatches, chunks, queue;
} runs[] = {
    {HEED_SCHEDULE_GPIPE, 1, 3, 0, 0},       {HEED_SCHEDULE_GPIPE, 4, 16, 0, 1},
    {HEED_SCHEDULE_1F1B, 4, 8, 0, 0},        {HEED_SCHEDULE_1F1B, 5, 2, 0, 1},
    {HEED_SCHEDULE_1F1B, 8, 16, 0, 3},       {HEED_SCHEDULE_INTERLEAVED, 2, 8, 3, 1},
    {HEED_SCHEDULE_INTERLEAVED, 4, 8, 2, 0}, {HEED_SCHEDULE_INTERLEAVED, 4, 4, 2, 1},
    {HEED_SCHEDULE_ZB_H1, 4, 12, 0, 1},      {HEED_SCHEDULE_ZB_H2, 4, 12, 0, 1},
    {HEED_SCHEDULE_ZB_H2, 6, 3, 0, 0},       {HEED_SCHEDULE_DUALPIPE, 2, 8, 0, 0},
    {HEED_SCHEDULE_DUALPIPE, 4, 16, 0, 1},   {HEED_SCHEDULE_DUALPIPE, 6, 14, 0, 9},
};
enum { RUNS = sizeof(runs) / sizeof(runs[0]) };

static heed_pipeline_desc_t desc_of(const struct run *run)
{
    heed_pipeline_desc_t desc = heed_pipeline_desc(run->schedule, run->stages, run->microbatches);
    desc.chunks = run->chunks;
    desc.queue = run->queue;
    return desc;
}

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
    desc.microbatches = 4;
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
        cmocka_unit_test(test_partition),         cmocka_unit_test(test_partition_known),
        cmocka_unit_test(test_partition_refused), cmocka_unit_test(test_runs),
        cmocka_unit_test(test_failures),          cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_timeout),           cmocka_unit_test(test_links),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
