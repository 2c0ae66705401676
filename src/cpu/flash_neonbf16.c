/* cpu:flash_neonbf16, flash attention of bf16 through ARM's bf16 dot product (BFDOT, Armv8.6), two
 * multiply-adds a lane, one factor by element: cells are pairs of bf16. K is read in its natural
 * pairs; two rows of V are interleaved, once for each key head. Weights are rounded to bf16 between
 * the products. The scale is applied to the f32 scores, for rounding it into bf16 queries would
 * cost accuracy. Tiles as in flash_neon.c. BFDOT rounds to odd and takes subnormal numbers as zero.
 * Has run under QEMU only, which checks its results; its speed was never measured. */
#include "vec_neon.h"

#define FLASH_ISA_FLOPS  32 /* twice those of flash_neon.c */
#define FLASH_PAIRS      1
#define FLASH_TILE       2
#define FLASH_VECTORS    16
#define FLASH_KEYS       8
#define FLASH_COLUMNS    8
#define FLASH_NARROW     12
#define FLASH_BY_ELEMENT 1

#define flash_dot_lane(sum, a, b, lane) \
    vbfdotq_laneq_f32(sum, vreinterpretq_bf16_f32(b), vreinterpretq_bf16_f32(a), lane)

/* sum += a0 b0 + a1 b1 of the pairs in each lane. */
HD_INLINE vec_t flash_dot(vec_t sum, vec_t a, vec_t b)
{
    return vbfdotq_f32(sum, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
}

/* A raw score, scaled, less the reference. The product is rounded, as that of the maximum was. */
HD_INLINE vec_t flash_relative(vec_t score, vec_t scale, vec_t low)
{
    return vec_sub(vec_mul(score, scale), low);
}

HD_INLINE void flash_exp2(vec_t *t, const int count)
{
    vec_exp2_all(t, count);
}

/* The weights of two keys, as pairs. */
HD_INLINE void flash_store_weights(char *p, vec_t even, vec_t odd)
{
    uint16x4x2_t both = {
        {vreinterpret_u16_bf16(vcvt_bf16_f32(even)), vreinterpret_u16_bf16(vcvt_bf16_f32(odd))}};
    vst2_u16((uint16_t *)(void *)p, both);
}

/* The scores are scaled by the size of the scale; its sign goes to the queries. */
HD_INLINE vec_t flash_sign(vec_t cells, bool negative)
{
    uint32x4_t flip = vdupq_n_u32(negative ? 0x80008000 : 0);
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(cells), flip));
}

HD_INLINE vec_t flash_load_weight(const char *p, int element)
{
    uint32x4_t pair = vreinterpretq_u32_f32(vec_load(p));
    return vreinterpretq_f32_u32(element ? vandq_u32(pair, vdupq_n_u32(0xffff0000))
                                         : vshlq_n_u32(pair, 16));
}

HD_INLINE vec_t flash_load_value(const char *v, int element)
{
    uint16_t half;
    memcpy(&half, v + element * 2, sizeof(half));
    return vec_set1(hd_bf16_to_f32(half));
}

/* Two rows of n values, `elem` bytes apart, -> one row of pairs; odd NULL: zeros. */
HD_INLINE void flash_interleave(const char *even, const char *odd, int64_t elem, int n, char *to)
{
    int c = 0;
    for (; elem == 2 && odd && c + 8 <= n; c += 8) {
        uint16x8x2_t both = {{vld1q_u16((const uint16_t *)(const void *)even + c),
                              vld1q_u16((const uint16_t *)(const void *)odd + c)}};
        vst2q_u16((uint16_t *)(void *)to + 2 * c, both);
    }
    for (; c < n; c++) {
        memcpy(to + c * 4, even + c * elem, 2);
        memset(to + c * 4 + 2, 0, 2);
        if (odd)
            memcpy(to + c * 4 + 2, odd + c * elem, 2);
    }
}

#include "flash_body.h"

const heed_impl_t hd_impl_flash_neonbf16 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_neonbf16",
    .about = "blocked, online softmax, queries in lanes; ARM's bf16 dot product",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_NEONBF16,
    .features =
        HEED_ATTENTION_CAN_ALL & ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_F16 |
                                   HEED_ATTENTION_CAN_E4M3 | HEED_ATTENTION_CAN_EXACT_E4M3 |
                                   HEED_ATTENTION_CAN_KV_DTYPE | HEED_ATTENTION_CAN_KV_SCALE),
    .supports = flash_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
