/* A BLAS of the system, loaded when it is first asked for. */
#ifndef HD_BLAS_H
#define HD_BLAS_H

#include "base.h"
#include "gemm.h"

/* The library's name, NULL where there is none. */
const char *hd_blas_name(void);

/* HEED_ERROR_UNSUPPORTED where there is none, with what to install. */
heed_status_t hd_blas_check(void);

/* In f32. */
void hd_blas_gemm(const hd_gemm_t *gemm);

#endif
