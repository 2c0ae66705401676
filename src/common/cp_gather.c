/* Every rank gets the keys and values of all, a slice of heads at a time: while it computes on its
 * own part, and then on slice s, slice s + 1 arrives. */
#include "context_parallel.h"

#include <string.h>

/* Slices of key heads, at most so many: more would make messages and steps small. */
static int64_t slices_of(int64_t key_heads)
{
    enum { MOST = 4 };
    for (int64_t slices = MOST; slices > 1; slices--)
        if (key_heads % slices == 0)
            return slices;
    return 1;
}

/* One rank's keys and values of one slice. */
static size_t block_bytes(const hd_cp_t *cp, int64_t rows)
{
    int64_t heads = cp->k.shape[2] / cp->slices;
    return hd_cp_bytes(&cp->k, rows, heads) + hd_cp_bytes(&cp->v, rows, heads);
}

static int64_t rows_of(const hd_cp_t *cp, int32_t rank)
{
    return hd_cp_keys(&cp->desc, cp->comm.size, rank).rows;
}

/* The block that came from a rank lies behind those of the ranks before it. */
static size_t block_at(const hd_cp_t *cp, int32_t rank)
{
    size_t at = 0;
    for (int32_t r = 0; r < rank; r++)
        at += block_bytes(cp, rows_of(cp, r));
    return at;
}

/* ---- preparing ------------------------------------------------------------------------------- */

/* Queries of a slice's heads over the keys of a rank, which begin `at` bytes into their buffer. */
static heed_status_t add(hd_cp_t *cp, int64_t slice, int32_t rank, size_t at)
{
    int64_t count = cp->k.shape[2] / cp->slices, rows = rows_of(cp, rank);
    int64_t each = cp->q.shape[2] / cp->slices;
    hd_tokens_t tokens = hd_cp_keys(&cp->desc, cp->comm.size, rank);
    hd_axes_t axes[5];
    hd_side_t keys = {.first = hd_cp_dense(&cp->k, rows, count, &axes[0]),
                      .second = hd_cp_dense(&cp->v, rows, count, &axes[1]),
                      .at = {(int64_t)at, (int64_t)(at + hd_cp_bytes(&cp->k, rows, count))},
                      .tokens = &tokens};
    hd_side_t queries = {.tokens = &cp->queries, .whole = cp->desc.whole};
    hd_side_t results = {.tokens = &cp->queries};
    queries.first = hd_cp_heads(&cp->q, 2, slice * each, each, &axes[2], &queries.at[0]);
    results.first = hd_cp_heads(&cp->state.out, 2, slice * each, each, &axes[3], &results.at[0]);
    results.second = hd_cp_heads(&cp->state.lse, 1, slice * each, each, &axes[4], &results.at[1]);
    return hd_cp_add(cp, &queries, &results, &keys);
}

/* Phase 0 is all of this rank's own keys, phase s + 1 slice s of the others'. */
static heed_status_t prepare(hd_cp_t *cp)
{
    int32_t size = cp->comm.size;
    cp->slices = slices_of(cp->k.shape[2]);
    HD_TRY(hd_cp_phases(cp, cp->slices + 1));
    for (int64_t s = 0; s < cp->slices; s++)
        HD_TRY(add(cp, s, cp->comm.rank, (size_t)s * block_bytes(cp, cp->keys.rows)));
    cp->phase_end[0] = cp->steps.count;
    for (int64_t s = 0; s < cp->slices; s++) {
        for (int32_t t = 1; t < size; t++) {
            int32_t rank = hd_rank_before(&cp->comm, t);
            HD_TRY(add(cp, s, rank, block_at(cp, rank)));
        }
        cp->phase_end[s + 1] = cp->steps.count;
    }
    cp->state_at = hd_cp_reserve(cp, cp->state.out_bytes + cp->state.lse_bytes);
    cp->send_at = hd_cp_reserve(cp, (size_t)cp->slices * block_bytes(cp, cp->keys.rows));
    for (int i = 0; i < 2; i++)
        cp->part_at[i] = hd_cp_reserve(cp, block_at(cp, size));
    return hd_cp_allocate(cp);
}

/* ---- running --------------------------------------------------------------------------------- */

static void pack(const hd_cp_t *cp)
{
    int64_t heads = cp->k.shape[2] / cp->slices;
    char *to = cp->memory + cp->send_at;
    for (int64_t s = 0; s < cp->slices; s++) {
        to = hd_cp_pack(cp, &cp->k, hd_tensor_data(&cp->desc.k), &cp->keys, s * heads, heads, to);
        to = hd_cp_pack(cp, &cp->v, hd_tensor_data(&cp->desc.v), &cp->keys, s * heads, heads, to);
    }
}

static heed_status_t start(const hd_cp_t *cp, int64_t slice)
{
    const heed_comm_t *comm = &cp->comm;
    size_t bytes = block_bytes(cp, cp->keys.rows);
    const char *own = cp->memory + cp->send_at + (size_t)slice * bytes;
    char *part = cp->memory + cp->part_at[slice % 2];
    for (int32_t t = 1; t < comm->size; t++) {
        int32_t from = hd_rank_before(comm, t);
        HD_TRY(comm->send(comm->user, hd_rank_after(comm, t), own, bytes));
        HD_TRY(comm->recv(comm->user, from, part + block_at(cp, from),
                          block_bytes(cp, rows_of(cp, from))));
    }
    return HEED_OK;
}

static heed_status_t run(hd_cp_t *cp)
{
    pack(cp);
    hd_cp_begin(cp);
    cp->buffers[HEED_ATTENTION_Q] = hd_tensor_data(&cp->desc.q);
    for (int64_t phase = 0; phase <= cp->slices; phase++) {
        hd_waiter_t waiter = {.started = false};
        if (phase < cp->slices) {
            HD_TRY(start(cp, phase));
            hd_waiter_start(&waiter, &cp->comm);
        }
        char *keys = cp->memory + (phase ? cp->part_at[(phase - 1) % 2] : cp->send_at);
        cp->buffers[HEED_ATTENTION_K] = cp->buffers[HEED_ATTENTION_V] = keys;
        HD_TRY(hd_waiter_finish(&waiter, hd_cp_run_phase(cp, phase)));
    }
    hd_cp_end(cp);
    return HEED_OK;
}

const hd_cp_method_t hd_cp_all_gather = {prepare, run};
