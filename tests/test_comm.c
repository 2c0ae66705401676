/* Collectives over threads, built from messages: every kind, dtype and number of ranks against what
 * one process says; ranks that disagree. */
#define _GNU_SOURCE
#include "kit_ranks.h"

#include "kit.h"

#include <math.h>
#include <stddef.h>

enum { MOST = 5 };

/* What ranks are to do, and how often one was wrong. */
typedef struct task {
    size_t count;
    heed_dtype_t dtype;
    heed_reduce_t reduce;
    bool bad; /* this one calls wrongly */
    int failed;
} task_t;

static rank_t ranks[MOST];
static task_t tasks[MOST];

/* The same for all; a bad one is that of the last rank alone. */
static void run_all(int size, heed_status_t (*work)(rank_t *), task_t like)
{
    heed_context_t *context = expect_context(NULL);
    ranks_open(ranks, context, size, 60000);
    for (int r = 0; r < size; r++) {
        tasks[r] = like;
        tasks[r].bad = like.bad && r == size - 1;
    }
    ranks_run(ranks, size, work, tasks, sizeof(tasks[0]));
    heed_context_destroy(context);
}

static void expect_all(int size, heed_status_t status, const char *words, const char *what)
{
    expect_ranks(ranks, size, status, words, what);
    for (int r = 0; r < size; r++)
        if (tasks[r].failed)
            fail_msg("%s: rank %d of %d: %d wrong", what, r, size, tasks[r].failed);
}

/* ---- moving ---------------------------------------------------------------------------------- */

static unsigned char byte_of(int from, int to, size_t i)
{
    return (unsigned char)(from * 71 + to * 13 + (int)(i * 7));
}

static heed_status_t move(rank_t *rank)
{
    static const size_t most = 5000;
    unsigned char *parts = calloc(2 * MOST, most), *got = parts + MOST * most;
    const heed_comm_t *comm = &rank->comm;
    task_t *task = rank->own;
    size_t bytes = task->count;
    for (int to = 0; to < comm->size; to++)
        for (size_t i = 0; i < bytes; i++)
            parts[(size_t)to * bytes + i] = byte_of(comm->rank, to, i);
    heed_status_t status = heed_comm_all_to_all(comm, parts, bytes, got);
    for (int from = 0; from < comm->size && !status; from++)
        for (size_t i = 0; i < bytes; i++)
            task->failed += got[(size_t)from * bytes + i] != byte_of(from, comm->rank, i);
    if (!status)
        status = heed_comm_barrier(comm);
    if (!status)
        status = heed_comm_all_gather(comm, parts, bytes, got);
    for (int from = 0; from < comm->size && !status; from++)
        for (size_t i = 0; i < bytes; i++)
            task->failed += got[(size_t)from * bytes + i] != byte_of(from, 0, i);
    free(parts);
    return status;
}

static void test_moving(void **state)
{
    const size_t sizes[] = {0, 1, 77, 5000};
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        for (int n = 0; n < 4; n++) {
            run_all(size, move, (task_t){.count = sizes[n]});
            expect_all(size, HEED_OK, NULL, "moving");
        }
    }
}

/* Nobody is through the barrier before the last has come. */
static int arrived;

static heed_status_t pass(rank_t *rank)
{
    task_t *task = rank->own;
    heed_status_t status = HEED_OK;
    for (int round = 1; round <= 50 && !status; round++) {
        __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
        status = heed_comm_barrier(&rank->comm);
        task->failed += __atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < round * rank->comm.size;
    }
    return status;
}

static void test_barrier(void **state)
{
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        arrived = 0;
        run_all(size, pass, (task_t){0});
        expect_all(size, HEED_OK, NULL, "barrier");
    }
}

/* ---- reducing -------------------------------------------------------------------------------- */

static const heed_dtype_t dtypes[] = {HEED_F32, HEED_F64, HEED_BF16, HEED_F16, HEED_I32, HEED_I64};

/* Whole numbers, so that every dtype holds them and their sums. */
static double number_of(int rank, size_t i)
{
    return (double)((rank * 37 + (int)i * 11) % 23 - 9);
}

static void put(heed_dtype_t dtype, void *at, size_t i, double value)
{
    if (dtype == HEED_I32)
        ((int32_t *)at)[i] = (int32_t)value;
    else if (dtype == HEED_I64)
        ((int64_t *)at)[i] = (int64_t)value;
    else if (dtype == HEED_F64)
        ((double *)at)[i] = value;
    else
        kit_store(dtype, at, (int64_t)i, value);
}

static double get(heed_dtype_t dtype, const void *at, size_t i)
{
    if (dtype == HEED_I32)
        return ((const int32_t *)at)[i];
    if (dtype == HEED_I64)
        return (double)((const int64_t *)at)[i];
    return dtype == HEED_F64 ? ((const double *)at)[i] : kit_load(dtype, at, (int64_t)i);
}

static double joined(heed_reduce_t reduce, double a, double b)
{
    if (reduce == HEED_REDUCE_SUM)
        return a + b;
    return (reduce == HEED_REDUCE_MAX) == (a > b) ? a : b;
}

static double wanted(heed_reduce_t reduce, int size, size_t i)
{
    double value = number_of(0, i);
    for (int r = 1; r < size; r++)
        value = joined(reduce, value, number_of(r, i));
    return value;
}

static heed_status_t reduce(rank_t *rank)
{
    task_t *task = rank->own;
    const heed_comm_t *comm = &rank->comm;
    size_t count = task->count, size = (size_t)comm->size, first = (size_t)comm->rank * count;
    char *data = calloc(size * count + 1, 8), *own = calloc(count + 1, 8);
    for (size_t i = 0; i < size * count; i++)
        put(task->dtype, data, i, number_of(comm->rank, i));
    heed_status_t status =
        heed_comm_reduce_scatter(rank->context, comm, task->dtype, task->reduce, count, data, own);
    for (size_t i = 0; i < count && !status; i++)
        task->failed += get(task->dtype, own, i) != wanted(task->reduce, comm->size, first + i);
    if (!status)
        status = heed_comm_all_reduce(rank->context, comm, task->dtype, task->reduce, count, data);
    for (size_t i = 0; i < count && !status; i++)
        task->failed += get(task->dtype, data, i) != wanted(task->reduce, comm->size, i);
    free(data);
    free(own);
    return status;
}

static void test_reducing(void **state)
{
    const size_t counts[] = {0, 1, 3, 20011};
    (void)state;
    for (int size = 1; size <= MOST; size++)
        for (int d = 0; d < 6; d++)
            for (int n = 0; n < 12; n++) {
                task_t like = {
                    .dtype = dtypes[d], .count = counts[n / 3], .reduce = (heed_reduce_t)(n % 3)};
                run_all(size, reduce, like);
                expect_all(size, HEED_OK, NULL, heed_dtype_name(dtypes[d]));
            }
}

/* Sums are rounded once: 256 + 1 + 1 is 258 in bf16, but 256 where each step is rounded. NaN stays,
 * and integers wrap. */
static heed_status_t reduce_rarely(rank_t *rank)
{
    task_t *task = rank->own;
    const heed_comm_t *comm = &rank->comm;
    uint16_t sum;
    float nan = comm->rank == 1 ? NAN : 1;
    int32_t large = INT32_MAX;
    kit_store(HEED_BF16, &sum, 0, comm->rank == 0 ? 256 : 1);
    heed_status_t status =
        heed_comm_all_reduce(rank->context, comm, HEED_BF16, HEED_REDUCE_SUM, 1, &sum);
    task->failed += kit_load(HEED_BF16, &sum, 0) != 258;
    if (!status)
        status = heed_comm_all_reduce(rank->context, comm, HEED_F32, HEED_REDUCE_MAX, 1, &nan);
    task->failed += !isnan(nan);
    if (!status)
        status = heed_comm_all_reduce(rank->context, comm, HEED_I32, HEED_REDUCE_SUM, 1, &large);
    task->failed += large != INT32_MAX - 2; /* three times 2^31 - 1 */
    return status;
}

static void test_rare_numbers(void **state)
{
    (void)state;
    run_all(3, reduce_rarely, (task_t){0});
    expect_all(3, HEED_OK, NULL, "rare numbers");
}

/* ---- disagreement ---------------------------------------------------------------------------- */

static heed_status_t reduce_badly(rank_t *rank)
{
    task_t *task = rank->own;
    double data[4] = {1, 2, 3, 4};
    bool bad = task->bad;
    size_t count = task->count;
    heed_status_t status =
        heed_comm_all_reduce(rank->context, &rank->comm, bad && count == 1 ? HEED_I64 : HEED_F64,
                             bad && count == 2 ? HEED_REDUCE_MIN : HEED_REDUCE_SUM,
                             bad && count == 3 ? 4 : 3, bad && count == 4 ? NULL : data);
    task->failed += data[0] != 1 || data[1] != 2 || data[2] != 3;
    return status;
}

static void test_disagreement(void **state)
{
    const char *const parts[] = {"dtype is", "reduce is", "count is"};
    (void)state;
    for (int what = 1; what <= 3; what++) {
        run_all(3, reduce_badly, (task_t){.bad = true, .count = (size_t)what});
        expect_all(3, HEED_ERROR_COMM, parts[what - 1], "disagreement");
    }
    run_all(3, reduce_badly, (task_t){.bad = true, .count = 4});
    assert_int_equal(ranks[2].status, HEED_ERROR_NULL);
    expect_all(2, HEED_ERROR_COMM, "rank 2 cannot take part", "null");
}

static heed_status_t measure(rank_t *rank)
{
    task_t *task = rank->own;
    heed_status_t status = heed_comm_measure(rank->context, 100000, &rank->comm);
    task->failed += rank->comm.bytes_per_second < 1e6 || rank->comm.latency_ns <= 0;
    return status;
}

static void test_measure(void **state)
{
    (void)state;
    run_all(3, measure, (task_t){0});
    expect_all(3, HEED_OK, NULL, "measuring");
    assert_true(ranks[0].comm.latency_ns == ranks[2].comm.latency_ns);
    assert_true(ranks[0].comm.bytes_per_second == ranks[1].comm.bytes_per_second);
}

static heed_status_t own_barrier(void *user)
{
    (void)user;
    return heed_comm_fail("the transport's own");
}

static void test_bad_comm(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_comm_t comm;
    float number = 1;
    (void)state;
    expect_ok(heed_comm_threads(context, 1, 0, &comm));
    heed_comm_t spoiled = comm;
    spoiled.struct_size = 8;
    expect_fails(heed_comm_barrier(&spoiled), HEED_ERROR_STRUCT_SIZE, "struct_size=8");
    spoiled = comm;
    spoiled.wait = NULL;
    expect_fails(heed_comm_barrier(&spoiled), HEED_ERROR_NULL, "comm.wait");
    expect_fails(heed_comm_barrier(NULL), HEED_ERROR_NULL, "comm is null");
    spoiled = comm;
    spoiled.barrier = own_barrier;
    expect_fails(heed_comm_barrier(&spoiled), HEED_ERROR_COMM, "the transport's own");
    spoiled.struct_size = offsetof(heed_comm_t, barrier); /* as before there were collectives */
    expect_ok(heed_comm_barrier(&spoiled));
    expect_fails(heed_comm_measure(context, 0, &spoiled), HEED_ERROR_STRUCT_SIZE, "no place");
    expect_fails(heed_comm_all_reduce(context, &comm, HEED_E4M3, HEED_REDUCE_SUM, 1, &number),
                 HEED_ERROR_DTYPE, "dtype=e4m3");
    expect_fails(heed_comm_all_reduce(context, &comm, HEED_F32, (heed_reduce_t)9, 1, &number),
                 HEED_ERROR_VALUE, "reduce=9");
    expect_fails(heed_comm_all_gather(&comm, &number, SIZE_MAX / 2, &number), HEED_ERROR_VALUE,
                 "too much");
    heed_comm_threads_free(&comm);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moving),       cmocka_unit_test(test_barrier),
        cmocka_unit_test(test_reducing),     cmocka_unit_test(test_rare_numbers),
        cmocka_unit_test(test_disagreement), cmocka_unit_test(test_measure),
        cmocka_unit_test(test_bad_comm),
    };
    return cmocka_run_group_tests_name("comm", tests, NULL, NULL);
}
