/* Collectives over threads, built from messages: every kind, dtype and number of ranks against what
 * one process says; ranks that disagree. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 5 };

typedef struct member {
    heed_context_t *context;
    heed_comm_t comm;
    void (*work)(struct member *member);
    pthread_t thread;
    heed_status_t status;
    char sentence[512];
    size_t count;
    heed_dtype_t dtype;
    heed_reduce_t reduce;
    bool bad; /* this one calls wrongly */
    int failed;
} member_t;

static void *run(void *at)
{
    member_t *member = at;
    member->work(member);
    snprintf(member->sentence, sizeof(member->sentence), "%s", heed_last_error());
    heed_comm_threads_free(&member->comm);
    return NULL;
}

static void run_all(member_t *members, int size, void (*work)(member_t *), member_t like)
{
    heed_comm_t comms[MOST];
    heed_context_t *context = expect_context(NULL);
    expect_ok(heed_comm_threads(context, size, 60000, comms));
    for (int r = 0; r < size; r++) {
        members[r] = like;
        members[r].context = context;
        members[r].comm = comms[r];
        members[r].work = work;
        members[r].bad = like.bad && r == size - 1;
        assert_int_equal(pthread_create(&members[r].thread, NULL, run, &members[r]), 0);
    }
    for (int r = 0; r < size; r++)
        pthread_join(members[r].thread, NULL);
    heed_context_destroy(context);
}

static void expect_all(const member_t *members, int size, heed_status_t status, const char *what)
{
    for (int r = 0; r < size; r++) {
        if (members[r].status != status || members[r].failed)
            fail_msg("%s: rank %d of %d: %s, %d wrong: %s", what, r, size,
                     heed_status_name(members[r].status), members[r].failed, members[r].sentence);
    }
}

/* ---- moving ---------------------------------------------------------------------------------- */

static unsigned char byte_of(int from, int to, size_t i)
{
    return (unsigned char)(from * 71 + to * 13 + (int)(i * 7));
}

static void move(member_t *member)
{
    static const size_t most = 5000;
    unsigned char *parts = calloc(2 * MOST, most), *got = parts + MOST * most;
    int rank = member->comm.rank, size = member->comm.size;
    size_t bytes = member->count;
    for (int to = 0; to < size; to++)
        for (size_t i = 0; i < bytes; i++)
            parts[(size_t)to * bytes + i] = byte_of(rank, to, i);
    member->status = heed_comm_all_to_all(&member->comm, parts, bytes, got);
    for (int from = 0; from < size && !member->status; from++)
        for (size_t i = 0; i < bytes; i++)
            member->failed += got[(size_t)from * bytes + i] != byte_of(from, rank, i);
    if (!member->status)
        member->status = heed_comm_barrier(&member->comm);
    if (!member->status)
        member->status = heed_comm_all_gather(&member->comm, parts, bytes, got);
    for (int from = 0; from < size && !member->status; from++)
        for (size_t i = 0; i < bytes; i++)
            member->failed += got[(size_t)from * bytes + i] != byte_of(from, 0, i);
    free(parts);
}

static void test_moving(void **state)
{
    member_t members[MOST];
    const size_t sizes[] = {0, 1, 77, 5000};
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        for (int n = 0; n < 4; n++) {
            run_all(members, size, move, (member_t){.count = sizes[n]});
            expect_all(members, size, HEED_OK, "moving");
        }
    }
}

/* Nobody is through the barrier before the last has come. */
static int arrived;

static void pass(member_t *member)
{
    member->status = HEED_OK;
    for (int round = 1; round <= 50 && !member->status; round++) {
        __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
        member->status = heed_comm_barrier(&member->comm);
        member->failed += __atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < round * member->comm.size;
    }
}

static void test_barrier(void **state)
{
    member_t members[MOST];
    (void)state;
    for (int size = 1; size <= MOST; size++) {
        arrived = 0;
        run_all(members, size, pass, (member_t){0});
        expect_all(members, size, HEED_OK, "barrier");
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

static double wanted(const member_t *member, size_t i)
{
    double value = number_of(0, i);
    for (int r = 1; r < member->comm.size; r++)
        value = joined(member->reduce, value, number_of(r, i));
    return value;
}

static void reduce(member_t *member)
{
    size_t count = member->count, size = (size_t)member->comm.size;
    char *data = calloc(size * count + 1, 8), *own = calloc(count + 1, 8);
    for (size_t i = 0; i < size * count; i++)
        put(member->dtype, data, i, number_of(member->comm.rank, i));
    member->status = heed_comm_reduce_scatter(member->context, &member->comm, member->dtype,
                                              member->reduce, count, data, own);
    for (size_t i = 0; i < count && !member->status; i++)
        member->failed +=
            get(member->dtype, own, i) != wanted(member, (size_t)member->comm.rank * count + i);
    if (!member->status)
        member->status = heed_comm_all_reduce(member->context, &member->comm, member->dtype,
                                              member->reduce, count, data);
    for (size_t i = 0; i < count && !member->status; i++)
        member->failed += get(member->dtype, data, i) != wanted(member, i);
    free(data);
    free(own);
}

static void test_reducing(void **state)
{
    member_t members[MOST];
    const size_t counts[] = {0, 1, 3, 20011};
    (void)state;
    for (int size = 1; size <= MOST; size++)
        for (int d = 0; d < 6; d++)
            for (int n = 0; n < 12; n++) {
                member_t like = {
                    .dtype = dtypes[d], .count = counts[n / 3], .reduce = (heed_reduce_t)(n % 3)};
                run_all(members, size, reduce, like);
                expect_all(members, size, HEED_OK, heed_dtype_name(dtypes[d]));
            }
}

/* Sums are rounded once: 256 + 1 + 1 is 258 in bf16, but 256 where each step is rounded. NaN stays,
 * and integers wrap. */
static void reduce_rarely(member_t *member)
{
    uint16_t sum;
    float nan = member->comm.rank == 1 ? NAN : 1;
    int32_t large = INT32_MAX;
    kit_store(HEED_BF16, &sum, 0, member->comm.rank == 0 ? 256 : 1);
    member->status =
        heed_comm_all_reduce(member->context, &member->comm, HEED_BF16, HEED_REDUCE_SUM, 1, &sum);
    member->failed += kit_load(HEED_BF16, &sum, 0) != 258;
    if (!member->status)
        member->status = heed_comm_all_reduce(member->context, &member->comm, HEED_F32,
                                              HEED_REDUCE_MAX, 1, &nan);
    member->failed += !isnan(nan);
    if (!member->status)
        member->status = heed_comm_all_reduce(member->context, &member->comm, HEED_I32,
                                              HEED_REDUCE_SUM, 1, &large);
    member->failed += large != INT32_MAX - 2; /* three times 2^31 - 1 */
}

static void test_rare_numbers(void **state)
{
    member_t members[3];
    (void)state;
    run_all(members, 3, reduce_rarely, (member_t){0});
    expect_all(members, 3, HEED_OK, "rare numbers");
}

/* ---- disagreement ---------------------------------------------------------------------------- */

static void reduce_badly(member_t *member)
{
    double data[4] = {1, 2, 3, 4};
    bool bad = member->bad;
    size_t count = member->count;
    member->status = heed_comm_all_reduce(
        member->context, &member->comm, bad && count == 1 ? HEED_I64 : HEED_F64,
        bad && count == 2 ? HEED_REDUCE_MIN : HEED_REDUCE_SUM, bad && count == 3 ? 4 : 3,
        bad && count == 4 ? NULL : data);
    member->failed += data[0] != 1 || data[1] != 2 || data[2] != 3;
}

static void test_disagreement(void **state)
{
    const char *const parts[] = {"dtype is", "reduce is", "count is"};
    member_t members[3];
    (void)state;
    for (int what = 1; what <= 3; what++) {
        run_all(members, 3, reduce_badly, (member_t){.bad = true, .count = (size_t)what});
        expect_all(members, 3, HEED_ERROR_COMM, parts[what - 1]);
        for (int r = 0; r < 3; r++)
            assert_non_null(strstr(members[r].sentence, parts[what - 1]));
    }
    run_all(members, 3, reduce_badly, (member_t){.bad = true, .count = 4});
    assert_int_equal(members[2].status, HEED_ERROR_NULL);
    expect_all(members, 2, HEED_ERROR_COMM, "null");
    assert_non_null(strstr(members[0].sentence, "rank 2 cannot take part"));
}

static void measure(member_t *member)
{
    member->status = heed_comm_measure(member->context, 100000, &member->comm);
    member->failed += member->comm.bytes_per_second < 1e6 || member->comm.latency_ns <= 0;
}

static void test_measure(void **state)
{
    member_t members[3];
    (void)state;
    run_all(members, 3, measure, (member_t){0});
    expect_all(members, 3, HEED_OK, "measuring");
    assert_true(members[0].comm.latency_ns == members[2].comm.latency_ns);
    assert_true(members[0].comm.bytes_per_second == members[1].comm.bytes_per_second);
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
