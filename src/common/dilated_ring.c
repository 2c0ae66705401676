/* cpu:ring of dilated attention: the schedule of a ring within one process. Tokens are cut into
 * blocks; the queries of each meet the keys of all blocks, its own first and then those that a ring
 * would bring, and merge as they go into a state of f32. Memory is shared, so nothing is passed on.
 */
#include "dilated_cost.h"
#include "dilated_schedule.h"

#include <heed/ring.h>

enum { FEW_BLOCKS = 4 };

static int32_t blocks_of(const heed_dilated_desc_t *desc)
{
    return desc->blocks ? desc->blocks : FEW_BLOCKS;
}

/* Step t of block r: the keys of the block t places behind it. */
static heed_status_t add_step(hd_dilated_schedule_t *ring, int32_t r, int32_t t)
{
    const heed_dilated_desc_t *desc = ring->desc;
    hd_dilated_part_t part = hd_dilated_whole(desc, &ring->state);
    int32_t blocks = blocks_of(desc);
    heed_ring_run_t queries[2], keys[2];
    heed_ring_runs(HEED_RING_CONTIGUOUS, r, blocks, desc->q.shape[1], queries);
    heed_ring_runs(HEED_RING_CONTIGUOUS, (r + blocks - t) % blocks, blocks, desc->q.shape[1], keys);
    if (queries[0].count == 0 || keys[0].count == 0 ||
        (desc->causal && keys[0].first > queries[0].first))
        return HEED_OK;
    part.query_first = queries[0].first;
    part.query_end = queries[0].first + queries[0].count;
    part.key_first = keys[0].first;
    part.key_end = keys[0].first + keys[0].count;
    for (int i = 0; i < desc->branches; i++)
        HD_TRY(hd_dilated_branch(ring->context, &ring->steps, &part, i, true));
    return HEED_OK;
}

static heed_status_t add_steps(hd_dilated_schedule_t *ring)
{
    int32_t blocks = blocks_of(ring->desc);
    for (int32_t r = 0; r < blocks; r++)
        for (int32_t t = 0; t < blocks; t++)
            HD_TRY(add_step(ring, r, t));
    return HEED_OK;
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    return hd_dilated_prepare(context, desc, sizeof(hd_dilated_schedule_t), true, add_steps,
                              hd_dilated_release, state, workspace);
}

/* As improved; but each block has the steps of all, and meets one neighbour in every branch; the
 * state is cleared first and, where it is not the caller's, copied at the end. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    double steps = 2 * blocks_of(desc) * hd_dilated_step_count(desc);
    return hd_dilated_ns(desc, device, threads) + hd_dilated_start_ns(device, threads) * steps +
           hd_dilated_state_ns(desc, device, threads);
}

const heed_impl_t hd_impl_dilated_ring = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:ring",
    .about = "blocks of queries meet blocks of keys in turn, as in a ring, within one process",
    .device_type = HEED_DEVICE_CPU,
    .features = HD_DILATED_EXACT,
    .estimate = estimate,
    .run = hd_dilated_run,
    .prepare = prepare,
    .release = hd_dilated_release,
};
