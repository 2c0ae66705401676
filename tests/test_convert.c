/* heed convert from outside: what it writes, and that bad files leave nothing behind. */
#define _GNU_SOURCE
#include "cli.h"
#include "controls.h"

#include <math.h>

static const int64_t square[] = {200, 300}, line[] = {5};

/* 200 x 300 weights that grow with their row, a bias and ids. */
static const float *weights(void)
{
    static float values[200 * 300];
    for (int i = 0; i < 200 * 300; i++)
        values[i] = sinf((float)i) * (float)(1 + i / 300);
    return values;
}

static void write_model(const char *name)
{
    static const float bias[] = {1, 2, 3, 4, 5};
    static const int64_t ids[] = {1, 2, 3, 4, 5};
    st_tensor_t tensors[] = {
        {"a.weight", st_dtype_find("F32"), 2, square, 0, 0, 0, weights()},
        {"a.bias", st_dtype_find("F32"), 1, line, 0, 0, 0, bias},
        {"ids", st_dtype_find("I64"), 1, line, 0, 0, 0, ids},
    };
    write_tensors(name, tensors, 3);
}

static const st_tensor_t *find(const st_file_t *file, const char *name, const char *dtype,
                               const char *shape)
{
    char text[128];
    const st_tensor_t *found = st_find(file, name);
    if (!found)
        fail_msg("there is no %s", name);
    assert_string_equal(found->dtype->name, dtype);
    assert_string_equal(st_shape_text(found, text, sizeof text), shape);
    return found;
}

/* Largest error of a.weight in file, relative to the largest number of its row. */
static double worst_of(const char *name)
{
    st_file_t *file = open_file(name);
    const float *found = find(file, "a.weight", "F32", "[200,300]")->data, *wanted = weights();
    double worst = 0;
    for (int i = 0; i < 200 * 300; i++) {
        double error = fabs((double)found[i] - (double)wanted[i]) / (1 + i / 300);
        worst = error > worst ? error : worst; /* fmax: GCC 12 for ARM breaks off */
    }
    st_close(file);
    return worst;
}

static void scales_beside_codes(void **state)
{
    (void)state;
    static const struct {
        const char *words, *name, *dtype, *shape, *codes;
        double error; /* there and back, of the row's largest: 2^-4 of a number at most */
    } cases[] = {
        {"--to e4m3", "a.weight_scale", "F32", "[1]", "F8_E4M3", 0.07},
        {"--to e4m3 --scale row", "a.weight_scale", "F32", "[200,1]", "F8_E4M3", 0.0626},
        {"--to e4m3 --scale block", "a.weight_scale_inv", "F32", "[2,3]", "F8_E4M3", 0.07},
        {"--to mxfp8", "a.weight_scale", "U8", "[200,10]", "F8_E4M3", 0.0626},
        {"--to e5m2", "a.weight_scale", "F32", "[1]", "F8_E5M2", 0.13},
        {"--to e4m3fnuz", "a.weight_scale", "F32", "[1]", "F8_E4M3FNUZ", 0.07},
    };
    write_model("model");
    for (int i = 0; i < 6; i++) {
        EXPECT_OUT("1 cast, 2 copied", "convert model codes %s", cases[i].words);
        assert_non_null(strstr(out, "a.weight  F32 [200,300] -> "));
        st_file_t *file = open_file("codes");
        find(file, cases[i].name, cases[i].dtype, cases[i].shape);
        find(file, "a.weight", cases[i].codes, "[200,300]");
        const int64_t *ids = find(file, "ids", "I64", "[5]")->data;
        const float *bias = find(file, "a.bias", "F32", "[5]")->data;
        assert_true(ids[4] == 5 && bias[4] == 5);
        st_close(file);

        EXPECT_OUT("cast", "convert codes back --to f32");
        file = open_file("back");
        assert_null(st_find(file, cases[i].name));
        st_close(file);
        double worst = worst_of("back");
        if (!(worst > 0.02 && worst < cases[i].error))
            fail_msg("%s: error %g, should be below %g", cases[i].words, worst, cases[i].error);
    }
}

/* Codes and scales that were worked out by hand. */
static void decodes_given_scales(void **state)
{
    (void)state;
    static const uint8_t codes[] = {0x38, 0xc0, 0x7e, 0x01, 0x00, 0x7f}; /* 1 -2 448 2^-9 0 NaN */
    static const float row_scales[] = {2, 0.5f};
    static const int64_t shape[] = {2, 3}, rows[] = {2};
    st_tensor_t tensors[] = {
        {"w_scale", st_dtype_find("F32"), 1, rows, 0, 0, 0, row_scales},
        {"w", st_dtype_find("F8_E4M3"), 2, shape, 0, 0, 0, codes},
    };
    write_tensors("codes", tensors, 2);
    EXPECT_OUT("1 cast, 0 copied", "convert codes plain --to f32");
    static const float wanted[] = {2, -4, 896, 0x1p-10f, 0};
    st_file_t *file = open_file("plain");
    const float *found = find(file, "w", "F32", "[2,3]")->data;
    for (int i = 0; i < 5; i++)
        assert_true(found[i] == wanted[i]);
    assert_true(isnan(found[5]));
    st_close(file);
}

static void chosen_tensors(void **state)
{
    (void)state;
    write_model("model");
    EXPECT_OUT("2 cast, 1 copied", "convert model x --to e4m3 --include 'a.*'");
    EXPECT_OUT("0 cast, 3 copied", "convert model x --to e4m3 --exclude '*weight'");
    EXPECT_OUT("2 cast, 1 copied", "convert model x --to bf16");
    EXPECT_OUT("SQNR exact", "convert model x --to f32");
    EXPECT_OUT("", "convert model x --to f16 --quiet");
    assert_string_equal(out, "");
    EXPECT_FAILED("model: ids is I64, which is not cast", "convert model x --to f16 --include '*'");
}

/* 1000 is beyond E4M3: presets differ. */
static void presets(void **state)
{
    (void)state;
    static const float values[] = {1000, -1000, 1, INFINITY};
    static const int64_t shape[] = {2, 2};
    static const struct {
        const char *preset;
        uint8_t codes[4];
    } cases[] = {{"ocp_sat", {0x7e, 0xfe, 0x38, 0x7e}},
                 {"ocp_nosat", {0x7f, 0xff, 0x38, 0x7f}},
                 {"cuda_satfinite", {0x7e, 0xfe, 0x38, 0x7e}}};
    st_tensor_t tensor = {"w", st_dtype_find("F32"), 2, shape, 0, 0, 0, values};
    write_tensors("wide", &tensor, 1);
    for (int i = 0; i < 3; i++) {
        EXPECT_OUT("1 cast", "convert wide x --to e4m3 --scale none --preset %s", cases[i].preset);
        st_file_t *file = open_file("x");
        assert_memory_equal(find(file, "w", "F8_E4M3", "[2,2]")->data, cases[i].codes, 4);
        st_close(file);
    }
    assert_non_null(strstr(out, "clipped 2"));
    assert_non_null(strstr(out, "Inf 1"));
}

static void keeps_metadata(void **state)
{
    (void)state;
    EXPECT_OUT("3 cast", "convert '%s' x --to bf16", HEED_TEST_DATA "/demo/long_f32.safetensors");
    st_file_t *file = open_file("x");
    assert_string_equal(json_string_value(json_object_get(st_metadata(file), "layout")), "bshd");
    st_close(file);
}

static void complains(void **state)
{
    (void)state;
    write_model("model");
    EXPECT_USAGE("two files are needed", "convert model --to bf16");
    EXPECT_USAGE("--to is missing", "convert model x");
    EXPECT_USAGE("--to takes e4m3, e5m2,", "convert model x --to f8");
    EXPECT_USAGE("--scale takes tensor, row,", "convert model x --to e4m3 --scale column");
    EXPECT_USAGE("bf16 takes no scales", "convert model x --to bf16 --scale row");
    EXPECT_USAGE("mxfp8 has scales of its own", "convert model x --to mxfp8 --scale row");
    EXPECT_USAGE("--preset: ", "convert model x --to e4m3 --preset best");
    EXPECT_USAGE("unexpected argument \"y\"", "convert model x y --to bf16");
    EXPECT_FAILED("no/such/x: cannot be created", "convert model no/such/x --to bf16");
}

/* A damaged file is refused, and what stood under the output's name stays. */
static void damaged_files(void **state)
{
    (void)state;
    char command[512];
    write_model("model");
    EXPECT_OUT("cast", "convert model kept --to e4m3");
    for (int bytes = 0; bytes < 200; bytes += 9) {
        snprintf(command, sizeof command, "cd '%s' && head -c %d model >cut", folder, bytes);
        assert_int_equal(system(command), 0);
        EXPECT_FAILED("cut: ", "convert cut kept --to e4m3");
    }
    st_file_t *file = open_file("kept");
    find(file, "a.weight", "F8_E4M3", "[200,300]");
    st_close(file);

    static const uint8_t codes[6];
    static const float scales[3] = {1, 1, 1};
    static const int64_t shape[] = {2, 3}, three[] = {3};
    st_tensor_t tensors[] = {
        {"w_scale", st_dtype_find("F32"), 1, three, 0, 0, 0, scales},
        {"w", st_dtype_find("F8_E4M3"), 2, shape, 0, 0, 0, codes},
    };
    write_tensors("odd", tensors, 2);
    EXPECT_FAILED("odd: w_scale is F32 [3]: no scales for a tensor of 2 x 3",
                  "convert odd none --to f32");
    assert_false(exists("none"));
}

/* Shell functions around `heed convert INPUT OUTPUT --to FORMAT ...`. */
static const struct {
    int fault;
    const char *words;
} broken[] = {
    {FAULT_LAST, "f() { \"$@\"; c=$?; [ $c -gt 0 ] || printf U | dd of=\"$4\" bs=1 conv=notrunc "
                 "seek=$(($(stat -c %s \"$4\") - 1)) 2>/dev/null; return $c; }; f"},
    {FAULT_OPTIONS, "f() { \"$1\" \"$2\" \"$3\" \"$4\" \"$5\" \"$6\"; }; f"},
    {FAULT_METADATA, "f() { \"$@\"; c=$?; LC_ALL=C sed -i s/bshd/dhsb/ \"$4\"; return $c; }; f"},
    {FAULT_ACCEPTS, "f() { \"$@\" || :; }; f"},
    {FAULT_LEAVES, "f() { \"$@\"; c=$?; [ $c = 0 ] || echo part >\"$4\"; return $c; }; f"},
};

static const control_t controls[] = {
    {"scales_beside_codes", FAULT_LAST},
    {"scales_beside_codes", FAULT_OPTIONS},
    {"decodes_given_scales", FAULT_LAST},
    {"chosen_tensors", FAULT_OPTIONS},
    {"presets", FAULT_LAST},
    {"presets", FAULT_OPTIONS},
    {"keeps_metadata", FAULT_METADATA},
    {"complains", FAULT_ACCEPTS},
    {"damaged_files", FAULT_ACCEPTS},
    {"damaged_files", FAULT_LEAVES},
};

int main(int argc, char **argv)
{
    int status;
    if (use_arguments(argc, argv, controls, COUNT(controls), &status))
        return status;
    for (size_t i = 0; i < COUNT(broken); i++)
        if (broken[i].fault == fault)
            before = broken[i].words;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_beside_codes), cmocka_unit_test(decodes_given_scales),
        cmocka_unit_test(chosen_tensors),      cmocka_unit_test(presets),
        cmocka_unit_test(keeps_metadata),      cmocka_unit_test(complains),
        cmocka_unit_test(damaged_files),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
