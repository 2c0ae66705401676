/* Register tiles for AVX-512 with the bf16 dot product: flash_body.h and short_body.h say what each
 * means. */
#ifndef HD_TILES_AVX512BF16_H
#define HD_TILES_AVX512BF16_H

#include "vec_avx512.h"

#define FLASH_PAIRS   1
#define FLASH_TILE    4
#define FLASH_VECTORS 4
#define FLASH_KEYS    4
#define FLASH_COLUMNS 4
#define FLASH_NARROW  12

/* sum += a0 b0 + a1 b1 of the pairs in each lane. The instruction takes subnormal bf16 as zero. */
HD_INLINE vec_t flash_dot(vec_t sum, vec_t a, vec_t b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/* A raw score, scaled, less the reference. The product is rounded, as that of the maximum was: with
 * a fused multiply-subtract the largest of huge scores would lie far above its own rounded maximum.
 */
HD_INLINE vec_t flash_relative(vec_t score, vec_t scale, vec_t low)
{
    return vec_sub(vec_mul(score, scale), low);
}

HD_INLINE void flash_exp2(vec_t *t, const int count)
{
    vec_exp2_degree(t, count, 1);
}

/* The weights of two keys, as pairs. */
HD_INLINE void flash_store_weights(char *p, vec_t even, vec_t odd)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, both));
}

/* The scores are scaled by the size of the scale; its sign goes to the queries. */
HD_INLINE vec_t flash_sign(vec_t cells, bool negative)
{
    __m512i flip = _mm512_set1_epi32(negative ? (int)0x80008000 : 0);
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(cells), flip));
}

HD_INLINE vec_t flash_load_weight(const char *p, int element)
{
    __m512i pair = _mm512_loadu_si512(p);
    __m512i bits = element ? _mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000))
                           : _mm512_slli_epi32(pair, 16);
    return _mm512_castsi512_ps(bits);
}

HD_INLINE vec_t flash_load_value(const char *v, int element)
{
    uint16_t half;
    memcpy(&half, v + element * 2, sizeof(half));
    return vec_set1(hd_bf16_to_f32(half));
}

#include "flash_interleave.h"

#endif
