/* `heed explain --ranks`: its options, and what it prints. */
#ifndef TOOLS_EXPLAIN_H
#define TOOLS_EXPLAIN_H

#include <heed/heed.h>

typedef struct explain_ranks {
    int ranks; /* 0: not asked for */
    int everywhere;
    heed_ring_layout_t layout;
    double rate, latency; /* GB/s, us */
} explain_ranks_t;

/* Prints the table; attention is the problem's descriptor. Returns the command's status. */
int explain_ranks(heed_context_t *context, const heed_problem_t *problem, const void *attention,
                  const explain_ranks_t *options);

#endif
