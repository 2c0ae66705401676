/* Attention for the kit: random problems. Inputs are in attention_fill.c, the bounds of the results
 * in attention_judge.c, what a query sees in attention_sees.c. */
#include "kit_attention.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct draw {
    kit_random_t *random;
    uint64_t features;
    char *text;
    size_t size, length;
    int64_t b, sq, sk, hq, hk, d, dv;
    bool lse;
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
    if (at && can(draw, HEED_ATTENTION_CAN_OUT_F32) && chance(draw, 35))
        add(draw, " out=f32");
    else if (dtypes[at].feature == HEED_ATTENTION_CAN_E4M3 && chance(draw, 50))
        add(draw, " out=f16");
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

static void draw_visibility(draw_t *draw)
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
    if (can(draw, HEED_ATTENTION_CAN_TILES) && chance(draw, 25))
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
    const int64_t shapes[5][4] = {{draw->b, draw->sq, draw->hq, draw->d},
                                  {draw->b, draw->sk, draw->hk, draw->d},
                                  {draw->b, draw->sk, draw->hk, draw->dv},
                                  {draw->b, draw->sq, draw->hq, draw->dv},
                                  {draw->b, draw->hq, draw->sq}};
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
    else if (kind < 4 && draw->sq == draw->sk && draw->d == draw->dv)
        add(draw, " layout=fused");
    else if (kind < 8)
        draw_custom(draw);
}

static void draw_problem(kit_random_t *random, uint64_t features, char *text, size_t size)
{
    draw_t draw = {.random = random, .features = features, .text = text, .size = size};
    add(&draw, "attention");
    draw_dtype(&draw);
    draw_sizes(&draw);
    draw_visibility(&draw);
    draw_scale(&draw);
    if (can(&draw, HEED_ATTENTION_CAN_LSE) && chance(&draw, 60)) {
        bool merge = can(&draw, HEED_ATTENTION_CAN_MERGE) && chance(&draw, 40);
        draw.lse = true;
        add(&draw, merge ? " merge=1" : " lse=1");
    }
    draw_layout(&draw);
}

/* ---- corners --------------------------------------------------------------------------------- */

static const char *const corners[] = {
    /* nothing, or nearly nothing */
    "attention b=0 sq=4 sk=4 hq=2 d=16",
    "attention b=1 sq=0 sk=4 hq=2 d=16 lse=1",
    "attention b=1 sq=4 sk=0 hq=2 d=16 lse=1",
    "attention b=1 sq=4 sk=0 hq=2 d=16 merge=1",
    "attention b=1 sq=1 sk=1 hq=1 d=16 lse=1",
    "attention b=1 sq=1 sk=1 hq=1 d=1 lse=1",
    "attention b=2 sq=3 sk=5 hq=2 d=1 dv=256 lse=1",
    "attention b=1 sq=65 sk=67 hq=2 d=256 dv=1 dtype=bf16",
    /* rows without a key */
    "attention b=1 sq=130 sk=3 hq=2 d=32 causal=1 lse=1",
    "attention b=1 sq=130 sk=3 hq=2 d=32 causal=1 merge=1",
    "attention b=1 sq=100 sk=7 hq=2 d=32 window=3,-1 causal-align=top-left lse=1",
    "attention b=1 sq=64 sk=64 hq=1 d=16 tiles=random:1,0,64,64,shared lse=1",
    "attention b=1 sq=200 sk=200 hq=2 d=16 tiles=random:1,0,128,128,each merge=1",
    /* many tiles of queries without a key, between those with some */
    "attention b=1 sq=1100 sk=200 hq=2 d=128 causal=1 dtype=bf16 lse=1",
    /* the diagonal beside the edges of blocks */
    "attention b=1 sq=63 sk=129 hq=1 d=64 causal=1 lse=1",
    "attention b=1 sq=129 sk=64 hq=1 d=64 causal=1 causal-align=top-left lse=1",
    "attention b=1 sq=128 sk=128 hq=2 hk=1 d=64 causal=1 dtype=bf16 out=f32 lse=1",
    "attention b=1 sq=129 sk=129 hq=2 d=64 window=0,0 lse=1",
    "attention b=1 sq=200 sk=200 hq=1 d=64 window=63,0 causal=1 lse=1",
    "attention b=1 sq=200 sk=200 hq=1 d=64 window=64,1 dtype=f16 lse=1",
    "attention b=1 sq=5 sk=300 hq=1 d=64 window=9223372036854775807,0 lse=1",
    /* decoding */
    "attention b=2 sq=1 sk=300 hq=8 hk=1 d=128 dtype=bf16 lse=1",
    "attention b=2 sq=1 sk=257 hq=8 hk=2 d=64 causal=1 lse=1",
    "attention b=1 sq=1 sk=200 hq=4 d=128 window=100,0 merge=1",
    "attention b=3 sq=1 sk=3000 hq=2 d=32 dtype=f16 lse=1",
    "attention b=1 sq=1 sk=2500 hq=5 hk=1 d=128 dtype=bf16 out=f32 merge=1",
    "attention b=1 sq=5 sk=1700 hq=6 hk=2 d=64 dv=100 causal=1 dtype=bf16 lse=1",
    "attention b=1 sq=16 sk=2900 hq=4 hk=1 d=80 window=1500,0 dtype=f16 lse=1",
    "attention b=1 sq=3 sk=1900 hq=8 hk=1 d=256 causal=1 causal-align=top-left dtype=bf16 lse=1",
    "attention b=1 sq=9 sk=1400 hq=5 hk=1 d=256 window=700,3 dtype=f16 out=f32 merge=1",
    /* tiles with causal and windows */
    "attention b=2 sq=130 sk=259 hq=4 hk=2 d=32 tiles=random:3,60,64,128,each causal=1 lse=1",
    "attention b=1 sq=300 sk=190 hq=2 d=48 tiles=random:4,80,128,64,shared window=70,30 lse=1",
    "attention b=1 sq=257 sk=257 hq=1 d=64 tiles=blockdiag:50,128,128 dtype=bf16 lse=1",
    "attention b=1 sq=192 sk=192 hq=1 d=64 tiles=blockdiag:64,64,64 merge=1",
    /* layouts */
    "attention b=2 sq=65 sk=65 hq=6 hk=2 d=40 layout=fused causal=1",
    "attention b=2 sq=65 sk=70 hq=6 hk=2 d=40 dv=24 layout=bhsd dtype=f16",
    "attention b=2 sq=17 sk=19 hq=2 d=16 layout=custom "
    "strides=1:2:40:90/0:33:0:2/1:1000:3:50/2:5:90:200",
    "attention b=1 sq=70 sk=80 hq=2 d=17 scale=-0.3 lse=1",
    /* e4m3 */
    "attention b=1 sq=130 sk=300 hq=2 d=128 dtype=e4m3 lse=1",
    "attention b=2 sq=129 sk=129 hq=4 hk=2 d=64 causal=1 dtype=e4m3 out=f32 lse=1",
    "attention b=1 sq=70 sk=1000 hq=1 d=256 dtype=e4m3 out=f16 merge=1",
    "attention b=1 sq=2 sk=8000 hq=1 d=128 dtype=e4m3 out=f32 lse=1",
    "attention b=1 sq=64 sk=700 hq=1 d=96 dv=192 dtype=e4m3 out=f32 scale=0.02 lse=1",
    "attention b=1 sq=17 sk=19 hq=2 d=16 dtype=e4m3 layout=custom "
    "strides=1:2:40:90/0:33:0:2/1:1000:3:50/2:5:90:200",
    NULL,
};

/* ---- what a problem asks for ----------------------------------------------------------------- */

static bool dim_is_strided(const heed_tensor_t *tensor)
{
    return tensor->shape[3] > 1 && tensor->strides[3] != 1;
}

static uint64_t needs(const void *at)
{
    const heed_attention_desc_t *desc = at;
    kit_sizes_t n = kit_attention_sizes(desc);
    heed_dtype_t dtype = desc->q.dtype;
    uint64_t bits = dtype == HEED_F32    ? HEED_ATTENTION_CAN_F32
                    : dtype == HEED_BF16 ? HEED_ATTENTION_CAN_BF16
                    : dtype == HEED_F16  ? HEED_ATTENTION_CAN_F16
                                         : HEED_ATTENTION_CAN_E4M3;
    if (dtype != HEED_F32 && desc->out.dtype == HEED_F32)
        bits |= HEED_ATTENTION_CAN_OUT_F32;
    bits |= desc->causal ? HEED_ATTENTION_CAN_CAUSAL : 0;
    bits |= desc->window_left >= 0 || desc->window_right >= 0 ? HEED_ATTENTION_CAN_WINDOW : 0;
    bits |= n.h != n.hk ? HEED_ATTENTION_CAN_GROUPED : 0;
    bits |= desc->lse.ndim ? HEED_ATTENTION_CAN_LSE : 0;
    bits |= desc->tiles ? HEED_ATTENTION_CAN_TILES : 0;
    bits |= desc->merge ? HEED_ATTENTION_CAN_MERGE : 0;
    bits |= n.d % 16 || n.dv % 16 ? HEED_ATTENTION_CAN_ODD_DIM : 0;
    bits |= n.d != n.dv ? HEED_ATTENTION_CAN_DV : 0;
    bool strided = dim_is_strided(&desc->q) || dim_is_strided(&desc->k) ||
                   dim_is_strided(&desc->v) || dim_is_strided(&desc->out);
    return bits | (strided ? HEED_ATTENTION_CAN_STRIDED_DIM : 0);
}

const kit_op_t kit_op_attention = {.op = "attention",
                                   .corners = corners,
                                   .needs = needs,
                                   .draw = draw_problem,
                                   .fill = kit_attention_fill,
                                   .reference_words = "out=f32",
                                   .judge = kit_attention_judge};
