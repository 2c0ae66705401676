/* A user's own implementation: registering, being chosen, what run() gets, and names. */
#define _GNU_SOURCE
#include "expect.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

static heed_context_t *context;
static small_t small;

/* What the latest run() was given. */
static struct {
    int runs;
    heed_attention_desc_t desc;
    int64_t q_shape[4], q_strides[4], lse_strides[3];
    void *buffers[HEED_ATTENTION_OPERANDS];
    void *workspace, *user;
    size_t workspace_bytes;
    int32_t threads;
} seen;

static heed_status_t result;

static heed_status_t run_and_remember(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = launch->desc;
    seen.runs++;
    seen.desc = *desc;
    memcpy(seen.q_shape, desc->q.shape, sizeof(seen.q_shape));
    memcpy(seen.q_strides, desc->q.strides, sizeof(seen.q_strides));
    memset(seen.lse_strides, 0, sizeof(seen.lse_strides));
    if (desc->lse.ndim)
        memcpy(seen.lse_strides, desc->lse.strides, sizeof(seen.lse_strides));
    memcpy(seen.buffers, launch->buffers, sizeof(seen.buffers));
    seen.workspace = launch->workspace;
    seen.workspace_bytes = launch->workspace_bytes;
    seen.threads = launch->threads;
    seen.user = launch->user;
    return result;
}

static double estimate_value;

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)desc, (void)device, (void)threads;
    return estimate_value;
}

static size_t workspace(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)desc, (void)device;
    return 100 * (size_t)threads;
}

static int support_nothing(const void *desc, const heed_device_info_t *device, heed_why_t *why)
{
    (void)desc, (void)device;
    why->status = HEED_ERROR_UNSUPPORTED;
    strcpy(why->text, "only on Sundays");
    return 0;
}

static int support_silently_nothing(const void *desc, const heed_device_info_t *device,
                                    heed_why_t *why)
{
    (void)desc, (void)device, (void)why;
    return 0;
}

static heed_status_t prepare_nothing(heed_context_t *with, const void *desc, void **state,
                                     size_t *bytes)
{
    (void)with, (void)desc, (void)state, (void)bytes;
    return HEED_OK;
}

static heed_impl_t mine(void)
{
    heed_impl_t impl = {.struct_size = sizeof(impl),
                        .op = "attention",
                        .name = "cpu:mine",
                        .about = "a test",
                        .device_type = HEED_DEVICE_CPU,
                        .features = (UINT64_C(1) << 15) - 1,
                        .estimate = estimate,
                        .workspace = workspace,
                        .run = run_and_remember,
                        .user = &seen};
    return impl;
}

static int set_up(void **state)
{
    (void)state;
    memset(&seen, 0, sizeof(seen));
    result = HEED_OK;
    estimate_value = 1e-3;
    small_init(&small);
    context = expect_context(NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    heed_context_destroy(context);
    return 0;
}

/* ---- registering ----------------------------------------------------------------------------- */

static void the_strings_are_copied(void **state)
{
    char name[] = "cpu:mine_avx2", op[] = "attention", about[] = "mine";
    heed_impl_t impl = mine();
    (void)state;
    impl.name = name;
    impl.op = op;
    impl.about = about;
    expect_ok(heed_register_impl(context, &impl));
    memset(name, 'x', 4), memset(op, 'x', 4), memset(about, 'x', 4);
    const heed_impl_t *kept = heed_impl_at(context, 0);
    assert_string_equal(kept->name, "cpu:mine_avx2");
    assert_string_equal(kept->op, "attention");
    assert_string_equal(kept->about, "mine");
    assert_ptr_equal(kept->user, &seen);
}

static void names_that_are_refused(void **state)
{
    static const char *const names[] = {"",          "mine",     "cpu:",      "cpu:Mine",
                                        "cpu:a b",   "gpu:mine", "cuda:mine", "cpu:a-b",
                                        " cpu:mine", "cpu:m:n",  "CPU:mine",  "cpu:mine\n",
                                        "cpu:a,b",   "cpu:*",    "cpu:a=b"};
    heed_impl_t impl = mine();
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        impl.name = names[i];
        expect_fails(heed_register_impl(context, &impl), HEED_ERROR_VALUE, "<device>:<method>");
    }
    char name[200];
    memset(name, 'x', sizeof(name));
    memcpy(name, "cpu:", 4);
    name[199] = 0;
    impl.name = name;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_VALUE, "<device>:<method>");
}

static void fields_that_are_refused(void **state)
{
    heed_impl_t impl = mine();
    (void)state;
    expect_fails(heed_register_impl(NULL, &impl), HEED_ERROR_NULL, "context");
    expect_fails(heed_register_impl(context, NULL), HEED_ERROR_NULL, "impl");
    impl.run = NULL;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_NULL, "impl.run");
    impl = mine();
    impl.op = NULL;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_NULL, "impl.op");
    impl = mine();
    impl.name = NULL;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_NULL, "impl.name");
    impl = mine();
    impl.prepare = prepare_nothing;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_NULL, "impl.release is null");
    impl = mine();
    impl.op = "convolution";
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_UNKNOWN_IMPL, "convolution");
    impl = mine();
    impl.features = HEED_ATTENTION_CAN_ALL + UINT64_C(1);
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_VALUE, "features");
    impl = mine();
    impl.required_isa = UINT64_C(1) << 40;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_VALUE, "required_isa");
    impl = mine();
    impl.device_type = 9;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_VALUE, "device_type=9");
    impl = mine();
    impl.struct_size = 8;
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_STRUCT_SIZE, "struct_size=8");
    assert_string_not_equal(heed_impl_at(context, 0)->name, "cpu:mine");
}

static void a_name_is_taken_once(void **state)
{
    heed_impl_t impl = mine();
    (void)state;
    expect_ok(heed_register_impl(context, &impl));
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_NAME_TAKEN, "cpu:mine");
    impl.name = "cpu:standard";
    expect_fails(heed_register_impl(context, &impl), HEED_ERROR_NAME_TAKEN, "cpu:standard");
    impl.op = "cast"; /* another operation has names of its own */
    impl.name = "cpu:mine";
    impl.features = 1;
    expect_ok(heed_register_impl(context, &impl));
    heed_context_t *other = expect_context(NULL); /* and so has another context */
    impl = mine();
    expect_ok(heed_register_impl(other, &impl));
    heed_context_destroy(other);
}

/* ---- being chosen ---------------------------------------------------------------------------- */

static const char *chosen(char *name)
{
    heed_plan_t *plan = NULL;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    expect_ok(heed_plan_info(plan, &info));
    heed_plan_destroy(plan);
    return strcpy(name, info.impl);
}

static void the_lowest_estimate_wins(void **state)
{
    char name[64];
    heed_impl_t impl = mine();
    (void)state;
    expect_ok(heed_register_impl(context, &impl));
    assert_string_equal(chosen(name), "cpu:mine");
    estimate_value = 1e18;
    assert_string_not_equal(chosen(name), "cpu:mine");
    estimate_value = NAN; /* unknown sorts last */
    assert_string_not_equal(chosen(name), "cpu:mine");
}

static void equal_estimates_follow_the_order(void **state)
{
    char name[64];
    heed_impl_t impl = mine();
    (void)state;
    impl.name = "cpu:first";
    expect_ok(heed_register_impl(context, &impl));
    impl.name = "cpu:second";
    expect_ok(heed_register_impl(context, &impl));
    assert_string_equal(chosen(name), "cpu:first");
}

static void refusals_keep_their_reason(void **state)
{
    heed_impl_t impl = mine();
    heed_plan_t *plan = NULL;
    heed_verdict_t verdict;
    int found = 0;
    (void)state;
    impl.supports = support_nothing;
    expect_ok(heed_register_impl(context, &impl));
    impl.name = "cpu:silent";
    impl.supports = support_silently_nothing;
    expect_ok(heed_register_impl(context, &impl));
    impl = mine();
    impl.name = "cpu:poor";
    impl.features = HEED_ATTENTION_CAN_BF16;
    expect_ok(heed_register_impl(context, &impl));
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    for (int i = 0; heed_plan_verdict(plan, i, &verdict); i++) {
        if (strcmp(verdict.impl, "cpu:mine") == 0) {
            assert_string_equal(verdict.why, "only on Sundays");
            found++;
        } else if (strcmp(verdict.impl, "cpu:silent") == 0) {
            assert_true(verdict.status != HEED_OK && verdict.why[0]);
            found++;
        } else if (strcmp(verdict.impl, "cpu:poor") == 0) {
            assert_non_null(strstr(verdict.why, "f32"));
            assert_non_null(strstr(verdict.why, "grouped heads"));
            found++;
        }
    }
    assert_int_equal(found, 3);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    context = expect_context("cpu:mine");
    impl = mine();
    impl.supports = support_nothing;
    expect_ok(heed_register_impl(context, &impl));
    expect_fails(heed_attention_plan(context, &small.desc, &plan), HEED_ERROR_UNSUPPORTED,
                 "cpu:mine: only on Sundays");
}

static void usable_says_why_not(void **state)
{
    const heed_impl_t *impl;
    heed_why_t why;
    int refused = 0;
    (void)state;
    heed_context_destroy(context);
    context = expect_context("cpu:standard");
    for (int i = 0; (impl = heed_impl_at(context, i)); i++) {
        int usable = heed_impl_usable(context, impl, &why);
        assert_int_equal(usable, strcmp(impl->name, "cpu:standard") == 0);
        assert_int_equal(usable, heed_impl_usable(context, impl, NULL));
        if (!usable) {
            assert_true(why.status != HEED_OK && why.text[0]);
            refused++;
        }
    }
    assert_true(refused > 0);
    assert_false(heed_impl_usable(context, NULL, &why));
    assert_false(heed_impl_usable(NULL, heed_impl_at(context, 0), &why));
    assert_null(heed_impl_at(context, -1));
    assert_null(heed_impl_at(context, 10000));
    assert_null(heed_impl_at(NULL, 0));
}

/* ---- running --------------------------------------------------------------------------------- */

static void run_gets_a_complete_descriptor(void **state)
{
    heed_impl_t impl = mine();
    (void)state;
    small.desc.q.byte_offset = 8;
    small.desc.causal = 1;
    expect_ok(heed_register_impl(context, &impl));
    expect_ok(heed_attention(context, &small.desc));
    assert_int_equal(seen.runs, 1);
    assert_ptr_equal(seen.user, &seen);
    assert_int_equal(seen.desc.struct_size, sizeof(heed_attention_desc_t));
    assert_true(seen.desc.scale == 0.25f); /* 1 / sqrt(16) */
    assert_int_equal(seen.desc.causal, 1);
    assert_null(seen.desc.q.data);
    const int64_t shape[4] = {SMALL_B, SMALL_SQ, SMALL_H, SMALL_D}, strides[4] = {320, 64, 16, 1};
    assert_memory_equal(seen.q_shape, shape, sizeof(shape));
    assert_memory_equal(seen.q_strides, strides, sizeof(strides));
    const int64_t lse_strides[3] = {20, 5, 1};
    assert_memory_equal(seen.lse_strides, lse_strides, sizeof(lse_strides));
    assert_ptr_equal(seen.buffers[HEED_ATTENTION_Q], (char *)small.q + 8);
    assert_ptr_equal(seen.buffers[HEED_ATTENTION_LSE], small.lse);
    assert_int_equal(seen.threads, 2);
    assert_int_equal(seen.workspace_bytes, 200);
    assert_int_equal((uintptr_t)seen.workspace % 64, 0);
}

static void an_absent_operand_is_null(void **state)
{
    heed_impl_t impl = mine();
    (void)state;
    small.desc.lse.ndim = 0;
    impl.workspace = NULL;
    expect_ok(heed_register_impl(context, &impl));
    expect_ok(heed_attention(context, &small.desc));
    assert_null(seen.buffers[HEED_ATTENTION_LSE]);
    assert_int_equal(seen.desc.lse.ndim, 0);
    assert_int_equal(seen.workspace_bytes, 0);
}

static void statuses_of_run(void **state)
{
    heed_impl_t impl = mine();
    (void)state;
    expect_ok(heed_register_impl(context, &impl));
    result = HEED_ERROR_OUT_OF_MEMORY;
    expect_fails(heed_attention(context, &small.desc), HEED_ERROR_OUT_OF_MEMORY, "");
    result = (heed_status_t)7;
    expect_fails(heed_attention(context, &small.desc), HEED_ERROR_INTERNAL, "cpu:mine returned 7");
    result = HEED_OK;
    expect_ok(heed_attention(context, &small.desc));
    assert_int_equal(seen.runs, 3);
}

/* ---- the builtin list ------------------------------------------------------------------------ */

/* <device>:<method>[_<isa>]: the grammar holds for every implementation, the instruction set in the
 * name is the one that is required, and each operation ends with its reference. */
static void builtin_names_follow_the_grammar(void **state)
{
    const heed_impl_t *impl;
    (void)state;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++) {
        const char *colon = strchr(impl->name, ':');
        assert_non_null(colon);
        assert_true(strncmp(impl->name, "cpu:", 4) == 0 || strncmp(impl->name, "cuda:", 5) == 0);
        assert_true(colon[1]);
        for (const char *c = colon + 1; *c; c++)
            assert_true(islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '_');
        assert_true(impl->about[0] && impl->run && impl->features);
        const char *isa = strrchr(impl->name, '_');
        uint64_t named = 0;
#define ISA(name, bit, text, about)        \
    if (isa && strcmp(isa + 1, text) == 0) \
        named = UINT64_C(1) << bit;
        HEED_ISA_LIST(ISA)
#undef ISA
        assert_true(impl->required_isa == 0 ? named == 0 : (impl->required_isa & named) != 0);
        for (int j = 0; j < i; j++)
            assert_false(strcmp(heed_impl_at(context, j)->op, impl->op) == 0 &&
                         strcmp(heed_impl_at(context, j)->name, impl->name) == 0);
    }
}

static void each_operation_has_a_reference(void **state)
{
    (void)state;
    for (int o = 0; heed_op_name(o); o++) {
        const heed_impl_t *impl, *reference = NULL;
        for (int i = 0; (impl = heed_impl_at(context, i)); i++)
            if (strcmp(impl->op, heed_op_name(o)) == 0 && strcmp(impl->name, "cpu:standard") == 0)
                reference = impl;
        assert_non_null(reference);
        assert_int_equal(reference->required_isa, 0);
        /* All that one process has: over ranks it would have to be a schedule. */
        for (int bit = 0; heed_op_feature(heed_op_name(o), bit); bit++)
            assert_true(reference->features >> bit & 1 ||
                        strcmp(heed_op_feature(heed_op_name(o), bit), "ranks") == 0);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_strings_are_copied),
        TEST(names_that_are_refused),
        TEST(fields_that_are_refused),
        TEST(a_name_is_taken_once),
        TEST(the_lowest_estimate_wins),
        TEST(equal_estimates_follow_the_order),
        TEST(refusals_keep_their_reason),
        TEST(usable_says_why_not),
        TEST(run_gets_a_complete_descriptor),
        TEST(an_absent_operand_is_null),
        TEST(statuses_of_run),
        TEST(builtin_names_follow_the_grammar),
        TEST(each_operation_has_a_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
