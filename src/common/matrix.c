#include "matrix.h"

#include "element.h"
#include "visibility.h"

#include <string.h>

/* ---- the matrix ------------------------------------------------------------------------------ */

static heed_status_t check_tensor(const char *name, const heed_tensor_t *from, bool output,
                                  heed_tensor_t *to, hd_axes_t *axes)
{
    HD_TRY(hd_tensor_complete(name, from, output, to, axes));
    if (to->ndim != 2)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not 2", name, to->ndim);
    if (to->dtype != HEED_F32 && to->dtype != HEED_BF16 && to->dtype != HEED_F16)
        return hd_fail(HEED_ERROR_DTYPE, "%s is %s: a matrix is f32, bf16 or f16", name,
                       heed_dtype_name(to->dtype));
    if (from->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_UNSUPPORTED, "%s.device is no CPU", name);
    if (hd_tensor_elements(to) && !from->data)
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    return HEED_OK;
}

heed_status_t hd_matrix_open(hd_matrix_t *matrix, const heed_tensor_t *in, const heed_tensor_t *out)
{
    HD_TRY(check_tensor("in", in, false, &matrix->in, &matrix->axes[0]));
    HD_TRY(check_tensor("out", out, true, &matrix->out, &matrix->axes[1]));
    for (int a = 0; a < 2; a++)
        if (matrix->in.shape[a] != matrix->out.shape[a])
            return hd_fail(HEED_ERROR_SHAPE, "out.shape[%d]=%lld, but in.shape[%d]=%lld", a,
                           (long long)matrix->out.shape[a], a, (long long)matrix->in.shape[a]);
    if (matrix->in.dtype != matrix->out.dtype)
        return hd_fail(HEED_ERROR_DTYPE, "out is %s, but in is %s",
                       heed_dtype_name(matrix->out.dtype), heed_dtype_name(matrix->in.dtype));
    matrix->rows = matrix->in.shape[0];
    matrix->columns = matrix->in.shape[1];
    matrix->from = hd_tensor_data(in);
    matrix->to = hd_tensor_data(out);
    matrix->count.total = matrix->rows * matrix->columns;
    return HEED_OK;
}

static const char *entry(const hd_matrix_t *matrix, int64_t i, int64_t j)
{
    const int64_t *strides = matrix->in.strides;
    return matrix->from +
           (i * strides[0] + j * strides[1]) * (int64_t)heed_dtype_size(matrix->in.dtype);
}

float hd_matrix_value(const hd_matrix_t *matrix, int64_t i, int64_t j)
{
    return hd_element_load(matrix->in.dtype, entry(matrix, i, j));
}

/* By bits, so that what is kept stays what it was. */
void hd_matrix_put(hd_matrix_t *matrix, int64_t i, int64_t j, bool keep)
{
    const int64_t *strides = matrix->out.strides;
    int64_t size = (int64_t)heed_dtype_size(matrix->out.dtype);
    char *to = matrix->to + (i * strides[0] + j * strides[1]) * size;
    matrix->count.kept += keep;
    matrix->count.non_zero += keep && hd_matrix_value(matrix, i, j) != 0;
    if (keep)
        memmove(to, entry(matrix, i, j), (size_t)size);
    else
        memset(to, 0, (size_t)size);
}

void hd_matrix_finish(const hd_matrix_t *matrix, heed_matrix_count_t *count)
{
    double total = (double)matrix->count.total;
    if (!count)
        return;
    *count = matrix->count;
    if (total > 0) {
        count->density = (double)count->kept / total;
        count->zeros = 1 - (double)count->non_zero / total;
    }
}

/* ---- by a tile list -------------------------------------------------------------------------- */

/* Rows first .. first+rows-1, whose walk comes to the columns in order. */
static void keep_visible(hd_matrix_t *matrix, const hd_visibility_t *visible, int64_t first,
                         int rows)
{
    const uint64_t all = rows == 64 ? ~UINT64_C(0) : (UINT64_C(1) << rows) - 1;
    hd_walk_t walk;
    hd_block_t block;
    int64_t done = 0;
    hd_walk_begin(&walk, visible, 0, 0, first, rows);
    while (hd_walk_next(&walk, &block)) {
        for (; done < block.key; done++)
            for (int64_t i = 0; i < rows; i++)
                hd_matrix_put(matrix, first + i, done, false);
        for (; done < block.key + block.count; done++) {
            uint64_t seen = block.full ? all : hd_walk_mask(&walk, &block, (int)(done - block.key));
            for (int64_t i = 0; i < rows; i++)
                hd_matrix_put(matrix, first + i, done, seen >> i & 1);
        }
    }
    for (; done < matrix->columns; done++)
        for (int64_t i = 0; i < rows; i++)
            hd_matrix_put(matrix, first + i, done, false);
}

void hd_matrix_keep_tiles(hd_matrix_t *matrix, const heed_tile_list_t *tiles)
{
    int64_t open = matrix->rows + matrix->columns;
    hd_visibility_t visible = {.queries = matrix->rows,
                               .keys = matrix->columns,
                               .left = open,
                               .right = open,
                               .tiles = tiles};
    for (int64_t i = 0; i < matrix->rows; i += HD_BLOCK_ROWS)
        keep_visible(matrix, &visible, i, (int)hd_min(matrix->rows - i, HD_BLOCK_ROWS));
}

heed_status_t heed_matrix_tiles(heed_context_t *context, const heed_tiles_grid_t *grid,
                                const heed_tile_list_t *tiles, const heed_tensor_t *in,
                                const heed_tensor_t *out, heed_matrix_count_t *count)
{
    hd_matrix_t matrix = {.context = context};
    heed_tiles_grid_t own;
    if (!context || !grid || !tiles || !in || !out)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context ? "context"
                       : !grid  ? "grid"
                       : !tiles ? "tiles"
                       : !in    ? "in"
                                : "out");
    HD_TRY(hd_matrix_open(&matrix, in, out));
    HD_TRY(hd_grid_check(grid, &own));
    if (own.batches != 1 || own.heads != 1 || own.queries != matrix.rows ||
        own.keys != matrix.columns)
        return hd_fail(HEED_ERROR_SHAPE,
                       "grid has %lld batches, %lld heads, %lld queries, %lld keys: the matrix is "
                       "1, 1, %lld, %lld",
                       (long long)own.batches, (long long)own.heads, (long long)own.queries,
                       (long long)own.keys, (long long)matrix.rows, (long long)matrix.columns);
    HD_TRY(hd_tiles_check(tiles, 1, 1, matrix.rows, matrix.columns));
    hd_matrix_keep_tiles(&matrix, tiles);
    hd_matrix_finish(&matrix, count);
    return HEED_OK;
}
