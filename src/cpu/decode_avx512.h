/* Loads and sums over lanes of the decode kernels for AVX-512. With DECODE_VBMI, codes of E4M3 and
 * E5M2 go through the byte permutes of AVX512_VBMI. */
#ifndef HD_DECODE_AVX512_H
#define HD_DECODE_AVX512_H

#include "vec_avx512.h"

#if defined(DECODE_VBMI)
#define CAST_VBMI 1
#include "cast_vec_avx512.h"
#endif

/* Rows come fastest when they are fetched into the second cache: into the first, fetches wait for
 * each other in its few buffers. */
#define DECODE_HINT     2
#define DECODE_SUMS     16
#define DECODE_KEY_COST 900
#define DECODE_HIDDEN   0.75

/* Pairs of bf16 as f32, those of even index first. */
HD_INLINE void decode_split_pairs(__m512i pairs, vec_t *x)
{
    x[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    x[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

HD_INLINE void decode_load_bf16(const uint16_t *at, vec_t *x)
{
    decode_split_pairs(_mm512_loadu_si512(at), x);
}

#if defined(DECODE_VBMI)

/* Two lookups in tables of 128 bytes make the bytes of bf16, exactly for every code; the sign is
 * put back. 64 codes cost 10 instructions as f32. */
#define DECODE_CODES_WIDE 1

HD_INLINE void decode_load_wide(heed_dtype_t dtype, const char *at, vec_t *x)
{
    __m512i word[2];
    cast_decode(dtype, false, _mm512_loadu_si512(at), word);
    decode_split_pairs(_mm512_unpacklo_epi8(word[0], word[1]), x);
    decode_split_pairs(_mm512_unpackhi_epi8(word[0], word[1]), x + 2);
}

/* 32 codes, eight in the lower half of each 128 bits. */
HD_INLINE void decode_load_codes(heed_dtype_t dtype, const char *at, vec_t *x)
{
    const __m512i order = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
    __m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)at);
    __m512i word[2];
    cast_decode(dtype, false, _mm512_permutexvar_epi64(order, _mm512_castsi256_si512(codes)), word);
    decode_split_pairs(_mm512_unpacklo_epi8(word[0], word[1]), x);
}

HD_INLINE void decode_load_e4m3(const char *at, vec_t *x)
{
    decode_load_codes(HEED_E4M3, at, x);
}

HD_INLINE void decode_load_e5m2(const char *at, vec_t *x)
{
    decode_load_codes(HEED_E5M2, at, x);
}

#else

HD_INLINE void decode_from_f16(__m512i halves, vec_t *x)
{
    x[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
    x[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
}

HD_INLINE __m512i decode_codes(const char *at)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)at));
}

/* Sign, exponent and fraction are moved to where f16 has them; of its five bits of exponent the
 * highest stays zero. A NaN is made one. */
HD_INLINE void decode_load_e4m3(const char *at, vec_t *x)
{
    const __m512i used = _mm512_set1_epi16((short)0xbfff);
    const __m512i nan = _mm512_set1_epi16((short)0xbf80), sign = _mm512_set1_epi16((short)0x8000);
    __m512i half = _mm512_and_si512(_mm512_slli_epi16(decode_codes(at), 7), used);
    __mmask32 is_nan = _mm512_cmpeq_epi16_mask(_mm512_or_si512(half, sign), nan);
    decode_from_f16(_mm512_mask_blend_epi16(is_nan, half, _mm512_set1_epi16(0x7e00)), x);
}

/* The upper half of an f16. */
HD_INLINE void decode_load_e5m2(const char *at, vec_t *x)
{
    decode_from_f16(_mm512_slli_epi16(decode_codes(at), 8), x);
}

#endif

HD_INLINE void decode_load_i8(const char *at, vec_t *x)
{
    HD_UNROLL
    for (int i = 0; i < 2; i++) {
        __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)(at + i * VEC_LANES));
        x[i] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
    }
}

/* The largest of a vector's lanes. */
HD_INLINE float decode_most(vec_t x)
{
    return _mm512_reduce_max_ps(x);
}

/* Lane i: the sum of the lanes of x[i]. Each step folds two vectors into one, half of it from
 * either: a permute, a blend and a sum, half of what a transpose costs on the port of permutes. */
HD_INLINE vec_t decode_lane_sums(vec_t *x)
{
    const __m512i blocks =
        _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    const __m512i lanes =
        _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
    HD_UNROLL
    for (int i = 0; i < 8; i++) {
        x[i] = vec_add(_mm512_shuffle_f32x4(x[i], x[i + 8], 0x4e),
                       _mm512_mask_blend_ps(0xff00, x[i], x[i + 8]));
    }
    HD_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = vec_add(_mm512_permutex2var_ps(x[i], blocks, x[i + 4]),
                       _mm512_mask_blend_ps(0xf0f0, x[i], x[i + 4]));
    }
    HD_UNROLL
    for (int i = 0; i < 2; i++) {
        x[i] = vec_add(_mm512_shuffle_ps(x[i], x[i + 2], 0x4e),
                       _mm512_mask_blend_ps(0xcccc, x[i], x[i + 2]));
    }
    return vec_add(_mm512_permutex2var_ps(x[0], lanes, x[1]),
                   _mm512_mask_blend_ps(0xaaaa, x[0], x[1]));
}

#endif
