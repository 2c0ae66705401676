/* The options that the commands of long attention share. */
#include "run_long.h"
#include "text.h"

#include <string.h>

enum { KEY_ORDER = 0x3400, KEY_OUT, KEY_SCALE, KEY_CAUSAL, KEY_BLOCK };

static const struct argp_option options[] = {
    {"order", KEY_ORDER, "bshd|bhsd", 0, "axes of the tensors in the files (bshd)", 30},
    {"out-dtype", KEY_OUT, "same|f32", 0, "type of out (same: that of q)", 30},
    {"quiet", 'q', 0, 0, "no report", 30},
    {0, 0, 0, 0, "The operation:", 40},
    {"causal", KEY_CAUSAL, 0, 0, "a query sees keys up to its position", 0},
    {"scale", KEY_SCALE, "X", 0, "factor of the scores (default: 1/sqrt(d))", 0},
    {"block", KEY_BLOCK, "N", 0, "queries at a time (default: what fits 32 MiB)", 0},
    {0},
};

static void finish(const long_options_t *to, struct argp_state *state)
{
    const char *device = to->common.device;
    if (device && strcmp(device, "cpu") != 0 && strcmp(device, "auto") != 0)
        argp_error(state, "--device %s: it runs on the CPU", device);
}

/* Which of two words it is. */
static bool second_of(const char *option, const char *text, const char *first, const char *second,
                      struct argp_state *state)
{
    if (strcmp(text, first) != 0 && strcmp(text, second) != 0)
        argp_error(state, "--%s takes %s or %s, not \"%s\"", option, first, second, text);
    return strcmp(text, second) == 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    long_options_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->files;
        state->child_inputs[1] = &to->common;
        return 0;
    case 'q':
        to->quiet = true;
        return 0;
    case KEY_ORDER:
        to->heads_first = second_of("order", arg, "bshd", "bhsd", state);
        return 0;
    case KEY_OUT:
        to->out = second_of("out-dtype", arg, "same", "f32", state) ? HEED_F32 : 0;
        return 0;
    case KEY_CAUSAL:
        to->causal = 1;
        return 0;
    case KEY_SCALE:
        if (!tool_parse_double(arg, &to->scale))
            argp_error(state, "--scale takes a number, not \"%s\"", arg);
        return 0;
    case KEY_BLOCK:
        if (!tool_parse_int(arg, 1, 1 << 30, &to->block))
            argp_error(state, "--block takes a number from 1 up, not \"%s\"", arg);
        return 0;
    case ARGP_KEY_SUCCESS:
        finish(to, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&run_files_argp, 0, NULL, 0}, {&tool_options_argp, 0, NULL, 0}, {0}};
const struct argp long_argp = {options, parse, NULL, NULL, children, NULL, NULL};
