#define _GNU_SOURCE
#include "blas.h"

#include "internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* Row-major, b transposed, as every cblas.h numbers them. */
enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };

typedef void sgemm_t(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                     const float *a, int lda, const float *b, int ldb, float beta, float *c,
                     int ldc);

typedef struct blas {
    const char *name;
    sgemm_t *sgemm;
} blas_t;

static blas_t load(void)
{
    static const char *const names[] = {"libopenblas.so.0", "libblis.so.4", "libmkl_rt.so.2",
                                        "libcblas.so.3", "libblas.so.3"};
    blas_t blas = {0};
    for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
        void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        void *symbol = library ? dlsym(library, "cblas_sgemm") : NULL;
        if (symbol) {
            memcpy(&blas.sgemm, &symbol, sizeof(symbol));
            blas.name = names[i];
            return blas;
        }
        if (library)
            dlclose(library);
    }
    return blas;
}

/* Stays loaded, with its threads, as long as the process lives. */
static const blas_t *get(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static blas_t blas;
    static bool tried;
    pthread_mutex_lock(&lock);
    if (!tried)
        blas = load();
    tried = true;
    pthread_mutex_unlock(&lock);
    return &blas;
}

const char *hd_blas_name(void)
{
    return get()->name;
}

heed_status_t hd_blas_check(void)
{
    if (hd_blas_name())
        return HEED_OK;
    return hd_fail(HEED_ERROR_UNSUPPORTED,
                   "no BLAS with cblas_sgemm is installed (Debian and Ubuntu: "
                   "libopenblas0-pthread)");
}

void hd_blas_gemm(const hd_gemm_t *gemm)
{
    get()->sgemm(ROW_MAJOR, AS_IT_IS, TRANSPOSED, gemm->m, gemm->n, gemm->k, 1, gemm->a, gemm->lda,
                 gemm->b, gemm->ldb, gemm->adds ? 1 : 0, gemm->c, gemm->ldc);
}
