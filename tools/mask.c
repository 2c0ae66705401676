/* `heed mask show`: a visibility as a picture, in the terminal and as SVG. */
#define _GNU_SOURCE
#include "options.h"
#include "text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_QUERIES = 0x3000, KEY_KEYS, KEY_TILE, KEY_SVG, KEY_CELLS, MOST_CELLS = 256 };

typedef struct arguments {
    const char *text, *svg;
    int queries, keys, tile, cells;
    tool_options_t options;
} arguments_t;

/* The visible part of each cell of the picture; a cell is some tiles wide and high. */
typedef struct picture {
    int rows, columns;
    double *seen;
} picture_t;

static const struct argp_option options[] = {
    {"queries", KEY_QUERIES, "N", 0, "queries (1024)", 0},
    {"keys", KEY_KEYS, "N", 0, "keys (as many as queries)", 0},
    {"tile", KEY_TILE, "64|128", 0, "queries and keys of a tile (64)", 0},
    {"cells", KEY_CELLS, "N", 0, "cells of the picture at most, each way (64)", 0},
    {"svg", KEY_SVG, "FILE", 0, "draw into a file too", 0},
    {0},
};

static const char doc[] =
    "Draws which keys (across) each query (down) sees, and counts tiles and pairs."
    "\v"
    "Examples:\n"
    "  heed mask show 'band:255,0 | first:4 & causal' --queries 2048\n"
    "  heed mask show random:0.1,7,causal --queries 8192 --svg random.svg\n"
    "  heed mask show 'documents:300,500,224 & causal'\n"
    "\n"
    "Terms are joined by & and |, & first:\n"
    "  all  causal  band:L,R  first:N  blocks:SIZE  lattice:SIZE  tails:SIZE,N\n"
    "  segments:SIZE,RATE,OFFSET  documents:LENGTH,...  keys:J,...  queries:I,...  slashes:N,...\n"
    "  random:DENSITY[,SEED]  block_sparse:DENSITY  strided:DENSITY  "
    "local_global:DENSITY[,TILES]\n"
    "The words top-left (any term) and causal (those with a density) follow the numbers.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    arguments_t *to = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &to->options;
        return 0;
    case KEY_QUERIES:
    case KEY_KEYS:
        if (!tool_parse_int(arg, 1, 1 << 24, key == KEY_KEYS ? &to->keys : &to->queries))
            argp_error(state, "'%s' is not 1 to 16777216", arg);
        return 0;
    case KEY_TILE:
        if (!tool_parse_int(arg, 64, 128, &to->tile) || to->tile % 64)
            argp_error(state, "--tile %s is not 64 or 128", arg);
        return 0;
    case KEY_CELLS:
        if (!tool_parse_int(arg, 1, MOST_CELLS, &to->cells))
            argp_error(state, "--cells %s is not 1 to %d", arg, MOST_CELLS);
        return 0;
    case KEY_SVG:
        to->svg = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0 && strcmp(arg, "show") != 0)
            argp_error(state, "'%s' is not show", arg);
        if (state->arg_num > 1)
            argp_error(state, "'%s' is one argument too many: quote the visibility", arg);
        to->text = state->arg_num == 1 ? arg : NULL;
        return 0;
    case ARGP_KEY_SUCCESS:
        if (!to->text)
            argp_error(state, "a visibility is missing: heed mask show TEXT");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the picture ----------------------------------------------------------------------------- */

/* Visible pairs of an entry. */
static int64_t pairs_of(const heed_tiles_grid_t *grid, const heed_tile_list_t *list, int64_t row,
                        int64_t entry)
{
    int64_t queries = grid->queries - row * grid->tile_q, pairs = 0;
    int64_t keys = grid->keys - (int64_t)list->column[entry] * grid->tile_k;
    int words = grid->tile_q / 64;
    queries = queries < grid->tile_q ? queries : grid->tile_q;
    keys = keys < grid->tile_k ? keys : grid->tile_k;
    if (list->mask[entry] < 0)
        return queries * keys;
    const uint64_t *bits = list->bits + (int64_t)list->mask[entry] * grid->tile_k * words;
    for (int64_t n = 0; n < (int64_t)grid->tile_k * words; n++)
        pairs += __builtin_popcountll(bits[n]); /* none is set beyond the tokens */
    return pairs;
}

static bool draw(const heed_tiles_grid_t *grid, const heed_tile_list_t *list, int cells,
                 picture_t *picture)
{
    int64_t columns = (grid->keys + grid->tile_k - 1) / grid->tile_k;
    int64_t longest = list->rows > columns ? list->rows : columns;
    int64_t per_cell = (longest + cells - 1) / cells;
    picture->rows = (int)((list->rows + per_cell - 1) / per_cell);
    picture->columns = (int)((columns + per_cell - 1) / per_cell);
    picture->seen = calloc((size_t)picture->rows * (size_t)picture->columns, sizeof(double));
    if (!picture->seen)
        return false;
    double area = (double)(per_cell * grid->tile_q) * (double)(per_cell * grid->tile_k);
    for (int64_t row = 0; row < list->rows; row++)
        for (int64_t e = list->row_start[row]; e < list->row_start[row + 1]; e++)
            picture->seen[row / per_cell * picture->columns + list->column[e] / per_cell] +=
                (double)pairs_of(grid, list, row, e) / area;
    return true;
}

static void print_picture(const picture_t *picture)
{
    static const char *const shades[] = {"  ", "░░", "▒▒", "▓▓", "██"};
    for (int r = 0; r < picture->rows; r++) {
        printf("  ");
        for (int c = 0; c < picture->columns; c++) {
            double seen = picture->seen[r * picture->columns + c];
            printf("%s", shades[seen > 0 ? 1 + (int)fmin(seen * 3.999, 3) : 0]);
        }
        printf("\n");
    }
}

static int write_svg(const picture_t *picture, const char *text, const char *path)
{
    enum { CELL = 8 };
    FILE *file = fopen(path, "w");
    if (!file)
        return tool_fail("%s: %s", path, strerror(errno));
    fprintf(file, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\">\n<title>",
            picture->columns * CELL, picture->rows * CELL);
    for (const char *at = text; *at; at++)
        fprintf(file, *at == '&' ? "&amp;" : *at == '<' ? "&lt;" : "%c", *at);
    fprintf(file, "</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#f2f2f2\"/>\n");
    for (int r = 0; r < picture->rows; r++) {
        for (int c = 0, end; c < picture->columns; c = end) {
            double seen = picture->seen[r * picture->columns + c];
            for (end = c + 1; end < picture->columns; end++)
                if (picture->seen[r * picture->columns + end] != seen)
                    break;
            if (seen > 0)
                fprintf(file,
                        "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#1f4e79\" "
                        "fill-opacity=\"%.3g\"/>\n",
                        c * CELL, r * CELL, (end - c) * CELL, CELL, 0.2 + 0.8 * fmin(seen, 1));
        }
    }
    fprintf(file, "</svg>\n");
    bool bad = ferror(file);
    if (fclose(file) || bad)
        return tool_fail("%s: cannot be written", path);
    return TOOL_OK;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void print_counts(const heed_tiles_grid_t *grid, const heed_tiles_count_t *count)
{
    printf("%lld queries, %lld keys: %.4g %% of the pairs, in %lld tiles of %d x %d (%.4g %% of "
           "all), %lld of them full\n",
           (long long)grid->queries, (long long)grid->keys, 100 * count->density,
           (long long)count->tiles, grid->tile_q, grid->tile_k, 100 * count->tile_density,
           (long long)count->full);
    if (count->empty_rows)
        printf("%lld rows of tiles see nothing\n", (long long)count->empty_rows);
}

static int show(heed_context_t *context, const arguments_t *arguments)
{
    heed_tiles_grid_t grid =
        heed_tiles_grid(arguments->queries, arguments->keys ? arguments->keys : arguments->queries);
    heed_tile_list_t *list;
    heed_tiles_count_t count;
    picture_t picture = {0};
    grid.tile_q = grid.tile_k = arguments->tile;
    heed_status_t status = heed_tiles_from_text(context, &grid, arguments->text, &list);
    if (status != HEED_OK)
        return tool_fail_status(status);
    int code = TOOL_OK;
    status = heed_tiles_count(&grid, list, &count);
    if (status != HEED_OK)
        code = tool_fail_status(status);
    else if (!draw(&grid, list, arguments->cells, &picture))
        code = tool_fail("no memory for a picture");
    heed_tiles_free(context, list);
    if (code == TOOL_OK) {
        print_picture(&picture);
        print_counts(&grid, &count);
        if (arguments->svg)
            code = write_svg(&picture, arguments->text, arguments->svg);
    }
    free(picture.seen);
    return code;
}

int cmd_mask(int argc, char **argv)
{
    arguments_t arguments = {.queries = 1024, .tile = 64, .cells = 64};
    const struct argp_child children[] = {{&tool_options_argp, 0, NULL, 0}, {0}};
    const struct argp argp = {options, parse, "show TEXT", doc, children, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return TOOL_USAGE;
    heed_context_t *context = tool_context(&arguments.options);
    int code = context ? show(context, &arguments) : TOOL_FAILED;
    heed_context_destroy(context);
    return code;
}
