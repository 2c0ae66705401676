/* Which method runs: the model's verdicts, by the slowest rank's times, and what is told of them.
 */
#include "context_parallel.h"

typedef heed_context_parallel_verdict_t verdict_t;

/* The cheapest of those that fit what was asked for, -1 where there is none. */
static int cheapest(const hd_cp_t *cp, const verdict_t *verdicts, int count)
{
    int best = -1;
    for (int i = 0; i < count; i++) {
        const verdict_t *verdict = &verdicts[i];
        if (verdict->status != HEED_OK ||
            (cp->desc.method != HEED_CONTEXT_PARALLEL_AUTO && cp->desc.method != verdict->method) ||
            (cp->desc.group && verdict->method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING &&
             cp->desc.group != verdict->group))
            continue;
        if (best < 0 || verdict->total_ns < verdicts[best].total_ns)
            best = i;
    }
    return best;
}

enum { MOST_VERDICTS = 64 };

heed_status_t hd_cp_choose(hd_cp_t *cp)
{
    verdict_t verdicts[MOST_VERDICTS];
    double times[MOST_VERDICTS + 1];
    int count = 0;
    hd_kept_t own;
    hd_keep(&own, hd_cp_verdicts(cp, verdicts, MOST_VERDICTS, &count));
    count = (int)hd_min(count, MOST_VERDICTS);
    /* Ranks may run on unlike machines: the slowest one's times count for all. */
    for (int i = 0; i <= MOST_VERDICTS; i++)
        times[i] = i < count ? verdicts[i].total_ns : 0;
    times[MOST_VERDICTS] = own.status != HEED_OK;
    heed_status_t status = heed_comm_all_reduce(cp->context, &cp->comm, HEED_F64, HEED_REDUCE_MAX,
                                                MOST_VERDICTS + 1, times);
    HD_TRY(hd_kept(&own));
    HD_TRY(status);
    if (times[MOST_VERDICTS] > 0)
        return hd_fail(HEED_ERROR_COMM, "a rank cannot estimate what it would compute");
    for (int i = 0; i < count; i++)
        verdicts[i].total_ns = times[i];
    int best = cheapest(cp, verdicts, count);
    if (best < 0)
        return hd_fail(HEED_ERROR_UNSUPPORTED, "no method takes this problem with %d ranks: %s",
                       cp->comm.size, count ? verdicts[count - 1].why : "");
    cp->desc.method = verdicts[best].method;
    cp->desc.group = verdicts[best].group;
    return HEED_OK;
}

/* Of any rows: batch, heads, elements and dtypes. */
static heed_status_t look(const char *name, const heed_tensor_t *from, int ndim, heed_tensor_t *to,
                          hd_axes_t *axes)
{
    HD_TRY(hd_tensor_complete(name, from, false, to, axes));
    if (to->ndim != ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not %d", name, to->ndim, ndim);
    return HEED_OK;
}

heed_status_t heed_context_parallel_explain(heed_context_t *context, int32_t ranks,
                                            double bytes_per_second, double latency_ns,
                                            const heed_context_parallel_desc_t *desc,
                                            heed_context_parallel_verdict_t *verdicts, int32_t most,
                                            int32_t *count)
{
    hd_cp_t cp = {.context = context};
    int found = 0;
    if (!context || !count || (most > 0 && !verdicts))
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !context ? "context"
                       : !count ? "count"
                                : "verdicts");
    if (ranks < 1 || ranks > 1024 || !(bytes_per_second >= 0) || !(latency_ns >= 0))
        return hd_fail(HEED_ERROR_VALUE,
                       "ranks=%d is not 1 to 1024, or bytes_per_second=%g or latency_ns=%g is "
                       "below 0",
                       ranks, bytes_per_second, latency_ns);
    HD_TRY(hd_struct_copy(&cp.desc, sizeof(cp.desc), desc, sizeof(cp.desc), "desc"));
    cp.comm = (heed_comm_t){
        .size = ranks, .bytes_per_second = bytes_per_second, .latency_ns = latency_ns};
    HD_TRY(hd_cp_check_numbers(&cp));
    HD_TRY(hd_cp_check_documents(&cp));
    HD_TRY(look("q", &desc->q, 4, &cp.q, &cp.axes[HEED_ATTENTION_Q]));
    HD_TRY(look("k", &desc->k, 4, &cp.k, &cp.axes[HEED_ATTENTION_K]));
    HD_TRY(look("v", &desc->v, 4, &cp.v, &cp.axes[HEED_ATTENTION_V]));
    HD_TRY(look("out", &desc->out, 4, &cp.out, &cp.axes[HEED_ATTENTION_OUT]));
    if (desc->lse.ndim)
        HD_TRY(look("lse", &desc->lse, 3, &cp.lse, &cp.axes[HEED_ATTENTION_LSE]));
    HD_TRY(hd_cp_check_kinds(&cp));
    HD_TRY(hd_cp_verdicts(&cp, verdicts, most, &found));
    int best = cheapest(&cp, verdicts, (int)hd_min(found, most));
    if (best >= 0)
        verdicts[best].chosen = 1;
    *count = found;
    return HEED_OK;
}
