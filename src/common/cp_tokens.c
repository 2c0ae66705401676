/* Which tokens a rank, or a group of ranks, has. */
#include "context_parallel.h"

#include <string.h>

/* Part `number` of `parts` of the tokens: the first ones are one larger. */
static heed_ring_run_t part_of(int64_t tokens, int64_t parts, int64_t number)
{
    int64_t each = tokens / parts, more = tokens % parts;
    return (heed_ring_run_t){number * each + hd_min(number, more), 1, each + (number < more)};
}

int heed_ring_runs(heed_ring_layout_t layout, int32_t rank, int32_t size, int64_t tokens,
                   heed_ring_run_t runs[2])
{
    if (!runs || size < 1 || rank < 0 || rank >= size || tokens < 0 || tokens > HD_MOST_TOKENS)
        return 0;
    memset(runs, 0, 2 * sizeof(*runs));
    if (layout == HEED_RING_CONTIGUOUS) {
        runs[0] = part_of(tokens, size, rank);
    } else if (layout == HEED_RING_STRIPED) {
        runs[0] = (heed_ring_run_t){rank, size, tokens / size + (rank < tokens % size)};
    } else if (layout == HEED_RING_ZIGZAG) {
        runs[0] = part_of(tokens, 2 * (int64_t)size, rank);
        runs[1] = part_of(tokens, 2 * (int64_t)size, 2 * (int64_t)size - 1 - rank);
        return 2;
    } else {
        return 0;
    }
    return 1;
}

/* ---- groups ---------------------------------------------------------------------------------- */

hd_grid_t hd_grid(heed_ring_layout_t layout, int32_t size, int32_t group)
{
    return (hd_grid_t){size, group, size / group, layout == HEED_RING_STRIPED};
}

/* Neighbours share a group, but where tokens are dealt out one by one: there ranks of equal
 * distance do, so that the group's tokens are equally far apart again. */
int32_t hd_grid_rank(const hd_grid_t *grid, int32_t number, int32_t member)
{
    return grid->striped ? number + member * grid->groups : number * grid->group + member;
}

void hd_grid_place(const hd_grid_t *grid, int32_t rank, int32_t *number, int32_t *member)
{
    *number = grid->striped ? rank % grid->groups : rank / grid->group;
    *member = grid->striped ? rank / grid->groups : rank % grid->group;
}

/* The runs `number` of all members are one. */
static heed_ring_run_t joined(const hd_grid_t *grid, heed_ring_layout_t layout, int32_t group,
                              int number, int64_t tokens)
{
    heed_ring_run_t all = {INT64_MAX, grid->striped ? grid->groups : 1, 0};
    for (int32_t m = 0; m < grid->group; m++) {
        heed_ring_run_t runs[2];
        heed_ring_runs(layout, hd_grid_rank(grid, group, m), grid->size, tokens, runs);
        all.count += runs[number].count;
        if (runs[number].count)
            all.first = hd_min(all.first, runs[number].first);
    }
    all.first = all.count ? all.first : 0;
    return all;
}

hd_tokens_t hd_grid_tokens(const hd_grid_t *grid, heed_ring_layout_t layout, int32_t number,
                           int64_t tokens, int64_t offset)
{
    hd_tokens_t to = {.count = layout == HEED_RING_ZIGZAG ? 2 : 1, .offset = offset};
    for (int i = 0; i < to.count; i++)
        to.runs[i] = joined(grid, layout, number, i, tokens);
    /* The last zigzag group's runs are neighbours: fewer, larger steps. */
    if (to.count == 2 && to.runs[0].first + to.runs[0].count == to.runs[1].first) {
        to.runs[0].count += to.runs[1].count;
        to.runs[1] = (heed_ring_run_t){0};
        to.count = 1;
    }
    for (int i = 0; i < to.count; i++) {
        to.runs[i].first += offset;
        to.rows += to.runs[i].count;
    }
    return to;
}

hd_tokens_t hd_cp_keys(const heed_context_parallel_desc_t *desc, int32_t size, int32_t rank)
{
    hd_grid_t grid = hd_grid(desc->layout, size, 1);
    return hd_grid_tokens(&grid, desc->layout, rank, desc->tokens, 0);
}

hd_tokens_t hd_cp_queries(const heed_context_parallel_desc_t *desc, int32_t size, int32_t rank)
{
    int64_t queries = desc->queries ? desc->queries : desc->tokens;
    hd_grid_t grid = hd_grid(desc->layout, size, 1);
    int64_t offset = desc->tokens - queries;
    if (desc->everywhere)
        return (hd_tokens_t){{{offset, 1, queries}, {0, 0, 0}}, 1, queries, offset};
    return hd_grid_tokens(&grid, desc->layout, rank, queries, offset);
}

int64_t hd_tokens_first(const hd_tokens_t *tokens, int number)
{
    return number ? tokens->runs[0].count : 0;
}

int64_t hd_tokens_row(const hd_tokens_t *tokens, int64_t position)
{
    const heed_ring_run_t *run = tokens->runs;
    int64_t end = run->first + run->count * run->distance;
    if (tokens->count == 2 && (position < run->first || position >= end)) {
        run = &tokens->runs[1];
        return tokens->runs[0].count + (position - run->first) / run->distance;
    }
    return (position - run->first) / run->distance;
}

/* ---- documents ------------------------------------------------------------------------------- */

/* Where document d begins; the last one ends where one more would. */
static int64_t start_of(const hd_documents_t *documents, int64_t d)
{
    if (!documents->starts)
        return d ? documents->tokens : 0;
    return documents->starts[d * documents->stride];
}

static int64_t end_of(const heed_ring_run_t *run)
{
    return run->first + run->count * run->distance;
}

int64_t hd_documents_find(const hd_documents_t *documents, const heed_ring_run_t *queries,
                          const heed_ring_run_t *keys)
{
    int64_t from = hd_max(queries->first, keys->first), low = 0, high = documents->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (start_of(documents, middle + 1) <= from)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The tokens of a run from position `from` up to `end`; *before come before them. */
static heed_ring_run_t within(const heed_ring_run_t *run, int64_t from, int64_t end,
                              int64_t *before)
{
    int64_t first = hd_ceil_div(hd_max(from - run->first, 0), run->distance);
    int64_t last = hd_ceil_div(hd_max(end - run->first, 0), run->distance);
    *before = hd_min(first, run->count);
    return (heed_ring_run_t){run->first + *before * run->distance, run->distance,
                             hd_min(last, run->count) - *before};
}

bool hd_documents_share(const hd_documents_t *documents, int64_t d, const heed_ring_run_t *queries,
                        const heed_ring_run_t *keys, hd_shared_t *shared)
{
    if (d >= documents->count)
        return false;
    int64_t from = start_of(documents, d), end = start_of(documents, d + 1);
    shared->queries = within(queries, from, end, &shared->query_row);
    shared->keys = within(keys, from, end, &shared->key_row);
    return from < hd_min(end_of(queries), end_of(keys));
}

/* ---- bands ----------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

void hd_cp_band(const heed_context_parallel_desc_t *desc, const heed_ring_run_t *queries,
                const heed_ring_run_t *keys, int64_t *low, int64_t *high)
{
    int64_t apart = queries->first - keys->first, distance = queries->distance;
    int64_t left = desc->window_left, right = desc->causal ? 0 : desc->window_right;
    *low = left < 0 ? -4 * HD_MOST_TOKENS : -floor_div(left - apart, distance);
    *high = right < 0 ? 4 * HD_MOST_TOKENS : floor_div(apart + right, distance);
}
