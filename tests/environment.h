/* Floating-point environments that a caller may be in. */
#ifndef TESTS_ENVIRONMENT_H
#define TESTS_ENVIRONMENT_H

#include <fenv.h>

/* Mode number of all rounding modes with and without flushing, and the number of them. */
enum { ENVIRONMENTS = 8 };
static inline void set_environment(int mode)
{
    static const int roundings[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    fesetround(roundings[mode % 4]);
#if defined(__x86_64__)
    if (mode >= 4)
        __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);
#endif
}

#endif
