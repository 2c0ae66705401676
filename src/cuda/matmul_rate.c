/* The rate at which a card multiplies matrices through cuBLAS: what `heed bench` holds kernels
 * against beside the numbers of data sheets. */
#include "cublas.h"
#include "host.h"

enum { SIZE = 8192, CALLS = 5 };

/* The best of a few, each timed by itself. */
static heed_status_t time_calls(int id, const hd_product_t *product, void *workspace, double *rate)
{
    cudaEvent_t start = NULL, end = NULL;
    heed_status_t status = HEED_OK;
    cudaError_t error = cudaEventCreate(&start);
    if (error == cudaSuccess)
        error = cudaEventCreate(&end);
    for (int i = 0; i <= CALLS && status == HEED_OK && error == cudaSuccess; i++) {
        float ms = 0;
        (void)cudaEventRecord(start, NULL);
        status = hd_cuda_multiply(id, product, workspace, NULL);
        (void)cudaEventRecord(end, NULL);
        error = cudaEventSynchronize(end);
        if (error == cudaSuccess)
            error = cudaEventElapsedTime(&ms, start, end);
        double now = ms > 0 ? 2.0 * SIZE * SIZE * SIZE / (ms * 1e-3) : 0;
        /* The first loads code. */
        if (i > 0 && now > *rate)
            *rate = now;
    }
    if (start)
        (void)cudaEventDestroy(start);
    if (end)
        (void)cudaEventDestroy(end);
    return status != HEED_OK ? status : hd_cuda_status(error, id, "a product of matrices");
}

/* Bytes that make floats of plain size and random look in every dtype: the exponents of the pattern
 * below stay near one. Zeros would let the card run faster than real data does. */
static cudaError_t fill(void *matrix, size_t bytes)
{
    enum { PIECE = 1 << 20 };
    static unsigned short pattern[PIECE / 2];
    unsigned seed = 1;
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < PIECE / 2; i++) {
        seed = seed * 1664525u + 1013904223u;
        pattern[i] = (unsigned short)((seed >> 16 & 0x81ff) | 0x3c00);
    }
    for (size_t at = 0; at < bytes && error == cudaSuccess; at += PIECE)
        error = cudaMemcpy((char *)matrix + at, pattern, PIECE, cudaMemcpyHostToDevice);
    return error;
}

static heed_status_t measure(int id, heed_dtype_t dtype, double *rate)
{
    size_t bytes = (size_t)SIZE * SIZE * (dtype == HEED_F32 ? 4 : 2);
    char *memory = NULL;
    cudaError_t error = cudaMalloc((void **)&memory, 3 * bytes + HD_PRODUCT_WORKSPACE);
    if (error != cudaSuccess)
        return hd_cuda_status(error, id, "a product of matrices");
    error = fill(memory, 2 * bytes);
    hd_product_t product = {.a = {memory, dtype, SIZE, 0},
                            .b = {memory + bytes, dtype, SIZE, 0},
                            .c = {memory + 2 * bytes, dtype, SIZE, 0},
                            .transposed = 1,
                            .rows = SIZE,
                            .columns = SIZE,
                            .inner = SIZE,
                            .batches = 1,
                            .alpha = 1.0f / SIZE};
    heed_status_t status = hd_cuda_status(error, id, "a product of matrices");
    if (status == HEED_OK)
        status = time_calls(id, &product, memory + 3 * bytes, rate);
    (void)cudaFree(memory);
    return status;
}

heed_status_t hd_cuda_matmul_rate(int32_t id, heed_dtype_t dtype, double *rate)
{
    heed_why_t why = {HEED_OK, ""};
    hd_cuda_scope_t scope;
    if (dtype != HEED_F32 && dtype != HEED_BF16 && dtype != HEED_F16)
        return hd_cuda_fail(HEED_ERROR_UNSUPPORTED, "no product of that dtype is measured");
    if (!hd_cuda_can_multiply(id, &why))
        return hd_cuda_fail(HEED_ERROR_UNSUPPORTED, "a product of matrices %s", why.text);
    heed_status_t status = hd_cuda_use(id, "a product of matrices", &scope);
    if (status != HEED_OK)
        return status;
    status = measure(id, dtype, rate);
    hd_cuda_restore(&scope);
    return status;
}
