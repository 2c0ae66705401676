/* What a checker is asked to do, and the command line that asks. */
#ifndef KIT_LOOP_OPTIONS_H
#define KIT_LOOP_OPTIONS_H

#include "kit.h"

typedef struct kit_loop {
    const char *program;
    const char *impl, *op, *problem;
    uint64_t seed;
    kit_values_t values;
    bool seed_given, values_given;
    double seconds;
    int64_t count;
    int threads;          /* 0: 1, 2 and 3 in turn */
    heed_device_t device; /* of implementations that are wanted; type 0: any */
    const char *skip;     /* problems whose text matches are left out; NULL: none */
    double flops;         /* larger problems are left out; 0: none */
    bool verbose;
    const heed_impl_t *const *extra;
    bool failed;
} kit_loop_t;

/* False: complained about, exit with 2. */
bool kit_loop_options(int argc, char **argv, kit_loop_t *loop);

#endif
