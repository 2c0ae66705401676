/* Eight lanes: AVX2, FMA, F16C. */
#ifndef HD_VEC_AVX2_H
#define HD_VEC_AVX2_H

#include "vec.h"

#include <immintrin.h>

#define VEC_LANES     8
#define VEC_EXP2_MOST 4
typedef __m256 vec_t;

HD_INLINE vec_t vec_set1(float x)
{
    return _mm256_set1_ps(x);
}

HD_INLINE vec_t vec_zero(void)
{
    return _mm256_setzero_ps();
}

HD_INLINE vec_t vec_load(const void *at)
{
    return _mm256_loadu_ps((const float *)at);
}

HD_INLINE void vec_store(void *at, vec_t x)
{
    _mm256_storeu_ps((float *)at, x);
}

HD_INLINE vec_t vec_broadcast(const char *at)
{
    float x;
    memcpy(&x, at, sizeof(x));
    return _mm256_set1_ps(x);
}

HD_INLINE vec_t vec_add(vec_t a, vec_t b)
{
    return _mm256_add_ps(a, b);
}

HD_INLINE vec_t vec_sub(vec_t a, vec_t b)
{
    return _mm256_sub_ps(a, b);
}

HD_INLINE vec_t vec_mul(vec_t a, vec_t b)
{
    return _mm256_mul_ps(a, b);
}

HD_INLINE vec_t vec_div(vec_t a, vec_t b)
{
    return _mm256_div_ps(a, b);
}

HD_INLINE vec_t vec_fma(vec_t a, vec_t b, vec_t c)
{
    return _mm256_fmadd_ps(a, b, c);
}

HD_INLINE vec_t vec_max(vec_t a, vec_t b)
{
    return _mm256_max_ps(a, b);
}

HD_INLINE vec_t vec_select(uint32_t bits, vec_t a, vec_t b)
{
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), lane);
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane)));
}

/* 2^t = 2^n 2^f, n the nearest integer, f by a polynomial. */
HD_INLINE void vec_exp2_all(vec_t *t, const int count)
{
    static const float coefficients[] = VEC_EXP2_POLYNOMIAL;
    const vec_t magic = vec_set1(12582912.0f); /* 1.5 * 2^23: the sum's low bits are the integer */
    vec_t z[VEC_EXP2_MOST], p[VEC_EXP2_MOST];
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        t[i] = vec_max(vec_set1(-126.0f), t[i]);
        z[i] = vec_add(t[i], magic);
        p[i] = vec_set1(coefficients[0]);
    }
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        t[i] = vec_sub(t[i], vec_sub(z[i], magic));
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
        __m256i n = _mm256_slli_epi32(_mm256_castps_si256(z[i]), 23);
        t[i] = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p[i]), n));
    }
}

HD_INLINE vec_t vec_exp2(vec_t t)
{
    vec_exp2_all(&t, 1);
    return t;
}

HD_INLINE void vec_transpose(vec_t *x)
{
    vec_t t[8];
    HD_UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    HD_UNROLL
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        x[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        x[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        x[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    HD_UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
    HD_UNROLL
    for (int i = 0; i < 8; i++) {
        x[i] = t[i];
    }
}

HD_INLINE vec_t vec_load_bf16(const uint16_t *at)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

HD_INLINE vec_t vec_load_f16(const uint16_t *at)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
}

HD_INLINE void vec_store_bf16(uint16_t *at, vec_t x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    __m128i packed =
        _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    _mm_storeu_si128((__m128i *)at, packed);
}

HD_INLINE void vec_store_f16(uint16_t *at, vec_t x)
{
    _mm_storeu_si128((__m128i *)at, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

#endif
