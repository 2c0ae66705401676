/* `heed plan`: how work is shared out before any of it is done. */
#define _GNU_SOURCE
#include "plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct part {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} parts[] = {
    {"pipeline", "a schedule of stages and microbatches: its times, its bubble, a picture",
     plan_pipeline},
    {"stages", "layers into stages, so that the slowest is as fast as can be", plan_stages},
    {"layer", "a transformer layer on the ranks of tensor parallelism", plan_layer},
    {"split", "a number of things into parts", plan_split},
    {"mesh", "ranks as points of a grid, and their groups", plan_mesh},
};

enum { PARTS = sizeof parts / sizeof parts[0] };

static int help(void)
{
    printf("Usage: heed plan PART [OPTION...]\n\nShows how work is shared out over ranks. Nothing "
           "is run.\n\n");
    for (int i = 0; i < PARTS; i++)
        printf("  %-10s %s\n", parts[i].name, parts[i].about);
    printf("\nExamples:\n"
           "  heed plan pipeline --stages 4 --microbatches 8 --schedule 1f1b --svg 1f1b.svg\n"
           "  heed plan stages --stages 4 --layers 32 --embedding 1 --head 3\n"
           "  heed plan layer --ranks 8 --hidden 4096 --heads 32 --kv-heads 8 --ffn 14336 --gated\n"
           "  heed plan split 10 --parts 3 --policy ceil\n"
           "  heed plan mesh 2x2x2 --ranks 8\n"
           "\n`heed plan PART --help` tells more.\n");
    return TOOL_OK;
}

int cmd_plan(int argc, char **argv)
{
    char name[48], known[80] = "";
    if (argc < 2)
        return tool_misuse("a part is missing: heed plan --help lists them");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)
        return help();
    for (int i = 0; i < PARTS; i++) {
        if (strcmp(parts[i].name, argv[1]) == 0) {
            snprintf(name, sizeof name, "heed plan %s", parts[i].name);
            argv[1] = name;
            return parts[i].run(argc - 1, argv + 1);
        }
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "",
                 parts[i].name);
    }
    return tool_misuse("there is no plan of '%s'; there are %s", argv[1], known);
}

int64_t plan_number(struct argp_state *state, const char *option, const char *text, int64_t low,
                    int64_t high)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end || number < low || number > high)
        argp_error(state, "%s '%s' is not %lld to %lld", option, text, (long long)low,
                   (long long)high);
    return number;
}

error_t plan_parse(const plan_field_t *fields, bool *json, int key, char *arg,
                   struct argp_state *state)
{
    if (key == PLAN_KEY_JSON) {
        *json = true;
        return 0;
    }
    if (key == ARGP_KEY_ARG) {
        argp_error(state, "unexpected argument '%s'", arg);
        return 0;
    }
    for (; fields->key; fields++) {
        if (fields->key != key)
            continue;
        int64_t wide = plan_number(state, fields->option, arg, fields->low, fields->high);
        int32_t narrow = (int32_t)wide;
        bool is_wide = fields->size == sizeof wide;
        memcpy((char *)state->input + fields->at, is_wide ? (void *)&wide : (void *)&narrow,
               fields->size);
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

int plan_print_json(json_t *object)
{
    if (!object)
        return tool_fail("out of memory");
    if (json_dumpf(object, stdout, JSON_INDENT(2)) == 0)
        putchar('\n');
    json_decref(object);
    return TOOL_OK;
}

json_t *plan_json_range(heed_range_t range)
{
    return json_pack("{s:I,s:I}", "first", (json_int_t)range.first, "count",
                     (json_int_t)range.count);
}

/* ---- layers ---------------------------------------------------------------------------------- */

enum { KEY_LAYERS = 0x3100, KEY_COSTS, KEY_EMBEDDING, KEY_HEAD, MOST_LAYERS = 1 << 16 };

static const struct argp_option cost_options[] = {
    {0, 0, 0, 0, "Layers:", 20},
    {"layers", KEY_LAYERS, "N", 0, "layers that cost 1 each", 0},
    {"costs", KEY_COSTS, "N,N,...", 0, "what each layer costs, in any unit", 0},
    {"embedding", KEY_EMBEDDING, "N", 0, "what comes before the first layer costs (0)", 0},
    {"head", KEY_HEAD, "N", 0, "what comes after the last layer costs (0)", 0},
    {0},
};

static void read_costs(plan_costs_t *to, char *text, struct argp_state *state)
{
    int32_t count = 1;
    for (const char *at = text; *at; at++)
        count += *at == ',';
    free(to->costs);
    to->costs = malloc(sizeof(*to->costs) * (size_t)count);
    if (!to->costs)
        argp_failure(state, TOOL_FAILED, 0, "out of memory");
    to->layers = 0;
    for (char *item; (item = strsep(&text, ","));)
        to->costs[to->layers++] = plan_number(state, "--costs", item, 0, INT64_MAX);
}

static error_t parse_costs(int key, char *arg, struct argp_state *state)
{
    plan_costs_t *to = state->input;
    switch (key) {
    case KEY_LAYERS:
        free(to->costs);
        to->costs = NULL;
        to->layers = (int32_t)plan_number(state, "--layers", arg, 1, MOST_LAYERS);
        return 0;
    case KEY_COSTS:
        read_costs(to, arg, state);
        return 0;
    case KEY_EMBEDDING:
        to->embedding = plan_number(state, "--embedding", arg, 0, INT64_MAX);
        return 0;
    case KEY_HEAD:
        to->head = plan_number(state, "--head", arg, 0, INT64_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp plan_costs_argp = {cost_options, parse_costs, NULL, NULL, NULL, NULL, NULL};

int plan_cut(const plan_costs_t *costs, int32_t stages, int32_t *starts, int64_t *parts_of)
{
    int64_t *each = costs->costs, *ones = NULL;
    if (!each) {
        each = ones = malloc(sizeof(*ones) * (size_t)costs->layers);
        if (!ones)
            return tool_fail("out of memory");
        for (int32_t i = 0; i < costs->layers; i++)
            ones[i] = 1;
    }
    heed_status_t status = heed_pipeline_partition(each, costs->layers, costs->embedding,
                                                   costs->head, stages, starts, NULL);
    for (int32_t s = 0; s < stages && status == HEED_OK; s++) {
        parts_of[s] = (s == 0 ? costs->embedding : 0) + (s == stages - 1 ? costs->head : 0);
        for (int32_t i = starts[s]; i < starts[s + 1]; i++)
            parts_of[s] += each[i];
    }
    free(ones);
    return status == HEED_OK ? TOOL_OK : tool_fail_status(status);
}

json_t *plan_json_layers(const int32_t *starts, const int64_t *parts_of, int32_t stage)
{
    return json_pack("{s:i,s:i,s:I}", "first_layer", starts[stage], "layers",
                     starts[stage + 1] - starts[stage], "cost", (json_int_t)parts_of[stage]);
}
