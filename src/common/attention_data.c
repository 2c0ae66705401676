/* What lengths, page tables and scales must hold when an attention is executed: looked at before
 * anything else is read, each a few numbers a sequence or one a page; scales of every token cost
 * their bytes. */
#include "attention.h"
#include "op_attention.h"

#include <math.h>

/* Starts of ragged sequences: from 0 up, never falling, at most `total`. */
static heed_status_t check_starts(const heed_tensor_t *tensor, const int32_t *starts, int operand,
                                  int64_t total)
{
    const char *name = hd_attention_name(operand);
    int32_t before = 0;
    for (int64_t i = 0; i < tensor->shape[0]; i++) {
        int32_t start = starts[i * tensor->strides[0]];
        if (start < before)
            return hd_fail(HEED_ERROR_VALUE, "%s[%lld]=%d, but %s is %d: starts never fall", name,
                           (long long)i, start, i ? "the one before" : "the least", before);
        if (start > total)
            return hd_fail(HEED_ERROR_VALUE, "%s[%lld]=%d, but there are %lld rows", name,
                           (long long)i, start, (long long)total);
        before = start;
    }
    return HEED_OK;
}

static heed_status_t check_lengths(const heed_tensor_t *tensor, const int32_t *lengths,
                                   int64_t room)
{
    for (int64_t b = 0; b < tensor->shape[0]; b++) {
        int32_t length = lengths[b * tensor->strides[0]];
        if (length < 0 || length > room)
            return hd_fail(HEED_ERROR_VALUE, "seqlens_k[%lld]=%d: there is room for 0 to %lld keys",
                           (long long)b, length, (long long)room);
    }
    return HEED_OK;
}

/* Entries that keys in use need. */
static heed_status_t check_table(const hd_attention_t *a, const heed_attention_desc_t *desc)
{
    int64_t pages = desc->k.shape[0];
    for (int64_t b = 0; b < a->batch; b++) {
        const int32_t *row = a->k.index + b * a->k.index_batch;
        int64_t used = hd_ceil_div(hd_keys(a, b), a->k.page);
        for (int64_t j = 0; j < used; j++) {
            int32_t page = row[j * a->k.index_page];
            if (page < 0 || page >= pages)
                return hd_fail(HEED_ERROR_VALUE, "page_table[%lld,%lld]=%d: there are %lld pages",
                               (long long)b, (long long)j, page, (long long)pages);
        }
    }
    return HEED_OK;
}

/* Bias or mask reach over the longest sequence. */
static heed_status_t check_reach(const hd_attention_t *a, const heed_tensor_t *pairs, int operand)
{
    for (int64_t b = 0; pairs->ndim && b < a->batch; b++) {
        int64_t queries = hd_queries(a, b), keys = hd_keys(a, b);
        if ((pairs->shape[2] != 1 && pairs->shape[2] < queries) || pairs->shape[3] < keys)
            return hd_fail(HEED_ERROR_VALUE,
                           "%s is for %lld queries and %lld keys, but sequence %lld has %lld and "
                           "%lld",
                           hd_attention_name(operand), (long long)pairs->shape[2],
                           (long long)pairs->shape[3], (long long)b, (long long)queries,
                           (long long)keys);
    }
    return HEED_OK;
}

static heed_status_t bad_scale(int operand, const char *where, float value)
{
    return hd_fail(HEED_ERROR_VALUE, "%s[%s]=%g is not finite", hd_attention_name(operand), where,
                   (double)value);
}

/* One a token and head, of keys in use. */
static heed_status_t check_token_scales(const hd_attention_t *a, const hd_view_t *scale,
                                        int operand)
{
    char where[96];
    for (int64_t b = 0; b < a->batch; b++) {
        int64_t keys = hd_keys(a, b);
        for (int64_t j = 0; j < keys; j++) {
            const char *row = hd_view_row(scale, b, j, 0);
            for (int64_t h = 0; h < a->key_heads; h++) {
                float value = *(const float *)(const void *)(row + h * scale->head);
                if (isfinite(value))
                    continue;
                hd_text_t text = hd_text(where, sizeof(where));
                hd_text_add(&text, "sequence %lld, key %lld, head %lld", (long long)b, (long long)j,
                            (long long)h);
                return bad_scale(operand, where, value);
            }
        }
    }
    return HEED_OK;
}

static heed_status_t check_scales(const hd_attention_t *a, const heed_tensor_t *tensor,
                                  const hd_view_t *scale, int operand)
{
    char where[32];
    if (tensor->ndim == 3)
        return check_token_scales(a, scale, operand);
    for (int64_t h = 0; tensor->ndim && h < tensor->shape[0]; h++) {
        float value = hd_scale(scale, 0, 0, h);
        if (isfinite(value))
            continue;
        hd_text_t text = hd_text(where, sizeof(where));
        hd_text_add(&text, "%lld", (long long)h);
        return bad_scale(operand, where, value);
    }
    return HEED_OK;
}

heed_status_t hd_attention_check(const void *at, void *const *buffers)
{
    const heed_attention_desc_t *desc = at;
    if (desc->unchecked || desc->q.device.type != HEED_DEVICE_CPU)
        return HEED_OK;
    hd_attention_t a = hd_attention(desc, buffers);
    if (desc->cu_seqlens_q.ndim)
        HD_TRY(check_starts(&desc->cu_seqlens_q, a.q.index, HEED_ATTENTION_CU_SEQLENS_Q,
                            desc->q.shape[1]));
    if (desc->cu_seqlens_k.ndim)
        HD_TRY(check_starts(&desc->cu_seqlens_k, a.k.index, HEED_ATTENTION_CU_SEQLENS_K,
                            desc->k.shape[1]));
    if (desc->seqlens_k.ndim)
        HD_TRY(check_lengths(&desc->seqlens_k, a.lengths, a.keys));
    if (desc->page_table.ndim)
        HD_TRY(check_table(&a, desc));
    if (desc->cu_seqlens_q.ndim || desc->cu_seqlens_k.ndim) {
        HD_TRY(check_reach(&a, &desc->bias, HEED_ATTENTION_BIAS));
        HD_TRY(check_reach(&a, &desc->mask, HEED_ATTENTION_MASK));
    }
    HD_TRY(check_scales(&a, &desc->k_scale, &a.k_scale, HEED_ATTENTION_K_SCALE));
    return check_scales(&a, &desc->v_scale, &a.v_scale, HEED_ATTENTION_V_SCALE);
}
