/* Layers cut into the stages of a pipeline, against every other cut. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <stdio.h>
#include <time.h>

enum { MOST_LAYERS = 128, MOST_STAGES = 64 };

/* The least time of the slowest of `stages` runs of items at .. items-1, each of at least one. */
static int64_t least(const int64_t *items, int count, int at, int stages)
{
    int64_t sum = 0, best = INT64_MAX;
    if (stages == 1) {
        for (; at < count; at++)
            sum += items[at];
        return sum;
    }
    for (int end = at + 1; end <= count - (stages - 1); end++) {
        sum += items[end - 1];
        int64_t rest = least(items, count, end, stages - 1), slowest = sum > rest ? sum : rest;
        best = slowest < best ? slowest : best;
    }
    return best;
}

/* The time of the slowest stage, told from where stages begin. */
static int64_t slowest_of(const int64_t *costs, int64_t embedding, int64_t head, int stages,
                          const int32_t *starts)
{
    int64_t slowest = 0;
    for (int s = 0; s < stages; s++) {
        int64_t sum = (s == 0 ? embedding : 0) + (s == stages - 1 ? head : 0);
        int most = (s == 0 && embedding) || (s == stages - 1 && head) ? 0 : 1;
        assert_true(starts[s + 1] - starts[s] >= most);
        for (int i = starts[s]; i < starts[s + 1]; i++)
            sum += costs[i];
        slowest = sum > slowest ? sum : slowest;
    }
    return slowest;
}

static void test_partition(void **state)
{
    kit_random_t random = {3};
    (void)state;
    for (int round = 0; round < 3000; round++) {
        int64_t items[16], slowest;
        int32_t starts[16];
        int layers = (int)kit_random_int(&random, 1, 9), count = 0;
        int64_t embedding = kit_random_int(&random, -20, 20),
                head = kit_random_int(&random, -20, 20);
        embedding = embedding > 0 ? embedding : 0;
        head = head > 0 ? head : 0;
        if (embedding)
            items[count++] = embedding;
        int64_t *costs = items + count;
        for (int i = 0; i < layers; i++)
            items[count++] = kit_random_int(&random, round % 5 ? 0 : 7, round % 5 ? 20 : 7);
        if (head)
            items[count++] = head;
        for (int stages = 1; stages <= count; stages++) {
            expect_ok(
                heed_pipeline_partition(costs, layers, embedding, head, stages, starts, &slowest));
            assert_int_equal(starts[0], 0);
            assert_int_equal(starts[stages], layers);
            assert_int_equal(slowest, least(items, count, 0, stages));
            assert_int_equal(slowest, slowest_of(costs, embedding, head, stages, starts));
        }
        expect_fails(
            heed_pipeline_partition(costs, layers, embedding, head, count + 1, starts, NULL),
            HEED_ERROR_VALUE, "stages=");
    }
}

/* Equal layers are dealt out as ceil(n / parts) has it, as long as none is left without. */
static void test_partition_known(void **state)
{
    int64_t costs[MOST_LAYERS], slowest;
    int32_t starts[MOST_STAGES + 1];
    double best = 1e9;
    (void)state;
    for (int i = 0; i < MOST_LAYERS; i++)
        costs[i] = 1;
    expect_ok(heed_pipeline_partition(costs, 10, 0, 0, 3, starts, &slowest));
    assert_memory_equal(starts, ((int32_t[]){0, 4, 8, 10}), 4 * sizeof(*starts));
    assert_int_equal(slowest, 4);
    /* An embedding and a head that cost a layer each: 4p - 2 layers fill p stages evenly. */
    expect_ok(heed_pipeline_partition(costs, 14, 1, 1, 4, starts, &slowest));
    assert_memory_equal(starts, ((int32_t[]){0, 3, 7, 11, 14}), 5 * sizeof(*starts));
    assert_int_equal(slowest, 4);
    for (int i = 0; i < MOST_LAYERS; i++)
        costs[i] = INT64_C(1000000000) + i * 7919 % 104729;
    for (int i = 0; i < 20; i++) {
        struct timespec from, to;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        expect_ok(heed_pipeline_partition(costs, MOST_LAYERS, 500, 900, MOST_STAGES, starts, NULL));
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        double ms =
            (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) * 1e-6;
        best = ms < best ? ms : best;
    }
    printf("128 layers in 64 stages: %.4f ms\n", best);
    assert_true(best < 1);
}

static void test_partition_refused(void **state)
{
    int64_t costs[] = {1, -2, 3}, large[] = {INT64_C(1) << 62, 1};
    int32_t starts[8];
    (void)state;
    expect_fails(heed_pipeline_partition(NULL, 3, 0, 0, 2, starts, NULL), HEED_ERROR_NULL, "costs");
    expect_fails(heed_pipeline_partition(costs, 3, 0, 0, 2, NULL, NULL), HEED_ERROR_NULL, "starts");
    expect_fails(heed_pipeline_partition(costs, 3, 0, 0, 2, starts, NULL), HEED_ERROR_VALUE,
                 "costs[1]=-2 is below 0");
    expect_fails(heed_pipeline_partition(costs, 1, -1, 0, 1, starts, NULL), HEED_ERROR_VALUE,
                 "embedding=-1");
    expect_fails(heed_pipeline_partition(costs, 0, 0, 0, 1, starts, NULL), HEED_ERROR_VALUE,
                 "layers=0");
    expect_fails(heed_pipeline_partition(costs, 3, 0, 0, 0, starts, NULL), HEED_ERROR_VALUE,
                 "stages=0 is not 1 to 3");
    expect_fails(heed_pipeline_partition(large, 2, 0, 0, 1, starts, NULL), HEED_ERROR_VALUE,
                 "more than 2^62");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition),
        cmocka_unit_test(test_partition_known),
        cmocka_unit_test(test_partition_refused),
    };
    return cmocka_run_group_tests_name("partition", tests, NULL, NULL);
}
