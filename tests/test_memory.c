/* Memory, streams and events of the CPU, which is a device like any other. Cards are in
 * tests/cuda/test_device.c. */
#include "expect.h"

static const heed_device_t cpu = {HEED_DEVICE_CPU, 0};

static heed_context_t *make_context(void)
{
    heed_context_t *context;
    assert_int_equal(heed_context_create(NULL, &context), HEED_OK);
    return context;
}

static void bytes_are_copied_and_set(void **state)
{
    heed_context_t *context = make_context();
    char text[] = "abcdef", back[sizeof(text)];
    void *memory, *nothing;
    (void)state;
    assert_int_equal(heed_memory_alloc(context, cpu, sizeof(text), &memory), HEED_OK);
    assert_int_equal((uintptr_t)memory % 256, 0);
    assert_int_equal(heed_memory_alloc(context, cpu, 0, &nothing), HEED_OK);
    assert_non_null(nothing);
    assert_int_equal(heed_memory_copy(context, memory, cpu, text, cpu, sizeof(text), NULL),
                     HEED_OK);
    assert_int_equal(heed_memory_set(context, memory, cpu, 'x', 2, NULL), HEED_OK);
    assert_int_equal(heed_memory_copy(context, back, cpu, memory, cpu, sizeof(text), NULL),
                     HEED_OK);
    assert_string_equal(back, "xxcdef");
    assert_int_equal(heed_memory_copy(context, NULL, cpu, NULL, cpu, 0, NULL), HEED_OK);
    assert_int_equal(heed_memory_copy(context, NULL, cpu, text, cpu, 1, NULL), HEED_ERROR_NULL);
    assert_int_equal(heed_memory_free(context, cpu, memory), HEED_OK);
    assert_int_equal(heed_memory_free(context, cpu, nothing), HEED_OK);
    assert_int_equal(heed_memory_free(context, cpu, NULL), HEED_OK);
    heed_context_destroy(context);
}

static void the_cpu_has_one_stream(void **state)
{
    heed_context_t *context = make_context();
    heed_stream_t stream;
    (void)state;
    assert_int_equal(heed_stream_create(context, cpu, &stream), HEED_OK);
    assert_null(stream.native);
    assert_int_equal(heed_stream_synchronize(context, &stream), HEED_OK);
    assert_int_equal(heed_stream_destroy(context, &stream), HEED_OK);
    stream.native = &stream;
    assert_int_equal(heed_stream_synchronize(context, &stream), HEED_ERROR_VALUE);
    assert_non_null(strstr(heed_last_error(), "the CPU has no streams"));
    assert_int_equal(heed_stream_create(context, (heed_device_t){HEED_DEVICE_CPU, 1}, &stream),
                     HEED_ERROR_NO_DEVICE);
    assert_int_equal(heed_stream_create(NULL, cpu, &stream), HEED_ERROR_NULL);
    heed_context_destroy(context);
}

/* An event outlives the program's reference to its context. */
static void events_tell_time(void **state)
{
    heed_context_t *context = make_context();
    heed_event_t *first, *last;
    double ns = -1;
    (void)state;
    assert_int_equal(heed_event_create(context, cpu, &first), HEED_OK);
    assert_int_equal(heed_event_create(context, cpu, &last), HEED_OK);
    heed_context_destroy(context);
    assert_int_equal(heed_event_elapsed(first, last, &ns), HEED_ERROR_VALUE);
    assert_int_equal(heed_event_record(first, NULL), HEED_OK);
    assert_int_equal(heed_event_record(last, NULL), HEED_OK);
    assert_int_equal(heed_event_elapsed(first, last, &ns), HEED_OK);
    assert_true(ns >= 0 && ns < 1e9);
    assert_int_equal(heed_event_record(NULL, NULL), HEED_ERROR_NULL);
    heed_event_destroy(first);
    heed_event_destroy(last);
    heed_event_destroy(NULL);
}

static void no_library_measures_the_cpu(void **state)
{
    heed_context_t *context = make_context();
    double rate = 1;
    (void)state;
    assert_int_equal(heed_device_matmul_rate(context, cpu, HEED_F32, &rate),
                     HEED_ERROR_UNSUPPORTED);
    assert_true(rate == 0);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_copied_and_set),
        cmocka_unit_test(the_cpu_has_one_stream),
        cmocka_unit_test(events_tell_time),
        cmocka_unit_test(no_library_measures_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
