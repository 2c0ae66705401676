/* The command line of heed bench. */
#define _GNU_SOURCE

#include "arguments.h"

#include "kit.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEY_SHAPES = 0x1000,
    KEY_PROB,
    KEY_IMPL,
    KEY_DTYPE,
    KEY_THREADS,
    KEY_NO_CHECK,
    KEY_SECONDS,
    KEY_SAMPLES,
    KEY_MAX_ISA,
    KEY_DRY_RUN,
    KEY_DEVICE
};

static const struct argp_option option_list[] = {
    {0, 0, 0, 0, "What to run:", 1},
    {"shapes", KEY_SHAPES, "FILE", 0, "problems, one a line (default: OP.txt or models.txt)", 0},
    {"prob", KEY_PROB, "STRING", 0,
     "one problem, as HEED_VERBOSE prints it; may be repeated; plain words after OP are one too",
     0},
    {"impl", KEY_IMPL, "LIST", 0, "implementations, or auto (the default); * matches anything", 0},
    {"dtype", KEY_DTYPE, "LIST", 0, "run each problem with these dtypes instead of its own", 0},
    {"threads", KEY_THREADS, "N", 0, "use N threads (default: one for each core)", 0},
    {"max-isa", KEY_MAX_ISA, "ISA", 0,
     "pretend that the CPU has no more than scalar, avx2, avx512, avx512bf16, avx512vbmi or amx",
     0},
    {"device", KEY_DEVICE, "DEVICE", 0, "run on cpu (the default), cuda or cuda:N", 0},
    {0, 0, 0, 0, "How:", 2},
    {"seconds", KEY_SECONDS, "S", 0, "sample each problem for S seconds (default 1)", 0},
    {"samples", KEY_SAMPLES, "N", 0, "take N samples of each, however long it takes (default 5)",
     0},
    {"no-check", KEY_NO_CHECK, 0, 0, "do not compare with the reference first", 0},
    {"dry-run", KEY_DRY_RUN, 0, 0, "only print what would run", 0},
    {"output", 'o', "FORMAT", 0, "md (the default), csv or json, to standard output", 0},
    {0},
};

static const char about[] =
    "Check and time implementations of operation OP on a list of problems. OP sparse is attention "
    "under tile lists beside dense attention, ring is attention in streams and rings beside a "
    "single pass.\v"
    "A result is the median of the samples. GFLOP/s counts useful operations only, GB/s each "
    "operand "
    "once. The fraction of the limit is the time that the problem's operations would take at the "
    "machine's peak, or its bytes at the read bandwidth of where they lie, whichever is longer, "
    "divided by the median. On a card, times are those of CUDA events around one call with its "
    "last "
    "cache overwritten before, and the limits are the card's library's product of matrices and a "
    "copy within its memory.\n\n"
    "Examples:\n"
    "  heed bench attention --shapes bench/shapes/models.txt\n"
    "  heed bench attention dtype=bf16 sq=2048 hq=32 hk=8 d=128 causal=1\n"
    "  heed bench attention --impl 'auto,cpu:flash_*' --dtype f32,bf16 \\\n"
    "      --prob 'attention b=1 sq=2048 sk=2048 hq=8 hk=8 d=64'\n"
    "  heed bench attention --device cuda --impl 'cuda:*' --shapes bench/shapes/prefill.txt\n"
    "  heed bench sparse --prob 'attention sq=8192 d=64 tiles=text:random:0.1'\n"
    "  heed bench attention -o json > results.json\n"
    "  heed bench compare results.json\n\n"
    "Exit codes: 0 done, 1 a wrong result or none, 2 the command line cannot be understood.";

static long parse_count(struct argp_state *state, const char *option, const char *text, long most)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (end == text || *end || value < 1 || value > most)
        argp_error(state, "--%s takes a number from 1 to %ld, not \"%s\"", option, most, text);
    return value;
}

static double parse_seconds(struct argp_state *state, const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= 0 && value <= 3600))
        argp_error(state, "--seconds takes a number from 0 to 3600, not \"%s\"", text);
    return value;
}

static bench_format_t parse_format(struct argp_state *state, const char *text)
{
    static const char *const names[] = {"md", "csv", "json"};

    for (int i = 0; i < 3; i++)
        if (!strcmp(text, names[i]))
            return (bench_format_t)i;
    argp_error(state, "--output takes md, csv or json, not \"%s\"", text);
    return BENCH_MARKDOWN;
}

static void take_op(struct argp_state *state, bench_options_t *options, const char *op)
{
    const char *known;

    if (options->op)
        argp_error(state, "one operation at a time: %s, %s", options->op, op);
    for (int i = 0; (known = heed_op_name(i)); i++)
        if (!strcmp(known, op))
            options->op = known;
    if (!strcmp(op, "sparse") || !strcmp(op, "ring")) {
        options->op = "attention";
        options->beside = op;
    }
    if (!options->op)
        argp_error(state, "there is no operation %s; `heed info` lists them", op);
}

static void add_problem(bench_options_t *options, char *problem)
{
    options->probs =
        bench_realloc(options->probs, (size_t)(options->prob_count + 1) * sizeof(*options->probs));
    options->probs[options->prob_count++] = problem;
}

/* An operation, words of a problem, or both in one, as logs print them. */
static void take_argument(struct argp_state *state, bench_options_t *options, char *arg)
{
    char *words = strchr(arg, '=') ? strchr(arg, ' ') : NULL;
    size_t length = strlen(options->words);

    if (words) {
        *words++ = '\0';
        take_argument(state, options, arg);
    } else if (strchr(arg, '=')) {
        words = arg;
    }
    if (!words) {
        take_op(state, options, arg);
        return;
    }
    if (!options->op)
        argp_error(state, "the operation comes before the words of a problem: %s", words);
    int added = snprintf(options->words + length, sizeof(options->words) - length, "%s %s",
                         length ? "" : options->op, words);
    if ((size_t)added >= sizeof(options->words) - length)
        argp_error(state, "the problem is longer than %zu characters", sizeof(options->words) - 1);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    bench_options_t *options = state->input;

    switch (key) {
    case KEY_SHAPES:
        options->shapes = arg;
        return 0;
    case KEY_PROB:
        add_problem(options, arg);
        return 0;
    case KEY_IMPL:
        options->impls = arg;
        return 0;
    case KEY_DTYPE:
        options->dtypes = arg;
        return 0;
    case KEY_THREADS:
        options->threads = (int)parse_count(state, "threads", arg, 4096);
        return 0;
    case KEY_DEVICE:
        if (!kit_device_parse(arg, &options->device))
            argp_error(state, "--device takes cpu, cuda or cuda:N, not \"%s\"", arg);
        return 0;
    case KEY_MAX_ISA:
        options->max_isa = arg;
        return 0;
    case KEY_SECONDS:
        options->seconds = parse_seconds(state, arg);
        return 0;
    case KEY_SAMPLES:
        options->samples = (int)parse_count(state, "samples", arg, 100000);
        return 0;
    case KEY_NO_CHECK:
        options->check = false;
        return 0;
    case KEY_DRY_RUN:
        options->dry_run = true;
        return 0;
    case 'o':
        options->format = parse_format(state, arg);
        return 0;
    case ARGP_KEY_ARG:
        take_argument(state, options, arg);
        return 0;
    case ARGP_KEY_SUCCESS:
        if (options->words[0])
            add_problem(options, options->words);
        if (options->beside && options->device.type != HEED_DEVICE_CPU)
            argp_error(state, "%s runs on the CPU", options->beside);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which operation? `heed info` lists them");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp bench_argp = {option_list, parse, "OP [WORD=VALUE...]", about, NULL, NULL, NULL};
