/* heed bench compare FILE...: joins result files of heed bench and of bench/peers into one table:
 * Heed, each peer, what the machine allows. Where Heed loses, the table says so. */
#define _GNU_SOURCE
#include "compare.h"

#include "bench.h"
#include "commands.h"

#include <argp.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading --------------------------------------------------------------------------------- */

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *string_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static compare_row_t *find_row(compare_table_t *table, const char *prob, int threads)
{
    for (int r = 0; r < table->row_count; r++)
        if (table->rows[r].threads == threads && !strcmp(table->rows[r].prob, prob))
            return &table->rows[r];
    table->rows = bench_realloc(table->rows, (size_t)(table->row_count + 1) * sizeof(*table->rows));
    compare_row_t *row = &table->rows[table->row_count++];
    *row = (compare_row_t){.prob = bench_strdup(prob),
                           .threads = threads,
                           .flops = NAN,
                           .bytes = NAN,
                           .limit_ns = NAN,
                           .heed = {.ns = NAN}};
    for (int p = 0; p < COMPARE_MOST_PEERS; p++)
        row->peers[p].ns = NAN;
    return row;
}

/* The number of a program among the peers; -1: no room. */
static int find_peer(compare_table_t *table, const char *name)
{
    for (int p = 0; p < table->peer_count; p++)
        if (!strcmp(table->peers[p], name))
            return p;
    if (table->peer_count == COMPARE_MOST_PEERS)
        return -1;
    snprintf(table->peers[table->peer_count], COMPARE_NAME, "%s", name);
    return table->peer_count++;
}

/* Keeps the faster of what is there and this. */
static void enter(compare_entry_t *entry, double ns, const char *impl)
{
    if (!(ns > 0) || ns >= entry->ns)
        return;
    entry->ns = ns;
    snprintf(entry->impl, sizeof(entry->impl), "%s", impl);
}

static bool add_result(compare_table_t *table, const json_t *result, const char *path)
{
    char program[COMPARE_NAME];
    const char *prob = string_of(result, "prob"), *impl = string_of(result, "impl");
    const char *colon = strchr(impl, ':');
    double ns = number_of(result, "median_ns");

    if (!prob[0] || !colon || colon == impl || colon - impl >= COMPARE_NAME) {
        bench_complain("%s: a result without prob or with impl \"%.64s\"", path, impl);
        return false;
    }
    snprintf(program, sizeof(program), "%.*s", (int)(colon - impl), impl);
    compare_row_t *row = find_row(table, prob, (int)number_of(result, "threads"));
    if (!strcmp(program, "cpu") || !strcmp(program, "cuda")) {
        enter(&row->heed, ns, impl);
    } else {
        int peer = find_peer(table, program);
        if (peer < 0) {
            bench_complain("%s: more than %d peers", path, COMPARE_MOST_PEERS);
            return false;
        }
        enter(&row->peers[peer], ns, colon + 1);
    }
    double limit_ns = ns * number_of(result, "fraction_of_limit");
    row->flops = isnan(row->flops) ? number_of(result, "flops") : row->flops;
    row->bytes = isnan(row->bytes) ? number_of(result, "bytes") : row->bytes;
    if (!isnan(limit_ns) && !(row->limit_ns < limit_ns)) {
        row->limit_ns = limit_ns;
        snprintf(row->limit, sizeof(row->limit), "%s", string_of(result, "limit"));
    }
    return true;
}

bool compare_read(compare_table_t *table, const char *path)
{
    json_error_t error;
    size_t i;
    json_t *result, *root = json_load_file(path, 0, &error);
    bool good = root && !strcmp(string_of(root, "schema"), "heed-bench-1");

    if (!root)
        bench_complain("%s: %s, line %d", path, error.text, error.line);
    else if (!good)
        bench_complain("%s is no file of heed bench -o json: its schema is \"%.32s\"", path,
                       string_of(root, "schema"));
    const json_t *context = json_object_get(root, "context");
    if (good && !table->machine[0])
        snprintf(table->machine, sizeof(table->machine), "%s", string_of(context, "cpu"));
    if (good)
        table->drift = fmax(table->drift, number_of(context, "limits_drift"));
    json_array_foreach(json_object_get(good ? root : NULL, "results"), i, result) good =
        good && add_result(table, result, path);
    json_decref(root);
    return good;
}

void compare_free(compare_table_t *table)
{
    for (int r = 0; r < table->row_count; r++)
        free(table->rows[r].prob);
    free(table->rows);
    *table = (compare_table_t){0};
}

int compare_best_peer(const compare_table_t *table, const compare_row_t *row)
{
    int best = -1;
    for (int p = 0; p < table->peer_count; p++)
        if (row->peers[p].ns > 0 && (best < 0 || row->peers[p].ns < row->peers[best].ns))
            best = p;
    return best;
}

/* ---- the command ----------------------------------------------------------------------------- */

enum { KEY_PLOT = 0x5000 };

typedef struct arguments {
    const char *plot;
    char **files;
    int file_count;
} arguments_t;

static const struct argp_option options[] = {
    {"plot", KEY_PLOT, "FILE", 0, "draw a picture too, FILE.svg or FILE.png; needs gnuplot", 0},
    {0},
};

static const char doc[] =
    "Joins results that `heed bench -o json` and bench/peers wrote into one table: Heed, each "
    "other program by its best variant, and what the machine allows."
    "\v"
    "A number above 1 in the last column but one says how many times as long as Heed the best peer "
    "takes; below 1 Heed loses, and the last column says so.\n\n"
    "Examples:\n"
    "  heed bench compare bench/results/peers-1t.json\n"
    "  heed bench compare --plot peers.svg heed.json peers.json > table.md";

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length > tail && !strcmp(text + length - tail, end);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;

    switch (key) {
    case KEY_PLOT:
        if (!ends_with(arg, ".svg") && !ends_with(arg, ".png"))
            argp_error(state, "--plot takes FILE.svg or FILE.png, not \"%s\"", arg);
        to->plot = arg;
        return 0;
    case ARGP_KEY_ARGS:
        to->files = state->argv + state->next;
        to->file_count = state->argc - state->next;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which files? `heed bench -o json` writes them");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cmd_compare(int argc, char **argv)
{
    arguments_t arguments = {0};
    compare_table_t table = {0};
    const struct argp argp = {options, parse, "FILE...", doc, NULL, NULL, NULL};
    bool good = true;

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    for (int i = 0; good && i < arguments.file_count; i++)
        good = compare_read(&table, arguments.files[i]);
    if (good && !table.row_count) {
        bench_complain("the files have no results");
        good = false;
    }
    if (good)
        compare_markdown(&table, stdout);
    if (good && arguments.plot)
        good = compare_plot(&table, arguments.plot);
    compare_free(&table);
    return good ? TOOL_OK : TOOL_FAILED;
}
