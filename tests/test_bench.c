/* heed bench: statistics, problem lists, the problem that stands for a large one, and
 * implementations that are wrong. */
#define _GNU_SOURCE
#include "expect.h"

#include "bench.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- statistics ------------------------------------------------------------------------------ */

static void test_stats(void **state)
{
    static const double odd[] = {5, 1, 100, 3, 2};
    static const double even[] = {4, 1, 3, 2};
    bench_stats_t stats = bench_stats(odd, 5);

    (void)state;
    expect_number(stats.median, 3);
    expect_number(stats.mad, 2); /* of 2, 2, 97, 0, 1 */
    expect_number(stats.min, 1);
    expect_number(stats.max, 100);
    stats = bench_stats(even, 4);
    expect_number(stats.median, 2.5);
    expect_number(stats.mad, 1); /* of 1.5, 1.5, 0.5, 0.5 */
    stats = bench_stats(odd, 1);
    expect_number(stats.median, 5);
    expect_number(stats.mad, 0);
    assert_true(isnan(bench_stats(odd, 0).median));
}

static void test_percentile(void **state)
{
    static const double sorted[] = {10, 20, 30, 40, 50};

    (void)state;
    expect_number(bench_percentile(sorted, 5, 0), 10);
    expect_number(bench_percentile(sorted, 5, 25), 20);
    expect_number(bench_percentile(sorted, 5, 90), 46);
    expect_number(bench_percentile(sorted, 5, 100), 50);
    assert_true(isnan(bench_percentile(sorted, 0, 50)));
}

static void test_items(void **state)
{
    const char *list = ",auto,,cpu:flash_*,too-long-a-name,";
    char item[12];

    (void)state;
    assert_true(bench_next_item(&list, item, sizeof(item)));
    assert_string_equal(item, "auto");
    assert_true(bench_next_item(&list, item, sizeof(item)));
    assert_string_equal(item, "cpu:flash_*");
    assert_true(bench_next_item(&list, item, sizeof(item)));
    assert_string_equal(item, "too-long-a-");
    assert_false(bench_next_item(&list, item, sizeof(item)));
}

/* ---- problem lists --------------------------------------------------------------------------- */

static bool read_text(bench_problems_t *problems, const char *text, const char *dtypes)
{
    char path[] = "/tmp/heed-bench-XXXXXX";
    int file = mkstemp(path);

    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
    bool good = bench_problems_read(problems, "attention", path, dtypes);
    unlink(path);
    return good;
}

static void test_list(void **state)
{
    bench_problems_t problems = {0};

    (void)state;
    assert_true(read_text(&problems,
                          "# a list\n\n  \t\nattention sq=32 # first one \r\n"
                          "cast n=5\nattention  d=32   sq=7\nattention sq=32 # again\n"
                          "attention2 x\nattention sq=9",
                          NULL));
    assert_int_equal(problems.count, 3);
    assert_int_equal(problems.other, 2);
    assert_string_equal(problems.items[0].label, "first one");
    assert_non_null(strstr(problems.items[0].text, " sq=32 "));
    assert_string_equal(problems.items[1].label, "");
    assert_non_null(strstr(problems.items[2].text, " sq=9 "));
    bench_problems_free(&problems);
}

static void test_list_dtypes(void **state)
{
    bench_problems_t problems = {0};

    (void)state;
    assert_true(read_text(&problems, "attention sq=3 dtype=f16 # x\nattention sq=3\n", "f32,bf16"));
    assert_int_equal(problems.count, 2); /* the lines differ in nothing else */
    assert_non_null(strstr(problems.items[0].text, "dtype=f32 "));
    assert_non_null(strstr(problems.items[1].text, "dtype=bf16 "));
    assert_true(bench_problems_add(&problems, "cast", "cast n=3", NULL, "f16", "--prob"));
    assert_non_null(strstr(problems.items[2].text, "src=f16 "));
    bench_problems_free(&problems);
}

static void test_list_errors(void **state)
{
    bench_problems_t problems = {0};

    (void)state;
    assert_false(read_text(&problems, "attention sq=1\nattention sq=one\n", NULL));
    assert_false(read_text(&problems, "attention sq=1\n", "f31"));
    assert_false(bench_problems_read(&problems, "attention", "/nowhere/list.txt", NULL));
    assert_false(bench_problems_read(&problems, "attention", "/", NULL));
    assert_false(bench_problems_add(&problems, "attention", "cast n=3", NULL, NULL, "--prob"));
    bench_problems_free(&problems);
}

/* ---- the problem that stands for a large one ------------------------------------------------- */

static void assert_reduces(const char *text, const char *words)
{
    char reduced[BENCH_TEXT];
    heed_problem_t *problem;
    char expected[BENCH_TEXT];

    assert_true(bench_reduce(text, reduced, sizeof(reduced)));
    assert_int_equal(heed_problem_parse(words, &problem), HEED_OK);
    heed_problem_text(problem, expected, sizeof(expected));
    heed_problem_destroy(problem);
    assert_string_equal(reduced, expected);
}

static void test_reduce(void **state)
{
    (void)state;
    /* Small enough as it is. */
    assert_reduces("attention b=2 sq=100 sk=70 hq=4 hk=2 d=40",
                   "attention b=2 sq=100 sk=70 hq=4 hk=2 d=40");
    /* Two groups of the same ratio, remainders kept, keys still more than queries. */
    assert_reduces("attention b=4 sq=2000 sk=3000 hq=32 hk=8 d=128 causal=1",
                   "attention b=1 sq=464 sk=696 hq=8 hk=2 d=128 causal=1");
    /* A window that must still be narrower than the keys. */
    assert_reduces("attention dtype=bf16 sq=8192 sk=8192 hq=4 hk=4 d=64 causal=1 window=511,0",
                   "attention dtype=bf16 sq=1024 sk=1024 hq=2 hk=2 d=64 causal=1 window=511,0");
    assert_reduces("attention sq=1 sk=65536 hq=32 hk=8 d=128 layout=bhsd",
                   "attention sq=1 sk=16384 hq=8 hk=2 d=128 layout=bhsd");
    assert_reduces("cast n=100000001", "cast n=1433857");
}

/* ---- implementations that are wrong ---------------------------------------------------------- */

static const heed_impl_t *standard;
static int64_t most_queries; /* up to here the implementation below is right */
static heed_status_t beyond; /* and what it returns for more */

static heed_status_t run_broken(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = launch->desc;

    return desc->q.shape[1] > most_queries ? beyond : standard->run(launch);
}

static double estimate_broken(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)desc;
    (void)device;
    (void)threads;
    return 0;
}

/* The run's only contender chooses the broken implementation, since it promises to take no time. */
static bench_run_t broken_run(const bench_options_t *options, bench_contender_t *contender)
{
    bench_run_t run = {.options = options,
                       .device = {HEED_DEVICE_CPU, 0},
                       .contenders = contender,
                       .contender_count = 1};
    const heed_impl_t *impl;

    strcpy(contender->name, "cpu:broken");
    assert_int_equal(bench_context(options, NULL, &contender->context), HEED_OK);
    for (int i = 0; (impl = heed_impl_at(contender->context, i)); i++)
        if (!strcmp(impl->name, "cpu:standard") && !strcmp(impl->op, "attention"))
            standard = impl;
    heed_impl_t broken = *standard;
    broken.name = "cpu:broken";
    broken.run = run_broken;
    broken.estimate = estimate_broken;
    assert_int_equal(heed_register_impl(contender->context, &broken), HEED_OK);
    for (int i = 0; (impl = heed_impl_at(contender->context, i)); i++)
        if (!strcmp(impl->name, "cpu:standard") && !strcmp(impl->op, "attention"))
            standard = impl;
    run.context = contender->context;
    return run;
}

/* Runs it on a problem that is too large to be checked itself; `why` NULL: there is a result. */
static void assert_broken(bool check, const char *why)
{
    static char text[] = "attention sq=3000 sk=1300 hq=2 hk=2 d=16", label[] = "";
    bench_options_t options = {
        .op = "attention", .threads = 2, .seconds = 0, .samples = 2, .check = check};
    bench_problem_t problem = {text, label};
    bench_contender_t contender;
    bench_run_t run = broken_run(&options, &contender);

    bench_problem(&run, &problem);
    assert_int_equal(run.result_count, why == NULL);
    assert_int_equal(run.miss_count, why != NULL);
    if (why) {
        assert_true(run.misses[0].wrong);
        assert_string_equal(run.misses[0].impl, "cpu:broken");
        if (!strstr(run.misses[0].why, why))
            fail_msg("\"%s\" does not hold \"%s\"", run.misses[0].why, why);
    } else {
        assert_string_equal(run.results[0].impl, "cpu:broken");
        assert_int_equal(run.results[0].sample_count, 2);
        assert_int_equal(run.results[0].checked != NULL, check);
    }
    bench_clear(&run);
    heed_context_destroy(run.context);
}

static void test_wrong(void **state)
{
    (void)state;
    beyond = HEED_OK;
    most_queries = INT64_MAX;
    assert_broken(true, NULL);
    most_queries = 100; /* the check sees it */
    assert_broken(true, "wrong: ");
    assert_broken(false, NULL);
    most_queries = 2048; /* only the full size shows it */
    assert_broken(true, "out holds NaN");
    beyond = HEED_ERROR_INTERNAL;
    assert_broken(false, "execution failed");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stats),       cmocka_unit_test(test_percentile),
        cmocka_unit_test(test_items),       cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_dtypes), cmocka_unit_test(test_list_errors),
        cmocka_unit_test(test_reduce),      cmocka_unit_test(test_wrong),
    };

    return cmocka_run_group_tests_name("bench", tests, NULL, NULL);
}
