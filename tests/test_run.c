/* heed run from outside: results, files, exit codes, sentences. */
#define _GNU_SOURCE
#include "cli.h"

#include <math.h>
#include <sys/stat.h>

#define DEMO HEED_TEST_DATA "/demo/"

/* ---- making files ---------------------------------------------------------------------------- */

/* Room for the largest tensor here, counting up in small steps. */
static const float *some_values(void)
{
    static float values[4096];
    for (int i = 0; i < 4096; i++)
        values[i] = (float)((i * 37) % 101 - 50) / 50;
    return values;
}

static st_tensor_t tensor(const char *name, const char *dtype, int ndim, const int64_t *shape)
{
    st_tensor_t made = {name, st_dtype_find(dtype), ndim, shape, 0, 0, 0, some_values()};
    return made;
}

static const int64_t q_shape[] = {1, 5, 4, 8}, k_shape[] = {1, 7, 2, 8}, v_shape[] = {1, 7, 2, 6};

static void write_qkv(const char *name, st_tensor_t q, st_tensor_t k, st_tensor_t v)
{
    st_tensor_t tensors[] = {q, k, v};
    write_tensors(name, tensors, 3);
}

static void write_small(const char *name)
{
    write_qkv(name, tensor("q", "F32", 4, q_shape), tensor("k", "F32", 4, k_shape),
              tensor("v", "F32", 4, v_shape));
}

static void expect_tensor(const st_file_t *file, const char *name, const char *dtype,
                          const char *shape)
{
    char text[128];
    const st_tensor_t *found = st_find(file, name);
    assert_non_null(found);
    assert_string_equal(found->dtype->name, dtype);
    assert_string_equal(st_shape_text(found, text, sizeof text), shape);
}

/* ---- results --------------------------------------------------------------------------------- */

/* Swaps axes 1 and 2 of a tensor with four axes; the data is the caller's to free. */
static st_tensor_t swapped(const st_tensor_t *from, int64_t shape[4])
{
    size_t bytes = (size_t)from->dtype->bits / 8;
    const int64_t *n = from->shape;
    st_tensor_t to = *from;
    char *data = malloc(from->bytes + 1);
    assert_non_null(data);
    shape[0] = n[0], shape[1] = n[2], shape[2] = n[1], shape[3] = n[3];
    size_t row = (size_t)n[3] * bytes;
    for (int64_t b = 0; b < n[0]; b++)
        for (int64_t i = 0; i < n[1]; i++)
            for (int64_t j = 0; j < n[2]; j++)
                memcpy(data + (size_t)((b * n[2] + j) * n[1] + i) * row,
                       (const char *)from->data + (size_t)((b * n[1] + i) * n[2] + j) * row, row);
    to.shape = shape;
    to.data = data;
    return to;
}

/* Copies a file with every tensor of four axes swapped to bhsd. */
static void write_swapped(const char *from, const char *to)
{
    st_tensor_t tensors[8];
    int64_t shapes[8][4];
    int count = 0;
    const st_tensor_t *at;
    st_file_t *file = open_file(from);
    for (; (at = st_at(file, count)); count++)
        tensors[count] = at->ndim == 4 ? swapped(at, shapes[count]) : *at;
    write_tensors(to, tensors, count);
    for (int i = 0; i < count; i++)
        if (tensors[i].ndim == 4)
            free((void *)tensors[i].data);
    st_file_t *written = open_file(to);
    assert_non_null(st_at(written, count - 1));
    st_close(written);
    st_close(file);
}

static const struct {
    const char *name;
    const char *tolerance;
    bool causal;
} golden[] = {
    {"long_f32", "2e-5", true},
    {"long_bf16", "0.027", true},
    {"long_f16", "0.0034", true},
    {"sentences_f32", "2e-5", false},
};

/* Real tensors in each layout, with one thread and three. */
static void golden_results(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        for (int causal = 0; causal <= golden[i].causal; causal++) {
            char input[256], known[256];
            snprintf(input, sizeof input, DEMO "%s.safetensors", golden[i].name);
            snprintf(known, sizeof known, DEMO "%s%s.golden.safetensors", golden[i].name,
                     causal ? "_causal" : "");
            write_swapped(input, "swapped");
            write_swapped(known, "swapped_golden");
            for (int threads = 1; threads <= 3; threads += 2) {
                EXPECT_OUT("out: max abs error",
                           "run attention -i '%s' --golden '%s' %s"
                           " --tolerance %s --threads %d",
                           input, known, causal ? "--causal" : "", golden[i].tolerance, threads);
                assert_non_null(strstr(out, "lse: max abs error"));
                assert_non_null(strstr(out, "GFLOP/s"));
                EXPECT_OUT("layout=bhsd",
                           "run attention -i swapped --golden swapped_golden %s"
                           " --tolerance %s --threads %d --layout bhsd",
                           causal ? "--causal" : "", golden[i].tolerance, threads);
            }
        }
}

static void golden_catches(void **state)
{
    (void)state;
    const char *input = DEMO "long_f32.safetensors";
    EXPECT_FAILED("out: max abs error",
                  "run attention -i '%s' --golden '%s' --tolerance 2e-5 --causal", input,
                  DEMO "long_f32.golden.safetensors");
    EXPECT_OUT("max abs error", "run attention -i '%s' --golden '%s' --causal", input,
               DEMO "long_f32.golden.safetensors");
    EXPECT_FAILED("lse: max abs error",
                  "run attention -i '%s' --golden '%s' --tolerance 2e-5 --scale 0.2", input,
                  DEMO "long_f32.golden.safetensors");
    EXPECT_FAILED(DEMO "sentences_f32.golden.safetensors: out is [6,97,2,32], but the output is",
                  "run attention -i '%s' --golden '%s'", input,
                  DEMO "sentences_f32.golden.safetensors");
    EXPECT_FAILED(DEMO "long_f16.safetensors: has none of the outputs",
                  "run attention -i '%s' --golden '%s'", input, DEMO "long_f16.safetensors");
    EXPECT_FAILED("nowhere: cannot be opened", "run attention -i '%s' --golden nowhere", input);
}

static void written_files(void **state)
{
    (void)state;
    write_small("small");
    EXPECT_OUT("cpu:standard, 1 thread", "run attention --input small --output result --causal "
                                         "--impl cpu:standard --threads 1 --repeat 3");
    assert_non_null(strstr(out, "attention dtype=f32 b=1 sq=5 sk=7 hq=4 hk=2 d=8 dv=6 causal=1"));
    st_file_t *file = open_file("result");
    expect_tensor(file, "out", "F32", "[1,5,4,6]");
    expect_tensor(file, "lse", "F32", "[1,4,5]");
    assert_null(st_at(file, 2));
    assert_string_equal(json_string_value(json_object_get(st_metadata(file), "implementation")),
                        "cpu:standard");
    st_close(file);
    EXPECT_OUT("", "run attention -i small --golden result --causal --tolerance 1e-5");

    EXPECT_OUT("", "run attention -i '%s' -o result", DEMO "long_bf16.safetensors");
    file = open_file("result");
    expect_tensor(file, "out", "BF16", "[1,511,2,32]");
    expect_tensor(file, "lse", "F32", "[1,2,511]");
    st_close(file);
    EXPECT_OUT("out=f32", "run attention -i '%s' -o result --out-dtype f32",
               DEMO "long_bf16.safetensors");
    file = open_file("result");
    expect_tensor(file, "out", "F32", "[1,511,2,32]");
    st_close(file);
}

static void flags_are_words(void **state)
{
    (void)state;
    write_small("small");
    EXPECT_OUT("causal=1 causal-align=top-left window=3,-1",
               "run attention -i small -o result --causal --causal-align top-left --window 3,-1");
    EXPECT_OUT("scale=0.5", "run attention -i small -o result --scale 0.5");
    EXPECT_USAGE("heed: window=3: it takes L,R", "run attention -i small -o result2 --window 3");
    EXPECT_USAGE("heed: causal=2", "run attention -i small -o result2 --causal=2");
    EXPECT_FAILED("scale=nan", "run attention -i small -o result2 --scale nan");
    EXPECT_FAILED("these words give q strides", "run attention -i '%s' -o result2 --layout fused",
                  DEMO "long_f32.safetensors");
    EXPECT_FAILED("", "run attention -i small -o result2 --impl nobody");
    EXPECT_FAILED("", "run attention -i small -o result2 --max-isa mmx");
    assert_false(exists("result2"));
}

/* q, k, v and a state (out, lse) that the operation starts from. */
static void write_state(const void *out_data, const void *lse_data)
{
    static const int64_t out_shape[] = {1, 5, 4, 6}, lse_shape[] = {1, 4, 5};
    st_tensor_t tensors[] = {tensor("q", "F32", 4, q_shape), tensor("k", "F32", 4, k_shape),
                             tensor("v", "F32", 4, v_shape), tensor("out", "F32", 4, out_shape),
                             tensor("lse", "F32", 3, lse_shape)};
    tensors[3].data = out_data;
    tensors[4].data = lse_data;
    write_tensors("state", tensors, 5);
}

/* An output in the input file is where merging starts: from the state of no keys, where out may
 * hold anything, and from the state of the same keys, which doubles every sum. */
static void merging(void **state)
{
    (void)state;
    float any[120], none[20];
    for (int i = 0; i < 120; i++)
        any[i] = NAN;
    for (int i = 0; i < 20; i++)
        none[i] = -INFINITY;
    write_small("small");
    EXPECT_OUT("", "run attention -i small -o single");
    write_state(any, none);
    EXPECT_OUT("merge=1",
               "run attention -i state --merge --golden single --tolerance 1e-5 --repeat 2");
    EXPECT_FAILED("", "run attention -i small --merge --golden single --tolerance 1e-5");
    EXPECT_OUT("out: max abs error nan", "run attention -i small --merge --golden single");

    st_file_t *single = open_file("single");
    const float *lse = st_find(single, "lse")->data;
    write_state(st_find(single, "out")->data, lse);
    EXPECT_OUT("merge=1", "run attention -i state --merge -o twice");
    st_file_t *twice = open_file("twice");
    const float *doubled = st_find(twice, "lse")->data;
    for (int i = 0; i < 20; i++)
        assert_true(fabsf(doubled[i] - lse[i] - logf(2)) < 1e-5f);
    st_close(twice);
    st_close(single);
}

static void casting(void **state)
{
    (void)state;
    const int64_t shape[] = {2, 3, 0, 5}, cube[] = {4, 4, 4};
    st_tensor_t source = tensor("src", "F32", 3, cube);
    write_tensors("f32", &source, 1);
    EXPECT_OUT("cast src=f32 dst=bf16 n=64", "run cast -i f32 -o bf16 --dst bf16");
    st_file_t *file = open_file("bf16");
    expect_tensor(file, "dst", "BF16", "[4,4,4]");
    st_close(file);
    EXPECT_OUT("dst=f16", "run cast -i f32 -o f16 --dst-dtype f16");
    EXPECT_OUT("max abs error", "run cast -i f32 --golden bf16 --dst f32 --tolerance 0.004");
    EXPECT_FAILED("dst: max abs error", "run cast -i f32 --golden bf16 --dst f32 --tolerance 1e-5");

    source = tensor("src", "F32", 4, shape);
    write_tensors("empty", &source, 1);
    EXPECT_OUT("n=0", "run cast -i empty -o bf16 --dst bf16");
    file = open_file("bf16");
    expect_tensor(file, "dst", "BF16", "[2,3,0,5]");
    st_close(file);
    source = tensor("src", "F32", 0, NULL);
    write_tensors("scalar", &source, 1);
    EXPECT_OUT("n=1", "run cast -i scalar -o bf16");
}

/* ---- what it refuses ------------------------------------------------------------------------- */

static void wrong_command_lines(void **state)
{
    (void)state;
    write_small("small");
    EXPECT_USAGE("heed: run takes an operation first: attention, cast", "run");
    EXPECT_USAGE("heed: run takes an operation first", "run -i small");
    EXPECT_USAGE("heed: there is no operation jump; there are attention, cast", "run jump");
    EXPECT_USAGE("--input is missing", "run attention -o result");
    EXPECT_USAGE("--output is missing", "run attention -i small");
    EXPECT_USAGE("--tolerance needs --golden", "run attention -i small -o x --tolerance 1");
    EXPECT_USAGE("--tolerance takes", "run attention -i small --golden x --tolerance -1");
    EXPECT_USAGE("--tolerance takes", "run attention -i small --golden x --tolerance big");
    EXPECT_USAGE("--repeat takes", "run attention -i small -o x --repeat 0");
    EXPECT_USAGE("--threads takes", "run attention -i small -o x --threads 1.5");
    EXPECT_USAGE("unexpected argument \"more\"", "run attention -i small -o x more");
}

static void wrong_tensors(void **state)
{
    (void)state;
    const int64_t k_96[] = {1, 7, 2, 96}, three[] = {5, 4, 8}, heads[] = {1, 7, 3, 8};
    st_tensor_t q = tensor("q", "F32", 4, q_shape), k = tensor("k", "F32", 4, k_shape);
    st_tensor_t v = tensor("v", "F32", 4, v_shape);
    st_tensor_t only[] = {q, k};
    write_tensors("bad", only, 2);
    EXPECT_FAILED("bad: has no tensor v; attention takes q, k, v", "run attention -i bad -o x");
    write_qkv("bad", q, tensor("k", "F32", 4, k_96), v);
    EXPECT_FAILED("bad: k.shape[3] is 96, but q says d=8", "run attention -i bad -o x");
    EXPECT_FAILED("bad: k.shape[3] is 96, but q says d=8",
                  "run attention -i bad -o x --layout bhsd");
    write_qkv("bad", tensor("q", "F32", 3, three), k, v);
    EXPECT_FAILED("bad: q has 3 axes, but attention takes 4 there: b,sq,hq,d",
                  "run attention -i bad -o x");
    EXPECT_FAILED("bad: q has 3 axes, but attention takes 4 there: b,hq,sq,d",
                  "run attention -i bad -o x --layout bhsd");
    write_qkv("bad", q, tensor("k", "I32", 4, k_shape), v);
    EXPECT_FAILED("bad: k: k-dtype=i32: it takes same|f32", "run attention -i bad -o x");
    write_qkv("bad", tensor("q", "I32", 4, q_shape), k, v);
    EXPECT_FAILED("bad: q: dtype=i32", "run attention -i bad -o x");
    write_qkv("bad", tensor("q", "I16", 4, q_shape), k, v);
    EXPECT_FAILED("bad: q is I16, which no operation takes", "run attention -i bad -o x");
    write_qkv("bad", q, tensor("k", "F32", 4, heads), tensor("v", "F32", 4, heads));
    EXPECT_FAILED("q has 4 heads", "run attention -i bad -o x");
    assert_false(exists("x"));
}

static void extra_tensors(void **state)
{
    (void)state;
    st_tensor_t tensors[] = {tensor("q", "F32", 4, q_shape), tensor("k", "F32", 4, k_shape),
                             tensor("v", "F32", 4, v_shape), tensor("colour", "F32", 4, v_shape),
                             tensor("out", "F64", 4, v_shape)};
    write_tensors("extra", tensors, 4);
    EXPECT_FAILED("extra: tensor colour is no operand of attention", "run attention -i extra -o y");
    EXPECT_OUT("attention", "run attention -i extra -o y --ignore-extra");
    tensors[3] = tensors[4];
    write_tensors("extra", tensors, 4);
    EXPECT_FAILED("extra: out is F64 [1,7,2,6], but the output is F32 [1,5,4,6]",
                  "run attention -i extra -o y");
    EXPECT_OUT("attention", "run attention -i extra -o y --ignore-extra");
}

static void broken_files(void **state)
{
    (void)state;
    write_small("small");
    EXPECT_FAILED("nowhere: cannot be opened: No such file", "run attention -i nowhere -o x");
    char command[256];
    snprintf(command, sizeof command, "cd '%s' && head -c 300 small > cut", folder);
    assert_int_equal(system(command), 0);
    EXPECT_FAILED("cut: ", "run attention -i cut -o x");
    EXPECT_FAILED("/dev/zero: is not a regular file", "run attention -i /dev/zero -o x");
    assert_false(exists("x"));
}

static int count_files(void)
{
    int count = -1;
    char command[256], text[OUTPUT_SIZE];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l > '%s/count'", folder, folder);
    assert_int_equal(system(command), 0);
    read_all("count", text);
    assert_int_equal(sscanf(text, "%d", &count), 1);
    return count;
}

static void unwritable_outputs(void **state)
{
    (void)state;
    struct stat was, is;
    char path[128];
    write_small("small");
    EXPECT_OUT("", "run attention -i small -o kept");
    snprintf(path, sizeof path, "%s/kept", folder);
    assert_int_equal(stat(path, &was), 0);
    count_files();
    int files = count_files();
    EXPECT_FAILED("no/such/x: cannot be created", "run attention -i small -o no/such/x");
    EXPECT_FAILED("/dev/null: is not a regular file", "run attention -i small -o /dev/null");
    EXPECT_FAILED("/proc/x: cannot be created", "run attention -i small -o /proc/x");
    before = "ulimit -f 64;"; /* blocks of 512 or 1024 bytes; the output has 130 thousand */
    EXPECT_FAILED("kept: cannot be written: File too large", "run attention -i '%s' -o kept",
                  DEMO "long_f32.safetensors");
    before = "";
    assert_int_equal(count_files(), files);
    assert_int_equal(stat(path, &is), 0);
    assert_int_equal(is.st_ino, was.st_ino);
    assert_int_equal(is.st_size, was.st_size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_results),
        cmocka_unit_test(golden_catches),
        cmocka_unit_test(written_files),
        cmocka_unit_test(flags_are_words),
        cmocka_unit_test(merging),
        cmocka_unit_test(casting),
        cmocka_unit_test(wrong_command_lines),
        cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(extra_tensors),
        cmocka_unit_test(broken_files),
        cmocka_unit_test(unwritable_outputs),
    };
    return cmocka_run_group_tests_name("run", tests, make_folder, remove_folder);
}
