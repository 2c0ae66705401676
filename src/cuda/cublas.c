#define _GNU_SOURCE
#include "cublas.h"
#include "host.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* What is needed of cublas_v2.h and library_types.h; the values are part of cuBLAS' ABI. */
enum { OP_N = 0, OP_T = 1, COMPUTE_32F = 68, GEMM_DEFAULT = -1 };
enum { TYPE_32F = 0, TYPE_16F = 2, TYPE_16BF = 14 };

typedef struct cublasContext *handle_t;

typedef struct library {
    int tried;
    char why[128]; /* "" where it is loaded */
    int (*create)(handle_t *);
    int (*set_stream)(handle_t, cudaStream_t);
    int (*set_workspace)(handle_t, void *, size_t);
    int (*gemm)(handle_t, int, int, int, int, int, const void *, const void *, int, int, long long,
                const void *, int, int, long long, const void *, void *, int, int, long long, int,
                int, int);
} library_t;

enum { CARDS = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static library_t cublas;
static handle_t handles[CARDS];

/* ---- loading --------------------------------------------------------------------------------- */

static int find(void *file, const char *name, void *function)
{
    void *symbol = dlsym(file, name);
    memcpy(function, &symbol, sizeof(symbol));
    return symbol != NULL;
}

/* The newest first. Where a program has loaded one already (PyTorch brings its own), that one. */
static void *open_library(void)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    for (int flags = RTLD_NOW | RTLD_NOLOAD;; flags = RTLD_NOW) {
        for (int i = 0; i < 2; i++) {
            void *file = dlopen(names[i], flags | RTLD_LOCAL);
            if (file)
                return file;
        }
        if (!(flags & RTLD_NOLOAD))
            break;
    }
    /* Where toolkits lie whose folder the loader does not know. */
    void *file = dlopen("/usr/local/cuda/lib64/libcublas.so.13", RTLD_NOW | RTLD_LOCAL);
    return file ? file : dlopen("/usr/local/cuda/lib64/libcublas.so.12", RTLD_NOW | RTLD_LOCAL);
}

static void load(void)
{
    if (cublas.tried)
        return;
    cublas.tried = 1;
    void *file = open_library();
    if (!file)
        snprintf(cublas.why, sizeof(cublas.why),
                 "needs cuBLAS: neither libcublas.so.13 nor libcublas.so.12 can be loaded");
    else if (!find(file, "cublasCreate_v2", &cublas.create) ||
             !find(file, "cublasSetStream_v2", &cublas.set_stream) ||
             !find(file, "cublasSetWorkspace_v2", &cublas.set_workspace) ||
             !find(file, "cublasGemmStridedBatchedEx", &cublas.gemm))
        snprintf(cublas.why, sizeof(cublas.why), "needs cuBLAS: the one found lacks a function");
}

/* The card's handle, made when it is first asked for and kept, for the process may not end it
 * while others still use the card. NULL with the reason. Under the lock. */
static handle_t handle_of(int id, char *why, size_t size)
{
    hd_cuda_scope_t scope;
    load();
    snprintf(why, size, "%s", cublas.why);
    if (why[0] || id < 0 || id >= CARDS || handles[id])
        return !why[0] && id >= 0 && id < CARDS ? handles[id] : NULL;
    if (hd_cuda_use(id, "cuBLAS", &scope) != HEED_OK) {
        snprintf(why, size, "needs cuBLAS, but cuda:%d cannot be used", id);
        return NULL;
    }
    int status = cublas.create(&handles[id]);
    hd_cuda_restore(&scope);
    if (status != 0) {
        handles[id] = NULL;
        snprintf(why, size, "needs cuBLAS, which cannot start on cuda:%d (status %d)", id, status);
    }
    return handles[id];
}

int hd_cuda_can_multiply(int id, heed_why_t *why)
{
    char text[160];
    pthread_mutex_lock(&lock);
    handle_t handle = handle_of(id, text, sizeof(text));
    pthread_mutex_unlock(&lock);
    return handle || hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED, "%s", text);
}

/* ---- multiplying ----------------------------------------------------------------------------- */

static int type_of(heed_dtype_t dtype)
{
    return dtype == HEED_BF16 ? TYPE_16BF : dtype == HEED_F16 ? TYPE_16F : TYPE_32F;
}

/* cuBLAS counts columns first, so that it is given c^T = b^T a^T. */
static int call_gemm(handle_t handle, const hd_product_t *p)
{
    static const float zero = 0;
    return cublas.gemm(handle, p->transposed ? OP_T : OP_N, OP_N, p->columns, p->rows, p->inner,
                       &p->alpha, p->b.data, type_of(p->b.dtype), (int)p->b.row, p->b.batch,
                       p->a.data, type_of(p->a.dtype), (int)p->a.row, p->a.batch, &zero, p->c.data,
                       type_of(p->c.dtype), (int)p->c.row, p->c.batch, p->batches, COMPUTE_32F,
                       GEMM_DEFAULT);
}

heed_status_t hd_cuda_multiply(int id, const hd_product_t *product, void *workspace, void *stream)
{
    char why[160];
    pthread_mutex_lock(&lock);
    handle_t handle = handle_of(id, why, sizeof(why));
    int status = -1;
    if (handle)
        status = cublas.set_stream(handle, (cudaStream_t)stream);
    /* Its own would be allocated while it is captured into a graph. */
    if (status == 0 && workspace)
        status = cublas.set_workspace(handle, workspace, HD_PRODUCT_WORKSPACE);
    if (status == 0)
        status = call_gemm(handle, product);
    pthread_mutex_unlock(&lock);
    if (!handle)
        return hd_cuda_fail(HEED_ERROR_DEVICE, "a product %s", why);
    if (status != 0)
        return hd_cuda_fail(HEED_ERROR_DEVICE,
                            "cuBLAS refuses a product of %dx%d by %dx%d, %d times (status %d)",
                            product->rows, product->inner, product->inner, product->columns,
                            product->batches, status);
    return HEED_OK;
}

/* ---- its rate -------------------------------------------------------------------------------- */

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
