/* Tile lists by budget: each row of tiles keeps some of those that it may see. */
#include "mix.h"
#include "tiles_build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct generators {
    const heed_context_t *context;
    const heed_sparse_t *at;
    int64_t count;      /* 1, or one a head */
    const double *part; /* of each: part_left */
    _Atomic int *failed;
} generators_t;

/* What a row may see: tiles 0 .. visible-1, and the one at its position. */
typedef struct budget {
    int64_t visible, position, keep;
} budget_t;

static int64_t kept(double density, int64_t visible)
{
    return hd_min(hd_max((int64_t)floor(density * (double)visible + 0.5), 1), visible);
}

static budget_t budget_of(const heed_sparse_t *sparse, const heed_tiles_grid_t *grid, int64_t row)
{
    int64_t offset = sparse->align == HEED_ALIGN_BOTTOM_RIGHT ? grid->keys - grid->queries : 0;
    int64_t last = hd_min((row + 1) * grid->tile_q, grid->queries) - 1 + offset;
    int64_t columns = hd_grid_columns(grid);
    budget_t budget = {.visible = columns};
    if (sparse->causal)
        budget.visible = last < 0 ? 0 : hd_min(last / grid->tile_k + 1, columns);
    budget.position = hd_max(hd_min(hd_max(last, 0) / grid->tile_k, budget.visible - 1), 0);
    budget.keep = budget.visible ? kept(sparse->density, budget.visible) : 0;
    return budget;
}

/* ---- random ---------------------------------------------------------------------------------- */

/* A number for each (seed, plane, row, draw), whoever asks and when. */
static uint64_t draw(const heed_sparse_t *sparse, const hd_tile_row_t *row, int64_t number)
{
    uint64_t key = hd_mix(sparse->seed + HD_MIX_STEP * (uint64_t)(row->plane + 1));
    key = hd_mix(key + HD_MIX_STEP * (uint64_t)(row->row + 1));
    return hd_mix(key + HD_MIX_STEP * (uint64_t)(number + 1));
}

static bool is_marked(const hd_tile_row_t *row, int64_t column)
{
    return row->marks[column / 64] >> column % 64 & 1;
}

/* Floyd's sample without replacement, of the visible tiles but the one at the position. */
static void mark_random(const heed_sparse_t *sparse, hd_tile_row_t *row, const budget_t *budget)
{
    int64_t others = budget->visible - 1;
    for (int64_t n = others - (budget->keep - 1); n < others; n++) {
        int64_t pick = (int64_t)(draw(sparse, row, n) % (uint64_t)(n + 1));
        int64_t column = pick + (pick >= budget->position);
        if (is_marked(row, column))
            column = n + (n >= budget->position);
        hd_row_mark(row, column);
    }
    hd_row_mark(row, budget->position);
}

/* ---- by position ----------------------------------------------------------------------------- */

/* The `keep` visible tiles nearest to the position: [*low, *high). */
static void nearest(const budget_t *budget, int64_t keep, int64_t *low, int64_t *high)
{
    *low = hd_max(budget->position - keep / 2, 0);
    *high = hd_min(*low + keep, budget->visible);
    *low = hd_max(*high - keep, 0);
}

static void mark_range(hd_tile_row_t *row, int64_t low, int64_t high)
{
    hd_row_mark_keys(row, low * row->grid->tile_k, high * row->grid->tile_k);
}

static void mark_strided(hd_tile_row_t *row, const budget_t *budget)
{
    int64_t near = hd_ceil_div(budget->keep, 2), far = budget->keep - near, low, high;
    nearest(budget, near, &low, &high);
    mark_range(row, low, high);
    /* Those outside, leftwards from the band and on from the right end. */
    int64_t outside = budget->visible - (high - low);
    for (int64_t n = 1; n <= far; n++) {
        int64_t column = low - n * outside / far;
        hd_row_mark(row, column >= 0 ? column : column + budget->visible);
    }
}

static int64_t globals_of(const heed_sparse_t *sparse, const heed_tiles_grid_t *grid)
{
    if (sparse->globals)
        return sparse->globals;
    return (int64_t)(sparse->density * (double)hd_grid_columns(grid) / 4);
}

/* Rows other than the global ones share what those leave of the whole budget: the part of its own
 * budget that each of them gets. */
static double part_left(const heed_sparse_t *sparse, const heed_tiles_grid_t *grid)
{
    double all = 0, rest = 0, spent = 0;
    for (int64_t row = 0; row < hd_grid_rows(grid); row++) {
        budget_t budget = budget_of(sparse, grid, row);
        bool global = row < globals_of(sparse, grid);
        double share = sparse->density * (double)budget.visible;
        all += share;
        rest += global ? 0 : share;
        spent += global ? (double)budget.visible : 0;
    }
    return rest > 0 && all > spent ? (all - spent) / rest : 0;
}

static void mark_local_global(const heed_sparse_t *sparse, double part, hd_tile_row_t *row,
                              const budget_t *budget)
{
    int64_t globals = globals_of(sparse, row->grid), low, high;
    if (row->row < globals) {
        mark_range(row, 0, budget->visible);
        return;
    }
    int64_t keep = kept(sparse->density * part, budget->visible);
    nearest(budget, hd_max(keep - globals, 1), &low, &high);
    /* Where the band lies over the global columns, it goes on beyond them. */
    int64_t over = hd_max(hd_min(globals, high) - low, 0);
    mark_range(row, low, hd_min(high + over, budget->visible));
    mark_range(row, 0, hd_min(globals, budget->visible));
}

/* ---- by scores ------------------------------------------------------------------------------- */

typedef struct scored {
    float score;
    int32_t column;
} scored_t;

/* Highest first; the lower column where scores are equal. */
static int compare(const void *a, const void *b)
{
    const scored_t *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->column - y->column;
}

static int64_t mark_forced(const heed_sparse_t *sparse, hd_tile_row_t *row, const budget_t *budget,
                           const float *scores, double *mass)
{
    int64_t forced = 0;
    mark_range(row, 0, hd_min(sparse->globals, budget->visible));
    hd_row_mark(row, budget->position);
    for (int64_t c = 0; c < budget->visible; c++) {
        if (is_marked(row, c)) {
            forced++;
            *mass += scores[c] > 0 ? (double)scores[c] : 0;
        }
    }
    return forced;
}

static bool mark_scored(const generators_t *all, const heed_sparse_t *sparse, hd_tile_row_t *row,
                        const budget_t *budget)
{
    const float *scores =
        sparse->scores + (row->plane * hd_grid_rows(row->grid) + row->row) * row->columns;
    double mass = 0, total = 0;
    int64_t count = 0, taken = mark_forced(sparse, row, budget, scores, &mass);
    scored_t *order = hd_alloc(all->context, (size_t)budget->visible * sizeof(*order));
    if (!order)
        return false;
    for (int64_t c = 0; c < budget->visible; c++) {
        float score = isnan(scores[c]) ? -INFINITY : scores[c];
        total += score > 0 ? (double)score : 0;
        if (!is_marked(row, c))
            order[count++] = (scored_t){score, (int32_t)c};
    }
    qsort(order, (size_t)count, sizeof(*order), compare);
    for (int64_t n = 0; n < count; n++) {
        if (sparse->mass > 0 ? mass >= sparse->mass * total : taken >= budget->keep)
            break;
        hd_row_mark(row, order[n].column);
        mass += order[n].score > 0 ? (double)order[n].score : 0;
        taken++;
    }
    hd_free(all->context, order);
    return true;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void mark(const void *maker, hd_tile_row_t *row)
{
    const generators_t *all = maker;
    int64_t number = all->count > 1 ? row->head : 0;
    const heed_sparse_t *sparse = &all->at[number];
    budget_t budget = budget_of(sparse, row->grid, row->row);
    int64_t low, high;
    if (budget.keep == 0)
        return;
    switch (sparse->kind) {
    case HEED_SPARSE_RANDOM:
        mark_random(sparse, row, &budget);
        break;
    case HEED_SPARSE_BLOCK_SPARSE:
        nearest(&budget, budget.keep, &low, &high);
        mark_range(row, low, high);
        break;
    case HEED_SPARSE_STRIDED:
        mark_strided(row, &budget);
        break;
    case HEED_SPARSE_LOCAL_GLOBAL:
        mark_local_global(sparse, all->part[number], row, &budget);
        break;
    case HEED_SPARSE_DYNAMIC_THRESHOLD:
    case HEED_SPARSE_LEARNED:
        if (!mark_scored(all, sparse, row, &budget))
            *all->failed = 1;
        break;
    }
}

static heed_status_t check(const heed_sparse_t *sparse)
{
    if ((int)sparse->kind < 0 || sparse->kind > HEED_SPARSE_LEARNED)
        return hd_fail(HEED_ERROR_VALUE, "sparse.kind=%d is no heed_sparse_kind_t",
                       (int)sparse->kind);
    bool by_scores = sparse->kind >= HEED_SPARSE_DYNAMIC_THRESHOLD;
    bool by_mass = by_scores && sparse->mass != 0;
    if (!by_mass && !(sparse->density > 0 && sparse->density <= 1))
        return hd_fail(HEED_ERROR_VALUE, "sparse.density=%g is not in (0, 1]", sparse->density);
    if (by_mass && !(sparse->mass > 0 && sparse->mass <= 1))
        return hd_fail(HEED_ERROR_VALUE, "sparse.mass=%g is not in (0, 1]", sparse->mass);
    if (sparse->causal < 0 || sparse->causal > 1)
        return hd_fail(HEED_ERROR_VALUE, "sparse.causal=%d is not 0 or 1", sparse->causal);
    if (sparse->align != HEED_ALIGN_BOTTOM_RIGHT && sparse->align != HEED_ALIGN_TOP_LEFT)
        return hd_fail(HEED_ERROR_VALUE, "sparse.align=%d is no heed_align_t", (int)sparse->align);
    if (sparse->globals < 0 || sparse->globals > INT32_MAX)
        return hd_fail(HEED_ERROR_VALUE, "sparse.globals=%lld is not 0 to 2^31-1",
                       (long long)sparse->globals);
    if (by_scores && !sparse->scores)
        return hd_fail(HEED_ERROR_NULL, "sparse.scores is null");
    return HEED_OK;
}

static heed_status_t generate(const heed_context_t *context, const heed_tiles_grid_t *grid,
                              const heed_sparse_t *sparse, int64_t count, heed_tile_list_t **tiles)
{
    _Atomic int failed = 0;
    double *part = hd_alloc(context, (size_t)count * sizeof(*part));
    if (!part)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %lld generators", (long long)count);
    for (int64_t i = 0; i < count; i++)
        part[i] = sparse[i].kind == HEED_SPARSE_LOCAL_GLOBAL ? part_left(&sparse[i], grid) : 1;
    generators_t all = {context, sparse, count, part, &failed};
    hd_tile_maker_t maker = {mark, NULL, &all, NULL};
    heed_status_t status = hd_tiles_build(context, grid, &maker, tiles);
    hd_free(context, part);
    if (status != HEED_OK || !failed)
        return status;
    heed_tiles_free(context, *tiles);
    *tiles = NULL;
    return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory to sort the scores of a row");
}

heed_status_t heed_tiles_generate(heed_context_t *context, const heed_tiles_grid_t *grid,
                                  const heed_sparse_t *sparse, int64_t count,
                                  heed_tile_list_t **tiles)
{
    heed_tiles_grid_t full;
    if (!context || !sparse || !tiles)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context  ? "context"
                       : !sparse ? "sparse"
                                 : "tiles");
    *tiles = NULL;
    HD_TRY(hd_grid_check(grid, &full));
    if (count != 1 && count != full.heads)
        return hd_fail(HEED_ERROR_SHAPE,
                       "count=%lld generators: one, or one for each of the %lld heads",
                       (long long)count, (long long)full.heads);
    for (int64_t i = 0; i < count; i++) {
        if (sparse[i].struct_size != sizeof(*sparse))
            return hd_fail(HEED_ERROR_STRUCT_SIZE, "sparse[%lld].struct_size=%u, known is %zu",
                           (long long)i, sparse[i].struct_size, sizeof(*sparse));
        HD_TRY(check(&sparse[i]));
    }
    return generate(context, &full, sparse, count, tiles);
}
