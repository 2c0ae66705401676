/* Attention for the kit: corners, and what a problem asks for. Random problems are in
 * attention_draw.c, inputs in attention_fill.c, the bounds of the results in attention_bound.c,
 * what a query sees in attention_sees.c. */
#include "kit_attention.h"

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
    /* decoding with tiles: heads of a group with lists of their own, splits without a tile */
    "attention b=2 sq=1 sk=1500 hq=8 hk=2 d=64 tiles=random:5,40,64,64,each dtype=bf16 lse=1",
    "attention b=1 sq=4 sk=900 hq=8 hk=1 d=128 tiles=random:7,60,64,128,each causal=1 dtype=f16 "
    "lse=1",
    "attention b=1 sq=3 sk=1900 hq=8 hk=1 d=256 tiles=random:8,60,128,64,shared window=700,3 "
    "dtype=bf16 out=f32 merge=1",
    "attention b=1 sq=4 sk=2500 hq=2 d=80 tiles=blockdiag:300,64,64 dtype=bf16 lse=1",
    /* tiles with causal and windows */
    "attention b=2 sq=130 sk=259 hq=4 hk=2 d=32 tiles=random:3,60,64,128,each causal=1 lse=1",
    "attention b=1 sq=300 sk=190 hq=2 d=48 tiles=random:4,80,128,64,shared window=70,30 lse=1",
    "attention b=1 sq=257 sk=257 hq=1 d=64 tiles=blockdiag:50,128,128 dtype=bf16 lse=1",
    "attention b=1 sq=192 sk=192 hq=1 d=64 tiles=blockdiag:64,64,64 merge=1",
    /* tiles that need not be: all of them, so that both ways give the same */
    "attention b=2 sq=130 sk=259 hq=4 hk=2 d=32 tiles=text:all tiles-optional=1 causal=1 lse=1",
    "attention b=1 sq=300 sk=190 hq=2 d=64 tiles=text:all tiles-optional=1 dtype=bf16 merge=1",
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
    /* modifiers of scores */
    "attention b=2 sq=70 sk=80 hq=4 hk=2 d=32 bias=f32:bhqk lse=1",
    "attention b=2 sq=70 sk=80 hq=4 hk=2 d=32 bias=bf16:k causal=1 lse=1",
    "attention b=2 sq=65 sk=130 hq=4 d=64 bias=f16:hqk dtype=bf16 lse=1",
    "attention b=2 sq=70 sk=80 hq=4 hk=2 d=32 mask=bk lse=1",
    "attention b=2 sq=70 sk=80 hq=4 hk=2 d=64 mask=bhqk causal=1 dtype=f16 lse=1",
    "attention b=2 sq=1 sk=300 hq=8 hk=2 d=64 mask=bqk bias=f32:hk alibi=h lse=1",
    "attention b=1 sq=129 sk=129 hq=4 d=64 alibi=h causal=1 lse=1",
    "attention b=2 sq=65 sk=190 hq=4 d=64 alibi=bh causal-align=top-left lse=1",
    "attention b=1 sq=129 sk=200 hq=2 d=64 softcap=5 lse=1",
    "attention b=1 sq=64 sk=64 hq=2 d=64 softcap=50 causal=1 dtype=bf16 lse=1",
    "attention b=1 sq=130 sk=70 hq=4 d=32 sinks=1 causal=1 lse=1",
    "attention b=1 sq=70 sk=0 hq=4 d=32 sinks=1 lse=1",
    "attention b=1 sq=70 sk=90 hq=4 d=32 off-by-one=1 sinks=1 merge=1",
    "attention b=1 sq=130 sk=190 hq=4 d=64 softcap=3 bias=f32:qk mask=hk alibi=h sinks=1 lse=1",
    /* ragged batches, caches */
    "attention b=4 sq=200 sk=200 hq=4 hk=2 d=64 ragged=qk causal=1 lse=1",
    "attention b=9 sq=20 sk=500 hq=4 d=32 ragged=qk window=30,2 dtype=bf16 lse=1",
    "attention b=3 sq=70 sk=90 hq=4 d=32 ragged=q lens=1 causal=1 merge=1",
    "attention b=3 sq=5 sk=290 hq=4 d=32 ragged=k dtype=f16 lse=1",
    "attention b=2 sq=66 sk=129 hq=2 d=64 ragged=qk bias=f32:bhqk mask=bqk alibi=bh lse=1",
    "attention b=3 sq=1 sk=1000 hq=8 hk=2 d=128 lens=1 page=16 dtype=bf16 causal=1 lse=1",
    "attention b=3 sq=4 sk=300 hq=4 hk=1 d=64 lens=1 page=1 causal=1 lse=1",
    "attention b=3 sq=70 sk=300 hq=4 d=64 page=7 pages=20 lse=1",
    "attention b=4 sq=30 sk=300 hq=4 hk=2 d=64 ragged=q lens=1 page=64 causal=1 lse=1",
    "attention b=2 sq=70 sk=256 hq=2 d=64 lens=1 page=128 layout=bhsd tiles=random:1,60,64,64,each",
    /* stored keys and values */
    "attention b=1 sq=70 sk=300 hq=2 d=64 k-dtype=e4m3 v-dtype=e4m3 lse=1",
    "attention b=2 sq=1 sk=700 hq=8 hk=2 d=128 dtype=bf16 k-dtype=e4m3 v-dtype=e4m3 "
    "k-scale=head v-scale=head lens=1 page=16 lse=1",
    "attention b=1 sq=9 sk=300 hq=2 d=64 k-dtype=i8 v-dtype=i8 k-scale=token v-scale=token lse=1",
    "attention b=2 sq=70 sk=300 hq=2 d=40 dtype=f16 k-dtype=e5m2 v-dtype=i8 k-scale=tensor "
    "v-scale=token page=32 lse=1",
    "attention b=1 sq=64 sk=200 hq=2 d=64 dtype=bf16 k-dtype=f32 v-dtype=f16 lse=1",
    "attention b=1 sq=64 sk=200 hq=2 d=64 k-dtype=bf16 v-dtype=bf16 causal=1 lse=1",
    NULL,
};

/* ---- what a problem asks for ----------------------------------------------------------------- */

static bool dim_is_strided(const heed_tensor_t *tensor)
{
    return tensor->shape[3] > 1 && tensor->strides[3] != 1;
}

static uint64_t extra_needs(const heed_attention_desc_t *desc)
{
    bool other = desc->k.dtype != desc->q.dtype || desc->v.dtype != desc->q.dtype;
    uint64_t bits = desc->bias.ndim ? HEED_ATTENTION_CAN_BIAS : 0;
    bits |= desc->mask.ndim ? HEED_ATTENTION_CAN_MASK : 0;
    bits |= desc->alibi_slopes.ndim ? HEED_ATTENTION_CAN_ALIBI : 0;
    bits |= desc->softcap != 0 ? HEED_ATTENTION_CAN_SOFTCAP : 0;
    bits |= desc->sinks.ndim || desc->off_by_one ? HEED_ATTENTION_CAN_SINKS : 0;
    bits |= desc->cu_seqlens_q.ndim || desc->cu_seqlens_k.ndim ? HEED_ATTENTION_CAN_RAGGED : 0;
    bits |= desc->seqlens_k.ndim ? HEED_ATTENTION_CAN_LENGTHS : 0;
    bits |= desc->page_table.ndim ? HEED_ATTENTION_CAN_PAGES : 0;
    bits |= other ? HEED_ATTENTION_CAN_KV_DTYPE : 0;
    bits |= desc->k_scale.ndim || desc->v_scale.ndim ? HEED_ATTENTION_CAN_KV_SCALE : 0;
    return bits | (desc->batch_invariant ? HEED_ATTENTION_CAN_INVARIANT : 0);
}

static uint64_t needs(const void *at)
{
    const heed_attention_desc_t *desc = at;
    int64_t h = desc->q.shape[2], hk = desc->k.shape[2];
    int64_t d = desc->q.shape[3], dv = desc->v.shape[3];
    heed_dtype_t dtype = desc->q.dtype;
    uint64_t bits = dtype == HEED_F32    ? HEED_ATTENTION_CAN_F32
                    : dtype == HEED_BF16 ? HEED_ATTENTION_CAN_BF16
                    : dtype == HEED_F16  ? HEED_ATTENTION_CAN_F16
                                         : HEED_ATTENTION_CAN_E4M3;
    if (dtype != HEED_F32 && desc->out.dtype == HEED_F32)
        bits |= HEED_ATTENTION_CAN_OUT_F32;
    bits |= desc->causal ? HEED_ATTENTION_CAN_CAUSAL : 0;
    bits |= desc->window_left >= 0 || desc->window_right >= 0 ? HEED_ATTENTION_CAN_WINDOW : 0;
    bits |= h != hk ? HEED_ATTENTION_CAN_GROUPED : 0;
    bits |= desc->lse.ndim ? HEED_ATTENTION_CAN_LSE : 0;
    bits |= desc->tiles ? HEED_ATTENTION_CAN_TILES : 0;
    bits |= desc->merge ? HEED_ATTENTION_CAN_MERGE : 0;
    bits |= d % 16 || dv % 16 ? HEED_ATTENTION_CAN_ODD_DIM : 0;
    bits |= d != dv ? HEED_ATTENTION_CAN_DV : 0;
    bool strided = dim_is_strided(&desc->q) || dim_is_strided(&desc->k) ||
                   dim_is_strided(&desc->v) || dim_is_strided(&desc->out);
    bits |= extra_needs(desc);
    return bits | (strided ? HEED_ATTENTION_CAN_STRIDED_DIM : 0);
}

const kit_op_t kit_op_attention = {.op = "attention",
                                   .corners = corners,
                                   .needs = needs,
                                   .draw = kit_attention_draw,
                                   .fill = kit_attention_fill,
                                   .reference_words = "out=f32",
                                   .judge = kit_attention_judge};
