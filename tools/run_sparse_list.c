/* The tile lists of `heed run sparse`. */
#define _GNU_SOURCE
#include "run_sparse.h"

#include "text.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    heed_sparse_kind_t kind;
} generators[] = {
    {"random", HEED_SPARSE_RANDOM},
    {"block_sparse", HEED_SPARSE_BLOCK_SPARSE},
    {"strided", HEED_SPARSE_STRIDED},
    {"local_global", HEED_SPARSE_LOCAL_GLOBAL},
    {"dynamic_threshold", HEED_SPARSE_DYNAMIC_THRESHOLD},
    {"learned", HEED_SPARSE_LEARNED},
};

bool sparse_pattern_read(const char *text, sparse_pattern_t *pattern)
{
    *pattern = (sparse_pattern_t){.text = text};
    for (size_t i = 0; i < sizeof generators / sizeof generators[0]; i++)
        if (strcmp(text, generators[i].name) == 0) {
            pattern->generates = true;
            pattern->kind = generators[i].kind;
        }
    return *text;
}

static bool by_scores(const sparse_pattern_t *pattern)
{
    return pattern->generates &&
           (pattern->kind == HEED_SPARSE_DYNAMIC_THRESHOLD || pattern->kind == HEED_SPARSE_LEARNED);
}

bool sparse_needs_density(const sparse_options_t *options)
{
    for (int i = 0; i < options->count; i++)
        if (options->patterns[i].generates &&
            !(by_scores(&options->patterns[i]) && options->mass > 0))
            return true;
    return false;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Those of the tensor gate [B,H,rows,columns] of the file, NULL after a sentence. */
static const float *gate_of(const long_input_t *input, int64_t b, int64_t head, int64_t rows,
                            int64_t columns)
{
    const st_tensor_t *gate = st_find(input->file, "gate");
    const int64_t shape[4] = {input->q.shape[0], input->q.shape[2], rows, columns};
    char has[128];
    if (!gate) {
        tool_fail("%s: has no tensor gate, which the pattern learned needs", st_path(input->file));
        return NULL;
    }
    int lacks = input->packed;
    if (gate->dtype->heed != HEED_F32 || gate->ndim != 4 - lacks ||
        memcmp(gate->shape, shape + lacks, (size_t)gate->ndim * sizeof *shape) != 0) {
        tool_fail("%s: gate is %s %s: it is [%lld,%lld,%lld,%lld] F32", st_path(input->file),
                  gate->dtype->name, st_shape_text(gate, has, sizeof has), (long long)shape[0],
                  (long long)shape[1], (long long)rows, (long long)columns);
        return NULL;
    }
    return (const float *)gate->data + (b * shape[1] + head) * rows * columns;
}

static heed_status_t score(heed_context_t *context, const sparse_options_t *options,
                           const heed_tiles_grid_t *grid, const long_input_t *input, int64_t b,
                           int64_t head, float *scores)
{
    long_part_t q, k;
    int64_t group = input->q.shape[2] / input->k.shape[2];
    heed_block_scores_desc_t desc = heed_block_scores_desc(options->scores);
    long_part(&input->q, b, 0, grid->queries, head, 1, &q);
    long_part(&input->k, b, 0, grid->keys, head / group, 1, &k);
    desc.q = q.tensor;
    desc.k = k.tensor;
    desc.scale = (float)options->all.scale;
    desc.causal = options->all.causal;
    return heed_block_scores(context, grid, &desc, scores);
}

/* ---- lists ----------------------------------------------------------------------------------- */

static int generate(heed_context_t *context, const sparse_options_t *options,
                    const sparse_pattern_t *pattern, const heed_tiles_grid_t *grid,
                    const long_input_t *input, int64_t b, int64_t head, heed_tile_list_t **tiles)
{
    heed_sparse_t sparse = heed_sparse(pattern->kind, options->density);
    int64_t rows = (grid->queries + grid->tile_q - 1) / grid->tile_q;
    int64_t columns = (grid->keys + grid->tile_k - 1) / grid->tile_k;
    float *scores = NULL;
    heed_status_t status = HEED_OK;
    sparse.seed = (uint64_t)options->seed + (uint64_t)(b * input->q.shape[2] + head);
    sparse.causal = options->all.causal;
    if (by_scores(pattern)) {
        sparse.mass = options->mass;
        sparse.density = options->mass > 0 ? 1 : options->density;
        sparse.globals = 1;
    }
    if (pattern->kind == HEED_SPARSE_LEARNED) {
        sparse.scores = gate_of(input, b, head, rows, columns);
        if (!sparse.scores)
            return TOOL_FAILED;
    } else if (by_scores(pattern)) {
        sparse.scores = scores = malloc((size_t)(rows * columns) * sizeof *scores + 1);
        if (!scores)
            return tool_fail("out of memory for the scores of %lld tiles",
                             (long long)(rows * columns));
        status = score(context, options, grid, input, b, head, scores);
    }
    if (status == HEED_OK)
        status = heed_tiles_generate(context, grid, &sparse, 1, tiles);
    free(scores);
    return status == HEED_OK ? TOOL_OK : tool_fail_status(status);
}

int sparse_list(heed_context_t *context, const sparse_options_t *options, const long_input_t *input,
                int64_t b, int64_t head, heed_tile_list_t **tiles)
{
    const sparse_pattern_t *pattern = &options->patterns[head % options->count];
    heed_tiles_grid_t grid = heed_tiles_grid(input->q.shape[1], input->k.shape[1]);
    grid.tile_q = grid.tile_k = options->tile;
    *tiles = NULL;
    if (pattern->generates)
        return generate(context, options, pattern, &grid, input, b, head, tiles);
    heed_status_t status = heed_tiles_from_text(context, &grid, pattern->text, tiles);
    return status == HEED_OK ? TOOL_OK : tool_fail_status(status);
}

bool sparse_slice_new(const heed_tile_list_t *tiles, int64_t first, int64_t count, int64_t keys,
                      sparse_slice_t *slice)
{
    int64_t row = first / tiles->tile_q, rows = (count + tiles->tile_q - 1) / tiles->tile_q;
    int64_t columns = (keys + tiles->tile_k - 1) / tiles->tile_k, kept = 0;
    size_t most = (size_t)(tiles->row_start[row + rows] - tiles->row_start[row]);
    slice->row_start = malloc((size_t)(rows + 1) * sizeof *slice->row_start);
    slice->column = malloc(most * sizeof *slice->column + 1);
    slice->mask = malloc(most * sizeof *slice->mask + 1);
    if (!slice->row_start || !slice->column || !slice->mask)
        return false;
    for (int64_t r = 0; r < rows; r++) {
        slice->row_start[r] = kept;
        for (int64_t e = tiles->row_start[row + r]; e < tiles->row_start[row + r + 1]; e++) {
            if (tiles->column[e] >= columns)
                break;
            slice->column[kept] = tiles->column[e];
            slice->mask[kept++] = tiles->mask ? tiles->mask[e] : -1;
        }
    }
    slice->row_start[rows] = kept;
    slice->list = *tiles;
    slice->list.rows = rows;
    slice->list.row_start = slice->row_start;
    slice->list.column = slice->column;
    slice->list.mask = slice->mask;
    return true;
}

void sparse_slice_free(sparse_slice_t *slice)
{
    free(slice->row_start);
    free(slice->column);
    free(slice->mask);
}
