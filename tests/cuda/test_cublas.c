/* Products of matrices by src/cuda/cublas.c: its calls, on the cuBLAS of fake_cublas.c and the
 * runtime of fake_runtime.c, compared with plain loops. cuda:standard runs through both in
 * heed-check-cuda. Nothing here says what a GPU or cuBLAS does. */
#define _GNU_SOURCE
#include "backend.h"
#include "cublas.h"
#include "cuda.h"
#include "element.h"
#include "expect.h"
#include "fake_cublas.h"
#include "fake_runtime.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static fake_cublas_t *library;
static char sentence[512];

static heed_status_t keep(heed_status_t status, const char *text)
{
    snprintf(sentence, sizeof(sentence), "%s", text);
    return status;
}

static const hd_host_t host = {.struct_size = sizeof(hd_host_t), .fail = keep};
hd_backend_enter_t hd_cuda_backend;

static int reset(void **state)
{
    (void)state;
    fake_reset();
    fake.cards = 4;
    library->create_status = 0;
    hd_cuda_backend(&host);
    return 0;
}

/* ---- a product on the card and by plain loops ------------------------------------------------ */

enum { ROOM = 1 << 20 };

/* Three matrices and the workspace, each a block of device memory. */
typedef struct placed {
    hd_product_t product;
    void *workspace;
    float want[ROOM / 16];
} placed_t;

/* Small whole numbers: products and sums of them are exact in every dtype. */
static void fill(void *at)
{
    hd_matrix_t *matrix = at;
    int bytes = hd_dtype_bytes(matrix->dtype);
    unsigned seed = 1;
    for (int i = 0; i < ROOM / bytes; i++) {
        seed = seed * 1664525u + 1013904223u;
        hd_element_store(matrix->dtype, (char *)matrix->data + i * bytes, (float)(seed >> 28) - 8);
    }
}

static float load(const hd_matrix_t *x, int entry, int64_t row, int64_t column)
{
    return hd_element_load(x->dtype, (char *)x->data + (entry * x->batch + row * x->row + column) *
                                                           hd_dtype_bytes(x->dtype));
}

static void by_loops(void *at)
{
    placed_t *p = at;
    const hd_product_t *x = &p->product;
    float *want = p->want;
    char cell[sizeof(float)];
    for (int entry = 0; entry < x->batches; entry++)
        for (int row = 0; row < x->rows; row++)
            for (int column = 0; column < x->columns; column++) {
                float sum = 0;
                for (int i = 0; i < x->inner; i++)
                    sum += load(&x->a, entry, row, i) * (x->transposed
                                                             ? load(&x->b, entry, column, i)
                                                             : load(&x->b, entry, i, column));
                float old = x->beta == 0 ? 0 : x->beta * load(&x->c, entry, row, column);
                hd_element_store(x->c.dtype, cell, sum * x->alpha + old);
                *want++ = hd_element_load(x->c.dtype, cell);
            }
}

static void compare(void *at)
{
    placed_t *p = at;
    const hd_product_t *x = &p->product;
    const float *want = p->want;
    for (int entry = 0; entry < x->batches; entry++)
        for (int row = 0; row < x->rows; row++)
            for (int column = 0; column < x->columns; column++, want++)
                if (load(&x->c, entry, row, column) != *want)
                    fail_msg("c[%d,%d,%d] is %g, not %g", entry, row, column,
                             (double)load(&x->c, entry, row, column), (double)*want);
}

static void place(placed_t *p, const hd_product_t *product)
{
    p->product = *product;
    hd_matrix_t *const matrices[] = {&p->product.a, &p->product.b, &p->product.c};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cudaMalloc(&matrices[i]->data, ROOM), cudaSuccess);
        assert_int_equal(fake_launch(fill, matrices[i]), cudaSuccess);
    }
    assert_int_equal(cudaMalloc(&p->workspace, HD_PRODUCT_WORKSPACE), cudaSuccess);
}

static void unplace(placed_t *p)
{
    void *const blocks[] = {p->product.a.data, p->product.b.data, p->product.c.data, p->workspace};
    for (int i = 0; i < 4; i++)
        assert_int_equal(cudaFree(blocks[i]), cudaSuccess);
    assert_int_equal(fake.allocations, 0);
}

static placed_t placed;

/* ---- tests ----------------------------------------------------------------------------------- */

static void products_are_those_of_plain_loops(void **state)
{
    static const hd_product_t products[] = {
        /* scores of three heads: rows of q and k lie further apart than they are long */
        {{NULL, HEED_F32, 24, 8},
         {NULL, HEED_F32, 8, 160},
         {NULL, HEED_F32, 64, 64 * 5},
         1,
         5,
         20,
         8,
         3,
         0.5f,
         0},
        {{NULL, HEED_BF16, 24, 8},
         {NULL, HEED_BF16, 8, 160},
         {NULL, HEED_F32, 64, 64 * 5},
         1,
         5,
         20,
         8,
         3,
         0.5f,
         0},
        /* one b for all entries, as with grouped heads */
        {{NULL, HEED_F16, 16, 112},
         {NULL, HEED_F16, 40, 0},
         {NULL, HEED_F32, 33, 33 * 7},
         0,
         7,
         33,
         16,
         4,
         1,
         0},
        /* weights times values: a row of a is longer than what is multiplied */
        {{NULL, HEED_BF16, 64, 640},
         {NULL, HEED_BF16, 24, 8},
         {NULL, HEED_BF16, 8, 80},
         0,
         10,
         8,
         50,
         2,
         1,
         0},
        {{NULL, HEED_F32, 1, 1},
         {NULL, HEED_F32, 1, 1},
         {NULL, HEED_F32, 1, 1},
         1,
         1,
         1,
         1,
         1,
         -2,
         0},
        /* added to what is there */
        {{NULL, HEED_BF16, 20, 0},
         {NULL, HEED_BF16, 18, 0},
         {NULL, HEED_BF16, 9, 0},
         1,
         6,
         9,
         17,
         1,
         1,
         1}};
    heed_why_t why;
    int on_host = 0;
    (void)state;
    assert_true(hd_cuda_can_multiply(1, &why));
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++) {
        fake.current = 1;
        place(&placed, &products[i]);
        assert_int_equal(fake_launch(by_loops, &placed), cudaSuccess);
        int gemms = library->gemms, waits = fake.waits, allocations = fake.allocations;
        assert_int_equal(hd_cuda_multiply(1, &placed.product, placed.workspace, &on_host), HEED_OK);
        assert_int_equal(library->gemms, gemms + 1);
        assert_int_equal(fake.waits, waits);
        assert_int_equal(fake.allocations, allocations);
        assert_ptr_equal(library->stream, &on_host);
        assert_ptr_equal(library->workspace, placed.workspace);
        assert_int_equal(library->workspace_bytes, HD_PRODUCT_WORKSPACE);
        assert_int_equal(fake_launch(compare, &placed), cudaSuccess);
        unplace(&placed);
    }
}

static void a_card_has_one_handle(void **state)
{
    heed_why_t why;
    (void)state;
    assert_true(hd_cuda_can_multiply(2, &why));
    int created = library->created;
    assert_true(hd_cuda_can_multiply(2, &why));
    assert_int_equal(library->created, created);
    assert_int_equal(fake.current, 0);
}

static void a_library_that_cannot_start(void **state)
{
    heed_why_t why;
    (void)state;
    library->create_status = 3;
    assert_false(hd_cuda_can_multiply(3, &why));
    assert_string_equal(why.text, "needs cuBLAS, which cannot start on cuda:3 (status 3)");
    hd_product_t product = {.rows = 1, .columns = 1, .inner = 1, .batches = 1};
    assert_int_equal(hd_cuda_multiply(3, &product, NULL, NULL), HEED_ERROR_DEVICE);
    assert_string_equal(sentence,
                        "a product needs cuBLAS, which cannot start on cuda:3 (status 3)");
    assert_false(hd_cuda_can_multiply(64, &why));
}

static void a_refusal_has_a_sentence(void **state)
{
    /* c's rows are shorter than they should be */
    static const hd_product_t wrong = {{NULL, HEED_F32, 8, 0},
                                       {NULL, HEED_F32, 8, 0},
                                       {NULL, HEED_F32, 4, 0},
                                       1,
                                       2,
                                       5,
                                       8,
                                       1,
                                       1,
                                       0};
    (void)state;
    place(&placed, &wrong);
    assert_int_equal(hd_cuda_multiply(0, &placed.product, placed.workspace, NULL),
                     HEED_ERROR_DEVICE);
    assert_string_equal(sentence, "cuBLAS refuses a product of 2x8 by 8x5, 1 times (status 7)");
    unplace(&placed);
}

static void a_rate_is_measured(void **state)
{
    double rate = 0;
    (void)state;
    fake.memory = (size_t)1 << 30;
    assert_int_equal(hd_cuda_matmul_rate(0, HEED_BF16, &rate), HEED_OK);
    assert_true(rate > 0);
    assert_int_equal(fake.allocations, 0);
    assert_int_equal(hd_cuda_matmul_rate(0, HEED_E4M3, &rate), HEED_ERROR_UNSUPPORTED);
    fake.memory = 1 << 20;
    assert_int_equal(hd_cuda_matmul_rate(0, HEED_F32, &rate), HEED_ERROR_OUT_OF_MEMORY);
    fake.memory = (size_t)1 << 30;
    fake.failing = "cudaMemcpy";
    fake.failure = cudaErrorInvalidValue;
    assert_int_equal(hd_cuda_matmul_rate(0, HEED_BF16, &rate), HEED_ERROR_DEVICE);
    assert_int_equal(fake.allocations, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(products_are_those_of_plain_loops, reset),
        cmocka_unit_test_setup(a_card_has_one_handle, reset),
        cmocka_unit_test_setup(a_library_that_cannot_start, reset),
        cmocka_unit_test_setup(a_refusal_has_a_sentence, reset),
        cmocka_unit_test_setup(a_rate_is_measured, reset),
    };
    /* From here on it is the loaded one with that name. */
    void *file = dlopen(HEED_FAKE_CUBLAS, RTLD_NOW | RTLD_LOCAL);
    library = file ? dlsym(file, "fake_cublas") : NULL;
    return library ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
