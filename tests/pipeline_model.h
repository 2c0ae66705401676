/* A model of small numbers, which pipelines run with delays and failures; what it gives without any
 * pipeline; and schedules to run it by. */
#ifndef TESTS_PIPELINE_MODEL_H
#define TESTS_PIPELINE_MODEL_H

#include "expect.h"

#include "kit.h"

#include <stdatomic.h>
#include <unistd.h>

enum { MICROBATCHES = 16, WIDTH = 5, MOST_PARTS = 32, MOST_STAGES = 64 };

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
static inline heed_status_t begin(model_t *model, const heed_pipeline_task_t *task, unsigned salt)
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

static inline heed_status_t end(model_t *model, const heed_pipeline_task_t *task)
{
    atomic_fetch_sub(&model->stage_busy[task->stage], 1);
    return HEED_OK;
}

static inline heed_status_t forward(void *user, const heed_pipeline_task_t *task, const void *in,
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

static inline heed_status_t backward_input(void *user, const heed_pipeline_task_t *task,
                                           const void *in, void *out)
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

static inline heed_status_t backward_weight(void *user, const heed_pipeline_task_t *task)
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
static inline heed_status_t pair(void *user, const heed_pipeline_task_t *ahead, const void *in,
                                 void *out, const heed_pipeline_task_t *back,
                                 const void *gradient_in, void *gradient_out)
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

static inline void make_model(model_t *model, int parts)
{
    memset(model, 0, sizeof(*model));
    model->fail_stage = model->fail_microbatch = model->hang_stage = -1;
    for (int i = 0; i < parts; i++)
        model->weight[i] = i % 3 ? 1 : -2;
    for (int m = 0; m < MICROBATCHES; m++)
        for (int i = 0; i < WIDTH; i++)
            model->inputs[m][i] = m * WIDTH + i;
}

static inline heed_pipeline_calls_t calls_of(model_t *model)
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
static inline void expect_model(const model_t *model, int parts, int microbatches)
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

static inline heed_pipeline_desc_t desc_of(const struct run *run)
{
    heed_pipeline_desc_t desc = heed_pipeline_desc(run->schedule, run->stages, run->microbatches);
    desc.chunks = run->chunks;
    desc.queue = run->queue;
    return desc;
}

#endif
