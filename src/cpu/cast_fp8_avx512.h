/* FP8 in AVX-512, 64 codes at a time. With CAST_VBMI, the byte permutes of AVX512_VBMI decode by
 * two tables of 128 bytes and order the codes; without, decoding is by shifts, and a shuffle within
 * 128 bits comes before the permute.
 *
 * Encoding: a table has, for each binade of the format, the power of two whose last bit is the
 * quantum there, plus the code of the binade's start in quanta. Adding it to a magnitude leaves the
 * code in the low byte of the sum: cut, choose, add are five instructions for sixteen numbers.
 * Bytes of the four vectors then go into one, codes and signs apart, and into their order. */
#ifndef HD_CAST_FP8_AVX512_H
#define HD_CAST_FP8_AVX512_H

#include "cast_limits.h"
#include "vec.h"

#define CAST_4(f, i)  f(i), f((i) + 1), f((i) + 2), f((i) + 3)
#define CAST_16(f, i) CAST_4(f, i), CAST_4(f, (i) + 4), CAST_4(f, (i) + 8), CAST_4(f, (i) + 12)
#define CAST_64(f, i) \
    CAST_16(f, i), CAST_16(f, (i) + 16), CAST_16(f, (i) + 32), CAST_16(f, (i) + 48)

#if defined(HD_EMULATED)
#define CAST_OPAQUE_MASK(x)
#else
#define CAST_OPAQUE_MASK(x) __asm__("" : "+Yk"(x))
#endif

/* ---- encoding -------------------------------------------------------------------------------- */

/* What is added to magnitudes of f32 exponent e, of a format whose normal numbers begin at emin. */
#define CAST_POWER(e, emin, mantissa) \
    (uint32_t)(((e) + 23 - (mantissa)) << 23 | ((e) - (emin)) << (mantissa))

/* By the exponent's last four bits (E4M3) and five (E5M2). */
#define CAST_E4M3_POWER(i) CAST_POWER((i) > 8 ? 112 + (i) : 128 + (i), 121, 3)
#define CAST_E5M2_POWER(i) CAST_POWER((i) > 16 ? 96 + (i) : 128 + (i), 113, 2)
static const uint32_t cast_powers[2][32] = {
    {CAST_16(CAST_E4M3_POWER, 0)},
    {CAST_16(CAST_E5M2_POWER, 0), CAST_16(CAST_E5M2_POWER, 16)},
};

typedef struct cast_coder {
    cast_vec_t powers[2];         /* of the exponents that the last bits tell */
    cast_vec_t largest, smallest; /* of normal numbers */
    cast_vec_t first, last;       /* first byte of each dword to all four, and the last */
    cast_vec_t sign, order, half_order;
    __mmask64 byte[4]; /* of each dword */
} cast_coder_t;

/* What codes in the low bytes are above the format's. */
HD_INLINE uint32_t cast_offset(const heed_dtype_t dtype)
{
    (void)dtype;
    return 0;
}

#if defined(CAST_VBMI)
/* Byte 16 v + l of the result is byte v of dword l. Of halves, vector 0 has bytes 1 and 3 of each
 * dword, vector 1 bytes 0 and 2. */
#define CAST_PLACE(i)      4 * ((i) % 16) + (i) / 16
#define CAST_HALF_PLACE(i) 2 * ((i) % 32) + ((i) < 32)
static const uint8_t cast_places[2][64] = {{CAST_64(CAST_PLACE, 0)}, {CAST_64(CAST_HALF_PLACE, 0)}};
#endif

HD_INLINE cast_coder_t cast_coder(const heed_dtype_t dtype)
{
    const uint32_t(*powers)[32] = &cast_powers[dtype == HEED_E5M2];
    cast_coder_t with = {
        .powers = {cast_load(*powers), cast_load(*powers + 16)},
        .largest = cast_set(cast_limits(dtype).largest),
        .smallest = cast_set((uint32_t)hd_fp8_format(dtype).emin << 23),
        .first = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)),
        .last =
            _mm512_broadcast_i32x4(_mm_setr_epi32(0x03030303, 0x07070707, 0x0b0b0b0b, 0x0f0f0f0f)),
        .sign = _mm512_set1_epi8((char)0x80),
        .byte = {0x1111111111111111, 0x2222222222222222, 0x4444444444444444, 0x8888888888888888},
    };
#if defined(CAST_VBMI)
    with.order = cast_load(cast_places[0]);
    with.half_order = cast_load(cast_places[1]);
#endif
    /* Or GCC makes them anew in each block, from integers. */
    HD_OPAQUE(with.largest);
    HD_OPAQUE(with.smallest);
    HD_OPAQUE(with.first);
    HD_OPAQUE(with.last);
    HD_OPAQUE(with.sign);
    for (int i = 0; i < 4; i++)
        CAST_OPAQUE_MASK(with.byte[i]);
    return with;
}

/* In the low byte, the code of the magnitude of x: the largest number where that lies beyond. */
HD_INLINE cast_vec_t cast_code(const heed_dtype_t dtype, const cast_coder_t *with, cast_vec_t x)
{
    enum { LESSER_MAGNITUDE = 10 };
    const __m512 largest = _mm512_castsi512_ps(with->largest);
    const __m512 cut = _mm512_range_ps(_mm512_castsi512_ps(x), largest, LESSER_MAGNITUDE);
    const __m512 normal = _mm512_max_ps(cut, _mm512_castsi512_ps(with->smallest));
    const __m512i binade = _mm512_srli_epi32(_mm512_castps_si512(normal), 23);
    const __m512 low = _mm512_castsi512_ps(with->powers[0]);
    const __m512 high = _mm512_castsi512_ps(with->powers[1]);
    const __m512 power = dtype == HEED_E4M3 ? _mm512_permutexvar_ps(binade, low)
                                            : _mm512_permutex2var_ps(low, binade, high);
    return _mm512_castps_si512(_mm512_add_ps(cut, power));
}

/* The sign bits of `signs` in codes. */
HD_INLINE cast_vec_t cast_join_signs(const cast_coder_t *with, cast_vec_t codes, cast_vec_t signs)
{
    return _mm512_ternarylogic_epi32(codes, signs, with->sign, 0xd8);
}

/* The low bytes of c with the signs of x, in order. */
HD_INLINE cast_vec_t cast_pack_codes(const cast_coder_t *with, const cast_vec_t c[4],
                                     const cast_vec_t x[4])
{
    __m512i codes = _mm512_mask_shuffle_epi8(c[0], with->byte[1], c[1], with->first);
    codes = _mm512_mask_shuffle_epi8(codes, with->byte[2], c[2], with->first);
    codes = _mm512_mask_shuffle_epi8(codes, with->byte[3], c[3], with->first);
    __m512i signs = _mm512_mask_shuffle_epi8(x[3], with->byte[0], x[0], with->last);
    signs = _mm512_mask_shuffle_epi8(signs, with->byte[1], x[1], with->last);
    signs = _mm512_mask_shuffle_epi8(signs, with->byte[2], x[2], with->last);
    const __m512i joined = cast_join_signs(with, codes, signs);
#if defined(CAST_VBMI)
    return _mm512_permutexvar_epi8(with->order, joined);
#else
    const __m512i lane =
        _mm512_broadcast_i32x4(_mm_setr_epi32(0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_shuffle_epi8(joined, lane));
#endif
}

/* Codes of two vectors of 16-bit numbers with the signs of those, in order: in the bytes of codes
 * that CAST_HALF_PLACE tells. */
HD_INLINE cast_vec_t cast_order_halves(const cast_coder_t *with, cast_vec_t codes,
                                       const cast_vec_t x[2])
{
    const __mmask64 even = with->byte[0] | with->byte[2];
    const __m512i signs = _mm512_mask_blend_epi8(even, x[0], _mm512_srli_epi16(x[1], 8));
    const __m512i joined = cast_join_signs(with, codes, signs);
#if defined(CAST_VBMI)
    return _mm512_permutexvar_epi8(with->half_order, joined);
#else
    const __m512i lane =
        _mm512_broadcast_i32x4(_mm_setr_epi32(0x07050301, 0x0f0d0b09, 0x06040200, 0x0e0c0a08));
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(order, _mm512_shuffle_epi8(joined, lane));
#endif
}

/* c: codes as numbers of 16 bits. */
HD_INLINE cast_vec_t cast_pack_halves(const cast_coder_t *with, const cast_vec_t c[2],
                                      const cast_vec_t x[2])
{
    return cast_order_halves(with, _mm512_or_si512(_mm512_slli_epi16(c[0], 8), c[1]), x);
}

/* The codes of 64 bf16 numbers in two vectors: even and odd ones as f32 apart. */
HD_INLINE cast_vec_t cast_encode_bf16(const heed_dtype_t dtype, const cast_coder_t *with,
                                      const cast_vec_t x[2])
{
    const cast_vec_t upper = cast_set(0xffff0000);
    const __m512i even = cast_code(dtype, with, cast_left(x[0], 16));
    const __m512i odd = cast_code(dtype, with, cast_and(x[0], upper));
    __m512i codes = cast_code(dtype, with, cast_left(x[1], 16));
    codes = _mm512_mask_shuffle_epi8(codes, with->byte[1], even, with->first);
    codes = _mm512_mask_shuffle_epi8(codes, with->byte[2],
                                     cast_code(dtype, with, cast_and(x[1], upper)), with->first);
    return cast_order_halves(with, _mm512_mask_shuffle_epi8(codes, with->byte[3], odd, with->first),
                             x);
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* The 16-bit number of a positive code: below 8 from a list of four times 16 bits each. */
#define CAST_FEW(i, first, second) (((i) < 4 ? (first) : (second)) >> 16 * ((i) % 4))
#define CAST_E4M3_BF16(i)                                                             \
    ((i) == 0x7f ? 0x7fc0                                                             \
     : (i) < 8   ? CAST_FEW(i, 0x3bc03b803b000000ull, 0x3c603c403c203c00ull) & 0xffff \
                 : ((i) << 4) + 0x3c00)
#define CAST_E4M3_F16(i)                                                              \
    ((i) == 0x7f ? 0x7e00                                                             \
     : (i) < 8   ? CAST_FEW(i, 0x1e001c0018000000ull, 0x2300220021002000ull) & 0xffff \
                 : ((i) << 7) + 0x2000)
#define CAST_E5M2_BF16(i)                                                               \
    ((i) > 0x7c    ? 0x7fc0                                                             \
     : (i) == 0x7c ? 0x7f80                                                             \
     : (i) < 8     ? CAST_FEW(i, 0x3840380037800000ull, 0x38e038c038a03880ull) & 0xffff \
                   : ((i) << 5) + 0x3800)
#define CAST_E5M2_F16(i) ((i) > 0x7c ? 0x7e00 : (i) << 8)

#define CAST_LOW(i)  (uint8_t)(CAST_NUMBER(i) & 0xff)
#define CAST_HIGH(i) (uint8_t)(CAST_NUMBER(i) >> 8)
#define CAST_TABLES                                       \
    {                                                     \
        {CAST_64(CAST_LOW, 0), CAST_64(CAST_LOW, 64)},    \
        {                                                 \
            CAST_64(CAST_HIGH, 0), CAST_64(CAST_HIGH, 64) \
        }                                                 \
    }

/* Lower and upper bytes of the numbers of 128 codes. */
static const uint8_t cast_tables[4][2][128] = {
#define CAST_NUMBER(i) CAST_E4M3_BF16(i)
    CAST_TABLES,
#undef CAST_NUMBER
#define CAST_NUMBER(i) CAST_E4M3_F16(i)
    CAST_TABLES,
#undef CAST_NUMBER
#define CAST_NUMBER(i) CAST_E5M2_BF16(i)
    CAST_TABLES,
#undef CAST_NUMBER
#define CAST_NUMBER(i) CAST_E5M2_F16(i)
    CAST_TABLES,
#undef CAST_NUMBER
};

#if defined(CAST_VBMI)
/* The permute does not look at bit 7 of an index: codes need no mask. */
HD_INLINE cast_vec_t cast_look_up(const uint8_t *table, cast_vec_t codes)
{
    return _mm512_permutex2var_epi8(cast_load(table), codes, cast_load(table + 64));
}

HD_INLINE void cast_magnitudes(heed_dtype_t from, bool f16, cast_vec_t codes, cast_vec_t word[2])
{
    const uint8_t(*tables)[128] = cast_tables[2 * (from == HEED_E5M2) + f16];
    word[0] = cast_look_up(tables[0], codes);
    word[1] = cast_look_up(tables[1], codes);
}
#else
/* From 8 on a number is (code << left) + bias; the others, and what is above the largest finite
 * one, come from the tables. */
HD_INLINE void cast_magnitudes(heed_dtype_t from, bool f16, cast_vec_t codes, cast_vec_t word[2])
{
#define BYTES(x) _mm512_set1_epi8((char)(x))
    const uint8_t(*tables)[128] = cast_tables[2 * (from == HEED_E5M2) + f16];
    const int left = (f16 ? 10 : 7) - (from == HEED_E4M3 ? 3 : 2);
    const int bias = tables[1][8] - (8 >> (8 - left));
    const __m512i magnitude = _mm512_and_si512(codes, BYTES(0x7f));
    const __mmask64 few = _mm512_cmplt_epu8_mask(magnitude, BYTES(8));
    const __mmask64 top = _mm512_cmpgt_epu8_mask(magnitude, BYTES(0x77));
    word[0] = _mm512_and_si512(_mm512_slli_epi16(codes, left), BYTES(0xff << left));
    word[1] = _mm512_and_si512(_mm512_srli_epi16(magnitude, 8 - left), BYTES(0x7f >> (8 - left)));
    word[1] = _mm512_add_epi8(word[1], BYTES(bias));
    for (int i = 0; i < 2; i++) {
        const __m128i *table = (const __m128i *)(const void *)tables[i];
        word[i] = _mm512_mask_shuffle_epi8(
            word[i], few, _mm512_broadcast_i32x4(_mm_loadu_si128(table)), magnitude);
        word[i] = _mm512_mask_shuffle_epi8(
            word[i], top, _mm512_broadcast_i32x4(_mm_loadu_si128(table + 7)), magnitude);
    }
#undef BYTES
}
#endif

/* Codes as numbers of 16 bits, lower bytes and upper ones with the sign. */
HD_INLINE void cast_decode(heed_dtype_t from, bool f16, cast_vec_t codes, cast_vec_t word[2])
{
    cast_magnitudes(from, f16, codes, word);
    word[1] = _mm512_ternarylogic_epi32(word[1], codes, _mm512_set1_epi8((char)0x80), 0xf8);
}

HD_INLINE void cast_decode_16(heed_dtype_t from, bool f16, const char *at, cast_vec_t to[2])
{
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    cast_vec_t word[2];
    cast_decode(from, f16, _mm512_permutexvar_epi64(order, cast_load(at)), word);
    to[0] = _mm512_unpacklo_epi8(word[0], word[1]);
    to[1] = _mm512_unpackhi_epi8(word[0], word[1]);
}

/* Through bf16, which has every code. The order beforehand makes the interleaving one of lanes. */
HD_INLINE void cast_decode_32(heed_dtype_t from, const char *at, cast_vec_t to[4])
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i none = _mm512_setzero_si512();
    cast_vec_t word[2];
    cast_decode(from, false, _mm512_permutexvar_epi32(order, cast_load(at)), word);
    const __m512i first = _mm512_unpacklo_epi8(word[0], word[1]);
    const __m512i second = _mm512_unpackhi_epi8(word[0], word[1]);
    to[0] = _mm512_unpacklo_epi16(none, first);
    to[1] = _mm512_unpackhi_epi16(none, first);
    to[2] = _mm512_unpacklo_epi16(none, second);
    to[3] = _mm512_unpackhi_epi16(none, second);
}

#endif
