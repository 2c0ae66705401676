/* A BLAS of the system, loaded when it is first asked for. */
#ifndef HD_BLAS_H
#define HD_BLAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* c [m,n] = a [m,k] b^T, b [n,k], rows lda, ldb and ldc numbers apart. */
typedef struct hd_gemm {
    int m, n, k;
    const float *a, *b;
    float *c;
    int lda, ldb, ldc;
} hd_gemm_t;

/* The library's name, NULL where there is none. */
const char *hd_blas_name(void);
void hd_blas_gemm(const hd_gemm_t *gemm);

#endif
