/* Whether a rank's tensors and numbers are good, and whether all ranks have the same. */
#include "context_parallel.h"

#include <math.h>
#include <string.h>

static heed_status_t check_numbers(const heed_context_parallel_desc_t *desc)
{
    if ((int)desc->method < 0 || desc->method > HEED_CONTEXT_PARALLEL_TREE)
        return hd_fail(HEED_ERROR_VALUE, "desc.method=%d is no heed_context_parallel_method_t",
                       (int)desc->method);
    if ((int)desc->layout < 0 || desc->layout > HEED_RING_STRIPED)
        return hd_fail(HEED_ERROR_VALUE, "desc.layout=%d is no heed_ring_layout_t",
                       (int)desc->layout);
    if (desc->causal < 0 || desc->causal > 1 || desc->whole < 0 || desc->whole > 1 ||
        desc->everywhere < 0 || desc->everywhere > 1)
        return hd_fail(HEED_ERROR_VALUE, "desc.causal=%d, whole=%d, everywhere=%d: each is 0 or 1",
                       desc->causal, desc->whole, desc->everywhere);
    if (desc->window_left < -1 || desc->window_right < -1)
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.window_left=%lld, window_right=%lld: -1 is open, 0 and up",
                       (long long)desc->window_left, (long long)desc->window_right);
    if (!isfinite(desc->scale))
        return hd_fail(HEED_ERROR_VALUE, "desc.scale=%g is not finite", (double)desc->scale);
    if (desc->tokens < 0 || desc->tokens > HD_MOST_TOKENS)
        return hd_fail(HEED_ERROR_VALUE, "desc.tokens=%lld is not 0 to 2^40",
                       (long long)desc->tokens);
    if (desc->queries < 0 || desc->queries > desc->tokens)
        return hd_fail(HEED_ERROR_VALUE, "desc.queries=%lld is not 0 to tokens=%lld",
                       (long long)desc->queries, (long long)desc->tokens);
    return HEED_OK;
}

/* A group that divides the ranks; 0 is chosen later. */
static heed_status_t check_method(const hd_cp_t *cp)
{
    const heed_context_parallel_desc_t *desc = &cp->desc;
    bool tree = desc->method == HEED_CONTEXT_PARALLEL_TREE;
    if (desc->group < 0 || (desc->group && cp->comm.size % desc->group))
        return hd_fail(HEED_ERROR_VALUE, "desc.group=%d does not divide the %d ranks", desc->group,
                       cp->comm.size);
    if (tree != (desc->everywhere == 1) && desc->method != HEED_CONTEXT_PARALLEL_AUTO)
        return hd_fail(HEED_ERROR_UNSUPPORTED,
                       "desc.everywhere=%d, method %s: tree takes queries that every rank has, the "
                       "others take queries that are spread",
                       desc->everywhere, heed_context_parallel_name(desc->method));
    return HEED_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static heed_status_t check_tensor(hd_cp_t *cp, int number, const char *name,
                                  const heed_tensor_t *from, heed_tensor_t *to)
{
    bool keys = number == HEED_ATTENTION_K || number == HEED_ATTENTION_V;
    int64_t all = keys || !cp->desc.queries ? cp->desc.tokens : cp->desc.queries;
    int64_t rows = cp->desc.whole ? all : keys ? cp->keys.rows : cp->queries.rows;
    int axis = number == HEED_ATTENTION_LSE ? 2 : 1, ndim = number == HEED_ATTENTION_LSE ? 3 : 4;
    HD_TRY(hd_tensor_complete(name, from, number >= HEED_ATTENTION_OUT, to, &cp->axes[number]));
    if (to->ndim != ndim)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d is not %d", name, to->ndim, ndim);
    if (to->shape[axis] != rows)
        return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld: rank %d of %d has %lld of %lld %s",
                       name, axis, (long long)to->shape[axis], cp->comm.rank, cp->comm.size,
                       (long long)rows, (long long)all,
                       keys || !cp->desc.queries ? "tokens" : "queries");
    if (from->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_UNSUPPORTED, "%s.device is no CPU: ranks compute on the host",
                       name);
    if (!from->data && hd_tensor_elements(to))
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", name);
    return HEED_OK;
}

static heed_status_t check_shapes(const hd_cp_t *cp)
{
    const int64_t *q = cp->q.shape, *k = cp->k.shape, *v = cp->v.shape;
    const int64_t *out = cp->out.shape, *lse = cp->lse.shape;
    if (k[0] != q[0] || v[0] != q[0] || k[3] != q[3] || v[2] != k[2] || k[2] < 1 || q[2] % k[2])
        return hd_fail(
            HEED_ERROR_SHAPE, "q is [%lld,.,%lld,%lld], k [%lld,.,%lld,%lld], v [%lld,.,%lld,%lld]",
            (long long)q[0], (long long)q[2], (long long)q[3], (long long)k[0], (long long)k[2],
            (long long)k[3], (long long)v[0], (long long)v[2], (long long)v[3]);
    if (out[0] != q[0] || out[2] != q[2] || out[3] != v[3])
        return hd_fail(HEED_ERROR_SHAPE, "out is [%lld,.,%lld,%lld], not [%lld,.,%lld,%lld]",
                       (long long)out[0], (long long)out[2], (long long)out[3], (long long)q[0],
                       (long long)q[2], (long long)v[3]);
    if (cp->lse.ndim && (lse[0] != q[0] || lse[1] != q[2]))
        return hd_fail(HEED_ERROR_SHAPE, "lse is [%lld,%lld,.], not [%lld,%lld,.]",
                       (long long)lse[0], (long long)lse[1], (long long)q[0], (long long)q[2]);
    return HEED_OK;
}

static heed_status_t check_dtypes(const hd_cp_t *cp)
{
    heed_dtype_t q = cp->q.dtype;
    if (q != HEED_F32 && q != HEED_BF16 && q != HEED_F16)
        return hd_fail(HEED_ERROR_DTYPE, "q is %s: ranks take f32, bf16, f16", heed_dtype_name(q));
    if (cp->k.dtype != q || cp->v.dtype != q)
        return hd_fail(HEED_ERROR_DTYPE, "k is %s and v is %s, but q is %s",
                       heed_dtype_name(cp->k.dtype), heed_dtype_name(cp->v.dtype),
                       heed_dtype_name(q));
    if (cp->out.dtype != q && cp->out.dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "out is %s: it is f32 or as q %s",
                       heed_dtype_name(cp->out.dtype), heed_dtype_name(q));
    if (cp->lse.ndim && cp->lse.dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "lse is %s, not f32", heed_dtype_name(cp->lse.dtype));
    return HEED_OK;
}

heed_status_t hd_cp_check_numbers(const hd_cp_t *cp)
{
    HD_TRY(check_numbers(&cp->desc));
    return check_method(cp);
}

heed_status_t hd_cp_check_kinds(const hd_cp_t *cp)
{
    HD_TRY(check_shapes(cp));
    return check_dtypes(cp);
}

static heed_status_t check_starts(const hd_documents_t *documents)
{
    int64_t before = 0;
    for (int64_t d = 0; d <= documents->count; d++) {
        int64_t start = documents->starts[d * documents->stride];
        if (d == 0 ? start != 0 : start < before)
            return hd_fail(HEED_ERROR_VALUE,
                           "cu_seqlens[%lld]=%lld: starts rise from 0 (before: "
                           "%lld)",
                           (long long)d, (long long)start, (long long)before);
        before = start;
    }
    if (before != documents->tokens)
        return hd_fail(HEED_ERROR_VALUE, "cu_seqlens[%lld]=%lld, but tokens=%lld",
                       (long long)documents->count, (long long)before,
                       (long long)documents->tokens);
    return HEED_OK;
}

heed_status_t hd_cp_check_documents(hd_cp_t *cp)
{
    const heed_tensor_t *from = &cp->desc.cu_seqlens;
    heed_tensor_t starts;
    hd_axes_t axes;
    cp->documents = (hd_documents_t){.count = 1, .tokens = cp->desc.tokens};
    if (!from->ndim)
        return HEED_OK;
    HD_TRY(hd_tensor_complete("cu_seqlens", from, false, &starts, &axes));
    if (starts.ndim != 1 || starts.shape[0] < 2)
        return hd_fail(HEED_ERROR_SHAPE,
                       "cu_seqlens has %d axes, %lld elements: it is [documents "
                       "+ 1]",
                       starts.ndim, (long long)hd_tensor_elements(&starts));
    if (starts.dtype != HEED_I32)
        return hd_fail(HEED_ERROR_DTYPE, "cu_seqlens is %s, not i32",
                       heed_dtype_name(starts.dtype));
    if (from->device.type != HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_UNSUPPORTED, "cu_seqlens.device is no CPU");
    if (!from->data)
        return hd_fail(HEED_ERROR_NULL, "cu_seqlens.data is null");
    cp->documents.starts = (const int32_t *)(const void *)hd_tensor_data(from);
    cp->documents.stride = starts.strides[0];
    cp->documents.count = starts.shape[0] - 1;
    return check_starts(&cp->documents);
}

heed_status_t hd_cp_check(hd_cp_t *cp)
{
    const heed_context_parallel_desc_t *desc = &cp->desc;
    HD_TRY(hd_cp_check_numbers(cp));
    HD_TRY(hd_cp_check_documents(cp));
    cp->keys = hd_cp_keys(desc, cp->comm.size, cp->comm.rank);
    cp->queries = hd_cp_queries(desc, cp->comm.size, cp->comm.rank);
    HD_TRY(check_tensor(cp, HEED_ATTENTION_Q, "q", &desc->q, &cp->q));
    HD_TRY(check_tensor(cp, HEED_ATTENTION_K, "k", &desc->k, &cp->k));
    HD_TRY(check_tensor(cp, HEED_ATTENTION_V, "v", &desc->v, &cp->v));
    HD_TRY(check_tensor(cp, HEED_ATTENTION_OUT, "out", &desc->out, &cp->out));
    if (desc->lse.ndim)
        HD_TRY(check_tensor(cp, HEED_ATTENTION_LSE, "lse", &desc->lse, &cp->lse));
    return hd_cp_check_kinds(cp);
}

/* ---- agreement ------------------------------------------------------------------------------- */

/* Of where documents begin. */
static int64_t checksum(const hd_documents_t *documents)
{
    uint64_t sum = 1469598103934665603u; /* FNV-1a */
    for (int64_t d = 0; documents->starts && d <= documents->count; d++)
        sum = (sum ^ (uint32_t)documents->starts[d * documents->stride]) * 1099511628211u;
    return (int64_t)(sum >> 1);
}

heed_status_t hd_cp_agree(const hd_cp_t *cp, heed_status_t own)
{
    static const char *const names[] = {"method",
                                        "layout",
                                        "group",
                                        "causal",
                                        "window_left",
                                        "window_right",
                                        "tokens",
                                        "queries",
                                        "everywhere",
                                        "size of comm",
                                        "batch",
                                        "heads of q",
                                        "heads of k",
                                        "head size of q",
                                        "head size of v",
                                        "dtype",
                                        "dtype of out",
                                        "presence of lse",
                                        "number of documents",
                                        "checksum of cu_seqlens",
                                        "scale"};
    const heed_context_parallel_desc_t *desc = &cp->desc;
    hd_greeting_t greeting;
    memset(&greeting, 0, sizeof(greeting));
    greeting.bad = own != HEED_OK;
    if (own == HEED_OK) {
        const int64_t numbers[HD_GREETING_NUMBERS] = {desc->method,
                                                      desc->layout,
                                                      desc->group,
                                                      desc->causal,
                                                      desc->window_left,
                                                      desc->window_right,
                                                      desc->tokens,
                                                      desc->queries,
                                                      desc->everywhere,
                                                      cp->comm.size,
                                                      cp->q.shape[0],
                                                      cp->q.shape[2],
                                                      cp->k.shape[2],
                                                      cp->q.shape[3],
                                                      cp->v.shape[3],
                                                      (int64_t)cp->q.dtype,
                                                      (int64_t)cp->out.dtype,
                                                      cp->lse.ndim != 0,
                                                      cp->documents.count,
                                                      checksum(&cp->documents)};
        memcpy(greeting.numbers, numbers, sizeof(numbers));
        greeting.real = desc->scale;
    }
    return hd_comm_agree(cp->context, &cp->comm, &greeting, names, HD_GREETING_NUMBERS);
}

bool hd_cp_deal(int64_t heads, int64_t key_heads, int32_t group, int32_t member, hd_deal_t *deal,
                heed_why_t *why)
{
    *deal = (hd_deal_t){heads / group, key_heads / group, member * (key_heads / group)};
    if (heads % group)
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "%lld heads of q are no multiple of %d ranks",
                         (long long)heads, group);
    if (key_heads % group == 0)
        return true;
    if (group % key_heads)
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED,
                         "%lld heads of k are no multiple of %d ranks, nor the other way round",
                         (long long)key_heads, group);
    deal->key_count = 1;
    deal->key_first = member / (group / key_heads);
    return true;
}
