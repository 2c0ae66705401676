/* The small attention of expect.h and a context, made anew for each test. */
#ifndef TESTS_SMALL_CONTEXT_H
#define TESTS_SMALL_CONTEXT_H

#include "expect.h"

static heed_context_t *context;
static small_t small;

static inline int set_up(void **state)
{
    (void)state;
    small_init(&small);
    context = expect_context(NULL);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    heed_context_destroy(context);
    return 0;
}

#endif
