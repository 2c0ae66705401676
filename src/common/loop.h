/* A loop over independent items by a team: what src/common asks of src/cpu/parallel.h. */
#ifndef HD_LOOP_H
#define HD_LOOP_H

#include <stdint.h>

/* Runs item(arg, worker, i) for i = 0 .. count-1, each once, in any order; worker is 0 .. threads-1
 * and no two calls at a time share one. */
typedef void (*hd_loop_fn)(void *arg, int worker, int64_t i);
void hd_loop(int threads, int64_t count, hd_loop_fn item, void *arg);

#endif
