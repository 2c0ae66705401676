/* Four lanes: what every 64-bit ARM has. */
#ifndef HD_VEC_NEON_H
#define HD_VEC_NEON_H

#include "vec.h"

#include <arm_neon.h>

#define VEC_LANES     4
#define VEC_EXP2_MOST 4
typedef float32x4_t vec_t;

HD_INLINE vec_t vec_set1(float x)
{
    return vdupq_n_f32(x);
}

HD_INLINE vec_t vec_zero(void)
{
    return vdupq_n_f32(0);
}

/* By way of bytes, which may lie at any address. */
HD_INLINE vec_t vec_load(const void *at)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)at));
}

HD_INLINE void vec_store(void *at, vec_t x)
{
    vst1q_u8((uint8_t *)at, vreinterpretq_u8_f32(x));
}

HD_INLINE vec_t vec_broadcast(const char *at)
{
    float x;
    memcpy(&x, at, sizeof(x));
    return vdupq_n_f32(x);
}

HD_INLINE vec_t vec_add(vec_t a, vec_t b)
{
    return vaddq_f32(a, b);
}

HD_INLINE vec_t vec_sub(vec_t a, vec_t b)
{
    return vsubq_f32(a, b);
}

HD_INLINE vec_t vec_mul(vec_t a, vec_t b)
{
    return vmulq_f32(a, b);
}

HD_INLINE vec_t vec_div(vec_t a, vec_t b)
{
    return vdivq_f32(a, b);
}

HD_INLINE vec_t vec_fma(vec_t a, vec_t b, vec_t c)
{
    return vfmaq_f32(c, a, b);
}

/* FMAX would give NaN where either is, FMAXNM the number: neither is what the others do. */
HD_INLINE vec_t vec_max(vec_t a, vec_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

HD_INLINE vec_t vec_select(uint32_t bits, vec_t a, vec_t b)
{
    static const uint32_t lane[] = {1, 2, 4, 8};
    return vbslq_f32(vtstq_u32(vdupq_n_u32(bits), vld1q_u32(lane)), a, b);
}

/* 2^t = 2^n 2^f, n the nearest integer, f by a polynomial. */
HD_INLINE void vec_exp2_all(vec_t *t, const int count)
{
    static const float coefficients[] = VEC_EXP2_POLYNOMIAL;
    const vec_t magic = vec_set1(12582912.0f); /* 1.5 * 2^23: the sum's low bits are the integer */
    vec_t z[VEC_EXP2_MOST], p[VEC_EXP2_MOST];
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        t[i] = vmaxq_f32(vec_set1(-126.0f), t[i]); /* NaN stays */
        z[i] = vec_add(t[i], magic);
        t[i] = vec_sub(t[i], vec_sub(z[i], magic));
        p[i] = vec_set1(coefficients[0]);
    }
    HD_UNROLL
    for (int c = 1; c < 6; c++) {
        HD_UNROLL
        for (int i = 0; i < count; i++) {
            p[i] = vec_fma(p[i], t[i], vec_set1(coefficients[c]));
        }
    }
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        int32x4_t n = vshlq_n_s32(vreinterpretq_s32_f32(z[i]), 23);
        t[i] = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p[i]), n));
    }
}

HD_INLINE vec_t vec_exp2(vec_t t)
{
    vec_exp2_all(&t, 1);
    return t;
}

HD_INLINE void vec_transpose(vec_t *x)
{
    const float32x4x2_t a = vtrnq_f32(x[0], x[1]), b = vtrnq_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    x[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    x[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    x[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

HD_INLINE vec_t vec_load_bf16(const uint16_t *at)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(at), 16));
}

HD_INLINE vec_t vec_load_f16(const uint16_t *at)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at)));
}

HD_INLINE void vec_store_bf16(uint16_t *at, vec_t x)
{
    uint32x4_t bits = vreinterpretq_u32_f32(x);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t up = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u16(at, vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), up, quiet), 16));
}

HD_INLINE void vec_store_f16(uint16_t *at, vec_t x)
{
    vst1_u16(at, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}

#endif
