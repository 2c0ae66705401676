/* heed bench compare: files joined by problem, the best variant of each program, who is ahead; what
 * is no such file. */
#define _GNU_SOURCE
#include "cli.h"

/* A result of one implementation; the limit is 1 ms whatever the time. */
#define RESULT(prob, impl, ms)                                                             \
    "{\"prob\": \"" prob "\", \"impl\": \"" impl "\", \"threads\": 2, \"median_ns\": " #ms \
    "000000, \"flops\": 100000000, \"bytes\": 5000000, \"limit\": \"fma_f32\", "           \
    "\"fraction_of_limit\": " FRACTION_##ms "}"
#define FRACTION_2 "0.5"
#define FRACTION_4 "0.25"
#define FRACTION_5 "0.2"
#define FRACTION_8 "0.125"

#define FILE_OF(drift, ...)                                                                   \
    "{\"schema\": \"heed-bench-1\", \"context\": {\"cpu\": \"Z80\", \"limits_drift\": " drift \
    "}, "                                                                                     \
    "\"results\": [" __VA_ARGS__ "]}"

static void write_text(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_table(void **state)
{
    (void)state;
    write_text("heed.json",
               FILE_OF("0.01", RESULT("attention sq=7", "cpu:flash_avx2", 2) "," RESULT(
                                   "attention sq=7", "cpu:standard",
                                   8) "," RESULT("attention sq=9 causal=0", "cpu:flash_avx2", 5)));
    write_text("peers.json",
               FILE_OF("0.30", RESULT("attention sq=7", "torch:math", 8) "," RESULT(
                                   "attention sq=7", "torch:flash",
                                   4) "," RESULT("attention sq=9 causal=0", "ort:mha", 4)));
    EXPECT_OUT("Heed is ahead of every peer on 1 of 2 problems.",
               "bench compare heed.json peers.json");
    assert_non_null(strstr(out, "Z80. Medians"));
    assert_non_null(strstr(out, "moved by up to 30 %"));
    assert_non_null(
        strstr(out, "| problem | threads | in | limit | heed | of limit | torch | ort |"));
    assert_non_null(
        strstr(out, "| `sq=7` | 2 | GF/s | 100 | **50.0** | 50 % | 25.0 | | 2.00 | torch flash |"));
    assert_non_null(strstr(
        out,
        "| `sq=9` | 2 | GF/s | 100 | 20.0 | 20 % | | **25.0** | 0.80 | **loses** to ort mha |"));
    EXPECT_OUT("ahead of every peer on 0 of 0", "bench compare heed.json");
}

static void test_plot(void **state)
{
    (void)state;
    write_text("one.json", FILE_OF("0", RESULT("attention sq=7", "cpu:flash_avx2", 2)));
    before = "PATH=/nowhere";
    assert_int_equal(heed("bench compare --plot x.svg one.json"), 1);
    before = "";
    assert_non_null(strstr(err, "there is no gnuplot, so x.svg was not drawn"));
    assert_false(exists("x.svg"));
    assert_non_null(strstr(out, "| `sq=7` |")); /* the table is there all the same */
    if (system("command -v gnuplot >/dev/null 2>&1"))
        return;
    EXPECT_OUT("`sq=7`", "bench compare --plot x.svg one.json");
    assert_true(exists("x.svg"));
}

static void expect_bad(const char *text, const char *sentence, int line)
{
    write_text("bad.json", text);
    int code = heed("bench compare bad.json");
    if (code != 1 || !strstr(err, sentence))
        fail_msg("line %d: exit code %d, no \"%s\" in: %s", line, code, sentence, err);
}

static void test_bad_files(void **state)
{
    (void)state;
    expect_bad("{", "bad.json: ", __LINE__);
    expect_bad("[]", "its schema is \"\"", __LINE__);
    expect_bad("{\"schema\": \"heed-gpu-1\"}", "its schema is \"heed-gpu-1\"", __LINE__);
    expect_bad(FILE_OF("0", ""), "the files have no results", __LINE__);
    expect_bad(FILE_OF("0", "7"), "a result without prob", __LINE__);
    expect_bad(FILE_OF("0", RESULT("attention sq=7", "nameless", 2)), "with impl \"nameless\"",
               __LINE__);
    expect_bad(FILE_OF("0", RESULT("attention sq=7", ":x", 2)), "with impl \":x\"", __LINE__);
    EXPECT_USAGE("which files?", "bench compare");
    EXPECT_USAGE("--plot takes FILE.svg or FILE.png", "bench compare --plot x.gif heed.json");
    assert_int_equal(heed("bench compare nothing.json"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_plot),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
