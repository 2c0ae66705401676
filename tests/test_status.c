/* Every status code comes out of a real call. The table below is checked against HEED_STATUS_LIST,
 * so that a new code without a way to get it fails here. */
#define _GNU_SOURCE
#include "expect.h"
#include "internal.h"

#include <stdlib.h>

static heed_context_t *context;
static small_t small;

/* ---- one call for each code ------------------------------------------------------------------ */

static heed_status_t plan_small(void)
{
    heed_plan_t *plan = NULL;
    heed_status_t status = heed_attention_plan(context, &small.desc, &plan);
    heed_plan_destroy(plan);
    return status;
}

static heed_status_t get_ok(void)
{
    return plan_small();
}

static heed_status_t get_null(void)
{
    return heed_context_create(NULL, NULL);
}

static heed_status_t get_struct_size(void)
{
    small.desc.struct_size = 3;
    return plan_small();
}

static heed_status_t get_value(void)
{
    small.desc.causal = 7;
    return plan_small();
}

static heed_status_t get_shape(void)
{
    small.shapes[1][3] = 12;
    return plan_small();
}

static heed_status_t get_stride(void)
{
    int64_t strides[4] = {0, 0, 0, 1};
    small.desc.out.strides = strides;
    return plan_small();
}

static heed_status_t get_dtype(void)
{
    small.desc.k.dtype = HEED_I32;
    return plan_small();
}

static heed_status_t execute_small(size_t byte_offset, bool workspace)
{
    heed_plan_t *plan = NULL;
    size_t bytes = 0, align = 0;
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    expect_ok(heed_plan_workspace(plan, &bytes, &align));
    assert_true(bytes > 0); /* cpu:standard keeps a row of scores */
    void *memory = aligned_alloc(align, (bytes + align - 1) / align * align);
    assert_non_null(memory);
    small.buffers[HEED_ATTENTION_OUT] = (char *)small.out + byte_offset;
    heed_status_t status =
        heed_plan_execute(plan, small.buffers, HEED_ATTENTION_OPERANDS, workspace ? memory : NULL,
                          workspace ? bytes : 0, NULL);
    free(memory);
    heed_plan_destroy(plan);
    return status;
}

static heed_status_t get_alignment(void)
{
    return execute_small(2, true);
}

static heed_status_t get_workspace(void)
{
    return execute_small(0, false);
}

static heed_status_t get_syntax(void)
{
    heed_problem_t *problem = NULL;
    heed_status_t status = heed_problem_parse("attention sq=many", &problem);
    assert_null(problem);
    return status;
}

static heed_status_t get_unsupported(void)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *none = NULL;
    heed_plan_t *plan = NULL;
    config.ignore_environment = 1;
    config.skip_impl = "attention=*";
    expect_ok(heed_context_create(&config, &none));
    heed_status_t status = heed_attention_plan(none, &small.desc, &plan);
    assert_null(plan);
    heed_context_destroy(none);
    return status;
}

static heed_status_t get_unknown_impl(void)
{
    heed_plan_t *plan = NULL;
    return heed_plan_create(context, "convolution", &small.desc, &plan);
}

static heed_status_t run_nothing(const heed_launch_t *launch)
{
    (void)launch;
    return HEED_OK;
}

static heed_status_t run_broken(const heed_launch_t *launch)
{
    (void)launch;
    return (heed_status_t)-12345;
}

static heed_impl_t user_impl(const char *name, heed_status_t (*run)(const heed_launch_t *))
{
    heed_impl_t impl = {.struct_size = sizeof(impl),
                        .op = "attention",
                        .name = name,
                        .about = "a test",
                        .device_type = HEED_DEVICE_CPU,
                        .run = run};
    impl.features = (UINT64_C(1) << 15) - 1;
    return impl;
}

static heed_status_t get_name_taken(void)
{
    heed_impl_t impl = user_impl("cpu:standard", run_nothing);
    return heed_register_impl(context, &impl);
}

static heed_status_t get_no_device(void)
{
    small.desc.q.device.type = HEED_DEVICE_CUDA;
    small.desc.k.device = small.desc.v.device = small.desc.q.device;
    small.desc.out.device = small.desc.lse.device = small.desc.q.device;
    return plan_small();
}

static heed_status_t get_fallback(void)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *denying = NULL;
    heed_plan_t *plan = NULL;
    config.ignore_environment = 1;
    config.device = "cuda";
    config.fallback = HEED_FALLBACK_DENY;
    expect_ok(heed_context_create(&config, &denying));
    if (!heed_device_missing(denying, HEED_DEVICE_CUDA))
        skip();
    heed_status_t status = heed_attention_plan(denying, &small.desc, &plan);
    heed_context_destroy(denying);
    return status;
}

static void *no_memory(void *user, size_t bytes, size_t align)
{
    (void)user, (void)bytes, (void)align;
    return NULL;
}

static void no_free(void *user, void *memory)
{
    (void)user, (void)memory;
}

static heed_status_t get_out_of_memory(void)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *poor = NULL;
    config.ignore_environment = 1;
    config.allocator = (heed_allocator_t){no_memory, no_free, NULL};
    return heed_context_create(&config, &poor);
}

static heed_status_t run_on_a_lost_device(const heed_launch_t *launch)
{
    (void)launch;
    return hd_fail(HEED_ERROR_DEVICE, "the device fell off the bus");
}

/* Devices fail at will: an implementation stands in for one. */
static heed_status_t get_device(void)
{
    heed_context_t *with = expect_context("cpu:lost");
    heed_impl_t impl = user_impl("cpu:lost", run_on_a_lost_device);
    expect_ok(heed_register_impl(with, &impl));
    heed_status_t status = heed_attention(with, &small.desc);
    heed_context_destroy(with);
    return status;
}

static heed_status_t get_environment(void)
{
    heed_context_t *made = NULL;
    setenv("HEED_FALLBACK", "perhaps", 1);
    heed_status_t status = heed_context_create(NULL, &made);
    unsetenv("HEED_FALLBACK");
    assert_null(made);
    return status;
}

static heed_status_t get_internal(void)
{
    heed_context_t *with = expect_context("cpu:broken");
    heed_impl_t impl = user_impl("cpu:broken", run_broken);
    expect_ok(heed_register_impl(with, &impl));
    heed_status_t status = heed_attention(with, &small.desc);
    heed_context_destroy(with);
    return status;
}

static heed_status_t get_comm(void)
{
    heed_comm_t comms[2];
    heed_status_t status = heed_comm_threads(context, 2, 1, comms);
    float number;
    if (status == HEED_OK)
        status = comms[0].recv(comms[0].user, 1, &number, sizeof(number));
    if (status == HEED_OK)
        status = comms[0].wait(comms[0].user);
    heed_comm_threads_free(&comms[0]);
    heed_comm_threads_free(&comms[1]);
    return status;
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct {
    heed_status_t status;
    heed_status_t (*get)(void);
} ways[] = {
    {HEED_OK, get_ok},
    {HEED_ERROR_NULL, get_null},
    {HEED_ERROR_STRUCT_SIZE, get_struct_size},
    {HEED_ERROR_VALUE, get_value},
    {HEED_ERROR_SHAPE, get_shape},
    {HEED_ERROR_STRIDE, get_stride},
    {HEED_ERROR_DTYPE, get_dtype},
    {HEED_ERROR_ALIGNMENT, get_alignment},
    {HEED_ERROR_SYNTAX, get_syntax},
    {HEED_ERROR_UNSUPPORTED, get_unsupported},
    {HEED_ERROR_UNKNOWN_IMPL, get_unknown_impl},
    {HEED_ERROR_NAME_TAKEN, get_name_taken},
    {HEED_ERROR_NO_DEVICE, get_no_device},
    {HEED_ERROR_FALLBACK, get_fallback},
    {HEED_ERROR_OUT_OF_MEMORY, get_out_of_memory},
    {HEED_ERROR_WORKSPACE, get_workspace},
    {HEED_ERROR_DEVICE, get_device},
    {HEED_ERROR_COMM, get_comm},
    {HEED_ERROR_ENVIRONMENT, get_environment},
    {HEED_ERROR_INTERNAL, get_internal},
};

enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static const heed_status_t all[] = {
#define STATUS(name, value, text) name,
    HEED_STATUS_LIST(STATUS)
#undef STATUS
};

static int set_up(void **state)
{
    (void)state;
    small_init(&small);
    context = expect_context("attention=cpu:standard");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    heed_context_destroy(context);
    return 0;
}

/* The sentence of a failure is new each time: an unrelated one is put there before. */
static void each_way_gives_its_status(void **state)
{
    for (int i = 0; i < (int)WAYS; i++) {
        heed_dtype_t dtype;
        set_up(state);
        expect_fails(heed_dtype_parse("before", &dtype), HEED_ERROR_DTYPE, "before");
        expect_fails(ways[i].get(), ways[i].status, "");
        if (ways[i].status != HEED_OK)
            assert_null(strstr(heed_last_error(), "'before'"));
        assert_true(strlen(heed_last_error()) > 8);
        tear_down(state);
    }
}

static void the_table_is_complete(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof(all) / sizeof(all[0]); s++) {
        int found = 0;
        for (int i = 0; i < (int)WAYS; i++)
            found += ways[i].status == all[s];
        if (found != 1)
            print_error("%s: %d ways\n", heed_status_name(all[s]), found);
        assert_int_equal(found, 1);
    }
    assert_int_equal(WAYS, sizeof(all) / sizeof(all[0]));
}

/* Values are pinned: programs and logs hold them. */
static void names_and_texts(void **state)
{
    (void)state;
    assert_string_equal(heed_status_name(HEED_OK), "HEED_OK");
    assert_string_equal(heed_status_name(HEED_ERROR_SHAPE), "HEED_ERROR_SHAPE");
    assert_string_equal(heed_status_name((heed_status_t)-1), "HEED_STATUS_?");
    assert_string_equal(heed_status_name((heed_status_t)12345), "HEED_STATUS_?");
    assert_true(strlen(heed_status_text((heed_status_t)-1)) > 0);
    for (size_t s = 0; s < sizeof(all) / sizeof(all[0]); s++)
        assert_true(strlen(heed_status_text(all[s])) > 5);
    assert_int_equal(HEED_ERROR_NULL, -101);
    assert_int_equal(HEED_ERROR_UNSUPPORTED, -201);
    assert_int_equal(HEED_ERROR_OUT_OF_MEMORY, -301);
    assert_int_equal(HEED_ERROR_DEVICE, -401);
    assert_int_equal(HEED_ERROR_ENVIRONMENT, -501);
    assert_int_equal(HEED_ERROR_INTERNAL, -901);
}

static void success_keeps_the_sentence(void **state)
{
    (void)state;
    heed_dtype_t dtype;
    expect_fails(heed_dtype_parse("f33", &dtype), HEED_ERROR_DTYPE, "f33");
    expect_ok(heed_dtype_parse("f32", &dtype));
    assert_non_null(strstr(heed_last_error(), "f33"));
}

static void the_version_is_the_headers(void **state)
{
    (void)state;
    assert_string_equal(heed_version(), HEED_VERSION_STRING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_way_gives_its_status),
        cmocka_unit_test(the_table_is_complete),
        cmocka_unit_test(names_and_texts),
        cmocka_unit_test(success_keeps_the_sentence),
        cmocka_unit_test(the_version_is_the_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
