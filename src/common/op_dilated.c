/* Dilated attention as an operation. */
#include "dilated.h"
#include "op.h"
#include "ranks.h"

#include <heed/ring.h>

#include <math.h>
#include <string.h>

static const hd_operand_t operands[] = {
    [HEED_DILATED_Q] = {{"q", "b,n,hq,d", "dtype", 0, 0}, offsetof(heed_dilated_desc_t, q)},
    [HEED_DILATED_K] = {{"k", "b,n,hk,d", "dtype", 0, 0}, offsetof(heed_dilated_desc_t, k)},
    [HEED_DILATED_V] = {{"v", "b,n,hk,dv", "dtype", 0, 0}, offsetof(heed_dilated_desc_t, v)},
    [HEED_DILATED_OUT] = {{"out", "b,n,hq,dv", "out", 1, 0}, offsetof(heed_dilated_desc_t, out)},
    [HEED_DILATED_LSE] = {{"lse", "b,hq,n", "f32", 1, 1}, offsetof(heed_dilated_desc_t, lse)},
};

typedef struct words {
    int64_t dtype, b, n, hq, hk, d, dv;
    int64_t mode, rule, causal, out, lse, blocks;
    double scale;
    char segments[HD_WORD_TEXT_SIZE], rates[HD_WORD_TEXT_SIZE];
} words_t;

static const hd_word_t word_table[] = {
    HD_WORD("dtype", "f32|bf16|f16", "f32", "type of q, k and v", 1, HD_WORD_DTYPE, dtype, 0, true),
    HD_WORD("b", "N", "1", "batch", 1, HD_WORD_INT, b, 0, true),
    HD_WORD("n", "N", "16384", "tokens", 1, HD_WORD_INT, n, 0, true),
    HD_WORD("hq", "N", "8", "query heads", 1, HD_WORD_INT, hq, 1, true),
    HD_WORD("hk", "N", "", "key heads, hq if not given", 1, HD_WORD_INT, hk, 1, true),
    HD_WORD("d", "N", "64", "head size of q and k", 1, HD_WORD_INT, d, 1, true),
    HD_WORD("dv", "N", "", "head size of v, d if not given", 1, HD_WORD_INT, dv, 1, true),
    HD_WORD("segments", "W,W,...", "2048,4096,8192", "tokens of a segment, one a branch", 0,
            HD_WORD_TEXT, segments, 0, true),
    HD_WORD("rates", "R,R,...", "1,2,4", "every how many-th of them is seen", 0, HD_WORD_TEXT,
            rates, 0, true),
    HD_WORD("mode", "longnet|torchscale|grouped|grouped_fkodom", "longnet",
            "how branches become one result", 0, HD_WORD_ENUM, mode, 0, true),
    HD_WORD("offset-rule", "paper|torchscale", "paper", "which head starts where", 0, HD_WORD_ENUM,
            rule, 0, false),
    HD_WORD("causal", "0|1", "0", "a query sees no later token", 0, HD_WORD_BOOL, causal, 0, true),
    HD_WORD("scale", "X", "0", "factor of the scores, 0: 1/sqrt(d)", 0, HD_WORD_FLOAT, scale, 0,
            false),
    HD_WORD("out", "same|f32", "same", "type of the output", 0, HD_WORD_ENUM, out, 0, false),
    HD_WORD("lse", "0|1", "0", "the log-sum-exp is an output too", 0, HD_WORD_BOOL, lse, 0, false),
    HD_WORD("blocks", "N", "0", "blocks of tokens that cpu:ring makes, 0: 4", 0, HD_WORD_INT,
            blocks, 0, false),
};

static const char *const feature_names[] = {
#define NAME(name, bit, text) [bit] = text,
    HEED_DILATED_FEATURE_LIST(NAME)
#undef NAME
};

/* ---- checking -------------------------------------------------------------------------------- */

/* Each axis is that of q, or one of its own. */
static heed_status_t check_shapes(const heed_dilated_desc_t *desc)
{
    const heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out, &desc->lse};
    for (int i = 0; i < HEED_DILATED_LSE; i++)
        if (tensors[i]->ndim != 4)
            return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, dilated attention takes 4 axes",
                           operands[i].info.name, tensors[i]->ndim);
    if (desc->lse.ndim != 0 && desc->lse.ndim != 3)
        return hd_fail(HEED_ERROR_SHAPE, "lse.ndim=%d is not 3", desc->lse.ndim);
    int64_t b = desc->q.shape[0], n = desc->q.shape[1], h = desc->q.shape[2], d = desc->q.shape[3];
    int64_t hk = desc->k.shape[2], dv = desc->v.shape[3];
    const int64_t want[][4] = {
        {b, n, h, d}, {b, n, hk, d}, {b, n, hk, dv}, {b, n, h, dv}, {b, h, n}};
    for (int i = 0; i < HD_COUNT(tensors); i++)
        for (int a = 0; a < tensors[i]->ndim; a++)
            if (tensors[i]->shape[a] != want[i][a])
                return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, the others make it %lld",
                               operands[i].info.name, a, (long long)tensors[i]->shape[a],
                               (long long)want[i][a]);
    if (h < 1 || hk < 1 || h % hk)
        return hd_fail(HEED_ERROR_SHAPE, "q has %lld heads, which is no multiple of k's %lld",
                       (long long)h, (long long)hk);
    if (d < 1 || d > 512 || dv < 1 || dv > 512)
        return hd_fail(HEED_ERROR_SHAPE, "head sizes q.shape[3]=%lld, v.shape[3]=%lld: 1 to 512",
                       (long long)d, (long long)dv);
    if (n > INT32_MAX)
        return hd_fail(HEED_ERROR_SHAPE, "q.shape[1]=%lld: at most 2^31-1", (long long)n);
    return HEED_OK;
}

static heed_status_t check_dtypes(const heed_dilated_desc_t *desc)
{
    heed_dtype_t dtype = desc->q.dtype;
    if (dtype != HEED_F32 && dtype != HEED_BF16 && dtype != HEED_F16)
        return hd_fail(HEED_ERROR_DTYPE, "q is %s: dilated attention takes f32, bf16, f16",
                       heed_dtype_name(dtype));
    if (desc->k.dtype != dtype || desc->v.dtype != dtype)
        return hd_fail(HEED_ERROR_DTYPE, "k is %s and v is %s, but q is %s",
                       heed_dtype_name(desc->k.dtype), heed_dtype_name(desc->v.dtype),
                       heed_dtype_name(dtype));
    if (desc->out.dtype != dtype && desc->out.dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "out is %s: with q in %s it is that or f32",
                       heed_dtype_name(desc->out.dtype), heed_dtype_name(dtype));
    if (desc->lse.ndim && desc->lse.dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "lse is %s: it is f32", heed_dtype_name(desc->lse.dtype));
    return HEED_OK;
}

static heed_status_t check_branches(const heed_dilated_desc_t *desc)
{
    if (desc->branches < 1 || desc->branches > HEED_DILATED_BRANCHES)
        return hd_fail(HEED_ERROR_VALUE, "branches=%d is not 1 to %d", desc->branches,
                       HEED_DILATED_BRANCHES);
    for (int i = 0; i < desc->branches; i++) {
        if (desc->rates[i] < 1 || desc->rates[i] > INT32_MAX)
            return hd_fail(HEED_ERROR_VALUE, "rates[%d]=%lld is not 1 to 2^31-1", i,
                           (long long)desc->rates[i]);
        if (desc->segments[i] < 1 || desc->segments[i] > INT32_MAX)
            return hd_fail(HEED_ERROR_VALUE, "segments[%d]=%lld is not 1 to 2^31-1", i,
                           (long long)desc->segments[i]);
        if (i && desc->segments[i] < desc->segments[i - 1])
            return hd_fail(HEED_ERROR_VALUE, "segments[%d]=%lld is below the one before, %lld", i,
                           (long long)desc->segments[i], (long long)desc->segments[i - 1]);
        if (desc->mode == HEED_DILATED_GROUPED_FKODOM &&
            hd_dilated_tokens(desc) % desc->segments[i])
            return hd_fail(HEED_ERROR_VALUE,
                           "segments[%d]=%lld does not divide the %lld tokens: grouped_fkodom "
                           "takes whole segments",
                           i, (long long)desc->segments[i], (long long)hd_dilated_tokens(desc));
    }
    return HEED_OK;
}

static heed_status_t check_ranks(const heed_dilated_desc_t *desc)
{
    heed_comm_t comm;
    heed_ring_run_t runs[2];
    if (desc->blocks < 0 || desc->blocks > 4096)
        return hd_fail(HEED_ERROR_VALUE, "blocks=%d is not 0 to 4096", desc->blocks);
    if (!desc->comm)
        return desc->tokens
                   ? hd_fail(HEED_ERROR_VALUE, "tokens=%lld without comm", (long long)desc->tokens)
                   : HEED_OK;
    HD_TRY(hd_comm_enter(desc->comm, &comm));
    if (desc->tokens < 0 || desc->tokens > INT32_MAX)
        return hd_fail(HEED_ERROR_VALUE, "tokens=%lld is not 0 to 2^31-1", (long long)desc->tokens);
    heed_ring_runs(HEED_RING_CONTIGUOUS, comm.rank, comm.size, desc->tokens, runs);
    if (desc->q.shape[1] != runs[0].count)
        return hd_fail(HEED_ERROR_SHAPE, "q.shape[1]=%lld: rank %d of %d has %lld of %lld tokens",
                       (long long)desc->q.shape[1], comm.rank, comm.size, (long long)runs[0].count,
                       (long long)desc->tokens);
    return HEED_OK;
}

static heed_status_t complete(void *at)
{
    heed_dilated_desc_t *desc = at;
    HD_TRY(check_shapes(desc));
    HD_TRY(check_dtypes(desc));
    if ((int)desc->mode < 0 || desc->mode > HEED_DILATED_GROUPED_FKODOM)
        return hd_fail(HEED_ERROR_VALUE, "mode=%d is no heed_dilated_mode_t", (int)desc->mode);
    if (desc->offset_rule != HEED_OFFSET_PAPER && desc->offset_rule != HEED_OFFSET_TORCHSCALE)
        return hd_fail(HEED_ERROR_VALUE, "offset_rule=%d is no heed_offset_rule_t",
                       (int)desc->offset_rule);
    if (desc->causal < 0 || desc->causal > 1)
        return hd_fail(HEED_ERROR_VALUE, "causal=%d is not 0 or 1", desc->causal);
    if (!isfinite(desc->scale))
        return hd_fail(HEED_ERROR_VALUE, "scale=%g is not finite", (double)desc->scale);
    HD_TRY(check_branches(desc));
    if (!hd_dilated_mixes(desc) && desc->branches > desc->q.shape[2])
        return hd_fail(HEED_ERROR_VALUE, "branches=%d: more than the %lld heads to divide",
                       desc->branches, (long long)desc->q.shape[2]);
    if (!hd_dilated_mixes(desc) && desc->q.shape[2] != desc->k.shape[2])
        return hd_fail(HEED_ERROR_SHAPE,
                       "q has %lld heads, k has %lld: modes that divide heads take as many",
                       (long long)desc->q.shape[2], (long long)desc->k.shape[2]);
    HD_TRY(check_ranks(desc));
    if (desc->mode == HEED_DILATED_GROUPED_FKODOM && desc->lse.ndim)
        return hd_fail(HEED_ERROR_VALUE, "lse: the rows of grouped_fkodom have none");
    if (desc->scale == 0)
        desc->scale = (float)(1 / sqrt((double)desc->q.shape[3]));
    return HEED_OK;
}

static uint64_t needs(const void *at)
{
    const heed_dilated_desc_t *desc = at;
    uint64_t bits = (uint64_t)HEED_DILATED_CAN_LONGNET << desc->mode;
    bits |= desc->causal ? HEED_DILATED_CAN_CAUSAL : 0;
    bits |= desc->q.shape[2] != desc->k.shape[2] ? HEED_DILATED_CAN_GROUPED_HEADS : 0;
    bits |= desc->lse.ndim ? HEED_DILATED_CAN_LSE : 0;
    bits |= desc->q.dtype != HEED_F32 ? HEED_DILATED_CAN_NARROW : 0;
    bits |= desc->comm ? HEED_DILATED_CAN_RANKS : 0;
    return bits;
}

/* Pairs of tokens that one head sees in segments of one branch. */
static double pairs_of(const heed_dilated_desc_t *desc, int branch, int64_t offset)
{
    int64_t n = hd_dilated_tokens(desc), segment = hd_dilated_segment(desc, branch);
    double whole = (double)hd_lattice_count(segment, desc->rates[branch], offset);
    double rest = (double)hd_lattice_count(n % segment, desc->rates[branch], offset);
    double half = desc->causal ? 0.5 : 1, line = desc->causal ? 0.5 : 0;
    return (double)(n / segment) * whole * (half * whole + line) + rest * (half * rest + line);
}

static void work(const void *at, hd_work_t *to)
{
    const heed_dilated_desc_t *desc = at;
    int64_t heads = desc->q.shape[2], group = heads / desc->k.shape[2];
    double pairs = 0;
    for (int i = 0; i < desc->branches; i++) {
        int64_t first = 0, end = heads;
        if (!hd_dilated_mixes(desc))
            hd_dilated_group(desc, i, &first, &end);
        for (int64_t h = first; h < end; h++)
            pairs += pairs_of(desc, i,
                              hd_dilated_mixes(desc) ? hd_dilated_offset(desc, i, h / group)
                                                     : i % desc->rates[i]);
    }
    if (desc->comm) /* this rank's part */
        pairs *= (double)desc->q.shape[1] / (double)hd_max(desc->tokens, 1);
    to->flops =
        2 * pairs * (double)desc->q.shape[0] * (double)(desc->q.shape[3] + desc->v.shape[3]);
    to->bytes = 0;
    for (int i = 0; i < HD_COUNT(operands); i++) {
        const heed_tensor_t *tensor =
            (const heed_tensor_t *)((const char *)at + operands[i].offset);
        if (tensor->ndim)
            to->bytes +=
                (double)hd_tensor_elements(tensor) * (double)heed_dtype_size(tensor->dtype);
    }
}

/* ---- words ----------------------------------------------------------------------------------- */

static heed_status_t read_list(const char *name, const char *text, int64_t *list, int *count)
{
    char number[32];
    for (*count = 0; hd_next_item(&text, ",", number, sizeof(number)); ++*count)
        if (*count == HEED_DILATED_BRANCHES || !hd_parse_int(number, &list[*count]))
            return hd_fail(HEED_ERROR_VALUE, "%s: '%s' is no number, or the %dth", name, number,
                           *count + 1);
    return HEED_OK;
}

static heed_tensor_t make_tensor(heed_dtype_t dtype, hd_axes_t *axes, int64_t b, int64_t n,
                                 int64_t h, int64_t d)
{
    memcpy(axes->shape, (int64_t[]){b, n, h, d}, 4 * sizeof(int64_t));
    hd_dense_strides(4, axes->shape, axes->strides);
    return heed_tensor(NULL, dtype, 4, axes->shape, axes->strides);
}

static heed_status_t from_words(const void *at, void *to, hd_storage_t *storage)
{
    const words_t *words = at;
    heed_dilated_desc_t *desc = to;
    hd_axes_t *axes = storage->axes;
    heed_dtype_t dtype = (heed_dtype_t)words->dtype;
    int64_t b = words->b, n = words->n, hq = words->hq, d = words->d, count;
    int64_t hk = words->hk < 0 ? hq : words->hk, dv = words->dv < 0 ? d : words->dv;
    if (!hd_mul(hd_max(b, 1), hd_max(n, 1), &count) || !hd_mul(count, hd_max(hq, hk), &count) ||
        !hd_mul(count, hd_max(d, dv), &count) || count > INT64_MAX / 64)
        return hd_fail(HEED_ERROR_SHAPE, "b=%lld n=%lld hq=%lld: too many elements to address",
                       (long long)b, (long long)n, (long long)hq);
    int rates;
    *desc = heed_dilated_desc();
    desc->mode = (heed_dilated_mode_t)words->mode;
    desc->offset_rule = (heed_offset_rule_t)words->rule;
    desc->causal = (int32_t)words->causal;
    desc->scale = (float)words->scale;
    desc->blocks = (int32_t)hd_min(words->blocks, INT32_MAX);
    HD_TRY(read_list("segments", words->segments, desc->segments, &desc->branches));
    HD_TRY(read_list("rates", words->rates, desc->rates, &rates));
    if (rates != desc->branches)
        return hd_fail(HEED_ERROR_VALUE, "%d segments and %d rates: one of each a branch",
                       desc->branches, rates);
    desc->q = make_tensor(dtype, &axes[0], b, n, hq, d);
    desc->k = make_tensor(dtype, &axes[1], b, n, hk, d);
    desc->v = make_tensor(dtype, &axes[2], b, n, hk, dv);
    desc->out = make_tensor(words->out ? HEED_F32 : dtype, &axes[3], b, n, hq, dv);
    if (words->lse) {
        memcpy(axes[4].shape, (int64_t[]){b, hq, n}, 3 * sizeof(int64_t));
        hd_dense_strides(3, axes[4].shape, axes[4].strides);
        desc->lse = heed_tensor(NULL, HEED_F32, 3, axes[4].shape, axes[4].strides);
    }
    return HEED_OK;
}

static void print_list(const int64_t *list, int count, char *to)
{
    hd_text_t text = hd_text(to, HD_WORD_TEXT_SIZE);
    for (int i = 0; i < count; i++)
        hd_text_add(&text, "%s%lld", i ? "," : "", (long long)list[i]);
}

static void to_words(const void *at, void *to)
{
    const heed_dilated_desc_t *desc = at;
    words_t *words = to;
    const int64_t *q = desc->q.shape;
    words->dtype = desc->q.dtype;
    words->b = q[0];
    words->n = q[1];
    words->hq = q[2];
    words->hk = desc->k.shape[2];
    words->d = q[3];
    words->dv = desc->v.shape[3];
    words->mode = desc->mode;
    words->rule = desc->offset_rule;
    words->causal = desc->causal;
    words->scale = desc->scale == (float)(1 / sqrt((double)q[3])) ? 0 : (double)desc->scale;
    words->out = desc->out.dtype != desc->q.dtype;
    words->lse = desc->lse.ndim > 0;
    words->blocks = desc->blocks;
    print_list(desc->segments, desc->branches, words->segments);
    print_list(desc->rates, desc->branches, words->rates);
}

const hd_op_t hd_op_dilated = {
    .name = "dilated",
    .desc_size = sizeof(heed_dilated_desc_t),
    .desc_smallest = offsetof(heed_dilated_desc_t, blocks),
    .words_size = sizeof(words_t),
    .operands = operands,
    .operand_count = HD_COUNT(operands),
    .words = word_table,
    .word_count = HD_COUNT(word_table),
    .features = feature_names,
    .feature_count = HD_COUNT(feature_names),
    .complete = complete,
    .needs = needs,
    .work = work,
    .from_words = from_words,
    .to_words = to_words,
};

heed_status_t heed_dilated_attention_plan(heed_context_t *context, const heed_dilated_desc_t *desc,
                                          heed_plan_t **plan)
{
    return heed_plan_create(context, hd_op_dilated.name, desc, plan);
}

heed_status_t heed_dilated_attention(heed_context_t *context, const heed_dilated_desc_t *desc)
{
    return hd_run_once(context, hd_op_dilated.name, desc);
}
