/* The command line of heed bench. */
#ifndef BENCH_ARGUMENTS_H
#define BENCH_ARGUMENTS_H

#include "bench.h"

#include <argp.h>

/* Its input is a bench_options_t with the defaults. It ends the program after a usage error. */
extern const struct argp bench_argp;

#endif
