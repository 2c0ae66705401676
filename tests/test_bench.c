/* heed bench: statistics, problem lists, the problem that stands for a large one, what binds a
 * result, the reports, and implementations that are wrong. */
#define _GNU_SOURCE
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- statistics ------------------------------------------------------------------------------ */

static void assert_near(double a, double b)
{
    if (fabs(a - b) > 1e-12)
        fail_msg("%.17g is not %.17g", a, b);
}

static void test_stats(void **state)
{
    static const double odd[] = {5, 1, 100, 3, 2};
    static const double even[] = {4, 1, 3, 2};
    bench_stats_t stats = bench_stats(odd, 5);

    (void)state;
    assert_near(stats.median, 3);
    assert_near(stats.mad, 2); /* of 2, 2, 97, 0, 1 */
    assert_near(stats.min, 1);
    assert_near(stats.max, 100);
    stats = bench_stats(even, 4);
    assert_near(stats.median, 2.5);
    assert_near(stats.mad, 1); /* of 1.5, 1.5, 0.5, 0.5 */
    stats = bench_stats(odd, 1);
    assert_near(stats.median, 5);
    assert_near(stats.mad, 0);
    assert_true(isnan(bench_stats(odd, 0).median));
}

static void test_percentile(void **state)
{
    static const double sorted[] = {10, 20, 30, 40, 50};

    (void)state;
    assert_near(bench_percentile(sorted, 5, 0), 10);
    assert_near(bench_percentile(sorted, 5, 25), 20);
    assert_near(bench_percentile(sorted, 5, 90), 46);
    assert_near(bench_percentile(sorted, 5, 100), 50);
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

/* ---- what binds a result --------------------------------------------------------------------- */

static bench_run_t sample_run(void)
{
    static const bench_options_t options = {.op = "attention"};
    bench_run_t run = {.options = &options};

    run.cpu.cores = 4;
    run.cpu.threads = 2;
    run.cpu.cache_count = 2;
    run.cpu.caches[0] = (heed_cache_info_t){.level = 2, .sharing = 1, .bytes = 1 << 20};
    run.cpu.caches[1] = (heed_cache_info_t){.level = 3, .sharing = 4, .bytes = 16 << 20};
    run.limits = (bench_limits_t){.fma_f32 = 100e9,
                                  .fma_f32_avx2 = 50e9,
                                  .dot_bf16 = 200e9,
                                  .read = 10e9,
                                  .l3_read = 40e9,
                                  .l2_read = 80e9};
    return run;
}

static bench_result_t sample_result(const char *dtype, double flops, double bytes)
{
    bench_result_t result = {.threads = 2, .device = "cpu", .flops = flops, .bytes = bytes};

    snprintf(result.dtype, sizeof(result.dtype), "%s", dtype);
    result.stats = (bench_stats_t){.median = 1e6, .mad = 1e3, .min = 9e5, .max = 2e6};
    result.max_err = NAN;
    result.estimate_ns = NAN;
    return result;
}

static void assert_bound(const bench_run_t *run, bench_result_t result, const char *limit,
                         double fraction)
{
    bench_judge(run, &result);
    assert_string_equal(result.limit, limit);
    assert_near(result.fraction_of_limit, fraction);
}

static void test_judge(void **state)
{
    bench_run_t run = sample_run();
    bench_result_t result = sample_result("f32", 1, 1);

    (void)state;
    assert_bound(&run, sample_result("f32", 80e6, 1e6), "fma_f32", 0.8);
    assert_bound(&run, sample_result("bf16", 80e6, 1e6), "dot_bf16", 0.4);
    assert_bound(&run, sample_result("f16", 80e6, 1e6), "fma_f32", 0.8);
    assert_bound(&run, sample_result("f32", 1, 1.5e6), "l2_read", 1.5 / 80);
    assert_bound(&run, sample_result("f32", 1, 8e6), "l3_read", 0.2);
    assert_bound(&run, sample_result("f32", 1, 80e6), "read", 8);
    run.limits.tile_bf16 = 400e9;
    assert_bound(&run, sample_result("bf16", 80e6, 1e6), "tile_bf16", 0.2);
    run.limits.tile_bf16 = run.limits.dot_bf16 = run.limits.l3_read = 0;
    assert_bound(&run, sample_result("bf16", 80e6, 1e6), "fma_f32", 0.8);
    assert_bound(&run, sample_result("f32", 1, 8e6), "read", 0.8);
    strcpy(result.device, "cuda:0");
    bench_judge(&run, &result);
    assert_null(result.limit);
    assert_true(isnan(result.fraction_of_limit));
}

static void test_limits(void **state)
{
    bench_limits_t limits = {.fma_f32 = 100, .read = 10};
    bench_limits_t after = {.fma_f32 = 90, .read = 10.5, .l3_read = 7};
    bench_run_t run = sample_run();

    (void)state;
    assert_near(bench_limits_merge(&limits, &after), 0.1);
    assert_near(limits.fma_f32, 100);
    assert_near(limits.read, 10.5);
    assert_near(limits.l3_read, 7);
    assert_near(heed_cache_bytes(&run.cpu, 2, 3), 3 << 20);
    assert_near(heed_cache_bytes(&run.cpu, 2, 9), 4 << 20);
    assert_near(heed_cache_bytes(&run.cpu, 3, 2), 16 << 20);
    assert_near(heed_cache_bytes(&run.cpu, 1, 2), 0);
}

/* Every kernel for instruction sets that are there, with more threads than processors too. */
static void test_limits_measured(void **state)
{
    heed_device_info_t cpu = {.struct_size = sizeof(cpu)};
    heed_context_t *context;

    (void)state;
    assert_int_equal(heed_context_create(NULL, &context), HEED_OK);
    assert_int_equal(heed_device_info(context, 0, &cpu), HEED_OK);
    heed_context_destroy(context);
    cpu.memory_bytes = 64 << 20; /* a quarter of it is read: not the point here */
    bench_limits_t limits = bench_limits_measure(&cpu, 3, 0.1);
    assert_true(limits.fma_f32 > 1e8);
    assert_true(limits.read > 1e7);
    assert_int_equal(limits.fma_f32_avx2 > 0, (cpu.isa & HEED_ISA_AVX2) != 0);
    assert_int_equal(limits.dot_bf16 > 0, (cpu.isa & HEED_ISA_AVX512BF16) != 0);
    assert_int_equal(limits.tile_bf16 > 0, (cpu.isa & HEED_ISA_AMX) != 0);
    for (uint64_t isa = 0; isa <= cpu.isa; isa = isa * 2 + 1) {
        bench_kernels_t kernels = bench_kernels(isa);
        static _Alignas(64) char data[4096];
        assert_true(kernels.fma_f32(data, 0) > 0);
        assert_near(kernels.read(data, sizeof(data)), sizeof(data));
        assert_near(kernels.read_prefetch(data, sizeof(data)), sizeof(data));
    }
}

/* ---- reports --------------------------------------------------------------------------------- */

static char *written(void (*report)(const bench_run_t *, FILE *), const bench_run_t *run)
{
    enum { SIZE = 1 << 16 };
    char *text = bench_realloc(NULL, SIZE);
    FILE *to = fmemopen(text, SIZE, "w");

    assert_non_null(to);
    report(run, to);
    assert_int_equal(fclose(to), 0);
    return text;
}

static void json_report(const bench_run_t *run, FILE *to)
{
    assert_true(bench_report_json(run, to));
}

/* A run with one result that has everything, one that has only what is always there, and misses. */
static bench_run_t report_run(bench_result_t *results, bench_miss_t *misses)
{
    static double samples[] = {1.1e6, 1e6, 0.9e6};
    bench_run_t run = sample_run();

    results[0] = sample_result("f32", 80e6, 1e6);
    results[0].prob = "attention dtype=f32 b=1 sq=64 causal=0 window=-1,-1 layout=bshd";
    results[0].label = "a \"model\"";
    results[0].samples = samples;
    results[0].sample_count = 3;
    results[0].estimate_ns = 1.25e6;
    results[0].max_err = 2e-7;
    results[0].checked = results[0].prob;
    results[1] = sample_result("bf16", 0, 0);
    results[1].prob = "attention dtype=bf16 b=0 causal=1";
    results[1].label = "";
    results[1].is_auto = true;
    for (int i = 0; i < 2; i++) {
        strcpy(results[i].impl, "cpu:flash_scalar");
        bench_judge(&run, &results[i]);
    }
    for (int i = 0; i < 3; i++) {
        misses[i] = (bench_miss_t){.prob = i ? "B" : "A", .why = "no reason", .wrong = i == 2};
        strcpy(misses[i].impl, "cpu:other");
    }
    run.results = results;
    run.result_count = 2;
    run.misses = misses;
    run.miss_count = 3;
    run.limits_drift = 0.25;
    return run;
}

static void test_markdown(void **state)
{
    bench_result_t results[2];
    bench_miss_t misses[3];
    bench_run_t run = report_run(results, misses);
    char *text = written(bench_report_markdown, &run);

    (void)state;
    assert_non_null(strstr(text, "differ by up to 25 %"));
    assert_non_null(strstr(text, "| a \"model\" | `dtype=f32 b=1 sq=64` "));
    assert_non_null(strstr(text, "`dtype=bf16 b=0 causal=1`"));
    assert_non_null(strstr(text, "| cpu:flash_scalar (auto) |"));
    assert_non_null(strstr(
        text,
        "| 1.000 | 0.0010 |    80.0 |  1.0 | fma_f32  |   80.0 % |        1.250 |       1.25 |"));
    assert_non_null(strstr(text, "Predictions (peaks assumed): 1 of 1 within a factor of 1.5, the "
                                 "worst 1.25: `attention dtype=f32 "));
    assert_non_null(strstr(text, "- cpu:other refuses `A` and 1 more: no reason\n"));
    assert_non_null(strstr(text, "- cpu:other FAILED `B`: no reason\n"));
    free(text);
}

static void test_csv(void **state)
{
    bench_result_t results[2];
    bench_miss_t misses[3];
    bench_run_t run = report_run(results, misses);
    char *text = written(bench_report_csv, &run);
    char *line = strchr(text, '\n') + 1;

    (void)state;
    assert_memory_equal(text, "prob,label,impl,", 16);
    assert_non_null(
        strstr(line, "\"a \"\"model\"\"\",cpu:flash_scalar,cpu,f32,2,1000000,1000,900000,"
                     "3,80000000,1000000,80.000,1.000,fma_f32,0.8000,1250000,1.2500,2.000e-07"));
    assert_non_null(strstr(line, ",,,,\"\"\n")); /* neither estimate nor error */
    free(text);
}

static void assert_keys(const json_t *object, const char *keys)
{
    char found[512] = "";
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value) snprintf(
        found + strlen(found), sizeof(found) - strlen(found), "%s%s", found[0] ? " " : "", key);
    assert_string_equal(found, keys);
}

static void test_json(void **state)
{
    bench_result_t results[2];
    bench_miss_t misses[3];
    bench_run_t run = report_run(results, misses);

    (void)state;
    run.limits.dot_bf16 = 0;
    setenv("HEED_BENCH_TEST", "a=b", 1);
    char *text = written(json_report, &run);
    unsetenv("HEED_BENCH_TEST");
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    assert_keys(root, "schema context results refused failed");
    assert_string_equal(json_string_value(json_object_get(root, "schema")), "heed-bench-1");
    json_t *context = json_object_get(root, "context");
    assert_keys(context, "version commit compiler cpu threads env isa limits limits_drift");
    json_t *env = json_object_get(context, "env");
    assert_string_equal(json_string_value(json_object_get(env, "HEED_BENCH_TEST")), "a=b");
    json_t *limits = json_object_get(context, "limits");
    assert_keys(limits, "fma_f32_gflops fma_f32_avx2_gflops dot_bf16_gflops tile_bf16_gflops "
                        "read_gbps l3_read_gbps "
                        "l2_read_gbps "
                        "matmul_f32_gflops matmul_bf16_gflops matmul_f16_gflops copy_gbps");
    assert_near(json_real_value(json_object_get(limits, "fma_f32_gflops")), 100);
    assert_true(json_is_null(json_object_get(limits, "dot_bf16_gflops")));
    json_t *result = json_array_get(json_object_get(root, "results"), 0);
    assert_keys(
        result,
        "prob label impl device dtype threads median_ns min_ns samples_ns flops bytes "
        "gflops gbps limit fraction_of_limit copy_ns estimate_ns predicted max_err checked");
    assert_near(json_real_value(json_object_get(result, "predicted")), 1.25);
    assert_int_equal(json_integer_value(json_object_get(result, "median_ns")), 1000000);
    assert_int_equal(json_array_size(json_object_get(result, "samples_ns")), 3);
    assert_near(json_real_value(json_object_get(result, "fraction_of_limit")), 0.8);
    result = json_array_get(json_object_get(root, "results"), 1);
    assert_true(json_is_null(json_object_get(result, "max_err")));
    assert_true(json_is_null(json_object_get(result, "checked")));
    assert_int_equal(json_array_size(json_object_get(root, "refused")), 2);
    assert_int_equal(json_array_size(json_object_get(root, "failed")), 1);
    json_decref(root);
    free(text);
}

static void test_json_full_disk(void **state)
{
    bench_run_t run = sample_run();
    FILE *to = fopen("/dev/full", "w");

    (void)state;
    if (!to)
        skip();
    setvbuf(to, NULL, _IONBF, 0);
    assert_false(bench_report_json(&run, to));
    fclose(to);
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

/* ---- the command ----------------------------------------------------------------------------- */

/* Runs it and returns its exit status; *output, from malloc, is what it wrote to both streams. */
static int run_command(const char *arguments, char **output)
{
    char command[1024];
    size_t size = 0, used;

    snprintf(command, sizeof(command), "'%s' bench 2>&1 %s", HEED_CLI, arguments);
    FILE *from = popen(command, "r");
    assert_non_null(from);
    *output = NULL;
    do {
        *output = bench_realloc(*output, size + 4096);
        used = fread(*output + size, 1, 4095, from);
        size += used;
    } while (used);
    (*output)[size] = '\0';
    int status = pclose(from);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void assert_command(const char *arguments, int status, const char *sentence)
{
    char *output;
    int got = run_command(arguments, &output);

    if (got != status || !strstr(output, sentence))
        fail_msg("heed bench %s: exit status %d\n%s", arguments, got, output);
    free(output);
}

static void test_usage(void **state)
{
    (void)state;
    assert_command("", 2, "which operation?");
    assert_command("knitting", 2, "there is no operation knitting");
    assert_command("cast attention", 2, "one operation at a time");
    assert_command("n=5 cast", 2, "the operation comes before the words of a problem: n=5");
    assert_command("cast m=1", 2, "--prob: ");
    assert_command("cast src=f32 dst=bf16 n=77 --dry-run", 0, "src=f32 dst=bf16 n=77");
    assert_command("'cast src=f32 n=78' dst=bf16 --dry-run", 0, "src=f32 dst=bf16 n=78");
    assert_command("cast --threads 0", 2, "--threads takes a number from 1");
    assert_command("cast --seconds nan", 2, "--seconds takes a number");
    assert_command("cast -o xml", 2, "--output takes md, csv or json");
    assert_command("cast --samples 5x", 2, "--samples takes a number");
    assert_command("cast --prob 'attention sq=1'", 2,
                   "this is a problem of attention, not of cast");
    assert_command("cast --prob 'cast m=1'", 2, "--prob: ");
    assert_command("cast --prob 'cast n=1' --dtype f99", 2, "f99");
    assert_command("cast --prob 'cast n=1' --impl cpu:none", 2, "is called cpu:none; there are:");
    assert_command("cast --prob 'cast n=1' --impl ,", 2, "--impl names no implementation");
    assert_command("cast --prob 'cast n=1' --max-isa mmx", 2, "mmx");
    assert_command("attention --shapes /nowhere", 2, "/nowhere: No such file");
    assert_command("--help", 0, "--no-check");
}

static void test_dry_run(void **state)
{
    (void)state;
    assert_command("attention --dry-run --impl cpu:standard --dtype f16", 0, "# GPT-2 prefill");
    assert_command("cast --dry-run --prob 'cast n=77' --threads 3", 0, " n=77");
}

static void test_command(void **state)
{
    char *output;

    (void)state;
    assert_int_equal(
        run_command("attention --prob 'attention sq=33 sk=65 d=24' --impl 'auto,cpu:*' "
                    "--dtype f32,bf16 --seconds 0 --samples 3 --threads 1 "
                    "--max-isa scalar -o json 2>/dev/null",
                    &output),
        0);
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    json_t *results = json_object_get(root, "results");
    /* decode, short, flash and standard, twice; auto is one of them. */
    assert_int_equal(json_array_size(results), 8);
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *result = json_array_get(results, i);
        assert_true(json_is_real(json_object_get(result, "max_err")));
        assert_true(json_is_real(json_object_get(result, "fraction_of_limit")));
        assert_true(json_integer_value(json_object_get(result, "median_ns")) > 0);
        assert_int_equal(json_array_size(json_object_get(result, "samples_ns")), 3);
    }
    assert_int_equal(json_array_size(json_object_get(root, "failed")), 0);
    json_t *refused = json_object_get(root, "refused");
    assert_true(json_array_size(refused) > 0); /* the ISAs that scalar leaves out */
    json_decref(root);
    free(output);
    assert_command("cast --prob 'cast n=5000' --impl 'cpu:*' --seconds 0 --no-check", 0,
                   "`src=f32 dst=bf16 n=5000`");
    /* Outputs of types with no number in common with f32: codes of E8M0, counts. */
    assert_command("cast --impl cpu:cast_scalar --seconds 0 --prob 'cast src=f32 dst=e4m3 n=4096 "
                   "rows=4 scale=block block=1,32 compute=1 form=mx use=divides scale_dtype=e8m0 "
                   "counts=1'",
                   0, "scale_dtype=e8m0 counts=1`");
}

/* Results of heed bench sparse or ring, of which the first is plain attention. */
static json_t *run_beside(const char *arguments, size_t count, const char *beside)
{
    char command[BENCH_TEXT], *output;
    snprintf(command, sizeof(command), "%s --seconds 0 --samples 2 -o json 2>/dev/null", arguments);
    assert_int_equal(run_command(command, &output), 0);
    json_t *root = json_loads(output, 0, NULL);
    free(output);
    assert_non_null(root);
    json_t *results = json_object_get(root, "results");
    assert_int_equal(json_array_size(results), count);
    assert_null(json_object_get(json_array_get(results, 0), "beside"));
    for (size_t i = 1; i < count; i++) {
        const json_t *result = json_array_get(results, i);
        assert_string_equal(json_string_value(json_object_get(result, "beside")), beside);
        assert_true(json_real_value(json_object_get(result, "of_beside")) > 0);
        assert_true(json_real_value(json_object_get(result, "max_err")) < 1e-5);
        assert_int_equal(json_array_size(json_object_get(result, "samples_ns")), 2);
    }
    return root;
}

static void test_beside(void **state)
{
    (void)state;
    json_t *root = run_beside("sparse --prob 'attention sq=512 hq=1 d=16 "
                              "tiles=text:blocks:128'",
                              2, "dense");
    const json_t *sparse = json_array_get(json_object_get(root, "results"), 1);
    assert_near(json_real_value(json_object_get(sparse, "density")), 0.25);
    assert_true(json_integer_value(json_object_get(sparse, "list_ns")) > 0);
    json_decref(root);
    root = run_beside("ring --prob 'attention sq=500 hq=2 hk=1 d=16 causal=1'", 4, "single pass");
    const json_t *ring = json_array_get(json_object_get(root, "results"), 3);
    assert_string_equal(json_string_value(json_object_get(ring, "impl")), "ring of 4, zigzag");
    json_decref(root);
    json_decref(run_beside("ring --prob 'attention sq=100 sk=300 hq=1 d=16'", 2, "single pass"));
    assert_command("sparse --prob 'attention sq=256 hq=1 d=16' --seconds 0", 1,
                   "has no tiles=text:VISIBILITY");
    assert_command("sparse --prob 'attention sq=256 hq=1 d=16 tiles=text:spiral'", 1,
                   "'spiral' is no term");
    assert_command("ring --device cuda", 2, "ring runs on the CPU");
    assert_command("sparse --prob 'attention sq=256 hq=1 d=16 tiles=text:all' --samples 1 "
                   "--seconds 0 --no-check",
                   0, "| list, of the attention |");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stats),       cmocka_unit_test(test_percentile),
        cmocka_unit_test(test_items),       cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_dtypes), cmocka_unit_test(test_list_errors),
        cmocka_unit_test(test_reduce),      cmocka_unit_test(test_judge),
        cmocka_unit_test(test_limits),      cmocka_unit_test(test_limits_measured),
        cmocka_unit_test(test_markdown),    cmocka_unit_test(test_csv),
        cmocka_unit_test(test_json),        cmocka_unit_test(test_json_full_disk),
        cmocka_unit_test(test_wrong),       cmocka_unit_test(test_usage),
        cmocka_unit_test(test_dry_run),     cmocka_unit_test(test_command),
        cmocka_unit_test(test_beside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
