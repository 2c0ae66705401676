/* Random problems of attention. */
#include "kit_attention.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct draw {
    kit_random_t *random;
    uint64_t features;
    char *text;
    size_t size, length;
    int64_t b, sq, sk, hq, hk, d, dv;
    int64_t q_batch, k_batch, k_rows; /* shape[0] of q, shape[0] and [1] of k */
    bool lse, e4m3, stored, paged;    /* stored: k or v may be of another type than q */
} draw_t;

__attribute__((format(printf, 2, 3))) static void add(draw_t *draw, const char *format, ...)
{
    va_list args;
    size_t room = draw->length < draw->size ? draw->size - draw->length : 0;
    va_start(args, format);
    int length = vsnprintf(room ? draw->text + draw->length : NULL, room, format, args);
    va_end(args);
    draw->length += (size_t)length;
}

static int64_t between(draw_t *draw, int64_t low, int64_t high)
{
    return kit_random_int(draw->random, low, high);
}

static bool chance(draw_t *draw, int percent)
{
    return between(draw, 1, 100) <= percent;
}

static bool can(const draw_t *draw, uint64_t feature)
{
    return draw->features & feature;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static int64_t draw_length(draw_t *draw)
{
    int64_t kind = between(draw, 1, 100);
    if (kind <= 3)
        return 0;
    if (kind <= 15)
        return 1;
    if (kind <= 35)
        return between(draw, 2, 20);
    if (kind <= 60)
        return 16 * between(draw, 1, 18) + between(draw, -1, 1);
    if (kind <= 85)
        return 64 * between(draw, 1, 4) + between(draw, -1, 1);
    return between(draw, 2, 300);
}

static int64_t draw_dim(draw_t *draw)
{
    static const int64_t common[] = {32, 64, 64, 80, 96, 128, 128, 256};
    int64_t kind = between(draw, 1, 100);
    if (kind <= 40)
        return common[between(draw, 0, 7)];
    if (kind <= 50 || !can(draw, HEED_ATTENTION_CAN_ODD_DIM))
        return 16 * between(draw, 1, 16);
    return kind <= 60 ? between(draw, 1, 16) : between(draw, 8, kind <= 90 ? 130 : 256);
}

/* Few queries and many keys, which kernels may split. */
static void draw_decoding(draw_t *draw)
{
    static const int64_t few[] = {1, 1, 1, 2, 3, 4, 8, 16};
    draw->sq = few[between(draw, 0, 7)];
    draw->sk = chance(draw, 50) ? between(draw, 200, 3000) : draw_length(draw);
}

/* Heads and batch come last and fit what is left of the work that a problem may be. */
static void draw_sizes(draw_t *draw)
{
    static const int64_t groups[] = {1, 1, 2, 3, 4, 8};
    bool large = chance(draw, 2);
    draw->sq = large ? 500 : draw_length(draw);
    draw->sk = large || chance(draw, 35) ? draw->sq : draw_length(draw);
    if (!large && chance(draw, 20))
        draw_decoding(draw);
    draw->d = draw_dim(draw);
    draw->dv = draw->d;
    if (can(draw, HEED_ATTENTION_CAN_DV) && chance(draw, 25))
        draw->dv = draw_dim(draw);
    int64_t work = (draw->sq * draw->sk + 1) * (draw->d + draw->dv);
    int64_t left = (large ? 60000000 : 8000000) / work + 1;
    int64_t group = can(draw, HEED_ATTENTION_CAN_GROUPED) ? groups[between(draw, 0, 5)] : 1;
    group = group > left ? 1 : group;
    left /= group;
    draw->hk = between(draw, 1, left < 1 ? 1 : left < 4 ? left : 4);
    left /= draw->hk;
    draw->b = between(draw, 1, left < 1 ? 1 : left < 3 ? left : 3);
    if (chance(draw, 1))
        draw->b = 0;
    draw->hq = draw->hk * group;
    add(draw, " b=%lld sq=%lld sk=%lld hq=%lld hk=%lld d=%lld dv=%lld", (long long)draw->b,
        (long long)draw->sq, (long long)draw->sk, (long long)draw->hq, (long long)draw->hk,
        (long long)draw->d, (long long)draw->dv);
}

static void draw_dtype(draw_t *draw)
{
    static const struct {
        const char *name;
        uint64_t feature;
    } dtypes[] = {{"f32", HEED_ATTENTION_CAN_F32},
                  {"bf16", HEED_ATTENTION_CAN_BF16},
                  {"f16", HEED_ATTENTION_CAN_F16},
                  {"e4m3", HEED_ATTENTION_CAN_E4M3}};
    enum { DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };
    int64_t at = between(draw, 0, DTYPES - 1);
    for (int i = 0; i < DTYPES && !can(draw, dtypes[at].feature); i++)
        at = (at + 1) % DTYPES;
    add(draw, " dtype=%s", dtypes[at].name);
    draw->e4m3 = dtypes[at].feature == HEED_ATTENTION_CAN_E4M3;
    if (at && can(draw, HEED_ATTENTION_CAN_OUT_F32) && chance(draw, 35))
        add(draw, " out=f32");
    else if (dtypes[at].feature == HEED_ATTENTION_CAN_E4M3 && chance(draw, 50))
        add(draw, " out=f16");
}

/* Types of keys and values, and their scales. */
static void draw_stored(draw_t *draw)
{
    static const char *const types[] = {"f32", "bf16", "f16", "e4m3", "e5m2", "i8", "same"};
    static const char *const scales[] = {"none", "tensor", "head", "token"};
    if (draw->e4m3)
        return;
    draw->stored = can(draw, HEED_ATTENTION_CAN_KV_DTYPE) && chance(draw, 35);
    if (draw->stored) {
        int64_t k = between(draw, 0, 6), v = chance(draw, 70) ? k : between(draw, 0, 6);
        add(draw, " k-dtype=%s v-dtype=%s", types[k], types[v]);
    }
    if (can(draw, HEED_ATTENTION_CAN_KV_SCALE) && chance(draw, 30)) {
        int64_t k = between(draw, 0, 3), v = chance(draw, 70) ? k : between(draw, 0, 3);
        add(draw, " k-scale=%s v-scale=%s", scales[k], scales[v]);
    }
}

/* ---- sequences ------------------------------------------------------------------------------- */

static void draw_pages(draw_t *draw)
{
    static const int64_t pages[] = {1, 2, 3, 7, 16, 32, 64, 100, 128, 256};
    int64_t page = pages[between(draw, 0, 9)], most = (draw->sk + page - 1) / page;
    add(draw, " page=%lld", (long long)page);
    draw->k_rows = page;
    draw->paged = true;
    draw->k_batch = draw->b * most;
    if (draw->b * most > 0 && chance(draw, 50)) { /* fewer: some are shared; or more */
        draw->k_batch = between(draw, 1, draw->b * most + 3);
        add(draw, " pages=%lld", (long long)draw->k_batch);
    }
}

/* Whether the batch is ragged: then there is no tile list. */
static bool draw_sequences(draw_t *draw)
{
    static const char *const ragged[] = {"none", "q", "k", "qk", "qk", "qk"};
    int64_t kind =
        can(draw, HEED_ATTENTION_CAN_RAGGED) && chance(draw, 25) ? between(draw, 1, 5) : 0;
    bool ragged_q = kind == 1 || kind > 2, ragged_k = kind >= 2;
    draw->q_batch = ragged_q ? 1 : draw->b;
    draw->k_batch = ragged_k ? 1 : draw->b;
    draw->k_rows = draw->sk;
    if (kind)
        add(draw, " ragged=%s", ragged[kind]);
    if (!ragged_k && can(draw, HEED_ATTENTION_CAN_LENGTHS) && chance(draw, 25))
        add(draw, " lens=1");
    if (!ragged_k && can(draw, HEED_ATTENTION_CAN_PAGES) && chance(draw, 20))
        draw_pages(draw);
    return kind;
}

/* ---- modifiers ------------------------------------------------------------------------------- */

/* A part of "bhqk" that ends in k. */
static void draw_axes(draw_t *draw, const char *before)
{
    add(draw, "%s%s%s%sk", before, chance(draw, 50) ? "b" : "", chance(draw, 50) ? "h" : "",
        chance(draw, 70) ? "q" : "");
}

static void draw_modifiers(draw_t *draw)
{
    static const char *const types[] = {" bias=f32:", " bias=bf16:", " bias=f16:"};
    if (can(draw, HEED_ATTENTION_CAN_BIAS) && chance(draw, 15))
        draw_axes(draw, types[between(draw, 0, 2)]);
    if (can(draw, HEED_ATTENTION_CAN_MASK) && chance(draw, 15))
        draw_axes(draw, " mask=");
    if (can(draw, HEED_ATTENTION_CAN_ALIBI) && chance(draw, 15))
        add(draw, " alibi=%s", chance(draw, 50) ? "h" : "bh");
    if (can(draw, HEED_ATTENTION_CAN_SOFTCAP) && chance(draw, 15))
        add(draw, " softcap=%.6g", chance(draw, 50) ? 0.5 + 4 * kit_random_unit(draw->random) : 50);
    if (can(draw, HEED_ATTENTION_CAN_SINKS) && chance(draw, 15))
        add(draw, " sinks=1");
    if (can(draw, HEED_ATTENTION_CAN_SINKS) && chance(draw, 10))
        add(draw, " off-by-one=1");
}

/* ---- visibility ------------------------------------------------------------------------------ */

static int64_t draw_side(draw_t *draw)
{
    switch (between(draw, 0, 5)) {
    case 0:
        return -1;
    case 1:
        return 0;
    case 2:
        return between(draw, 1, 20);
    case 3:
        return between(draw, 20, 200);
    case 4:
        return 64 * between(draw, 1, 3) + between(draw, -1, 1);
    default:
        return chance(draw, 50) ? 1000 : INT64_MAX;
    }
}

static void draw_tiles(draw_t *draw)
{
    int tile_q = chance(draw, 50) ? 64 : 128, tile_k = chance(draw, 50) ? 64 : 128;
    if (chance(draw, 30))
        add(draw, " tiles=blockdiag:%lld,%d,%d", (long long)between(draw, 1, 200), tile_q, tile_k);
    else
        add(draw, " tiles=random:%lld,%lld,%d,%d,%s", (long long)between(draw, 1, 1000000),
            (long long)between(draw, 0, 5) * 20, tile_q, tile_k,
            chance(draw, 50) ? "shared" : "each");
}

static void draw_visibility(draw_t *draw, bool tiles)
{
    bool positions = false;
    if (can(draw, HEED_ATTENTION_CAN_CAUSAL) && chance(draw, 45)) {
        add(draw, " causal=1");
        positions = true;
    }
    if (can(draw, HEED_ATTENTION_CAN_WINDOW) && chance(draw, 30)) {
        long long left = (long long)draw_side(draw), right = (long long)draw_side(draw);
        add(draw, " window=%lld,%lld", left, right);
        positions = true;
    }
    if (positions && chance(draw, 40))
        add(draw, " causal-align=top-left");
    if (tiles && can(draw, HEED_ATTENTION_CAN_TILES) && chance(draw, 25))
        draw_tiles(draw);
}

static void draw_scale(draw_t *draw)
{
    int64_t kind = between(draw, 1, 100);
    if (kind > 40)
        return;
    double scale = 0.02 + kit_random_unit(draw->random);
    add(draw, " scale=%.6g", kind <= 20 ? scale : kind <= 32 ? -scale : kind <= 36 ? 40 : 1e-20);
}

/* ---- where things lie ------------------------------------------------------------------------ */

/* Strides of one tensor: axes in a random order, gaps between their rows. Inputs may repeat an axis
 * by a stride of 0; the last axis is unit unless it may be strided. Whole: multiples of 16
 * elements, which copy engines ask for. */
static void draw_strides(draw_t *draw, const int64_t *shape, int ndim, bool output, bool whole)
{
    int64_t strides[4], reach = 1;
    int order[4] = {3, 2, 1, 0};
    bool strided = ndim == 4 && can(draw, HEED_ATTENTION_CAN_STRIDED_DIM) && chance(draw, 25);
    for (int i = 0; i < ndim; i++)
        order[i] = ndim - 1 - i;
    for (int i = ndim - 1; i > (ndim == 4 && !strided); i--) {
        int other = (int)between(draw, ndim == 4 && !strided, i), axis = order[i];
        order[i] = order[other];
        order[other] = axis;
    }
    for (int i = 0; i < ndim; i++) {
        int axis = order[i];
        int64_t gap = i == 0 && !strided ? 0 : chance(draw, 50) ? between(draw, 1, 17) : 0;
        strides[axis] = reach + gap;
        if (whole && i > 0)
            strides[axis] = (strides[axis] + 15) / 16 * 16;
        if (shape[axis] > 1)
            reach += (shape[axis] - 1) * strides[axis] + gap;
        if (!output && !whole && axis != ndim - 1 && chance(draw, 4))
            strides[axis] = 0;
    }
    for (int i = 0; i < ndim; i++)
        add(draw, "%s%lld", i ? ":" : "", (long long)strides[i]);
}

static void draw_custom(draw_t *draw)
{
    const int64_t shapes[5][4] = {{draw->q_batch, draw->sq, draw->hq, draw->d},
                                  {draw->k_batch, draw->k_rows, draw->hk, draw->d},
                                  {draw->k_batch, draw->k_rows, draw->hk, draw->dv},
                                  {draw->q_batch, draw->sq, draw->hq, draw->dv},
                                  {draw->q_batch, draw->hq, draw->sq}};
    bool whole = chance(draw, 50);
    add(draw, " layout=custom strides=");
    for (int i = 0; i < 4 + draw->lse; i++) {
        add(draw, "%s", i ? "/" : "");
        draw_strides(draw, shapes[i], i == 4 ? 3 : 4, i >= 3, whole);
    }
}

static void draw_layout(draw_t *draw)
{
    int64_t kind = between(draw, 0, 9);
    if (kind < 2)
        add(draw, " layout=bhsd");
    else if (kind < 4 && draw->sq == draw->sk && draw->d == draw->dv &&
             draw->q_batch == draw->k_batch && !draw->paged && !draw->stored)
        add(draw, " layout=fused");
    else if (kind < 8)
        draw_custom(draw);
}

void kit_attention_draw(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    draw_t draw = {.random = random, .features = features, .text = text, .size = size};
    add(&draw, "attention");
    draw_dtype(&draw);
    draw_sizes(&draw);
    draw_stored(&draw);
    bool ragged = draw_sequences(&draw);
    draw_modifiers(&draw);
    draw_visibility(&draw, !ragged);
    draw_scale(&draw);
    if (can(&draw, HEED_ATTENTION_CAN_INVARIANT) && chance(&draw, 10))
        add(&draw, " invariant=1");
    if (can(&draw, HEED_ATTENTION_CAN_LSE) && chance(&draw, 60)) {
        bool merge = can(&draw, HEED_ATTENTION_CAN_MERGE) && chance(&draw, 40);
        draw.lse = true;
        add(&draw, merge ? " merge=1" : " lse=1");
    }
    draw_layout(&draw);
}
