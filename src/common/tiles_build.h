/* Building tile lists: a maker says, row by row, which tiles there are; the engine runs rows on a
 * team, keeps what they say and lays it out as one list. */
#ifndef HD_TILES_BUILD_H
#define HD_TILES_BUILD_H

#include "internal.h"
#include "tiles.h"

/* One row of tiles while its maker works. A maker marks the columns that may hold something, in any
 * order, and then is asked for the bits of each; or it appends tiles itself, columns ascending. */
typedef struct hd_tile_row {
    const heed_tiles_grid_t *grid;
    int64_t batch, head, plane, row; /* plane = batch * grid->heads + head */
    int64_t first;                   /* query, and how many the row has */
    int queries;
    int64_t columns; /* tiles of keys there are */
    uint64_t *marks; /* [ceil(columns/64)] zero when the maker starts */
    struct hd_tile_chunk *chunk;
} hd_tile_row_t;

typedef struct hd_tile_maker {
    /* Marks columns and appends full tiles. */
    void (*row)(const void *maker, hd_tile_row_t *row);
    /* The words of a marked tile, [tile_k][tile_q/64], zero when called. Returns whether it is
     * full, whatever the bits say then. NULL: every marked tile is full. */
    bool (*tile)(const void *maker, const hd_tile_row_t *row, int64_t column, uint64_t *bits);
    const void *maker;
    /* A number that says what a marked tile's bits are: tiles of the same number in the rows of one
     * plane are alike, and one of them is asked for its bits. -1: there is no such number. NULL: of
     * no tile. */
    int64_t (*kind)(const void *maker, const hd_tile_row_t *row, int64_t column);
} hd_tile_maker_t;

/* Checks a caller's grid and copies it. */
heed_status_t hd_grid_check(const heed_tiles_grid_t *from, heed_tiles_grid_t *grid);

heed_status_t hd_tiles_build(const heed_context_t *context, const heed_tiles_grid_t *grid,
                             const hd_tile_maker_t *maker, heed_tile_list_t **tiles);

/* The first of the ascending column[low .. high-1] that is at least `value`, high if none is. */
static inline int64_t hd_lower_bound(const int32_t *column, int64_t low, int64_t high,
                                     int64_t value)
{
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (column[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static inline void hd_row_mark(hd_tile_row_t *row, int64_t column)
{
    row->marks[column / 64] |= UINT64_C(1) << column % 64;
}

/* Marks the columns of the keys from .. end-1. */
void hd_row_mark_keys(hd_tile_row_t *row, int64_t from, int64_t end);

/* Bit j of word i and bit i of word j change places, 64 words. */
void hd_transpose_bits(uint64_t *words);

static inline int64_t hd_grid_rows(const heed_tiles_grid_t *grid)
{
    return hd_ceil_div(grid->queries, grid->tile_q);
}

static inline int64_t hd_grid_columns(const heed_tiles_grid_t *grid)
{
    return hd_ceil_div(grid->keys, grid->tile_k);
}

/* Words of one mask. */
static inline int64_t hd_grid_words(const heed_tiles_grid_t *grid)
{
    return (int64_t)grid->tile_k * (grid->tile_q / 64);
}

/* Ones at `from` .. `end`-1, of 64 bits that start at number `first`. */
static inline uint64_t hd_bits_between(int64_t from, int64_t end, int64_t first)
{
    int64_t low = hd_min(hd_max(from - first, 0), 64), high = hd_min(hd_max(end - first, 0), 64);
    if (low >= high)
        return 0;
    return (high == 64 ? ~UINT64_C(0) : (UINT64_C(1) << high) - 1) & ~((UINT64_C(1) << low) - 1);
}

#endif
