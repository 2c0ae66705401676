#include "tiles.h"
#include "internal.h"
#include "mix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t check_sizes(const heed_tile_list_t *tiles, int64_t batch, int64_t heads,
                                 int64_t queries)
{
    if ((tiles->tile_q != 64 && tiles->tile_q != 128) ||
        (tiles->tile_k != 64 && tiles->tile_k != 128))
        return hd_fail(HEED_ERROR_VALUE, "tiles.tile_q=%d, tile_k=%d are not 64 or 128",
                       tiles->tile_q, tiles->tile_k);
    if ((tiles->batches != 1 && tiles->batches != batch) ||
        (tiles->heads != 1 && tiles->heads != heads))
        return hd_fail(HEED_ERROR_SHAPE, "tiles.batches=%lld, heads=%lld are not 1 or %lld, %lld",
                       (long long)tiles->batches, (long long)tiles->heads, (long long)batch,
                       (long long)heads);
    if (tiles->rows != hd_ceil_div(queries, tiles->tile_q))
        return hd_fail(HEED_ERROR_SHAPE, "tiles.rows=%lld: %lld queries make %lld tiles of %d",
                       (long long)tiles->rows, (long long)queries,
                       (long long)hd_ceil_div(queries, tiles->tile_q), tiles->tile_q);
    if (!tiles->row_start)
        return hd_fail(HEED_ERROR_NULL, "tiles.row_start is null");
    if (tiles->masks < 0)
        return hd_fail(HEED_ERROR_VALUE, "tiles.masks=%lld is negative", (long long)tiles->masks);
    return HEED_OK;
}

static heed_status_t check_row(const heed_tile_list_t *tiles, int64_t row, int64_t columns)
{
    int64_t last = -1;
    for (int64_t e = tiles->row_start[row]; e < tiles->row_start[row + 1]; e++) {
        int64_t column = tiles->column[e];
        if (column <= last || column >= columns)
            return hd_fail(HEED_ERROR_VALUE,
                           "tiles.column[%lld]=%lld: columns ascend within a row and end below "
                           "%lld",
                           (long long)e, (long long)column, (long long)columns);
        last = column;
        if (tiles->mask && (tiles->mask[e] < -1 || tiles->mask[e] >= tiles->masks))
            return hd_fail(HEED_ERROR_VALUE, "tiles.mask[%lld]=%d is not -1 to %lld", (long long)e,
                           tiles->mask[e], (long long)tiles->masks - 1);
    }
    return HEED_OK;
}

heed_status_t hd_tiles_check(const heed_tile_list_t *tiles, int64_t batch, int64_t heads,
                             int64_t queries, int64_t keys)
{
    if (tiles->struct_size < sizeof(*tiles))
        return hd_fail(HEED_ERROR_STRUCT_SIZE, "tiles.struct_size=%u, the smallest known is %zu",
                       tiles->struct_size, sizeof(*tiles));
    HD_TRY(check_sizes(tiles, batch, heads, queries));
    int64_t rows = tiles->batches * tiles->heads * tiles->rows;
    int64_t columns = hd_ceil_div(keys, tiles->tile_k);
    if (tiles->row_start[0] != 0)
        return hd_fail(HEED_ERROR_VALUE, "tiles.row_start[0]=%lld is not 0",
                       (long long)tiles->row_start[0]);
    for (int64_t row = 0; row < rows; row++)
        if (tiles->row_start[row + 1] < tiles->row_start[row])
            return hd_fail(HEED_ERROR_VALUE, "tiles.row_start[%lld]=%lld is below the one before",
                           (long long)row + 1, (long long)tiles->row_start[row + 1]);
    if (tiles->row_start[rows] > 0 && !tiles->column)
        return hd_fail(HEED_ERROR_NULL, "tiles.column is null");
    if (tiles->masks > 0 && tiles->mask && !tiles->bits)
        return hd_fail(HEED_ERROR_NULL, "tiles.bits is null");
    for (int64_t row = 0; row < rows; row++)
        HD_TRY(check_row(tiles, row, columns));
    return HEED_OK;
}

/* ---- counting -------------------------------------------------------------------------------- */

static double walk_pairs(const hd_visibility_t *visible, int64_t batch, int64_t head)
{
    double pairs = 0;
    for (int64_t first = 0; first < visible->queries; first += HD_BLOCK_ROWS) {
        uint64_t masks[HD_BLOCK_KEYS];
        hd_walk_t walk;
        hd_block_t block;
        int rows = (int)hd_min(visible->queries - first, HD_BLOCK_ROWS);
        hd_walk_begin(&walk, visible, batch, head, first, rows);
        while (hd_walk_next(&walk, &block)) {
            if (block.full) {
                pairs += (double)rows * block.count;
                continue;
            }
            hd_walk_masks(&walk, &block, masks);
            for (int j = 0; j < block.count; j++)
                pairs += __builtin_popcountll(masks[j]);
        }
    }
    return pairs;
}

double hd_visible_pairs(const hd_visibility_t *visible, int64_t batch, int64_t heads)
{
    double pairs = 0;
    if (!visible->tiles)
        return hd_band_pairs(visible) * (double)batch * (double)heads;
    int64_t batches = visible->tiles->batches, planes = visible->tiles->heads;
    for (int64_t b = 0; b < batches; b++)
        for (int64_t h = 0; h < planes; h++)
            pairs += walk_pairs(visible, b, h);
    return pairs * (double)(batch / hd_max(batches, 1)) * (double)(heads / hd_max(planes, 1));
}

/* ---- making from text ------------------------------------------------------------------------ */

typedef struct recipe {
    bool random;
    int64_t seed, percent, size;
    int tile_q, tile_k;
    bool each;
} recipe_t;

static uint64_t mix(uint64_t *state)
{
    return hd_mix(*state += HD_MIX_STEP);
}

static heed_status_t read_recipe(const char *text, recipe_t *recipe)
{
    char each[8] = "", end;
    long long seed, percent, size;
    recipe->random = sscanf(text, "random:%lld,%lld,%d,%d,%7[a-z]%c", &seed, &percent,
                            &recipe->tile_q, &recipe->tile_k, each, &end) == 5;
    if (recipe->random && percent >= 0 && percent <= 100 &&
        (strcmp(each, "shared") == 0 || strcmp(each, "each") == 0)) {
        recipe->seed = seed;
        recipe->percent = percent;
        recipe->each = strcmp(each, "each") == 0;
    } else if (!recipe->random &&
               sscanf(text, "blockdiag:%lld,%d,%d%c", &size, &recipe->tile_q, &recipe->tile_k,
                      &end) == 3 &&
               size > 0) {
        recipe->size = size;
    } else {
        return hd_fail(HEED_ERROR_VALUE,
                       "tiles=%s is not random:SEED,PERCENT,TQ,TK,shared|each, "
                       "blockdiag:SIZE,TQ,TK or text:VISIBILITY",
                       text);
    }
    if ((recipe->tile_q != 64 && recipe->tile_q != 128) ||
        (recipe->tile_k != 64 && recipe->tile_k != 128))
        return hd_fail(HEED_ERROR_VALUE, "tiles=%s: TQ and TK are 64 or 128", text);
    return HEED_OK;
}

/* Whether tile (row, column) is there; then *masked and, if so, its words. Called twice with the
 * same state, to count and to fill: bits may be NULL. */
static bool make_tile(const recipe_t *recipe, uint64_t *state, int64_t row, int64_t column,
                      bool *masked, uint64_t *bits)
{
    int words = recipe->tile_q / 64;
    if (recipe->random) {
        uint64_t draw = mix(state), seed = mix(state);
        *masked = draw >> 63;
        for (int i = 0; bits && i < recipe->tile_k * words; i++)
            bits[i] = mix(&seed);
        return (int64_t)(draw % 100) < recipe->percent;
    }
    int64_t seen = 0, q0 = row * recipe->tile_q, k0 = column * recipe->tile_k;
    for (int j = 0; j < recipe->tile_k; j++) {
        int64_t from = (k0 + j) / recipe->size * recipe->size, to = from + recipe->size;
        int64_t low = hd_min(hd_max(from - q0, 0), recipe->tile_q);
        int64_t high = hd_min(hd_max(to - q0, 0), recipe->tile_q);
        seen += high - low;
        for (int64_t i = 0; bits && i < recipe->tile_q; i++)
            bits[j * words + i / 64] |= (uint64_t)(i >= low && i < high) << i % 64;
    }
    *masked = seen < (int64_t)recipe->tile_q * recipe->tile_k;
    return seen > 0;
}

typedef struct arrays {
    int64_t *row_start;
    int32_t *column, *mask;
    uint64_t *bits;
    int64_t entries, masks;
} arrays_t;

/* Counts entries and masks; with arrays in place, fills them. */
static void build(const recipe_t *recipe, int64_t rows, int64_t rows_per_plane, int64_t columns,
                  arrays_t *to)
{
    int64_t words = (int64_t)recipe->tile_k * recipe->tile_q / 64;
    uint64_t state = (uint64_t)recipe->seed;
    to->entries = to->masks = 0;
    for (int64_t row = 0; row < rows; row++) {
        if (to->row_start)
            to->row_start[row] = to->entries;
        for (int64_t column = 0; column < columns; column++) {
            bool masked;
            uint64_t *bits = to->bits ? to->bits + to->masks * words : NULL;
            if (!make_tile(recipe, &state, row % rows_per_plane, column, &masked, bits)) {
                if (bits)
                    memset(bits, 0, (size_t)words * 8);
                continue;
            }
            if (to->column) {
                to->column[to->entries] = (int32_t)column;
                to->mask[to->entries] = masked ? (int32_t)to->masks : -1;
            }
            to->entries++;
            to->masks += masked;
            if (bits && !masked)
                memset(bits, 0, (size_t)words * 8);
        }
    }
    if (to->row_start)
        to->row_start[rows] = to->entries;
}

heed_status_t hd_tiles_parse(const char *text, int64_t batch, int64_t heads, int64_t queries,
                             int64_t keys, heed_tile_list_t **tiles)
{
    recipe_t recipe = {0};
    HD_TRY(read_recipe(text, &recipe));
    int64_t batches = recipe.each ? batch : 1, planes = recipe.each ? heads : 1;
    int64_t per_plane = hd_ceil_div(queries, recipe.tile_q);
    int64_t rows = batches * planes * per_plane, columns = hd_ceil_div(keys, recipe.tile_k);
    if ((double)batches * (double)planes * (double)per_plane * (double)columns > 1e8)
        return hd_fail(HEED_ERROR_VALUE, "tiles=%s: more than 100 million tiles", text);

    arrays_t to = {0};
    build(&recipe, rows, hd_max(per_plane, 1), columns, &to);
    /* One spare mask: a tile is drawn before it is known to be there. */
    size_t words = (size_t)(to.masks + 1) * (size_t)recipe.tile_k * (size_t)recipe.tile_q / 64;
    size_t entries = hd_round_up((size_t)to.entries, 2);
    heed_tile_list_t *made =
        calloc(1, hd_round_up(sizeof(*made), 8) + words * 8 + (size_t)(rows + 1) * 8 + entries * 8);
    if (!made)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %lld tiles", (long long)to.entries);
    to.bits = (uint64_t *)(void *)((char *)made + hd_round_up(sizeof(*made), 8));
    to.row_start = (int64_t *)(to.bits + words);
    to.column = (int32_t *)(to.row_start + rows + 1);
    to.mask = to.column + entries;
    build(&recipe, rows, hd_max(per_plane, 1), columns, &to);
    *made = (heed_tile_list_t){.struct_size = sizeof(*made),
                               .tile_q = recipe.tile_q,
                               .tile_k = recipe.tile_k,
                               .batches = batches,
                               .heads = planes,
                               .rows = per_plane,
                               .row_start = to.row_start,
                               .column = to.column,
                               .mask = to.mask,
                               .bits = to.bits,
                               .masks = to.masks};
    *tiles = made;
    return HEED_OK;
}

/* ---- placing --------------------------------------------------------------------------------- */

/* Where the arrays lie in the block, each on a line of its own. */
typedef struct places {
    size_t row_start, column, mask, bits, end;
} places_t;

static places_t find_places(const heed_tile_list_t *tiles)
{
    enum { LINE = 128 };
    places_t places;
    size_t rows = (size_t)(tiles->batches * tiles->heads * tiles->rows);
    size_t entries = (size_t)tiles->row_start[rows];
    size_t words = (size_t)tiles->tile_k * (size_t)(tiles->tile_q / 64);
    places.row_start = hd_round_up(sizeof(*tiles), LINE);
    places.column = places.row_start + hd_round_up((rows + 1) * sizeof(int64_t), LINE);
    places.mask = places.column + hd_round_up(entries * sizeof(int32_t), LINE);
    places.bits = places.mask + (tiles->mask ? hd_round_up(entries * sizeof(int32_t), LINE) : 0);
    places.end = places.bits;
    if (tiles->mask && tiles->bits)
        places.end += hd_round_up((size_t)tiles->masks * words * sizeof(uint64_t), LINE);
    return places;
}

size_t hd_tiles_placed_bytes(const heed_tile_list_t *tiles)
{
    return find_places(tiles).end;
}

void hd_tiles_place(const heed_tile_list_t *tiles, char *image, uintptr_t at)
{
    places_t places = find_places(tiles);
    size_t rows = (size_t)(tiles->batches * tiles->heads * tiles->rows);
    size_t entries = (size_t)tiles->row_start[rows];
    heed_tile_list_t copy = *tiles;
    copy.row_start = (const int64_t *)(at + places.row_start);
    copy.column = (const int32_t *)(at + places.column);
    copy.mask = tiles->mask ? (const int32_t *)(at + places.mask) : NULL;
    copy.bits = places.end > places.bits ? (const uint64_t *)(at + places.bits) : NULL;
    memset(image, 0, places.end);
    memcpy(image, &copy, sizeof(copy));
    memcpy(image + places.row_start, tiles->row_start, (rows + 1) * sizeof(int64_t));
    if (entries)
        memcpy(image + places.column, tiles->column, entries * sizeof(int32_t));
    if (entries && tiles->mask)
        memcpy(image + places.mask, tiles->mask, entries * sizeof(int32_t));
    if (copy.bits)
        memcpy(image + places.bits, tiles->bits,
               (size_t)tiles->masks * (size_t)tiles->tile_k * (size_t)(tiles->tile_q / 64) *
                   sizeof(uint64_t));
}
