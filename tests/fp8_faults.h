/* What the FP8 tests share: formats, encoding and decoding, and ways to break them. A program that is
 * given "controls" runs each of its checks with a fault that it must find: itself again, as CHECK
 * FAULT. The faults are in what the tests see, not in the library. */
#ifndef TESTS_FP8_FAULTS_H
#define TESTS_FP8_FAULTS_H

#include "expect.h"

#include "casting.h"

#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *name;
    heed_dtype_t dtype;
} formats[] = {{"e4m3fn", HEED_E4M3},
               {"e5m2", HEED_E5M2},
               {"e4m3fnuz", HEED_E4M3FNUZ},
               {"e5m2fnuz", HEED_E5M2FNUZ},
               {"e4m3_ieee", HEED_E4M3IEEE}};

enum {
    FAULT_NONE,
    FAULT_DOWN,      /* rounds toward zero */
    FAULT_OVERFLOW,  /* the largest number instead of NaN or infinity */
    FAULT_NAN,       /* another NaN */
    FAULT_SUBNORMAL, /* codes of subnormal numbers are 0 */
    FAULT_RANDOM,    /* the words of the generator are turned around */
    FAULT_LAST,      /* the last element of a cast */
    FAULT_BEFORE,    /* the byte before its result is written */
    FAULT_MODE,      /* wrong where the caller does not round to nearest */
    FAULT_IN_PLACE,  /* wrong where source and result are one */
    FAULT_LARGE,     /* wrong in large results only */
    FAULT_ACCEPTS,   /* takes what must be refused */
    FAULT_COUNTS,    /* counts nothing */
};
static int fault;

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
static uint32_t widen(heed_dtype_t dtype, int bits)
{
    uint32_t word = (uint32_t)bits;
    return hd_cast_load(dtype, (const char *)&word);
}

/* A check, and a fault that it must find. */
typedef struct control {
    const char *check;
    int fault;
} control_t;

static inline int run_controls(const control_t *controls, size_t count)
{
    char program[512], command[1024];
    int missed = 0;
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[length > 0 ? length : 0] = 0;
    for (size_t i = 0; i < count; i++) {
        snprintf(command, sizeof(command), "'%s' %s %d >/dev/null 2>&1", program, controls[i].check,
                 controls[i].fault);
        if (system(command) != 0)
            continue;
        missed++;
        printf("%s does not find fault %d\n", controls[i].check, controls[i].fault);
    }
    printf("%zu faults, %d not found\n", count, missed);
    return missed != 0;
}

/* Reads "controls" or CHECK FAULT; true where the controls ran, with their exit status. */
static inline bool use_arguments(int argc, char **argv, const control_t *controls, size_t count,
                                 int *status)
{
    if (argc > 1 && strcmp(argv[1], "controls") == 0) {
        *status = run_controls(controls, count);
        return true;
    }
    if (argc > 2) {
        cmocka_set_test_filter(argv[1]);
        fault = atoi(argv[2]);
    }
    return false;
}

#endif
