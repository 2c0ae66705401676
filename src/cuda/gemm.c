/* One product of matrices behind hd_device_calls_t, for linear layers over ranks. Has run on the
 * cuBLAS of tests/cuda only, which computes on the host. */
#include "cublas.h"
#include "host.h"

heed_status_t hd_cuda_gemm_memory(int32_t id, size_t *bytes)
{
    heed_why_t why = {HEED_OK, ""};
    if (!hd_cuda_can_multiply(id, &why))
        return hd_cuda_fail(HEED_ERROR_UNSUPPORTED, "a product of matrices %s", why.text);
    *bytes = HD_PRODUCT_WORKSPACE;
    return HEED_OK;
}

heed_status_t hd_cuda_gemm(int32_t id, const hd_gemm_t *gemm, heed_dtype_t operands,
                           heed_dtype_t result, void *memory, void *stream)
{
    const hd_product_t product = {.a = {(void *)gemm->a, operands, gemm->lda, 0},
                                  .b = {(void *)gemm->b, operands, gemm->ldb, 0},
                                  .c = {gemm->c, result, gemm->ldc, 0},
                                  .transposed = 1,
                                  .rows = gemm->m,
                                  .columns = gemm->n,
                                  .inner = gemm->k,
                                  .batches = 1,
                                  .alpha = 1,
                                  .beta = gemm->adds ? 1 : 0};
    hd_cuda_scope_t scope;
    heed_status_t status = hd_cuda_use(id, "a product of matrices", &scope);
    if (status != HEED_OK)
        return status;
    status = hd_cuda_multiply(id, &product, memory, stream);
    hd_cuda_restore(&scope);
    return status;
}
