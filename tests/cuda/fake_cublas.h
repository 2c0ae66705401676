/* A cuBLAS of the tests' own, loaded by src/cuda/cublas.c as it loads the real one: it computes on
 * the host, and refuses what the real one refuses or would answer with an allocation. */
#ifndef FAKE_CUBLAS_H
#define FAKE_CUBLAS_H

#include <stddef.h>

typedef struct fake_cublas {
    int create_status;  /* what making a handle gives */
    int created, gemms; /* calls that went well */
    const void *stream; /* of the latest product */
    const void *workspace;
    size_t workspace_bytes;
    int compute, algorithm; /* as the product was asked for */
} fake_cublas_t;

/* Exported as fake_cublas, for dlsym. */
#endif
