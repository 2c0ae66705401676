/* The random numbers of stochastic rounding, and that it is right on average. */
#define _GNU_SOURCE
#include "fp8_faults.h"

#include "kit_fp8.h"

#include <math.h>

/* The known answer of Salmon et al.'s own tests for counter 0 and key 0, and one with all bits. */
static void philox(void **state)
{
    const uint32_t zeros[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t ones[] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    uint32_t counter[] = {~0u, ~0u, ~0u, ~0u};
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(random_word(0, i), zeros[i]);
    hd_philox(counter, ~0u, ~0u);
    assert_memory_equal(counter, ones, sizeof(ones));
}

static void stochastic_means(void **state)
{
    enum { DRAWS = 40000 };
    static const float values[] = {1.01f,   1.0624f,  3.3e-3f, 5e-4f, 1e-5f, 440.f, 447.9f, -0.7f,
                                   -100.3f, 0x1p-10f, 2e-3f,   7e-4f, 1e-3f, 13.7f, 255.f,  9e-3f};
    const heed_dtype_t dtypes[] = {HEED_E4M3, HEED_E5M2};
    const hd_fp8_rule_t rule = {HEED_OVERFLOW_SATURATE, 0, HEED_ROUND_STOCHASTIC};
    (void)state;
    for (int f = 0; f < 2; f++)
        for (size_t v = 0; v < COUNT(values); v++) {
            hd_fp8_t format = hd_fp8_format(dtypes[f]);
            double sum = 0, squares = 0, value = (double)values[v];
            for (uint64_t i = 0; i < DRAWS; i++) {
                uint8_t code =
                    hd_fp8_encode(format, hd_to_bits(values[v]), rule, random_word(v, i));
                double got = kit_fp8_value(dtypes[f], code);
                sum += got;
                squares += (got - value) * (got - value);
            }
            double error = sqrt(squares / DRAWS / DRAWS); /* of the mean, from the spread */
            if (fabs(sum / DRAWS - value) > 5 * error)
                fail_msg("%s of %g: mean %g", heed_dtype_name(dtypes[f]), value, sum / DRAWS);
        }
    /* Exact values never move. */
    for (int code = 0; code < 0x7f; code++)
        for (uint64_t i = 0; i < 64; i++)
            assert_int_equal(hd_fp8_encode(hd_fp8_format(HEED_E4M3),
                                           hd_fp8_decode(hd_fp8_format(HEED_E4M3), (uint8_t)code),
                                           rule, hd_fp8_random(5, i)),
                             code);
}

static const control_t controls[] = {
    {"philox", FAULT_RANDOM},
    {"stochastic_means", FAULT_RANDOM},
};

int main(int argc, char **argv)
{
    int status;
    if (use_arguments(argc, argv, controls, COUNT(controls), &status))
        return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox),
        cmocka_unit_test(stochastic_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
