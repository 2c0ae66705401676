/* Attention over ranks: look at the problem, choose a method, prepare, agree, run. */
#include "context_parallel.h"

#include <string.h>

const char *heed_context_parallel_name(heed_context_parallel_method_t method)
{
    switch (method) {
#define NAME(name, value, text)        \
    case HEED_CONTEXT_PARALLEL_##name: \
        return text;
        HEED_CONTEXT_PARALLEL_LIST(NAME)
#undef NAME
    }
    return "?";
}

static const hd_cp_method_t *method_of(const hd_cp_t *cp)
{
    switch (cp->desc.method) {
    case HEED_CONTEXT_PARALLEL_ALL_GATHER:
        return &hd_cp_all_gather;
    case HEED_CONTEXT_PARALLEL_PASS_Q:
        return &hd_cp_pass_q;
    case HEED_CONTEXT_PARALLEL_TREE:
        return &hd_cp_tree;
    default: /* rings, of ranks or of groups; with one group of all ranks nothing goes around */
        return &hd_cp_ring;
    }
}

/* The group that a method has, where it is not a choice. */
static void set_group(hd_cp_t *cp)
{
    if (cp->desc.method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL)
        cp->desc.group = cp->comm.size;
    else if (cp->desc.method != HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING)
        cp->desc.group = 1;
}

/* Where results are merged: the caller's tensors if they are f32 and hold this rank's rows alone,
 * else rows of one's own. */
static void describe_state(hd_cp_t *cp)
{
    hd_axes_t axes[2];
    int64_t at = 0, rows = cp->desc.whole ? cp->queries.rows : -1;
    heed_tensor_t out = hd_cp_heads(&cp->out, 2, 0, cp->deal.count, &axes[0], &at), lse = cp->lse;
    if (lse.ndim)
        lse = hd_cp_heads(&cp->lse, 1, 0, cp->deal.count, &axes[1], &at);
    if (cp->desc.group > 1 || cp->desc.method >= HEED_CONTEXT_PARALLEL_PASS_Q)
        rows = cp->group_queries.rows;
    hd_state_describe(rows < 0 ? &cp->out : &out, rows < 0 ? &cp->lse : &lse, true, rows,
                      &cp->state);
}

/* All that a rank can find out, and needs, by itself. */
static heed_status_t prepare(hd_cp_t *cp)
{
    heed_why_t why = {0};
    int32_t number, member;
    hd_grid_t grid = hd_grid(cp->desc.layout, cp->comm.size, cp->desc.group);
    hd_grid_place(&grid, cp->comm.rank, &number, &member);
    if (!hd_cp_deal(cp->q.shape[2], cp->k.shape[2], grid.group, member, &cp->deal, &why))
        return hd_fail(why.status, "%s: %s", heed_context_parallel_name(cp->desc.method), why.text);
    cp->group_queries = cp->queries;
    if (grid.group > 1) {
        int64_t queries = cp->desc.queries ? cp->desc.queries : cp->desc.tokens;
        cp->group_queries =
            hd_grid_tokens(&grid, cp->desc.layout, number, queries, cp->desc.tokens - queries);
    }
    describe_state(cp);
    return method_of(cp)->prepare(cp);
}

/* Every rank comes here, whatever it has found: it must not be waited for in vain. */
static heed_status_t agree(hd_cp_t *cp, heed_status_t own)
{
    hd_kept_t kept;
    hd_keep(&kept, own);
    heed_status_t agreed = hd_cp_agree(cp, own);
    return own == HEED_OK ? agreed : hd_kept(&kept);
}

static heed_status_t attend(hd_cp_t *cp)
{
    heed_status_t status = hd_cp_check(cp);
    bool open = cp->desc.method == HEED_CONTEXT_PARALLEL_AUTO ||
                (cp->desc.method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING && !cp->desc.group);
    if (open) {
        HD_TRY(agree(cp, status));
        HD_TRY(hd_cp_choose(cp));
    }
    if (status == HEED_OK) {
        set_group(cp);
        status = prepare(cp);
    }
    HD_TRY(agree(cp, status));
    return method_of(cp)->run(cp);
}

heed_status_t heed_context_parallel_attention(heed_context_t *context, const heed_comm_t *comm,
                                              const heed_context_parallel_desc_t *desc)
{
    hd_cp_t cp = {.context = context};
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_comm_enter(comm, &cp.comm));
    if (!hd_comm_on_host(&cp.comm))
        return hd_fail(HEED_ERROR_UNSUPPORTED,
                       "comm carries memory of a device: attention over ranks packs on the host");
    HD_TRY(hd_struct_copy(&cp.desc, sizeof(cp.desc), desc, sizeof(cp.desc), "desc"));
    heed_status_t status = attend(&cp);
    hd_steps_free(context, &cp.steps);
    hd_free(context, cp.phase_end);
    hd_free(context, cp.memory);
    return status;
}

void hd_ring_describe(const heed_ring_desc_t *ring, heed_context_parallel_desc_t *parallel)
{
    *parallel = heed_context_parallel_desc();
    parallel->method = HEED_CONTEXT_PARALLEL_RING;
    parallel->layout = ring->layout;
    parallel->causal = ring->causal;
    parallel->scale = ring->scale;
    parallel->window_left = ring->window_left;
    parallel->window_right = ring->window_right;
    parallel->tokens = ring->tokens;
    parallel->whole = ring->whole;
    parallel->q = ring->q;
    parallel->k = ring->k;
    parallel->v = ring->v;
    parallel->out = ring->out;
    parallel->lse = ring->lse;
    parallel->cu_seqlens = ring->cu_seqlens;
}
