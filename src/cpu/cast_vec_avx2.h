/* What cast_blocks.h needs of AVX2: 32 elements at a time, as four vectors of eight f32. */
#ifndef HD_CAST_VEC_AVX2_H
#define HD_CAST_VEC_AVX2_H

#include "vec.h"

#include <immintrin.h>

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

/* ---- elements of 16 bits
 * ------------------------------------------------------------------------- */

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

/* ---- FP8
 * ---------------------------------------------------------------------------------------- */

/* Constants of packing; opaque, or GCC makes them anew from integers in each block. */
typedef struct cast_packing {
    cast_vec_t less, sign, order;
} cast_packing_t;

HD_INLINE cast_packing_t cast_packing(uint32_t offset)
{
    cast_packing_t with = {_mm256_set1_epi16((short)offset), _mm256_set1_epi8((char)0x80),
                           _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)};
    HD_OPAQUE(with.less);
    HD_OPAQUE(with.sign);
    HD_OPAQUE(with.order);
    return with;
}

/* The low bytes of c - offset with the signs of x, in order; c - offset is below 128. */
HD_INLINE cast_vec_t cast_pack_codes(const cast_packing_t with, const cast_vec_t c[4],
                                     const cast_vec_t x[4])
{
    __m256i low = _mm256_sub_epi16(_mm256_packus_epi32(c[0], c[1]), with.less);
    __m256i high = _mm256_sub_epi16(_mm256_packus_epi32(c[2], c[3]), with.less);
    /* Packing with saturation keeps the sign. */
    __m256i signs =
        _mm256_packs_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
    __m256i codes =
        _mm256_or_si256(_mm256_packus_epi16(low, high), _mm256_and_si256(signs, with.sign));
    return _mm256_permutevar8x32_epi32(codes, with.order);
}

/* The same of two vectors of 16 bits each. */
HD_INLINE cast_vec_t cast_pack_halves(const cast_packing_t with, const cast_vec_t c[2],
                                      const cast_vec_t x[2])
{
    __m256i codes =
        _mm256_packus_epi16(_mm256_sub_epi16(c[0], with.less), _mm256_sub_epi16(c[1], with.less));
    __m256i signs = _mm256_and_si256(_mm256_packs_epi16(x[0], x[1]), with.sign);
    return _mm256_permute4x64_epi64(_mm256_or_si256(codes, signs), 0xd8);
}

/* Codes as numbers of 16 bits, upper and lower bytes apart. From 8 on a number is (magnitude <<
 * left) + bias, the others are in a table of eight; what is above the largest is selected. */
typedef struct cast_bytes {
    cast_vec_t low, high;
} cast_bytes_t;

HD_INLINE cast_bytes_t cast_few(heed_dtype_t from, bool f16, cast_vec_t magnitude)
{
    const bool e4m3 = from == HEED_E4M3;
    const int64_t low = f16 ? 0 : e4m3 ? 0x60402000c0800000 : (int64_t)0xe0c0a08040008000;
    const int64_t high = !e4m3 ? 0x3838383838383700 : f16 ? 0x232221201e1c1800 : 0x3c3c3c3c3b3b3b00;
    cast_bytes_t few = {_mm256_shuffle_epi8(_mm256_set1_epi64x(low), magnitude),
                        _mm256_shuffle_epi8(_mm256_set1_epi64x(high), magnitude)};
    return few;
}

HD_INLINE cast_bytes_t cast_decode(heed_dtype_t from, bool f16, cast_vec_t codes)
{
#define BYTES(x) _mm256_set1_epi8((char)(x))
    const int left = (f16 ? 10 : 7) - (from == HEED_E4M3 ? 3 : 2);
    const int bias = from == HEED_E4M3 ? (f16 ? 0x20 : 0x3c) : 0x38;
    const bool infinite = from == HEED_E5M2;
    const __m256i magnitude = _mm256_and_si256(codes, BYTES(0x7f));
    const __m256i nan = _mm256_cmpgt_epi8(magnitude, BYTES(infinite ? 0x7c : 0x7e));
    cast_bytes_t word;
    if (infinite && f16) { /* the number itself, but for NaN */
        word.low = _mm256_setzero_si256();
        word.high = _mm256_blendv_epi8(magnitude, BYTES(0x7e), nan);
    } else {
        const __m256i is_few = _mm256_cmpgt_epi8(BYTES(8), magnitude);
        const cast_bytes_t few = cast_few(from, f16, magnitude);
        word.low = _mm256_and_si256(_mm256_slli_epi16(codes, left), BYTES(0xff << left));
        word.high = _mm256_srli_epi16(magnitude, 8 - left);
        word.high = _mm256_and_si256(word.high, BYTES(0x7f >> (8 - left)));
        word.high = _mm256_add_epi8(word.high, BYTES(bias));
        word.low = _mm256_blendv_epi8(word.low, few.low, is_few);
        word.high = _mm256_blendv_epi8(word.high, few.high, is_few);
        if (infinite) {
            const __m256i special = _mm256_cmpgt_epi8(magnitude, BYTES(0x7b));
            word.low = _mm256_blendv_epi8(word.low, BYTES(0x80), special);
            word.high = _mm256_blendv_epi8(word.high, BYTES(0x7f), special);
        }
        word.low = _mm256_blendv_epi8(word.low, BYTES(f16 ? 0 : 0xc0), nan);
        word.high = _mm256_blendv_epi8(word.high, BYTES(f16 ? 0x7e : 0x7f), nan);
    }
    word.high = _mm256_or_si256(word.high, _mm256_and_si256(codes, BYTES(0x80)));
    return word;
#undef BYTES
}

HD_INLINE void cast_decode_16(heed_dtype_t from, bool f16, const char *at, cast_vec_t to[2])
{
    const cast_bytes_t word = cast_decode(from, f16, _mm256_permute4x64_epi64(cast_load(at), 0xd8));
    to[0] = _mm256_unpacklo_epi8(word.low, word.high);
    to[1] = _mm256_unpackhi_epi8(word.low, word.high);
}

/* Through bf16, which has every code. The order beforehand makes the interleaving one of lanes. */
HD_INLINE void cast_decode_32(heed_dtype_t from, const char *at, cast_vec_t to[4])
{
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7), none = _mm256_setzero_si256();
    const cast_bytes_t word =
        cast_decode(from, false, _mm256_permutevar8x32_epi32(cast_load(at), order));
    const __m256i first = _mm256_unpacklo_epi8(word.low, word.high);
    const __m256i second = _mm256_unpackhi_epi8(word.low, word.high);
    to[0] = _mm256_unpacklo_epi16(none, first);
    to[1] = _mm256_unpackhi_epi16(none, first);
    to[2] = _mm256_unpacklo_epi16(none, second);
    to[3] = _mm256_unpackhi_epi16(none, second);
}

#endif
