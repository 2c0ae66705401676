/* Tile lists of tile lists: both, either, transposed; and what a list holds. */
#include "tiles_build.h"

#include <string.h>

/* Row of a list for a row of the grid; one batch or head stands for all. */
static int64_t row_number(const heed_tile_list_t *list, int64_t batch, int64_t head, int64_t row)
{
    int64_t plane = (list->batches > 1 ? batch : 0) * list->heads + (list->heads > 1 ? head : 0);
    return plane * list->rows + row;
}

static int64_t find(const heed_tile_list_t *list, int64_t row, int64_t column)
{
    int64_t end = list->row_start[row + 1];
    int64_t low = hd_lower_bound(list->column, list->row_start[row], end, column);
    return low < end && list->column[low] == column ? low : -1;
}

/* Words of an entry's mask, NULL: full. */
static const uint64_t *mask_of(const heed_tile_list_t *list, int64_t entry)
{
    int64_t words = (int64_t)list->tile_k * (list->tile_q / 64);
    if (!list->mask || list->mask[entry] < 0)
        return NULL;
    return list->bits + list->mask[entry] * words;
}

/* ---- and, or --------------------------------------------------------------------------------- */

typedef struct pair {
    const heed_tile_list_t *a, *b;
    bool both;
} pair_t;

static void pair_mark(const void *maker, hd_tile_row_t *row)
{
    const pair_t *pair = maker;
    int64_t a = row_number(pair->a, row->batch, row->head, row->row);
    int64_t b = row_number(pair->b, row->batch, row->head, row->row);
    for (int64_t e = pair->a->row_start[a]; e < pair->a->row_start[a + 1]; e++)
        if (!pair->both || find(pair->b, b, pair->a->column[e]) >= 0)
            hd_row_mark(row, pair->a->column[e]);
    for (int64_t e = pair->b->row_start[b]; !pair->both && e < pair->b->row_start[b + 1]; e++)
        hd_row_mark(row, pair->b->column[e]);
}

static bool pair_tile(const void *maker, const hd_tile_row_t *row, int64_t column, uint64_t *bits)
{
    const pair_t *pair = maker;
    const heed_tile_list_t *lists[] = {pair->a, pair->b};
    int64_t words = hd_grid_words(row->grid);
    if (pair->both)
        memset(bits, 0xff, (size_t)words * 8);
    for (int l = 0; l < 2; l++) {
        int64_t at = row_number(lists[l], row->batch, row->head, row->row);
        int64_t entry = find(lists[l], at, column);
        if (entry < 0)
            continue;
        const uint64_t *mask = mask_of(lists[l], entry);
        if (!mask && !pair->both)
            return true;
        for (int64_t w = 0; mask && w < words; w++)
            bits[w] = pair->both ? bits[w] & mask[w] : bits[w] | mask[w];
    }
    return false;
}

/* Tiles of which both lists say the same; not those that an end of the grid cuts. */
static int64_t pair_kind(const void *maker, const hd_tile_row_t *row, int64_t column)
{
    const pair_t *pair = maker;
    const heed_tile_list_t *lists[] = {pair->a, pair->b};
    int64_t kind = 0;
    if (row->queries < row->grid->tile_q || (column + 1) * row->grid->tile_k > row->grid->keys)
        return -1;
    for (int l = 0; l < 2; l++) {
        int64_t entry =
            find(lists[l], row_number(lists[l], row->batch, row->head, row->row), column);
        int64_t mask = entry < 0 ? -2 : lists[l]->mask ? lists[l]->mask[entry] : -1;
        kind = (kind << 31) + mask + 2;
    }
    return kind;
}

static heed_status_t check_list(const heed_tiles_grid_t *grid, const heed_tile_list_t *list,
                                const char *name)
{
    if (!list)
        return hd_fail(HEED_ERROR_NULL, "%s is null", name);
    HD_TRY(hd_tiles_check(list, grid->batches, grid->heads, grid->queries, grid->keys));
    if (list->tile_q != grid->tile_q || list->tile_k != grid->tile_k)
        return hd_fail(HEED_ERROR_VALUE, "%s has tiles of %d x %d, grid has %d x %d", name,
                       list->tile_q, list->tile_k, grid->tile_q, grid->tile_k);
    return HEED_OK;
}

static heed_status_t combine(heed_context_t *context, const heed_tiles_grid_t *grid,
                             const pair_t *pair, heed_tile_list_t **tiles)
{
    heed_tiles_grid_t full;
    if (!context || !tiles)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "tiles" : "context");
    *tiles = NULL;
    HD_TRY(hd_grid_check(grid, &full));
    HD_TRY(check_list(&full, pair->a, "a"));
    HD_TRY(check_list(&full, pair->b, "b"));
    hd_tile_maker_t maker = {pair_mark, pair_tile, pair, pair_kind};
    return hd_tiles_build(context, &full, &maker, tiles);
}

heed_status_t heed_tiles_and(heed_context_t *context, const heed_tiles_grid_t *grid,
                             const heed_tile_list_t *a, const heed_tile_list_t *b,
                             heed_tile_list_t **tiles)
{
    return combine(context, grid, &(pair_t){a, b, true}, tiles);
}

heed_status_t heed_tiles_or(heed_context_t *context, const heed_tiles_grid_t *grid,
                            const heed_tile_list_t *a, const heed_tile_list_t *b,
                            heed_tile_list_t **tiles)
{
    return combine(context, grid, &(pair_t){a, b, false}, tiles);
}

/* ---- transposing ----------------------------------------------------------------------------- */

/* The entries of `from` in the order of their columns: [start of column c] .. one number an entry.
 */
typedef struct turned {
    const heed_tile_list_t *from;
    int64_t columns;
    int64_t *start; /* [planes*columns + 1] */
    int32_t *row;   /* [entries] row of the entry within its plane, ascending within a column */
    int64_t *entry; /* [entries] */
} turned_t;

static void turned_mark(const void *maker, hd_tile_row_t *row)
{
    const turned_t *turned = maker;
    int64_t at = row->plane * turned->columns + row->row;
    for (int64_t e = turned->start[at]; e < turned->start[at + 1]; e++)
        hd_row_mark(row, turned->row[e]);
}

static bool turned_tile(const void *maker, const hd_tile_row_t *row, int64_t column, uint64_t *bits)
{
    const turned_t *turned = maker;
    int64_t at = row->plane * turned->columns + row->row;
    int64_t low = hd_lower_bound(turned->row, turned->start[at], turned->start[at + 1], column);
    const uint64_t *mask = mask_of(turned->from, turned->entry[low]);
    if (!mask)
        return true;
    /* `from` has words of queries for each key; here queries and keys have changed places. */
    int keys = row->grid->tile_k / 64, queries = row->grid->tile_q / 64;
    for (int k = 0; k < keys; k++) {
        for (int q = 0; q < queries; q++) {
            uint64_t square[64];
            for (int i = 0; i < 64; i++)
                square[i] = mask[(q * 64 + i) * keys + k];
            hd_transpose_bits(square);
            for (int j = 0; j < 64; j++)
                bits[(k * 64 + j) * queries + q] = square[j];
        }
    }
    return false;
}

/* A counting sort of the entries by column. */
static void turn(turned_t *turned, int64_t planes)
{
    const heed_tile_list_t *from = turned->from;
    int64_t columns = turned->columns, total = planes * columns;
    memset(turned->start, 0, (size_t)(total + 1) * 8);
    for (int64_t p = 0; p < planes; p++)
        for (int64_t e = from->row_start[p * from->rows]; e < from->row_start[(p + 1) * from->rows];
             e++)
            turned->start[p * columns + from->column[e] + 1]++;
    for (int64_t c = 0; c < total; c++)
        turned->start[c + 1] += turned->start[c];
    for (int64_t p = 0; p < planes; p++) {
        for (int64_t r = 0; r < from->rows; r++) {
            int64_t row = p * from->rows + r;
            for (int64_t e = from->row_start[row]; e < from->row_start[row + 1]; e++) {
                int64_t to = turned->start[p * columns + from->column[e]]++;
                turned->row[to] = (int32_t)r;
                turned->entry[to] = e;
            }
        }
    }
    memmove(turned->start + 1, turned->start, (size_t)total * 8);
    turned->start[0] = 0;
}

heed_status_t heed_tiles_transpose(heed_context_t *context, const heed_tiles_grid_t *grid,
                                   const heed_tile_list_t *from, heed_tile_list_t **tiles)
{
    heed_tiles_grid_t full;
    if (!context || !tiles)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "tiles" : "context");
    *tiles = NULL;
    HD_TRY(hd_grid_check(grid, &full));
    HD_TRY(check_list(&full, from, "from"));
    heed_tiles_grid_t back = full;
    back.tile_q = full.tile_k, back.tile_k = full.tile_q;
    back.queries = full.keys, back.keys = full.queries;
    back.batches = from->batches, back.heads = from->heads;

    int64_t planes = from->batches * from->heads, entries = from->row_start[planes * from->rows];
    turned_t turned = {.from = from, .columns = hd_grid_rows(&back)};
    size_t starts = (size_t)(planes * turned.columns + 1);
    char *memory = hd_alloc(context, starts * 8 + (size_t)entries * 12);
    if (!memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory to sort %lld tiles",
                       (long long)entries);
    turned.start = (int64_t *)(void *)memory;
    turned.entry = turned.start + starts;
    turned.row = (int32_t *)(void *)(turned.entry + entries);
    turn(&turned, planes);
    hd_tile_maker_t maker = {turned_mark, turned_tile, &turned, NULL};
    heed_status_t status = hd_tiles_build(context, &back, &maker, tiles);
    hd_free(context, memory);
    return status;
}

/* ---- counting -------------------------------------------------------------------------------- */

static double pairs_of(const heed_tiles_grid_t *grid, const heed_tile_list_t *list, int64_t row,
                       int64_t entry)
{
    int words = grid->tile_q / 64;
    int64_t queries = hd_min(grid->queries - row * grid->tile_q, grid->tile_q);
    int64_t keys = hd_min(grid->keys - (int64_t)list->column[entry] * grid->tile_k, grid->tile_k);
    const uint64_t *mask = mask_of(list, entry);
    int64_t pairs = 0;
    if (!mask)
        return (double)(queries * keys);
    for (int64_t j = 0; j < keys; j++)
        for (int w = 0; w < words; w++)
            pairs +=
                __builtin_popcountll(mask[j * words + w] & hd_bits_between(0, queries, w * 64));
    return (double)pairs;
}

heed_status_t heed_tiles_count(const heed_tiles_grid_t *grid, const heed_tile_list_t *tiles,
                               heed_tiles_count_t *count)
{
    heed_tiles_grid_t full;
    heed_tiles_count_t sum = {0};
    if (!count)
        return hd_fail(HEED_ERROR_NULL, "count is null");
    HD_TRY(hd_grid_check(grid, &full));
    HD_TRY(check_list(&full, tiles, "tiles"));
    int64_t planes = tiles->batches * tiles->heads;
    for (int64_t row = 0; row < planes * tiles->rows; row++) {
        int64_t first = tiles->row_start[row], end = tiles->row_start[row + 1];
        sum.tiles += end - first;
        sum.empty_rows += first == end;
        for (int64_t e = first; e < end; e++) {
            sum.full += !mask_of(tiles, e);
            sum.pairs += pairs_of(&full, tiles, row % tiles->rows, e);
        }
    }
    double all = (double)planes * (double)full.queries * (double)full.keys;
    double places = (double)(planes * tiles->rows) * (double)hd_grid_columns(&full);
    sum.density = all > 0 ? sum.pairs / all : 0;
    sum.tile_density = places > 0 ? (double)sum.tiles / places : 0;
    *count = sum;
    return HEED_OK;
}

heed_status_t heed_density_from_sparsity(heed_sparsity_t meaning, double ratio, int64_t keys,
                                         double *density)
{
    if (!density)
        return hd_fail(HEED_ERROR_NULL, "density is null");
    if ((int)meaning < 0 || meaning > HEED_SPARSITY_KEYS_PER_ROW)
        return hd_fail(HEED_ERROR_VALUE, "meaning=%d is no heed_sparsity_t", (int)meaning);
    if (meaning == HEED_SPARSITY_KEYS_PER_ROW && keys < 1)
        return hd_fail(HEED_ERROR_VALUE, "keys=%lld is not 1 or more", (long long)keys);
    double kept = meaning == HEED_SPARSITY_KEPT      ? ratio
                  : meaning == HEED_SPARSITY_REMOVED ? 1 - ratio
                                                     : ratio / (double)keys;
    if (!(kept > 0 && kept <= 1))
        return hd_fail(HEED_ERROR_VALUE, "ratio=%g keeps a fraction of %g, which is not in (0, 1]",
                       ratio, kept);
    *density = kept;
    return HEED_OK;
}
