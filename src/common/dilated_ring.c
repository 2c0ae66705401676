/* cpu:ring of dilated attention: the schedule of a ring within one process. Tokens are cut into
 * blocks; the queries of each meet the keys of all blocks, its own first and then those that a ring
 * would bring, and merge as they go into a state of f32. Memory is shared, so nothing is passed on.
 */
#include "dilated_steps.h"
#include "op.h"

#include <heed/ring.h>

#include <string.h>

enum { FEW_BLOCKS = 4 };

typedef struct ring {
    const heed_dilated_desc_t *desc;
    hd_state_t state; /* in the workspace, as far as it is not the caller's */
    hd_steps_t steps;
} ring_t;

extern const hd_op_t hd_op_dilated;

static int32_t blocks_of(const heed_dilated_desc_t *desc)
{
    return desc->blocks ? desc->blocks : FEW_BLOCKS;
}

static void release(heed_context_t *context, void *state)
{
    ring_t *ring = state;
    if (!ring)
        return;
    hd_steps_free(context, &ring->steps);
    hd_free(context, ring);
}

/* Step t of block r: the keys of the block t places behind it. */
static heed_status_t add_steps(heed_context_t *context, ring_t *ring, int32_t r, int32_t t)
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
        HD_TRY(hd_dilated_branch(context, &ring->steps, &part, i, true));
    return HEED_OK;
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    heed_status_t status = HEED_OK;
    ring_t *ring = hd_alloc(context, sizeof(*ring));
    if (!ring)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a ring");
    memset(ring, 0, sizeof(*ring));
    ring->desc = desc;
    hd_state_describe(&ring->desc->out, &ring->desc->lse, true, -1, &ring->state);
    int32_t blocks = blocks_of(desc);
    for (int32_t r = 0; r < blocks && status == HEED_OK; r++)
        for (int32_t t = 0; t < blocks && status == HEED_OK; t++)
            status = add_steps(context, ring, r, t);
    if (status != HEED_OK) {
        release(context, ring);
        return status;
    }
    *state = ring;
    *workspace = ring->state.out_bytes + ring->state.lse_bytes + ring->steps.workspace;
    return HEED_OK;
}

static heed_status_t run(const heed_launch_t *launch)
{
    const ring_t *ring = launch->state;
    const hd_state_t *state = &ring->state;
    char *buffers[HD_STEP_OPERANDS], *memory = launch->workspace;
    void *out = launch->buffers[HEED_DILATED_OUT], *lse = launch->buffers[HEED_DILATED_LSE];
    for (int n = HEED_ATTENTION_Q; n <= HEED_ATTENTION_V; n++)
        buffers[n] = launch->buffers[n];
    hd_state_buffers(state, out, lse, memory, &buffers[HEED_ATTENTION_OUT],
                     &buffers[HEED_ATTENTION_LSE]);
    hd_state_clear(state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE],
                   launch->threads);
    HD_TRY(hd_steps_run(&ring->steps, 0, ring->steps.count, buffers,
                        memory + state->out_bytes + state->lse_bytes));
    hd_rows_t all = {.count = ring->desc->q.shape[1], .distance = 1, .apart = 1};
    hd_state_store(state, buffers, &all, &ring->desc->out, out, &ring->desc->lse, lse,
                   launch->threads);
    return HEED_OK;
}

/* As improved; each block has the steps of all, and meets one neighbour in every branch. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    hd_work_t work;
    hd_op_dilated.work(at, &work);
    return hd_dilated_ns(at, device, threads, work.flops,
                         2 * blocks_of(at) * hd_dilated_step_count(at));
}

const heed_impl_t hd_impl_dilated_ring = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:ring",
    .about = "blocks of queries meet blocks of keys in turn, as in a ring, within one process",
    .device_type = HEED_DEVICE_CPU,
    .features = HD_DILATED_EXACT,
    .estimate = estimate,
    .run = run,
    .prepare = prepare,
    .release = release,
};
