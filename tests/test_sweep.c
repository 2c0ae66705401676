/* All 2^32 f32 numbers to both first-class formats by every rule of overflow and NaN, through the
 * implementation that is chosen here, against the integer definition (src/common/fp8.h).
 *
 * The definition takes far longer than the cast. But it is monotone: within one sign, numbers whose
 * bits rise have codes that rise, by a rule up to infinity, and beyond it all are NaN of one code.
 * So where the first and the last of 4096 numbers that follow each other have one code, all have;
 * elsewhere, in the pieces with a threshold, each is computed. That the definition is monotone, its
 * arithmetic shows (a shift, an addition, a select above a bound), and test_fp8 holds it at every
 * code, every threshold and their neighbours against a model in doubles.
 *
 * Every rule is expected once and compared piece by piece, in two threads. Without an argument a
 * sample of the pieces: all that have a threshold, and every 997th; with "all", everything. Every
 * 64th piece of the sample, and those with a threshold, are cast in all rounding modes with
 * subnormal numbers flushed and not. */
#define _GNU_SOURCE
#include "expect.h"

#include "casting.h"
#include "controls.h"
#include "environment.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { PIECE = 1 << 16, PART = 4096, RULES = 3, THREADS = 2, PIECES = 1 << 16 };

static const heed_dtype_t dtypes[] = {HEED_E4M3, HEED_E5M2};
static bool everything;
static atomic_int next_piece, compared;

static uint8_t encode(heed_dtype_t dtype, uint32_t bits, int mode)
{
    hd_fp8_rule_t rule = {mode, mode, HEED_ROUND_NEAREST};
    if (fault == FAULT_DOWN)
        rule.rounding = HEED_ROUND_ZERO;
    if (fault == FAULT_OVERFLOW)
        rule.overflow = HEED_OVERFLOW_SATURATE;
    if (fault == FAULT_NAN)
        rule.nan = (rule.nan + 1) % 3;
    uint8_t code = hd_fp8_encode(hd_fp8_format(dtype), bits, rule, 0);
    return fault == FAULT_SUBNORMAL && (code & 0x7f) == 1 ? 0 : code;
}

/* The codes of a piece; true where there is more than one. */
static bool expected(heed_dtype_t dtype, int mode, uint32_t from, uint8_t *codes)
{
    bool mixed = false;
    for (uint32_t i = 0; i < PIECE; i += PART) {
        uint8_t first = encode(dtype, from + i, mode);
        memset(codes + i, first, PART);
        if (i > 0 && codes[i - 1] != first)
            mixed = true;
        if (encode(dtype, from + i + PART - 1, mode) == first)
            continue;
        mixed = true;
        for (uint32_t j = i; j < i + PART; j++)
            codes[j] = encode(dtype, from + j, mode);
    }
    return mixed;
}

typedef struct lane {
    pthread_t thread;
    heed_context_t *context;
    float source[PIECE];
    uint8_t got[PIECE], want[PIECE];
    uint32_t wrong; /* first number that differs */
    bool failed;
} lane_t;

static void cast(lane_t *lane, heed_dtype_t dtype, int mode)
{
    int64_t shape[] = {PIECE};
    heed_cast_desc_t desc = heed_cast_desc();
    desc.overflow = desc.nan = mode;
    desc.src = heed_tensor(lane->source, HEED_F32, 1, shape, NULL);
    desc.dst = heed_tensor(lane->got, dtype, 1, shape, NULL);
    lane->failed = heed_cast(lane->context, &desc) != HEED_OK;
    if (fault == FAULT_LAST)
        lane->got[PIECE - 1] ^= 1;
    if (fault == FAULT_MODE && fegetround() != FE_TONEAREST)
        lane->got[0] ^= 1;
}

static void compare(lane_t *lane, uint32_t from)
{
    lane->failed = lane->failed || memcmp(lane->got, lane->want, PIECE) != 0;
    for (uint32_t i = 0; lane->failed && i < PIECE; i++)
        if (lane->got[i] != lane->want[i]) {
            lane->wrong = from + i;
            break;
        }
    atomic_fetch_add(&compared, 1);
}

static void in_all_environments(lane_t *lane, uint32_t from, heed_dtype_t dtype, int mode)
{
    for (int environment = 1; !lane->failed && environment < ENVIRONMENTS; environment++) {
        fenv_t before;
        fegetenv(&before);
        set_environment(environment);
        cast(lane, dtype, mode);
        fesetenv(&before);
        compare(lane, from);
    }
}

static void sweep_piece(lane_t *lane, uint32_t piece)
{
    const uint32_t from = piece << 16;
    bool filled = false;
    for (int f = 0; f < 2; f++)
        for (int mode = 0; mode < RULES && !lane->failed; mode++) {
            bool mixed = expected(dtypes[f], mode, from, lane->want);
            if (!everything && !mixed && piece % 997)
                continue;
            for (uint32_t i = 0; !filled && i < PIECE; i++)
                ((uint32_t *)(void *)lane->source)[i] = from + i;
            filled = true;
            cast(lane, dtypes[f], mode);
            compare(lane, from);
            if (mixed || piece % 64 == 0)
                in_all_environments(lane, from, dtypes[f], mode);
        }
}

static void *sweep(void *arg)
{
    lane_t *lane = arg;
    int piece;
    while (!lane->failed && (piece = atomic_fetch_add(&next_piece, 1)) < PIECES)
        sweep_piece(lane, (uint32_t)piece);
    return NULL;
}

static void all_f32(void **state)
{
    heed_context_config_t config = heed_context_config();
    lane_t *lanes = calloc(THREADS, sizeof(*lanes));
    (void)state;
    assert_non_null(lanes);
    config.threads = 1;
    for (int i = 0; i < THREADS; i++) {
        expect_ok(heed_context_create(&config, &lanes[i].context));
        assert_int_equal(pthread_create(&lanes[i].thread, NULL, sweep, &lanes[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(lanes[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        if (lanes[i].failed)
            fail_msg("wrong from f32 0x%08x on, or not cast", lanes[i].wrong);
        heed_context_destroy(lanes[i].context);
    }
    assert_true(compared > 2000);
    print_message("%d pieces of 65536 numbers compared\n", compared);
    free(lanes);
}

static const control_t controls[] = {
    {"all_f32", FAULT_DOWN},      {"all_f32", FAULT_OVERFLOW}, {"all_f32", FAULT_NAN},
    {"all_f32", FAULT_SUBNORMAL}, {"all_f32", FAULT_LAST},     {"all_f32", FAULT_MODE},
};

int main(int argc, char **argv)
{
    int status;
    if (use_arguments(argc, argv, controls, COUNT(controls), &status))
        return status;
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_f32)};
    everything = argc == 2 && strcmp(argv[1], "all") == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
