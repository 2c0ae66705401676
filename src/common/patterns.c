/* Patterns on an explicit matrix. Predicates are tile lists (tiles_pattern.c) that are walked as
 * attention walks them; what goes by magnitude is a threshold. */
#include "element.h"
#include "matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- predicates ------------------------------------------------------------------------------ */

static heed_status_t check_tokens(const heed_matrix_desc_t *desc, const hd_matrix_t *matrix)
{
    if (desc->token_count < 0 || (desc->token_count && !desc->tokens))
        return hd_fail(desc->token_count < 0 ? HEED_ERROR_VALUE : HEED_ERROR_NULL,
                       "token_count=%lld, tokens is %s", (long long)desc->token_count,
                       desc->tokens ? "there" : "null");
    for (int64_t n = 0; n < desc->token_count; n++)
        if (desc->tokens[n] < 0 || desc->tokens[n] >= hd_min(matrix->rows, matrix->columns) ||
            (n && desc->tokens[n] <= desc->tokens[n - 1]))
            return hd_fail(HEED_ERROR_VALUE,
                           "tokens[%lld]=%lld: tokens ascend from 0 and stay within the matrix",
                           (long long)n, (long long)desc->tokens[n]);
    return HEED_OK;
}

static heed_pattern_t pattern_of(const heed_matrix_desc_t *desc, heed_pattern_kind_t kind)
{
    heed_pattern_t pattern = heed_pattern(kind);
    pattern.align = HEED_ALIGN_TOP_LEFT;
    pattern.size = desc->kind == HEED_MATRIX_LOCAL ? desc->block : desc->dilation;
    if (kind == HEED_PATTERN_ALL || kind == HEED_PATTERN_LATTICE)
        pattern.left = pattern.right = desc->window;
    pattern.numbers = desc->tokens;
    pattern.count = desc->token_count;
    return pattern;
}

/* *tiles or the pattern, in the place of *tiles. */
static heed_status_t add_pattern(heed_context_t *context, const heed_tiles_grid_t *grid,
                                 const heed_pattern_t *pattern, heed_tile_list_t **tiles)
{
    heed_tile_list_t *made, *before = *tiles;
    HD_TRY(heed_tiles_from_pattern(context, grid, pattern, 1, &made));
    if (!before) {
        *tiles = made;
        return HEED_OK;
    }
    heed_status_t status = heed_tiles_or(context, grid, before, made, tiles);
    heed_tiles_free(context, made);
    heed_tiles_free(context, before);
    return status;
}

static heed_status_t by_predicate(const heed_matrix_desc_t *desc, hd_matrix_t *matrix)
{
    static const heed_pattern_kind_t kinds[][3] = {
        [HEED_MATRIX_SLIDING] = {HEED_PATTERN_ALL},
        [HEED_MATRIX_GLOBAL] = {HEED_PATTERN_KEYS, HEED_PATTERN_QUERIES, HEED_PATTERN_ALL},
        [HEED_MATRIX_LOCAL] = {HEED_PATTERN_BLOCKS},
        [HEED_MATRIX_DILATED] = {HEED_PATTERN_LATTICE}};
    heed_tiles_grid_t grid = heed_tiles_grid(matrix->rows, matrix->columns);
    heed_tile_list_t *tiles = NULL;
    heed_status_t status = HEED_OK;
    int terms = desc->kind != HEED_MATRIX_GLOBAL ? 1 : desc->window < 0 ? 2 : 3;
    for (int n = 0; n < terms && status == HEED_OK; n++) {
        heed_pattern_t pattern = pattern_of(desc, kinds[desc->kind][n]);
        status = add_pattern(matrix->context, &grid, &pattern, &tiles);
    }
    if (status == HEED_OK)
        hd_matrix_keep_tiles(matrix, tiles);
    heed_tiles_free(matrix->context, tiles);
    return status;
}

/* ---- by magnitude ---------------------------------------------------------------------------- */

static float magnitude(const hd_matrix_t *matrix, int64_t i, int64_t j)
{
    float a = fabsf(hd_matrix_value(matrix, i, j));
    return isnan(a) ? -1 : a;
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* A number that is whole but for the rounding of a ratio. */
static double snapped(double number)
{
    double near = nearbyint(number);
    return fabs(number - near) <= 1e-9 ? near : number;
}

/* What an entry has to reach, or to exceed; of those equal to it the first `equal`. */
typedef struct bar {
    double height;
    bool strict;
    int64_t equal;
} bar_t;

/* The `keep` largest of ascending numbers; ties: all that are equal to the last of them. */
static bar_t largest(const float *sorted, int64_t count, int64_t keep, bool ties)
{
    if (keep <= 0)
        return (bar_t){.height = INFINITY, .strict = true};
    bar_t bar = {.height = (double)sorted[count - keep], .equal = INT64_MAX};
    int64_t above = 0;
    while (above < keep && (double)sorted[count - 1 - above] > bar.height)
        above++;
    if (!ties)
        bar.equal = keep - above;
    return bar;
}

static bar_t bar_of(const heed_matrix_desc_t *desc, const float *sorted, int64_t count,
                    double density)
{
    double at, part;
    switch (desc->rule) {
    case HEED_MATRIX_DROP_SMALLEST:
        at = floor(snapped((1 - density) * (double)count));
        return largest(sorted, count, count - (int64_t)at, true);
    case HEED_MATRIX_QUANTILE:
    case HEED_MATRIX_ABOVE_QUANTILE:
        part = modf(snapped((1 - density) * (double)(count - 1)), &at);
        at =
            (double)sorted[(int64_t)at] +
            (part > 0 ? part * ((double)sorted[(int64_t)at + 1] - (double)sorted[(int64_t)at]) : 0);
        return (bar_t){at, desc->rule == HEED_MATRIX_ABOVE_QUANTILE, INT64_MAX};
    default:
        return largest(sorted, count, (int64_t)ceil(snapped(density * (double)count)), false);
    }
}

/* Entries of the rows first .. end-1 that reach the bar. */
static void keep_high(hd_matrix_t *matrix, int64_t first, int64_t end, bar_t bar)
{
    for (int64_t i = first; i < end; i++)
        for (int64_t j = 0; j < matrix->columns; j++) {
            double a = (double)magnitude(matrix, i, j);
            bool equal = a == bar.height && !bar.strict && bar.equal > 0;
            bar.equal -= equal;
            hd_matrix_put(matrix, i, j, a > bar.height || equal);
        }
}

/* All entries together, or row by row. */
static heed_status_t by_magnitude(const heed_matrix_desc_t *desc, hd_matrix_t *matrix)
{
    double density;
    int64_t step = desc->rule == HEED_MATRIX_ROWS ? 1 : hd_max(matrix->rows, 1);
    int64_t count = step * matrix->columns;
    HD_TRY(heed_density_from_sparsity(desc->meaning, desc->ratio, matrix->columns, &density));
    if (matrix->count.total == 0)
        return HEED_OK;
    float *sorted = hd_alloc(matrix->context, (size_t)count * sizeof(float));
    if (!sorted)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory to sort %lld entries",
                       (long long)count);
    for (int64_t i = 0; i < matrix->rows; i += step) {
        for (int64_t n = 0; n < count; n++)
            sorted[n] = magnitude(matrix, i + n / matrix->columns, n % matrix->columns);
        qsort(sorted, (size_t)count, sizeof(float), compare);
        keep_high(matrix, i, i + step, bar_of(desc, sorted, count, density));
    }
    hd_free(matrix->context, sorted);
    return HEED_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* The ratio as an element of the matrix. */
static double rounded(const hd_matrix_t *matrix, double ratio)
{
    char element[8];
    hd_element_store(matrix->in.dtype, element, (float)ratio);
    return (double)hd_element_load(matrix->in.dtype, element);
}

static heed_status_t check(const heed_matrix_desc_t *desc, const hd_matrix_t *matrix)
{
    if ((int)desc->kind < 0 || desc->kind > HEED_MATRIX_DILATED)
        return hd_fail(HEED_ERROR_VALUE, "kind=%d is no heed_matrix_kind_t", (int)desc->kind);
    if ((int)desc->rule < 0 || desc->rule > HEED_MATRIX_ROWS)
        return hd_fail(HEED_ERROR_VALUE, "rule=%d is no heed_matrix_rule_t", (int)desc->rule);
    if (desc->window < (desc->kind == HEED_MATRIX_SLIDING ? 0 : -1))
        return hd_fail(HEED_ERROR_VALUE, "window=%lld is not 0 or more%s", (long long)desc->window,
                       desc->kind == HEED_MATRIX_SLIDING ? "" : ", nor -1 for none");
    if (desc->kind == HEED_MATRIX_LOCAL && desc->block < 1)
        return hd_fail(HEED_ERROR_VALUE, "block=%lld is not 1 or more", (long long)desc->block);
    if (desc->kind == HEED_MATRIX_DILATED && desc->dilation < 1)
        return hd_fail(HEED_ERROR_VALUE, "dilation=%lld is not 1 or more",
                       (long long)desc->dilation);
    if (desc->strict < 0 || desc->strict > 1)
        return hd_fail(HEED_ERROR_VALUE, "strict=%d is not 0 or 1", desc->strict);
    if (desc->kind == HEED_MATRIX_SPARSE && !isfinite(desc->ratio))
        return hd_fail(HEED_ERROR_VALUE, "ratio=%g is not finite", desc->ratio);
    return desc->kind == HEED_MATRIX_GLOBAL ? check_tokens(desc, matrix) : HEED_OK;
}

heed_status_t heed_matrix_pattern(heed_context_t *context, const heed_matrix_desc_t *desc,
                                  heed_matrix_count_t *count)
{
    hd_matrix_t matrix = {.context = context};
    heed_matrix_desc_t own;
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_struct_copy(&own, sizeof(own), desc, sizeof(own), "desc"));
    HD_TRY(hd_matrix_open(&matrix, &own.in, &own.out));
    HD_TRY(check(&own, &matrix));
    if (own.kind == HEED_MATRIX_LOCAL)
        matrix.count.blocks = hd_ceil_div(matrix.rows, own.block);
    if (own.kind == HEED_MATRIX_GLOBAL)
        matrix.count.positions = own.token_count * matrix.columns;
    if (own.kind == HEED_MATRIX_SPARSE && own.rule == HEED_MATRIX_ABOVE)
        keep_high(&matrix, 0, matrix.rows, (bar_t){rounded(&matrix, own.ratio), true, 0});
    else if (own.kind == HEED_MATRIX_SPARSE)
        HD_TRY(by_magnitude(&own, &matrix));
    else if (own.kind == HEED_MATRIX_GLOBAL && !own.strict)
        keep_high(&matrix, 0, matrix.rows, (bar_t){-INFINITY, false, 0});
    else
        HD_TRY(by_predicate(&own, &matrix));
    hd_matrix_finish(&matrix, count);
    return HEED_OK;
}
