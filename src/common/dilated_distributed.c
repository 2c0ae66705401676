/* cpu:distributed of dilated attention: a ring over a communicator. Ranks have neighbouring parts
 * of the tokens; while a rank computes on the keys and values of one, they go on to the next rank
 * and those of the one before arrive. */
#include "context_parallel.h"
#include "dilated_cost.h"
#include "dilated_steps.h"
#include "op.h"

#include <string.h>

typedef struct ring {
    heed_context_t *context;
    const heed_dilated_desc_t *desc;
    heed_comm_t comm;
    hd_state_t state; /* in the workspace, as far as it is not the caller's */
    hd_steps_t steps;
    int64_t *phase_end; /* [ranks] steps of phase t end there */
    size_t part_bytes;  /* keys and values of the largest part */
} ring_t;

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_dilated_desc_t *desc = at;
    heed_comm_t comm;
    (void)device;
    if (!desc->comm)
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED,
                         "comm is null: there are no ranks to distribute over");
    if (hd_comm_enter(desc->comm, &comm) != HEED_OK || !hd_comm_on_host(&comm))
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "comm carries memory of a device");
    return 1;
}

/* Tokens of the rank whose keys are here in phase t. */
static heed_ring_run_t source(const ring_t *ring, int64_t t)
{
    heed_ring_run_t runs[2];
    heed_ring_runs(HEED_RING_CONTIGUOUS, hd_rank_before(&ring->comm, t), ring->comm.size,
                   ring->desc->tokens, runs);
    return runs[0];
}

static size_t key_bytes(const ring_t *ring, int64_t rows)
{
    return hd_cp_bytes(&ring->desc->k, rows, ring->desc->k.shape[2]);
}

static size_t part_bytes(const ring_t *ring, int64_t rows)
{
    return key_bytes(ring, rows) + hd_cp_bytes(&ring->desc->v, rows, ring->desc->v.shape[2]);
}

/* ---- preparing ------------------------------------------------------------------------------- */

static void release(heed_context_t *context, void *state)
{
    ring_t *ring = state;
    if (!ring)
        return;
    hd_steps_free(context, &ring->steps);
    hd_free(context, ring->phase_end);
    hd_free(context, ring);
}

static heed_status_t add_phase(ring_t *ring, int64_t t)
{
    const heed_dilated_desc_t *desc = ring->desc;
    heed_ring_run_t own = source(ring, 0), from = source(ring, t);
    hd_axes_t axes[2];
    hd_dilated_part_t part = {.desc = desc, .q = desc->q, .state = &ring->state};
    part.k = hd_cp_dense(&desc->k, from.count, desc->k.shape[2], &axes[0]);
    part.v = hd_cp_dense(&desc->v, from.count, desc->v.shape[2], &axes[1]);
    part.query_base = part.query_first = own.first;
    part.query_end = own.first + own.count;
    part.key_base = part.key_first = from.first;
    part.key_end = from.first + from.count;
    bool sees = own.count > 0 && from.count > 0 && !(desc->causal && from.first > own.first);
    for (int i = 0; sees && i < desc->branches; i++)
        HD_TRY(hd_dilated_branch(ring->context, &ring->steps, &part, i, true));
    ring->phase_end[t] = ring->steps.count;
    size_t bytes = hd_round_up(part_bytes(ring, from.count), 64);
    ring->part_bytes = bytes > ring->part_bytes ? bytes : ring->part_bytes;
    return HEED_OK;
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    ring_t *ring = hd_alloc(context, sizeof(*ring));
    if (!ring)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a ring");
    memset(ring, 0, sizeof(*ring));
    ring->context = context;
    ring->desc = desc;
    heed_status_t status = hd_comm_enter(ring->desc->comm, &ring->comm);
    if (status == HEED_OK) {
        hd_state_describe(&ring->desc->out, &ring->desc->lse, true, -1, &ring->state);
        ring->phase_end = hd_alloc(context, (size_t)ring->comm.size * sizeof(int64_t));
        if (!ring->phase_end)
            status = hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a ring");
    }
    for (int64_t t = 0; t < ring->comm.size && status == HEED_OK; t++)
        status = add_phase(ring, t);
    if (status != HEED_OK) {
        release(context, ring);
        return status;
    }
    *state = ring;
    *workspace = ring->state.out_bytes + ring->state.lse_bytes + 2 * ring->part_bytes +
                 ring->steps.workspace;
    return HEED_OK;
}

/* ---- agreeing -------------------------------------------------------------------------------- */

/* One number that tells lists apart. */
static int64_t digest(const int64_t *list, int count)
{
    uint64_t sum = 0;
    for (int i = 0; i < count; i++)
        sum = (sum + (uint64_t)list[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return (int64_t)sum;
}

static heed_status_t agree(const ring_t *ring)
{
    static const char *const names[] = {"tokens",      "batch",      "heads of q", "heads of k",
                                        "q.shape[3]",  "v.shape[3]", "dtype of q", "mode",
                                        "offset_rule", "causal",     "branches",   "segments",
                                        "rates",       "scale"};
    const heed_dilated_desc_t *desc = ring->desc;
    hd_greeting_t greeting;
    memset(&greeting, 0, sizeof(greeting));
    const int64_t numbers[] = {desc->tokens,
                               desc->q.shape[0],
                               desc->q.shape[2],
                               desc->k.shape[2],
                               desc->q.shape[3],
                               desc->v.shape[3],
                               desc->q.dtype,
                               desc->mode,
                               desc->offset_rule,
                               desc->causal,
                               desc->branches,
                               digest(desc->segments, desc->branches),
                               digest(desc->rates, desc->branches)};
    _Static_assert(HD_COUNT(numbers) + 1 == HD_COUNT(names), "a name for each");
    memcpy(greeting.numbers, numbers, sizeof(numbers));
    greeting.real = desc->scale;
    return hd_comm_agree(ring->context, &ring->comm, &greeting, names, HD_COUNT(numbers));
}

/* ---- running --------------------------------------------------------------------------------- */

static void pack(const ring_t *ring, const heed_tensor_t *tensor, void *data, char *to)
{
    const hd_cp_t team = {.context = ring->context}; /* all that moving looks at */
    int64_t rows = tensor->shape[1], heads = tensor->shape[2];
    hd_axes_t axes;
    heed_tensor_t dense = hd_cp_dense(tensor, rows, heads, &axes);
    hd_move_t from = {tensor, data, 0, 1, 0}, target = {&dense, to, 0, 1, 0};
    hd_cp_move(&team, &from, &target, rows, heads);
}

/* Starts the exchange for phase t+1: what is in `now` goes on, the next arrives in `later`. */
static heed_status_t pass_on(const ring_t *ring, int64_t t, const char *now, char *later)
{
    const heed_comm_t *comm = &ring->comm;
    HD_TRY(comm->send(comm->user, hd_rank_after(comm, 1), now,
                      part_bytes(ring, source(ring, t).count)));
    return comm->recv(comm->user, hd_rank_before(comm, 1), later,
                      part_bytes(ring, source(ring, t + 1).count));
}

static heed_status_t go_around(const ring_t *ring, char **buffers, char *const *parts,
                               void *workspace)
{
    for (int64_t t = 0; t < ring->comm.size; t++) {
        char *now = parts[t % 2], *later = parts[(t + 1) % 2];
        hd_waiter_t waiter = {.started = false};
        if (t + 1 < ring->comm.size) {
            HD_TRY(pass_on(ring, t, now, later));
            hd_waiter_start(&waiter, &ring->comm);
        }
        buffers[HEED_ATTENTION_K] = now;
        buffers[HEED_ATTENTION_V] = now + key_bytes(ring, source(ring, t).count);
        heed_status_t computed = hd_steps_run(&ring->steps, t ? ring->phase_end[t - 1] : 0,
                                              ring->phase_end[t], buffers, workspace);
        HD_TRY(hd_waiter_finish(&waiter, computed));
    }
    return HEED_OK;
}

static heed_status_t run(const heed_launch_t *launch)
{
    const ring_t *ring = launch->state;
    const hd_state_t *state = &ring->state;
    const heed_dilated_desc_t *desc = ring->desc;
    char *buffers[HD_STEP_OPERANDS], *memory = launch->workspace;
    void *out = launch->buffers[HEED_DILATED_OUT], *lse = launch->buffers[HEED_DILATED_LSE];
    HD_TRY(agree(ring));
    buffers[HEED_ATTENTION_Q] = launch->buffers[HEED_DILATED_Q];
    hd_state_buffers(state, out, lse, memory, &buffers[HEED_ATTENTION_OUT],
                     &buffers[HEED_ATTENTION_LSE]);
    memory += state->out_bytes + state->lse_bytes;
    char *const parts[] = {memory, memory + ring->part_bytes};
    hd_state_clear(state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE],
                   launch->threads);
    pack(ring, &desc->k, launch->buffers[HEED_DILATED_K], parts[0]);
    pack(ring, &desc->v, launch->buffers[HEED_DILATED_V],
         parts[0] + key_bytes(ring, desc->k.shape[1]));
    HD_TRY(go_around(ring, buffers, parts, memory + 2 * ring->part_bytes));
    hd_rows_t all = {.count = desc->q.shape[1], .distance = 1, .apart = 1};
    hd_state_store(state, buffers, &all, &desc->out, out, &desc->lse, lse, launch->threads);
    return HEED_OK;
}

/* This rank's share as improved, with the steps of a neighbour for each branch, beside the
 * messages: whichever takes longer. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    heed_comm_t comm;
    if (!desc->comm || hd_comm_enter(desc->comm, &comm) != HEED_OK)
        return 0;
    double ns = hd_dilated_ns(desc, device, threads) +
                2 * hd_dilated_step_count(desc) * hd_dilated_start_ns(device, threads) +
                hd_dilated_state_ns(desc, device, threads);
    double bytes = (double)hd_tensor_elements(&desc->k) + (double)hd_tensor_elements(&desc->v);
    double rate = comm.bytes_per_second > 0 ? comm.bytes_per_second : 1e10;
    double messages =
        (comm.size - 1) *
        (comm.latency_ns + bytes * 1e9 / rate * (double)hd_dtype_bytes(desc->k.dtype));
    return messages > ns ? messages : ns;
}

const heed_impl_t hd_impl_dilated_distributed = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:distributed",
    .about = "a ring over a communicator, keys and values going around",
    .device_type = HEED_DEVICE_CPU,
    .features = HD_DILATED_EXACT | HEED_DILATED_CAN_RANKS,
    .supports = supports,
    .estimate = estimate,
    .run = run,
    .prepare = prepare,
    .release = release,
};
