/* `heed run ring`: what its command line says. */
#ifndef TOOLS_RUN_RING_H
#define TOOLS_RUN_RING_H

#include "run_long.h"

typedef struct ring_options {
    int64_t window[2];
    int64_t rows[2]; /* queries from rows[0] up to rows[1], which is 0: all */
    int ranks;       /* 0: no ring, or one of processes */
    bool mpi;        /* ranks are processes */
    heed_context_parallel_method_t method;
    heed_ring_layout_t layout;
    bool has_layout;
    int chunk; /* 0: chosen */
    long_options_t all;
} ring_options_t;

/* Its input is a ring_options_t. */
extern const struct argp ring_argp;

/* Whether tokens are spread over ranks at all. */
static inline bool ring_has_ranks(const ring_options_t *options)
{
    return options->ranks || options->mpi;
}

#endif
