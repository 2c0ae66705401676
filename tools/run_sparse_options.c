#include "run_sparse.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_PATTERN = 0x3600,
    KEY_TILES,
    KEY_DENSITY,
    KEY_MASS,
    KEY_SCORES,
    KEY_TILE,
    KEY_SEED,
    KEY_SAMPLE,
    KEY_OPTIONAL
};

static const struct argp_option options[] = {
    {"pattern", KEY_PATTERN, "NAME|TEXT", 0,
     "random, block_sparse, strided, local_global, dynamic_threshold, learned (scores of the "
     "tensor "
     "gate), or a visibility as `heed mask show` takes it; given more than once, heads take turns",
     40},
    {"tiles", KEY_TILES, "FILE", 0, "a visibility as text in a file", 40},
    {"density", KEY_DENSITY, "X", 0, "which part of the tiles is kept, above 0 up to 1", 40},
    {"mass", KEY_MASS, "X", 0, "by scores: as many tiles as hold that part of their sum instead",
     40},
    {"scores", KEY_SCORES, "KIND", 0,
     "of dynamic_threshold: antidiagonal (default), pooled, mass (exact, as slow as attention)",
     40},
    {"tile", KEY_TILE, "64|128", 0, "queries and keys of a tile (64)", 40},
    {"seed", KEY_SEED, "N", 0, "of random (0); each head has its own draw", 40},
    {"optional", KEY_OPTIONAL, 0, 0, "dense attention where that is predicted to be faster", 40},
    {"sample", KEY_SAMPLE, "N", 0,
     "queries of each head that are compared with dense attention (4096), 0: none", 30},
    {0},
};

static const char doc[] =
    "Attention of the q, k and v of a safetensors file under a list of tiles for each head. The "
    "report has the density, the part of the softmax's mass that the tiles keep (mean, and of the "
    "worst hundredth of the rows), the error of the output, and the speed-up over dense attention, "
    "predicted and measured."
    "\v"
    "Examples:\n"
    "  heed run sparse -i qkv.safetensors -o out.safetensors --pattern dynamic_threshold \\\n"
    "      --density 0.1 --causal\n"
    "  heed run sparse -i qkv.safetensors -o out.safetensors --pattern 'band:1023,0 | first:64'\n"
    "  heed run sparse -i qkv.safetensors -o out.safetensors --pattern local_global \\\n"
    "      --pattern random --density 0.05\n"
    "\n"
    "The output has out and lse and appears whole or not at all.";

/* ---- command line ---------------------------------------------------------------------------- */

static void add_pattern(sparse_options_t *to, const char *text, struct argp_state *state)
{
    if (to->count == SPARSE_MOST_PATTERNS)
        argp_error(state, "more than %d patterns", SPARSE_MOST_PATTERNS);
    if (!sparse_pattern_read(text, &to->patterns[to->count++]))
        argp_error(state, "--pattern is empty");
}

enum { MOST_FILE = 1 << 20 };

/* The file's text; lines are joined, so that it may have some. */
static void read_tiles(sparse_options_t *to, const char *path, struct argp_state *state)
{
    if (to->file)
        argp_error(state, "--tiles is given twice");
    FILE *file = fopen(path, "r");
    to->file = malloc(MOST_FILE);
    if (!file || !to->file)
        argp_failure(state, TOOL_FAILED, errno, "%s", path);
    size_t size = fread(to->file, 1, MOST_FILE - 1, file);
    bool good = !ferror(file) && feof(file);
    fclose(file);
    if (!good)
        argp_failure(state, TOOL_FAILED, 0, "%s: cannot be read, or is longer than 1 MiB", path);
    to->file[size] = '\0';
    for (size_t i = 0; i < size; i++)
        to->file[i] = to->file[i] == '\n' || to->file[i] == '\t' ? ' ' : to->file[i];
    add_pattern(to, to->file, state);
}

static heed_score_kind_t parse_scores(const char *text, struct argp_state *state)
{
    if (strcmp(text, "pooled") == 0)
        return HEED_SCORE_POOLED;
    if (strcmp(text, "mass") == 0)
        return HEED_SCORE_MASS;
    if (strcmp(text, "antidiagonal") != 0)
        argp_error(state, "--scores takes antidiagonal, pooled or mass, not \"%s\"", text);
    return HEED_SCORE_ANTIDIAGONAL;
}

static double parse_part(const char *option, const char *text, struct argp_state *state)
{
    double value;
    if (!tool_parse_double(text, &value) || value <= 0 || value > 1)
        argp_error(state, "--%s takes a number above 0 up to 1, not \"%s\"", option, text);
    return value;
}

static void finish(const sparse_options_t *to, struct argp_state *state)
{
    if (!to->count)
        argp_error(state, "--pattern is missing, or --tiles");
    if (sparse_needs_density(to) && to->density < 0)
        argp_error(state, "--density is missing");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    sparse_options_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->all;
        return 0;
    case KEY_PATTERN:
        add_pattern(to, arg, state);
        return 0;
    case KEY_TILES:
        read_tiles(to, arg, state);
        return 0;
    case KEY_DENSITY:
        to->density = parse_part("density", arg, state);
        return 0;
    case KEY_MASS:
        to->mass = parse_part("mass", arg, state);
        return 0;
    case KEY_SCORES:
        to->scores = parse_scores(arg, state);
        return 0;
    case KEY_TILE:
        if (!tool_parse_int(arg, 64, 128, &to->tile) || to->tile % 64)
            argp_error(state, "--tile %s is not 64 or 128", arg);
        return 0;
    case KEY_SEED:
        if (!tool_parse_int(arg, 0, 1 << 30, &to->seed))
            argp_error(state, "--seed takes a number from 0 up, not \"%s\"", arg);
        return 0;
    case KEY_SAMPLE:
        if (!tool_parse_int(arg, 0, 1 << 30, &to->sample))
            argp_error(state, "--sample takes a number from 0 up, not \"%s\"", arg);
        return 0;
    case KEY_OPTIONAL:
        to->optional = 1;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return 0;
    case ARGP_KEY_SUCCESS:
        finish(to, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&long_argp, 0, NULL, 0}, {0}};
const struct argp sparse_argp = {options, parse, NULL, doc, children, NULL, NULL};
