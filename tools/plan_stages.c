/* `heed plan stages`: layers cut into stages. */
#define _GNU_SOURCE
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEY_STAGES = 0x3000 };

typedef struct arguments {
    int32_t stages;
    bool json;
    plan_costs_t costs;
} arguments_t;

static const struct argp_option options[] = {
    {"stages", KEY_STAGES, "N", 0, "stages", 0},
    PLAN_JSON,
    {0},
};

static const char doc[] =
    "Cuts the layers of a model into stages, neighbours together, so that the slowest stage is as "
    "fast as can be. The first stage also has the embedding, the last one the head."
    "\v"
    "Examples:\n"
    "  heed plan stages --stages 3 --layers 10\n"
    "  heed plan stages --stages 4 --costs 3,3,3,5,5,3,3,3 --embedding 2 --head 6";

static const plan_field_t fields[] = {
    PLAN_FIELD(KEY_STAGES, "--stages", arguments_t, stages, 1, HEED_MAX_PARTS),
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->costs;
        return 0;
    case ARGP_KEY_SUCCESS:
        if (!to->stages || !to->costs.layers)
            argp_error(state, "--stages, and --layers or --costs are needed");
        return 0;
    default:
        return plan_parse(fields, &to->json, key, arg, state);
    }
}

static int print_cut(const arguments_t *arguments, const int32_t *starts, const int64_t *costs)
{
    json_t *list = json_array();
    int64_t slowest = 0, sum = 0;
    for (int32_t s = 0; s < arguments->stages; s++) {
        int32_t layers = starts[s + 1] - starts[s];
        slowest = costs[s] > slowest ? costs[s] : slowest;
        sum += costs[s];
        json_array_append_new(list, plan_json_layers(starts, costs, s));
        if (!arguments->json)
            printf("stage %d: %d layer%s from %d, cost %lld\n", s, layers, layers == 1 ? "" : "s",
                   starts[s], (long long)costs[s]);
    }
    if (arguments->json)
        return plan_print_json(json_pack("{s:I,s:I,s:o}", "slowest", (json_int_t)slowest, "sum",
                                         (json_int_t)sum, "stages", list));
    json_decref(list);
    printf("slowest %lld; %.1f %% of the stages' time is work\n", (long long)slowest,
           slowest ? 100 * (double)sum / (double)slowest / arguments->stages : 100);
    return TOOL_OK;
}

int plan_stages(int argc, char **argv)
{
    static int32_t starts[HEED_MAX_PARTS + 1];
    static int64_t costs[HEED_MAX_PARTS];
    arguments_t arguments = {0};
    const struct argp_child children[] = {{&plan_costs_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse, NULL, doc, children, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    int code = plan_cut(&arguments.costs, arguments.stages, starts, costs);
    if (code == TOOL_OK)
        code = print_cut(&arguments, starts, costs);
    free(arguments.costs.costs);
    return code;
}
