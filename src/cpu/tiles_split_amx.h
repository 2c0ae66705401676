/* Register tiles for the matrix unit, of numbers in two parts of bf16 each, a high and a low one:
 * flash_body.h says what each means. An f16 is the sum of its parts exactly, infinity and NaN have
 * a low part of zero, and a weight keeps 16 bits. */
#ifndef HD_TILES_SPLIT_AMX_H
#define HD_TILES_SPLIT_AMX_H

#include "amx.h"
#include "vec_avx512.h"

#define FLASH_AMX     1
#define FLASH_PAIRS   1
#define FLASH_PLANES  2
#define FLASH_TILE    2
#define FLASH_VECTORS 4
#define FLASH_KEYS    16
#define FLASH_COLUMNS 16
#define FLASH_NARROW  4

/* Bytes from the high parts to the low ones: of weights, and of values. */
enum { SPLIT_WEIGHTS = 1024 / 2 * 128 + 2112, SPLIT_VALUES = 1024 };

/* The parts of sixteen numbers, as f32. */
HD_INLINE void flash_split(vec_t x, vec_t *high, vec_t *low)
{
    __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    *high = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000)));
    *low = vec_sub(x, *high);
    *low = vec_select(_mm512_cmp_ps_mask(*low, *low, _CMP_ORD_Q), *low, vec_zero());
}

/* Upper halves of both, the even one below. */
HD_INLINE void split_store(char *to, vec_t even, vec_t odd)
{
    __m512i low = _mm512_srli_epi32(_mm512_castps_si512(even), 16);
    _mm512_storeu_si512(to, _mm512_mask_blend_epi16(0xaaaaaaaau, low, _mm512_castps_si512(odd)));
}

HD_INLINE void split_store_row(char *to, vec_t part)
{
    __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(part), 16);
    _mm256_storeu_si256((void *)to, _mm512_cvtepi32_epi16(bits));
}

HD_INLINE vec_t flash_relative(vec_t score, vec_t scale, vec_t low)
{
    return vec_sub(vec_mul(score, scale), low);
}

HD_INLINE void flash_exp2(vec_t *t, const int count)
{
    vec_exp2_all(t, count);
}

HD_INLINE void flash_store_weights(char *p, vec_t even, vec_t odd)
{
    vec_t high[2], low[2];
    flash_split(even, &high[0], &low[0]);
    flash_split(odd, &high[1], &low[1]);
    split_store(p, high[0], high[1]);
    split_store(p + SPLIT_WEIGHTS, low[0], low[1]);
}

/* Halves of pairs, as f32. */
HD_INLINE vec_t split_half(const char *pairs, int element)
{
    __m512i both = _mm512_loadu_si512(pairs);
    __m512i bits = element ? _mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000))
                           : _mm512_slli_epi32(both, 16);
    return _mm512_castsi512_ps(bits);
}

HD_INLINE vec_t flash_load_weight(const char *p, int element)
{
    return vec_add(split_half(p, element), split_half(p + SPLIT_WEIGHTS, element));
}

HD_INLINE float split_number(const char *high, const char *low)
{
    uint16_t bits[2];
    memcpy(&bits[0], high, 2);
    memcpy(&bits[1], low, 2);
    return hd_bf16_to_f32(bits[0]) + hd_bf16_to_f32(bits[1]);
}

HD_INLINE vec_t flash_load_value(const char *v, int element)
{
    return vec_set1(split_number(v + element * 2, v + element * 2 + SPLIT_VALUES));
}

/* The scores are scaled by the size of the scale; its sign goes to the queries. */
HD_INLINE vec_t flash_sign(vec_t cells, bool negative)
{
    __m512i flip = _mm512_set1_epi32(negative ? (int)0x80008000 : 0);
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(cells), flip));
}

#endif
