/* The FP8 formats: one definition for the CPU, for CUDA, and for what checks them. Integers only,
 * so that neither the rounding mode nor flushing of subnormal numbers changes a bit.
 *
 * A number of a format is sign, exponent, fraction like one of f32; a format is told by the few
 * numbers of hd_fp8_t. A code's magnitude rises with its value, so that encoding is: shift the
 * significand to the quantum of the format, round, add the exponent; the carry of the rounding runs
 * where it should, from subnormal to normal and from one binade into the next. What comes out above
 * `largest` is beyond the format. E8M0 has neither sign nor fraction and goes its own way. */
#ifndef HD_FP8_H
#define HD_FP8_H

#include "base.h"

enum { HD_F32_INF = 0x7f800000, HD_F32_NAN = 0x7fc00000, HD_F32_MAGNITUDE = 0x7fffffff };

typedef struct hd_fp8 {
    uint8_t mantissa;   /* bits of the fraction */
    uint8_t emin;       /* of the smallest normal number, biased as in f32 */
    uint8_t largest;    /* code of the largest finite magnitude */
    uint8_t infinity;   /* its code, 0: none */
    uint8_t nan;        /* the NaN that CUDA and PyTorch write */
    uint8_t quiet_nan;  /* the NaN that ml_dtypes writes */
    bool unsigned_zero; /* fnuz: 0x80 is the NaN, and there is no -0 */
} hd_fp8_t;

/* mantissa 0: the dtype is no FP8 format with a sign. */
HD_DEVICE static inline hd_fp8_t hd_fp8_format(heed_dtype_t dtype)
{
    const hd_fp8_t e4m3 = {3, 121, 0x7e, 0, 0x7f, 0x7f, false};
    const hd_fp8_t e5m2 = {2, 113, 0x7b, 0x7c, 0x7f, 0x7e, false};
    const hd_fp8_t e4m3ieee = {3, 121, 0x77, 0x78, 0x7f, 0x7c, false};
    const hd_fp8_t e4m3fnuz = {3, 120, 0x7f, 0, 0x80, 0x80, true};
    const hd_fp8_t e5m2fnuz = {2, 112, 0x7f, 0, 0x80, 0x80, true};
    const hd_fp8_t none = {0, 0, 0, 0, 0, 0, false};
    return dtype == HEED_E4M3       ? e4m3
           : dtype == HEED_E5M2     ? e5m2
           : dtype == HEED_E4M3IEEE ? e4m3ieee
           : dtype == HEED_E4M3FNUZ ? e4m3fnuz
           : dtype == HEED_E5M2FNUZ ? e5m2fnuz
                                    : none;
}

/* ---- decoding: bits of the f32 number -------------------------------------------------------- */

HD_DEVICE static inline uint32_t hd_fp8_decode(hd_fp8_t format, uint8_t code)
{
    uint32_t sign = (uint32_t)(code & 0x80) << 24, magnitude = code & 0x7f;
    uint32_t fraction = magnitude & ((1u << format.mantissa) - 1);
    uint32_t exponent = magnitude >> format.mantissa;
    if (format.unsigned_zero ? code == 0x80 : magnitude > format.largest)
        return sign | (magnitude == format.infinity && format.infinity ? HD_F32_INF : HD_F32_NAN);
    if (exponent > 0)
        return sign | ((exponent + format.emin - 1) << 23 | fraction << (23 - format.mantissa));
    if (fraction == 0)
        return sign;
    /* Subnormal: the highest set bit becomes the hidden one. */
    uint32_t lead = fraction >= 4 ? 2 : fraction >= 2 ? 1 : 0;
    uint32_t below = fraction - (1u << lead);
    return sign | (format.emin - format.mantissa + lead) << 23 | below << (23 - lead);
}

/* 2^(code - 127), a subnormal number for code 0. */
HD_DEVICE static inline uint32_t hd_e8m0_decode(uint8_t code)
{
    return code == 0xff ? (uint32_t)HD_F32_NAN : code == 0 ? 0x00400000u : (uint32_t)code << 23;
}

/* ---- rounding -------------------------------------------------------------------------------- */

/* significand / 2^shift as `rounding` says. Stochastic: up with the probability of the fraction cut
 * off, for uniform `random`; exact values stay. */
HD_DEVICE static inline uint32_t hd_fp8_round(uint32_t significand, uint32_t shift, int rounding,
                                              uint32_t random)
{
    uint32_t half = 1u << (shift - 1);
    if (rounding == HEED_ROUND_STOCHASTIC)
        return (significand + (random >> (32 - shift))) >> shift;
    if (rounding == HEED_ROUND_ZERO)
        return significand >> shift;
    return (significand + half - 1 + (significand >> shift & 1)) >> shift;
}

/* Magnitude code of the finite f32 magnitude `bits`; above largest where it lies beyond. */
HD_DEVICE static inline uint32_t hd_fp8_magnitude(hd_fp8_t format, uint32_t bits, int rounding,
                                                  uint32_t random)
{
    enum { ALL_CUT = 31 }; /* of a significand of 24 bits: less than half a quantum is left */
    uint32_t exponent = bits >> 23, significand = bits & 0x7fffff;
    if (exponent > 0)
        significand |= 0x800000;
    else
        exponent = 1;
    uint32_t below = exponent < format.emin ? format.emin - exponent : 0;
    uint32_t shift = 23u - format.mantissa + below;
    if (shift > ALL_CUT) {
        significand = shift - ALL_CUT < 24 ? significand >> (shift - ALL_CUT) : 0;
        shift = ALL_CUT;
    }
    uint32_t above = exponent > format.emin ? exponent - format.emin : 0;
    return hd_fp8_round(significand, shift, rounding, random) + (above << format.mantissa);
}

/* ---- encoding -------------------------------------------------------------------------------- */

typedef struct hd_fp8_rule {
    int overflow, nan, rounding; /* HEED_OVERFLOW_*, HEED_NAN_*, HEED_ROUND_* */
} hd_fp8_rule_t;

HD_DEVICE static inline uint8_t hd_fp8_nan(hd_fp8_t format, uint32_t sign, int nan)
{
    if (format.unsigned_zero || nan == HEED_NAN_POSITIVE)
        return format.nan;
    return (uint8_t)((nan == HEED_NAN_QUIET ? format.quiet_nan : format.nan) | sign);
}

/* What a number beyond the format becomes. */
HD_DEVICE static inline uint8_t hd_fp8_beyond(hd_fp8_t format, uint32_t sign, bool saturate)
{
    if (saturate)
        return (uint8_t)(format.largest | sign);
    if (format.infinity)
        return (uint8_t)(format.infinity | sign);
    return format.unsigned_zero ? format.nan : (uint8_t)(format.nan | sign);
}

/* The code of the f32 number `bits`. `random` is read by stochastic rounding alone. */
HD_DEVICE static inline uint8_t hd_fp8_encode(hd_fp8_t format, uint32_t bits, hd_fp8_rule_t rule,
                                              uint32_t random)
{
    uint32_t sign = bits >> 24 & 0x80, rest = bits & HD_F32_MAGNITUDE;
    if (rest > HD_F32_INF)
        return hd_fp8_nan(format, sign, rule.nan);
    if (rest == HD_F32_INF)
        return hd_fp8_beyond(format, sign, rule.overflow == HEED_OVERFLOW_SATURATE);
    uint32_t magnitude = hd_fp8_magnitude(format, rest, rule.rounding, random);
    if (magnitude > format.largest)
        return hd_fp8_beyond(format, sign, rule.overflow != HEED_OVERFLOW_NOSAT);
    return (uint8_t)(magnitude | (format.unsigned_zero && magnitude == 0 ? 0 : sign));
}

/* The code of a positive number. To nearest: a tie goes up, and so does all between 2^-127 and
 * 2^-126, as ml_dtypes, PyTorch and ONNX have it. The sign is dropped and 0 becomes 0x00, the
 * smallest; with HEED_NAN_QUIET negative numbers and 0 are NaN. Infinity is 0xfe where all
 * saturates. */
HD_DEVICE static inline uint8_t hd_e8m0_encode(uint32_t bits, hd_fp8_rule_t rule)
{
    uint32_t rest = bits & HD_F32_MAGNITUDE;
    if (rest > HD_F32_INF || (rule.nan == HEED_NAN_QUIET && (rest != bits || rest == 0)))
        return 0xff;
    if (rest == HD_F32_INF)
        return rule.overflow == HEED_OVERFLOW_SATURATE ? 0xfe : 0xff;
    uint32_t code = rest >> 23, fraction = rest & 0x7fffff;
    if (rule.rounding == HEED_ROUND_UP || (rule.rounding == HEED_ROUND_NEAREST && code == 0))
        code += code == 0 ? fraction > 0x400000 : fraction != 0;
    else if (rule.rounding == HEED_ROUND_NEAREST)
        code += fraction >> 22;
    return (uint8_t)(code == 0xff && rule.overflow != HEED_OVERFLOW_NOSAT ? 0xfe : code);
}

/* ---- random numbers -------------------------------------------------------------------------- */

/* Philox4x32-10 (Salmon et al., 2011): four words from a counter of four and a key of two. */
HD_DEVICE static inline void hd_philox(uint32_t counter[4], uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * counter[0], b = (uint64_t)0xcd9e8d57u * counter[2];
        counter[0] = (uint32_t)(b >> 32) ^ counter[1] ^ key0;
        counter[1] = (uint32_t)b;
        counter[2] = (uint32_t)(a >> 32) ^ counter[3] ^ key1;
        counter[3] = (uint32_t)a;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
}

/* The block that element `index` has its word from: counter {index / 4, 0}, key `seed`. */
HD_DEVICE static inline void hd_fp8_random_block(uint64_t seed, uint64_t index, uint32_t block[4])
{
    block[0] = (uint32_t)(index / 4);
    block[1] = (uint32_t)(index / 4 >> 32);
    block[2] = block[3] = 0;
    hd_philox(block, (uint32_t)seed, (uint32_t)(seed >> 32));
}

/* The 32 random bits of element `index`, counted in the order of the axes: word index % 4 of its
 * block. */
HD_DEVICE static inline uint32_t hd_fp8_random(uint64_t seed, uint64_t index)
{
    uint32_t block[4];
    hd_fp8_random_block(seed, index, block);
    return block[index % 4];
}

#endif
