/* Attention as an operation: what a descriptor must hold, and its words. The mathematics is in
 * include/heed/attention.h, the kernels in src/cpu and src/cuda. */
#include "op_attention.h"

#include "attention.h"
#include "tiles.h"

/* ---- operands and words ---------------------------------------------------------------------- */

const hd_operand_t hd_attention_operands[HEED_ATTENTION_OPERANDS] = {
    [HEED_ATTENTION_Q] = {{"q", "b,sq,hq,d", "dtype", 0, 0}, offsetof(heed_attention_desc_t, q)},
    [HEED_ATTENTION_K] = {{"k", "b,sk,hk,d", "k-dtype", 0, 0}, offsetof(heed_attention_desc_t, k)},
    [HEED_ATTENTION_V] = {{"v", "b,sk,hk,dv", "v-dtype", 0, 0}, offsetof(heed_attention_desc_t, v)},
    [HEED_ATTENTION_OUT] = {{"out", "b,sq,hq,dv", "out", 1, 0},
                            offsetof(heed_attention_desc_t, out)},
    [HEED_ATTENTION_LSE] = {{"lse", "b,hq,sq", "f32", 1, 1}, offsetof(heed_attention_desc_t, lse)},
    [HEED_ATTENTION_BIAS] = {{"bias", "", "bias", 0, 2}, offsetof(heed_attention_desc_t, bias)},
    [HEED_ATTENTION_MASK] = {{"mask", "", "bool", 0, 2}, offsetof(heed_attention_desc_t, mask)},
    [HEED_ATTENTION_ALIBI_SLOPES] = {{"alibi_slopes", "", "f32", 0, 2},
                                     offsetof(heed_attention_desc_t, alibi_slopes)},
    [HEED_ATTENTION_SINKS] = {{"sinks", "hq", "f32", 0, 1}, offsetof(heed_attention_desc_t, sinks)},
    [HEED_ATTENTION_CU_SEQLENS_Q] = {{"cu_seqlens_q", "", "i32", 0, 2},
                                     offsetof(heed_attention_desc_t, cu_seqlens_q)},
    [HEED_ATTENTION_CU_SEQLENS_K] = {{"cu_seqlens_k", "", "i32", 0, 2},
                                     offsetof(heed_attention_desc_t, cu_seqlens_k)},
    [HEED_ATTENTION_SEQLENS_K] = {{"seqlens_k", "", "i32", 0, 2},
                                  offsetof(heed_attention_desc_t, seqlens_k)},
    [HEED_ATTENTION_PAGE_TABLE] = {{"page_table", "", "i32", 0, 2},
                                   offsetof(heed_attention_desc_t, page_table)},
    [HEED_ATTENTION_K_SCALE] = {{"k_scale", "", "f32", 0, 2},
                                offsetof(heed_attention_desc_t, k_scale)},
    [HEED_ATTENTION_V_SCALE] = {{"v_scale", "", "f32", 0, 2},
                                offsetof(heed_attention_desc_t, v_scale)},
};

extern const hd_op_t hd_op_attention;

typedef hd_attention_words_t words_t;

static const hd_word_t word_table[] = {
    HD_WORD("dtype", "f32|bf16|f16|e4m3", "f32", "type of q, and of k and v if not given", 1,
            HD_WORD_DTYPE, dtype, 0, true),
    HD_WORD("b", "N", "1", "batch", 1, HD_WORD_INT, b, 0, true),
    HD_WORD("sq", "N", "1024", "queries", 1, HD_WORD_INT, sq, 0, true),
    HD_WORD("sk", "N", "", "keys, as many as queries if not given", 1, HD_WORD_INT, sk, 0, true),
    HD_WORD("hq", "N", "8", "query heads", 1, HD_WORD_INT, hq, 1, true),
    HD_WORD("hk", "N", "", "key heads, hq if not given", 1, HD_WORD_INT, hk, 1, true),
    HD_WORD("d", "N", "64", "head size of q and k", 1, HD_WORD_INT, d, 1, true),
    HD_WORD("dv", "N", "", "head size of v, d if not given", 1, HD_WORD_INT, dv, 1, true),
    HD_WORD("causal", "0|1", "0", "a query sees keys up to its position", 0, HD_WORD_BOOL, causal,
            0, true),
    HD_WORD("causal-align", "bottom-right|top-left", "bottom-right",
            "which corner the diagonal and the window end in", 0, HD_WORD_ENUM, align, 0, false),
    HD_WORD("window", "L,R", "-1,-1", "keys visible before and after the position, -1: open", 0,
            HD_WORD_PAIR, window, -1, true),
    HD_WORD("scale", "X", "0", "factor of the scores, 0: 1/sqrt(d)", 0, HD_WORD_FLOAT, scale, 0,
            false),
    HD_WORD("tiles",
            "text:VISIBILITY, text128:VISIBILITY (as `heed mask show`), random:SEED,PERCENT,TQ,TK,"
            "shared|each or blockdiag:SIZE,TQ,TK",
            "", "a tile list made on the spot", 0, HD_WORD_TEXT, tiles, 0, false),
    HD_WORD("out", "same|f32|bf16|f16", "same", "type of the output; same is bf16 with e4m3", 0,
            HD_WORD_ENUM, out, 0, false),
    HD_WORD("lse", "0|1", "0", "the log-sum-exp is an output too", 0, HD_WORD_BOOL, lse, 0, false),
    HD_WORD("merge", "0|1", "0", "merge into the state in (out, lse)", 0, HD_WORD_BOOL, merge, 0,
            false),
    HD_WORD("layout", "bshd|bhsd|fused|custom", "bshd",
            "order in memory; fused: q, k, v are slices of one [b,s,hq+2hk,d]", 0, HD_WORD_ENUM,
            layout, 0, true),
    HD_WORD("strides", "Q/K/V/OUT[/LSE], each A:B:C:D", "", "strides in elements, layout=custom", 0,
            HD_WORD_TEXT, strides, 0, false),
    HD_WORD("bias", "DTYPE:AXES", "", "added to scores; AXES: those of bhqk that are not 1, k last",
            0, HD_WORD_TEXT, bias, 0, false),
    HD_WORD("mask", "AXES", "", "bool mask; AXES: those of bhqk that are not 1, k last", 0,
            HD_WORD_TEXT, mask, 0, false),
    HD_WORD("alibi", "none|h|bh", "none", "slopes of ALiBi, by head or by batch and head", 0,
            HD_WORD_ENUM, alibi, 0, false),
    HD_WORD("softcap", "X", "0", "scores become X tanh(score / X), 0: they do not", 0,
            HD_WORD_FLOAT, softcap, 0, false),
    HD_WORD("sinks", "0|1", "0", "a logit a head that has no value", 0, HD_WORD_BOOL, sinks, 0,
            false),
    HD_WORD("off-by-one", "0|1", "0", "a sink of logit 0: exp / (1 + sum exp)", 0, HD_WORD_BOOL,
            off_by_one, 0, false),
    HD_WORD("ragged", "none|q|k|qk", "none",
            "sequences of their own lengths, packed: sq, sk are those of all b together", 0,
            HD_WORD_ENUM, ragged, 0, false),
    HD_WORD("lens", "0|1", "0", "keys in use of each sequence, sk at most", 0, HD_WORD_BOOL, lens,
            0, false),
    HD_WORD("page", "N", "0", "keys of a page, 0: no pages; sk is rounded up to whole pages", 0,
            HD_WORD_INT, page, 0, false),
    HD_WORD("pages", "N", "", "pages that there are, as many as b sequences fill if not given", 0,
            HD_WORD_INT, pages, 0, false),
    HD_WORD("k-dtype", "same|f32|bf16|f16|e4m3|e5m2|i8", "same", "type of k", 1, HD_WORD_ENUM,
            k_dtype, 0, false),
    HD_WORD("v-dtype", "same|f32|bf16|f16|e4m3|e5m2|i8", "same", "type of v", 1, HD_WORD_ENUM,
            v_dtype, 0, false),
    HD_WORD("k-scale", "none|tensor|head|token", "none", "scales of k", 0, HD_WORD_ENUM, k_scale, 0,
            false),
    HD_WORD("v-scale", "none|tensor|head|token", "none", "scales of v", 0, HD_WORD_ENUM, v_scale, 0,
            false),
    HD_WORD("split", "N", "0", "keys of a part computed on its own, 0: chosen", 0, HD_WORD_INT,
            split, 0, false),
    HD_WORD("invariant", "0|1", "0", "bits of a row depend neither on batch nor threads", 0,
            HD_WORD_BOOL, invariant, 0, false),
    HD_WORD("tiles-optional", "0|1", "0", "dense attention instead of tiles where it is faster", 0,
            HD_WORD_BOOL, tiles_optional, 0, false),
    HD_WORD("unchecked", "0|1", "0", "lengths, page tables and scales are trusted", 0, HD_WORD_BOOL,
            unchecked, 0, false),
};

static const char *const feature_names[] = {
#define NAME(name, bit, text) [bit] = text,
    HEED_ATTENTION_FEATURE_LIST(NAME)
#undef NAME
};

/* ---- what it asks for ------------------------------------------------------------------------ */

static bool is_strided(const heed_tensor_t *tensor)
{
    return tensor->shape[3] > 1 && tensor->strides[3] != 1;
}

static uint64_t needs(const void *at)
{
    const heed_attention_desc_t *desc = at;
    heed_dtype_t dtype = desc->q.dtype;
    int64_t d = desc->q.shape[3], dv = desc->v.shape[3];
    uint64_t bits = dtype == HEED_F32    ? HEED_ATTENTION_CAN_F32
                    : dtype == HEED_BF16 ? HEED_ATTENTION_CAN_BF16
                    : dtype == HEED_F16  ? HEED_ATTENTION_CAN_F16
                                         : HEED_ATTENTION_CAN_E4M3;
    const struct {
        bool needed;
        uint64_t bit;
    } features[] = {
        {dtype != HEED_F32 && desc->out.dtype == HEED_F32, HEED_ATTENTION_CAN_OUT_F32},
        {desc->causal, HEED_ATTENTION_CAN_CAUSAL},
        {desc->window_left >= 0 || desc->window_right >= 0, HEED_ATTENTION_CAN_WINDOW},
        {desc->q.shape[2] != desc->k.shape[2], HEED_ATTENTION_CAN_GROUPED},
        {desc->lse.ndim, HEED_ATTENTION_CAN_LSE},
        {desc->tiles, HEED_ATTENTION_CAN_TILES},
        {desc->merge, HEED_ATTENTION_CAN_MERGE},
        {is_strided(&desc->q) || is_strided(&desc->k) || is_strided(&desc->v) ||
             is_strided(&desc->out),
         HEED_ATTENTION_CAN_STRIDED_DIM},
        {d % 16 || dv % 16, HEED_ATTENTION_CAN_ODD_DIM},
        {d != dv, HEED_ATTENTION_CAN_DV},
        {desc->bias.ndim, HEED_ATTENTION_CAN_BIAS},
        {desc->mask.ndim, HEED_ATTENTION_CAN_MASK},
        {desc->alibi_slopes.ndim, HEED_ATTENTION_CAN_ALIBI},
        {desc->softcap > 0, HEED_ATTENTION_CAN_SOFTCAP},
        {desc->sinks.ndim || desc->off_by_one, HEED_ATTENTION_CAN_SINKS},
        {desc->cu_seqlens_q.ndim || desc->cu_seqlens_k.ndim, HEED_ATTENTION_CAN_RAGGED},
        {desc->seqlens_k.ndim, HEED_ATTENTION_CAN_LENGTHS},
        {desc->page_table.ndim, HEED_ATTENTION_CAN_PAGES},
        {desc->k.dtype != dtype || desc->v.dtype != dtype, HEED_ATTENTION_CAN_KV_DTYPE},
        {desc->k_scale.ndim || desc->v_scale.ndim, HEED_ATTENTION_CAN_KV_SCALE},
        {desc->batch_invariant, HEED_ATTENTION_CAN_INVARIANT},
    };
    for (int i = 0; i < HD_COUNT(features); i++)
        bits |= features[i].needed ? features[i].bit : 0;
    return bits;
}

/* What the sequences of the batch see, where lengths are not known as if all were as long as they
 * may be, and ragged ones alike. */
static hd_visibility_t usual_visibility(const heed_attention_desc_t *desc)
{
    hd_visibility_t visible = hd_visibility(desc);
    int64_t batch = hd_max(hd_sequences(desc), 1);
    if (desc->cu_seqlens_q.ndim)
        visible.queries = hd_ceil_div(visible.queries, batch);
    if (desc->cu_seqlens_k.ndim)
        visible.keys = hd_ceil_div(visible.keys, batch);
    if (desc->align == HEED_ALIGN_BOTTOM_RIGHT)
        visible.offset = visible.keys - visible.queries;
    return visible;
}

static double bytes_of(const heed_tensor_t *tensor)
{
    return (double)hd_tensor_elements(tensor) * (double)heed_dtype_size(tensor->dtype);
}

static void work(const void *at, hd_work_t *to)
{
    const heed_attention_desc_t *desc = at;
    const int64_t *q = desc->q.shape;
    int64_t batch = hd_sequences(desc), d = q[3], dv = desc->v.shape[3];
    hd_visibility_t visible = usual_visibility(desc);
    double pairs = hd_visible_pairs(&visible, batch, q[2]);
    to->flops = 2 * pairs * (double)(d + dv);
    /* A decode step of a window reads only the keys that some query sees. */
    double seen = (double)visible.keys;
    if (visible.queries > 0 && !desc->tiles)
        seen = (double)hd_max(hd_end_key(&visible, visible.queries - 1) - hd_first_key(&visible, 0),
                              0);
    double rows = seen * (double)batch * (double)desc->k.shape[2];
    to->bytes = rows * (double)d * (double)heed_dtype_size(desc->k.dtype);
    to->bytes += rows * (double)dv * (double)heed_dtype_size(desc->v.dtype);
    for (int i = 0; i < HEED_ATTENTION_OPERANDS; i++)
        if (i != HEED_ATTENTION_K && i != HEED_ATTENTION_V)
            to->bytes += bytes_of(hd_op_tensor_const(&hd_op_attention, desc, i));
}

/* ---- on a device ----------------------------------------------------------------------------- */

static size_t placed_bytes(const void *at)
{
    const heed_attention_desc_t *desc = at;
    return desc->tiles ? hd_tiles_placed_bytes(desc->tiles) : 0;
}

static void place(const void *desc, char *image, uintptr_t at)
{
    hd_tiles_place(((const heed_attention_desc_t *)desc)->tiles, image, at);
}

const hd_op_t hd_op_attention = {
    .name = "attention",
    .desc_size = sizeof(heed_attention_desc_t),
    .desc_smallest = offsetof(heed_attention_desc_t, softcap), /* of version 0.1 */
    .words_size = sizeof(words_t),
    .operands = hd_attention_operands,
    .operand_count = HEED_ATTENTION_OPERANDS,
    .words = word_table,
    .word_count = HD_COUNT(word_table),
    .features = feature_names,
    .feature_count = HD_COUNT(feature_names),
    .complete = hd_attention_complete,
    .check = hd_attention_check,
    .needs = needs,
    .work = work,
    .from_words = hd_attention_from_words,
    .to_words = hd_attention_to_words,
    .placed_bytes = placed_bytes,
    .place = place,
};

heed_status_t heed_attention_plan(heed_context_t *context, const heed_attention_desc_t *desc,
                                  heed_plan_t **plan)
{
    return heed_plan_create(context, hd_op_attention.name, desc, plan);
}

heed_status_t heed_attention(heed_context_t *context, const heed_attention_desc_t *desc)
{
    return hd_run_once(context, hd_op_attention.name, desc);
}
