#include "run_files.h"

#include "text.h"

#include <stddef.h>

enum { KEY_GOLDEN = 0x3000, KEY_TOLERANCE };

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Files:", 30},
    {"input", 'i', "FILE", 0, "safetensors file with the operation's inputs, by name", 0},
    {"output", 'o', "FILE", 0, "safetensors file to write the outputs to", 0},
    {"golden", KEY_GOLDEN, "FILE", 0,
     "compare the outputs with the tensors of the same names in FILE", 0},
    {"tolerance", KEY_TOLERANCE, "X", 0, "fail if an absolute error to them is above X", 0},
    {0},
};

static void finish(const run_files_t *to, struct argp_state *state)
{
    if (!to->input)
        argp_error(state, "--input is missing");
    if (!to->output && !to->golden_suffices)
        argp_error(state, "--output is missing");
    if (!to->output && !to->golden)
        argp_error(state, "--output is missing, or --golden to compare with");
    if (to->tolerance >= 0 && !to->golden)
        argp_error(state, "--tolerance needs --golden");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    run_files_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        to->tolerance = -1;
        return 0;
    case 'i':
        to->input = arg;
        return 0;
    case 'o':
        to->output = arg;
        return 0;
    case KEY_GOLDEN:
        to->golden = arg;
        return 0;
    case KEY_TOLERANCE:
        if (!tool_parse_double(arg, &to->tolerance) || to->tolerance < 0)
            argp_error(state, "--tolerance takes a number from 0 up, not \"%s\"", arg);
        return 0;
    case ARGP_KEY_SUCCESS:
        finish(to, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp run_files_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};
