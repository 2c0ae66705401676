/* One element of any float dtype, in portable C, on any device. The vector files have their own for
 * whole rows. */
#ifndef HD_ELEMENT_H
#define HD_ELEMENT_H

#include "fp8.h"

#include <string.h>

HD_DEVICE static inline float hd_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

HD_DEVICE static inline uint32_t hd_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

HD_DEVICE static inline float hd_bf16_to_f32(uint16_t half)
{
    return hd_from_bits((uint32_t)half << 16);
}

/* Nearest even; NaN stays a quiet NaN with its sign. */
HD_DEVICE static inline uint16_t hd_f32_to_bf16(float value)
{
    uint32_t bits = hd_to_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

HD_DEVICE static inline float hd_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) /* infinity, NaN (made quiet) */
        return hd_from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13 |
                            (rest > 0x7c00 ? 0x400000 : 0));
    if (rest >= 0x400)
        return hd_from_bits(sign | ((rest << 13) + (112u << 23)));
    /* A subnormal is its fraction times 2^-24. */
    return hd_from_bits(sign | hd_to_bits((float)rest * 0x1p-24f));
}

/* Nearest even; overflow gives infinity. */
HD_DEVICE static inline uint16_t hd_f32_to_f16(float value)
{
    uint32_t bits = hd_to_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000) /* 65520 and up */
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) { /* below 2^-14, in integers: no caller's rounding mode gets in */
        const hd_fp8_t f16 = {10, 113, 0, 0, 0, 0, false};
        return (uint16_t)(sign | hd_fp8_magnitude(f16, rest, HEED_ROUND_NEAREST, 0));
    }
    return (uint16_t)(sign | (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
}

HD_DEVICE static inline float hd_e4m3_to_f32(uint8_t code)
{
    return hd_from_bits(hd_fp8_decode(hd_fp8_format(HEED_E4M3), code));
}

HD_DEVICE static inline float hd_element_load(heed_dtype_t dtype, const void *at)
{
    uint16_t half;
    float value;
    if (dtype == HEED_F32) {
        memcpy(&value, at, sizeof(value));
        return value;
    }
    if (dtype == HEED_E4M3)
        return hd_e4m3_to_f32(*(const uint8_t *)at);
    memcpy(&half, at, sizeof(half));
    return dtype == HEED_BF16 ? hd_bf16_to_f32(half) : hd_f16_to_f32(half);
}

/* Also of the types that only stored keys and values have. */
HD_DEVICE static inline float hd_code_load(heed_dtype_t dtype, const void *at)
{
    if (dtype == HEED_I8)
        return (float)*(const int8_t *)at;
    if (dtype == HEED_E5M2)
        return hd_from_bits(hd_fp8_decode(hd_fp8_format(HEED_E5M2), *(const uint8_t *)at));
    return hd_element_load(dtype, at);
}

HD_DEVICE static inline void hd_element_store(heed_dtype_t dtype, void *at, float value)
{
    if (dtype == HEED_F32) {
        memcpy(at, &value, sizeof(value));
        return;
    }
    uint16_t half = dtype == HEED_BF16 ? hd_f32_to_bf16(value) : hd_f32_to_f16(value);
    memcpy(at, &half, sizeof(half));
}

#endif
