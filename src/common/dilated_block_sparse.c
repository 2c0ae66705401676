/* cpu:block_sparse of dilated attention: each branch is one attention of all tokens under a tile
 * list, that of its lattice, and branches are merged by lse: a list says that a pair is seen, not
 * how often. Heads of one offset share a list. */
#include "dilated_steps.h"
#include "op.h"

#include <heed/tiles.h>

#include <string.h>

enum { MOST_LISTS = 1024, TILE = 64 };

typedef struct sparse {
    heed_context_t *context;
    const heed_dilated_desc_t *desc;
    hd_state_t state; /* in the workspace, as far as it is not the caller's */
    bool starts_empty;
    hd_steps_t steps;
    heed_tile_list_t *lists[MOST_LISTS];
    int list_count;
    bool merge; /* while steps are added */
} sparse_t;

extern const hd_op_t hd_op_dilated;

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
    if (!sparse)
        return;
    hd_steps_free(context, &sparse->steps);
    for (int i = 0; i < sparse->list_count; i++)
        heed_tiles_free(context, sparse->lists[i]);
    hd_free(context, sparse);
}

static heed_status_t add_piece(void *arg, const hd_piece_t *piece)
{
    sparse_t *sparse = arg;
    int64_t tokens = sparse->desc->q.shape[1];
    heed_tiles_grid_t grid = heed_tiles_grid(tokens, tokens);
    heed_pattern_t pattern = heed_pattern(HEED_PATTERN_SEGMENTS);
    heed_tile_list_t **list = &sparse->lists[sparse->list_count];
    pattern.size = piece->segment;
    pattern.rate = piece->rate;
    pattern.offset = piece->offset;
    if (sparse->desc->causal)
        pattern.right = 0;
    HD_TRY(heed_tiles_from_pattern(sparse->context, &grid, &pattern, 1, list));
    sparse->list_count++;
    hd_dilated_part_t all = hd_dilated_whole(sparse->desc, &sparse->state);
    hd_piece_t heads = *piece; /* every token is a row, the list says which of them count */
    heads.segment = tokens;
    heads.rate = 1;
    heads.offset = 0;
    return hd_dilated_square(sparse->context, &sparse->steps, &all, &heads, *list, 0, tokens > 0,
                             tokens, sparse->merge);
}

static heed_status_t add_branches(sparse_t *sparse)
{
    int plain = hd_dilated_plain(sparse->desc);
    sparse->starts_empty = plain < 0;
    if (plain >= 0)
        HD_TRY(hd_dilated_pieces(sparse->desc, plain, add_piece, sparse));
    sparse->merge = !hd_dilated_alone(sparse->desc);
    for (int i = 0; i < sparse->desc->branches; i++)
        if (i != plain)
            HD_TRY(hd_dilated_pieces(sparse->desc, i, add_piece, sparse));
    return HEED_OK;
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    sparse_t *sparse = hd_alloc(context, sizeof(*sparse));
    if (!sparse)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for tile lists");
    memset(sparse, 0, sizeof(*sparse));
    sparse->context = context;
    sparse->desc = desc;
    hd_state_describe(&sparse->desc->out, &sparse->desc->lse, false, -1, &sparse->state);
    heed_status_t status = add_branches(sparse);
    if (status != HEED_OK) {
        release(context, sparse);
        return status;
    }
    *state = sparse;
    *workspace = sparse->state.lse_bytes + sparse->steps.workspace;
    return HEED_OK;
}

static heed_status_t run(const heed_launch_t *launch)
{
    const sparse_t *sparse = launch->state;
    char *buffers[HD_STEP_OPERANDS], *memory = launch->workspace;
    for (int n = HEED_ATTENTION_Q; n <= HEED_ATTENTION_V; n++)
        buffers[n] = launch->buffers[n];
    hd_state_buffers(&sparse->state, launch->buffers[HEED_DILATED_OUT],
                     launch->buffers[HEED_DILATED_LSE], memory, &buffers[HEED_ATTENTION_OUT],
                     &buffers[HEED_ATTENTION_LSE]);
    if (sparse->starts_empty)
        hd_state_clear(&sparse->state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE],
                       launch->threads);
    return hd_steps_run(&sparse->steps, 0, sparse->steps.count, buffers,
                        memory + sparse->state.lse_bytes);
}

/* A branch alone, with the pairs of all tiles that its lattice touches, of which masks take a
 * little more; and the lists, some nanoseconds for each word of a mask. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    heed_dilated_desc_t branch = *desc;
    double flops = 0;
    hd_work_t work;
    branch.branches = 1;
    for (int i = 0; i < desc->branches; i++) {
        double rate = (double)hd_min(desc->rates[i], TILE);
        branch.segments[0] = desc->segments[i];
        branch.rates[0] = desc->rates[i];
        hd_op_dilated.work(&branch, &work);
        flops += 1.07 * rate * rate * work.flops *
                 (hd_dilated_mixes(desc) ? 1 : 1 / (double)desc->branches);
    }
    return hd_dilated_ns(desc, device, threads, flops, hd_dilated_step_count(desc));
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
    .run = run,
    .prepare = prepare,
    .release = release,
};
