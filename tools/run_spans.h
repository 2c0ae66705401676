/* Long dilated attention by `heed run dilated`, in spans of tokens and with a progress bar. */
#ifndef TOOLS_RUN_SPANS_H
#define TOOLS_RUN_SPANS_H

#include "run.h"

/* Tokens of a span, 0 where the problem is short or does not divide. */
int64_t run_span(const run_t *run, heed_device_t device);

/* Instead of executing one plan for all. `at` are the operands' addresses. */
heed_status_t run_in_spans(heed_context_t *context, const run_t *run, int64_t span,
                           void *const *at);

#endif
