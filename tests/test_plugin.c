/* Loading the backend: each case in a process of its own, for a plugin is loaded once in each. */
#define _GNU_SOURCE
#include "expect.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Set by CMake: the folder with one folder for each fake plugin, that of plugin_fake.c. */
static const char *const fakes = HEED_FAKE_PLUGINS;

static char answer[1024];

/* Runs what(path) in a child, with HEED_PLUGIN_PATH=path (NULL: not set), and keeps what it wrote.
 */
static void in_child(void (*what)(int to), const char *path)
{
    int ends[2], status;
    size_t length = 0;
    ssize_t got;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (path)
            setenv("HEED_PLUGIN_PATH", path, 1);
        else
            unsetenv("HEED_PLUGIN_PATH");
        what(ends[1]);
        _exit(0);
    }
    close(ends[1]);
    while ((got = read(ends[0], answer + length, sizeof(answer) - 1 - length)) > 0)
        length += (size_t)got;
    answer[length] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void expect_answer(const char *part)
{
    if (!strstr(answer, part))
        print_error("'%s' is not in '%s'\n", part, answer);
    assert_non_null(strstr(answer, part));
}

/* The first card's name, or why there is none. */
static void write_card(int to, const heed_context_config_t *config)
{
    heed_context_t *context;
    heed_device_info_t info = {.struct_size = sizeof(info)};
    if (heed_context_create(config, &context) != HEED_OK)
        _exit(2);
    const char *why = heed_device_missing(context, HEED_DEVICE_CUDA);
    if (!why && heed_device_info(context, 1, &info) != HEED_OK)
        _exit(3);
    dprintf(to, "%s", why ? why : info.name);
}

static void write_missing(int to)
{
    write_card(to, NULL);
}

static const char *fake(const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s/libheed-cuda.so", fakes, name);
    return path;
}

/* ---- reasons --------------------------------------------------------------------------------- */

static void a_good_plugin_is_taken(void **state)
{
    (void)state;
    in_child(write_missing, fake("good"));
    assert_string_equal(answer, "Fake 9000");
}

static void spoiled_plugins_are_refused(void **state)
{
    (void)state;
    in_child(write_missing, fake("abi"));
    expect_answer("has plugin interface 4711, this Heed takes 4");
    in_child(write_missing, fake("size"));
    expect_answer("its backend has 8 bytes");
    in_child(write_missing, fake("version"));
    expect_answer("belongs to Heed 0.0.7, this is " HEED_VERSION_STRING);
    in_child(write_missing, fake("enter"));
    expect_answer("is no plugin of Heed: it has no heed_plugin_v1");
}

static void paths_that_lead_nowhere(void **state)
{
    (void)state;
    in_child(write_missing, "/nowhere/libheed-cuda.so");
    expect_answer("/nowhere/libheed-cuda.so");
    in_child(write_missing, HEED_TEST_DATA "/topo/README.md");
    expect_answer("README.md");
    in_child(write_missing, "none");
    expect_answer("HEED_PLUGIN_PATH=none: no backend is loaded");
}

/* Where the test runs, a plugin lies under the default name: nothing may find it. */
static void never_the_working_directory(void **state)
{
    char before[512], elsewhere[sizeof(answer)];
    (void)state;
    in_child(write_missing, NULL);
    memcpy(elsewhere, answer, sizeof(answer));
    assert_null(strstr(elsewhere, "Fake"));
    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(chdir(fakes), 0);
    assert_int_equal(chdir("good"), 0);
    assert_int_equal(access("libheed-cuda.so", R_OK), 0);
    in_child(write_missing, "libheed-cuda.so");
    expect_answer("HEED_PLUGIN_PATH=libheed-cuda.so is not an absolute path");
    in_child(write_missing, "./libheed-cuda.so");
    expect_answer("is not an absolute path");
    setenv("LD_LIBRARY_PATH", ".", 1);
    in_child(write_missing, NULL);
    assert_string_equal(answer, elsewhere);
    in_child(write_missing, "");
    assert_string_equal(answer, elsewhere);
    unsetenv("LD_LIBRARY_PATH");
    assert_int_equal(chdir(before), 0);
}

static void write_ignoring(int to)
{
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    write_card(to, &config);
    dprintf(to, "; ");
    write_missing(to);
}

static void the_environment_can_be_ignored(void **state)
{
    (void)state;
    in_child(write_ignoring, "none");
    assert_null(strstr(answer, "HEED_PLUGIN_PATH=none: no backend is loaded; "));
    expect_answer("; HEED_PLUGIN_PATH=none: no backend is loaded");
}

/* ---- using one ------------------------------------------------------------------------------- */

static void write_devices(int to)
{
    heed_context_t *context;
    if (heed_context_create(NULL, &context) != HEED_OK)
        _exit(2);
    heed_device_info_t info = {.struct_size = sizeof(info)};
    if (heed_device_info(context, 1, &info) != HEED_OK)
        _exit(3);
    dprintf(to, "%d devices, %s %d.%d; ", heed_device_count(context), info.name, info.compute_major,
            info.compute_minor);
    /* A program that knows the older, shorter struct. */
    memset(&info, 0x55, sizeof(info));
    info.struct_size = offsetof(heed_device_info_t, compute_major);
    if (heed_device_info(context, 1, &info) != HEED_OK)
        _exit(4);
    dprintf(to, "%s%s; ", info.name, info.compute_major == 0x55555555 ? "" : " and more");
    const heed_impl_t *impl, *last = NULL;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++)
        last = impl;
    dprintf(to, "%s %d", last->name, heed_impl_usable(context, last, NULL));
}

static void devices_and_implementations_join_the_lists(void **state)
{
    (void)state;
    in_child(write_devices, fake("good"));
    assert_string_equal(answer, "2 devices, Fake 9000 9.0; Fake 9000; cuda:fake 1");
}

/* Plans the small problem on cuda:ID and executes it on a stream of cuda:STREAM. */
static void write_execution(int to, int id, int stream_id)
{
    heed_context_t *context;
    heed_plan_t *plan;
    small_t small;
    small_init(&small);
    heed_device_t device = {HEED_DEVICE_CUDA, id};
    small.desc.q.device = small.desc.k.device = small.desc.v.device = device;
    small.desc.out.device = small.desc.lse.device = device;
    if (heed_context_create(NULL, &context) != HEED_OK)
        _exit(2);
    heed_status_t status = heed_attention_plan(context, &small.desc, &plan);
    if (status == HEED_OK) {
        void *buffers[] = {small.desc.q.data, small.desc.k.data, small.desc.v.data,
                           small.desc.out.data, small.desc.lse.data};
        heed_stream_t stream = {{HEED_DEVICE_CUDA, stream_id}, (void *)0x1230};
        status = heed_plan_execute(plan, buffers, small.desc.lse.ndim ? 5 : 4, NULL, 0, &stream);
    }
    dprintf(to, "%s: %s", heed_status_name(status), heed_last_error());
}

static void write_on_its_stream(int to)
{
    write_execution(to, 0, 0);
}

static void write_on_another_stream(int to)
{
    write_execution(to, 0, 3);
}

static void write_on_a_refused_card(int to)
{
    write_execution(to, 1, 1);
}

static void plans_run_on_the_device(void **state)
{
    (void)state;
    in_child(write_on_its_stream, fake("good"));
    assert_string_equal(answer, "HEED_ERROR_DEVICE: the stream is 0x1230");
    in_child(write_on_another_stream, fake("good"));
    assert_string_equal(answer, "HEED_ERROR_VALUE: stream.device is 2:3, but the plan runs on 2:0");
    in_child(write_on_a_refused_card, fake("good"));
    expect_answer("HEED_ERROR_NO_DEVICE");
    expect_answer("cuda:1, Fake 7000, is too old");
}

static void *create_many(void *failed)
{
    for (int i = 0; i < 20; i++) {
        heed_context_t *context;
        if (heed_context_create(NULL, &context) != HEED_OK || heed_device_count(context) != 2)
            *(int *)failed = 1;
        heed_context_destroy(context);
    }
    return NULL;
}

static void write_threads(int to)
{
    pthread_t threads[4];
    int failed[4] = {0};
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, create_many, &failed[i]))
            _exit(2);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    dprintf(to, "%d", failed[0] + failed[1] + failed[2] + failed[3]);
}

static void threads_may_load_at_once(void **state)
{
    (void)state;
    in_child(write_threads, fake("good"));
    assert_string_equal(answer, "0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_plugin_is_taken),
        cmocka_unit_test(spoiled_plugins_are_refused),
        cmocka_unit_test(paths_that_lead_nowhere),
        cmocka_unit_test(never_the_working_directory),
        cmocka_unit_test(the_environment_can_be_ignored),
        cmocka_unit_test(devices_and_implementations_join_the_lists),
        cmocka_unit_test(plans_run_on_the_device),
        cmocka_unit_test(threads_may_load_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
