/* f32 products and quotients in integers: rounded to nearest even, subnormal numbers included, the
 * same on every device and in every floating-point environment. For scales, of which there are few,
 * and for the reference. */
#ifndef HD_EXACT_H
#define HD_EXACT_H

#include "fp8.h"

/* Position of the highest set bit; bits != 0. */
HD_DEVICE static inline int hd_top_bit(uint64_t bits)
{
    int top = 0;
    for (int step = 32; step > 0; step /= 2)
        if (bits >> step) {
            bits >>= step;
            top += step;
        }
    return top;
}

/* The bits of significand * 2^exponent with a sign, significand < 2^62. A lowest bit that is set
 * may stand for any remainder below it. */
HD_DEVICE static inline uint32_t hd_exact_round(uint32_t sign, int exponent, uint64_t significand)
{
    if (significand == 0)
        return sign;
    int top = hd_top_bit(significand) + exponent; /* 2^top is its binade */
    int quantum = top < -126 ? -149 : top - 23, shift = quantum - exponent;
    if (top > 127)
        return sign | HD_F32_INF;
    if (shift > 62)
        return sign;
    if (shift <= 0)
        significand <<= -shift;
    else
        significand =
            (significand + ((uint64_t)1 << (shift - 1)) - 1 + (significand >> shift & 1)) >> shift;
    /* The hidden bit adds one to the exponent of normal numbers, and so does a carry. */
    uint32_t binade = top < -126 ? 0 : (uint32_t)(top + 126) << 23;
    return sign | (binade + (uint32_t)significand);
}

/* magnitude = significand * 2^exponent. */
HD_DEVICE static inline uint32_t hd_exact_split(uint32_t magnitude, int *exponent)
{
    uint32_t biased = magnitude >> 23, fraction = magnitude & 0x7fffff;
    *exponent = (biased ? (int)biased : 1) - 150;
    return biased ? fraction | 0x800000 : fraction;
}

HD_DEVICE static inline uint32_t hd_exact_multiply(uint32_t a, uint32_t b)
{
    uint32_t sign = (a ^ b) & 0x80000000, x = a & HD_F32_MAGNITUDE, y = b & HD_F32_MAGNITUDE;
    int i, j;
    if (x > HD_F32_INF || y > HD_F32_INF)
        return HD_F32_NAN;
    if (x == HD_F32_INF || y == HD_F32_INF)
        return x == 0 || y == 0 ? (uint32_t)HD_F32_NAN : sign | HD_F32_INF;
    uint64_t product = (uint64_t)hd_exact_split(x, &i) * hd_exact_split(y, &j);
    return hd_exact_round(sign, i + j, product);
}

HD_DEVICE static inline uint32_t hd_exact_divide(uint32_t a, uint32_t b)
{
    uint32_t sign = (a ^ b) & 0x80000000, x = a & HD_F32_MAGNITUDE, y = b & HD_F32_MAGNITUDE;
    int i, j;
    if (x > HD_F32_INF || y > HD_F32_INF || (x == y && (x == 0 || x == HD_F32_INF)))
        return HD_F32_NAN;
    if (x == 0 || y == HD_F32_INF)
        return sign;
    if (y == 0 || x == HD_F32_INF)
        return sign | HD_F32_INF;
    uint64_t p = hd_exact_split(x, &i), q = hd_exact_split(y, &j);
    int up = 60 - hd_top_bit(p); /* then the quotient has 37 bits or more */
    p <<= up;
    return hd_exact_round(sign, i - j - up - 1, p / q << 1 | (p % q != 0));
}

/* How a source element meets its multiplier: a NaN keeps its sign and
 * is made quiet, all other NaNs are positive. */
HD_DEVICE static inline uint32_t hd_exact_scale(uint32_t bits, uint32_t multiplier)
{
    if ((bits & HD_F32_MAGNITUDE) > HD_F32_INF)
        return bits | 0x400000;
    return hd_exact_multiply(bits, multiplier);
}

#endif
