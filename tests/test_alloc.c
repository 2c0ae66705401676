/* An allocator that fails: whichever call it is, the library says OUT_OF_MEMORY or succeeds, and
 * gives back all that it took. */
#define _GNU_SOURCE
#include "expect.h"

#include <stdint.h>
#include <stdlib.h>

typedef struct counting {
    int calls;     /* of alloc so far */
    int fail_at;   /* that call fails, -1: none */
    int from;      /* 1: and all after it */
    int live;      /* blocks that were not given back */
    int bad_align; /* alignment that is no power of two */
} counting_t;

static void *counted_alloc(void *user, size_t bytes, size_t align)
{
    counting_t *counting = user;
    int call = counting->calls++;
    if (align == 0 || align & (align - 1))
        counting->bad_align++;
    if (counting->fail_at >= 0 &&
        (call == counting->fail_at || (counting->from && call > counting->fail_at)))
        return NULL;
    counting->live++;
    return aligned_alloc(align, (bytes + align - 1) / align * align);
}

static void counted_free(void *user, void *memory)
{
    counting_t *counting = user;
    assert_non_null(memory);
    counting->live--;
    free(memory);
}

static heed_status_t run_nothing(const heed_launch_t *launch)
{
    (void)launch;
    return HEED_OK;
}

static heed_status_t register_one(heed_context_t *context, const char *name)
{
    heed_impl_t impl = {.struct_size = sizeof(impl),
                        .op = "attention",
                        .name = name,
                        .about = "never chosen",
                        .device_type = HEED_DEVICE_CPU,
                        .run = run_nothing};
    return heed_register_impl(context, &impl);
}

/* Tile lists of every kind: chunks that grow, masks, scratch of sorts. */
static heed_status_t make_lists(heed_context_t *context)
{
    heed_tiles_grid_t grid = heed_tiles_grid(2000, 2000);
    heed_sparse_t sparse = heed_sparse(HEED_SPARSE_LEARNED, 0.5);
    heed_tile_list_t *list = NULL, *made = NULL;
    static float scores[32 * 32];
    heed_status_t status = heed_tiles_from_text(context, &grid, "lattice:3|random:0.2", &list);
    if (status == HEED_OK)
        status = heed_tiles_transpose(context, &grid, list, &made);
    heed_tiles_free(context, list);
    heed_tiles_free(context, made);
    sparse.scores = scores;
    if (status == HEED_OK)
        status = heed_tiles_generate(context, &grid, &sparse, 1, &made);
    if (status == HEED_OK)
        heed_tiles_free(context, made);
    return status;
}

/* Everything that allocates, one after the other, up to the first failure. */
static heed_status_t use_all(heed_context_t *context)
{
    small_t small;
    heed_plan_t *plan = NULL;
    heed_status_t status;
    small_init(&small);
    if ((status = register_one(context, "cpu:first")) != HEED_OK ||
        (status = register_one(context, "cpu:second")) != HEED_OK ||
        (status = heed_attention_plan(context, &small.desc, &plan)) != HEED_OK)
        return status;
    heed_plan_destroy(plan);
    if ((status = make_lists(context)) != HEED_OK)
        return status;
    return heed_attention(context, &small.desc); /* a plan and a workspace */
}

static heed_status_t live_and_die(counting_t *counting)
{
    heed_context_t *context = NULL;
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    config.threads = 1; /* the counts below are no atomics */
    config.impl = "attention=cpu:standard,attention=cpu:first";
    config.skip_impl = "attention=cpu:flash_*";
    config.allocator = (heed_allocator_t){counted_alloc, counted_free, counting};
    heed_status_t status = heed_context_create(&config, &context);
    if (status != HEED_OK) {
        assert_null(context);
        return status;
    }
    status = use_all(context);
    heed_context_destroy(context);
    return status;
}

static void each_failure_is_told(void **state)
{
    (void)state;
    counting_t all = {.fail_at = -1};
    expect_ok(live_and_die(&all));
    assert_int_equal(all.live, 0);
    assert_true(all.calls >= 6); /* context, two registrations, two plans, a workspace */
    for (int n = 0; n < 2 * all.calls; n++) {
        counting_t counting = {.fail_at = n / 2, .from = n % 2};
        expect_fails(live_and_die(&counting), HEED_ERROR_OUT_OF_MEMORY, "no memory");
        assert_int_equal(counting.live, 0);
        assert_int_equal(counting.bad_align, 0);
    }
}

/* After a failure the context is as good as before. */
static void a_context_outlives_failures(void **state)
{
    (void)state;
    counting_t counting = {.fail_at = -1};
    heed_context_t *context = NULL;
    heed_context_config_t config = heed_context_config();
    small_t small;
    small_init(&small);
    config.ignore_environment = 1;
    config.allocator = (heed_allocator_t){counted_alloc, counted_free, &counting};
    expect_ok(heed_context_create(&config, &context));
    for (int n = 0; n < 6; n++) {
        counting.calls = 0;
        counting.fail_at = n % 3;
        heed_status_t status =
            n < 3 ? register_one(context, "cpu:mine") : heed_attention(context, &small.desc);
        if (status != HEED_OK)
            expect_fails(status, HEED_ERROR_OUT_OF_MEMORY, "no memory");
        if (status == HEED_OK && n < 3)
            break;
    }
    counting.fail_at = -1;
    expect_ok(heed_attention(context, &small.desc));
    heed_context_destroy(context);
    assert_int_equal(counting.live, 0);
}

/* Executing a plan allocates nothing. */
static void execute_allocates_nothing(void **state)
{
    (void)state;
    counting_t counting = {.fail_at = -1};
    heed_context_t *context = NULL;
    heed_plan_t *plan = NULL;
    heed_context_config_t config = heed_context_config();
    small_t small;
    size_t bytes, align;
    small_init(&small);
    config.ignore_environment = 1;
    config.threads = 2;
    config.allocator = (heed_allocator_t){counted_alloc, counted_free, &counting};
    expect_ok(heed_context_create(&config, &context));
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    expect_ok(heed_plan_workspace(plan, &bytes, &align));
    void *workspace = aligned_alloc(align, (bytes + align) / align * align);
    int calls = counting.calls;
    for (int i = 0; i < 3; i++)
        expect_ok(heed_plan_execute(plan, small.buffers, 5, workspace, bytes, NULL));
    assert_int_equal(counting.calls, calls);
    free(workspace);
    heed_context_destroy(context);
    assert_true(counting.live > 0); /* the plan keeps the context alive */
    heed_plan_destroy(plan);
    assert_int_equal(counting.live, 0);
}

/* A workspace that no machine has: the default allocator says so, and nothing is lost. */
static void a_workspace_beyond_memory(void **state)
{
    heed_context_config_t config = heed_context_config();
    heed_context_t *context = NULL;
    float nothing[1];
    (void)state;
    config.ignore_environment = 1;
    config.threads = 4096;
    config.impl = "attention=cpu:standard"; /* a row of scores for each thread */
    expect_ok(heed_context_create(&config, &context));
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(nothing, HEED_F32, 1, 1, 1, 16);
    desc.k = HEED_TENSOR(nothing, HEED_F32, 1, INT32_MAX, 1, 16);
    desc.v = HEED_TENSOR(nothing, HEED_F32, 1, INT32_MAX, 1, 16);
    desc.out = HEED_TENSOR(nothing, HEED_F32, 1, 1, 1, 16);
    int64_t all_one[4] = {0, 0, 0, 0};
    desc.k.strides = desc.v.strides = all_one;
    heed_plan_t *plan = NULL;
    size_t bytes, align;
    expect_ok(heed_attention_plan(context, &desc, &plan));
    expect_ok(heed_plan_workspace(plan, &bytes, &align));
    heed_plan_destroy(plan);
    if (bytes > (size_t)1 << 45) /* beyond what overcommitting grants */
        expect_fails(heed_attention(context, &desc), HEED_ERROR_OUT_OF_MEMORY, "workspace");
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failure_is_told),
        cmocka_unit_test(a_context_outlives_failures),
        cmocka_unit_test(execute_allocates_nothing),
        cmocka_unit_test(a_workspace_beyond_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
