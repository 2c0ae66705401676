/* E8M0 at every mantissa: codes of single numbers in each rounding, and the scales of MX groups,
 * both against comparisons in float64, where all of these numbers and their halves are exact. */
#define _GNU_SOURCE
#include "expect.h"

#include "casting.h"
#include "controls.h"
#include "environment.h"

#include <math.h>

enum { MANTISSAS = 1 << 23 };

static double value(uint32_t bits)
{
    return (double)hd_from_bits(bits);
}

static double powers[256]; /* 2^(code - 127) */

static int make_powers(void **state)
{
    (void)state;
    for (int code = 0; code < 256; code++)
        powers[code] = ldexp(1, code - 127);
    return 0;
}

static uint8_t encode(uint32_t bits, int rounding)
{
    const hd_fp8_rule_t rule = {HEED_OVERFLOW_SATURATE, HEED_NAN_POSITIVE,
                                fault == FAULT_DOWN ? HEED_ROUND_ZERO : rounding};
    return hd_e8m0_encode(bits, rule);
}

static uint8_t scale_of(uint32_t amax, uint32_t largest)
{
    uint8_t code = hd_mx_code(amax, largest);
    return fault == FAULT_SCALE && (amax & 0x7fffff) == 0x600000 ? code + 1 : code;
}

/* Between two powers of two: the lower one, the upper one, or the nearer one, and of two as near
 * the upper one. Below 2^-127 all is that, and what lies up to the next power goes to it to
 * nearest. */
static int expected(double x, int rounding)
{
    int lower = ilogb(x) + 127;
    lower = lower < 0 ? 0 : lower;
    if (x <= powers[0] || lower == 254)
        return lower;
    double middle = lower == 0 ? powers[0] : (powers[lower] + powers[lower + 1]) / 2;
    bool up = rounding == HEED_ROUND_NEAREST ? lower == 0 || x >= middle : x > powers[lower];
    return lower + (rounding != HEED_ROUND_ZERO && up);
}

static void every_mantissa(void **state)
{
    static const int roundings[] = {HEED_ROUND_NEAREST, HEED_ROUND_ZERO, HEED_ROUND_UP};
    static const uint32_t exponents[] = {0, 1, 127, 253};
    (void)state;
    for (size_t r = 0; r < COUNT(roundings); r++)
        for (size_t e = 0; e < COUNT(exponents); e++)
            for (uint32_t mantissa = 0; mantissa < MANTISSAS; mantissa += e == 2 ? 1 : 61) {
                uint32_t bits = exponents[e] << 23 | mantissa;
                if (bits && encode(bits, roundings[r]) != expected(value(bits), roundings[r]))
                    fail_msg("0x%08x rounding %d: 0x%02x, should be 0x%02x", bits, roundings[r],
                             encode(bits, roundings[r]), expected(value(bits), roundings[r]));
            }
}

/* The least power of two that brings the amax within the format. */
static void scales_of_groups(void **state)
{
    static const heed_dtype_t dtypes[] = {HEED_E4M3, HEED_E5M2};
    static const uint32_t exponents[] = {0, 1, 127, 254};
    (void)state;
    for (size_t f = 0; f < COUNT(dtypes); f++)
        for (size_t e = 0; e < COUNT(exponents); e++)
            for (uint32_t mantissa = 0; mantissa < MANTISSAS; mantissa++) {
                uint32_t amax = exponents[e] << 23 | mantissa, largest = hd_largest_bits(dtypes[f]);
                int code = scale_of(amax, largest);
                bool enough = value(amax) <= value(largest) * powers[code];
                bool least = code == 0 || value(amax) > value(largest) * powers[code - 1];
                if (!enough || !least)
                    fail_msg("amax 0x%08x of %s: 0x%02x", amax, heed_dtype_name(dtypes[f]),
                             (unsigned)code);
            }
    assert_int_equal(scale_of(HD_F32_INF, hd_largest_bits(HEED_E4M3)), 0xff);
    assert_int_equal(scale_of(HD_F32_NAN, hd_largest_bits(HEED_E4M3)), 0xff);
}

/* Every code there and back, where subnormal numbers count as zero too: 0x00 is one. */
static void codes_in_all_environments(void **state)
{
    (void)state;
    for (int environment = 0; environment < ENVIRONMENTS; environment++)
        for (int code = 0; code < 255; code++) {
            fenv_t before;
            fegetenv(&before);
            set_environment(environment);
            uint32_t bits = hd_e8m0_decode((uint8_t)code);
            int back = encode(bits, HEED_ROUND_NEAREST);
            fesetenv(&before);
            if (fault == FAULT_SUBNORMAL && code == 0)
                bits = 0;
            assert_true(value(bits) == powers[code]);
            assert_int_equal(back, code);
        }
    assert_true(isnan(value(hd_e8m0_decode(0xff))));
}

static const control_t controls[] = {
    {"every_mantissa", FAULT_DOWN},
    {"scales_of_groups", FAULT_SCALE},
    {"codes_in_all_environments", FAULT_SUBNORMAL},
};

int main(int argc, char **argv)
{
    int status;
    if (use_arguments(argc, argv, controls, COUNT(controls), &status))
        return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mantissa),
        cmocka_unit_test(scales_of_groups),
        cmocka_unit_test(codes_in_all_environments),
    };
    return cmocka_run_group_tests(tests, make_powers, NULL);
}
