/* The frame of the emulator's own tests: expectations, random data, launching with a seed. */
#ifndef HEED_EMU_TEST_H
#define HEED_EMU_TEST_H

#include "../../../src/cuda/ptx.cuh"
#include "../../../src/cuda/simt.cuh"

#include <stdio.h>
#include <stdlib.h>

static int test_failures;

/* One line for each expectation that does not hold, with what the emulator said. */
static inline void expect(bool good, const char *what)
{
    if (good)
        return;
    test_failures++;
    printf("FAIL %s\n", what);
    for (int i = 0; emu::message(i); i++)
        printf("    %s\n", emu::message(i));
}

static inline int test_end(const char *name)
{
    printf("%s: %s\n", name, test_failures ? "FAILED" : "passed");
    return test_failures != 0;
}

static inline void use_seed(uint64_t seed, int resident)
{
    emu::config config;
    config.seed = seed;
    config.resident = resident;
    emu::set_config(config);
}

/* Runs on a few schedules: every one must be without a message, or every one must have this one. */
template <class Params>
static void run_kernel(const char *what, const char *message, void (*kernel)(Params), dim3 grid,
                       dim3 block, size_t shared_bytes, Params params)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        use_seed(seed, (int)seed);
        emu::result result = emu_launch(kernel, grid, block, shared_bytes, NULL, params);
        expect(message ? emu::said(message) : result.ok(), what);
    }
    emu::take_failed();
}

/* Global memory of `count` elements. */
template <class T> static T *array(size_t count)
{
    T *at = (T *)emu::global(count * sizeof(T));
    memset((void *)at, 0, count * sizeof(T));
    return at;
}

static inline float random_unit()
{
    static uint32_t state = 12345;
    state = state * 1664525 + 1013904223;
    return (float)(int)(state >> 8) / 8388608.0f - 1;
}

#endif
