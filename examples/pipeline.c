/* A pipeline of two stages: layers of unequal cost are cut into stages, schedules are compared by
 * what they cost, and the best one runs, a thread for each stage. */
#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>

enum { STAGES = 2, LAYERS = 6, MICROBATCHES = 8 };

/* A model that only counts: every layer adds one, and the loss wants all of them. */
typedef struct model {
    int32_t starts[STAGES + 1];
    int wrong; /* results that are; written by the last stage alone */
} model_t;

static heed_status_t forward(void *user, const heed_pipeline_task_t *task, const void *in,
                             void *out)
{
    model_t *model = user;
    int x = in ? *(const int *)in : task->microbatch;
    x += model->starts[task->part + 1] - model->starts[task->part];
    if (out)
        *(int *)out = x;
    else
        model->wrong += x != task->microbatch + LAYERS;
    return HEED_OK;
}

static heed_status_t backward_input(void *user, const heed_pipeline_task_t *task, const void *in,
                                    void *out)
{
    (void)user, (void)task;
    if (out)
        *(int *)out = in ? *(const int *)in : 1;
    return HEED_OK;
}

static heed_status_t backward_weight(void *user, const heed_pipeline_task_t *task)
{
    (void)user, (void)task;
    return HEED_OK;
}

static heed_status_t cost_of(const heed_pipeline_desc_t *desc, heed_pipeline_report_t *report)
{
    int64_t count;
    int32_t first[STAGES + 1];
    heed_status_t status = heed_pipeline_count(desc, &count);
    heed_action_t *actions = status ? NULL : malloc(sizeof(*actions) * (size_t)count);
    if (!actions)
        return status ? status : HEED_ERROR_OUT_OF_MEMORY;
    status = heed_pipeline_schedule(desc, actions, count, first);
    if (!status)
        status = heed_pipeline_simulate(desc, actions, first, report, NULL);
    free(actions);
    return status;
}

int main(void)
{
    static const int64_t costs[LAYERS] = {3, 3, 3, 4, 4, 4};
    static const heed_schedule_t schedules[] = {HEED_SCHEDULE_GPIPE, HEED_SCHEDULE_1F1B,
                                                HEED_SCHEDULE_ZB_H1};
    model_t model = {0};
    int64_t weights[STAGES] = {0}, slowest, best = INT64_MAX;
    heed_pipeline_desc_t desc = heed_pipeline_desc(HEED_SCHEDULE_GPIPE, STAGES, MICROBATCHES);
    heed_pipeline_desc_t chosen = desc;
    heed_context_t *context;
    heed_status_t status = heed_context_create(NULL, &context);
    if (status)
        return 1;
    status = heed_pipeline_partition(costs, LAYERS, 1, 2, STAGES, model.starts, &slowest);
    for (int s = 0; s < STAGES && !status; s++) {
        weights[s] = s == 0 ? 1 : 2; /* the embedding and the head */
        for (int i = model.starts[s]; i < model.starts[s + 1]; i++)
            weights[s] += costs[i];
        printf("stage %d: layers %d to %d, cost %lld\n", s, model.starts[s],
               model.starts[s + 1] - 1, (long long)weights[s]);
    }
    desc.weights = weights;
    for (int i = 0; i < 3 && !status; i++) {
        heed_pipeline_report_t report = {0};
        desc.schedule = schedules[i];
        status = cost_of(&desc, &report);
        printf("%-5s takes %lld, keeps %d activations\n", heed_schedule_name(desc.schedule),
               (long long)report.makespan, report.peak_activations);
        if (report.makespan < best) {
            best = report.makespan;
            chosen = desc;
        }
    }
    heed_pipeline_calls_t calls = {.struct_size = sizeof(calls),
                                   .forward = forward,
                                   .backward_input = backward_input,
                                   .backward_weight = backward_weight,
                                   .activation_bytes = sizeof(int),
                                   .gradient_bytes = sizeof(int),
                                   .user = &model};
    if (!status)
        status = heed_pipeline_run(context, &chosen, &calls);
    if (status)
        fprintf(stderr, "%s\n", heed_last_error());
    else
        printf("%s ran: %d of %d results are wrong\n", heed_schedule_name(chosen.schedule),
               model.wrong, MICROBATCHES);
    heed_context_destroy(context);
    return status != HEED_OK || model.wrong;
}
