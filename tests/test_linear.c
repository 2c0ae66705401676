/* Linear layers split over threads against plain sums in double: column, gathered, row, scattered,
 * with and without bias, on views of whole weights; a layer of two; ranks that disagree. */
#define _GNU_SOURCE
#include "kit_ranks.h"

#include "kit.h"

#include <math.h>

enum { M = 12, K = 24, N = 36, MOST = 4 };

static float x[M * K], w[N * K], bias[N], second[K * N], wanted[M * N], wanted_second[M * K];

static rank_t ranks[MOST];

/* What a rank is told and what it finds. */
static struct task {
    int variant;
    double error;
} tasks[MOST];

static void run_all(heed_context_t *context, int size, heed_status_t (*work)(rank_t *), int variant)
{
    ranks_open(ranks, context, size, 60000);
    for (int r = 0; r < size; r++)
        tasks[r] = (struct task){.variant = variant};
    ranks_run(ranks, size, work, tasks, sizeof(tasks[0]));
}

static void expect_all(int size, const char *what)
{
    expect_ranks(ranks, size, HEED_OK, NULL, what);
    for (int r = 0; r < size; r++)
        if (!(tasks[r].error <= 1e-4))
            fail_msg("%s, rank %d of %d: off by %g", what, r, size, tasks[r].error);
}

static void plain(const float *a, const float *b, const float *c, int m, int n, int k, float *to)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = c ? (double)c[j] : 0;
            for (int p = 0; p < k; p++)
                sum += (double)a[i * k + p] * (double)b[j * k + p];
            to[i * n + j] = (float)sum;
        }
}

static void fill(void)
{
    kit_random_t random = {9};
    float *all[] = {x, w, bias, second};
    const int counts[] = {M * K, N * K, N, K * N};
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < counts[n]; i++)
            all[n][i] = (float)kit_random_normal(&random);
    plain(x, w, bias, M, N, K, wanted);
    plain(wanted, second, NULL, M, K, N, wanted_second);
}

static double difference(const float *got, int64_t stride, const float *want, int64_t want_stride,
                         int64_t rows, int64_t columns)
{
    double worst = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            double off = fabs((double)got[i * stride + j] - (double)want[i * want_stride + j]);
            worst = off <= worst ? worst : isnan(off) ? INFINITY : off;
        }
    return worst;
}

/* Rows of w are a slice; variant 1: gathered. */
static heed_status_t column(rank_t *rank)
{
    struct task *task = rank->own;
    int64_t size = rank->comm.size, r = rank->comm.rank, n = N / size;
    float *out = malloc(M * N * sizeof(float));
    bool gather = task->variant == 1;
    heed_linear_desc_t desc = heed_linear_desc();
    desc.gather = gather;
    desc.x = HEED_TENSOR(x, HEED_F32, M, K);
    desc.w = HEED_TENSOR(w + r * n * K, HEED_F32, n, K);
    desc.bias = HEED_TENSOR(bias + r * n, HEED_F32, n);
    desc.out = HEED_TENSOR(out, HEED_F32, M, gather ? N : n);
    heed_status_t status = heed_parallel_linear(rank->context, &rank->comm, &desc);
    task->error =
        gather ? difference(out, N, wanted, N, M, N) : difference(out, n, wanted + r * n, N, M, n);
    free(out);
    return status;
}

/* Columns of x and w are views; variant 1: rows of out are dealt. */
static heed_status_t row(rank_t *rank)
{
    struct task *task = rank->own;
    int64_t size = rank->comm.size, r = rank->comm.rank, k = K / size, m = M / size;
    float *out = malloc(M * N * sizeof(float));
    bool scatter = task->variant == 1;
    heed_linear_desc_t desc = heed_linear_desc();
    desc.split = HEED_LINEAR_ROW;
    desc.scatter = scatter;
    int64_t strides[2] = {K, 1};
    desc.x = heed_tensor(x + r * k, HEED_F32, 2, (int64_t[]){M, k}, strides);
    desc.w = heed_tensor(w + r * k, HEED_F32, 2, (int64_t[]){N, k}, strides);
    desc.bias = HEED_TENSOR(bias, HEED_F32, N);
    desc.out = HEED_TENSOR(out, HEED_F32, scatter ? m : M, N);
    heed_status_t status = heed_parallel_linear(rank->context, &rank->comm, &desc);
    task->error = scatter ? difference(out, N, wanted + r * m * N, N, m, N)
                          : difference(out, N, wanted, N, M, N);
    free(out);
    return status;
}

/* Column, then row: what one leaves the other takes. */
static heed_status_t both(rank_t *rank)
{
    struct task *task = rank->own;
    int64_t n = N / rank->comm.size, r = rank->comm.rank, strides[2] = {N, 1};
    float *middle = malloc(M * N * sizeof(float)), *out = malloc(M * K * sizeof(float));
    heed_linear_desc_t desc = heed_linear_desc();
    desc.x = HEED_TENSOR(x, HEED_F32, M, K);
    desc.w = HEED_TENSOR(w + r * n * K, HEED_F32, n, K);
    desc.bias = HEED_TENSOR(bias + r * n, HEED_F32, n);
    desc.out = HEED_TENSOR(middle, HEED_F32, M, n);
    heed_status_t status = heed_parallel_linear(rank->context, &rank->comm, &desc);
    desc = heed_linear_desc();
    desc.split = HEED_LINEAR_ROW;
    desc.x = HEED_TENSOR(middle, HEED_F32, M, n);
    desc.w = heed_tensor(second + r * n, HEED_F32, 2, (int64_t[]){K, n}, strides);
    desc.out = HEED_TENSOR(out, HEED_F32, M, K);
    if (!status)
        status = heed_parallel_linear(rank->context, &rank->comm, &desc);
    task->error = difference(out, K, wanted_second, K, M, K) / 10; /* of numbers ten times larger */
    free(middle);
    free(out);
    return status;
}

static void test_layers(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    if (!*heed_linear_library()) {
        heed_context_destroy(context);
        skip();
    }
    fill();
    for (int size = 1; size <= MOST; size++) {
        for (int variant = 0; variant < 2; variant++) {
            run_all(context, size, column, variant);
            expect_all(size, variant ? "column, gathered" : "column");
            run_all(context, size, row, variant);
            expect_all(size, variant ? "row, scattered" : "row");
        }
        run_all(context, size, both, 0);
        expect_all(size, "column and row");
    }
    heed_context_destroy(context);
}

/* Variant 0: another number of rows on the last rank; 1: a bad shape there. */
static heed_status_t disagree(rank_t *rank)
{
    struct task *task = rank->own;
    float out[M * N];
    bool last = rank->comm.rank == rank->comm.size - 1;
    heed_linear_desc_t desc = heed_linear_desc();
    int64_t rows = last && task->variant == 0 ? M - 1 : M;
    desc.split = HEED_LINEAR_ROW;
    desc.x = HEED_TENSOR(x, HEED_F32, rows, K);
    desc.w = HEED_TENSOR(w, HEED_F32, N, last && task->variant == 1 ? K - 1 : K);
    desc.out = HEED_TENSOR(out, HEED_F32, rows, N);
    heed_status_t status = heed_parallel_linear(rank->context, &rank->comm, &desc);
    return status;
}

static void test_disagreement(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    run_all(context, 3, disagree, 1);
    assert_int_equal(ranks[2].status, HEED_ERROR_SHAPE);
    assert_int_equal(ranks[0].status,
                     *heed_linear_library() ? HEED_ERROR_COMM : HEED_ERROR_UNSUPPORTED);
    if (*heed_linear_library())
        assert_non_null(strstr(ranks[0].sentence, "rank 2 cannot take part"));
    if (*heed_linear_library()) {
        run_all(context, 3, disagree, 0);
        expect_ranks(ranks, 3, HEED_ERROR_COMM, "rows of x is", "other rows");
    }
    heed_context_destroy(context);
}

/* Variant 0: rows that cannot be dealt out; 1: an out whose rows lie apart, which ranks add to. */
static heed_status_t misfit(rank_t *rank)
{
    struct task *task = rank->own;
    float out[M * 2 * N];
    int64_t shape[2] = {M, N}, strides[2] = {task->variant ? 2 * N : N, 1};
    heed_linear_desc_t desc = heed_linear_desc();
    desc.split = HEED_LINEAR_ROW;
    desc.scatter = !task->variant;
    desc.x = HEED_TENSOR(x, HEED_F32, M - !task->variant, K);
    desc.w = HEED_TENSOR(w, HEED_F32, N, K);
    if (desc.scatter)
        shape[0] = M / rank->comm.size;
    desc.out = heed_tensor(out, HEED_F32, 2, shape, strides);
    heed_status_t status = heed_parallel_linear(rank->context, &rank->comm, &desc);
    return status;
}

static void test_misfits(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (int variant = 0; variant < 2; variant++) {
        run_all(context, 2, misfit, variant);
        expect_ranks(ranks, 2, variant ? HEED_ERROR_STRIDE : HEED_ERROR_SHAPE,
                     variant ? "out is not dense" : "x.shape[0]=11 is no multiple", "misfit");
    }
    heed_context_destroy(context);
}

static void test_bad(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_linear_desc_t desc = heed_linear_desc();
    float out[M * N];
    heed_comm_t comm;
    (void)state;
    expect_ok(heed_comm_threads(context, 1, 0, &comm));
    desc.x = HEED_TENSOR(x, HEED_F32, M, K);
    desc.w = HEED_TENSOR(w, HEED_F32, N, K);
    desc.out = HEED_TENSOR(out, HEED_F32, M, N - 1);
    expect_fails(heed_parallel_linear(context, &comm, &desc), HEED_ERROR_SHAPE, "out is [12,35]");
    desc.scatter = 1;
    expect_fails(heed_parallel_linear(context, &comm, &desc), HEED_ERROR_VALUE, "scatter for ROW");
    desc.scatter = 0;
    desc.x.dtype = HEED_BF16;
    expect_fails(heed_parallel_linear(context, &comm, &desc), HEED_ERROR_DTYPE, "x is bf16");
    desc.x.dtype = HEED_F32;
    desc.w.strides = (int64_t[]){1, N};
    expect_fails(heed_parallel_linear(context, &comm, &desc), HEED_ERROR_STRIDE,
                 "w: its last axis");
    heed_comm_threads_free(&comm);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers),
                                       cmocka_unit_test(test_disagreement),
                                       cmocka_unit_test(test_misfits), cmocka_unit_test(test_bad)};
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
