/* One plan and many threads, one context and many threads, and a caller's own parallel region. */
#define _GNU_SOURCE
#include "expect.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(_OPENMP)
#include <omp.h>
#endif

enum { THREADS = 6, ROUNDS = 20 };

/* Attention of a size that a team shares. */
enum { B = 1, S = 70, H = 4, D = 32 };

typedef struct shared {
    heed_context_t *context;
    heed_plan_t *plan;
    size_t bytes, align;
    float q[B * S * H * D], k[B * S * H * D], v[B * S * H * D];
    float want[B * S * H * D];
} shared_t;

static shared_t shared;

static heed_attention_desc_t shared_desc(void)
{
    static int64_t shape[4] = {B, S, H, D};
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = heed_tensor(shared.q, HEED_F32, 4, shape, NULL);
    desc.k = heed_tensor(shared.k, HEED_F32, 4, shape, NULL);
    desc.v = heed_tensor(shared.v, HEED_F32, 4, shape, NULL);
    desc.out = heed_tensor(shared.want, HEED_F32, 4, shape, NULL);
    desc.causal = 1;
    return desc;
}

static heed_status_t execute(float *out)
{
    void *workspace =
        aligned_alloc(shared.align, (shared.bytes + shared.align) / shared.align * shared.align);
    void *buffers[] = {shared.q, shared.k, shared.v, out};
    if (!workspace)
        return HEED_ERROR_OUT_OF_MEMORY;
    heed_status_t status =
        heed_plan_execute(shared.plan, buffers, 4, workspace, shared.bytes, NULL);
    free(workspace);
    return status;
}

static int set_up(void **state)
{
    (void)state;
    small_fill(shared.q, sizeof(shared.q) / sizeof(float), 5);
    small_fill(shared.k, sizeof(shared.k) / sizeof(float), 6);
    small_fill(shared.v, sizeof(shared.v) / sizeof(float), 7);
    shared.context = expect_context(NULL);
    heed_attention_desc_t desc = shared_desc();
    expect_ok(heed_attention_plan(shared.context, &desc, &shared.plan));
    expect_ok(heed_plan_workspace(shared.plan, &shared.bytes, &shared.align));
    expect_ok(execute(shared.want));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    heed_plan_destroy(shared.plan);
    heed_context_destroy(shared.context);
    return 0;
}

/* Assertions stay in the main thread: a worker returns how often it was wrong. */
static void run_threads(void *(*work)(void *))
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i), 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_int_equal((intptr_t)wrong, 0);
    }
}

static int execute_and_compare(void)
{
    float *out = calloc(1, sizeof(shared.want));
    int wrong = !out || execute(out) != HEED_OK || memcmp(out, shared.want, sizeof(shared.want));
    free(out);
    return wrong;
}

static void *execute_often(void *unused)
{
    intptr_t wrong = 0;
    (void)unused;
    for (int i = 0; i < ROUNDS; i++)
        wrong += execute_and_compare();
    return (void *)wrong;
}

static void many_threads_execute_one_plan(void **state)
{
    (void)state;
    run_threads(execute_often);
}

static void *plan_often(void *number)
{
    intptr_t wrong = 0;
    heed_attention_desc_t desc = shared_desc();
    desc.window_left = (intptr_t)number;
    for (int i = 0; i < ROUNDS; i++) {
        heed_plan_t *plan = NULL;
        char text[256], want[32];
        snprintf(want, sizeof(want), "window=%d,-1", (int)(intptr_t)number);
        wrong += heed_attention_plan(shared.context, &desc, &plan) != HEED_OK;
        wrong += plan && heed_plan_problem(plan, text, sizeof(text)) && !strstr(text, want);
        heed_plan_destroy(plan);
    }
    return (void *)wrong;
}

static void many_threads_plan_on_one_context(void **state)
{
    (void)state;
    run_threads(plan_often);
}

/* The sentence of a failure belongs to the thread that failed. */
static void *fail_often(void *number)
{
    intptr_t wrong = 0;
    char name[32], quoted[40];
    snprintf(name, sizeof(name), "type%d", (int)(intptr_t)number);
    snprintf(quoted, sizeof(quoted), "'%s'", name);
    wrong += heed_last_error()[0] != 0;
    for (int i = 0; i < ROUNDS; i++) {
        heed_dtype_t dtype;
        wrong += heed_dtype_parse(name, &dtype) != HEED_ERROR_DTYPE;
        sched_yield();
        wrong += !strstr(heed_last_error(), quoted);
    }
    return (void *)wrong;
}

static void sentences_are_per_thread(void **state)
{
    (void)state;
    run_threads(fail_often);
}

/* The plans of many threads end after their context was given back. */
static void *plan_and_keep(void *kept)
{
    heed_attention_desc_t desc = shared_desc();
    heed_plan_t **plan = kept;
    return (void *)(intptr_t)(heed_attention_plan(shared.context, &desc, plan) != HEED_OK);
}

static void *destroy_plan(void *kept)
{
    heed_plan_destroy(*(heed_plan_t **)kept);
    return NULL;
}

static void the_last_plan_ends_the_context(void **state)
{
    heed_context_t *saved = shared.context;
    heed_plan_t *plans[THREADS];
    pthread_t threads[THREADS];
    (void)state;
    shared.context = expect_context(NULL);
    for (int i = 0; i < THREADS; i++)
        assert_null(plan_and_keep(&plans[i]));
    heed_context_destroy(shared.context);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, destroy_plan, &plans[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    shared.context = saved;
}

/* A caller's region: its threads are busy, so each execution stays in the thread that calls. */
static void inside_a_callers_parallel_region(void **state)
{
#if defined(_OPENMP)
    int wrong = 0;
    (void)state;
#pragma omp parallel num_threads(3) reduction(+ : wrong)
    for (int i = 0; i < ROUNDS; i++)
        wrong += execute_and_compare();
    assert_int_equal(wrong, 0);
#else
    (void)state;
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_execute_one_plan),
        cmocka_unit_test(many_threads_plan_on_one_context),
        cmocka_unit_test(sentences_are_per_thread),
        cmocka_unit_test(the_last_plan_ends_the_context),
        cmocka_unit_test(inside_a_callers_parallel_region),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
