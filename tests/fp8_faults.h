/* What the FP8 tests share: formats, encoding and decoding, and ways to break them. */
#ifndef TESTS_FP8_FAULTS_H
#define TESTS_FP8_FAULTS_H

#include "expect.h"

#include "casting.h"
#include "controls.h"

#include <fenv.h>

static const struct {
    const char *name;
    heed_dtype_t dtype;
} formats[] = {{"e4m3fn", HEED_E4M3},
               {"e5m2", HEED_E5M2},
               {"e4m3fnuz", HEED_E4M3FNUZ},
               {"e5m2fnuz", HEED_E5M2FNUZ},
               {"e4m3_ieee", HEED_E4M3IEEE}};

static inline uint8_t encode(heed_dtype_t dtype, uint32_t bits, hd_fp8_rule_t rule)
{
    if (fault == FAULT_DOWN)
        rule.rounding = HEED_ROUND_ZERO;
    if (fault == FAULT_OVERFLOW)
        rule.overflow = HEED_OVERFLOW_SATURATE;
    if (fault == FAULT_NAN)
        rule.nan = (rule.nan + 1) % 3;
    return (uint8_t)hd_cast_round(dtype, bits, rule, 0);
}

static inline uint32_t decode(heed_dtype_t dtype, int code)
{
    uint32_t word = (uint32_t)code, bits = hd_cast_load(dtype, (const char *)&word);
    return fault == FAULT_SUBNORMAL && (code & 0x7f) == 1 ? 0 : bits;
}

static inline uint32_t random_word(uint64_t seed, uint64_t index)
{
    return fault == FAULT_RANDOM ? hd_fp8_random(seed, index) >> 16 : hd_fp8_random(seed, index);
}

/* Inputs of 16 bits as f32. */
static inline uint32_t widen(heed_dtype_t dtype, int bits)
{
    uint32_t word = (uint32_t)bits;
    return hd_cast_load(dtype, (const char *)&word);
}

#endif
