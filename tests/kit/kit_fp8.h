/* FP8 for the kit, in doubles and by search: shares nothing with the library's integers. */
#ifndef KIT_FP8_H
#define KIT_FP8_H

#include <heed/heed.h>

#include <stdbool.h>
#include <string.h>

/* The bits of an f32 number, and back. */
static inline uint32_t kit_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float kit_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* Value of a code; NaN and infinities as doubles. f32, bf16, f16 are not known here. */
double kit_fp8_value(heed_dtype_t dtype, uint8_t code);

/* Magnitude code of the largest finite number. */
uint8_t kit_fp8_largest(heed_dtype_t dtype);

/* The code of an f32 number. rules: overflow, nan, rounding of the descriptor; random: the
 * element's 32 bits. */
uint8_t kit_fp8_round(const heed_cast_desc_t *rules, heed_dtype_t dtype, float value,
                      uint32_t random);

/* Word index % 4 of Philox4x32-10 with counter {index / 4, 0} and key seed. */
uint32_t kit_philox(uint64_t seed, uint64_t index);

#endif
