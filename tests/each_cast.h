/* Every implementation of casts on the CPU. */
#ifndef TESTS_EACH_CAST_H
#define TESTS_EACH_CAST_H

#include "expect.h"

#include <stdio.h>

/* Calls check for each cast implementation that this machine can run. */
static void for_each(void (*check)(heed_context_t *context))
{
    heed_context_t *all = expect_context(NULL);
    const heed_impl_t *impl;
    int checked = 0;
    for (int i = 0; (impl = heed_impl_at(all, i)); i++) {
        char only[128];
        if (strcmp(impl->op, "cast") != 0 || impl->device_type != HEED_DEVICE_CPU ||
            !heed_impl_usable(all, impl, NULL))
            continue;
        snprintf(only, sizeof(only), "cast=%s", impl->name);
        heed_context_t *context = expect_context(only);
        check(context);
        heed_context_destroy(context);
        checked++;
    }
    heed_context_destroy(all);
    assert_true(checked >= 2);
}

#endif
