/* Attention as an operation: what a descriptor must hold, and its words. The mathematics is in
 * include/heed/attention.h, the kernels in src/cpu and src/cuda. */
#include "op.h"
#include "tiles.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- operands and words ---------------------------------------------------------------------- */

static const hd_operand_t operands[] = {
    [HEED_ATTENTION_Q] = {{"q", "b,sq,hq,d", "dtype", 0, 0}, offsetof(heed_attention_desc_t, q)},
    [HEED_ATTENTION_K] = {{"k", "b,sk,hk,d", "dtype", 0, 0}, offsetof(heed_attention_desc_t, k)},
    [HEED_ATTENTION_V] = {{"v", "b,sk,hk,dv", "dtype", 0, 0}, offsetof(heed_attention_desc_t, v)},
    [HEED_ATTENTION_OUT] = {{"out", "b,sq,hq,dv", "out", 1, 0},
                            offsetof(heed_attention_desc_t, out)},
    [HEED_ATTENTION_LSE] = {{"lse", "b,hq,sq", "f32", 1, 1}, offsetof(heed_attention_desc_t, lse)},
};

enum { BSHD, BHSD, FUSED, CUSTOM };

typedef struct words {
    int64_t dtype, b, sq, sk, hq, hk, d, dv;
    int64_t causal, align, window[2], layout, out, lse, merge;
    double scale;
    char tiles[HD_WORD_TEXT_SIZE];
    char strides[HD_WORD_TEXT_SIZE];
} words_t;

static const hd_word_t word_table[] = {
    HD_WORD("dtype", "f32|bf16|f16|e4m3", "f32", "type of q, k and v", 1, HD_WORD_DTYPE, dtype, 0,
            true),
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
    HD_WORD("tiles", "random:SEED,PERCENT,TQ,TK,shared|each or blockdiag:SIZE,TQ,TK", "",
            "a tile list made on the spot", 0, HD_WORD_TEXT, tiles, 0, false),
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
};

static const char *const feature_names[] = {
#define NAME(name, bit, text) [bit] = text,
    HEED_ATTENTION_FEATURE_LIST(NAME)
#undef NAME
};

/* The output that goes without saying. */
static heed_dtype_t usual_output(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3 ? HEED_BF16 : dtype;
}

/* ---- checking -------------------------------------------------------------------------------- */

static heed_status_t check_axes(const heed_attention_desc_t *desc)
{
    const heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out, &desc->lse};
    for (int i = 0; i < HD_COUNT(tensors); i++) {
        int want = i == HEED_ATTENTION_LSE ? 3 : 4;
        if (tensors[i]->ndim != want && !(i == HEED_ATTENTION_LSE && tensors[i]->ndim == 0))
            return hd_fail(HEED_ERROR_SHAPE, "%s.ndim=%d, attention takes %d axes",
                           operands[i].info.name, tensors[i]->ndim, want);
    }
    return HEED_OK;
}

/* Axis `a` of tensor x must be as long as axis `b` of tensor y. */
static heed_status_t check_same(const heed_tensor_t *x, const char *x_name, int a,
                                const heed_tensor_t *y, const char *y_name, int b)
{
    if (x->shape[a] == y->shape[b])
        return HEED_OK;
    return hd_fail(HEED_ERROR_SHAPE, "%s.shape[%d]=%lld, but %s.shape[%d]=%lld", x_name, a,
                   (long long)x->shape[a], y_name, b, (long long)y->shape[b]);
}

static heed_status_t check_shapes(const heed_attention_desc_t *desc)
{
    const heed_tensor_t *q = &desc->q, *k = &desc->k, *v = &desc->v, *out = &desc->out;
    HD_TRY(check_same(k, "k", 0, q, "q", 0));
    HD_TRY(check_same(k, "k", 3, q, "q", 3));
    HD_TRY(check_same(v, "v", 0, q, "q", 0));
    HD_TRY(check_same(v, "v", 1, k, "k", 1));
    HD_TRY(check_same(v, "v", 2, k, "k", 2));
    HD_TRY(check_same(out, "out", 0, q, "q", 0));
    HD_TRY(check_same(out, "out", 1, q, "q", 1));
    HD_TRY(check_same(out, "out", 2, q, "q", 2));
    HD_TRY(check_same(out, "out", 3, v, "v", 3));
    if (desc->lse.ndim) {
        HD_TRY(check_same(&desc->lse, "lse", 0, q, "q", 0));
        HD_TRY(check_same(&desc->lse, "lse", 1, q, "q", 2));
        HD_TRY(check_same(&desc->lse, "lse", 2, q, "q", 1));
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

static heed_status_t check_dtypes(const heed_attention_desc_t *desc)
{
    heed_dtype_t dtype = desc->q.dtype, out = desc->out.dtype;
    bool e4m3 = dtype == HEED_E4M3;
    if (dtype != HEED_F32 && dtype != HEED_BF16 && dtype != HEED_F16 && !e4m3)
        return hd_fail(HEED_ERROR_DTYPE, "q is %s: attention takes f32, bf16, f16, e4m3",
                       heed_dtype_name(dtype));
    if (desc->k.dtype != dtype || desc->v.dtype != dtype)
        return hd_fail(HEED_ERROR_DTYPE, "k is %s and v is %s, but q is %s",
                       heed_dtype_name(desc->k.dtype), heed_dtype_name(desc->v.dtype),
                       heed_dtype_name(dtype));
    if (e4m3 && out != HEED_BF16 && out != HEED_F16 && out != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "out is %s: with q in e4m3 it is bf16, f16 or f32",
                       heed_dtype_name(out));
    if (!e4m3 && out != dtype && out != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "out is %s: with q in %s it is that or f32",
                       heed_dtype_name(out), heed_dtype_name(dtype));
    if (desc->lse.ndim && desc->lse.dtype != HEED_F32)
        return hd_fail(HEED_ERROR_DTYPE, "lse is %s: it is f32", heed_dtype_name(desc->lse.dtype));
    return HEED_OK;
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
    if (desc->window_left < -1 || desc->window_right < -1)
        return hd_fail(HEED_ERROR_VALUE,
                       "window_left=%lld, window_right=%lld: -1 is open, 0 and up",
                       (long long)desc->window_left, (long long)desc->window_right);
    if (desc->merge && !desc->lse.ndim)
        return hd_fail(HEED_ERROR_VALUE, "merge=1 needs lse: a partial state is (out, lse)");
    return HEED_OK;
}

static heed_status_t complete(void *at)
{
    heed_attention_desc_t *desc = at;
    HD_TRY(check_axes(desc));
    HD_TRY(check_dtypes(desc));
    HD_TRY(check_shapes(desc));
    HD_TRY(check_parameters(desc));
    if (desc->scale == 0)
        desc->scale = (float)(1 / sqrt((double)desc->q.shape[3]));
    if (!desc->tiles)
        return HEED_OK;
    return hd_tiles_check(desc->tiles, desc->q.shape[0], desc->q.shape[2], desc->q.shape[1],
                          desc->k.shape[1]);
}

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
    };
    for (int i = 0; i < HD_COUNT(features); i++)
        bits |= features[i].needed ? features[i].bit : 0;
    return bits;
}

static void work(const void *at, hd_work_t *to)
{
    const heed_attention_desc_t *desc = at;
    const int64_t *q = desc->q.shape, *k = desc->k.shape;
    hd_visibility_t visible = hd_visibility(desc);
    double pairs = hd_visible_pairs(&visible, q[0], q[2]);
    to->flops = 2 * pairs * (double)(q[3] + desc->v.shape[3]);
    /* A decode step of a window reads only the keys that some query sees. */
    double seen = (double)k[1];
    if (q[1] > 0 && !desc->tiles)
        seen = (double)hd_max(hd_end_key(&visible, q[1] - 1) - hd_first_key(&visible, 0), 0);
    double row = (double)q[0] * (double)k[2] * (double)(q[3] + desc->v.shape[3]);
    to->bytes = seen * row * (double)heed_dtype_size(desc->k.dtype);
    to->bytes += (double)hd_tensor_elements(&desc->q) * (double)heed_dtype_size(desc->q.dtype);
    to->bytes += (double)hd_tensor_elements(&desc->out) * (double)heed_dtype_size(desc->out.dtype);
    to->bytes += (double)hd_tensor_elements(&desc->lse) * 4;
}

/* ---- from words ------------------------------------------------------------------------------ */

/* Strides of axes (b, s, h, d) for a layout whose row of heads holds `heads` heads. */
static void layout_strides(int64_t layout, const int64_t *shape, int64_t heads, int64_t *strides)
{
    int64_t s = hd_max(shape[1], 1), h = hd_max(shape[2], 1), d = shape[3];
    if (layout == BHSD) {
        strides[0] = h * s * d;
        strides[1] = d;
        strides[2] = s * d;
    } else {
        strides[0] = s * heads * d;
        strides[1] = heads * d;
        strides[2] = d;
    }
    strides[3] = 1;
}

static heed_status_t read_strides(const char *text, heed_attention_desc_t *desc)
{
    heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out, &desc->lse};
    char group[160], number[32];
    int count = 0;
    for (; count < HD_COUNT(tensors) && hd_next_item(&text, "/", group, sizeof(group)); count++) {
        const char *at = group;
        int axis = 0;
        int64_t stride;
        for (; hd_next_item(&at, ":", number, sizeof(number)); axis++) {
            if (axis >= tensors[count]->ndim || !hd_parse_int(number, &stride))
                return hd_fail(HEED_ERROR_VALUE, "strides: '%s' is no stride of %s", number,
                               operands[count].info.name);
            tensors[count]->strides[axis] = stride;
        }
        if (axis != tensors[count]->ndim)
            return hd_fail(HEED_ERROR_VALUE, "strides: %s takes %d", operands[count].info.name,
                           tensors[count]->ndim);
    }
    if (count < HEED_ATTENTION_LSE)
        return hd_fail(HEED_ERROR_VALUE, "layout=custom needs strides=Q/K/V/OUT[/LSE]");
    return HEED_OK;
}

/* Those of the word `out`, in its order. */
static const heed_dtype_t outputs[] = {0, HEED_F32, HEED_BF16, HEED_F16};

static heed_dtype_t output_of(int64_t word, heed_dtype_t dtype)
{
    return word ? outputs[word] : usual_output(dtype);
}

static int64_t word_of_output(heed_dtype_t out, heed_dtype_t dtype)
{
    int64_t word = 0;
    while (output_of(word, dtype) != out && word + 1 < HD_COUNT(outputs))
        word++;
    return word;
}

static heed_tensor_t make_tensor(heed_dtype_t dtype, hd_axes_t *axes, int64_t b, int64_t s,
                                 int64_t h, int64_t d)
{
    memcpy(axes->shape, (int64_t[]){b, s, h, d}, 4 * sizeof(int64_t));
    return heed_tensor(NULL, dtype, 4, axes->shape, axes->strides);
}

/* Whether a tensor of these sizes can be addressed; then no stride of a layout overflows. */
static bool fits(int64_t b, int64_t s, int64_t h, int64_t d)
{
    int64_t count = 0;
    return hd_mul(hd_max(b, 1), hd_max(s, 1), &count) && hd_mul(count, hd_max(h, 1), &count) &&
           hd_mul(count, hd_max(d, 1), &count) && count <= INT64_MAX / 64;
}

static heed_status_t from_words(const void *at, void *to, hd_storage_t *storage)
{
    const words_t *words = at;
    heed_attention_desc_t *desc = to;
    hd_axes_t *axes = storage->axes;
    heed_dtype_t dtype = (heed_dtype_t)words->dtype;
    int64_t b = words->b, sq = words->sq, hq = words->hq, d = words->d;
    int64_t sk = words->sk < 0 ? sq : words->sk, hk = words->hk < 0 ? hq : words->hk;
    int64_t dv = words->dv < 0 ? d : words->dv;
    bool fused = words->layout == FUSED;
    if (fused && (sq != sk || d != dv))
        return hd_fail(HEED_ERROR_VALUE, "layout=fused needs sq=sk and d=dv");
    if (words->strides[0] && words->layout != CUSTOM)
        return hd_fail(HEED_ERROR_VALUE, "strides needs layout=custom");
    if (!fits(b, sq, hq, hd_max(d, dv)) || !fits(b, sk, hk, hd_max(d, dv)) ||
        (fused && !fits(b, sq, hq + 2 * hk, d)))
        return hd_fail(
            HEED_ERROR_SHAPE,
            "b=%lld sq=%lld sk=%lld hq=%lld hk=%lld d=%lld dv=%lld: too many elements to "
            "address",
            (long long)b, (long long)sq, (long long)sk, (long long)hq, (long long)hk, (long long)d,
            (long long)dv);

    *desc = heed_attention_desc();
    desc->causal = (int32_t)words->causal;
    desc->align = (heed_align_t)words->align;
    desc->scale = (float)words->scale;
    desc->window_left = words->window[0];
    desc->window_right = words->window[1];
    desc->merge = (int32_t)words->merge;
    desc->q = make_tensor(dtype, &axes[0], b, sq, hq, d);
    desc->k = make_tensor(dtype, &axes[1], b, sk, hk, d);
    desc->v = make_tensor(dtype, &axes[2], b, sk, hk, dv);
    desc->out = make_tensor(output_of(words->out, dtype), &axes[3], b, sq, hq, dv);
    layout_strides(words->layout, axes[0].shape, fused ? hq + 2 * hk : hq, axes[0].strides);
    layout_strides(words->layout, axes[1].shape, fused ? hq + 2 * hk : hk, axes[1].strides);
    layout_strides(words->layout, axes[2].shape, fused ? hq + 2 * hk : hk, axes[2].strides);
    layout_strides(words->layout, axes[3].shape, hq, axes[3].strides);
    if (words->lse || words->merge) {
        memcpy(axes[4].shape, (int64_t[]){b, hq, sq}, 3 * sizeof(int64_t));
        hd_dense_strides(3, axes[4].shape, axes[4].strides);
        desc->lse = heed_tensor(NULL, HEED_F32, 3, axes[4].shape, axes[4].strides);
    }
    if (words->layout == CUSTOM)
        HD_TRY(read_strides(words->strides, desc));
    if (!words->tiles[0])
        return HEED_OK;
    heed_tile_list_t *tiles = NULL;
    HD_TRY(hd_tiles_parse(words->tiles, b, hq, sq, sk, &tiles));
    storage->extra = tiles;
    desc->tiles = tiles;
    return HEED_OK;
}

/* ---- to words -------------------------------------------------------------------------------- */

/* Whether all four tensors lie in this layout; axes of length 1 fit any stride. */
static bool has_layout(const heed_attention_desc_t *desc, int64_t layout)
{
    const heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out};
    int64_t row = desc->q.shape[2] + 2 * desc->k.shape[2], strides[4];
    if (layout == FUSED &&
        (desc->q.shape[1] != desc->k.shape[1] || desc->q.shape[3] != desc->v.shape[3]))
        return false;
    for (int i = 0; i < HD_COUNT(tensors); i++) {
        bool wide = layout == FUSED && i != HEED_ATTENTION_OUT;
        layout_strides(layout, tensors[i]->shape, wide ? row : tensors[i]->shape[2], strides);
        for (int a = 0; a < 4; a++)
            if (tensors[i]->shape[a] > 1 && tensors[i]->strides[a] != strides[a])
                return false;
    }
    if (!desc->lse.ndim)
        return true;
    hd_dense_strides(3, desc->lse.shape, strides);
    for (int a = 0; a < 3; a++)
        if (desc->lse.shape[a] > 1 && desc->lse.strides[a] != strides[a])
            return false;
    return true;
}

static void print_strides(const heed_attention_desc_t *desc, char *text)
{
    const heed_tensor_t *tensors[] = {&desc->q, &desc->k, &desc->v, &desc->out, &desc->lse};
    hd_text_t out = hd_text(text, HD_WORD_TEXT_SIZE);
    for (int i = 0; i < HD_COUNT(tensors); i++)
        for (int a = 0; a < tensors[i]->ndim; a++)
            hd_text_add(&out, "%s%lld", a ? ":" : i ? "/" : "", (long long)tensors[i]->strides[a]);
}

static void to_words(const void *at, void *to)
{
    const heed_attention_desc_t *desc = at;
    words_t *words = to;
    const int64_t *q = desc->q.shape, *k = desc->k.shape;
    words->dtype = desc->q.dtype;
    words->b = q[0];
    words->sq = q[1];
    words->sk = k[1];
    words->hq = q[2];
    words->hk = k[2];
    words->d = q[3];
    words->dv = desc->v.shape[3];
    words->causal = desc->causal;
    words->align = desc->align;
    words->window[0] = desc->window_left;
    words->window[1] = desc->window_right;
    words->scale = desc->scale == (float)(1 / sqrt((double)q[3])) ? 0 : (double)desc->scale;
    words->out = word_of_output(desc->out.dtype, desc->q.dtype);
    words->lse = desc->lse.ndim > 0;
    words->merge = desc->merge;
    words->layout = BSHD;
    while (words->layout < CUSTOM && !has_layout(desc, words->layout))
        words->layout++;
    if (words->layout == CUSTOM)
        print_strides(desc, words->strides);
    if (desc->tiles) {
        int64_t rows = desc->tiles->batches * desc->tiles->heads * desc->tiles->rows;
        snprintf(words->tiles, sizeof(words->tiles), "list:%lld-entries",
                 (long long)desc->tiles->row_start[rows]);
    }
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
    .desc_smallest = sizeof(heed_attention_desc_t),
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
