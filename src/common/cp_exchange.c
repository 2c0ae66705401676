/* Heads for tokens: the members of a group deal out their queries, keys and values by heads, so
 * that each has all of the group's tokens of some heads, and the results back by tokens. */
#include "context_parallel.h"

#include <string.h>

static hd_grid_t grid_of(const hd_cp_t *cp, int32_t *number, int32_t *member)
{
    hd_grid_t grid = hd_grid(cp->desc.layout, cp->comm.size, cp->desc.group);
    hd_grid_place(&grid, cp->comm.rank, number, member);
    return grid;
}

static int64_t key_rows(const hd_cp_t *cp, int32_t rank)
{
    return hd_cp_keys(&cp->desc, cp->comm.size, rank).rows;
}

static int64_t query_rows(const hd_cp_t *cp, int32_t rank)
{
    return hd_cp_queries(&cp->desc, cp->comm.size, rank).rows;
}

/* A message in, of the tokens that its sender had: q, k, v of the receiver's heads. */
static size_t bytes_in(const hd_cp_t *cp, int32_t sender)
{
    return hd_cp_bytes(&cp->q, query_rows(cp, sender), cp->deal.count) +
           hd_cp_bytes(&cp->k, key_rows(cp, sender), cp->deal.key_count) +
           hd_cp_bytes(&cp->v, key_rows(cp, sender), cp->deal.key_count);
}

/* A message out, of the tokens of its receiver: out and lse of the sender's heads. */
static size_t lse_bytes(const hd_cp_t *cp, int64_t rows)
{
    return cp->lse.ndim ? (size_t)(cp->q.shape[0] * cp->deal.count * rows) * sizeof(float) : 0;
}

static size_t bytes_out(const hd_cp_t *cp, int32_t receiver)
{
    int64_t rows = query_rows(cp, receiver);
    return hd_round_up(hd_cp_bytes(&cp->out, rows, cp->deal.count), sizeof(float)) +
           lse_bytes(cp, rows);
}

/* Both ways share the memory: a message for each member, one from each. */
void hd_cp_exchange_prepare(hd_cp_t *cp)
{
    int32_t number, member;
    hd_grid_t grid = grid_of(cp, &number, &member);
    cp->message = 0;
    for (int32_t m = 0; m < grid.group; m++) {
        int32_t rank = hd_grid_rank(&grid, number, m);
        size_t in = bytes_in(cp, rank), out = bytes_out(cp, rank);
        in = in > out ? in : out;
        cp->message = in > cp->message ? in : cp->message;
    }
    cp->message = hd_round_up(cp->message, 64);
    cp->send_at = hd_cp_reserve(cp, cp->message * (size_t)grid.group);
    cp->got_at = hd_cp_reserve(cp, cp->message * (size_t)grid.group);
    cp->heads_at = hd_cp_reserve(cp, hd_cp_bytes(&cp->q, cp->group_queries.rows, cp->deal.count));
}

static char *sent(const hd_cp_t *cp, int32_t member)
{
    return cp->memory + cp->send_at + (size_t)member * cp->message;
}

static char *got(const hd_cp_t *cp, int32_t member)
{
    return cp->memory + cp->got_at + (size_t)member * cp->message;
}

/* Sends to all members and receives from all; what is for oneself only changes its place. */
static heed_status_t exchange(const hd_cp_t *cp, bool in)
{
    int32_t number, member;
    hd_grid_t grid = grid_of(cp, &number, &member);
    const heed_comm_t *comm = &cp->comm;
    for (int32_t t = 1; t < grid.group; t++) {
        int32_t to = (member + t) % grid.group, from = (member + grid.group - t) % grid.group;
        int32_t receiver = hd_grid_rank(&grid, number, to);
        int32_t sender = hd_grid_rank(&grid, number, from);
        size_t out_bytes = in ? bytes_in(cp, comm->rank) : bytes_out(cp, receiver);
        size_t in_bytes = in ? bytes_in(cp, sender) : bytes_out(cp, comm->rank);
        HD_TRY(comm->send(comm->user, receiver, sent(cp, to), out_bytes));
        HD_TRY(comm->recv(comm->user, sender, got(cp, from), in_bytes));
    }
    memcpy(got(cp, member), sent(cp, member),
           in ? bytes_in(cp, comm->rank) : bytes_out(cp, comm->rank));
    return comm->wait(comm->user);
}

/* Rows of one member's dense tensor to where its tokens lie among the group's; returns its end. */
static char *place(const hd_cp_t *cp, const heed_tensor_t *like, int64_t heads,
                   const hd_tokens_t *tokens, char *from, const hd_tokens_t *all, char *to)
{
    hd_axes_t axes[2];
    heed_tensor_t part = hd_cp_dense(like, tokens->rows, heads, &axes[0]);
    heed_tensor_t whole = hd_cp_dense(like, all->rows, heads, &axes[1]);
    for (int i = 0; i < tokens->count; i++) {
        const heed_ring_run_t *run = &tokens->runs[i];
        if (run->count == 0)
            continue;
        hd_move_t source = {&part, from, hd_tokens_first(tokens, i), 1, 0};
        hd_move_t target = {&whole, to, hd_tokens_row(all, run->first),
                            run->distance / all->runs[0].distance, 0};
        hd_cp_move(cp, &source, &target, run->count, heads);
    }
    return from + hd_cp_bytes(like, tokens->rows, heads);
}

heed_status_t hd_cp_exchange_in(hd_cp_t *cp)
{
    int32_t number, member;
    hd_grid_t grid = grid_of(cp, &number, &member);
    const heed_context_parallel_desc_t *desc = &cp->desc;
    hd_tokens_t keys = hd_grid_tokens(&grid, desc->layout, number, desc->tokens, 0);
    for (int32_t m = 0; m < grid.group; m++) {
        hd_deal_t deal;
        char *to = sent(cp, m);
        hd_cp_deal(cp->q.shape[2], cp->k.shape[2], grid.group, m, &deal, NULL);
        to = hd_cp_pack(cp, &cp->q, hd_tensor_data(&desc->q), &cp->queries, m * deal.count,
                        deal.count, to);
        to = hd_cp_pack(cp, &cp->k, hd_tensor_data(&desc->k), &cp->keys, deal.key_first,
                        deal.key_count, to);
        hd_cp_pack(cp, &cp->v, hd_tensor_data(&desc->v), &cp->keys, deal.key_first, deal.key_count,
                   to);
    }
    HD_TRY(exchange(cp, true));
    cp->buffers[HEED_ATTENTION_Q] = cp->memory + cp->heads_at;
    char *k = cp->memory + cp->part_at[0];
    char *v = k + hd_cp_bytes(&cp->k, keys.rows, cp->deal.key_count);
    for (int32_t m = 0; m < grid.group; m++) {
        int32_t rank = hd_grid_rank(&grid, number, m);
        hd_tokens_t q_tokens = hd_cp_queries(desc, cp->comm.size, rank);
        hd_tokens_t k_tokens = hd_cp_keys(desc, cp->comm.size, rank);
        char *from = place(cp, &cp->q, cp->deal.count, &q_tokens, got(cp, m), &cp->group_queries,
                           cp->buffers[HEED_ATTENTION_Q]);
        from = place(cp, &cp->k, cp->deal.key_count, &k_tokens, from, &keys, k);
        place(cp, &cp->v, cp->deal.key_count, &k_tokens, from, &keys, v);
    }
    return HEED_OK;
}

/* ---- results --------------------------------------------------------------------------------- */

/* A message's lse [B,heads,rows], which follows its out. */
static heed_tensor_t lse_of(const hd_cp_t *cp, int64_t rows, int64_t heads, hd_axes_t *axes)
{
    memcpy(axes->shape, (int64_t[]){cp->q.shape[0], heads, rows}, 3 * sizeof(int64_t));
    hd_dense_strides(3, axes->shape, axes->strides);
    return heed_tensor(NULL, HEED_F32, 3, axes->shape, axes->strides);
}

static void fill_results(const hd_cp_t *cp, const hd_tokens_t *tokens, char *to)
{
    hd_axes_t axes[2];
    heed_tensor_t out = hd_cp_dense(&cp->out, tokens->rows, cp->deal.count, &axes[0]);
    heed_tensor_t lse = lse_of(cp, tokens->rows, cp->deal.count, &axes[1]);
    size_t bytes = hd_round_up(hd_cp_bytes(&cp->out, tokens->rows, cp->deal.count), sizeof(float));
    if (!cp->lse.ndim)
        lse.ndim = 0;
    for (int i = 0; i < tokens->count; i++) {
        const heed_ring_run_t *run = &tokens->runs[i];
        if (run->count == 0)
            continue;
        hd_rows_t rows = {hd_tokens_row(&cp->group_queries, run->first), run->count,
                          hd_tokens_first(tokens, i), 1,
                          run->distance / cp->group_queries.runs[0].distance};
        hd_state_store(&cp->state, cp->buffers, &rows, &out, to, &lse, to + bytes,
                       cp->context->devices[0].threads);
    }
}

/* As one head [B,rows,heads,1], so that rows of lse move as others do. */
static heed_tensor_t as_rows(const heed_tensor_t *lse, hd_axes_t *axes)
{
    memcpy(axes->shape, (int64_t[]){lse->shape[0], lse->shape[2], lse->shape[1], 1},
           4 * sizeof(int64_t));
    memcpy(axes->strides, (int64_t[]){lse->strides[0], lse->strides[2], lse->strides[1], 1},
           4 * sizeof(int64_t));
    return heed_tensor(NULL, HEED_F32, 4, axes->shape, axes->strides);
}

/* What member m computed for this rank's tokens, to the caller's tensors. */
static void take_results(const hd_cp_t *cp, int32_t m)
{
    hd_axes_t axes[4];
    heed_tensor_t out = hd_cp_dense(&cp->out, cp->queries.rows, cp->deal.count, &axes[0]);
    heed_tensor_t lse = lse_of(cp, cp->queries.rows, cp->deal.count, &axes[1]);
    char *from = got(cp, m);
    size_t bytes = hd_round_up(hd_cp_bytes(&cp->out, cp->queries.rows, cp->deal.count), 4);
    hd_cp_unpack(cp, &out, from, &cp->queries, &cp->out, hd_tensor_data(&cp->desc.out),
                 m * cp->deal.count);
    if (!cp->lse.ndim)
        return;
    lse = as_rows(&lse, &axes[2]);
    heed_tensor_t to = as_rows(&cp->lse, &axes[3]);
    hd_cp_unpack(cp, &lse, from + bytes, &cp->queries, &to, hd_tensor_data(&cp->desc.lse),
                 m * cp->deal.count);
}

heed_status_t hd_cp_exchange_out(hd_cp_t *cp)
{
    int32_t number, member;
    hd_grid_t grid = grid_of(cp, &number, &member);
    for (int32_t m = 0; m < grid.group; m++) {
        hd_tokens_t tokens =
            hd_cp_queries(&cp->desc, cp->comm.size, hd_grid_rank(&grid, number, m));
        fill_results(cp, &tokens, sent(cp, m));
    }
    HD_TRY(exchange(cp, false));
    for (int32_t m = 0; m < grid.group; m++)
        take_results(cp, m);
    return HEED_OK;
}
