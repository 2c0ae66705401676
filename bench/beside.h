/* Attention by other means beside plain attention: heed bench sparse, heed bench ring. */
#ifndef BENCH_BESIDE_H
#define BENCH_BESIDE_H

#include "bench.h"

/* Times run->options->beside on one problem with all contenders and appends to the results: plain
 * attention first, the others with their part of its time. */
void bench_beside(bench_run_t *run, const bench_problem_t *item);

/* The table of what stands beside what. */
void bench_beside_report(const bench_run_t *run, FILE *to);

#endif
