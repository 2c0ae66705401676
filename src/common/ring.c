/* Keys go around. In step t a rank has the keys and values of the rank that is t places behind it;
 * while it computes on them they go on to the next, and those of the one before arrive in a second
 * buffer. Where ranks exchange heads first (cp_exchange.c), the ring is one of groups, and a rank
 * speaks to the one at its place in the next. */
#include "context_parallel.h"

#include <string.h>

static hd_grid_t grid_of(const hd_cp_t *cp)
{
    return hd_grid(cp->desc.layout, cp->comm.size, cp->desc.group);
}

/* Tokens of the group whose keys are here in step t. */
static hd_tokens_t source(const hd_cp_t *cp, int64_t t)
{
    hd_grid_t grid = grid_of(cp);
    int32_t number, member;
    hd_grid_place(&grid, cp->comm.rank, &number, &member);
    number = (int32_t)((number + grid.groups - t) % grid.groups);
    return hd_grid_tokens(&grid, cp->desc.layout, number, cp->desc.tokens, 0);
}

static int32_t neighbour(const hd_cp_t *cp, int32_t places)
{
    hd_grid_t grid = grid_of(cp);
    int32_t number, member;
    hd_grid_place(&grid, cp->comm.rank, &number, &member);
    return hd_grid_rank(&grid, (number + grid.groups + places) % grid.groups, member);
}

static size_t part_bytes(const hd_cp_t *cp, int64_t rows)
{
    return hd_cp_bytes(&cp->k, rows, cp->deal.key_count) +
           hd_cp_bytes(&cp->v, rows, cp->deal.key_count);
}

/* ---- preparing ------------------------------------------------------------------------------- */

/* What one step adds: this rank's queries over the packed keys and values of another. */
static heed_status_t add_step(hd_cp_t *cp, int64_t t, const hd_side_t *queries,
                              const hd_side_t *results)
{
    hd_tokens_t tokens = source(cp, t);
    hd_axes_t axes[2];
    hd_side_t keys = {.first = hd_cp_dense(&cp->k, tokens.rows, cp->deal.key_count, &axes[0]),
                      .second = hd_cp_dense(&cp->v, tokens.rows, cp->deal.key_count, &axes[1]),
                      .tokens = &tokens};
    HD_TRY(hd_cp_add(cp, queries, results, &keys));
    cp->phase_end[t] = cp->steps.count;
    cp->largest = hd_max(cp->largest, tokens.rows);
    return HEED_OK;
}

static heed_status_t prepare(hd_cp_t *cp)
{
    int32_t groups = cp->comm.size / cp->desc.group;
    hd_axes_t axes;
    hd_side_t queries = {.first = cp->q, .tokens = &cp->group_queries, .whole = cp->desc.whole};
    if (cp->desc.group > 1) {
        queries.first = hd_cp_dense(&cp->q, cp->group_queries.rows, cp->deal.count, &axes);
        queries.whole = false;
    }
    HD_TRY(hd_cp_phases(cp, groups));
    hd_side_t results = {cp->state.out, cp->state.lse, {0, 0}, &cp->group_queries, false};
    for (int64_t t = 0; t < groups; t++)
        HD_TRY(add_step(cp, t, &queries, &results));
    cp->state_at = hd_cp_reserve(cp, cp->state.out_bytes + cp->state.lse_bytes);
    for (int i = 0; i < 2; i++)
        cp->part_at[i] = hd_cp_reserve(cp, part_bytes(cp, cp->largest));
    if (cp->desc.group > 1)
        hd_cp_exchange_prepare(cp);
    return hd_cp_allocate(cp);
}

/* ---- running --------------------------------------------------------------------------------- */

/* Starts the exchange for step t+1: what is in `now` goes on, the next arrives in `later`. */
static heed_status_t pass_on(const hd_cp_t *cp, int64_t t, const char *now, char *later)
{
    const heed_comm_t *comm = &cp->comm;
    HD_TRY(comm->send(comm->user, neighbour(cp, 1), now, part_bytes(cp, source(cp, t).rows)));
    return comm->recv(comm->user, neighbour(cp, -1), later, part_bytes(cp, source(cp, t + 1).rows));
}

static heed_status_t go_around(hd_cp_t *cp)
{
    int64_t groups = cp->comm.size / cp->desc.group;
    for (int64_t t = 0; t < groups; t++) {
        char *now = cp->memory + cp->part_at[t % 2], *later = cp->memory + cp->part_at[(t + 1) % 2];
        hd_waiter_t waiter = {.started = false};
        if (t + 1 < groups) {
            HD_TRY(pass_on(cp, t, now, later));
            hd_waiter_start(&waiter, &cp->comm);
        }
        cp->buffers[HEED_ATTENTION_K] = now;
        cp->buffers[HEED_ATTENTION_V] =
            now + hd_cp_bytes(&cp->k, source(cp, t).rows, cp->deal.key_count);
        HD_TRY(hd_waiter_finish(&waiter, hd_cp_run_phase(cp, t)));
    }
    return HEED_OK;
}

static heed_status_t run(hd_cp_t *cp)
{
    char *part = cp->memory + cp->part_at[0];
    cp->buffers[HEED_ATTENTION_Q] = hd_tensor_data(&cp->desc.q);
    if (cp->desc.group > 1) {
        HD_TRY(hd_cp_exchange_in(cp));
    } else {
        int64_t heads = cp->deal.key_count;
        part = hd_cp_pack(cp, &cp->k, hd_tensor_data(&cp->desc.k), &cp->keys, 0, heads, part);
        hd_cp_pack(cp, &cp->v, hd_tensor_data(&cp->desc.v), &cp->keys, 0, heads, part);
    }
    hd_cp_begin(cp);
    HD_TRY(go_around(cp));
    if (cp->desc.group > 1)
        return hd_cp_exchange_out(cp);
    hd_cp_end(cp);
    return HEED_OK;
}

const hd_cp_method_t hd_cp_ring = {prepare, run};

heed_status_t heed_ring_attention(heed_context_t *context, const heed_comm_t *comm,
                                  const heed_ring_desc_t *desc)
{
    heed_ring_desc_t ring;
    heed_context_parallel_desc_t parallel;
    HD_TRY(hd_struct_copy(&ring, sizeof(ring), desc, sizeof(ring), "desc"));
    hd_ring_describe(&ring, &parallel);
    return heed_context_parallel_attention(context, comm, &parallel);
}
