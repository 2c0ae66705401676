/* FP8 in AVX2, 32 codes at a time.
 *
 * Encoding: of the magnitude cut to the largest number, e is the binade or that of the smallest
 * normal number; adding the power of two whose last bit is the quantum of the format there rounds
 * it to that, and the difference of the bits counts quanta. Normal and subnormal numbers and the
 * carry between binades are one path. */
#ifndef HD_CAST_FP8_AVX2_H
#define HD_CAST_FP8_AVX2_H

#include "cast_job.h"

/* ---- FP8 ------------------------------------------------------------------------------------- */

/* Opaque, or GCC makes them anew from integers in each block. */
typedef struct cast_coder {
    cast_vec_t magnitude, largest, exponents, smallest, up;
    cast_vec_t less, sign, order;
} cast_coder_t;

/* What codes in the low bytes are above the format's. */
HD_INLINE uint32_t cast_offset(const heed_dtype_t dtype)
{
    const hd_fp8_t format = hd_fp8_format(dtype);
    return (uint32_t)format.emin << format.mantissa;
}

HD_INLINE cast_coder_t cast_coder(const heed_dtype_t dtype)
{
    const hd_fp8_t format = hd_fp8_format(dtype);
    cast_coder_t with = {
        .magnitude = cast_set(HD_F32_MAGNITUDE),
        .largest = cast_set(cast_limits(dtype).largest),
        .exponents = cast_set(HD_F32_INF),
        .smallest = cast_set((uint32_t)format.emin << 23),
        .up = cast_set((23u - format.mantissa) << 23),
        .less = _mm256_set1_epi16((short)cast_offset(dtype)),
        .sign = _mm256_set1_epi8((char)0x80),
        .order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7),
    };
    HD_OPAQUE(with.magnitude);
    HD_OPAQUE(with.largest);
    HD_OPAQUE(with.exponents);
    HD_OPAQUE(with.smallest);
    HD_OPAQUE(with.up);
    HD_OPAQUE(with.less);
    HD_OPAQUE(with.sign);
    HD_OPAQUE(with.order);
    return with;
}

/* The code of the magnitude of x plus the offset: the largest number where that lies beyond. */
HD_INLINE cast_vec_t cast_code(const heed_dtype_t dtype, const cast_coder_t *with, cast_vec_t x)
{
    const cast_vec_t most = cast_min(cast_and(x, with->magnitude), with->largest);
    const cast_vec_t e = cast_max(cast_and(most, with->exponents), with->smallest);
    const cast_vec_t power = cast_add(e, with->up);
    const cast_vec_t quanta = cast_sub(cast_float_add(most, power), power);
    /* Counts of a shift are constants, for some compilers only where they look so. */
    return cast_add(quanta, dtype == HEED_E4M3 ? cast_right(e, 20) : cast_right(e, 21));
}

/* The low bytes of c - offset with the signs of x, in order; c - offset is below 128. */
HD_INLINE cast_vec_t cast_pack_codes(const cast_coder_t *with, const cast_vec_t c[4],
                                     const cast_vec_t x[4])
{
    __m256i low = _mm256_sub_epi16(_mm256_packus_epi32(c[0], c[1]), with->less);
    __m256i high = _mm256_sub_epi16(_mm256_packus_epi32(c[2], c[3]), with->less);
    /* Packing with saturation keeps the sign. */
    __m256i signs =
        _mm256_packs_epi16(_mm256_packs_epi32(x[0], x[1]), _mm256_packs_epi32(x[2], x[3]));
    __m256i codes =
        _mm256_or_si256(_mm256_packus_epi16(low, high), _mm256_and_si256(signs, with->sign));
    return _mm256_permutevar8x32_epi32(codes, with->order);
}

/* The same of two vectors of 16 bits each. */
HD_INLINE cast_vec_t cast_pack_halves(const cast_coder_t *with, const cast_vec_t c[2],
                                      const cast_vec_t x[2])
{
    __m256i codes =
        _mm256_packus_epi16(_mm256_sub_epi16(c[0], with->less), _mm256_sub_epi16(c[1], with->less));
    __m256i signs = _mm256_and_si256(_mm256_packs_epi16(x[0], x[1]), with->sign);
    return _mm256_permute4x64_epi64(_mm256_or_si256(codes, signs), 0xd8);
}

/* From bf16 in halves of 32 bits: exponents and limits are its upper bits, so that only the
 * addition takes even and odd elements as f32 apart; its quanta are in the lower half of the sum.
 */
HD_INLINE cast_vec_t cast_encode_bf16(const heed_dtype_t dtype, const cast_coder_t *with,
                                      const cast_vec_t x[2])
{
    const hd_fp8_t format = hd_fp8_format(dtype);
    const cast_vec_t upper = cast_set(0xffff0000);
    cast_vec_t c[2];
    HD_UNROLL
    for (int k = 0; k < 2; k++) {
        const cast_vec_t most = cast_min_16(cast_and(x[k], cast_set(0x7fff7fff)),
                                            cast_set((cast_limits(dtype).largest >> 16) * 0x10001));
        const cast_vec_t e = cast_max_16(cast_and(most, cast_set(0x7f807f80)),
                                         cast_set((format.emin << 7) * 0x10001u));
        const cast_vec_t power =
            cast_add_16(e, cast_set(((23u - format.mantissa) << 7) * 0x10001u));
        const cast_vec_t even = cast_float_add(cast_left(most, 16), cast_left(power, 16));
        const cast_vec_t odd = cast_float_add(cast_and(most, upper), cast_and(power, upper));
        const cast_vec_t exponent = dtype == HEED_E4M3 ? cast_right_16(e, 4) : cast_right_16(e, 5);
        c[k] = cast_add_16(cast_interleave(even, odd), exponent);
    }
    return cast_pack_halves(with, c, x);
}

/* ---- decoding -------------------------------------------------------------------------------- */

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
