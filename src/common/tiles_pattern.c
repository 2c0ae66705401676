/* Tile lists of predicates. For every kind: which keys a range of queries may see (marks), whether
 * a tile is wholly seen, and which of 64 queries see one key. */
#include "tiles_build.h"

#include "visibility.h"

#include <string.h>

typedef struct patterns {
    const heed_pattern_t *at;
    int64_t count; /* 1, or one a head */
} patterns_t;

typedef struct term {
    const heed_pattern_t *pattern;
    hd_visibility_t band;
} term_t;

static term_t term_of(const void *maker, const hd_tile_row_t *row)
{
    const patterns_t *patterns = maker;
    const heed_pattern_t *pattern = &patterns->at[patterns->count > 1 ? row->head : 0];
    int64_t queries = row->grid->queries, keys = row->grid->keys, open = queries + keys;
    term_t term = {.pattern = pattern, .band = {.queries = queries, .keys = keys}};
    term.band.offset = pattern->align == HEED_ALIGN_BOTTOM_RIGHT ? keys - queries : 0;
    term.band.left = pattern->left < 0 ? open : hd_min(pattern->left, open);
    term.band.right = pattern->right < 0 ? open : hd_min(pattern->right, open);
    return term;
}

/* ---- lists of numbers ------------------------------------------------------------------------ */

/* How many of the numbers lie below `value`. */
static int64_t below(const heed_pattern_t *pattern, int64_t value)
{
    int64_t low = 0, high = pattern->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (pattern->numbers[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The document of a token: [*from, *end), empty past the last. */
static void document(const heed_pattern_t *pattern, int64_t token, int64_t *from, int64_t *end)
{
    int64_t number = below(pattern, token + 1);
    *from = *end = 0;
    if (number > 0 && number < pattern->count) {
        *from = pattern->numbers[number - 1];
        *end = pattern->numbers[number];
    }
}

/* ---- marking --------------------------------------------------------------------------------- */

/* Keys that some query first .. last sees by the pattern alone, within low .. high-1. */
static void mark_blocks(hd_tile_row_t *row, int64_t size, int64_t low, int64_t high)
{
    int64_t last = row->first + row->queries - 1;
    hd_row_mark_keys(row, hd_max(low, row->first / size * size),
                     hd_min(high, (last / size + 1) * size));
}

static void mark_documents(hd_tile_row_t *row, const heed_pattern_t *pattern, int64_t low,
                           int64_t high)
{
    int64_t from, end, ignored;
    document(pattern, row->first, &from, &ignored);
    int64_t last = hd_min(row->first + row->queries, pattern->numbers[pattern->count - 1]) - 1;
    if (last < row->first)
        return;
    document(pattern, last, &ignored, &end);
    hd_row_mark_keys(row, hd_max(low, from), hd_min(high, end));
}

static void mark_lattice(hd_tile_row_t *row, int64_t offset, int64_t size, int64_t low,
                         int64_t high)
{
    if (size <= row->grid->tile_k) {
        hd_row_mark_keys(row, low, high);
        return;
    }
    /* Keys first + offset - m * size, and those of the other queries beside each. */
    int64_t at = row->first + offset, span = row->queries;
    at -= (at + span - low) / size * size;
    for (; at < high; at += size)
        hd_row_mark_keys(row, hd_max(at, low), hd_min(at + span, high));
}

static void mark_tails(hd_tile_row_t *row, const heed_pattern_t *pattern, int64_t low, int64_t high)
{
    int64_t size = pattern->size;
    if (size <= row->grid->tile_k) {
        hd_row_mark_keys(row, low, high);
        return;
    }
    for (int64_t at = low / size * size; at < high; at += size)
        hd_row_mark_keys(row, hd_max(at + size - pattern->rate, low), hd_min(at + size, high));
}

static void mark_numbers(hd_tile_row_t *row, const heed_pattern_t *pattern, int64_t offset,
                         int64_t low, int64_t high)
{
    if (pattern->kind == HEED_PATTERN_KEYS) {
        for (int64_t n = below(pattern, low); n < pattern->count && pattern->numbers[n] < high; n++)
            hd_row_mark_keys(row, pattern->numbers[n], pattern->numbers[n] + 1);
    } else if (pattern->kind == HEED_PATTERN_QUERIES) {
        if (below(pattern, row->first) < below(pattern, row->first + row->queries))
            hd_row_mark_keys(row, low, high);
    } else {
        for (int64_t n = 0; n < pattern->count; n++) {
            int64_t key = row->first + offset - pattern->numbers[n];
            hd_row_mark_keys(row, hd_max(key, low), hd_min(key + row->queries, high));
        }
    }
}

static void mark(const void *maker, hd_tile_row_t *row)
{
    term_t term = term_of(maker, row);
    const heed_pattern_t *pattern = term.pattern;
    int64_t low = hd_first_key(&term.band, row->first);
    int64_t high = hd_end_key(&term.band, row->first + row->queries - 1);
    switch (pattern->kind) {
    case HEED_PATTERN_ALL:
        hd_row_mark_keys(row, low, high);
        break;
    case HEED_PATTERN_FIRST:
        hd_row_mark_keys(row, low, hd_min(high, pattern->size));
        break;
    case HEED_PATTERN_BLOCKS:
    case HEED_PATTERN_SEGMENTS:
        mark_blocks(row, pattern->size, low, high);
        break;
    case HEED_PATTERN_LATTICE:
        mark_lattice(row, term.band.offset, pattern->size, low, high);
        break;
    case HEED_PATTERN_TAILS:
        mark_tails(row, pattern, low, high);
        break;
    case HEED_PATTERN_DOCUMENTS:
        mark_documents(row, pattern, low, high);
        break;
    case HEED_PATTERN_KEYS:
    case HEED_PATTERN_QUERIES:
    case HEED_PATTERN_SLASHES:
        mark_numbers(row, pattern, term.band.offset, low, high);
        break;
    }
}

/* ---- one tile -------------------------------------------------------------------------------- */

/* Every `step`-th of 64 bits, starting at a bit that may be negative. */
static uint64_t comb(int64_t start, int64_t step)
{
    uint64_t bits = 0;
    if (start < 0)
        start += hd_ceil_div(-start, step) * step;
    for (; start < 64; start += step)
        bits |= UINT64_C(1) << start;
    return bits;
}

static uint64_t segment_queries(const heed_pattern_t *pattern, int64_t first, int64_t key)
{
    int64_t start = key / pattern->size * pattern->size;
    if ((key - start) % pattern->rate != pattern->offset)
        return 0;
    return comb((start + pattern->offset - first) % pattern->rate - pattern->rate, pattern->rate) &
           hd_bits_between(start, start + pattern->size, first);
}

static uint64_t listed_queries(const heed_pattern_t *pattern, int64_t first, int64_t position)
{
    uint64_t bits = 0;
    /* A slash is the query `number` above the key's position. */
    int64_t shift = pattern->kind == HEED_PATTERN_SLASHES ? position : 0;
    for (int64_t n = below(pattern, first - shift); n < pattern->count; n++) {
        int64_t query = pattern->numbers[n] + shift;
        if (query >= first + 64)
            break;
        bits |= UINT64_C(1) << (query - first);
    }
    return bits;
}

/* Which of the queries first .. first+63 see a key by the pattern alone. */
static uint64_t queries_of(const term_t *term, int64_t first, int64_t key)
{
    const heed_pattern_t *pattern = term->pattern;
    const uint64_t all = ~UINT64_C(0);
    int64_t from = 0, end = 0;
    switch (pattern->kind) {
    case HEED_PATTERN_ALL:
        return all;
    case HEED_PATTERN_FIRST:
        return key < pattern->size ? all : 0;
    case HEED_PATTERN_BLOCKS:
        from = key / pattern->size * pattern->size;
        return hd_bits_between(from, from + pattern->size, first);
    case HEED_PATTERN_LATTICE:
        from = (key - term->band.offset - first) % pattern->size;
        return comb(from - pattern->size, pattern->size);
    case HEED_PATTERN_TAILS:
        return key % pattern->size >= pattern->size - pattern->rate ? all : 0;
    case HEED_PATTERN_SEGMENTS:
        return segment_queries(pattern, first, key);
    case HEED_PATTERN_DOCUMENTS:
        document(pattern, key, &from, &end);
        return hd_bits_between(from, end, first);
    case HEED_PATTERN_KEYS:
        from = below(pattern, key);
        return from < pattern->count && pattern->numbers[from] == key ? all : 0;
    case HEED_PATTERN_QUERIES:
    case HEED_PATTERN_SLASHES:
        return listed_queries(pattern, first, key - term->band.offset);
    }
    return 0;
}

/* Whether every query first .. last sees every key from .. end-1, told without looking at pairs;
 * false where that is not known. */
static bool is_whole(const term_t *term, int64_t first, int64_t last, int64_t from, int64_t end)
{
    const heed_pattern_t *pattern = term->pattern;
    int64_t low = 0, high = 0;
    if (hd_first_key(&term->band, last) > from || hd_end_key(&term->band, first) < end)
        return false;
    switch (pattern->kind) {
    case HEED_PATTERN_ALL:
        return true;
    case HEED_PATTERN_FIRST:
        return end <= pattern->size;
    case HEED_PATTERN_BLOCKS:
        low = first / pattern->size * pattern->size;
        high = low + pattern->size;
        break;
    case HEED_PATTERN_DOCUMENTS:
        document(pattern, first, &low, &high);
        break;
    default:
        return false;
    }
    return low <= from && end <= high && last < high;
}

/* What repeats within a pattern, of tiles that neither the band nor an end of the grid cuts: the
 * place in the period of a lattice or of tails; in a segment, that of both sides. */
static int64_t kind(const void *maker, const hd_tile_row_t *row, int64_t column)
{
    term_t term = term_of(maker, row);
    const heed_pattern_t *pattern = term.pattern;
    const heed_tiles_grid_t *grid = row->grid;
    int64_t size = pattern->size, first = row->first, last = first + grid->tile_q - 1;
    int64_t key = column * grid->tile_k, end = key + grid->tile_k;
    if (row->queries < grid->tile_q || end > grid->keys || hd_first_key(&term.band, last) > key ||
        hd_end_key(&term.band, first) < end)
        return -1;
    if (pattern->kind == HEED_PATTERN_LATTICE)
        return ((key - first - term.band.offset) % size + size) % size;
    if (pattern->kind == HEED_PATTERN_TAILS)
        return key % size;
    if (pattern->kind != HEED_PATTERN_SEGMENTS)
        return -1;
    int64_t start = key / size * size;
    if (first < start || last >= start + size || end > start + size)
        return -1;
    return (first - start) % pattern->rate * pattern->rate + (key - start) % pattern->rate;
}

static bool tile(const void *maker, const hd_tile_row_t *row, int64_t column, uint64_t *bits)
{
    const heed_tiles_grid_t *grid = row->grid;
    term_t term = term_of(maker, row);
    int64_t key = column * grid->tile_k, end = hd_min(key + grid->tile_k, grid->keys);
    if (is_whole(&term, row->first, row->first + row->queries - 1, key, end))
        return true;
    for (; key < end; key++)
        for (int64_t first = row->first; first < row->first + grid->tile_q; first += 64)
            *bits++ = hd_band_mask(&term.band, key, first, 64) & queries_of(&term, first, key);
    return false;
}

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t check_numbers(const heed_pattern_t *pattern)
{
    bool documents = pattern->kind == HEED_PATTERN_DOCUMENTS;
    if (pattern->count < 0 || (documents && pattern->count < 1))
        return hd_fail(HEED_ERROR_VALUE, "pattern.count=%lld is below %d",
                       (long long)pattern->count, documents);
    if (pattern->count && !pattern->numbers)
        return hd_fail(HEED_ERROR_NULL, "pattern.numbers is null");
    if (documents && pattern->numbers[0] != 0)
        return hd_fail(HEED_ERROR_VALUE, "pattern.numbers[0]=%lld: documents start at 0",
                       (long long)pattern->numbers[0]);
    for (int64_t n = 0; n < pattern->count; n++) {
        int64_t number = pattern->numbers[n];
        if (number > INT32_MAX || number < -(int64_t)INT32_MAX)
            return hd_fail(HEED_ERROR_VALUE, "pattern.numbers[%lld]=%lld is beyond 2^31-1",
                           (long long)n, (long long)number);
        if (n && number < pattern->numbers[n - 1] + !documents)
            return hd_fail(HEED_ERROR_VALUE,
                           "pattern.numbers[%lld]=%lld: numbers ascend, and the "
                           "one before is %lld",
                           (long long)n, (long long)number, (long long)pattern->numbers[n - 1]);
    }
    return HEED_OK;
}

static heed_status_t check(const heed_pattern_t *pattern)
{
    heed_pattern_kind_t kind = pattern->kind;
    if ((int)kind < 0 || kind > HEED_PATTERN_SLASHES)
        return hd_fail(HEED_ERROR_VALUE, "pattern.kind=%d is no heed_pattern_kind_t", (int)kind);
    if (pattern->align != HEED_ALIGN_BOTTOM_RIGHT && pattern->align != HEED_ALIGN_TOP_LEFT)
        return hd_fail(HEED_ERROR_VALUE, "pattern.align=%d is no heed_align_t",
                       (int)pattern->align);
    if (pattern->left < -1 || pattern->right < -1)
        return hd_fail(HEED_ERROR_VALUE, "pattern.left=%lld, right=%lld: -1 is open, 0 and up",
                       (long long)pattern->left, (long long)pattern->right);
    bool sized = kind >= HEED_PATTERN_BLOCKS && kind <= HEED_PATTERN_SEGMENTS;
    if (pattern->size < sized || pattern->size > INT32_MAX)
        return hd_fail(HEED_ERROR_VALUE, "pattern.size=%lld is not %d to 2^31-1",
                       (long long)pattern->size, sized);
    if (kind == HEED_PATTERN_TAILS && (pattern->rate < 0 || pattern->rate > pattern->size))
        return hd_fail(HEED_ERROR_VALUE, "pattern.rate=%lld is not 0 to size=%lld",
                       (long long)pattern->rate, (long long)pattern->size);
    if (kind == HEED_PATTERN_SEGMENTS &&
        (pattern->rate < 1 || pattern->offset < 0 || pattern->offset >= pattern->rate))
        return hd_fail(HEED_ERROR_VALUE,
                       "pattern.rate=%lld, offset=%lld: a rate of at least 1, and "
                       "an offset below it",
                       (long long)pattern->rate, (long long)pattern->offset);
    return kind >= HEED_PATTERN_DOCUMENTS ? check_numbers(pattern) : HEED_OK;
}

heed_status_t heed_tiles_from_pattern(heed_context_t *context, const heed_tiles_grid_t *grid,
                                      const heed_pattern_t *patterns, int64_t count,
                                      heed_tile_list_t **tiles)
{
    heed_tiles_grid_t full;
    if (!context || !patterns || !tiles)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context    ? "context"
                       : !patterns ? "patterns"
                                   : "tiles");
    *tiles = NULL;
    HD_TRY(hd_grid_check(grid, &full));
    if (count != 1 && count != full.heads)
        return hd_fail(HEED_ERROR_SHAPE,
                       "count=%lld patterns: one, or one for each of the %lld heads",
                       (long long)count, (long long)full.heads);
    for (int64_t i = 0; i < count; i++) {
        if (patterns[i].struct_size != sizeof(*patterns))
            return hd_fail(HEED_ERROR_STRUCT_SIZE, "patterns[%lld].struct_size=%u, known is %zu",
                           (long long)i, patterns[i].struct_size, sizeof(*patterns));
        HD_TRY(check(&patterns[i]));
    }
    patterns_t all = {patterns, count};
    hd_tile_maker_t maker = {mark, tile, &all, kind};
    return hd_tiles_build(context, &full, &maker, tiles);
}
