#include "kit_fp8.h"

#include <math.h>

/* ---- values ---------------------------------------------------------------------------------- */

static bool is_fnuz(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3FNUZ || dtype == HEED_E5M2FNUZ;
}

static int fraction_bits(heed_dtype_t dtype)
{
    return dtype == HEED_E5M2 || dtype == HEED_E5M2FNUZ ? 2 : 3;
}

static int bias(heed_dtype_t dtype)
{
    return (fraction_bits(dtype) == 2 ? 15 : 7) + is_fnuz(dtype);
}

/* As if all codes were finite. */
static double plain_value(heed_dtype_t dtype, int magnitude)
{
    int bits = fraction_bits(dtype), exponent = magnitude >> bits;
    int fraction = magnitude & ((1 << bits) - 1);
    return exponent ? ldexp((1 << bits) + fraction, exponent - bias(dtype) - bits)
                    : ldexp(fraction, 1 - bias(dtype) - bits);
}

uint8_t kit_fp8_largest(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3       ? 0x7e
           : dtype == HEED_E5M2     ? 0x7b
           : dtype == HEED_E4M3IEEE ? 0x77
           : dtype == HEED_E8M0     ? 0xfe
                                    : 0x7f;
}

double kit_fp8_value(heed_dtype_t dtype, uint8_t code)
{
    if (dtype == HEED_E8M0)
        return code == 0xff ? NAN : ldexp(1, code - 127);
    int magnitude = code & 0x7f, largest = kit_fp8_largest(dtype);
    double sign = code & 0x80 ? -1 : 1;
    if (is_fnuz(dtype) && code == 0x80)
        return copysign(NAN, -1);
    if (magnitude <= largest)
        return sign * plain_value(dtype, magnitude);
    bool infinite = dtype != HEED_E4M3 && magnitude == largest + 1;
    return copysign(infinite ? INFINITY : NAN, sign);
}

/* ---- rounding -------------------------------------------------------------------------------- */

/* The code at or below `value`, as if exponents had no end. */
static int floor_code(heed_dtype_t dtype, double value)
{
    int low = 0, high = 1 << 14;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (plain_value(dtype, middle) <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int round_magnitude(heed_dtype_t dtype, int rounding, double value, uint32_t random)
{
    int code = floor_code(dtype, value);
    double low = plain_value(dtype, code), high = plain_value(dtype, code + 1);
    double part = (value - low) / (high - low);
    if (rounding == HEED_ROUND_ZERO)
        return code;
    if (rounding == HEED_ROUND_STOCHASTIC)
        return code + (floor(part * 0x1p31) + random / 2 >= 0x1p31);
    return code + (part > 0.5 || (part == 0.5 && code % 2));
}

static uint8_t round_e8m0(const heed_cast_desc_t *rules, float value)
{
    double x = fabs((double)value);
    if (isnan(value) || (rules->nan == HEED_NAN_QUIET && (signbit(value) || x == 0)))
        return 0xff;
    if (isinf(value))
        return rules->overflow == HEED_OVERFLOW_SATURATE ? 0xfe : 0xff;
    int exponent = -127;
    while (exponent < 128 && ldexp(1, exponent + 1) <= x)
        exponent++;
    double low = ldexp(1, exponent);
    bool up = rules->rounding == HEED_ROUND_UP ? x > low
              : rules->rounding == HEED_ROUND_NEAREST
                  ? (exponent == -127 ? x > low : x >= 1.5 * low)
                  : false;
    int code = exponent + 127 + up;
    return (uint8_t)(code == 255 && rules->overflow != HEED_OVERFLOW_NOSAT ? 254 : code);
}

uint8_t kit_fp8_round(const heed_cast_desc_t *rules, heed_dtype_t dtype, float value,
                      uint32_t random)
{
    if (dtype == HEED_E8M0)
        return round_e8m0(rules, value);
    int sign = signbit(value) ? 0x80 : 0, largest = kit_fp8_largest(dtype);
    bool finite_only = dtype == HEED_E4M3 || is_fnuz(dtype);
    int nan = is_fnuz(dtype) ? 0x80 : 0x7f;
    if (isnan(value)) {
        if (is_fnuz(dtype) || rules->nan == HEED_NAN_POSITIVE)
            return (uint8_t)nan;
        if (rules->nan == HEED_NAN_QUIET && dtype != HEED_E4M3)
            nan = dtype == HEED_E5M2 ? 0x7e : 0x7c;
        return (uint8_t)(nan | sign);
    }
    bool saturate = isinf(value) ? rules->overflow == HEED_OVERFLOW_SATURATE
                                 : rules->overflow != HEED_OVERFLOW_NOSAT;
    int code = isinf(value) ? largest + 1
                            : round_magnitude(dtype, rules->rounding, fabs((double)value), random);
    if (code > largest)
        code = saturate ? largest : finite_only ? nan : largest + 1;
    return (uint8_t)(is_fnuz(dtype) && (code == 0 || code == 0x80) ? code : code | sign);
}

/* ---- random numbers -------------------------------------------------------------------------- */

uint32_t kit_philox(uint64_t seed, uint64_t index)
{
    uint32_t c[4] = {(uint32_t)(index >> 2), (uint32_t)(index >> 34), 0, 0};
    uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int i = 0; i < 10; i++) {
        uint64_t p = c[0] * UINT64_C(0xD2511F53), q = c[2] * UINT64_C(0xCD9E8D57);
        uint32_t next[4] = {(uint32_t)(q >> 32) ^ c[1] ^ k[0], (uint32_t)q,
                            (uint32_t)(p >> 32) ^ c[3] ^ k[1], (uint32_t)p};
        for (int j = 0; j < 4; j++)
            c[j] = next[j];
        k[0] += UINT32_C(0x9E3779B9);
        k[1] += UINT32_C(0xBB67AE85);
    }
    return c[index & 3];
}
