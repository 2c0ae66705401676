/* A BLAS of the system, loaded when it is first asked for. */
#ifndef HD_BLAS_H
#define HD_BLAS_H

#include "base.h"

/* c [m,n] = a [m,k] b^T, b [n,k], rows lda, ldb and ldc numbers apart. */
typedef struct hd_gemm {
    int m, n, k;
    const float *a, *b;
    float *c;
    int lda, ldb, ldc;
} hd_gemm_t;

/* The library's name, NULL where there is none. */
const char *hd_blas_name(void);

/* HEED_ERROR_UNSUPPORTED where there is none, with what to install. */
heed_status_t hd_blas_check(void);
void hd_blas_gemm(const hd_gemm_t *gemm);

#endif
