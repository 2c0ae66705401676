/* Weights of 32 keys for flash attention on the matrix unit: exponentials of S^T into pairs of P^T.
 *
 * The reference of a row moves only when weights become large: until then they are exponentials of
 * the scores as they come, and no maximum has to be known before, which saves the pass over them.
 * What counts is the sum of a row's weights over 32 keys: none can be above it.
 *
 * While a dot is under way only one of the two vector ports takes multiply-adds, conversions and
 * shifts; additions and permutations find the other one. So a weight is six instructions for the
 * first port and two and a half for the second. */
#ifndef HD_FLASH_AMX_SOFTMAX_H
#define HD_FLASH_AMX_SOFTMAX_H

#include "flash_softmax.h"

enum { AMX_WEIGHTS_MOST = 256 };

#if FLASH_PLANES > 1
#define AMX_EXP2                                                                                \
    {                                                                                           \
        0.00187757667f, 0.00898934009f, 0.0558263181f, 0.240153617f, 0.693153073f, 0.999999925f \
    }
#else
#define AMX_EXP2                                                \
    {                                                           \
        0.0780245227f, 0.226067155f, 0.695833541f, 0.999925219f \
    }
#endif

/* 2^t of `count` vectors: by the exponent of floor(t), and a polynomial in the rest, minimax on
 * [0, 1]: degree 3, 7.5e-5, where results are rounded to bf16, else degree 5, 7.5e-8. 2^-inf is 0,
 * NaN stays. */
HD_INLINE void amx_exp2(vec_t *t, const int count)
{
    static const float factor[] = AMX_EXP2;
    vec_t p[8];
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        vec_t f = _mm512_reduce_ps(t[i], 0x01 | 0x08); /* less its floor */
        p[i] = vec_set1(factor[0]);
        HD_UNROLL
        for (size_t k = 1; k < sizeof(factor) / sizeof(factor[0]); k++) {
            p[i] = vec_fma(p[i], f, vec_set1(factor[k]));
        }
    }
    HD_UNROLL
    for (int i = 0; i < count; i++) {
        t[i] = _mm512_scalef_ps(p[i], t[i]);
    }
}

#if FLASH_PLANES > 1
HD_INLINE void amx_store_pairs(char *p, vec_t even, vec_t odd)
{
    flash_store_weights(p, even, odd);
}
#else
/* Weights of two keys as pairs of bf16, halves rounded up: an addition each and a permutation,
 * where a conversion would take the port of the multiply-adds. A NaN here has zeros below. */
HD_INLINE void amx_store_pairs(char *p, vec_t even, vec_t odd)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    /* Word 2i + 1 to 2i. */
    const __m512i upper =
        _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    __m512i low = _mm512_add_epi32(_mm512_castps_si512(even), half);
    __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
    _mm512_storeu_si512(p, _mm512_mask_permutexvar_epi16(high, 0x55555555, upper, low));
}
#endif

HD_INLINE void amx_store_zeros(char *p)
{
    vec_store(p, vec_zero());
#if FLASH_PLANES > 1
    vec_store(p + SPLIT_WEIGHTS, vec_zero());
#endif
}

/* Weights of keys j .. j+3 for `vectors` vectors; hidden are those from `end` on, and by masks.
 * v_scale: factors of values, NULL: none. */
HD_INLINE void amx_weights_of(const int vectors, const bool exact, const float *s, char *p, int j,
                              int end, vec_t scale, const vec_t *low, vec_t *sum,
                              const uint64_t *masks, int shift, const float *v_scale)
{
    vec_t y[4 * FLASH_TILE];
    HD_UNROLL
    for (int e = 0; e < 4; e++) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_t *at = &y[e * vectors + r], x = vec_load(s + (j + e) * LANES + r * VEC_LANES);
            *at = exact ? vec_sub(vec_mul(x, scale), low[r]) : _mm512_fmsub_ps(x, scale, low[r]);
            if (masks || j + e >= end) {
                uint32_t bits = j + e >= end ? 0
                                : masks      ? (uint32_t)(masks[j + e] >> (shift + r * VEC_LANES))
                                             : 0xffff;
                *at = vec_select(bits, *at, vec_set1(-INFINITY));
            }
        }
    }
    amx_exp2(y, 4 * vectors);
    HD_UNROLL
    for (int e = 0; e < 4; e += 2) {
        HD_UNROLL
        for (int r = 0; r < vectors; r++) {
            vec_t even = y[e * vectors + r], odd = y[(e + 1) * vectors + r];
            sum[r] = vec_add(sum[r], vec_add(even, odd));
            if (v_scale) {
                even = vec_mul(even, vec_set1(v_scale[j + e]));
                odd = vec_mul(odd, vec_set1(v_scale[j + e + 1]));
            }
            amx_store_pairs(p + ((j + e) / 2 * LANES + r * VEC_LANES) * 4, even, odd);
        }
    }
}

#endif
