/* Products of matrices by cuBLAS, which is looked for when it is first needed: nothing links to it.
 * In C, without the toolkit's headers, so that a kernel's file can be compiled without them; the
 * emulator brings a twin. */
#ifndef HD_CUDA_CUBLAS_H
#define HD_CUDA_CUBLAS_H

#include "../common/gemm.h"

#include <heed/heed.h>

#ifdef __cplusplus
extern "C" {
#endif

/* c[i] = alpha * a[i] b[i] + beta * c[i] for every batch entry i, or of a[i] b[i]^T: a is
 * [rows][inner], b [inner][columns] (transposed [columns][inner]), c [rows][columns]. A row's
 * elements follow each other; `row` and `batch` are steps between rows and entries, in elements. */
typedef struct hd_matrix {
    void *data;
    heed_dtype_t dtype; /* a and b the same: f32, bf16, f16; c also f32 */
    int64_t row, batch;
} hd_matrix_t;

typedef struct hd_product {
    hd_matrix_t a, b, c;
    int transposed; /* b */
    int rows, columns, inner, batches;
    float alpha, beta; /* beta 0: c is not read */
} hd_product_t;

/* Memory that hd_cuda_multiply wants beside its matrices. */
enum { HD_PRODUCT_WORKSPACE = 32 << 20 };

/* Whether products can be had on the card; else *why says what is missing. May allocate, once. */
int hd_cuda_can_multiply(int id, heed_why_t *why);

/* Enqueues a product on a card that is current and can multiply. Takes a lock for as long as that
 * takes, for cuBLAS' handles are one thread's at a time. f32 products are in full f32. */
heed_status_t hd_cuda_multiply(int id, const hd_product_t *product, void *workspace, void *stream);

/* hd_device_calls_t.matmul_rate. */
heed_status_t hd_cuda_matmul_rate(int32_t id, heed_dtype_t dtype, double *rate);

/* hd_device_calls_t.multiply_memory and multiply. */
heed_status_t hd_cuda_gemm_memory(int32_t id, size_t *bytes);
heed_status_t hd_cuda_gemm(int32_t id, const hd_gemm_t *gemm, heed_dtype_t operands,
                           heed_dtype_t result, void *memory, void *stream);

#ifdef __cplusplus
}
#endif
#endif
