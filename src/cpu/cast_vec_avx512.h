/* What cast_blocks.h needs of AVX-512: 64 elements at a time, as four vectors of sixteen f32. With
 * CAST_VBMI, the byte permutes of AVX512_VBMI decode by two tables of 128 bytes and pack codes;
 * without, both go through the shuffles within 128 bits that AVX512BW has. */
#ifndef HD_CAST_VEC_AVX512_H
#define HD_CAST_VEC_AVX512_H

#include "vec.h"

#include <immintrin.h>

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
    return (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(c, d, _CMP_UNORD_Q)) != 0;
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

/* ---- elements of 16 bits
 * ------------------------------------------------------------------------- */

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

/* ---- FP8
 * ---------------------------------------------------------------------------------------- */

#define CAST_4(f, i)  f(i), f((i) + 1), f((i) + 2), f((i) + 3)
#define CAST_16(f, i) CAST_4(f, i), CAST_4(f, (i) + 4), CAST_4(f, (i) + 8), CAST_4(f, (i) + 12)
#define CAST_64(f, i) \
    CAST_16(f, i), CAST_16(f, (i) + 16), CAST_16(f, (i) + 32), CAST_16(f, (i) + 48)

/* Bytes 0 (and 3) of 64 dwords in order, of the two halves that two permutes give. */
#if defined(CAST_VBMI)
HD_INLINE cast_vec_t cast_gather_bytes(const cast_vec_t x[4], int which)
{
#define PLACE(i) 4 * ((i) % 32)
    static const uint8_t places[64] = {CAST_64(PLACE, 0)};
#undef PLACE
    const __m512i from = _mm512_add_epi8(cast_load(places), _mm512_set1_epi8((char)which));
    return _mm512_mask_blend_epi64(0xf0, _mm512_permutex2var_epi8(x[0], from, x[1]),
                                   _mm512_permutex2var_epi8(x[2], from, x[3]));
}
#else
HD_INLINE cast_vec_t cast_gather_bytes(const cast_vec_t x[4], int which)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i byte = _mm512_set1_epi32(0xff);
    __m512i to[4];
    for (int k = 0; k < 4; k++)
        to[k] = _mm512_and_si512(which ? _mm512_srli_epi32(x[k], 24) : x[k], byte);
    const __m512i low = _mm512_packus_epi32(to[0], to[1]), high = _mm512_packus_epi32(to[2], to[3]);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}
#endif

typedef struct cast_packing {
    cast_vec_t less, sign;
} cast_packing_t;

HD_INLINE cast_packing_t cast_packing(uint32_t offset)
{
    cast_packing_t with = {_mm512_set1_epi8((char)offset), _mm512_set1_epi8((char)0x80)};
    return with;
}

/* (codes - offset) | (signs & 0x80) */
HD_INLINE cast_vec_t cast_join_signs(const cast_packing_t with, cast_vec_t codes, cast_vec_t signs)
{
    return _mm512_ternarylogic_epi32(_mm512_sub_epi8(codes, with.less), signs, with.sign, 0xf8);
}

/* The low bytes of c - offset with the signs of x, in order. */
HD_INLINE cast_vec_t cast_pack_codes(const cast_packing_t with, const cast_vec_t c[4],
                                     const cast_vec_t x[4])
{
    return cast_join_signs(with, cast_gather_bytes(c, 0), cast_gather_bytes(x, 3));
}

/* The same of two vectors of 16 bits each. */
HD_INLINE cast_vec_t cast_pack_halves(const cast_packing_t with, const cast_vec_t c[2],
                                      const cast_vec_t x[2])
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), byte = _mm512_set1_epi16(0xff);
    const __m512i codes =
        _mm512_packus_epi16(_mm512_and_si512(c[0], byte), _mm512_and_si512(c[1], byte));
    const __m512i signs = _mm512_packs_epi16(x[0], x[1]);
    return _mm512_permutexvar_epi64(order, cast_join_signs(with, codes, signs));
}

/* The 16-bit number of a positive code: below 8 from a list of four times 16 bits each. */
#define CAST_FEW(i, first, second) ((i) < 4 ? (first) >> 16 * (i) : (second) >> 16 * ((i)&3))
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
#else
/* Eight lookups of 16 bytes. */
HD_INLINE cast_vec_t cast_look_up(const uint8_t *table, cast_vec_t codes)
{
    const __m512i upper = _mm512_and_si512(codes, _mm512_set1_epi8(0x70));
    __m512i found = _mm512_setzero_si512();
    for (int i = 0; i < 8; i++) {
        const __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(table + 16 * i));
        const __m512i index = _mm512_and_si512(codes, _mm512_set1_epi8(0x0f));
        const __m512i here = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(part), index);
        found = _mm512_mask_mov_epi8(
            found, _mm512_cmpeq_epi8_mask(upper, _mm512_set1_epi8((char)(16 * i))), here);
    }
    return found;
}
#endif

/* Codes as numbers of 16 bits, lower bytes and upper ones with the sign. */
HD_INLINE void cast_decode(heed_dtype_t from, bool f16, cast_vec_t codes, cast_vec_t word[2])
{
    const uint8_t(*tables)[128] = cast_tables[2 * (from == HEED_E5M2) + f16];
    word[0] = cast_look_up(tables[0], codes);
    word[1] = _mm512_ternarylogic_epi32(cast_look_up(tables[1], codes), codes,
                                        _mm512_set1_epi8((char)0x80), 0xf8);
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
