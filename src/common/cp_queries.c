/* Keys stay where they are. PASS_Q: queries go around, each rank computes what its own keys add to
 * them, and sends that home. TREE: every rank has all queries, and two reductions merge. */
#include "context_parallel.h"

#include <math.h>
#include <string.h>

/* ---- PASS_Q ---------------------------------------------------------------------------------- */

static hd_tokens_t queries_of(const hd_cp_t *cp, int64_t t)
{
    return hd_cp_queries(&cp->desc, cp->comm.size, hd_rank_before(&cp->comm, t));
}

/* A state of `rows` queries: out, then lse, in f32. */
static size_t out_bytes(const hd_cp_t *cp, int64_t rows)
{
    return (size_t)(cp->out.shape[0] * rows * cp->out.shape[2] * cp->out.shape[3]) * sizeof(float);
}

static size_t state_bytes(const hd_cp_t *cp, int64_t rows)
{
    return out_bytes(cp, rows) +
           (size_t)(cp->out.shape[0] * rows * cp->out.shape[2]) * sizeof(float);
}

/* Of the queries that are here in step t; all lie one behind the other. */
static size_t state_at(const hd_cp_t *cp, int64_t t)
{
    size_t at = 0;
    for (int64_t i = 0; i < t; i++)
        at += hd_round_up(state_bytes(cp, queries_of(cp, i).rows), 64);
    return at;
}

static heed_tensor_t dense_state(const hd_cp_t *cp, int64_t rows, hd_axes_t axes[2],
                                 heed_tensor_t *lse)
{
    const int64_t *shape = cp->out.shape;
    heed_tensor_t out = hd_cp_dense(&cp->out, rows, shape[2], &axes[0]);
    memcpy(axes[1].shape, (int64_t[]){shape[0], shape[2], rows}, 3 * sizeof(int64_t));
    hd_dense_strides(3, axes[1].shape, axes[1].strides);
    *lse = heed_tensor(NULL, HEED_F32, 3, axes[1].shape, axes[1].strides);
    out.dtype = HEED_F32;
    return out;
}

static hd_side_t own_keys(const hd_cp_t *cp)
{
    return (hd_side_t){cp->k, cp->v, {0, 0}, &cp->keys, cp->desc.whole};
}

static heed_status_t add_visit(hd_cp_t *cp, int64_t t)
{
    hd_tokens_t tokens = queries_of(cp, t);
    hd_axes_t axes[3];
    hd_side_t keys = own_keys(cp), results = {.tokens = &tokens};
    hd_side_t queries = {.first = hd_cp_dense(&cp->q, tokens.rows, cp->q.shape[2], &axes[0]),
                         .tokens = &tokens};
    int64_t at = (int64_t)state_at(cp, t);
    results.first = dense_state(cp, tokens.rows, &axes[1], &results.second);
    results.at[0] = at;
    results.at[1] = at + (int64_t)out_bytes(cp, tokens.rows);
    HD_TRY(hd_cp_add(cp, &queries, &results, &keys));
    cp->phase_end[t] = cp->steps.count;
    cp->largest = hd_max(cp->largest, tokens.rows);
    return HEED_OK;
}

static heed_status_t prepare_pass(hd_cp_t *cp)
{
    int32_t size = cp->comm.size;
    HD_TRY(hd_cp_phases(cp, size));
    for (int64_t t = 0; t < size; t++)
        HD_TRY(add_visit(cp, t));
    for (int i = 0; i < 2; i++)
        cp->part_at[i] = hd_cp_reserve(cp, hd_cp_bytes(&cp->q, cp->largest, cp->q.shape[2]));
    cp->state_at = hd_cp_reserve(cp, cp->state.out_bytes + cp->state.lse_bytes);
    cp->send_at = hd_cp_reserve(cp, state_at(cp, size));
    cp->got_at =
        hd_cp_reserve(cp, (size_t)size * hd_round_up(state_bytes(cp, cp->queries.rows), 64));
    return hd_cp_allocate(cp);
}

static void clear_states(const hd_cp_t *cp)
{
    const float none = -INFINITY;
    for (int64_t t = 0; t < cp->comm.size; t++) {
        int64_t rows = queries_of(cp, t).rows;
        char *out = cp->memory + cp->send_at + state_at(cp, t), *lse = out + out_bytes(cp, rows);
        char *end = out + state_bytes(cp, rows);
        memset(out, 0, out_bytes(cp, rows));
        for (; lse < end; lse += sizeof(none))
            memcpy(lse, &none, sizeof(none));
    }
}

static heed_status_t visit_all(hd_cp_t *cp)
{
    const heed_comm_t *comm = &cp->comm;
    int64_t heads = cp->q.shape[2];
    for (int64_t t = 0; t < comm->size; t++) {
        char *now = cp->memory + cp->part_at[t % 2], *later = cp->memory + cp->part_at[(t + 1) % 2];
        hd_waiter_t waiter = {.started = false};
        if (t + 1 < comm->size) {
            HD_TRY(comm->send(comm->user, hd_rank_after(comm, 1), now,
                              hd_cp_bytes(&cp->q, queries_of(cp, t).rows, heads)));
            HD_TRY(comm->recv(comm->user, hd_rank_before(comm, 1), later,
                              hd_cp_bytes(&cp->q, queries_of(cp, t + 1).rows, heads)));
            hd_waiter_start(&waiter, comm);
        }
        cp->buffers[HEED_ATTENTION_Q] = now;
        HD_TRY(hd_waiter_finish(&waiter, hd_cp_run_phase(cp, t)));
    }
    return HEED_OK;
}

/* Each rank gets what all others have found for its queries. */
static heed_status_t send_home(const hd_cp_t *cp)
{
    const heed_comm_t *comm = &cp->comm;
    size_t own = state_bytes(cp, cp->queries.rows), place = hd_round_up(own, 64);
    char *got = cp->memory + cp->got_at;
    const char *states = cp->memory + cp->send_at;
    for (int32_t t = 1; t < comm->size; t++) {
        HD_TRY(comm->send(comm->user, hd_rank_before(comm, t), states + state_at(cp, t),
                          state_bytes(cp, queries_of(cp, t).rows)));
        HD_TRY(comm->recv(comm->user, hd_rank_after(comm, t), got + (size_t)t * place, own));
    }
    memcpy(got, states, own);
    return comm->wait(comm->user);
}

/* The parts into the state. */
static heed_status_t merge_parts(hd_cp_t *cp)
{
    int64_t rows = cp->queries.rows, place = (int64_t)hd_round_up(state_bytes(cp, rows), 64) / 4;
    const int64_t *out = cp->state.out.shape, *strides = cp->state.out.strides;
    const int64_t *lse = cp->state.lse.shape, *lse_strides = cp->state.lse.strides;
    int64_t out_shape[5] = {cp->comm.size, out[0], out[1], out[2], out[3]};
    int64_t out_strides[5] = {place, strides[0], strides[1], strides[2], strides[3]};
    int64_t lse_shape[4] = {cp->comm.size, lse[0], lse[1], lse[2]};
    int64_t part_strides[4] = {place, lse_strides[0], lse_strides[1], lse_strides[2]};
    heed_merge_desc_t desc = heed_merge_desc();
    char *parts = cp->memory + cp->got_at;
    desc.part_out = heed_tensor(parts, HEED_F32, 5, out_shape, out_strides);
    desc.part_lse = heed_tensor(parts + out_bytes(cp, rows), HEED_F32, 4, lse_shape, part_strides);
    desc.out = cp->state.out;
    desc.lse = cp->state.lse;
    hd_state_buffers(&cp->state, NULL, NULL, cp->memory + cp->state_at,
                     &cp->buffers[HEED_ATTENTION_OUT], &cp->buffers[HEED_ATTENTION_LSE]);
    desc.out.data = cp->buffers[HEED_ATTENTION_OUT];
    desc.lse.data = cp->buffers[HEED_ATTENTION_LSE];
    return heed_attention_merge(cp->context, &desc);
}

static heed_status_t run_pass(hd_cp_t *cp)
{
    clear_states(cp);
    hd_cp_pack(cp, &cp->q, hd_tensor_data(&cp->desc.q), &cp->queries, 0, cp->q.shape[2],
               cp->memory + cp->part_at[0]);
    cp->buffers[HEED_ATTENTION_K] = hd_tensor_data(&cp->desc.k);
    cp->buffers[HEED_ATTENTION_V] = hd_tensor_data(&cp->desc.v);
    cp->buffers[HEED_ATTENTION_OUT] = cp->buffers[HEED_ATTENTION_LSE] = cp->memory + cp->send_at;
    HD_TRY(visit_all(cp));
    HD_TRY(send_home(cp));
    HD_TRY(merge_parts(cp));
    hd_cp_end(cp);
    return HEED_OK;
}

const hd_cp_method_t hd_cp_pass_q = {prepare_pass, run_pass};

/* ---- TREE ------------------------------------------------------------------------------------ */

/* Rows of the state: dense, out of D numbers and one lse. */
static int64_t state_rows(const hd_cp_t *cp)
{
    return hd_tensor_elements(&cp->state.lse);
}

static heed_status_t prepare_tree(hd_cp_t *cp)
{
    hd_side_t queries = {.first = cp->q, .tokens = &cp->queries};
    hd_side_t results = {cp->state.out, cp->state.lse, {0, 0}, &cp->queries, false};
    hd_side_t keys = own_keys(cp);
    HD_TRY(hd_cp_phases(cp, 1));
    HD_TRY(hd_cp_add(cp, &queries, &results, &keys));
    cp->phase_end[0] = cp->steps.count;
    cp->state_at = hd_cp_reserve(cp, cp->state.out_bytes + cp->state.lse_bytes);
    /* The highest lse, then numerators and denominators as one block of numbers. */
    size_t rows = (size_t)state_rows(cp), dv = (size_t)cp->out.shape[3];
    cp->got_at = hd_cp_reserve(cp, rows * sizeof(float));
    cp->send_at = hd_cp_reserve(cp, rows * (dv + 1) * sizeof(float));
    return hd_cp_allocate(cp);
}

/* Where row number i of the dense lse [B,H,S] is in the dense out [B,S,H,D]. */
static float *out_row(const hd_cp_t *cp, int64_t i)
{
    const int64_t *shape = cp->state.lse.shape, *strides = cp->state.out.strides;
    int64_t s = i % shape[2], h = i / shape[2] % shape[1], b = i / shape[2] / shape[1];
    return (float *)(void *)cp->buffers[HEED_ATTENTION_OUT] + b * strides[0] + s * strides[1] +
           h * strides[2];
}

/* What this rank adds to a row: its state times exp(lse - top). NaN spreads. */
static void weigh(const hd_cp_t *cp, const float *top, float *numbers)
{
    const float *lse = (const float *)(void *)cp->buffers[HEED_ATTENTION_LSE];
    int64_t rows = state_rows(cp), dv = cp->out.shape[3];
    for (int64_t i = 0; i < rows; i++, numbers += dv + 1) {
        float weight = lse[i] == -INFINITY ? 0 : expf(lse[i] - top[i]);
        const float *out = out_row(cp, i);
        for (int64_t c = 0; c < dv; c++)
            numbers[c] = weight == 0 ? 0 : weight * out[c];
        numbers[dv] = weight;
    }
}

static void divide(const hd_cp_t *cp, const float *top, const float *numbers)
{
    float *lse = (float *)(void *)cp->buffers[HEED_ATTENTION_LSE];
    int64_t rows = state_rows(cp), dv = cp->out.shape[3];
    for (int64_t i = 0; i < rows; i++, numbers += dv + 1) {
        float *out = out_row(cp, i);
        for (int64_t c = 0; c < dv; c++)
            out[c] = numbers[dv] == 0 ? 0 : numbers[c] / numbers[dv];
        lse[i] = numbers[dv] == 0 ? -INFINITY : top[i] + logf(numbers[dv]);
    }
}

static heed_status_t run_tree(hd_cp_t *cp)
{
    const heed_comm_t *comm = &cp->comm;
    float *top = (float *)(void *)(cp->memory + cp->got_at);
    float *numbers = (float *)(void *)(cp->memory + cp->send_at);
    size_t rows = (size_t)state_rows(cp), dv = (size_t)cp->out.shape[3];
    cp->buffers[HEED_ATTENTION_Q] = hd_tensor_data(&cp->desc.q);
    cp->buffers[HEED_ATTENTION_K] = hd_tensor_data(&cp->desc.k);
    cp->buffers[HEED_ATTENTION_V] = hd_tensor_data(&cp->desc.v);
    hd_cp_begin(cp);
    HD_TRY(hd_cp_run_phase(cp, 0));
    memcpy(top, cp->buffers[HEED_ATTENTION_LSE], rows * sizeof(float));
    HD_TRY(heed_comm_all_reduce(cp->context, comm, HEED_F32, HEED_REDUCE_MAX, rows, top));
    weigh(cp, top, numbers);
    HD_TRY(heed_comm_all_reduce(cp->context, comm, HEED_F32, HEED_REDUCE_SUM, rows * (dv + 1),
                                numbers));
    divide(cp, top, numbers);
    hd_cp_end(cp);
    return HEED_OK;
}

const hd_cp_method_t hd_cp_tree = {prepare_tree, run_tree};
