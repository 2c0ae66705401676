/* Built as libcublas.so.13. What it holds callers to is in the documentation of cuBLAS 12 and 13:
 * columns first, leading dimensions at least as long as a column, operands of one type, entries of
 * the result that do not overlap, and a workspace that is set after the stream, for setting the
 * stream brings back cuBLAS' own, which is allocated behind the caller's back. */
#include "fake_cublas.h"

#include "../../src/common/element.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { OP_N = 0, OP_T = 1, COMPUTE_32F = 68, TYPE_32F = 0, TYPE_16F = 2, TYPE_16BF = 14 };

EXPORT fake_cublas_t fake_cublas;

typedef struct cublasContext {
    void *stream, *workspace;
    size_t workspace_bytes;
} handle_t;

/* Where device memory is the tests' own too, it is open inside launches alone. */
__attribute__((weak)) int fake_launch(void (*kernel)(void *params), void *params);

static void launch(void (*kernel)(void *), void *params)
{
    if (fake_launch)
        (void)fake_launch(kernel, params);
    else
        kernel(params);
}

EXPORT int cublasCreate_v2(handle_t **handle)
{
    *handle = fake_cublas.create_status ? NULL : calloc(1, sizeof(**handle));
    fake_cublas.created += *handle != NULL;
    return fake_cublas.create_status;
}

EXPORT int cublasSetStream_v2(handle_t *handle, void *stream)
{
    if (!handle)
        return NOT_INITIALIZED;
    *handle = (handle_t){.stream = stream};
    return SUCCESS;
}

EXPORT int cublasSetWorkspace_v2(handle_t *handle, void *workspace, size_t bytes)
{
    if (!handle)
        return NOT_INITIALIZED;
    if (!workspace || (uintptr_t)workspace % 256)
        return INVALID_VALUE;
    handle->workspace = workspace;
    handle->workspace_bytes = bytes;
    return SUCCESS;
}

/* ---- the product ----------------------------------------------------------------------------- */

typedef struct operand {
    char *data;
    heed_dtype_t dtype;
    int64_t lead, entry;
    int transposed;
} operand_t;

typedef struct product {
    operand_t a, b, c;
    int m, n, k, entries;
    float alpha, beta;
    handle_t *handle;
} product_t;

static char *at(const operand_t *x, int entry, int64_t row, int64_t column)
{
    int64_t index = x->transposed ? column + row * x->lead : row + column * x->lead;
    return x->data + (entry * x->entry + index) * hd_dtype_bytes(x->dtype);
}

static void element(const product_t *p, int entry, int i, int j)
{
    float sum = 0;
    for (int l = 0; l < p->k; l++)
        sum += hd_element_load(p->a.dtype, at(&p->a, entry, i, l)) *
               hd_element_load(p->b.dtype, at(&p->b, entry, l, j));
    char *to = at(&p->c, entry, i, j);
    float old = p->beta == 0 ? 0 : p->beta * hd_element_load(p->c.dtype, to);
    hd_element_store(p->c.dtype, to, p->alpha * sum + old);
}

/* Of a product too large for a test, the corners. Its workspace is spoiled at both ends, for the
 * real one may write anywhere in there. */
static void multiply(void *params)
{
    const product_t *p = params;
    double work = (double)p->m * p->n * p->k * p->entries;
    int across = work > 1e9 && p->m > 1 ? p->m - 1 : 1,
        down = work > 1e9 && p->n > 1 ? p->n - 1 : 1;
    memset(p->handle->workspace, 0xff, 256);
    memset((char *)p->handle->workspace + p->handle->workspace_bytes - 256, 0xff, 256);
    for (int entry = 0; entry < p->entries; entry++)
        for (int j = 0; j < p->n; j += down)
            for (int i = 0; i < p->m; i += across)
                element(p, entry, i, j);
}

static int dtype_of(int type, heed_dtype_t *dtype)
{
    *dtype = type == TYPE_16F ? HEED_F16 : type == TYPE_16BF ? HEED_BF16 : HEED_F32;
    return type == TYPE_16F || type == TYPE_16BF || type == TYPE_32F;
}

static int is_whole(const operand_t *x, int rows)
{
    return x->data && x->lead >= (rows > 1 ? rows : 1);
}

static int judge(const product_t *p)
{
    const handle_t *handle = p->handle;
    if (!handle->workspace || handle->workspace_bytes < 512)
        return NOT_SUPPORTED;
    if (p->m <= 0 || p->n <= 0 || p->k <= 0 || p->entries <= 0)
        return INVALID_VALUE;
    if (!is_whole(&p->a, p->a.transposed ? p->k : p->m) ||
        !is_whole(&p->b, p->b.transposed ? p->n : p->k) || !is_whole(&p->c, p->m))
        return INVALID_VALUE;
    if (p->entries > 1 && p->c.entry < p->c.lead * (p->n - 1) + p->m)
        return INVALID_VALUE;
    if (p->a.dtype != p->b.dtype || (p->c.dtype != p->a.dtype && p->c.dtype != HEED_F32))
        return NOT_SUPPORTED;
    return SUCCESS;
}

EXPORT int cublasGemmStridedBatchedEx(handle_t *handle, int op_a, int op_b, int m, int n, int k,
                                      const void *alpha, const void *a, int a_type, int a_lead,
                                      long long a_entry, const void *b, int b_type, int b_lead,
                                      long long b_entry, const void *beta, void *c, int c_type,
                                      int c_lead, long long c_entry, int entries, int compute,
                                      int algorithm)
{
    product_t p = {.a = {(char *)(uintptr_t)a, HEED_F32, a_lead, a_entry, op_a},
                   .b = {(char *)(uintptr_t)b, HEED_F32, b_lead, b_entry, op_b},
                   .c = {c, HEED_F32, c_lead, c_entry, 0},
                   .m = m,
                   .n = n,
                   .k = k,
                   .entries = entries,
                   .handle = handle};
    if (!handle)
        return NOT_INITIALIZED;
    if ((op_a != OP_N && op_a != OP_T) || (op_b != OP_N && op_b != OP_T) || !alpha || !beta ||
        !dtype_of(a_type, &p.a.dtype) || !dtype_of(b_type, &p.b.dtype) ||
        !dtype_of(c_type, &p.c.dtype) || compute != COMPUTE_32F)
        return INVALID_VALUE;
    p.alpha = *(const float *)alpha;
    p.beta = *(const float *)beta;
    int status = judge(&p);
    if (status != SUCCESS)
        return status;
    launch(multiply, &p);
    fake_cublas.gemms++;
    fake_cublas.stream = handle->stream;
    fake_cublas.workspace = handle->workspace;
    fake_cublas.workspace_bytes = handle->workspace_bytes;
    fake_cublas.compute = compute;
    fake_cublas.algorithm = algorithm;
    return SUCCESS;
}
