/* What cast_blocks.h needs of AVX2: 32 elements at a time, as four vectors of eight f32. FP8 is in
 * cast_fp8_avx2.h. */
#ifndef HD_CAST_VEC_AVX2_H
#define HD_CAST_VEC_AVX2_H

#include "vec.h"

#include <immintrin.h>

#define HD_SUMS_BYTES        32
#define HD_SUMS_WIDEN(x)     _mm256_cvtps_pd((__m128)(x))
#define HD_SUMS_LARGER(a, b) _mm256_max_pd((__m256d)(a), (__m256d)(b))

enum { CAST_BLOCK = 32, CAST_LANES = 8, CAST_ALIGNED = 32 };
typedef __m256i cast_vec_t;

HD_INLINE cast_vec_t cast_set(uint32_t x)
{
    return _mm256_set1_epi32((int)x);
}

HD_INLINE cast_vec_t cast_and(cast_vec_t a, cast_vec_t b)
{
    return _mm256_and_si256(a, b);
}

HD_INLINE cast_vec_t cast_or(cast_vec_t a, cast_vec_t b)
{
    return _mm256_or_si256(a, b);
}

HD_INLINE cast_vec_t cast_add(cast_vec_t a, cast_vec_t b)
{
    return _mm256_add_epi32(a, b);
}

HD_INLINE cast_vec_t cast_sub(cast_vec_t a, cast_vec_t b)
{
    return _mm256_sub_epi32(a, b);
}

/* Of magnitudes, which are never negative. */
HD_INLINE cast_vec_t cast_min(cast_vec_t a, cast_vec_t b)
{
    return _mm256_min_epi32(a, b);
}

HD_INLINE cast_vec_t cast_max(cast_vec_t a, cast_vec_t b)
{
    return _mm256_max_epi32(a, b);
}

HD_INLINE cast_vec_t cast_max_16(cast_vec_t a, cast_vec_t b)
{
    return _mm256_max_epu16(a, b);
}

HD_INLINE cast_vec_t cast_min_16(cast_vec_t a, cast_vec_t b)
{
    return _mm256_min_epu16(a, b);
}

HD_INLINE cast_vec_t cast_add_16(cast_vec_t a, cast_vec_t b)
{
    return _mm256_add_epi16(a, b);
}

/* The lower halves of the 32-bit numbers of even and of odd in turn. */
HD_INLINE cast_vec_t cast_interleave(cast_vec_t even, cast_vec_t odd)
{
    return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
}

HD_INLINE bool cast_any_above_16(cast_vec_t a, cast_vec_t b)
{
    return _mm256_movemask_epi8(_mm256_cmpgt_epi16(a, b)) != 0;
}

HD_INLINE cast_vec_t cast_max_8(cast_vec_t a, cast_vec_t b)
{
    return _mm256_max_epu8(a, b);
}

#define cast_right(a, bits)    _mm256_srli_epi32(a, bits)
#define cast_left(a, bits)     _mm256_slli_epi32(a, bits)
#define cast_right_16(a, bits) _mm256_srli_epi16(a, bits)

HD_INLINE cast_vec_t cast_float_add(cast_vec_t a, cast_vec_t b)
{
    return _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}

HD_INLINE cast_vec_t cast_float_mul(cast_vec_t a, cast_vec_t b)
{
    return _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}

HD_INLINE bool cast_any_nan(const cast_vec_t x[4])
{
    const __m256 a = _mm256_castsi256_ps(x[0]), b = _mm256_castsi256_ps(x[1]);
    const __m256 c = _mm256_castsi256_ps(x[2]), d = _mm256_castsi256_ps(x[3]);
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q),
                                           _mm256_cmp_ps(c, d, _CMP_UNORD_Q))) != 0;
}

/* Whether a > b in any lane. */
HD_INLINE bool cast_any_above(cast_vec_t a, cast_vec_t b)
{
    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(a, b)) != 0;
}

/* yes where a > b, no elsewhere. */
HD_INLINE cast_vec_t cast_where_above(cast_vec_t a, cast_vec_t b, cast_vec_t yes, cast_vec_t no)
{
    return _mm256_blendv_epi8(no, yes, _mm256_cmpgt_epi32(a, b));
}

/* count + 1 where a > b. */
HD_INLINE cast_vec_t cast_count_above(cast_vec_t count, cast_vec_t a, cast_vec_t b)
{
    return _mm256_sub_epi32(count, _mm256_cmpgt_epi32(a, b));
}

HD_INLINE cast_vec_t cast_load(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

HD_INLINE void cast_store(char *at, cast_vec_t x, bool stream)
{
    if (stream)
        _mm256_stream_si256((__m256i *)(void *)at, x);
    else
        _mm256_storeu_si256((__m256i *)(void *)at, x);
}

/* ---- random words: Philox blocks in 64-bit lanes --------------------------------------------- */

#define cast_right_by(a, bits) _mm256_srlv_epi32(a, bits)
#define cast_left_by(a, bits)  _mm256_sllv_epi32(a, bits)

/* Numbers of the blocks from `first` on, in the order that cast_order_words takes. */
HD_INLINE cast_vec_t cast_counters(uint64_t first)
{
    return _mm256_add_epi64(_mm256_set1_epi64x((int64_t)first), _mm256_setr_epi64x(0, 2, 1, 3));
}

HD_INLINE cast_vec_t cast_upper_words(cast_vec_t a)
{
    return _mm256_srli_epi64(a, 32);
}

/* Products of the lower words, in 64 bits. */
HD_INLINE cast_vec_t cast_mul_words(cast_vec_t a, cast_vec_t b)
{
    return _mm256_mul_epu32(a, b);
}

HD_INLINE cast_vec_t cast_xor_3(cast_vec_t a, cast_vec_t b, cast_vec_t c)
{
    return _mm256_xor_si256(a, _mm256_xor_si256(b, c));
}

/* The lower words of w[0] to w[3], all of a block before those of the next. */
HD_INLINE void cast_order_words(const cast_vec_t w[4], cast_vec_t to[2])
{
    const cast_vec_t first = _mm256_blend_epi32(w[0], _mm256_slli_epi64(w[1], 32), 0xaa);
    const cast_vec_t second = _mm256_blend_epi32(w[2], _mm256_slli_epi64(w[3], 32), 0xaa);
    to[0] = _mm256_unpacklo_epi64(first, second);
    to[1] = _mm256_unpackhi_epi64(first, second);
}

/* ---- elements of 16 bits --------------------------------------------------------------------- */

HD_INLINE cast_vec_t cast_load_bf16(const char *at)
{
    const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)at);
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
}

HD_INLINE cast_vec_t cast_load_f16(const char *at)
{
    return _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at)));
}

/* Low halves of two vectors of 32-bit numbers below 2^16, in order. */
HD_INLINE cast_vec_t cast_pack_16(cast_vec_t a, cast_vec_t b)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
}

HD_INLINE cast_vec_t cast_pack_f16(cast_vec_t a, cast_vec_t b)
{
    __m128i low = _mm256_cvtps_ph(_mm256_castsi256_ps(a), _MM_FROUND_TO_NEAREST_INT);
    __m128i high = _mm256_cvtps_ph(_mm256_castsi256_ps(b), _MM_FROUND_TO_NEAREST_INT);
    return _mm256_set_m128i(high, low);
}

#include "cast_fp8_avx2.h"

#endif
