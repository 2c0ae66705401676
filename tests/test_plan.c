/* Plans: what executing refuses, what a plan tells, and which implementation it has. */
#define _GNU_SOURCE
#include "small_context.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- executing ------------------------------------------------------------------------------- */

typedef struct ready {
    heed_plan_t *plan;
    size_t bytes;
    char *workspace;
} ready_t;

static ready_t get_ready(const char *impl)
{
    ready_t ready = {0};
    size_t align;
    heed_context_destroy(context);
    context = expect_context(impl);
    expect_ok(heed_attention_plan(context, &small.desc, &ready.plan));
    expect_ok(heed_plan_workspace(ready.plan, &ready.bytes, &align));
    assert_int_equal(align & (align - 1), 0);
    ready.workspace = aligned_alloc(align, (ready.bytes + 2 * align) / align * align);
    assert_non_null(ready.workspace);
    return ready;
}

static heed_status_t execute(const ready_t *ready, int count)
{
    return heed_plan_execute(ready->plan, small.buffers, count, ready->workspace, ready->bytes,
                             NULL);
}

static void end_ready(ready_t *ready)
{
    heed_plan_destroy(ready->plan);
    free(ready->workspace);
}

static void execute_checks_its_operands(void **state)
{
    ready_t ready = get_ready(NULL);
    (void)state;
    expect_ok(execute(&ready, HEED_ATTENTION_OPERANDS));
    expect_fails(execute(&ready, 4), HEED_ERROR_VALUE, "buffer_count=4");
    expect_fails(execute(&ready, HEED_ATTENTION_OPERANDS + 1), HEED_ERROR_VALUE,
                 "buffer_count=16: this plan has 5 operands, attention at most 15");
    expect_fails(execute(&ready, -1), HEED_ERROR_VALUE, "buffer_count=-1");
    small.buffers[HEED_ATTENTION_K] = NULL;
    expect_fails(execute(&ready, 5), HEED_ERROR_NULL, "k, is null");
    small.buffers[HEED_ATTENTION_K] = (char *)small.k + 1;
    expect_fails(execute(&ready, 5), HEED_ERROR_ALIGNMENT, "k at");
    expect_fails(heed_plan_execute(NULL, small.buffers, 5, NULL, 0, NULL), HEED_ERROR_NULL, "plan");
    expect_fails(heed_plan_execute(ready.plan, NULL, 5, NULL, 0, NULL), HEED_ERROR_NULL, "buffers");
    end_ready(&ready);
}

static void absent_operands(void **state)
{
    (void)state;
    small.desc.lse.ndim = 0;
    ready_t ready = get_ready(NULL);
    expect_fails(execute(&ready, 5), HEED_ERROR_VALUE, "no lse");
    small.buffers[HEED_ATTENTION_LSE] = NULL;
    expect_ok(execute(&ready, 5));
    expect_ok(execute(&ready, 4));
    end_ready(&ready);
}

static void execute_checks_its_workspace(void **state)
{
    ready_t ready = get_ready("attention=cpu:standard");
    (void)state;
    assert_true(ready.bytes > 1);
    expect_ok(execute(&ready, 5));
    expect_fails(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes - 1, NULL),
        HEED_ERROR_WORKSPACE, "workspace_bytes=");
    expect_fails(heed_plan_execute(ready.plan, small.buffers, 5, NULL, ready.bytes, NULL),
                 HEED_ERROR_WORKSPACE, "workspace_bytes=0");
    expect_fails(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace + 8, ready.bytes, NULL),
        HEED_ERROR_WORKSPACE, "aligned");
    expect_ok(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes + 8, NULL));
    end_ready(&ready);
}

static void streams(void **state)
{
    ready_t ready = get_ready(NULL);
    heed_stream_t stream = {{HEED_DEVICE_CPU, 0}, NULL};
    (void)state;
    expect_ok(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes, &stream));
    stream.native = &stream;
    expect_fails(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes, &stream),
        HEED_ERROR_VALUE, "stream");
    end_ready(&ready);
}

/* The caller's descriptor and shapes may go once the plan is made. */
static void plans_keep_their_own_descriptor(void **state)
{
    small_t other;
    ready_t ready = get_ready(NULL);
    (void)state;
    expect_ok(execute(&ready, 5));
    small_init(&other);
    memcpy(other.out, small.out, sizeof(small.out));
    memset(&small.desc, 0xee, sizeof(small.desc));
    memset(small.shapes, 0xee, sizeof(small.shapes));
    memset(small.out, 0, sizeof(small.out));
    expect_ok(execute(&ready, 5));
    assert_memory_equal(small.out, other.out, sizeof(small.out));
    end_ready(&ready);
}

/* ---- what a plan says ------------------------------------------------------------------------ */

static void infos(void **state)
{
    ready_t ready = get_ready("attention=cpu:flash_scalar");
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    size_t bytes, align;
    (void)state;
    expect_ok(heed_plan_info(ready.plan, &info));
    assert_string_equal(info.op, "attention");
    assert_string_equal(info.impl, "cpu:flash_scalar");
    assert_int_equal(info.threads, 2);
    assert_int_equal(info.device.type, HEED_DEVICE_CPU);
    assert_int_equal(info.workspace_bytes, ready.bytes);
    assert_true(info.flops == 2.0 * 2 * 4 * 5 * 7 * (16 + 8));
    info.struct_size = 12;
    expect_fails(heed_plan_info(ready.plan, &info), HEED_ERROR_STRUCT_SIZE, "struct_size=12");
    expect_fails(heed_plan_info(ready.plan, NULL), HEED_ERROR_NULL, "info");
    expect_fails(heed_plan_info(NULL, &info), HEED_ERROR_NULL, "plan");
    expect_fails(heed_plan_workspace(NULL, &bytes, &align), HEED_ERROR_NULL, "plan");
    expect_fails(heed_plan_workspace(ready.plan, NULL, &align), HEED_ERROR_NULL, "bytes");
    expect_fails(heed_plan_workspace(ready.plan, &bytes, NULL), HEED_ERROR_NULL, "alignment");
    end_ready(&ready);
}

/* Masked pairs are no work. */
static void useful_flops(void **state)
{
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    heed_plan_t *plan = NULL;
    (void)state;
    small.desc.causal = 1; /* 5 queries on 7 keys: 3 + 4 + 5 + 6 + 7 pairs a head */
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    expect_ok(heed_plan_info(plan, &info));
    assert_true(info.flops == 2.0 * 2 * 4 * 25 * (16 + 8));
    heed_plan_destroy(plan);
}

static void verdicts(void **state)
{
    heed_verdict_t verdict;
    int chosen = 0, count = 0, seen = 0;
    ready_t ready = get_ready("attention=cpu:flash_scalar");
    (void)state;
    const heed_impl_t *impl;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++)
        count += strcmp(impl->op, "attention") == 0;
    for (; heed_plan_verdict(ready.plan, seen, &verdict); seen++) {
        assert_non_null(verdict.impl);
        assert_non_null(verdict.why);
        chosen += verdict.chosen;
        if (verdict.chosen)
            assert_string_equal(verdict.impl, "cpu:flash_scalar");
        if (verdict.status != HEED_OK) {
            assert_true(verdict.why[0]);
            assert_false(verdict.chosen);
        }
        if (strcmp(verdict.impl, "cpu:standard") == 0)
            assert_non_null(strstr(verdict.why, "HEED_IMPL"));
    }
    assert_int_equal(seen, count);
    assert_int_equal(chosen, 1);
    assert_false(heed_plan_verdict(ready.plan, -1, &verdict));
    assert_false(heed_plan_verdict(ready.plan, 0, NULL));
    assert_false(heed_plan_verdict(NULL, 0, &verdict));
    end_ready(&ready);
}

static void problem_strings(void **state)
{
    char text[512], cut[20];
    ready_t ready = get_ready(NULL);
    (void)state;
    size_t length = heed_plan_problem(ready.plan, text, sizeof(text));
    assert_int_equal(length, strlen(text));
    assert_string_equal(text, "attention dtype=f32 b=2 sq=5 sk=7 hq=4 hk=2 d=16 dv=8 causal=0 "
                              "window=-1,-1 lse=1 layout=bshd");
    assert_int_equal(heed_plan_problem(ready.plan, cut, sizeof(cut)), length);
    assert_memory_equal(cut, "attention dtype=f32", 20);
    assert_int_equal(heed_plan_problem(ready.plan, NULL, 0), length);
    end_ready(&ready);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static heed_status_t impl_with(const heed_context_config_t *config, char *name)
{
    heed_context_t *made = NULL;
    heed_plan_t *plan = NULL;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    expect_ok(heed_context_create(config, &made));
    heed_status_t status = heed_attention_plan(made, &small.desc, &plan);
    if (status == HEED_OK) {
        expect_ok(heed_plan_info(plan, &info));
        strcpy(name, info.impl);
    }
    heed_plan_destroy(plan);
    heed_context_destroy(made);
    return status;
}

static void forced_and_skipped(void **state)
{
    char name[64];
    heed_context_config_t config = heed_context_config();
    (void)state;
    config.ignore_environment = 1;
    config.impl = "cpu:standard";
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:standard");
    config.impl = "cpu:flash_sc*";
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:flash_scalar");
    config.impl = NULL;
    config.skip_impl = "cpu:flash_*,cpu:short_*,cpu:decode_*";
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:standard");
#if defined(__aarch64__)
    config.skip_impl = "attention=cpu:flash_n*,cpu:short_*,cpu:decode_*,attention=cpu:standard";
#elif defined(__x86_64__)
    config.skip_impl = "attention=cpu:flash_a*,cpu:short_*,cpu:decode_*,attention=cpu:standard";
#else
    config.skip_impl = "cpu:short_*,cpu:decode_*,attention=cpu:standard";
#endif
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:flash_scalar");
    config.skip_impl = "*";
    expect_fails(impl_with(&config, name), HEED_ERROR_UNSUPPORTED, "HEED_SKIP_IMPL");
    config.skip_impl = NULL;
    config.impl = "cpu:flash_scalr";
    expect_fails(impl_with(&config, name), HEED_ERROR_UNKNOWN_IMPL, "cpu:flash_scalar");
    config.impl = "cast=cpu:standard"; /* says nothing of attention */
    expect_ok(impl_with(&config, name));
    assert_string_not_equal(name, "cpu:standard");
}

static void capped_instruction_sets(void **state)
{
    char name[64];
    heed_context_config_t config = heed_context_config();
    (void)state;
    config.ignore_environment = 1;
    config.max_cpu_isa = "scalar";
    config.skip_impl = "cpu:short_*";
    expect_ok(impl_with(&config, name));
    assert_non_null(strstr(name, "_scalar"));
    config.impl = "cpu:flash_avx2";
    heed_status_t status = impl_with(&config, name);
#if defined(__x86_64__)
    expect_fails(status, HEED_ERROR_UNSUPPORTED, "avx2");
#else
    expect_fails(status, HEED_ERROR_UNKNOWN_IMPL, "cpu:flash_avx2");
#endif
}

/* A problem that the only allowed implementation does not do. */
static void unsupported_combinations(void **state)
{
#if defined(__x86_64__)
    char name[64];
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    config.impl = "cpu:flash_avx512bf16";
    expect_fails(impl_with(&config, name), HEED_ERROR_UNSUPPORTED, "cpu:flash_avx512bf16: ");
#else
    skip();
#endif
    (void)state;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(execute_checks_its_operands),
        TEST(absent_operands),
        TEST(execute_checks_its_workspace),
        TEST(streams),
        TEST(plans_keep_their_own_descriptor),
        TEST(infos),
        TEST(useful_flops),
        TEST(verdicts),
        TEST(problem_strings),
        TEST(forced_and_skipped),
        TEST(capped_instruction_sets),
        TEST(unsupported_combinations),
    };
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
