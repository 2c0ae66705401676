/* What each method would cost: pairs of queries and keys by the very runs and bands that are
 * computed, at the rate that the context plans for one rank's share, and bytes at the
 * communicator's rate. A step takes as long as the rank with most to do in it, or as its messages.
 */
#include "context_parallel.h"
#include "peaks.h"

#include <math.h>
#include <string.h>

typedef struct model {
    const hd_cp_t *cp;
    int32_t size;
    double pair_ns;           /* of one pair in all heads and batches */
    double byte_ns, latency;  /* of messages */
    double q, k, v, out, lse; /* bytes of one token, all heads */
} model_t;

/* ---- work ------------------------------------------------------------------------------------ */

/* Sum over i < n of min(max(i + c, 0), m): keys below i + c. */
static double keys_below(int64_t n, int64_t m, int64_t c)
{
    int64_t first = hd_min(hd_max(0, -c), n), full = hd_min(hd_max(first, m - c), n);
    double ramp = (double)(full - first);
    return ramp * ((double)(first + c) + (ramp - 1) / 2) + (double)(n - full) * (double)m;
}

static double pairs_of_runs(const heed_context_parallel_desc_t *desc, heed_ring_run_t queries,
                            const heed_ring_run_t *keys)
{
    int64_t turns = keys->distance / queries.distance, low, high;
    double pairs = 0;
    heed_ring_run_t turn = {0, keys->distance, 0};
    for (int64_t i = 0; i < hd_min(turns, queries.count); i++) {
        turn.first = queries.first + i * queries.distance;
        turn.count = hd_ceil_div(queries.count - i, turns);
        hd_cp_band(desc, &turn, keys, &low, &high);
        if (low <= high)
            pairs += keys_below(turn.count, keys->count, high + 1) -
                     keys_below(turn.count, keys->count, low);
    }
    return pairs;
}

static double pairs(const hd_cp_t *cp, const hd_tokens_t *queries, const hd_tokens_t *keys)
{
    double all = 0;
    for (int a = 0; a < queries->count; a++)
        for (int b = 0; b < keys->count; b++) {
            const heed_ring_run_t *q = &queries->runs[a], *k = &keys->runs[b];
            hd_shared_t shared;
            for (int64_t d = hd_documents_find(&cp->documents, q, k);
                 hd_documents_share(&cp->documents, d, q, k, &shared); d++)
                all += pairs_of_runs(&cp->desc, shared.queries, &shared.keys);
        }
    return all;
}

/* ---- times ----------------------------------------------------------------------------------- */

typedef heed_context_parallel_verdict_t verdict_t;

static double message(const model_t *model, double bytes)
{
    return model->latency + bytes * model->byte_ns;
}

/* One step: computing, and messages beside it. */
static void add_step(verdict_t *verdict, double compute, double transfer)
{
    verdict->compute_ns += compute;
    verdict->transfer_ns += transfer;
    verdict->exposed_ns += fmax(0, transfer - compute);
}

static void add_exposed(verdict_t *verdict, double transfer)
{
    verdict->transfer_ns += transfer;
    verdict->exposed_ns += transfer;
}

static hd_tokens_t tokens_of(const model_t *model, const hd_grid_t *grid, int32_t number,
                             bool queries)
{
    const heed_context_parallel_desc_t *desc = &model->cp->desc;
    int64_t count = queries && desc->queries ? desc->queries : desc->tokens;
    if (queries && desc->everywhere)
        return hd_cp_queries(desc, grid->size, 0);
    return hd_grid_tokens(grid, desc->layout, number, count, desc->tokens - count);
}

/* Steps in which groups pass their keys, or their queries, to the next; `each` bytes a token. The
 * heads are shared by a group. */
static void add_rounds(const model_t *model, const hd_grid_t *grid, bool keys, double each,
                       verdict_t *verdict)
{
    for (int32_t t = 0; t < grid->groups; t++) {
        double work = 0, rows = 0;
        for (int32_t g = 0; g < grid->groups; g++) {
            int32_t other = (g + grid->groups - t) % grid->groups;
            hd_tokens_t q = tokens_of(model, grid, keys ? g : other, true);
            hd_tokens_t k = tokens_of(model, grid, keys ? other : g, false);
            work = fmax(work, pairs(model->cp, &q, &k));
            rows = fmax(rows, (double)(keys ? k.rows : q.rows));
        }
        bool last = t + 1 == grid->groups;
        add_step(verdict, work * model->pair_ns / grid->group,
                 last ? 0 : message(model, rows * each));
        verdict->bytes += last ? 0 : rows * each;
    }
}

static void model_ring(const model_t *model, int32_t group, verdict_t *verdict)
{
    const heed_context_parallel_desc_t *desc = &model->cp->desc;
    hd_grid_t grid = hd_grid(desc->layout, model->size, group);
    hd_deal_t deal;
    heed_why_t why;
    int64_t key_heads = model->cp->k.shape[2];
    if (!hd_cp_deal(model->cp->q.shape[2], key_heads, group, 0, &deal, &why)) {
        verdict->status = why.status;
        memcpy(verdict->why, why.text, sizeof(verdict->why));
        verdict->why[sizeof(verdict->why) - 1] = 0;
        return;
    }
    double share = (double)deal.key_count / (double)key_heads;
    add_rounds(model, &grid, true, (model->k + model->v) * share, verdict);
    if (group == 1)
        return;
    hd_tokens_t queries = hd_cp_queries(desc, model->size, 0);
    hd_tokens_t keys = hd_cp_keys(desc, model->size, 0);
    double others = group - 1, q = (double)queries.rows, k = (double)keys.rows;
    double in = others * (q * model->q / group + k * (model->k + model->v) * share);
    double out = others * q * (model->out + model->lse) / group;
    add_exposed(verdict, message(model, in));
    add_exposed(verdict, message(model, out));
    verdict->bytes += in + out;
}

/* Own keys first, then a slice of heads at a time: taken to be one step. */
static void model_gather(const model_t *model, verdict_t *verdict)
{
    const heed_context_parallel_desc_t *desc = &model->cp->desc;
    double work = 0, rows = 0;
    for (int32_t r = 0; r < model->size; r++) {
        hd_tokens_t queries = hd_cp_queries(desc, model->size, r);
        double all = 0;
        for (int32_t other = 0; other < model->size; other++) {
            hd_tokens_t keys = hd_cp_keys(desc, model->size, other);
            all += pairs(model->cp, &queries, &keys);
            rows = fmax(rows, (double)keys.rows);
        }
        work = fmax(work, all);
    }
    verdict->bytes = (model->size - 1) * rows * (model->k + model->v);
    add_step(verdict, work * model->pair_ns, model->size > 1 ? message(model, verdict->bytes) : 0);
}

static void model_pass(const model_t *model, verdict_t *verdict)
{
    hd_grid_t grid = hd_grid(model->cp->desc.layout, model->size, 1);
    hd_tokens_t queries = hd_cp_queries(&model->cp->desc, model->size, 0);
    double state = (double)model->cp->q.shape[0] * (double)model->cp->q.shape[2] *
                   (double)(model->cp->v.shape[3] + 1) * 4;
    add_rounds(model, &grid, false, model->q, verdict);
    double home = (model->size - 1) * (double)queries.rows * state;
    if (model->size > 1)
        add_exposed(verdict, message(model, home));
    verdict->bytes += home;
}

static void model_tree(const model_t *model, verdict_t *verdict)
{
    const heed_context_parallel_desc_t *desc = &model->cp->desc;
    hd_tokens_t queries = hd_cp_queries(desc, model->size, 0);
    double work = 0, rows = (double)queries.rows * (double)model->cp->q.shape[0] *
                            (double)model->cp->q.shape[2];
    for (int32_t r = 0; r < model->size; r++) {
        hd_tokens_t keys = hd_cp_keys(desc, model->size, r);
        work = fmax(work, pairs(model->cp, &queries, &keys));
    }
    add_step(verdict, work * model->pair_ns, 0);
    if (model->size == 1)
        return;
    verdict->bytes =
        2.0 * (model->size - 1) / model->size * rows * (double)(model->cp->v.shape[3] + 2) * 4;
    add_exposed(verdict, 4 * model->latency + verdict->bytes * model->byte_ns);
}

/* ---- the rate of computing ------------------------------------------------------------------- */

/* Nanoseconds of one pair in all heads: by the plan for a rank's queries over a rank's keys. */
static heed_status_t pair_time(const hd_cp_t *cp, double *ns)
{
    hd_tokens_t queries = hd_cp_queries(&cp->desc, cp->comm.size, 0);
    hd_tokens_t keys = hd_cp_keys(&cp->desc, cp->comm.size, 0);
    heed_attention_desc_t desc = heed_attention_desc();
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    hd_axes_t axes[4];
    heed_plan_t *plan;
    int64_t rows = hd_max(queries.rows, 1), key_rows = hd_max(keys.rows, 1);
    desc.q = hd_cp_dense(&cp->q, rows, cp->q.shape[2], &axes[0]);
    desc.k = hd_cp_dense(&cp->k, key_rows, cp->k.shape[2], &axes[1]);
    desc.v = hd_cp_dense(&cp->v, key_rows, cp->v.shape[2], &axes[2]);
    desc.out = hd_cp_dense(&cp->v, rows, cp->q.shape[2], &axes[3]);
    desc.out.dtype = HEED_F32;
    HD_TRY(heed_plan_create(cp->context, "attention", &desc, &plan));
    heed_status_t status = heed_plan_info(plan, &info);
    heed_plan_destroy(plan);
    if (!isfinite(info.estimate_ns) || info.estimate_ns <= 0) {
        const heed_device_info_t *cpu = &cp->context->devices[0];
        info.estimate_ns = info.flops / hd_best_f32_rate(cpu, cpu->threads);
    }
    *ns = info.estimate_ns / (double)rows / (double)key_rows;
    return status;
}

static heed_status_t model_of(const hd_cp_t *cp, model_t *model)
{
    double batch = (double)cp->q.shape[0];
    double rate = cp->comm.bytes_per_second > 0 ? cp->comm.bytes_per_second : 10e9;
    *model = (model_t){.cp = cp, .size = cp->comm.size, .byte_ns = 1e9 / rate};
    model->latency = cp->comm.latency_ns > 0 ? cp->comm.latency_ns : 10e3;
    model->q = (double)hd_cp_bytes(&cp->q, 1, cp->q.shape[2]);
    model->k = (double)hd_cp_bytes(&cp->k, 1, cp->k.shape[2]);
    model->v = (double)hd_cp_bytes(&cp->v, 1, cp->v.shape[2]);
    model->out = (double)hd_cp_bytes(&cp->out, 1, cp->q.shape[2]);
    model->lse = cp->lse.ndim ? batch * (double)cp->q.shape[2] * 4 : 0;
    return pair_time(cp, &model->pair_ns);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void judge(const model_t *model, verdict_t *verdict)
{
    const heed_context_parallel_desc_t *desc = &model->cp->desc;
    bool tree = verdict->method == HEED_CONTEXT_PARALLEL_TREE;
    if (tree != (desc->everywhere == 1)) {
        hd_text_t text = hd_text(verdict->why, sizeof(verdict->why));
        hd_text_add(&text, "%s",
                    tree ? "queries are spread over the ranks" : "every rank has all queries");
        verdict->status = HEED_ERROR_UNSUPPORTED;
        return;
    }
    if (tree)
        model_tree(model, verdict);
    else if (verdict->method == HEED_CONTEXT_PARALLEL_PASS_Q)
        model_pass(model, verdict);
    else if (verdict->method == HEED_CONTEXT_PARALLEL_ALL_GATHER)
        model_gather(model, verdict);
    else
        model_ring(model, verdict->group, verdict);
    hd_tokens_t all = hd_cp_keys(desc, 1, 0), queries = hd_cp_queries(desc, 1, 0);
    verdict->total_ns = verdict->compute_ns + verdict->exposed_ns;
    double ideal = pairs(model->cp, &queries, &all) * model->pair_ns / model->size;
    verdict->efficiency = verdict->total_ns > 0 ? ideal / verdict->total_ns : 1;
}

heed_status_t hd_cp_verdicts(const hd_cp_t *cp, verdict_t *verdicts, int most, int *count)
{
    model_t model;
    int32_t size = cp->comm.size;
    *count = 0;
    HD_TRY(model_of(cp, &model));
    for (int m = HEED_CONTEXT_PARALLEL_RING; m <= HEED_CONTEXT_PARALLEL_TREE; m++) {
        bool grid = m == HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING;
        for (int32_t group = grid ? 2 : 1; group < (grid ? size : 2); group++) {
            if (grid && size % group)
                continue;
            verdict_t verdict = {.method = (heed_context_parallel_method_t)m, .group = group};
            if (m == HEED_CONTEXT_PARALLEL_ALL_TO_ALL)
                verdict.group = size;
            judge(&model, &verdict);
            if (*count < most)
                verdicts[*count] = verdict;
            ++*count;
        }
    }
    return HEED_OK;
}
