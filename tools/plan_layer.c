/* `heed plan layer`: a transformer layer on the ranks of tensor parallelism. */
#define _GNU_SOURCE
#include "plan.h"

#include <stdio.h>
#include <string.h>

enum {
    KEY_RANKS = 0x3000,
    KEY_RANK,
    KEY_DTYPE,
    KEY_UNEVEN,
    KEY_INTERLEAVED,
    KEY_SIZES, /* and the numbers and flags behind it */
    KEY_FLAGS = KEY_SIZES + 16
};

typedef struct arguments {
    heed_layer_desc_t desc;
    int32_t rank;
    bool json;
} arguments_t;

#define SIZE(name, field, about, value)                                        \
    {                                                                          \
        {name, 0, "N", 0, about, 0}, offsetof(heed_layer_desc_t, field), value \
    }

/* Numbers of the descriptor, and their defaults: a layer of 8192 tokens, Llama 3 8B. */
static const struct {
    struct argp_option option;
    size_t at;
    int64_t value;
} sizes[] = {
    SIZE("batch", batch, "sequences (1)", 1),
    SIZE("sequence", sequence, "tokens of a sequence (8192)", 8192),
    SIZE("hidden", hidden, "features between layers (4096)", 4096),
    SIZE("heads", heads, "query heads (32)", 32),
    SIZE("kv-heads", kv_heads, "key and value heads (as many as heads)", 0),
    SIZE("dim", dim, "head size (hidden / heads)", 0),
    SIZE("ffn", ffn, "features within the MLP (4 times hidden)", 0),
};

#define FLAG(name, field, about)                                      \
    {                                                                 \
        {name, 0, 0, 0, about, 0}, offsetof(heed_layer_desc_t, field) \
    }

static const struct {
    struct argp_option option;
    size_t at;
} flags[] = {
    FLAG("gated", gated, "the MLP has a gate"),
    FLAG("bias", bias, "projections and norms have biases"),
    FLAG("sequence-parallel", sequence_parallel, "tokens are split outside attention and MLP"),
};

enum { SIZES = sizeof sizes / sizeof sizes[0], FLAGS = sizeof flags / sizeof flags[0] };

static const struct argp_option others[] = {
    {"ranks", KEY_RANKS, "N", 0, "ranks (1)", 0},
    {"rank", KEY_RANK, "N", 0, "the rank that is shown (0)", 0},
    {"dtype", KEY_DTYPE, "NAME", 0, "of activations and weights (bf16)", 0},
    {"uneven", KEY_UNEVEN, 0, 0, "heads and features that do not divide are shared out unevenly",
     0},
    {"interleaved", KEY_INTERLEAVED, 0, 0,
     "fused weights are interleaved by groups, as in Megatron, not one after the other", 0},
    PLAN_JSON,
};

static const char doc[] =
    "Shows what one rank of tensor parallelism has and does of a transformer layer, and what it "
    "sends."
    "\v"
    "Examples:\n"
    "  heed plan layer --ranks 8 --kv-heads 8 --ffn 14336 --gated\n"
    "  heed plan layer --ranks 16 --kv-heads 8 --sequence-parallel --rank 3 --json";

static const plan_field_t fields[] = {
    PLAN_FIELD(KEY_RANKS, "--ranks", arguments_t, desc.ranks, 1, 1 << 20),
    PLAN_FIELD(KEY_RANK, "--rank", arguments_t, rank, 0, 1 << 20),
    {0},
};

static int64_t *size_at(heed_layer_desc_t *desc, size_t at)
{
    return (int64_t *)(void *)((char *)desc + at);
}

static void complete(arguments_t *to)
{
    heed_layer_desc_t *desc = &to->desc;
    if (!desc->kv_heads)
        desc->kv_heads = desc->heads;
    if (!desc->dim)
        desc->dim = desc->heads ? desc->hidden / desc->heads : 0;
    if (!desc->ffn)
        desc->ffn = 4 * desc->hidden;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    if (key >= KEY_FLAGS && key < KEY_FLAGS + FLAGS) {
        int32_t one = 1;
        memcpy((char *)&to->desc + flags[key - KEY_FLAGS].at, &one, sizeof one);
        return 0;
    }
    if (key >= KEY_SIZES && key < KEY_SIZES + SIZES) {
        *size_at(&to->desc, sizes[key - KEY_SIZES].at) =
            plan_number(state, sizes[key - KEY_SIZES].option.name, arg, 1, 1 << 24);
        return 0;
    }
    switch (key) {
    case KEY_DTYPE:
        if (heed_dtype_parse(arg, &to->desc.dtype))
            argp_error(state, "%s", heed_last_error());
        return 0;
    case KEY_UNEVEN:
        to->desc.policy = HEED_SPLIT_BALANCED;
        return 0;
    case KEY_INTERLEAVED:
        to->desc.layout = HEED_FUSED_INTERLEAVED;
        return 0;
    case ARGP_KEY_SUCCESS:
        complete(to);
        return 0;
    default:
        return plan_parse(fields, &to->json, key, arg, state);
    }
}

/* ---- printing -------------------------------------------------------------------------------- */

static void add_range(char *text, size_t size, heed_range_t range)
{
    size_t at = strlen(text);
    snprintf(text + at, size - at, "%s%lld-%lld", at ? "," : "", (long long)range.first,
             (long long)(range.first + range.count - 1));
}

/* "x all-gather, dx reduce-scatter", what happens around a step. */
static void around(const heed_layer_step_t *step, char *text, size_t size)
{
    const struct {
        const char *name;
        heed_collective_t collective;
    } all[] = {{"x", step->x}, {"y", step->y}, {"dy", step->dy}, {"dx", step->dx}};
    text[0] = '\0';
    for (int i = 0; i < 4; i++) {
        size_t at = strlen(text);
        if (all[i].collective)
            snprintf(text + at, size - at, "%s%s %s", at ? ", " : "  ", all[i].name,
                     heed_collective_name(all[i].collective));
    }
}

static void print_step(const heed_layer_step_t *step)
{
    char rows[128] = "", columns[48] = "", text[128], count[TOOL_NUMBER_SIZE];
    for (int32_t i = 0; i < step->row_count; i++)
        add_range(rows, sizeof rows, step->rows[i]);
    if (step->columns.count)
        add_range(columns, sizeof columns, step->columns);
    around(step, text, sizeof text);
    if (step->parameters)
        printf("  %-9s  %-28s  %-12s %8s%s\n", step->name, rows, columns,
               tool_amount((double)step->parameters, "", count), text);
    else
        printf("  %s\n", step->name);
}

static void print_layer(const arguments_t *arguments, const heed_layer_plan_t *plan)
{
    const heed_qkv_slice_t *qkv = &plan->qkv;
    char text[4][TOOL_NUMBER_SIZE];
    printf("rank %d of %d: query heads %lld-%lld, key heads %lld-%lld", arguments->rank,
           arguments->desc.ranks, (long long)qkv->q_heads.first,
           (long long)(qkv->q_heads.first + qkv->q_heads.count - 1), (long long)qkv->kv_heads.first,
           (long long)(qkv->kv_heads.first + qkv->kv_heads.count - 1));
    if (qkv->copies > 1)
        printf(" (copy %d of %d)", qkv->copy, qkv->copies);
    printf("\n  %-9s  %-28s  %-12s %9s\n", "", "rows", "columns", "parameters");
    for (int i = 0; i < HEED_LAYER_STEPS; i++)
        print_step(&plan->steps[i]);
    printf("parameters %s, work %s forward\n", tool_amount((double)plan->parameters, "", text[0]),
           tool_amount(plan->flops, "FLOP", text[1]));
    printf("sends %s forward, %s backward", tool_bytes(plan->forward_bytes, text[0]),
           tool_bytes(plan->backward_bytes, text[1]));
    if (plan->gradient_bytes > 0)
        printf(", %s to sum gradients", tool_bytes(plan->gradient_bytes, text[2]));
    printf("\n");
}

static json_t *json_of_step(const heed_layer_step_t *step)
{
    json_t *rows = json_array();
    for (int32_t i = 0; i < step->row_count; i++)
        json_array_append_new(rows, plan_json_range(step->rows[i]));
    return json_pack("{s:s,s:o,s:o,s:I,s:s,s:s,s:s,s:s,s:f,s:f,s:i,s:f,s:f}", "name", step->name,
                     "rows", rows, "columns", plan_json_range(step->columns), "parameters",
                     (json_int_t)step->parameters, "x", heed_collective_name(step->x), "y",
                     heed_collective_name(step->y), "dy", heed_collective_name(step->dy), "dx",
                     heed_collective_name(step->dx), "forward_bytes", step->forward_bytes,
                     "backward_bytes", step->backward_bytes, "gradient_ranks", step->gradient_ranks,
                     "gradient_bytes", step->gradient_bytes, "flops", step->flops);
}

static json_t *json_of(const arguments_t *arguments, const heed_layer_plan_t *plan)
{
    json_t *steps = json_array();
    for (int i = 0; i < HEED_LAYER_STEPS; i++)
        json_array_append_new(steps, json_of_step(&plan->steps[i]));
    return json_pack("{s:i,s:i,s:o,s:o,s:i,s:i,s:I,s:f,s:f,s:f,s:f,s:o}", "rank", arguments->rank,
                     "ranks", arguments->desc.ranks, "q_heads", plan_json_range(plan->qkv.q_heads),
                     "kv_heads", plan_json_range(plan->qkv.kv_heads), "copies", plan->qkv.copies,
                     "copy", plan->qkv.copy, "parameters", (json_int_t)plan->parameters,
                     "forward_bytes", plan->forward_bytes, "backward_bytes", plan->backward_bytes,
                     "gradient_bytes", plan->gradient_bytes, "flops", plan->flops, "steps", steps);
}

int plan_layer(int argc, char **argv)
{
    enum { OTHERS = sizeof others / sizeof others[0] };
    struct argp_option options[OTHERS + SIZES + FLAGS + 1] = {{0}};
    arguments_t arguments = {.desc = heed_layer_desc()};
    heed_layer_plan_t plan;
    memcpy(options, others, sizeof others);
    for (int i = 0; i < SIZES; i++) {
        options[OTHERS + i] = sizes[i].option;
        options[OTHERS + i].key = KEY_SIZES + i;
        *size_at(&arguments.desc, sizes[i].at) = sizes[i].value;
    }
    for (int i = 0; i < FLAGS; i++) {
        options[OTHERS + SIZES + i] = flags[i].option;
        options[OTHERS + SIZES + i].key = KEY_FLAGS + i;
    }
    const struct argp argp = {options, parse, NULL, doc, NULL, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    heed_status_t status = heed_layer_plan(&arguments.desc, arguments.rank, &plan);
    if (status)
        return tool_fail_status(status);
    if (arguments.json)
        return plan_print_json(json_of(&arguments, &plan));
    print_layer(&arguments, &plan);
    return TOOL_OK;
}
