#include "run_ranks.h"
#include "run_ring.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_WINDOW = 0x3500, KEY_RANKS, KEY_LAYOUT, KEY_ROWS, KEY_CHUNK, KEY_MPI, KEY_METHOD };

static const struct argp_option options[] = {
    {"window", KEY_WINDOW, "L,R", 0, "keys visible before and after the position, -1: open", 40},
    {"query-rows", KEY_ROWS, "A:B", 0, "only the queries from A up to B: a shard", 40},
    {"chunk", KEY_CHUNK, "N", 0, "keys at a time (default: as the plan predicts)", 40},
    {"ranks", KEY_RANKS, "P", 0, "a ring of P ranks, threads of this process", 40},
    {"layout", KEY_LAYOUT, "NAME", 0,
     "which tokens a rank has: contiguous (default), zigzag or striped", 40},
    {"mpi", KEY_MPI, 0, 0, "ranks are MPI's processes; found by itself under mpirun and srun", 40},
    {"method", KEY_METHOD, "NAME", 0,
     "how ranks exchange: ring (default), auto, all-gather, all-to-all, all-to-all-ring, pass-q",
     40},
    {0},
};

static const char doc[] =
    "Attention of the q, k and v of a safetensors file, of any length. Keys and values are read "
    "from the file in chunks while queries, their results and one chunk are in memory; causal "
    "masks and windows go by position, the last query at the last key. Ranks take documents in one "
    "sequence, which begin at cu_seqlens_q and cu_seqlens_k."
    "\v"
    "Examples:\n"
    "  heed run ring -i qkv.safetensors -o out.safetensors --causal\n"
    "  heed run ring -i qkv.safetensors -o shard.safetensors --causal --query-rows 4096:8192\n"
    "  heed run ring -i qkv.safetensors -o out.safetensors --ranks 4 --layout zigzag --causal\n"
    "  mpirun -n 4 heed run ring -i qkv.safetensors -o out.safetensors --layout zigzag --causal\n"
    "\n"
    "The output has out and lse and appears whole or not at all.";

/* ---- command line ---------------------------------------------------------------------------- */

/* Two numbers with `between` between them. */
static bool parse_pair(const char *text, char between, int64_t *pair)
{
    char *end;
    pair[0] = strtoll(text, &end, 10);
    if (end == text || *end != between)
        return false;
    text = end + 1;
    pair[1] = strtoll(text, &end, 10);
    return end != text && !*end;
}

static void parse_method(ring_options_t *to, const char *text, struct argp_state *state)
{
    int method = HEED_CONTEXT_PARALLEL_AUTO;
    while (method < HEED_CONTEXT_PARALLEL_TREE &&
           strcmp(text, heed_context_parallel_name((heed_context_parallel_method_t)method)) != 0)
        method++;
    if (method == HEED_CONTEXT_PARALLEL_TREE)
        argp_error(state,
                   "--method takes ring, auto, all-gather, all-to-all, all-to-all-ring, "
                   "pass-q, not \"%s\"",
                   text);
    to->method = (heed_context_parallel_method_t)method;
}

static void finish(ring_options_t *to, struct argp_state *state)
{
    int processes = ranks_of_processes();
    if (to->ranks && (to->mpi || processes > 1))
        argp_error(state, "--mpi: mpirun says how many --ranks there are");
    to->mpi = to->mpi || (!to->ranks && processes > 0);
    if (!ring_has_ranks(to) && to->has_layout)
        argp_error(state, "--layout needs --ranks or --mpi");
    if (!ring_has_ranks(to) && to->method != HEED_CONTEXT_PARALLEL_RING)
        argp_error(state, "--method needs --ranks or --mpi");
    if (ring_has_ranks(to) && (to->rows[1] || to->chunk || to->all.block))
        argp_error(state, "--ranks takes all queries at once: no --query-rows, --block, --chunk");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    ring_options_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->all;
        return 0;
    case KEY_WINDOW:
        if (!parse_pair(arg, ',', to->window) || to->window[0] < -1 || to->window[1] < -1)
            argp_error(state, "--window takes L,R, each from -1 up, not \"%s\"", arg);
        return 0;
    case KEY_ROWS:
        if (!parse_pair(arg, ':', to->rows) || to->rows[0] < 0 || to->rows[1] <= to->rows[0])
            argp_error(state, "--query-rows takes A:B with 0 <= A < B, not \"%s\"", arg);
        return 0;
    case KEY_CHUNK:
        if (!tool_parse_int(arg, 1, 1 << 30, &to->chunk))
            argp_error(state, "--chunk takes a number from 1 up, not \"%s\"", arg);
        return 0;
    case KEY_RANKS:
        if (!tool_parse_int(arg, 1, 64, &to->ranks))
            argp_error(state, "--ranks takes a number from 1 to 64, not \"%s\"", arg);
        return 0;
    case KEY_LAYOUT:
        if (!tool_parse_layout(arg, &to->layout))
            argp_error(state, "--layout takes contiguous, zigzag or striped, not \"%s\"", arg);
        to->has_layout = true;
        return 0;
    case KEY_MPI:
        to->mpi = true;
        return 0;
    case KEY_METHOD:
        parse_method(to, arg, state);
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
const struct argp ring_argp = {options, parse, NULL, doc, children, NULL, NULL};
