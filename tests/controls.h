/* Checks that are checked: a program that is given "controls" runs each of its checks with a fault
 * that it must find: itself again, as CHECK FAULT. The faults are in what the tests see, not in the
 * library. */
#ifndef TESTS_CONTROLS_H
#define TESTS_CONTROLS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

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
    FAULT_SCALE,     /* a scale one bit off */
    FAULT_WINDOW,    /* the window forgets its newest amax */
    FAULT_IDLE,      /* idle steps are not left out */
    FAULT_MARGIN,    /* there is no relative margin */
    FAULT_OPTIONS,   /* options are not looked at */
    FAULT_METADATA,  /* another word in the metadata */
    FAULT_LEAVES,    /* what failed leaves a file */
};
static int fault;

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
