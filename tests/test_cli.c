/* The heed command from outside: its help, info and explain. Others have tests of their own. */
#define _GNU_SOURCE
#include "cli.h"

/* ---- the command itself ---------------------------------------------------------------------- */

static void commands(void **state)
{
    (void)state;
    EXPECT_OUT("Usage: heed COMMAND", "--help");
    EXPECT_OUT("Usage: heed COMMAND", "help");
    EXPECT_OUT("heed " HEED_VERSION_STRING, "--version");
    EXPECT_OUT("heed " HEED_VERSION_STRING, "version");
    assert_int_equal(heed(" "), 2);
    assert_non_null(strstr(out, "Usage: heed COMMAND"));
    EXPECT_USAGE("heed: there is no command jump; there are info, run", "jump");
    EXPECT_USAGE("heed: there is no command jump", "help jump");
    EXPECT_USAGE("heed: version takes no arguments", "version now");
}

static void help_everywhere(void **state)
{
    (void)state;
    static const char *const names[] = {"info",     "run",     "run attention",
                                        "run cast", "explain", "bench"};
    for (int i = 0; i < 6; i++) {
        EXPECT_OUT("Examples:", "%s --help", names[i]);
        assert_non_null(strstr(out, "Usage: heed "));
        assert_string_equal(err, "");
        if (i > 1)
            EXPECT_USAGE("unrecognized option '--nonsense'", "%s --nonsense", names[i]);
    }
    EXPECT_OUT("Usage: heed info", "help info");
    EXPECT_OUT("--causal-align", "run attention --help");
    EXPECT_OUT("--dst-dtype", "run cast --help");
}

static void full_output(void **state)
{
    (void)state;
    EXPECT_FAILED("standard output cannot be written", "info >/dev/full");
}

/* ---- info and explain ------------------------------------------------------------------------ */

static void info_tells_all(void **state)
{
    (void)state;
    EXPECT_OUT("no cuda: ", "info");
    static const char *const words[] = {"cpu:standard", "HEED_MAX_CPU_ISA", "auto: attention",
                                        "auto: cast", "core"};
    for (int i = 0; i < 5; i++)
        assert_non_null(strstr(out, words[i]));
    EXPECT_OUT("instruction sets  scalar", "info --max-isa scalar");
    EXPECT_OUT("plans use 1 thread\n", "info --threads 1");
    EXPECT_USAGE("unexpected argument \"now\"", "info now");
    EXPECT_USAGE("--threads takes a number from 1 up, not \"0\"", "info --threads 0");
    EXPECT_FAILED("HEED_VERBOSE=loud is unknown", "info --verbose loud");
}

static json_t *info_json(const char *arguments)
{
    json_error_t error;
    assert_int_equal(heed("info --json %s", arguments), 0);
    json_t *info = json_loads(out, JSON_REJECT_DUPLICATES, &error);
    if (!info)
        fail_msg("%s", error.text);
    return info;
}

static void info_as_json(void **state)
{
    (void)state;
    heed_env_info_t variable;
    json_t *info = info_json("--impl attention=cpu:standard");
    assert_string_equal(json_string_value(json_object_get(info, "version")), HEED_VERSION_STRING);
    json_t *operation = json_array_get(json_object_get(info, "operations"), 0);
    assert_string_equal(json_string_value(json_object_get(operation, "name")), "attention");
    json_t *impls = json_object_get(operation, "implementations"), *impl;
    size_t i;
    assert_in_range(json_array_size(impls), 1, 100);
    json_array_foreach(impls, i, impl)
    {
        const char *name = json_string_value(json_object_get(impl, "name"));
        const char *why = json_string_value(json_object_get(impl, "why"));
        bool usable = json_is_true(json_object_get(impl, "usable"));
        assert_int_equal(usable, strcmp(name, "cpu:standard") == 0);
        assert_int_equal(usable, *why == '\0');
    }
    json_t *choice = json_array_get(json_object_get(operation, "auto"), 0);
    assert_string_equal(json_string_value(json_object_get(choice, "impl")), "cpu:standard");
    json_t *environment = json_object_get(info, "environment");
    for (int v = 0; heed_env_info(v, &variable); v++)
        assert_string_equal(
            json_string_value(json_object_get(json_array_get(environment, (size_t)v), "name")),
            variable.name);
    json_decref(info);
}

static void info_with_environment(void **state)
{
    (void)state;
    setenv("HEED_MAX_CPU_ISA", "scalar", 1);
    EXPECT_OUT("HEED_MAX_CPU_ISA   scalar", "info");
    setenv("HEED_MAX_CPU_ISA", "bogus", 1);
    EXPECT_FAILED("HEED_MAX_CPU_ISA=bogus", "info");
    unsetenv("HEED_MAX_CPU_ISA");
}

/* How a sequence would be spread. */
static void explain_ranks(void **state)
{
    (void)state;
    EXPECT_OUT("on 4 ranks, messages of 10 GB/s after 10 us",
               "explain --ranks 4 attention sq=4096 sk=4096 hq=6 d=64 causal=1");
    assert_non_null(strstr(out, "6 heads of q are no multiple of 4 ranks"));
    assert_non_null(strstr(out, "all-to-all-ring 2"));
    assert_non_null(strstr(out, "chosen"));
    EXPECT_OUT("every rank has all queries",
               "explain --ranks 4 --everywhere --rate 1 --latency 5 attention sq=1 sk=4096");
    EXPECT_OUT("100.0 %  chosen",
               "explain --ranks 4 attention b=64 sq=65536 sk=65536 hq=8 hk=8 d=128 "
               "causal=1 ragged=qk");
    EXPECT_FAILED("--ranks: documents have queries", "explain --ranks 4 attention ragged=k");
    EXPECT_FAILED("--ranks is for attention", "explain --ranks 4 cast n=10");
    EXPECT_USAGE("\"round\" is no layout", "explain --ranks 4 --layout round attention");
    EXPECT_USAGE("no number of ranks", "explain --ranks 0 attention");
    EXPECT_USAGE("no number above 0", "explain --ranks 4 --rate 0 attention");
}

static void explain_problems(void **state)
{
    (void)state;
    EXPECT_OUT("density   0.0547: a query sees 3584 of 65536 keys",
               "explain dilated n=65536 hq=8 d=64 segments=2048,4096,8192 rates=1,2,4");
    EXPECT_OUT("ranks     1, which is this process", "explain dilated n=64 segments=8 rates=1");
    static char first[OUTPUT_SIZE];
    EXPECT_OUT("chosen", "explain attention sq=100 d=32 causal=1");
    assert_non_null(strstr(out, "attention dtype=f32 b=1 sq=100 sk=100 hq=8 hk=8 d=32 dv=32"));
    assert_non_null(strstr(out, "workspace "));
    assert_non_null(strstr(out, "cpu:standard"));
    strcpy(first, out);
    EXPECT_OUT("chosen", "explain --prob 'attention sq=100 d=32 causal=1'");
    assert_string_equal(out, first);
#if defined(__x86_64__)
    EXPECT_OUT("refused: needs avx2", "explain --max-isa scalar cast n=10");
#elif defined(__aarch64__)
    EXPECT_OUT("refused: needs neon", "explain --max-isa scalar attention sq=10");
#endif
    EXPECT_USAGE("a problem is missing", "explain");
    EXPECT_USAGE("heed: ", "explain jump sq=100");
    EXPECT_USAGE("heed: causal=2", "explain attention causal=2");
    EXPECT_USAGE("heed: attention has no word 'depth'", "explain attention depth=2");
    EXPECT_FAILED("q has 3 heads", "explain attention hq=3 hk=2");
#if defined(__x86_64__)
    EXPECT_FAILED("no implementation", "explain attention --impl cpu:flash_avx2 --max-isa scalar");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands),         cmocka_unit_test(help_everywhere),
        cmocka_unit_test(full_output),      cmocka_unit_test(info_tells_all),
        cmocka_unit_test(info_as_json),     cmocka_unit_test(info_with_environment),
        cmocka_unit_test(explain_problems), cmocka_unit_test(explain_ranks),
    };
    return cmocka_run_group_tests_name("cli", tests, make_folder, remove_folder);
}
