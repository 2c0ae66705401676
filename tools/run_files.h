/* The files that every `heed run` has: input, output, and results known before. */
#ifndef TOOLS_RUN_FILES_H
#define TOOLS_RUN_FILES_H

#include <argp.h>
#include <stdbool.h>

typedef struct run_files {
    const char *input, *output, *golden; /* NULL: not given */
    double tolerance;                    /* negative: none */
    bool golden_suffices;                /* without an output; set before parsing */
} run_files_t;

/* A child for argp; its input is a run_files_t. */
extern const struct argp run_files_argp;

#endif
