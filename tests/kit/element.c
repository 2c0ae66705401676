#include "kit.h"
#include "kit_fp8.h"

#include <math.h>
#include <string.h>

static double f16_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = exponent == 31  ? (fraction ? NAN : INFINITY)
                   : exponent == 0 ? fraction * 0x1p-24
                                   : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

/* The float towards zero, with its last bit set where that is not exact. Rounding the result once
 * more to a type with at least two bits less gives what rounding the double would have given. */
static float round_to_odd(double value)
{
    float near = (float)value;
    if ((double)near == value || isnan(value))
        return near;
    uint32_t bits = kit_bits(near);
    if (fabs((double)near) > fabs(value))
        bits--;
    return kit_float(bits | 1);
}

/* Rounds to nearest even at bit `shift`: a carry runs into the exponent as it should. */
static uint32_t round_bits(uint32_t bits, int shift)
{
    uint32_t half = (UINT32_C(1) << (shift - 1)) - 1;
    return (bits + half + (bits >> shift & 1)) >> shift;
}

static uint16_t bf16_bits(double value)
{
    uint32_t bits = kit_bits(round_to_odd(value));
    if (isnan(value))
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)round_bits(bits, 16);
}

static uint16_t f16_bits(double value)
{
    uint32_t bits = kit_bits(round_to_odd(value)), sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (isnan(value))
        return (uint16_t)(sign | 0x7e00);
    if (bits >= 0x47800000) /* 65536 and above */
        return (uint16_t)(sign | 0x7c00);
    if (bits >= 0x38800000) /* 2^-14: the smallest normal number */
        return (uint16_t)(sign | round_bits(bits - 0x38000000, 13));
    int shift = 126 - (int)(bits >> 23); /* subnormals count units of 2^-24 */
    if (shift > 25)
        return (uint16_t)sign;
    return (uint16_t)(sign | round_bits((bits & 0x7fffff) | 0x800000, shift));
}

/* What is larger than 448 after rounding is NaN, for there are no infinities. */
static uint8_t e4m3_bits(double value)
{
    uint32_t bits = kit_bits(round_to_odd(value)), sign = bits >> 24 & 0x80;
    bits &= 0x7fffffff;
    if (isnan(value) || bits >= 0x43f00000) /* 480 and above */
        return (uint8_t)(sign | 0x7f);
    if (bits >= 0x3c800000) /* 2^-6: the smallest normal number; 464 and above round to NaN */
        return (uint8_t)(sign | round_bits(bits - 0x3c000000, 20));
    int shift = 141 - (int)(bits >> 23);
    if (shift > 25)
        return (uint8_t)sign;
    return (uint8_t)(sign | round_bits((bits & 0x7fffff) | 0x800000, shift));
}

/* What is larger than 57344 after rounding is infinite. */
static uint8_t e5m2_bits(double value)
{
    uint32_t bits = kit_bits(round_to_odd(value)), sign = bits >> 24 & 0x80;
    bits &= 0x7fffffff;
    if (isnan(value))
        return (uint8_t)(sign | 0x7e);
    if (bits >= 0x47700000) /* 61440 and above */
        return (uint8_t)(sign | 0x7c);
    if (bits >= 0x38800000) /* 2^-14: the smallest normal number */
        return (uint8_t)(sign | round_bits(bits - 0x38000000, 21));
    int shift = 134 - (int)(bits >> 23); /* subnormals count units of 2^-16 */
    if (shift > 25)
        return (uint8_t)sign;
    return (uint8_t)(sign | round_bits((bits & 0x7fffff) | 0x800000, shift));
}

static int8_t i8_of(double value)
{
    return isnan(value) ? -128 : (int8_t)fmax(-128, fmin(127, nearbyint(value)));
}

double kit_load(heed_dtype_t dtype, const void *data, int64_t index)
{
    if (dtype == HEED_F64)
        return ((const double *)data)[index];
    if (dtype == HEED_I32)
        return ((const int32_t *)data)[index];
    if (dtype == HEED_I8)
        return ((const int8_t *)data)[index];
    if (dtype == HEED_BOOL)
        return ((const uint8_t *)data)[index] != 0;
    if (dtype == HEED_I64)
        return (double)((const int64_t *)data)[index];
    if (dtype == HEED_F32)
        return (double)((const float *)data)[index];
    if (heed_dtype_size(dtype) == 1)
        return kit_fp8_value(dtype, ((const uint8_t *)data)[index]);
    uint16_t bits = ((const uint16_t *)data)[index];
    return dtype == HEED_F16 ? f16_value(bits) : (double)kit_float((uint32_t)bits << 16);
}

void kit_store(heed_dtype_t dtype, void *data, int64_t index, double value)
{
    if (dtype == HEED_F32)
        ((float *)data)[index] = (float)value;
    else if (dtype == HEED_E4M3)
        ((uint8_t *)data)[index] = e4m3_bits(value);
    else if (dtype == HEED_E5M2)
        ((uint8_t *)data)[index] = e5m2_bits(value);
    else if (dtype == HEED_I8)
        ((int8_t *)data)[index] = i8_of(value);
    else if (dtype == HEED_I32)
        ((int32_t *)data)[index] = (int32_t)value;
    else if (dtype == HEED_BOOL)
        ((uint8_t *)data)[index] = value != 0;
    else
        ((uint16_t *)data)[index] = dtype == HEED_F16 ? f16_bits(value) : bf16_bits(value);
}

double kit_unit_roundoff(heed_dtype_t dtype)
{
    return dtype == HEED_F32    ? 0x1p-24
           : dtype == HEED_F16  ? 0x1p-11
           : dtype == HEED_BF16 ? 0x1p-8
                                : 0x1p-4;
}
