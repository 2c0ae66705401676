/* heed inspect from outside. */
#define _GNU_SOURCE
#include "cli.h"

#include <jansson.h>
#include <math.h>

static const int64_t six[] = {2, 3}, none[] = {0, 4};

static void write_mixed(void)
{
    static const float floats[] = {0, -8, 0.5f, 1.5f, NAN, INFINITY};
    static const int64_t integers[] = {-3, 1, 2, 3, 4, 9};
    static const uint8_t bytes[6] = {0};
    st_tensor_t tensors[] = {
        {"weights", st_dtype_find("F32"), 2, six, 0, 0, 0, floats},
        {"ids", st_dtype_find("I64"), 2, six, 0, 0, 0, integers},
        {"flags", st_dtype_find("BOOL"), 2, six, 0, 0, 0, bytes},
        {"empty", st_dtype_find("BF16"), 2, none, 0, 0, 0, bytes},
    };
    write_tensors("mixed", tensors, 4);
}

static void lists_tensors(void **state)
{
    (void)state;
    write_mixed();
    EXPECT_OUT("weights  F32      [2,3]                24 B", "inspect mixed --ascii");
    static const char *const words[] = {"-8 .. 1.5  mean -1.5  rms 4.077  zero 1  NaN 1  Inf 1",
                                        "| 2^-1 .. 2^3",
                                        "-3 .. 9",
                                        "4 tensors, 78 B",
                                        "I64",
                                        "[0,4]"};
    for (int i = 0; i < 6; i++)
        if (!strstr(out, words[i]))
            fail_msg("no \"%s\" in:\n%s", words[i], out);
    EXPECT_OUT("1 tensor, 48 B", "inspect mixed --include 'i*'");
    assert_null(strstr(out, "weights"));
    EXPECT_OUT("4 tensors", "inspect mixed --no-values");
    assert_null(strstr(out, "mean"));
}

/* The columns of a picture, which the JSON has as numbers: 0.5 and 1.5 and -8. */
static void counts_values(void **state)
{
    (void)state;
    json_error_t error;
    write_mixed();
    EXPECT_OUT("weights", "inspect mixed --json --include weights");
    json_t *all = json_loads(out, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(all);
    const json_t *tensor = json_array_get(json_object_get(all, "tensors"), 0);
    const json_t *histogram = json_object_get(tensor, "histogram");
    static const int expected[] = {1, 1, 0, 0, 1, 0};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(json_integer_value(json_array_get(histogram, i)), expected[i]);
    assert_int_equal(json_integer_value(json_object_get(tensor, "nans")), 1);
    assert_float_equal(json_real_value(json_object_get(tensor, "min")), -8, 0);
    json_decref(all);
}

static void complains(void **state)
{
    (void)state;
    write_mixed();
    EXPECT_FAILED("nowhere: ", "inspect nowhere");
    EXPECT_FAILED("mixed: no tensor matches x*", "inspect mixed --include 'x*'");
    EXPECT_USAGE("a file is missing", "inspect");
    EXPECT_USAGE("one file at a time: b is one too many", "inspect a b");
    EXPECT_USAGE("unrecognized option '--nonsense'", "inspect --nonsense");
    EXPECT_OUT("Examples:", "inspect --help");
}

/* Names come from the file, and must not reach a terminal as commands. */
static void hostile_names(void **state)
{
    (void)state;
    static const float values[] = {1, 2, 3, 4, 5, 6};
    st_tensor_t tensor = {"a\033[2Jb", st_dtype_find("F32"), 2, six, 0, 0, 0, values};
    write_tensors("hostile", &tensor, 1);
    EXPECT_OUT("a?[2Jb", "inspect hostile");
    assert_null(strchr(out, '\033'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_tensors),
        cmocka_unit_test(counts_values),
        cmocka_unit_test(complains),
        cmocka_unit_test(hostile_names),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
