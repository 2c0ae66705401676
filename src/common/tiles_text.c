/* Tile lists from text. */
#include "tiles_build.h"

#include <math.h>
#include <string.h>

enum { MOST_NUMBERS = 256 };

/* A term as it was read. */
typedef struct term {
    char name[24];
    double numbers[MOST_NUMBERS];
    int count;
    bool causal, top_left;
} term_t;

typedef struct term_kind {
    const char *name;
    int least, most; /* numbers */
    int pattern;     /* heed_pattern_kind_t, -1: a generator */
    heed_sparse_kind_t sparse;
} term_kind_t;

static const term_kind_t kinds[] = {
    {"all", 0, 0, HEED_PATTERN_ALL, 0},
    {"causal", 0, 0, HEED_PATTERN_ALL, 0},
    {"band", 2, 2, HEED_PATTERN_ALL, 0},
    {"first", 1, 1, HEED_PATTERN_FIRST, 0},
    {"blocks", 1, 1, HEED_PATTERN_BLOCKS, 0},
    {"lattice", 1, 1, HEED_PATTERN_LATTICE, 0},
    {"tails", 2, 2, HEED_PATTERN_TAILS, 0},
    {"segments", 3, 3, HEED_PATTERN_SEGMENTS, 0},
    {"documents", 1, MOST_NUMBERS - 1, HEED_PATTERN_DOCUMENTS, 0},
    {"keys", 1, MOST_NUMBERS, HEED_PATTERN_KEYS, 0},
    {"queries", 1, MOST_NUMBERS, HEED_PATTERN_QUERIES, 0},
    {"slashes", 1, MOST_NUMBERS, HEED_PATTERN_SLASHES, 0},
    {"random", 1, 2, -1, HEED_SPARSE_RANDOM},
    {"block_sparse", 1, 1, -1, HEED_SPARSE_BLOCK_SPARSE},
    {"strided", 1, 1, -1, HEED_SPARSE_STRIDED},
    {"local_global", 1, 2, -1, HEED_SPARSE_LOCAL_GLOBAL},
};

/* ---- reading --------------------------------------------------------------------------------- */

static heed_status_t read_argument(const char *item, term_t *term)
{
    double number;
    if (strcmp(item, "causal") == 0) {
        term->causal = true;
    } else if (strcmp(item, "top-left") == 0) {
        term->top_left = true;
    } else {
        if (!hd_parse_double(item, &number) || !(fabs(number) <= 2147483647.0))
            return hd_fail(HEED_ERROR_VALUE, "'%s' of %s is no number of 31 bits", item,
                           term->name);
        if (term->count == MOST_NUMBERS)
            return hd_fail(HEED_ERROR_VALUE, "%s has more than %d numbers", term->name,
                           MOST_NUMBERS);
        term->numbers[term->count++] = number;
    }
    return HEED_OK;
}

/* Reads one term and moves *text to the & or | behind it, or to the end. */
static heed_status_t read_term(const char **text, term_t *term)
{
    char item[32];
    const char *at = *text + strspn(*text, " ");
    size_t length = strcspn(at, ":&| ");
    memset(term, 0, sizeof(*term));
    if (length == 0 || length >= sizeof(term->name))
        return hd_fail(HEED_ERROR_VALUE, "'%.24s' is not the name of a term", at);
    memcpy(term->name, at, length);
    at += length;
    while (*at == ':' || *at == ',') {
        size_t size = strcspn(++at, ",&| ");
        if (size == 0 || size >= sizeof(item))
            return hd_fail(HEED_ERROR_VALUE, "'%.24s' after %s is no number", at, term->name);
        memcpy(item, at, size);
        item[size] = 0;
        HD_TRY(read_argument(item, term));
        at += size;
    }
    at += strspn(at, " ");
    if (*at && *at != '&' && *at != '|')
        return hd_fail(HEED_ERROR_VALUE, "'%.24s' after %s: & or | follows a term", at, term->name);
    *text = at;
    return HEED_OK;
}

/* ---- making ---------------------------------------------------------------------------------- */

/* Documents are written by their lengths. */
static void set_numbers(const term_t *term, heed_pattern_t *pattern, int64_t *numbers)
{
    bool documents = pattern->kind == HEED_PATTERN_DOCUMENTS;
    int64_t sum = 0;
    pattern->numbers = numbers;
    pattern->count = term->count + documents;
    if (documents)
        *numbers++ = 0;
    for (int i = 0; i < term->count; i++) {
        sum += (int64_t)term->numbers[i];
        numbers[i] = documents ? sum : (int64_t)term->numbers[i];
    }
}

static heed_status_t make_pattern(heed_context_t *context, const heed_tiles_grid_t *grid,
                                  const term_t *term, int kind, heed_tile_list_t **tiles)
{
    int64_t numbers[MOST_NUMBERS + 1];
    heed_pattern_t pattern = heed_pattern((heed_pattern_kind_t)kind);
    bool causal = strcmp(term->name, "causal") == 0 || term->causal;
    pattern.align = term->top_left ? HEED_ALIGN_TOP_LEFT : HEED_ALIGN_BOTTOM_RIGHT;
    if (strcmp(term->name, "band") == 0) {
        pattern.left = (int64_t)term->numbers[0];
        pattern.right = (int64_t)term->numbers[1];
    } else if (kind >= HEED_PATTERN_DOCUMENTS) {
        set_numbers(term, &pattern, numbers);
    } else {
        pattern.size = (int64_t)term->numbers[0];
        pattern.rate = (int64_t)term->numbers[1];
        pattern.offset = (int64_t)term->numbers[2];
    }
    if (causal)
        pattern.right = 0;
    return heed_tiles_from_pattern(context, grid, &pattern, 1, tiles);
}

static heed_status_t make_sparse(heed_context_t *context, const heed_tiles_grid_t *grid,
                                 const term_t *term, heed_sparse_kind_t kind,
                                 heed_tile_list_t **tiles)
{
    heed_sparse_t sparse = heed_sparse(kind, term->numbers[0]);
    sparse.causal = term->causal;
    sparse.align = term->top_left ? HEED_ALIGN_TOP_LEFT : HEED_ALIGN_BOTTOM_RIGHT;
    if (kind == HEED_SPARSE_RANDOM)
        sparse.seed = (uint64_t)(int64_t)term->numbers[1];
    else
        sparse.globals = (int64_t)term->numbers[1];
    return heed_tiles_generate(context, grid, &sparse, 1, tiles);
}

static heed_status_t make_term(heed_context_t *context, const heed_tiles_grid_t *grid,
                               const term_t *term, heed_tile_list_t **tiles)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const term_kind_t *kind = &kinds[i];
        if (strcmp(kind->name, term->name) != 0)
            continue;
        if (term->count < kind->least || term->count > kind->most)
            return hd_fail(HEED_ERROR_VALUE, "%s has %d numbers: it takes %d to %d", term->name,
                           term->count, kind->least, kind->most);
        return kind->pattern < 0 ? make_sparse(context, grid, term, kind->sparse, tiles)
                                 : make_pattern(context, grid, term, kind->pattern, tiles);
    }
    return hd_fail(HEED_ERROR_VALUE, "'%s' is no term: see heed/tiles.h", term->name);
}

typedef heed_status_t (*join_t)(heed_context_t *context, const heed_tiles_grid_t *grid,
                                const heed_tile_list_t *a, const heed_tile_list_t *b,
                                heed_tile_list_t **tiles);

/* *into = join(*into, more), or more where there is nothing yet. Takes both over, also on failure.
 */
static heed_status_t join(heed_context_t *context, const heed_tiles_grid_t *grid, join_t how,
                          heed_tile_list_t *more, heed_tile_list_t **into)
{
    heed_tile_list_t *before = *into;
    *into = more;
    if (!before)
        return HEED_OK;
    heed_status_t status = how(context, grid, before, more, into);
    heed_tiles_free(context, before);
    heed_tiles_free(context, more);
    return status;
}

/* Terms up to a | or the end, joined by &. */
static heed_status_t make_product(heed_context_t *context, const heed_tiles_grid_t *grid,
                                  const char **text, term_t *term, heed_tile_list_t **product)
{
    for (;; ++*text) {
        heed_tile_list_t *more = NULL;
        HD_TRY(read_term(text, term));
        HD_TRY(make_term(context, grid, term, &more));
        HD_TRY(join(context, grid, heed_tiles_and, more, product));
        if (**text != '&')
            return HEED_OK;
    }
}

static heed_status_t make_sum(heed_context_t *context, const heed_tiles_grid_t *grid,
                              const char *text, term_t *term, heed_tile_list_t **sum)
{
    for (;; text++) {
        heed_tile_list_t *product = NULL;
        heed_status_t status = make_product(context, grid, &text, term, &product);
        if (status != HEED_OK) {
            heed_tiles_free(context, product);
            return status;
        }
        HD_TRY(join(context, grid, heed_tiles_or, product, sum));
        if (*text != '|')
            return HEED_OK;
    }
}

heed_status_t heed_tiles_from_text(heed_context_t *context, const heed_tiles_grid_t *grid,
                                   const char *text, heed_tile_list_t **tiles)
{
    heed_tiles_grid_t full;
    if (!context || !text || !tiles)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context ? "context"
                       : !text  ? "text"
                                : "tiles");
    *tiles = NULL;
    HD_TRY(hd_grid_check(grid, &full));
    term_t term;
    heed_status_t status = make_sum(context, &full, text, &term, tiles);
    if (status != HEED_OK) {
        heed_tiles_free(context, *tiles);
        *tiles = NULL;
    }
    return status;
}
