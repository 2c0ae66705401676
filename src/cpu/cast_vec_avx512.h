/* What cast_blocks.h needs of AVX-512: 64 elements at a time, as four vectors of sixteen f32. FP8
 * is in cast_fp8_avx512.h. */
#ifndef HD_CAST_VEC_AVX512_H
#define HD_CAST_VEC_AVX512_H

#include "vec.h"

#include <immintrin.h>

#if !defined(HD_EMULATED)
#define HD_SUMS_BYTES        64
#define HD_SUMS_WIDEN(x)     _mm512_cvtps_pd((__m256)(x))
#define HD_SUMS_LARGER(a, b) _mm512_max_pd((__m512d)(a), (__m512d)(b))
#endif

enum { CAST_BLOCK = 64, CAST_LANES = 16, CAST_ALIGNED = 64 };
typedef __m512i cast_vec_t;

HD_INLINE cast_vec_t cast_set(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}

HD_INLINE cast_vec_t cast_and(cast_vec_t a, cast_vec_t b)
{
    return _mm512_and_si512(a, b);
}

HD_INLINE cast_vec_t cast_or(cast_vec_t a, cast_vec_t b)
{
    return _mm512_or_si512(a, b);
}

HD_INLINE cast_vec_t cast_add(cast_vec_t a, cast_vec_t b)
{
    return _mm512_add_epi32(a, b);
}

HD_INLINE cast_vec_t cast_sub(cast_vec_t a, cast_vec_t b)
{
    return _mm512_sub_epi32(a, b);
}

/* Of magnitudes, which are never negative. */
HD_INLINE cast_vec_t cast_min(cast_vec_t a, cast_vec_t b)
{
    return _mm512_min_epi32(a, b);
}

HD_INLINE cast_vec_t cast_max(cast_vec_t a, cast_vec_t b)
{
    return _mm512_max_epi32(a, b);
}

HD_INLINE cast_vec_t cast_max_16(cast_vec_t a, cast_vec_t b)
{
    return _mm512_max_epu16(a, b);
}

HD_INLINE cast_vec_t cast_min_16(cast_vec_t a, cast_vec_t b)
{
    return _mm512_min_epu16(a, b);
}

HD_INLINE cast_vec_t cast_add_16(cast_vec_t a, cast_vec_t b)
{
    return _mm512_add_epi16(a, b);
}

/* The lower halves of the 32-bit numbers of even and of odd in turn. */
HD_INLINE cast_vec_t cast_interleave(cast_vec_t even, cast_vec_t odd)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaa, even, _mm512_slli_epi32(odd, 16));
}

HD_INLINE bool cast_any_above_16(cast_vec_t a, cast_vec_t b)
{
    return _mm512_cmpgt_epi16_mask(a, b) != 0;
}

HD_INLINE cast_vec_t cast_max_8(cast_vec_t a, cast_vec_t b)
{
    return _mm512_max_epu8(a, b);
}

#define cast_right(a, bits)    _mm512_srli_epi32(a, bits)
#define cast_left(a, bits)     _mm512_slli_epi32(a, bits)
#define cast_right_16(a, bits) _mm512_srli_epi16(a, bits)

HD_INLINE cast_vec_t cast_float_add(cast_vec_t a, cast_vec_t b)
{
    return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

HD_INLINE cast_vec_t cast_float_mul(cast_vec_t a, cast_vec_t b)
{
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

HD_INLINE bool cast_any_nan(const cast_vec_t x[4])
{
    const __m512 a = _mm512_castsi512_ps(x[0]), b = _mm512_castsi512_ps(x[1]);
    const __m512 c = _mm512_castsi512_ps(x[2]), d = _mm512_castsi512_ps(x[3]);
    const __mmask16 low = _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q);
    const __mmask16 high = _mm512_cmp_ps_mask(c, d, _CMP_UNORD_Q);
#if defined(HD_EMULATED)
    return (low | high) != 0;
#else
    return !_mm512_kortestz(low, high);
#endif
}

/* Whether a > b in any lane. */
HD_INLINE bool cast_any_above(cast_vec_t a, cast_vec_t b)
{
    return _mm512_cmpgt_epi32_mask(a, b) != 0;
}

/* yes where a > b, no elsewhere. */
HD_INLINE cast_vec_t cast_where_above(cast_vec_t a, cast_vec_t b, cast_vec_t yes, cast_vec_t no)
{
    return _mm512_mask_mov_epi32(no, _mm512_cmpgt_epi32_mask(a, b), yes);
}

/* count + 1 where a > b. */
HD_INLINE cast_vec_t cast_count_above(cast_vec_t count, cast_vec_t a, cast_vec_t b)
{
    return _mm512_mask_sub_epi32(count, _mm512_cmpgt_epi32_mask(a, b), count,
                                 _mm512_set1_epi32(-1));
}

HD_INLINE cast_vec_t cast_load(const void *at)
{
    return _mm512_loadu_si512(at);
}

HD_INLINE void cast_store(char *at, cast_vec_t x, bool stream)
{
    if (stream)
        _mm512_stream_si512((__m512i *)(void *)at, x);
    else
        _mm512_storeu_si512(at, x);
}

/* ---- random words: Philox blocks in 64-bit lanes --------------------------------------------- */

#define cast_right_by(a, bits) _mm512_srlv_epi32(a, bits)
#define cast_left_by(a, bits)  _mm512_sllv_epi32(a, bits)

/* Numbers of the blocks from `first` on, in the order that cast_order_words takes. */
HD_INLINE cast_vec_t cast_counters(uint64_t first)
{
    return _mm512_add_epi64(_mm512_set1_epi64((int64_t)first),
                            _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
}

HD_INLINE cast_vec_t cast_upper_words(cast_vec_t a)
{
    return _mm512_shuffle_epi32(a, (_MM_PERM_ENUM)0xf5);
}

/* Products of the lower words, in 64 bits. */
HD_INLINE cast_vec_t cast_mul_words(cast_vec_t a, cast_vec_t b)
{
    return _mm512_mul_epu32(a, b);
}

HD_INLINE cast_vec_t cast_xor_3(cast_vec_t a, cast_vec_t b, cast_vec_t c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0x96);
}

/* The lower words of w[0] to w[3], all of a block before those of the next. */
HD_INLINE void cast_order_words(const cast_vec_t w[4], cast_vec_t to[2])
{
    const cast_vec_t first = _mm512_mask_blend_epi32(0xaaaa, w[0], _mm512_slli_epi64(w[1], 32));
    const cast_vec_t second = _mm512_mask_blend_epi32(0xaaaa, w[2], _mm512_slli_epi64(w[3], 32));
    to[0] = _mm512_unpacklo_epi64(first, second);
    to[1] = _mm512_unpackhi_epi64(first, second);
}

/* ---- elements of 16 bits --------------------------------------------------------------------- */

HD_INLINE cast_vec_t cast_load_bf16(const char *at)
{
    const __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)at);
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
}

HD_INLINE cast_vec_t cast_load_f16(const char *at)
{
    return _mm512_castps_si512(
        _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at)));
}

HD_INLINE cast_vec_t cast_join(__m256i low, __m256i high)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Low halves of two vectors of 32-bit numbers, in order. */
HD_INLINE cast_vec_t cast_pack_16(cast_vec_t a, cast_vec_t b)
{
    return cast_join(_mm512_cvtepi32_epi16(a), _mm512_cvtepi32_epi16(b));
}

HD_INLINE cast_vec_t cast_pack_f16(cast_vec_t a, cast_vec_t b)
{
    return cast_join(_mm512_cvtps_ph(_mm512_castsi512_ps(a), _MM_FROUND_TO_NEAREST_INT),
                     _mm512_cvtps_ph(_mm512_castsi512_ps(b), _MM_FROUND_TO_NEAREST_INT));
}

#include "cast_fp8_avx512.h"

#endif
