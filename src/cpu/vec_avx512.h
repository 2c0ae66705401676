/* Sixteen lanes: AVX-512 F, BW, DQ, VL. */
#ifndef HD_VEC_AVX512_H
#define HD_VEC_AVX512_H

#include "vec.h"

#include <immintrin.h>

#define VEC_LANES     16
#define VEC_EXP2_MOST 4
typedef __m512 vec_t;

HD_INLINE vec_t vec_set1(float x)
{
    return _mm512_set1_ps(x);
}

HD_INLINE vec_t vec_zero(void)
{
    return _mm512_setzero_ps();
}

HD_INLINE vec_t vec_load(const void *at)
{
    return _mm512_loadu_ps(at);
}

HD_INLINE void vec_store(void *at, vec_t x)
{
    _mm512_storeu_ps(at, x);
}

HD_INLINE vec_t vec_broadcast(const char *at)
{
    float x;
    memcpy(&x, at, sizeof(x));
    return _mm512_set1_ps(x);
}

HD_INLINE vec_t vec_add(vec_t a, vec_t b)
{
    return _mm512_add_ps(a, b);
}

HD_INLINE vec_t vec_sub(vec_t a, vec_t b)
{
    return _mm512_sub_ps(a, b);
}

HD_INLINE vec_t vec_mul(vec_t a, vec_t b)
{
    return _mm512_mul_ps(a, b);
}

HD_INLINE vec_t vec_div(vec_t a, vec_t b)
{
    return _mm512_div_ps(a, b);
}

HD_INLINE vec_t vec_fma(vec_t a, vec_t b, vec_t c)
{
    return _mm512_fmadd_ps(a, b, c);
}

HD_INLINE vec_t vec_max(vec_t a, vec_t b)
{
    return _mm512_max_ps(a, b);
}

HD_INLINE vec_t vec_select(uint32_t bits, vec_t a, vec_t b)
{
    return _mm512_mask_blend_ps((__mmask16)bits, b, a);
}

/* Bits of 2^(j/16) less j << 19, so that adding z << 19 puts both the exponent and the table's
 * sixteenth into place. */
HD_INLINE vec_t vec_exp2_table(void)
{
    return _mm512_castsi512_ps(_mm512_setr_epi32(0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3,
                                                 0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
                                                 0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                                                 0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d));
}

/* 2^t = 2^(n/16) 2^r, n the nearest integer to 16 t: a table of sixteen and a polynomial of degree
 * 2 (minimax on 1/32, 5e-7), or 1 (1.2e-4) where the result is rounded to bf16 anyway. A permute is
 * cheaper than the three multiply-adds it replaces. */
HD_INLINE void vec_exp2_degree(vec_t *t, const int count, const int degree)
{
    const vec_t magic = vec_set1(786432.0f); /* 1.5 * 2^19: four bits of fraction stay */
    vec_t p[VEC_EXP2_MOST];
    __m512i n[VEC_EXP2_MOST];
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        t[i] = vec_max(vec_set1(-126.0f), t[i]);
        vec_t z = vec_add(t[i], magic);
        t[i] = vec_sub(t[i], vec_sub(z, magic));
        n[i] = _mm512_castps_si512(z);
    }
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        p[i] = degree == 2 ? vec_fma(vec_set1(0.240219463f), t[i], vec_set1(0.693187831f))
                           : vec_set1(0.693120076f);
        p[i] = vec_fma(p[i], t[i], vec_set1(degree == 2 ? 1.0f : 1.00011728f));
    }
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        __m512i base = _mm512_castps_si512(_mm512_permutexvar_ps(n[i], vec_exp2_table()));
        __m512i power = _mm512_add_epi32(base, _mm512_slli_epi32(n[i], 19));
        t[i] = vec_mul(_mm512_castsi512_ps(power), p[i]);
    }
}

HD_INLINE void vec_exp2_all(vec_t *t, const int count)
{
    vec_exp2_degree(t, count, 2);
}

HD_INLINE vec_t vec_exp2(vec_t t)
{
    vec_exp2_all(&t, 1);
    return t;
}

HD_INLINE void vec_transpose(vec_t *x)
{
    vec_t t[16];
    HD_UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    HD_UNROLL
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        x[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        x[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        x[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    HD_UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);
    }
    HD_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        x[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        x[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

HD_INLINE vec_t vec_load_bf16(const uint16_t *at)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

HD_INLINE vec_t vec_load_f16(const uint16_t *at)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at));
}

HD_INLINE void vec_store_bf16(uint16_t *at, vec_t x)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __m512i high = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, up, quiet), 16);
    _mm256_storeu_si256((__m256i *)(void *)at, _mm512_cvtepi32_epi16(high));
}

HD_INLINE void vec_store_f16(uint16_t *at, vec_t x)
{
    __m256i half = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256((__m256i *)(void *)at, half);
}

#endif
