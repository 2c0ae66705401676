#define _GNU_SOURCE
#include "loop_options.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct argp_option options[] = {
    {"impl", 'i', "PATTERN", 0, "Only implementations whose name matches; * matches anything", 0},
    {"op", 'o', "OP", 0, "Only this operation", 0},
    {"prob", 'p', "STRING", 0, "This problem alone", 0},
    {"device", 'd', "DEVICE", 0,
     "Only implementations for cpu, cuda or cuda:N, there (default: all, cards on cuda:0)", 0},
    {"seed", 's', "N", 0, "Where random problems and values start (default: from the clock)", 0},
    {"values", 'V', "KIND", 0, "plain or extreme (default: both; plain with --prob)", 0},
    {"seconds", 't', "S", 0, "Time for all of them together (default: 10)", 0},
    {"count", 'n', "N", 0, "Random problems for each, instead of a time", 0},
    {"threads", 'j', "N", 0, "Threads (default: 1, 2 and 3 in turn)", 0},
    {"skip", 'x', "PATTERN", 0, "Leave out problems whose text matches", 0},
    {"flops", 'f', "N", 0, "Leave out problems of more floating-point operations", 0},
    {"verbose", 'v', NULL, 0, "A line for each problem", 0},
    {0}};

static double number(struct argp_state *state, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        argp_error(state, "'%s' is not a number from %g to %g", text, low, high);
    return value;
}

static uint64_t seed_number(struct argp_state *state, const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (end == text || *end || text[0] == '-')
        argp_error(state, "'%s' is not a seed", text);
    return value;
}

static error_t read_option(int key, char *text, struct argp_state *state)
{
    kit_loop_t *loop = state->input;
    switch (key) {
    case 'i':
        loop->impl = text;
        return 0;
    case 'o':
        loop->op = text;
        return 0;
    case 'p':
        loop->problem = text;
        return 0;
    case 'd':
        if (!kit_device_parse(text, &loop->device))
            argp_error(state, "a device is cpu, cuda or cuda:N, not '%s'", text);
        return 0;
    case 's':
        loop->seed = seed_number(state, text);
        loop->seed_given = true;
        return 0;
    case 'V':
        if (strcmp(text, "plain") != 0 && strcmp(text, "extreme") != 0)
            argp_error(state, "values are plain or extreme, not '%s'", text);
        loop->values = strcmp(text, "extreme") == 0 ? KIT_VALUES_EXTREME : KIT_VALUES_PLAIN;
        loop->values_given = true;
        return 0;
    case 't':
        loop->seconds = number(state, text, 0, 1e6);
        return 0;
    case 'n':
        loop->count = (int64_t)number(state, text, 1, 1e12);
        return 0;
    case 'j':
        loop->threads = (int)number(state, text, 1, 1024);
        return 0;
    case 'x':
        loop->skip = text;
        return 0;
    case 'f':
        loop->flops = number(state, text, 1, 1e30);
        return 0;
    case 'v':
        loop->verbose = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

bool kit_loop_options(int argc, char **argv, kit_loop_t *loop)
{
    static const struct argp parser = {
        options, read_option, NULL, "Checks implementations against cpu:standard.",
        NULL,    NULL,        NULL};
    argp_err_exit_status = 2;
    error_t error = argp_parse(&parser, argc, argv, 0, NULL, loop);
    if (error)
        fprintf(stderr, "%s: %s\n", argv[0], strerror(error));
    if (!loop->seed_given)
        loop->seed = loop->problem ? 1 : (uint64_t)time(NULL) * 1000;
    return !error;
}
