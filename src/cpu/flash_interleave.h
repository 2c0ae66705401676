/* Two rows of bf16 values -> one row of pairs, for the bf16 dot product over keys. */
#ifndef HD_FLASH_INTERLEAVE_H
#define HD_FLASH_INTERLEAVE_H

#include "vec_avx512.h"

/* n elements `elem` bytes apart; odd NULL: zeros. */
HD_INLINE void flash_interleave(const char *even, const char *odd, int64_t elem, int n, char *to)
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    int c = 0;
    if (elem == 2 && odd) {
        for (; c + 32 <= n; c += 32) {
            __m512i a = _mm512_loadu_si512(even + c * 2), b = _mm512_loadu_si512(odd + c * 2);
            _mm512_storeu_si512(to + c * 4, _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(to + c * 4 + 64, _mm512_permutex2var_epi16(a, high, b));
        }
    }
    for (; c < n; c++) {
        memcpy(to + c * 4, even + c * elem, 2);
        memset(to + c * 4 + 2, 0, 2);
        if (odd)
            memcpy(to + c * 4 + 2, odd + c * elem, 2);
    }
}

#endif
