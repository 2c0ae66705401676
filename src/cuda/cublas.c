#define _GNU_SOURCE
#include "cublas.h"
#include "cuda.h"

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
    int (*set_stream)(handle_t, void *);
    int (*set_workspace)(handle_t, void *, size_t);
    int (*gemm)(handle_t, int, int, int, int, int, const void *, const void *, int, int, long long,
                const void *, int, int, long long, const void *, void *, int, int, long long, int,
                int, int);
} library_t;

enum { CARDS = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static library_t cublas;
static handle_t handles[CARDS];
static int failures[CARDS]; /* what making a card's handle gave, which is tried once */

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
    if (why[0] || id < 0 || id >= CARDS)
        return NULL;
    if (!handles[id] && !failures[id]) {
        if (hd_cuda_use(id, "cuBLAS", &scope) != HEED_OK) {
            snprintf(why, size, "needs cuBLAS, but cuda:%d cannot be used", id);
            return NULL;
        }
        failures[id] = cublas.create(&handles[id]);
        hd_cuda_restore(&scope);
    }
    if (failures[id]) {
        handles[id] = NULL;
        snprintf(why, size, "needs cuBLAS, which cannot start on cuda:%d (status %d)", id,
                 failures[id]);
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
    return cublas.gemm(handle, p->transposed ? OP_T : OP_N, OP_N, p->columns, p->rows, p->inner,
                       &p->alpha, p->b.data, type_of(p->b.dtype), (int)p->b.row, p->b.batch,
                       p->a.data, type_of(p->a.dtype), (int)p->a.row, p->a.batch, &p->beta,
                       p->c.data, type_of(p->c.dtype), (int)p->c.row, p->c.batch, p->batches,
                       COMPUTE_32F, GEMM_DEFAULT);
}

heed_status_t hd_cuda_multiply(int id, const hd_product_t *product, void *workspace, void *stream)
{
    char why[160];
    pthread_mutex_lock(&lock);
    handle_t handle = handle_of(id, why, sizeof(why));
    int status = -1;
    if (handle)
        status = cublas.set_stream(handle, stream);
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
