/* `heed explain`: how "auto" sees one problem. */
#define _GNU_SOURCE
#include "explain.h"
#include "options.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_PROB = 0x3000,
    KEY_RANKS,
    KEY_LAYOUT,
    KEY_EVERYWHERE,
    KEY_RATE,
    KEY_LATENCY,
    PROBLEM_SIZE = 2048
};

typedef struct arguments {
    char problem[PROBLEM_SIZE];
    explain_ranks_t ranks;
    tool_options_t options;
} arguments_t;

static const struct argp_option options[] = {
    {"prob", KEY_PROB, "STRING", 0, "the problem, as logs print it; plain arguments do too", 0},
    {"ranks", KEY_RANKS, "N", 0, "how attention would be spread over so many ranks", 0},
    {"layout", KEY_LAYOUT, "NAME", 0,
     "with --ranks: which tokens a rank has: contiguous, zigzag, striped", 0},
    {"everywhere", KEY_EVERYWHERE, 0, 0, "with --ranks: every rank has all queries", 0},
    {"rate", KEY_RATE, "GB/S", 0, "with --ranks: of messages (10)", 0},
    {"latency", KEY_LATENCY, "US", 0, "with --ranks: of a message (10)", 0},
    {0},
};

static const char doc[] =
    "Shows every implementation that could run a problem: what it is estimated to take, or why it "
    "refuses, and which one is chosen."
    "\v"
    "Examples:\n"
    "  heed explain attention dtype=bf16 sq=2048 sk=2048 hq=32 hk=8 d=128 causal=1\n"
    "  heed explain --prob 'attention dtype=f32 sq=4096 d=64' --max-isa avx2\n"
    "  heed explain cast src=f32 dst=f16 n=1000000\n"
    "  heed explain --ranks 4 --layout zigzag attention sq=65536 sk=65536 hq=8 d=128 causal=1\n"
    "\n"
    "Words that are left out take their defaults.";

static void add_words(arguments_t *to, const char *words, struct argp_state *state)
{
    size_t length = strlen(to->problem);
    if (length + strlen(words) + 2 > sizeof to->problem)
        argp_error(state, "the problem is longer than %d characters", PROBLEM_SIZE - 2);
    snprintf(to->problem + length, sizeof to->problem - length, "%s%s", length ? " " : "", words);
}

static void parse_number(double *to, const char *text, struct argp_state *state)
{
    if (!tool_parse_double(text, to) || !(*to > 0))
        argp_error(state, "\"%s\" is no number above 0", text);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->options;
        return 0;
    case KEY_RANKS:
        if (!tool_parse_int(arg, 1, 1024, &to->ranks.ranks))
            argp_error(state, "\"%s\" is no number of ranks from 1 to 1024", arg);
        return 0;
    case KEY_LAYOUT:
        if (!tool_parse_layout(arg, &to->ranks.layout))
            argp_error(state, "\"%s\" is no layout: contiguous, zigzag, striped", arg);
        return 0;
    case KEY_EVERYWHERE:
        to->ranks.everywhere = 1;
        return 0;
    case KEY_RATE:
        parse_number(&to->ranks.rate, arg, state);
        return 0;
    case KEY_LATENCY:
        parse_number(&to->ranks.latency, arg, state);
        return 0;
    case KEY_PROB:
    case ARGP_KEY_ARG:
        add_words(to, arg, state);
        return 0;
    case ARGP_KEY_SUCCESS:
        if (!*to->problem)
            argp_error(state, "a problem is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int name_width(const heed_plan_t *plan)
{
    heed_verdict_t verdict;
    int width = 0;
    for (int i = 0; heed_plan_verdict(plan, i, &verdict); i++) {
        int length = (int)strlen(verdict.impl);
        width = length > width ? length : width;
    }
    return width;
}

static void print_verdicts(const heed_plan_t *plan)
{
    heed_verdict_t verdict;
    char time[TOOL_NUMBER_SIZE];
    int width = name_width(plan);
    for (int i = 0; heed_plan_verdict(plan, i, &verdict); i++)
        printf("  %-*s  %9s  %s%s\n", width, verdict.impl, tool_time(verdict.estimate_ns, time),
               verdict.chosen   ? "chosen"
               : verdict.status ? "refused: "
                                : "could run",
               verdict.status ? verdict.why : "");
}

/* What the estimates of dilated attention go by, beside the device and its peaks. */
static void print_dilated(const heed_dilated_desc_t *desc, const heed_plan_info_t *info)
{
    double tokens = (double)desc->q.shape[1], heads = (double)(desc->q.shape[0] * desc->q.shape[2]);
    double columns = (double)(desc->q.shape[3] + desc->v.shape[3]);
    double keys = tokens > 0 && heads > 0 ? info->flops / (2 * columns * heads * tokens) : 0;
    printf("density   %.3g: a query sees %.4g of %.0f keys\n", tokens > 0 ? keys / tokens : 0, keys,
           tokens);
    printf("ranks     %s\n", desc->comm ? "those of comm" : "1, which is this process");
    printf("decision  the lowest estimate of those that do not refuse\n");
}

static int print_plan(const heed_plan_t *plan, const char *op, const void *desc)
{
    char problem[PROBLEM_SIZE], text[4][TOOL_NUMBER_SIZE];
    heed_plan_info_t info = {.struct_size = sizeof info};
    heed_status_t status = heed_plan_info(plan, &info);
    if (status)
        return tool_fail_status(status);
    heed_plan_problem(plan, problem, sizeof problem);
    printf("%s\n", problem);
    print_verdicts(plan);
    printf("runs      %s on %s with %d thread%s, estimated %s\n", info.impl,
           tool_device(info.device, text[0]), (int)info.threads, info.threads == 1 ? "" : "s",
           tool_time(info.estimate_ns, text[1]));
    printf("work      %s, %s of operands\n", tool_amount(info.flops, "FLOP", text[0]),
           tool_bytes(info.bytes, text[1]));
    printf("workspace %s\n", tool_bytes((double)info.workspace_bytes, text[0]));
    if (strcmp(op, "dilated") == 0)
        print_dilated(desc, &info);
    if (info.fallback)
        printf("fallback  %s\n", info.fallback_why);
    return TOOL_OK;
}

static int explain(heed_context_t *context, heed_problem_t *problem, const explain_ranks_t *ranks)
{
    void *desc;
    heed_plan_t *plan = NULL;
    heed_status_t status = heed_problem_desc(problem, &desc);
    if (!status && ranks->ranks)
        return explain_ranks(context, problem, desc, ranks);
    if (!status)
        status = heed_plan_create(context, heed_problem_op(problem), desc, &plan);
    int code = status ? tool_fail_status(status) : print_plan(plan, heed_problem_op(problem), desc);
    heed_plan_destroy(plan);
    return code;
}

int cmd_explain(int argc, char **argv)
{
    arguments_t arguments = {.ranks = {.rate = 10, .latency = 10}};
    const struct argp_child children[] = {{&tool_options_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse, "[PROBLEM...]", doc, children, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;

    heed_problem_t *problem = NULL;
    if (heed_problem_parse(arguments.problem, &problem)) {
        tool_fail("%s", heed_last_error());
        return TOOL_USAGE;
    }
    heed_context_t *context = tool_context(&arguments.options);
    int code = context ? explain(context, problem, &arguments.ranks) : TOOL_FAILED;
    heed_context_destroy(context);
    heed_problem_destroy(problem);
    return code;
}
