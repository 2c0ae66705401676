/* Streaming attention: chunks of keys and values, merged as they come. */
#include "internal.h"
#include "steps.h"

#include <heed/ring.h>

#include <math.h>
#include <string.h>

enum { MOST_PLANS = 32 };

struct heed_attention_stream {
    heed_context_t *context;
    heed_stream_desc_t desc;
    heed_tensor_t q, out, lse; /* complete */
    hd_axes_t axes[3];
    int64_t seen; /* keys so far */
    int64_t key_heads;
    hd_state_t state;
    char *buffers[HD_STEP_OPERANDS]; /* k and v are a push's */
    char *memory;                    /* of the state */
    char *workspace;
    size_t workspace_bytes;
    hd_steps_t steps;
};

static bool is_banded(const heed_stream_desc_t *desc)
{
    return desc->causal || desc->window_left >= 0 || desc->window_right >= 0;
}

static heed_status_t check_parameters(const heed_stream_desc_t *desc)
{
    if (desc->causal < 0 || desc->causal > 1)
        return hd_fail(HEED_ERROR_VALUE, "desc.causal=%d is not 0 or 1", desc->causal);
    if (desc->window_left < -1 || desc->window_right < -1)
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.window_left=%lld, window_right=%lld: -1 is open, 0 and up",
                       (long long)desc->window_left, (long long)desc->window_right);
    if (!isfinite(desc->scale))
        return hd_fail(HEED_ERROR_VALUE, "desc.scale=%g is not finite", (double)desc->scale);
    if (desc->keys < 0 || desc->keys > HD_MOST_TOKENS)
        return hd_fail(HEED_ERROR_VALUE, "desc.keys=%lld is not 0 to 2^40", (long long)desc->keys);
    if (desc->after < 0 || desc->after > HD_MOST_TOKENS)
        return hd_fail(HEED_ERROR_VALUE, "desc.after=%lld is not 0 to 2^40",
                       (long long)desc->after);
    if (is_banded(desc) && desc->keys == 0)
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.keys=0: causal and windows need the number of all keys");
    return HEED_OK;
}

static heed_status_t check_tensors(heed_attention_stream_t *stream)
{
    const heed_stream_desc_t *desc = &stream->desc;
    const heed_tensor_t *q = &stream->q, *out = &stream->out, *lse = &stream->lse;
    HD_TRY(hd_tensor_complete("q", &desc->q, false, &stream->q, &stream->axes[0]));
    HD_TRY(hd_tensor_complete("out", &desc->out, true, &stream->out, &stream->axes[1]));
    if (desc->lse.ndim)
        HD_TRY(hd_tensor_complete("lse", &desc->lse, true, &stream->lse, &stream->axes[2]));
    if (q->ndim != 4 || out->ndim != 4 || (lse->ndim && lse->ndim != 3))
        return hd_fail(HEED_ERROR_SHAPE, "q.ndim=%d, out.ndim=%d, lse.ndim=%d: 4, 4 and 3", q->ndim,
                       out->ndim, lse->ndim);
    for (int a = 0; a < 3; a++)
        if (out->shape[a] != q->shape[a])
            return hd_fail(HEED_ERROR_SHAPE, "out.shape[%d]=%lld, but q.shape[%d]=%lld", a,
                           (long long)out->shape[a], a, (long long)q->shape[a]);
    if ((!desc->q.data && hd_tensor_elements(q)) || (!desc->out.data && hd_tensor_elements(out)) ||
        (lse->ndim && !desc->lse.data && hd_tensor_elements(lse)))
        return hd_fail(HEED_ERROR_NULL, "%s.data is null",
                       !desc->q.data     ? "q"
                       : !desc->out.data ? "out"
                                         : "lse");
    return HEED_OK;
}

static heed_status_t begin(heed_attention_stream_t *stream)
{
    HD_TRY(check_parameters(&stream->desc));
    HD_TRY(check_tensors(stream));
    hd_state_describe(&stream->out, &stream->lse, true, -1, &stream->state);
    size_t bytes = stream->state.out_bytes + stream->state.lse_bytes;
    if (bytes) {
        stream->memory = hd_alloc(stream->context, bytes);
        if (!stream->memory)
            return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a state of %zu bytes", bytes);
    }
    stream->buffers[HEED_ATTENTION_Q] = hd_tensor_data(&stream->desc.q);
    hd_state_buffers(&stream->state, hd_tensor_data(&stream->desc.out),
                     hd_tensor_data(&stream->desc.lse), stream->memory,
                     &stream->buffers[HEED_ATTENTION_OUT], &stream->buffers[HEED_ATTENTION_LSE]);
    hd_state_clear(&stream->state, stream->buffers[HEED_ATTENTION_OUT],
                   stream->buffers[HEED_ATTENTION_LSE], stream->context->devices[0].threads);
    return HEED_OK;
}

heed_status_t heed_stream_begin(heed_context_t *context, const heed_stream_desc_t *desc,
                                heed_attention_stream_t **stream)
{
    if (!context || !stream)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "stream" : "context");
    *stream = NULL;
    heed_stream_desc_t full;
    HD_TRY(hd_struct_copy(&full, sizeof(full), desc, offsetof(heed_stream_desc_t, after), "desc"));
    heed_attention_stream_t *made = hd_alloc(context, sizeof(*made));
    if (!made)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a stream");
    memset(made, 0, sizeof(*made));
    hd_context_retain(context);
    made->context = context;
    made->desc = full;
    heed_status_t status = begin(made);
    if (status != HEED_OK) {
        heed_stream_cancel(made);
        return status;
    }
    *stream = made;
    return HEED_OK;
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static heed_status_t check_chunk(const heed_attention_stream_t *stream, const heed_tensor_t *k,
                                 const heed_tensor_t *v)
{
    if (k->ndim != 4 || v->ndim != 4)
        return hd_fail(HEED_ERROR_SHAPE, "k.ndim=%d, v.ndim=%d: chunks have 4 axes", k->ndim,
                       v->ndim);
    if (stream->key_heads && k->shape[2] != stream->key_heads)
        return hd_fail(HEED_ERROR_SHAPE, "k.shape[2]=%lld, but the chunks before had %lld heads",
                       (long long)k->shape[2], (long long)stream->key_heads);
    if (k->shape[1] != v->shape[1])
        return hd_fail(HEED_ERROR_SHAPE, "k.shape[1]=%lld, but v.shape[1]=%lld",
                       (long long)k->shape[1], (long long)v->shape[1]);
    int64_t keys = stream->desc.keys;
    if (keys && k->shape[1] > keys - stream->seen)
        return hd_fail(HEED_ERROR_VALUE, "k.shape[1]=%lld: %lld of desc.keys=%lld have come before",
                       (long long)k->shape[1], (long long)stream->seen, (long long)keys);
    return HEED_OK;
}

/* Position of query 0 among the keys, less the number of the chunk's first key; then a side of the
 * band from there. */
static int64_t side(const heed_attention_stream_t *stream, int64_t window, int sign)
{
    const heed_stream_desc_t *desc = &stream->desc;
    int64_t at = desc->keys - desc->after - stream->q.shape[1] - stream->seen;
    int64_t most = 4 * HD_MOST_TOKENS;
    return window < 0 ? sign * most : at + sign * hd_min(window, most);
}

static heed_status_t make_room(heed_attention_stream_t *stream)
{
    size_t bytes = stream->steps.workspace;
    if (bytes <= stream->workspace_bytes)
        return HEED_OK;
    hd_free(stream->context, stream->workspace);
    stream->workspace_bytes = 0;
    stream->workspace = hd_alloc_aligned(stream->context, bytes, 64);
    if (!stream->workspace)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a workspace of %zu bytes", bytes);
    stream->workspace_bytes = bytes;
    return HEED_OK;
}

/* All queries and these keys, as a step that merges into the state. */
static hd_step_t whole_step(const heed_attention_stream_t *stream, const heed_tensor_t *k,
                            const heed_tensor_t *v)
{
    hd_step_t part = {.desc = heed_attention_desc()};
    part.desc.scale = stream->desc.scale;
    part.desc.q = stream->q;
    part.desc.k = *k;
    part.desc.v = *v;
    part.desc.out = stream->state.out;
    part.desc.lse = stream->state.lse;
    return part;
}

static heed_status_t attend(heed_attention_stream_t *stream, const heed_tensor_t *k,
                            const heed_tensor_t *v)
{
    const heed_stream_desc_t *desc = &stream->desc;
    hd_step_t part = whole_step(stream, k, v);
    if (stream->steps.count >= MOST_PLANS)
        hd_steps_free(stream->context, &stream->steps);
    int64_t first = stream->steps.count;
    HD_TRY(hd_steps_band(stream->context, &stream->steps, &part,
                         side(stream, desc->window_left, -1),
                         side(stream, desc->causal ? 0 : desc->window_right, 1)));
    HD_TRY(make_room(stream));
    return hd_steps_run(&stream->steps, first, stream->steps.count, stream->buffers,
                        stream->workspace);
}

heed_status_t heed_stream_push(heed_attention_stream_t *stream, const heed_tensor_t *k,
                               const heed_tensor_t *v)
{
    heed_tensor_t full_k, full_v;
    hd_axes_t axes[2];
    if (!stream || !k || !v)
        return hd_fail(HEED_ERROR_NULL, "%s is null", !stream ? "stream" : !k ? "k" : "v");
    HD_TRY(hd_tensor_complete("k", k, false, &full_k, &axes[0]));
    HD_TRY(hd_tensor_complete("v", v, false, &full_v, &axes[1]));
    HD_TRY(check_chunk(stream, &full_k, &full_v));
    stream->buffers[HEED_ATTENTION_K] = hd_tensor_data(k);
    stream->buffers[HEED_ATTENTION_V] = hd_tensor_data(v);
    if (hd_tensor_elements(&full_k) && (!k->data || !v->data))
        return hd_fail(HEED_ERROR_NULL, "%s.data is null", k->data ? "v" : "k");
    if (full_k.shape[1] > 0)
        HD_TRY(attend(stream, &full_k, &full_v));
    stream->key_heads = full_k.shape[2];
    stream->seen += full_k.shape[1];
    return HEED_OK;
}

/* ---- the size of chunks ---------------------------------------------------------------------- */

enum { CHUNK_STEP = 1024 };

/* Nanoseconds a key, as the plan of a chunk of so many predicts; NaN: unknown. */
static heed_status_t predict(const heed_attention_stream_t *stream, const hd_step_t *whole,
                             int64_t keys, double *ns)
{
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    heed_plan_t *plan;
    hd_step_t step = {.desc = whole->desc};
    step.desc.merge = 1;
    hd_step_rows(&step, HEED_ATTENTION_K, &whole->desc.k, 1, 0, 1, keys);
    hd_step_rows(&step, HEED_ATTENTION_V, &whole->desc.v, 1, 0, 1, keys);
    HD_TRY(heed_plan_create(stream->context, "attention", &step.desc, &plan));
    heed_status_t status = heed_plan_info(plan, &info);
    heed_plan_destroy(plan);
    *ns = info.estimate_ns / (double)keys;
    return status;
}

heed_status_t heed_stream_chunk(const heed_attention_stream_t *stream, const heed_tensor_t *k,
                                const heed_tensor_t *v, size_t bytes, int64_t *keys)
{
    heed_tensor_t full_k, full_v;
    hd_axes_t axes[2];
    double best, ns;
    if (!stream || !k || !v || !keys)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !stream ? "stream"
                       : !k    ? "k"
                       : !v    ? "v"
                               : "keys");
    HD_TRY(hd_tensor_complete("k", k, false, &full_k, &axes[0]));
    HD_TRY(hd_tensor_complete("v", v, false, &full_v, &axes[1]));
    HD_TRY(check_chunk(stream, &full_k, &full_v));
    int64_t all = full_k.shape[1];
    *keys = hd_max(all, 1);
    if (all <= CHUNK_STEP)
        return HEED_OK;
    double each = (double)(hd_tensor_elements(&full_k) / all * hd_dtype_bytes(full_k.dtype)) +
                  (double)(hd_tensor_elements(&full_v) / all * hd_dtype_bytes(full_v.dtype));
    double fit = (double)bytes / (each > 0 ? each : 1) / CHUNK_STEP;
    int64_t most = hd_min(all, hd_max((int64_t)fmin(fit, (double)all), 1) * CHUNK_STEP);
    hd_step_t whole = whole_step(stream, &full_k, &full_v);
    HD_TRY(predict(stream, &whole, most, &best));
    *keys = most;
    for (int64_t less = CHUNK_STEP; less < most; less *= 2) {
        HD_TRY(predict(stream, &whole, less, &ns));
        if (ns <= 1.01 * best) {
            *keys = less;
            break;
        }
    }
    return HEED_OK;
}

/* ---- the end --------------------------------------------------------------------------------- */

void heed_stream_cancel(heed_attention_stream_t *stream)
{
    if (!stream)
        return;
    heed_context_t *context = stream->context;
    hd_steps_free(context, &stream->steps);
    hd_free(context, stream->workspace);
    hd_free(context, stream->memory);
    hd_free(context, stream);
    heed_context_destroy(context);
}

heed_status_t heed_stream_end(heed_attention_stream_t *stream)
{
    heed_status_t status = HEED_OK;
    if (!stream)
        return hd_fail(HEED_ERROR_NULL, "stream is null");
    if (stream->desc.keys && stream->seen != stream->desc.keys)
        status = hd_fail(HEED_ERROR_VALUE, "%lld keys have come, but desc.keys=%lld",
                         (long long)stream->seen, (long long)stream->desc.keys);
    else
        hd_state_store(&stream->state, stream->buffers,
                       &(hd_rows_t){0, stream->out.shape[1], 0, 1, 1}, &stream->out,
                       hd_tensor_data(&stream->desc.out), &stream->lse,
                       hd_tensor_data(&stream->desc.lse), stream->context->devices[0].threads);
    heed_stream_cancel(stream);
    return status;
}
