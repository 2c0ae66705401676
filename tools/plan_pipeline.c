/* `heed plan pipeline`: a schedule, its times and its picture. */
#define _GNU_SOURCE
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_STAGES = 0x3000,
    KEY_MICROBATCHES,
    KEY_SCHEDULE,
    KEY_CHUNKS,
    KEY_QUEUE,
    KEY_FORWARD,
    KEY_BACKWARD_INPUT,
    KEY_BACKWARD_WEIGHT,
    KEY_PAIR,
    KEY_TRANSFER,
    KEY_SVG,
    KEY_ACTIONS
};

typedef struct arguments {
    heed_pipeline_desc_t desc;
    const char *svg;
    bool actions, json;
    plan_costs_t costs;
} arguments_t;

/* A schedule with its times. */
typedef struct plan {
    heed_pipeline_desc_t desc; /* with its chunks and weights */
    int32_t parts;
    heed_action_t *actions;
    int32_t first[HEED_MAX_PARTS + 1], starts[HEED_MAX_PARTS + 1];
    int64_t weights[HEED_MAX_PARTS];
    heed_stage_report_t stages[HEED_MAX_PARTS];
    heed_pipeline_report_t report;
} plan_t;

static const struct argp_option options[] = {
    {"stages", KEY_STAGES, "N", 0, "stages", 0},
    {"microbatches", KEY_MICROBATCHES, "N", 0, "microbatches of a batch", 0},
    {"schedule", KEY_SCHEDULE, "NAME", 0,
     "gpipe, 1f1b, interleaved, zb-h1, zb-h2 or dualpipe (1f1b)", 0},
    {"chunks", KEY_CHUNKS, "N", 0, "chunks of the model on each stage, interleaved (2)", 0},
    {"svg", KEY_SVG, "FILE", 0, "draw into a file too", 0},
    {"actions", KEY_ACTIONS, 0, 0, "print what each stage does, with its messages", 0},
    {"json", PLAN_KEY_JSON, 0, 0, "the same as JSON, with all actions", 0},
    {0, 0, 0, 0, "Times, whole numbers in any unit:", 10},
    {"forward", KEY_FORWARD, "N", 0, "of a forward of one microbatch and chunk (1)", 0},
    {"backward-input", KEY_BACKWARD_INPUT, "N", 0, "of a backward by inputs (1)", 0},
    {"backward-weight", KEY_BACKWARD_WEIGHT, "N", 0, "of a backward by weights (1)", 0},
    {"pair", KEY_PAIR, "N", 0,
     "of a forward and a backward that run together, dualpipe (their sum)", 0},
    {"transfer", KEY_TRANSFER, "N", 0, "until a message has arrived (0)", 0},
    {"queue", KEY_QUEUE, "N", 0, "messages that wait for a stage before their sender does (any)",
     0},
    {0},
};

static const char doc[] =
    "Shows a schedule of a pipeline: which stage works on which microbatch when, how long it "
    "takes, "
    "how long stages are idle, and how many activations they keep."
    "\v"
    "Examples:\n"
    "  heed plan pipeline --stages 4 --microbatches 8 --schedule 1f1b\n"
    "  heed plan pipeline --stages 4 --microbatches 8 --schedule interleaved --chunks 2 --svg "
    "i.svg\n"
    "  heed plan pipeline --stages 4 --microbatches 12 --schedule zb-h2 --json\n"
    "  heed plan pipeline --stages 4 --microbatches 8 --layers 30 --embedding 1 --head 3\n"
    "\n"
    "F, B, W and a number are a forward, a backward by inputs and one by weights of that "
    "microbatch; a letter behind is the chunk. With layers, times are those of a layer of cost 1.";

#define FIELD(key, option, field, low, high) \
    PLAN_FIELD(key, option, arguments_t, desc.field, low, high)
enum { MOST_COUNT = 1 << 20 };
#define MOST_TIME (INT64_C(1) << 32)

static const plan_field_t fields[] = {
    FIELD(KEY_STAGES, "--stages", stages, 1, HEED_MAX_PARTS),
    FIELD(KEY_MICROBATCHES, "--microbatches", microbatches, 1, MOST_COUNT),
    FIELD(KEY_CHUNKS, "--chunks", chunks, 1, HEED_MAX_CHUNKS),
    FIELD(KEY_QUEUE, "--queue", queue, 1, MOST_COUNT),
    FIELD(KEY_FORWARD, "--forward", forward, 0, MOST_TIME),
    FIELD(KEY_BACKWARD_INPUT, "--backward-input", backward_input, 0, MOST_TIME),
    FIELD(KEY_BACKWARD_WEIGHT, "--backward-weight", backward_weight, 0, MOST_TIME),
    FIELD(KEY_PAIR, "--pair", pair, 0, 2 * MOST_TIME),
    FIELD(KEY_TRANSFER, "--transfer", transfer, 0, MOST_TIME),
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->costs;
        return 0;
    case KEY_SCHEDULE:
        if (heed_schedule_parse(arg, &to->desc.schedule))
            argp_error(state, "%s", heed_last_error());
        return 0;
    case KEY_SVG:
        to->svg = arg;
        return 0;
    case KEY_ACTIONS:
        to->actions = true;
        return 0;
    case ARGP_KEY_SUCCESS:
        if (!to->desc.stages || !to->desc.microbatches)
            argp_error(state, "--stages and --microbatches are needed");
        return 0;
    default:
        return plan_parse(fields, &to->json, key, arg, state);
    }
}

/* ---- making ---------------------------------------------------------------------------------- */

static int make_plan(const arguments_t *arguments, plan_t *plan)
{
    int64_t count;
    plan->desc = arguments->desc;
    heed_status_t status = heed_pipeline_count(&plan->desc, &count);
    if (status)
        return tool_fail_status(status);
    plan->desc.chunks = 0;
    while (heed_pipeline_part(&arguments->desc, 0, plan->desc.chunks) >= 0)
        plan->desc.chunks++;
    bool dual = plan->desc.schedule == HEED_SCHEDULE_DUALPIPE;
    plan->parts = plan->desc.stages * (dual ? 1 : plan->desc.chunks);
    if (arguments->costs.layers) {
        int code = plan_cut(&arguments->costs, plan->parts, plan->starts, plan->weights);
        if (code)
            return code;
        plan->desc.weights = plan->weights;
    }
    plan->actions = malloc(sizeof(*plan->actions) * (size_t)count);
    if (!plan->actions)
        return tool_fail("no memory for %lld actions", (long long)count);
    status = heed_pipeline_schedule(&plan->desc, plan->actions, count, plan->first);
    if (!status)
        status = heed_pipeline_simulate(&plan->desc, plan->actions, plan->first, &plan->report,
                                        plan->stages);
    return status ? tool_fail_status(status) : TOOL_OK;
}

/* ---- printing -------------------------------------------------------------------------------- */

static void print_layers(const plan_t *plan, int32_t stage)
{
    for (int32_t chunk = 0; plan->desc.weights && chunk < plan->desc.chunks; chunk++) {
        int32_t part = heed_pipeline_part(&plan->desc, stage, chunk);
        if (plan->starts[part] == plan->starts[part + 1])
            printf(", no layer");
        else
            printf(", layers %d-%d", plan->starts[part], plan->starts[part + 1] - 1);
        printf(" of cost %lld", (long long)plan->weights[part]);
    }
}

static void print_actions(const plan_t *plan)
{
    printf("Actions: F B W work; S> activations to a stage, R< from it; s> r< gradients\n");
    for (int32_t stage = 0; stage < plan->desc.stages; stage++) {
        printf("  %3d", stage);
        for (int32_t i = plan->first[stage]; i < plan->first[stage + 1]; i++) {
            const heed_action_t *action = &plan->actions[i];
            char name[PLAN_NAME_SIZE];
            plan_name(&plan->desc, action, name);
            printf(" %s", name);
            if (action->peer >= 0)
                printf("%c%d", action->kind == HEED_ACTION_SEND ? '>' : '<', action->peer);
        }
        printf("\n");
    }
}

static void print_plan(const plan_t *plan, bool actions)
{
    const heed_pipeline_desc_t *desc = &plan->desc;
    const heed_pipeline_report_t *report = &plan->report;
    plan_picture_t picture = {desc, plan->actions, plan->first, report->makespan};
    printf("%s, %d stage%s, %d microbatch%s", heed_schedule_name(desc->schedule), desc->stages,
           desc->stages == 1 ? "" : "s", desc->microbatches, desc->microbatches == 1 ? "" : "es");
    if (desc->chunks > 1)
        printf(", %d chunks on each stage", desc->chunks);
    printf("\n");
    plan_draw_text(&picture);
    if (actions)
        print_actions(plan);
    for (int32_t stage = 0; stage < desc->stages; stage++) {
        const heed_stage_report_t *own = &plan->stages[stage];
        printf("stage %d: from %lld to %lld, busy %lld, keeps %d activation%s", stage,
               (long long)own->start, (long long)own->end, (long long)own->busy,
               own->peak_activations, own->peak_activations == 1 ? "" : "s");
        print_layers(plan, stage);
        printf("\n");
    }
    printf("makespan %lld, bubble %lld (%.1f %%), idle %lld, peak %d activations\n",
           (long long)report->makespan, (long long)report->bubble, 100 * report->bubble_fraction,
           (long long)report->idle, report->peak_activations);
}

static json_t *json_of_action(const heed_action_t *action)
{
    static const char *const kinds[] = {"forward", "backward_input", "backward_weight", "send",
                                        "recv"};
    json_t *made = json_pack("{s:s,s:i,s:i,s:I,s:I}", "kind", kinds[action->kind], "microbatch",
                             action->microbatch, "chunk", action->chunk, "start",
                             (json_int_t)action->start, "end", (json_int_t)action->end);
    if (action->kind >= HEED_ACTION_SEND) {
        json_object_set_new(made, "what",
                            json_string(action->gradient ? "gradient" : "activation"));
        json_object_set_new(made, "peer", json_integer(action->peer));
    } else if (action->paired) {
        json_object_set_new(made, "paired", json_true());
    }
    return made;
}

static json_t *json_of_stage(const plan_t *plan, int32_t stage)
{
    const heed_stage_report_t *own = &plan->stages[stage];
    json_t *actions = json_array(), *parts = json_array();
    for (int32_t i = plan->first[stage]; i < plan->first[stage + 1]; i++)
        json_array_append_new(actions, json_of_action(&plan->actions[i]));
    for (int32_t chunk = 0; chunk < plan->desc.chunks; chunk++) {
        int32_t part = heed_pipeline_part(&plan->desc, stage, chunk);
        json_t *made = json_pack("{s:i}", "part", part);
        if (plan->desc.weights)
            json_object_update_new(made, plan_json_layers(plan->starts, plan->weights, part));
        json_array_append_new(parts, made);
    }
    return json_pack("{s:I,s:I,s:I,s:i,s:o,s:o}", "start", (json_int_t)own->start, "end",
                     (json_int_t)own->end, "busy", (json_int_t)own->busy, "peak_activations",
                     own->peak_activations, "chunks", parts, "actions", actions);
}

static json_t *json_of(const plan_t *plan)
{
    const heed_pipeline_report_t *report = &plan->report;
    json_t *stages = json_array();
    for (int32_t stage = 0; stage < plan->desc.stages; stage++)
        json_array_append_new(stages, json_of_stage(plan, stage));
    return json_pack("{s:s,s:i,s:i,s:I,s:I,s:f,s:I,s:i,s:o}", "schedule",
                     heed_schedule_name(plan->desc.schedule), "microbatches",
                     plan->desc.microbatches, "chunks", plan->desc.chunks, "makespan",
                     (json_int_t)report->makespan, "bubble", (json_int_t)report->bubble,
                     "bubble_fraction", report->bubble_fraction, "idle", (json_int_t)report->idle,
                     "peak_activations", report->peak_activations, "stages", stages);
}

int plan_pipeline(int argc, char **argv)
{
    static plan_t plan;
    arguments_t arguments = {.desc = heed_pipeline_desc(HEED_SCHEDULE_1F1B, 0, 0)};
    const struct argp_child children[] = {{&plan_costs_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse, NULL, doc, children, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    int code = make_plan(&arguments, &plan);
    if (code == TOOL_OK && arguments.json)
        code = plan_print_json(json_of(&plan));
    else if (code == TOOL_OK)
        print_plan(&plan, arguments.actions);
    plan_picture_t picture = {&plan.desc, plan.actions, plan.first, plan.report.makespan};
    if (code == TOOL_OK && arguments.svg)
        code = plan_draw_svg(&picture, arguments.svg);
    free(plan.actions);
    free(arguments.costs.costs);
    return code;
}
