/* A product of matrices, as a BLAS and the library of a device's vendor take it. */
#ifndef HD_GEMM_H
#define HD_GEMM_H

/* c [m,n] = a [m,k] b^T, b [n,k], rows lda, ldb and ldc numbers apart. */
typedef struct hd_gemm {
    int m, n, k;
    const void *a, *b;
    void *c;
    int lda, ldb, ldc;
    int adds; /* 1: to what c has */
} hd_gemm_t;

#endif
