/* The engine behind every tile list: rows in chunks on a team, then one block. */
#include "tiles_build.h"

#include "loop.h"
#include "mix.h"

#include <string.h>

enum { CHUNK_ROWS = 16, MOST_THREADS = 64, KNOWN_BITS = 6, KNOWN = 1 << KNOWN_BITS };

/* Instead of the number of a mask. */
enum { NO_MASK = -1, NO_TILE = -2 };

/* What tiles of a kind came to. */
typedef struct known {
    int64_t kind; /* -1: nothing is known */
    int32_t mask;
} known_t;

/* What the rows of one chunk said. Arrays grow by doubling. */
typedef struct hd_tile_chunk {
    const heed_context_t *context;
    int64_t words; /* of a mask */
    int32_t *column, *mask;
    uint64_t *bits;
    int64_t entries, entries_room, masks, masks_room;
    int64_t ends[CHUNK_ROWS]; /* entries up to the end of each row */
    bool failed;              /* no memory */
    known_t known[KNOWN];     /* of the plane that its rows are at */
} chunk_t;

typedef struct build {
    const heed_context_t *context;
    const heed_tiles_grid_t *grid;
    const hd_tile_maker_t *maker;
    chunk_t *chunks;
    int64_t rows, count, columns; /* rows of all planes, chunks, tiles of keys */
    uint64_t *scratch;            /* per worker: marks, then bits */
    int64_t scratch_words;
    heed_tile_list_t *made;
    int64_t *first_entry, *first_mask; /* of each chunk */
} build_t;

heed_status_t hd_grid_check(const heed_tiles_grid_t *from, heed_tiles_grid_t *grid)
{
    if (!from)
        return hd_fail(HEED_ERROR_NULL, "grid is null");
    HD_TRY(hd_struct_copy(grid, sizeof(*grid), from, sizeof(*grid), "grid"));
    if ((grid->tile_q != 64 && grid->tile_q != 128) || (grid->tile_k != 64 && grid->tile_k != 128))
        return hd_fail(HEED_ERROR_VALUE, "grid.tile_q=%d, tile_k=%d are not 64 or 128",
                       grid->tile_q, grid->tile_k);
    if (grid->queries < 0 || grid->keys < 0 || grid->queries > INT32_MAX || grid->keys > INT32_MAX)
        return hd_fail(HEED_ERROR_SHAPE, "grid.queries=%lld, keys=%lld are not 0 to 2^31-1",
                       (long long)grid->queries, (long long)grid->keys);
    int64_t planes, rows;
    if (grid->batches < 1 || grid->heads < 1 || !hd_mul(grid->batches, grid->heads, &planes) ||
        !hd_mul(planes, hd_max(hd_grid_rows(grid), 1), &rows) || rows > INT64_MAX / 64)
        return hd_fail(HEED_ERROR_SHAPE,
                       "grid.batches=%lld, heads=%lld: each at least 1, and "
                       "rows that can be counted",
                       (long long)grid->batches, (long long)grid->heads);
    return HEED_OK;
}

/* ---- a row's tiles --------------------------------------------------------------------------- */

/* A larger copy of an array, NULL without memory: then the old one stays. */
static void *grown(const chunk_t *chunk, void *array, int64_t used, int64_t room, size_t bytes)
{
    void *more = hd_alloc(chunk->context, (size_t)room * bytes);
    if (more && used)
        memcpy(more, array, (size_t)used * bytes);
    if (more)
        hd_free(chunk->context, array);
    return more;
}

static bool room_for_entry(chunk_t *chunk)
{
    if (chunk->entries < chunk->entries_room)
        return true;
    int64_t room = hd_max(chunk->entries_room * 2, 64);
    int32_t *column = grown(chunk, chunk->column, chunk->entries, room, sizeof(int32_t));
    chunk->column = column ? column : chunk->column;
    int32_t *mask =
        column ? grown(chunk, chunk->mask, chunk->entries, room, sizeof(int32_t)) : NULL;
    chunk->mask = mask ? mask : chunk->mask;
    chunk->entries_room = mask ? room : chunk->entries_room;
    return mask;
}

static bool room_for_mask(chunk_t *chunk)
{
    if (chunk->masks < chunk->masks_room)
        return true;
    int64_t room = hd_max(chunk->masks_room * 2, 8);
    uint64_t *bits = grown(chunk, chunk->bits, chunk->masks, room, (size_t)chunk->words * 8);
    chunk->bits = bits ? bits : chunk->bits;
    chunk->masks_room = bits ? room : chunk->masks_room;
    return bits;
}

/* The number of a mask of these bits, that of the last one where it has the same: neighbours along
 * a diagonal do. */
static int32_t number_mask(chunk_t *chunk, const uint64_t *bits)
{
    size_t bytes = (size_t)chunk->words * 8;
    int64_t mask = chunk->masks - 1;
    if (mask >= 0 && memcmp(chunk->bits + mask * chunk->words, bits, bytes) == 0)
        return (int32_t)mask;
    if (!room_for_mask(chunk)) {
        chunk->failed = true;
        return NO_MASK;
    }
    mask = chunk->masks++;
    memcpy(chunk->bits + mask * chunk->words, bits, bytes);
    return (int32_t)mask;
}

static void append(chunk_t *chunk, int64_t column, int32_t mask)
{
    if (!room_for_entry(chunk)) {
        chunk->failed = true;
        return;
    }
    chunk->column[chunk->entries] = (int32_t)column;
    chunk->mask[chunk->entries++] = mask;
}

void hd_row_mark_keys(hd_tile_row_t *row, int64_t from, int64_t end)
{
    from = hd_max(from, 0), end = hd_min(end, row->grid->keys);
    if (from >= end)
        return;
    int64_t first = from / row->grid->tile_k, last = (end - 1) / row->grid->tile_k;
    for (int64_t word = first / 64; word <= last / 64; word++)
        row->marks[word] |= hd_bits_between(first, last + 1, word * 64);
}

enum { EMPTY, PARTIAL, FULL };

/* What the bits of a tile's own queries and keys say; bits beyond them are cleared. */
static int classify(const hd_tile_row_t *row, int64_t column, uint64_t *bits)
{
    const heed_tiles_grid_t *grid = row->grid;
    int words = grid->tile_q / 64;
    int64_t keys = hd_min(grid->keys - column * grid->tile_k, grid->tile_k);
    uint64_t any = 0, missing = 0;
    for (int w = 0; w < words; w++) {
        uint64_t own = hd_bits_between(0, row->queries, w * 64);
        for (int64_t j = 0; j < grid->tile_k; j++) {
            uint64_t *at = &bits[j * words + w];
            *at &= j < keys ? own : 0;
            any |= *at;
            missing |= j < keys ? own & ~*at : 0;
        }
    }
    return !any ? EMPTY : missing ? PARTIAL : FULL;
}

/* What a tile comes to: the number of its mask, NO_MASK where it is full, NO_TILE. */
static int32_t judge(const build_t *build, const hd_tile_row_t *row, int64_t column, uint64_t *bits)
{
    const hd_tile_maker_t *maker = build->maker;
    if (!maker->tile)
        return NO_MASK;
    memset(bits, 0, (size_t)hd_grid_words(build->grid) * 8);
    if (maker->tile(maker->maker, row, column, bits))
        return NO_MASK;
    int is = classify(row, column, bits);
    return is == EMPTY ? NO_TILE : is == FULL ? NO_MASK : number_mask(row->chunk, bits);
}

/* The same, looked up where a tile of its kind was judged before. */
static int32_t look_up(const build_t *build, const hd_tile_row_t *row, int64_t column,
                       uint64_t *bits)
{
    const hd_tile_maker_t *maker = build->maker;
    int64_t kind = maker->kind ? maker->kind(maker->maker, row, column) : -1;
    if (kind < 0)
        return judge(build, row, column, bits);
    known_t *known = &row->chunk->known[(uint64_t)kind * HD_MIX_STEP >> (64 - KNOWN_BITS)];
    if (known->kind != kind)
        *known = (known_t){kind, judge(build, row, column, bits)};
    return known->mask;
}

static void take_marked(const build_t *build, hd_tile_row_t *row, uint64_t *bits)
{
    for (int64_t word = 0; word * 64 < row->columns; word++) {
        for (uint64_t left = row->marks[word]; left && !row->chunk->failed; left &= left - 1) {
            int64_t column = word * 64 + __builtin_ctzll(left);
            int32_t mask = look_up(build, row, column, bits);
            if (mask != NO_TILE)
                append(row->chunk, column, mask);
        }
    }
}

/* Kinds are those of one plane. */
static void forget(chunk_t *chunk)
{
    for (int i = 0; i < KNOWN; i++)
        chunk->known[i].kind = -1;
}

static void run_chunk(void *at, int worker, int64_t number)
{
    build_t *build = at;
    const heed_tiles_grid_t *grid = build->grid;
    chunk_t *chunk = &build->chunks[number];
    int64_t per_plane = hd_grid_rows(grid), mark_words = hd_ceil_div(build->columns, 64);
    uint64_t *marks = build->scratch + worker * build->scratch_words;
    chunk->context = build->context;
    chunk->words = hd_grid_words(grid);
    for (int i = 0; i < CHUNK_ROWS; i++) {
        int64_t at_row = number * CHUNK_ROWS + i;
        if (i == 0 || at_row % per_plane == 0)
            forget(chunk);
        if (at_row >= build->rows)
            break;
        hd_tile_row_t row = {.grid = grid, .columns = build->columns, .marks = marks};
        row.plane = at_row / per_plane;
        row.batch = row.plane / grid->heads;
        row.head = row.plane % grid->heads;
        row.row = at_row % per_plane;
        row.first = row.row * grid->tile_q;
        row.queries = (int)hd_min(grid->queries - row.first, grid->tile_q);
        row.chunk = chunk;
        memset(marks, 0, (size_t)mark_words * 8);
        build->maker->row(build->maker->maker, &row);
        take_marked(build, &row, marks + mark_words);
        chunk->ends[i] = chunk->entries;
    }
}

/* ---- laying out ------------------------------------------------------------------------------ */

static void place_chunk(void *at, int worker, int64_t number)
{
    build_t *build = at;
    const chunk_t *chunk = &build->chunks[number];
    heed_tile_list_t *made = build->made;
    int64_t entry = build->first_entry[number], mask = build->first_mask[number];
    int64_t *row_start = (int64_t *)(uintptr_t)made->row_start;
    int32_t *masks = (int32_t *)(uintptr_t)made->mask;
    (void)worker;
    for (int64_t i = 0; i < CHUNK_ROWS && number * CHUNK_ROWS + i < build->rows; i++)
        row_start[number * CHUNK_ROWS + i + 1] = entry + chunk->ends[i];
    for (int64_t i = 0; i < chunk->entries; i++)
        masks[entry + i] = chunk->mask[i] < 0 ? -1 : (int32_t)(chunk->mask[i] + mask);
    if (chunk->entries)
        memcpy((int32_t *)(uintptr_t)made->column + entry, chunk->column,
               (size_t)chunk->entries * sizeof(int32_t));
    if (chunk->masks)
        memcpy((uint64_t *)(uintptr_t)made->bits + mask * chunk->words, chunk->bits,
               (size_t)(chunk->masks * chunk->words) * 8);
}

static heed_status_t out_of_memory(const build_t *build)
{
    return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for the tile list of %lld rows of tiles",
                   (long long)build->rows);
}

/* One block: struct, bits, row starts, columns, mask numbers. */
static heed_status_t lay_out(build_t *build)
{
    const heed_tiles_grid_t *grid = build->grid;
    int64_t entries = 0, masks = 0, words = hd_grid_words(grid);
    for (int64_t i = 0; i < build->count; i++) {
        if (build->chunks[i].failed)
            return out_of_memory(build);
        build->first_entry[i] = entries;
        build->first_mask[i] = masks;
        entries += build->chunks[i].entries;
        masks += build->chunks[i].masks;
    }
    if (masks > INT32_MAX)
        return hd_fail(HEED_ERROR_SHAPE, "the list needs %lld masks: at most 2^31-1",
                       (long long)masks);
    size_t head = hd_round_up(sizeof(heed_tile_list_t), 64);
    size_t room = hd_round_up((size_t)entries + 1, 16);
    char *at = hd_alloc(build->context, head + (size_t)(masks * words) * 8 +
                                            (size_t)(build->rows + 1) * 8 + 2 * room * 4);
    if (!at)
        return out_of_memory(build);
    heed_tile_list_t *made = (heed_tile_list_t *)(void *)at;
    uint64_t *bits = (uint64_t *)(void *)(at + head);
    int64_t *row_start = (int64_t *)(void *)(bits + masks * words);
    int32_t *column = (int32_t *)(void *)(row_start + build->rows + 1);
    *made = (heed_tile_list_t){.struct_size = sizeof(*made),
                               .tile_q = grid->tile_q,
                               .tile_k = grid->tile_k,
                               .batches = grid->batches,
                               .heads = grid->heads,
                               .rows = hd_grid_rows(grid),
                               .row_start = row_start,
                               .column = column,
                               .mask = column + room,
                               .bits = bits,
                               .masks = masks};
    row_start[0] = 0;
    build->made = made;
    return HEED_OK;
}

static heed_status_t run(build_t *build, int threads)
{
    hd_loop(threads, build->count, run_chunk, build);
    HD_TRY(lay_out(build));
    hd_loop(threads, build->count, place_chunk, build);
    return HEED_OK;
}

heed_status_t hd_tiles_build(const heed_context_t *context, const heed_tiles_grid_t *grid,
                             const hd_tile_maker_t *maker, heed_tile_list_t **tiles)
{
    build_t build = {.context = context, .grid = grid, .maker = maker};
    int threads = (int)hd_min(context->devices[0].threads, MOST_THREADS);
    build.rows = grid->batches * grid->heads * hd_grid_rows(grid);
    build.columns = hd_grid_columns(grid);
    build.count = hd_ceil_div(build.rows, CHUNK_ROWS);
    build.scratch_words =
        (int64_t)hd_round_up((size_t)(hd_ceil_div(build.columns, 64) + hd_grid_words(grid)), 8);

    size_t chunk_bytes = (size_t)build.count * sizeof(chunk_t);
    size_t bytes =
        chunk_bytes + (size_t)build.count * 16 + (size_t)(threads * build.scratch_words) * 8;
    char *memory = hd_alloc(context, bytes + 1);
    if (!memory)
        return out_of_memory(&build);
    memset(memory, 0, chunk_bytes);
    build.chunks = (chunk_t *)(void *)memory;
    build.first_entry = (int64_t *)(void *)(memory + chunk_bytes);
    build.first_mask = build.first_entry + build.count;
    build.scratch = (uint64_t *)(build.first_mask + build.count);

    heed_status_t status = run(&build, threads);
    for (int64_t i = 0; i < build.count; i++) {
        hd_free(context, build.chunks[i].column);
        hd_free(context, build.chunks[i].mask);
        hd_free(context, build.chunks[i].bits);
    }
    hd_free(context, memory);
    *tiles = build.made;
    return status;
}

void heed_tiles_free(const heed_context_t *context, heed_tile_list_t *tiles)
{
    if (context)
        hd_free(context, tiles);
}
