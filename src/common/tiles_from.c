/* Tile lists of masks and of compressed rows. */
#include "tiles_build.h"

#include <string.h>

/* Bit j of word i <-> bit i of word j: halves of blocks change places, from 32 down to 1. */
void hd_transpose_bits(uint64_t *words)
{
    uint64_t low = UINT64_C(0x00000000ffffffff);
    for (int width = 32; width; width /= 2, low ^= low << width) {
        for (int i = 0; i < 64; i = ((i | width) + 1) & ~width) {
            uint64_t swap = ((words[i] >> width) ^ words[i | width]) & low;
            words[i] ^= swap << width;
            words[i | width] ^= swap;
        }
    }
}

/* ---- a mask of bits -------------------------------------------------------------------------- */

typedef struct dense {
    const uint64_t *bits;
    int64_t stride; /* words of a query */
} dense_t;

static const uint64_t *dense_row(const dense_t *dense, const hd_tile_row_t *row, int64_t query)
{
    return dense->bits + (row->plane * row->grid->queries + query) * dense->stride;
}

static void dense_mark(const void *maker, hd_tile_row_t *row)
{
    const dense_t *dense = maker;
    int per_tile = row->grid->tile_k / 64;
    for (int i = 0; i < row->queries; i++) {
        const uint64_t *at = dense_row(dense, row, row->first + i);
        for (int64_t word = 0; word < dense->stride; word++)
            if (at[word])
                hd_row_mark(row, word / per_tile);
    }
}

static bool dense_tile(const void *maker, const hd_tile_row_t *row, int64_t column, uint64_t *bits)
{
    const dense_t *dense = maker;
    const heed_tiles_grid_t *grid = row->grid;
    int words = grid->tile_q / 64, per_tile = grid->tile_k / 64;
    for (int k = 0; k < per_tile && column * per_tile + k < dense->stride; k++) {
        for (int w = 0; w < words; w++) {
            uint64_t square[64] = {0};
            for (int i = 0; i < 64 && w * 64 + i < row->queries; i++)
                square[i] = dense_row(dense, row, row->first + w * 64 + i)[column * per_tile + k];
            hd_transpose_bits(square);
            for (int j = 0; j < 64; j++)
                bits[(k * 64 + j) * words + w] = square[j];
        }
    }
    return false;
}

static heed_status_t check_context(const heed_context_t *context, const void *data,
                                   const char *name, heed_tile_list_t **tiles)
{
    if (!context || !data || !tiles)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context ? "context"
                       : !data  ? name
                                : "tiles");
    *tiles = NULL;
    return HEED_OK;
}

heed_status_t heed_tiles_from_bits(heed_context_t *context, const heed_tiles_grid_t *grid,
                                   const uint64_t *bits, heed_tile_list_t **tiles)
{
    heed_tiles_grid_t full;
    HD_TRY(check_context(context, bits, "bits", tiles));
    HD_TRY(hd_grid_check(grid, &full));
    dense_t dense = {bits, hd_ceil_div(full.keys, 64)};
    hd_tile_maker_t maker = {dense_mark, dense_tile, &dense, NULL};
    return hd_tiles_build(context, &full, &maker, tiles);
}

/* ---- compressed rows of blocks --------------------------------------------------------------- */

typedef struct blocks {
    int64_t block_q, block_k, rows; /* rows of a plane */
    const int64_t *row_start;
    const int32_t *column;
} blocks_t;

static void blocks_mark(const void *maker, hd_tile_row_t *row)
{
    const blocks_t *blocks = maker;
    int64_t last = row->first + row->queries - 1;
    for (int64_t r = row->first / blocks->block_q; r <= last / blocks->block_q; r++) {
        const int64_t *start = blocks->row_start + row->plane * blocks->rows + r;
        for (int64_t e = start[0]; e < start[1]; e++)
            hd_row_mark_keys(row, blocks->column[e] * blocks->block_k,
                             (blocks->column[e] + 1) * blocks->block_k);
    }
}

static bool blocks_tile(const void *maker, const hd_tile_row_t *row, int64_t column, uint64_t *bits)
{
    const blocks_t *blocks = maker;
    const heed_tiles_grid_t *grid = row->grid;
    int words = grid->tile_q / 64;
    int64_t key = column * grid->tile_k, key_end = hd_min(key + grid->tile_k, grid->keys);
    int64_t last = row->first + row->queries - 1;
    for (int64_t r = row->first / blocks->block_q; r <= last / blocks->block_q; r++) {
        const int64_t *start = blocks->row_start + row->plane * blocks->rows + r;
        int64_t from = r * blocks->block_q - row->first, end = from + blocks->block_q;
        int64_t e = hd_lower_bound(blocks->column, start[0], start[1], key / blocks->block_k);
        for (; e < start[1] && blocks->column[e] * blocks->block_k < key_end; e++) {
            int64_t j = hd_max(blocks->column[e] * blocks->block_k, key) - key;
            int64_t j_end = hd_min((blocks->column[e] + 1) * blocks->block_k, key_end) - key;
            for (; j < j_end; j++)
                for (int w = 0; w < words; w++)
                    bits[j * words + w] |= hd_bits_between(from, end, w * 64);
        }
    }
    return false;
}

static heed_status_t check_blocks(const heed_tiles_grid_t *grid, const blocks_t *blocks)
{
    int64_t rows = grid->batches * grid->heads * blocks->rows;
    int64_t columns = hd_ceil_div(grid->keys, blocks->block_k);
    if (blocks->row_start[0] != 0)
        return hd_fail(HEED_ERROR_VALUE, "row_start[0]=%lld is not 0",
                       (long long)blocks->row_start[0]);
    for (int64_t row = 0; row < rows; row++)
        if (blocks->row_start[row + 1] < blocks->row_start[row])
            return hd_fail(HEED_ERROR_VALUE, "row_start[%lld]=%lld is below the one before",
                           (long long)row + 1, (long long)blocks->row_start[row + 1]);
    if (blocks->row_start[rows] > 0 && !blocks->column)
        return hd_fail(HEED_ERROR_NULL, "column is null");
    for (int64_t row = 0; row < rows; row++) {
        int64_t before = -1;
        for (int64_t e = blocks->row_start[row]; e < blocks->row_start[row + 1]; e++) {
            if (blocks->column[e] <= before || blocks->column[e] >= columns)
                return hd_fail(HEED_ERROR_VALUE,
                               "column[%lld]=%d: columns ascend within a row and end below %lld",
                               (long long)e, blocks->column[e], (long long)columns);
            before = blocks->column[e];
        }
    }
    return HEED_OK;
}

heed_status_t heed_tiles_from_blocks(heed_context_t *context, const heed_tiles_grid_t *grid,
                                     int64_t block_q, int64_t block_k, const int64_t *row_start,
                                     const int32_t *column, heed_tile_list_t **tiles)
{
    heed_tiles_grid_t full;
    HD_TRY(check_context(context, row_start, "row_start", tiles));
    HD_TRY(hd_grid_check(grid, &full));
    if (block_q < 1 || block_k < 1 || block_q > INT32_MAX || block_k > INT32_MAX)
        return hd_fail(HEED_ERROR_VALUE, "block_q=%lld, block_k=%lld are not 1 to 2^31-1",
                       (long long)block_q, (long long)block_k);
    blocks_t blocks = {block_q, block_k, hd_ceil_div(full.queries, block_q), row_start, column};
    int64_t rows; /* planes times queries may be more than planes times rows of tiles */
    if (!hd_mul(full.batches * full.heads, blocks.rows, &rows))
        return hd_fail(HEED_ERROR_SHAPE, "grid.queries=%lld of all planes cannot be counted",
                       (long long)full.queries);
    HD_TRY(check_blocks(&full, &blocks));
    hd_tile_maker_t maker = {blocks_mark, blocks_tile, &blocks, NULL};
    return hd_tiles_build(context, &full, &maker, tiles);
}

heed_status_t heed_tiles_from_csr(heed_context_t *context, const heed_tiles_grid_t *grid,
                                  const int64_t *row_start, const int32_t *column,
                                  heed_tile_list_t **tiles)
{
    return heed_tiles_from_blocks(context, grid, 1, 1, row_start, column, tiles);
}
