/* cpu:block_sparse of dilated attention: each branch is one attention of all tokens under a tile
 * list, that of its lattice, and branches are merged by lse: a list says that a pair is seen, not
 * how often. Heads of one offset share a list. */
#include "dilated_cost.h"
#include "dilated_schedule.h"

#include <heed/tiles.h>

enum { MOST_LISTS = 1024 };

typedef struct sparse {
    hd_dilated_schedule_t schedule;
    heed_tile_list_t *lists[MOST_LISTS];
    int list_count;
    bool merge; /* while steps are added */
} sparse_t;

/* Lists of all branches: one for each offset that some head has. */
static int64_t count_lists(const heed_dilated_desc_t *desc)
{
    int64_t count = 0;
    for (int i = 0; i < desc->branches; i++)
        count += hd_dilated_mixes(desc) ? hd_min(desc->rates[i], desc->k.shape[2]) : 1;
    return count;
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    int64_t count = count_lists(at);
    (void)device;
    if (count <= MOST_LISTS)
        return 1;
    return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "%lld tile lists, one an offset: at most %d",
                     (long long)count, MOST_LISTS);
}

static void release(heed_context_t *context, void *state)
{
    sparse_t *sparse = state;
    for (int i = 0; sparse && i < sparse->list_count; i++)
        heed_tiles_free(context, sparse->lists[i]);
    hd_dilated_release(context, state);
}

static heed_status_t add_piece(void *arg, const hd_piece_t *piece)
{
    sparse_t *sparse = arg;
    hd_dilated_schedule_t *schedule = &sparse->schedule;
    int64_t tokens = schedule->desc->q.shape[1];
    heed_tiles_grid_t grid = heed_tiles_grid(tokens, tokens);
    heed_pattern_t pattern = heed_pattern(HEED_PATTERN_SEGMENTS);
    heed_tile_list_t **list = &sparse->lists[sparse->list_count];
    pattern.size = piece->segment;
    pattern.rate = piece->rate;
    pattern.offset = piece->offset;
    if (schedule->desc->causal)
        pattern.right = 0;
    HD_TRY(heed_tiles_from_pattern(schedule->context, &grid, &pattern, 1, list));
    sparse->list_count++;
    hd_dilated_part_t all = hd_dilated_whole(schedule->desc, &schedule->state);
    hd_piece_t heads = *piece; /* every token is a row, the list says which of them count */
    heads.segment = heads.pitch = tokens;
    heads.rate = 1;
    heads.offset = 0;
    return hd_dilated_square(schedule->context, &schedule->steps, &all, &heads, *list, 0,
                             tokens > 0, tokens, sparse->merge);
}

static heed_status_t add_branch(hd_dilated_schedule_t *schedule, int branch, bool merge)
{
    sparse_t *sparse = (sparse_t *)schedule;
    sparse->merge = merge;
    return hd_dilated_pieces(schedule->desc, branch, add_piece, sparse);
}

static heed_status_t add_branches(hd_dilated_schedule_t *schedule)
{
    return hd_dilated_all(schedule, add_branch);
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    return hd_dilated_prepare(context, desc, sizeof(sparse_t), false, add_branches, release, state,
                              workspace);
}

/* Each branch alone, all pairs of the tiles that its lattice touches. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    double ns = hd_dilated_start_ns(device, threads);
    for (int i = 0; i < desc->branches; i++)
        ns += hd_dilated_tiles_ns(desc, i, device, threads);
    return ns;
}

const heed_impl_t hd_impl_dilated_block_sparse = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:block_sparse",
    .about = "each branch one attention under the tile list of its lattice, merged by lse",
    .device_type = HEED_DEVICE_CPU,
    .features = HD_DILATED_EXACT,
    .supports = supports,
    .estimate = estimate,
    .run = hd_dilated_run,
    .prepare = prepare,
    .release = release,
};
