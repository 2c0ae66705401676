/* The checker's main loop: every implementation on the corners of its operation and on random
 * problems, until its share of the time is spent. */
#ifndef KIT_LOOP_H
#define KIT_LOOP_H

#include "kit.h"

/* Runs the checker with a command line and returns its exit status: 0 passed, 1 failed, 2 usage.
 * With `extra` (NULL at the end) those are registered and checked; with NULL, the library's own. */
int kit_loop_main(int argc, char **argv, const heed_impl_t *const *extra);

/* Whether the implementation may refuse the problem for its sizes or strides. (refusals.c) */
bool kit_may_refuse(const heed_impl_t *impl, const void *desc);
/* Whether no problem in words can be run by it. */
bool kit_needs_ranks(const heed_impl_t *impl);

#endif
