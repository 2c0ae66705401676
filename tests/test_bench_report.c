/* heed bench: what binds a result, the limits of the machine, and the reports. */
#define _GNU_SOURCE
#include "expect.h"

#include "bench.h"

#include <jansson.h>
#include <stdlib.h>

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
    expect_number(result.fraction_of_limit, fraction);
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
    expect_number(bench_limits_merge(&limits, &after), 0.1);
    expect_number(limits.fma_f32, 100);
    expect_number(limits.read, 10.5);
    expect_number(limits.l3_read, 7);
    expect_number(heed_cache_bytes(&run.cpu, 2, 3), 3 << 20);
    expect_number(heed_cache_bytes(&run.cpu, 2, 9), 4 << 20);
    expect_number(heed_cache_bytes(&run.cpu, 3, 2), 16 << 20);
    expect_number(heed_cache_bytes(&run.cpu, 1, 2), 0);
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
        expect_number(kernels.read(data, sizeof(data)), sizeof(data));
        expect_number(kernels.read_prefetch(data, sizeof(data)), sizeof(data));
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
    expect_number(json_real_value(json_object_get(limits, "fma_f32_gflops")), 100);
    assert_true(json_is_null(json_object_get(limits, "dot_bf16_gflops")));
    json_t *result = json_array_get(json_object_get(root, "results"), 0);
    assert_keys(
        result,
        "prob label impl device dtype threads median_ns min_ns samples_ns flops bytes "
        "gflops gbps limit fraction_of_limit copy_ns estimate_ns predicted max_err checked");
    expect_number(json_real_value(json_object_get(result, "predicted")), 1.25);
    assert_int_equal(json_integer_value(json_object_get(result, "median_ns")), 1000000);
    assert_int_equal(json_array_size(json_object_get(result, "samples_ns")), 3);
    expect_number(json_real_value(json_object_get(result, "fraction_of_limit")), 0.8);
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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_limits_measured),
        cmocka_unit_test(test_markdown),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_full_disk),
    };

    return cmocka_run_group_tests_name("bench_report", tests, NULL, NULL);
}
