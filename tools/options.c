#define _GNU_SOURCE /* setenv */
#include "options.h"

#include "text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_IMPL = 0x1000, KEY_THREADS, KEY_DEVICE, KEY_MAX_ISA, KEY_VERBOSE };

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Where and how to run:", 50},
    {"impl", KEY_IMPL, "NAME", 0, "use this implementation; * matches anything, commas separate",
     0},
    {"threads", KEY_THREADS, "N", 0, "use N threads (default: one for each core)", 0},
    {"device", KEY_DEVICE, "NAME", 0, "run on auto, cpu, cuda or cuda:N", 0},
    {"max-isa", KEY_MAX_ISA, "ISA", 0,
     "pretend that the CPU has no more than scalar, avx2, avx512, avx512bf16, avx512vbmi "
     "or amx",
     0},
    {"verbose", KEY_VERBOSE, "LEVEL", 0, "log to stderr: none, error, warn, select, exec or all",
     0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    tool_options_t *to = state->input;
    switch (key) {
    case KEY_IMPL:
        to->impl = arg;
        return 0;
    case KEY_THREADS:
        if (!tool_parse_int(arg, 1, INT_MAX, &to->threads))
            argp_error(state, "--threads takes a number from 1 up, not \"%s\"", arg);
        return 0;
    case KEY_DEVICE:
        to->device = arg;
        return 0;
    case KEY_MAX_ISA:
        to->max_isa = arg;
        return 0;
    case KEY_VERBOSE:
        to->verbose = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp tool_options_argp = {options, parse, NULL, NULL, NULL, NULL, NULL};

heed_context_t *tool_context(const tool_options_t *options)
{
    heed_context_t *context;
    heed_context_config_t config = heed_context_config();
    config.impl = options->impl;
    config.device = options->device;
    config.max_cpu_isa = options->max_isa;
    config.threads = options->threads;
    /* The library reads levels by name from its environment only, and knows which there are. */
    if (options->verbose && setenv("HEED_VERBOSE", options->verbose, 1)) {
        tool_fail("out of memory");
        return NULL;
    }
    if (heed_context_create(&config, &context))
        tool_fail("%s", heed_last_error());
    return context;
}

bool tool_parse_layout(const char *text, heed_ring_layout_t *layout)
{
    static const char *const names[] = {"contiguous", "zigzag", "striped"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *layout = (heed_ring_layout_t)i;
            return true;
        }
    return false;
}
