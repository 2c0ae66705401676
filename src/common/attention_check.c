/* What an attention's descriptor must hold when it is planned. Lengths, page tables and scales,
 * which are looked at when it is executed, are in attention_data.c. */
#include "op_attention.h"
#include "attention.h"
#include "tiles.h"

#include <math.h>

/* ---- axes and types of one operand ----------------------------------------------------------- */

static const struct {
    int least, most; /* axes */
    int operand;
} ranks[] = {
    {4, 4, HEED_ATTENTION_Q},
    {4, 4, HEED_ATTENTION_K},
    {4, 4, HEED_ATTENTION_V},
    {4, 4, HEED_ATTENTION_OUT},
    {3, 3, HEED_ATTENTION_LSE},
    {4, 4, HEED_ATTENTION_BIAS},
    {4, 4, HEED_ATTENTION_MASK},
    {1, 2, HEED_ATTENTION_ALIBI_SLOPES},
    {1, 1, HEED_ATTENTION_SINKS},
    {1, 1, HEED_ATTENTION_CU_SEQLENS_Q},
    {1, 1, HEED_ATTENTION_CU_SEQLENS_K},
    {1, 1, HEED_ATTENTION_SEQLENS_K},
    {2, 2, HEED_ATTENTION_PAGE_TABLE},
    {1, 3, HEED_ATTENTION_K_SCALE},
    {1, 3, HEED_ATTENTION_V_SCALE},
};

static const heed_tensor_t *tensor_of(const heed_attention_desc_t *desc, int operand)
{
    return (const heed_tensor_t *)((const char *)desc + hd_attention_operands[operand].offset);
}

static heed_status_t check_axes(const heed_attention_desc_t *desc)
{
    for (int i = 0; i < HD_COUNT(ranks); i++) {
        const char *name = hd_attention_name(ranks[i].operand);
        int ndim = tensor_of(desc, ranks[i].operand)->ndim;
        bool optional = hd_attention_operands[ranks[i].operand].info.optional;
        if ((ndim == 0 && optional) || (ndim >= ranks[i].least && ndim <= ranks[i].most))
            continue;
        if (ranks[i].least == ranks[i].most)
            return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, attention takes %d axes", name, ndim,
                           ranks[i].least);
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, attention takes %d to %d axes", name, ndim,
                       ranks[i].least, ranks[i].most);
    }
    return HEED_OK;
}

static bool is_one_of(heed_dtype_t dtype, const heed_dtype_t *list, int count)
{
    for (int i = 0; i < count; i++)
        if (list[i] == dtype)
            return true;
    return false;
}

static const heed_dtype_t floats[] = {HEED_F32, HEED_BF16, HEED_F16};
static const heed_dtype_t stored[] = {HEED_F32, HEED_BF16, HEED_F16, HEED_E4M3, HEED_E5M2, HEED_I8};

/* Keys or values beside q's type. */
static heed_status_t check_stored(const heed_attention_desc_t *desc, int operand)
{
    heed_dtype_t dtype = tensor_of(desc, operand)->dtype, q = desc->q.dtype;
    if (q == HEED_E4M3 && dtype != q)
        return hd_fail(HEED_ERROR_DTYPE, "%s is %s: with q in e4m3 it is that",
                       hd_attention_name(operand), heed_dtype_name(dtype));
    if (is_one_of(dtype, stored, HD_COUNT(stored)))
        return HEED_OK;
    return hd_fail(HEED_ERROR_DTYPE, "%s is %s: attention takes f32, bf16, f16, e4m3, e5m2, i8",
                   hd_attention_name(operand), heed_dtype_name(dtype));
}

static heed_status_t check_type(const heed_attention_desc_t *desc, int operand, heed_dtype_t dtype)
{
    const heed_tensor_t *tensor = tensor_of(desc, operand);
    if (!tensor->ndim || tensor->dtype == dtype)
        return HEED_OK;
    return hd_fail(HEED_ERROR_DTYPE, "%s is %s: it is %s", hd_attention_name(operand),
                   heed_dtype_name(tensor->dtype), heed_dtype_name(dtype));
}

static heed_status_t check_dtypes(const heed_attention_desc_t *desc)
{
    heed_dtype_t dtype = desc->q.dtype, out = desc->out.dtype;
    bool e4m3 = dtype == HEED_E4M3;
    if (!is_one_of(dtype, floats, HD_COUNT(floats)) && !e4m3)
        return hd_fail(HEED_ERROR_DTYPE, "q is %s: attention takes f32, bf16, f16, e4m3",
                       heed_dtype_name(dtype));
    HD_TRY(check_stored(desc, HEED_ATTENTION_K));
    HD_TRY(check_stored(desc, HEED_ATTENTION_V));
    if (e4m3 && !is_one_of(out, floats, HD_COUNT(floats)))
        return hd_fail(HEED_ERROR_DTYPE, "out is %s: with q in e4m3 it is bf16, f16 or f32",
                       heed_dtype_name(out));
    if (!e4m3 && out != dtype && out != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "out is %s: with q in %s it is that or f32",
                       heed_dtype_name(out), heed_dtype_name(dtype));
    if (desc->bias.ndim && !is_one_of(desc->bias.dtype, floats, HD_COUNT(floats)))
        return hd_fail(HEED_ERROR_DTYPE, "bias is %s: it is f32, bf16 or f16",
                       heed_dtype_name(desc->bias.dtype));
    if (e4m3 && (desc->k_scale.ndim || desc->v_scale.ndim))
        return hd_fail(HEED_ERROR_DTYPE, "%s with q in e4m3: it needs q in f32, bf16 or f16",
                       desc->k_scale.ndim ? "k_scale" : "v_scale");
    HD_TRY(check_type(desc, HEED_ATTENTION_LSE, HEED_F32));
    HD_TRY(check_type(desc, HEED_ATTENTION_MASK, HEED_BOOL));
    HD_TRY(check_type(desc, HEED_ATTENTION_ALIBI_SLOPES, HEED_F32));
    HD_TRY(check_type(desc, HEED_ATTENTION_SINKS, HEED_F32));
    HD_TRY(check_type(desc, HEED_ATTENTION_CU_SEQLENS_Q, HEED_I32));
    HD_TRY(check_type(desc, HEED_ATTENTION_CU_SEQLENS_K, HEED_I32));
    HD_TRY(check_type(desc, HEED_ATTENTION_SEQLENS_K, HEED_I32));
    HD_TRY(check_type(desc, HEED_ATTENTION_PAGE_TABLE, HEED_I32));
    HD_TRY(check_type(desc, HEED_ATTENTION_K_SCALE, HEED_F32));
    return check_type(desc, HEED_ATTENTION_V_SCALE, HEED_F32);
}

/* ---- shapes beside each other ---------------------------------------------------------------- */

/* Axis `a` of operand x must be as long as axis `b` of operand y. */
static heed_status_t check_same(const heed_attention_desc_t *desc, int x, int a, int y, int b)
{
    int64_t x_length = tensor_of(desc, x)->shape[a], y_length = tensor_of(desc, y)->shape[b];
    if (x_length == y_length)
        return HEED_OK;
    return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but %s.shape[%d]=%lld",
                   hd_attention_name(x), a, (long long)x_length, hd_attention_name(y), b,
                   (long long)y_length);
}

static heed_status_t check_length(const heed_attention_desc_t *desc, int operand, int axis,
                                  int64_t length, const char *why)
{
    int64_t has = tensor_of(desc, operand)->shape[axis];
    if (has == length)
        return HEED_OK;
    return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but %s %lld", hd_attention_name(operand),
                   axis, (long long)has, why, (long long)length);
}

/* q, k, v, out, lse as they stand beside each other whatever the batch is. */
static heed_status_t check_heads(const heed_attention_desc_t *desc)
{
    enum { Q = HEED_ATTENTION_Q, K, V, OUT, LSE };
    const heed_tensor_t *q = &desc->q, *k = &desc->k, *v = &desc->v;
    HD_TRY(check_same(desc, K, 3, Q, 3));
    HD_TRY(check_same(desc, V, 0, K, 0));
    HD_TRY(check_same(desc, V, 1, K, 1));
    HD_TRY(check_same(desc, V, 2, K, 2));
    HD_TRY(check_same(desc, OUT, 0, Q, 0));
    HD_TRY(check_same(desc, OUT, 1, Q, 1));
    HD_TRY(check_same(desc, OUT, 2, Q, 2));
    HD_TRY(check_same(desc, OUT, 3, V, 3));
    if (desc->lse.ndim) {
        HD_TRY(check_same(desc, LSE, 0, Q, 0));
        HD_TRY(check_same(desc, LSE, 1, Q, 2));
        HD_TRY(check_same(desc, LSE, 2, Q, 1));
    }
    int64_t heads = q->shape[2], key_heads = k->shape[2];
    if (heads < 1 || key_heads < 1 || heads % key_heads)
        return hd_fail(HEED_ERROR_SHAPE, "q has %lld heads, which is no multiple of k's %lld",
                       (long long)heads, (long long)key_heads);
    if (q->shape[3] < 1 || q->shape[3] > 512 || v->shape[3] < 1 || v->shape[3] > 512)
        return hd_fail(HEED_ERROR_SHAPE, "head sizes q.shape[3]=%lld, v.shape[3]=%lld: 1 to 512",
                       (long long)q->shape[3], (long long)v->shape[3]);
    if (q->shape[1] > INT32_MAX || k->shape[1] > INT32_MAX)
        return hd_fail(HEED_ERROR_SHAPE, "q.shape[1]=%lld, k.shape[1]=%lld: at most 2^31-1",
                       (long long)q->shape[1], (long long)k->shape[1]);
    return HEED_OK;
}

/* Starts of ragged sequences, [B+1] beside a packed operand of one batch entry. */
static heed_status_t check_starts(const heed_attention_desc_t *desc, int starts, int packed)
{
    if (tensor_of(desc, starts)->shape[0] < 1)
        return hd_fail(HEED_ERROR_SHAPE, "%s.shape[0]=0: it holds B+1 numbers, at least one",
                       hd_attention_name(starts));
    if (tensor_of(desc, packed)->shape[0] != 1)
        return hd_fail(HEED_ERROR_SHAPE, "%s.shape[0]=%lld: with %s it is 1, all packed",
                       hd_attention_name(packed), (long long)tensor_of(desc, packed)->shape[0],
                       hd_attention_name(starts));
    return HEED_OK;
}

static heed_status_t check_pages(const heed_attention_desc_t *desc, int64_t batch)
{
    const heed_tensor_t *k = &desc->k;
    int64_t room;
    if (k->shape[1] < 1)
        return hd_fail(HEED_ERROR_SHAPE, "k.shape[1]=%lld: a page holds at least one key",
                       (long long)k->shape[1]);
    if (k->shape[0] > INT32_MAX)
        return hd_fail(HEED_ERROR_SHAPE, "k.shape[0]=%lld pages: at most 2^31-1",
                       (long long)k->shape[0]);
    if (!hd_mul(k->shape[1], desc->page_table.shape[1], &room) || room > INT32_MAX)
        return hd_fail(
            HEED_ERROR_SHAPE,
            "page_table.shape[1]=%lld pages of k.shape[1]=%lld keys: at most 2^31-1 keys",
            (long long)desc->page_table.shape[1], (long long)k->shape[1]);
    return check_length(desc, HEED_ATTENTION_PAGE_TABLE, 0, batch, "the batch is");
}

/* How many sequences each side says that there are. */
static heed_status_t check_batch(const heed_attention_desc_t *desc)
{
    bool ragged_k = desc->cu_seqlens_k.ndim, paged = desc->page_table.ndim;
    bool ragged = ragged_k || desc->cu_seqlens_q.ndim;
    if (desc->cu_seqlens_q.ndim)
        HD_TRY(check_starts(desc, HEED_ATTENTION_CU_SEQLENS_Q, HEED_ATTENTION_Q));
    int64_t batch = hd_sequences(desc);
    if (ragged_k && (paged || desc->seqlens_k.ndim))
        return hd_fail(HEED_ERROR_VALUE, "cu_seqlens_k beside %s: keys are ragged or in a cache",
                       paged ? "page_table" : "seqlens_k");
    if (ragged && desc->tiles)
        return hd_fail(HEED_ERROR_VALUE, "tiles beside cu_seqlens_%s: a ragged batch takes none",
                       ragged_k ? "k" : "q");
    if (ragged_k)
        HD_TRY(check_starts(desc, HEED_ATTENTION_CU_SEQLENS_K, HEED_ATTENTION_K));
    if (desc->seqlens_k.ndim)
        HD_TRY(check_length(desc, HEED_ATTENTION_SEQLENS_K, 0, batch, "the batch is"));
    if (paged)
        return check_pages(desc, batch);
    if (ragged_k)
        return check_length(desc, HEED_ATTENTION_CU_SEQLENS_K, 0, batch + 1,
                            "one more than the batch is");
    if (!desc->cu_seqlens_q.ndim)
        return check_same(desc, HEED_ATTENTION_K, 0, HEED_ATTENTION_Q, 0);
    return check_length(desc, HEED_ATTENTION_K, 0, batch, "cu_seqlens_q says that the batch is");
}

/* ---- modifiers and scales -------------------------------------------------------------------- */

/* An axis that holds one number for all, or one for each. */
static heed_status_t check_one_or(const heed_attention_desc_t *desc, int operand, int axis,
                                  int64_t length)
{
    int64_t has = tensor_of(desc, operand)->shape[axis];
    if (has == 1 || has == length)
        return HEED_OK;
    return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld: it is 1 or %lld",
                   hd_attention_name(operand), axis, (long long)has, (long long)length);
}

/* Bias or mask. Axes of ragged lengths are checked when the lengths are known. */
static heed_status_t check_pairs(const heed_attention_desc_t *desc, int operand)
{
    if (!tensor_of(desc, operand)->ndim)
        return HEED_OK;
    HD_TRY(check_one_or(desc, operand, 0, hd_sequences(desc)));
    HD_TRY(check_one_or(desc, operand, 1, desc->q.shape[2]));
    if (!desc->cu_seqlens_q.ndim)
        HD_TRY(check_one_or(desc, operand, 2, desc->q.shape[1]));
    return desc->cu_seqlens_k.ndim
               ? HEED_OK
               : check_length(desc, operand, 3, hd_room(desc), "the number of keys is");
}

static heed_status_t check_scale(const heed_attention_desc_t *desc, int operand)
{
    const heed_tensor_t *scale = tensor_of(desc, operand);
    if (scale->ndim == 0)
        return HEED_OK;
    if (scale->ndim == 1)
        return check_one_or(desc, operand, 0, desc->k.shape[2]);
    if (scale->ndim == 2)
        return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=2: it takes 1 axis, or the first 3 of k",
                       hd_attention_name(operand));
    HD_TRY(check_same(desc, operand, 0, HEED_ATTENTION_K, 0));
    HD_TRY(check_same(desc, operand, 1, HEED_ATTENTION_K, 1));
    return check_same(desc, operand, 2, HEED_ATTENTION_K, 2);
}

static heed_status_t check_modifiers(const heed_attention_desc_t *desc)
{
    const heed_tensor_t *slopes = &desc->alibi_slopes;
    int64_t heads = desc->q.shape[2];
    HD_TRY(check_pairs(desc, HEED_ATTENTION_BIAS));
    HD_TRY(check_pairs(desc, HEED_ATTENTION_MASK));
    if (slopes->ndim == 2)
        HD_TRY(
            check_length(desc, HEED_ATTENTION_ALIBI_SLOPES, 0, hd_sequences(desc), "the batch is"));
    if (slopes->ndim)
        HD_TRY(check_length(desc, HEED_ATTENTION_ALIBI_SLOPES, slopes->ndim - 1, heads,
                            "the heads are"));
    if (desc->sinks.ndim)
        HD_TRY(check_length(desc, HEED_ATTENTION_SINKS, 0, heads, "the heads are"));
    HD_TRY(check_scale(desc, HEED_ATTENTION_K_SCALE));
    return check_scale(desc, HEED_ATTENTION_V_SCALE);
}

static heed_status_t check_parameters(const heed_attention_desc_t *desc)
{
    if (desc->causal < 0 || desc->causal > 1 || desc->merge < 0 || desc->merge > 1)
        return hd_fail(HEED_ERROR_VALUE, "causal=%d, merge=%d: each is 0 or 1", desc->causal,
                       desc->merge);
    if (desc->align != HEED_ALIGN_BOTTOM_RIGHT && desc->align != HEED_ALIGN_TOP_LEFT)
        return hd_fail(HEED_ERROR_VALUE, "align=%d is no heed_align_t", (int)desc->align);
    if (!isfinite(desc->scale))
        return hd_fail(HEED_ERROR_VALUE, "scale=%g is not finite", (double)desc->scale);
    if (!isfinite(desc->softcap) || desc->softcap < 0)
        return hd_fail(HEED_ERROR_VALUE, "softcap=%g: 0 is none, above 0", (double)desc->softcap);
    if (desc->window_left < -1 || desc->window_right < -1)
        return hd_fail(HEED_ERROR_VALUE,
                       "window_left=%lld, window_right=%lld: -1 is open, 0 and up",
                       (long long)desc->window_left, (long long)desc->window_right);
    if (desc->merge && !desc->lse.ndim)
        return hd_fail(HEED_ERROR_VALUE, "merge=1 needs lse: a partial state is (out, lse)");
    if (desc->off_by_one < 0 || desc->off_by_one > 1 || desc->batch_invariant < 0 ||
        desc->batch_invariant > 1 || desc->unchecked < 0 || desc->unchecked > 1)
        return hd_fail(HEED_ERROR_VALUE,
                       "off_by_one=%d, batch_invariant=%d, unchecked=%d: each is 0 or 1",
                       desc->off_by_one, desc->batch_invariant, desc->unchecked);
    if (desc->tiles_optional < 0 || desc->tiles_optional > 1)
        return hd_fail(HEED_ERROR_VALUE, "tiles_optional=%d is not 0 or 1", desc->tiles_optional);
    if (desc->split_keys < 0)
        return hd_fail(HEED_ERROR_VALUE, "split_keys=%lld: 0 is chosen, above 0",
                       (long long)desc->split_keys);
    return HEED_OK;
}

heed_status_t hd_attention_complete(void *at)
{
    heed_attention_desc_t *desc = at;
    HD_TRY(check_axes(desc));
    HD_TRY(check_dtypes(desc));
    HD_TRY(check_batch(desc));
    HD_TRY(check_heads(desc));
    HD_TRY(check_modifiers(desc));
    HD_TRY(check_parameters(desc));
    if (desc->scale == 0)
        desc->scale = (float)(1 / sqrt((double)desc->q.shape[3]));
    if (!desc->tiles)
        return HEED_OK;
    return hd_tiles_check(desc->tiles, desc->q.shape[0], desc->q.shape[2], desc->q.shape[1],
                          hd_room(desc));
}
