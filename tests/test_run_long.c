/* `heed run ring` and `heed run sparse` from outside, against `heed run attention`. */
#define _GNU_SOURCE
#include "cli.h"
#include "kit.h"

#include <math.h>
#include <sys/stat.h>

enum { TOKENS = 331, QUERIES = 301, HEADS = 4, KEY_HEADS = 2, DIM = 16, VALUES = 24 };

/* ---- files ----------------------------------------------------------------------------------- */

static float random_values[2][2 * TOKENS * HEADS * VALUES];

static st_tensor_t tensor(const char *name, int set, int64_t const shape[4])
{
    st_tensor_t made = {name, st_dtype_find("F32"), 4, shape, 0, 0, 0, random_values[set]};
    return made;
}

/* q, k and v with 2 batch entries, of `queries` queries, in either order of axes. */
static void write_input(const char *name, int64_t queries, bool heads_first)
{
    int64_t q[4] = {2, queries, HEADS, DIM}, k[4] = {2, TOKENS, KEY_HEADS, DIM};
    int64_t v[4] = {2, TOKENS, KEY_HEADS, VALUES};
    if (heads_first) {
        memcpy(q, (int64_t[]){2, HEADS, queries, DIM}, sizeof q);
        memcpy(k, (int64_t[]){2, KEY_HEADS, TOKENS, DIM}, sizeof k);
        memcpy(v, (int64_t[]){2, KEY_HEADS, TOKENS, VALUES}, sizeof v);
    }
    st_tensor_t tensors[3] = {tensor("q", 0, q), tensor("k", 1, k), tensor("v", 0, v)};
    write_tensors(name, tensors, 3);
}

static int make_files(void **state)
{
    kit_random_t random = {.state = 5};
    for (int set = 0; set < 2; set++)
        for (size_t i = 0; i < sizeof random_values[0] / sizeof(float); i++)
            random_values[set][i] = (float)kit_random_normal(&random);
    if (make_folder(state))
        return -1;
    write_input("qkv", QUERIES, false);
    write_input("square", TOKENS, false);
    write_input("heads", QUERIES, true);
    return 0;
}

/* ---- ring ------------------------------------------------------------------------------------ */

static const char *const bands[][2] = {
    {"", ""},
    {"--causal", "--causal"},
    {"--window 40,7", "--window 40,7"},
    {"--window 25,-1", "--window 25,-1"},
    {"--window -1,50 --scale 0.3", "--window -1,50 --scale 0.3"},
    {"--causal --window 60,0", "--causal --window 60,0"},
};
enum { BANDS = sizeof bands / sizeof bands[0] };

/* Blocks and chunks that divide nothing, small enough that most are seen in part. */
static void ring_streams(void **state)
{
    (void)state;
    for (int i = 0; i < BANDS; i++) {
        EXPECT_OUT("attention", "run attention -i qkv -o want %s", bands[i][0]);
        EXPECT_OUT(
            "77 keys at a time",
            "run ring -i qkv -o got --golden want --tolerance 1e-5 --block 100 --chunk 77 %s",
            bands[i][1]);
        EXPECT_OUT("lse: max abs error", "run ring -i qkv -o got --golden want --tolerance 1e-5 %s",
                   bands[i][1]);
    }
}

static const float *values_of(const st_file_t *file, const char *name)
{
    const st_tensor_t *found = st_find(file, name);
    assert_non_null(found);
    return found->data;
}

/* Rows 57 .. 189 alone are those rows of all. */
static void ring_takes_a_shard(void **state)
{
    (void)state;
    enum { FROM = 57, TO = 190, ROWS = TO - FROM };
    for (int i = 0; i < BANDS; i++) {
        EXPECT_OUT("attention", "run attention -i qkv -o want %s", bands[i][0]);
        EXPECT_OUT("rows=57:190", "run ring -i qkv -o got --query-rows 57:190 --block 64 %s",
                   bands[i][1]);
        st_file_t *want = open_file("want"), *got = open_file("got");
        const float *a = values_of(want, "out"), *b = values_of(got, "out");
        const float *c = values_of(want, "lse"), *d = values_of(got, "lse");
        for (int n = 0; n < 2 * ROWS * HEADS * VALUES; n++) {
            int batch = n / (ROWS * HEADS * VALUES), rest = n % (ROWS * HEADS * VALUES);
            assert_float_equal(a[(batch * QUERIES + FROM) * HEADS * VALUES + rest], b[n], 1e-5);
        }
        for (int n = 0; n < 2 * HEADS * ROWS; n++)
            assert_float_equal(c[n / ROWS * QUERIES + FROM + n % ROWS], d[n], 1e-5);
        st_close(want);
        st_close(got);
    }
}

static void ring_of_ranks(void **state)
{
    (void)state;
    static const char *const layouts[] = {"contiguous", "zigzag", "striped"};
    for (int i = 0; i < BANDS; i++) {
        EXPECT_OUT("attention", "run attention -i square -o want %s", bands[i][0]);
        for (int layout = 0; layout < 3; layout++) {
            EXPECT_OUT("ranks=3",
                       "run ring -i square -o got --golden want --tolerance 1e-5 --ranks 3 "
                       "--layout %s %s",
                       layouts[layout], bands[i][1]);
            assert_non_null(strstr(out, layouts[layout]));
        }
    }
}

static void ring_keeps_the_order(void **state)
{
    (void)state;
    EXPECT_OUT("attention", "run attention -i heads -o want --layout bhsd --causal");
    EXPECT_OUT("out: max abs error",
               "run ring -i heads -o got --order bhsd --causal --block 77 --chunk 90 "
               "--golden want --tolerance 1e-5");
    st_file_t *got = open_file("got");
    assert_int_equal(st_find(got, "out")->shape[1], HEADS);
    st_close(got);
}

static void ring_complains(void **state)
{
    (void)state;
    char path[160];
    struct stat about;
    const int64_t q[4] = {1, 8, HEADS, DIM}, k[5] = {1, TOKENS, KEY_HEADS, DIM, 1};
    const int64_t v[4] = {1, 300, KEY_HEADS, VALUES};
    st_tensor_t tensors[3] = {tensor("q", 0, q), tensor("k", 1, k), tensor("v", 0, v)};
    write_tensors("odd", tensors, 3);
    tensors[1].ndim = 5;
    write_tensors("wide", tensors, 3);
    EXPECT_OUT("Examples:", "run ring --help");
    EXPECT_USAGE("--input is missing", "run ring -o x");
    EXPECT_USAGE("--output is missing", "run ring -i qkv");
    EXPECT_USAGE("--query-rows takes A:B", "run ring -i qkv -o x --query-rows 7:7");
    EXPECT_USAGE("--window takes L,R", "run ring -i qkv -o x --window 7");
    EXPECT_USAGE("--layout takes", "run ring -i qkv -o x --ranks 2 --layout round");
    EXPECT_USAGE("--layout needs --ranks", "run ring -i qkv -o x --layout zigzag");
    EXPECT_USAGE("--ranks takes all queries", "run ring -i qkv -o x --ranks 2 --block 64");
    EXPECT_USAGE("--ranks takes a number", "run ring -i qkv -o x --ranks 65");
    EXPECT_USAGE("--order takes bshd or bhsd", "run ring -i qkv -o x --order sbhd");
    EXPECT_FAILED("--query-rows 0:302: qkv has 301 queries",
                  "run ring -i qkv -o x --query-rows 0:302");
    EXPECT_FAILED("qkv: 301 queries and 331 keys", "run ring -i qkv -o x --ranks 2");
    EXPECT_FAILED("odd: v has 300 tokens, but k has 331", "run ring -i odd -o x");
    EXPECT_FAILED("wide: k has 5 axes", "run ring -i wide -o x");
    EXPECT_FAILED("want: has no tensor q", "run ring -i want -o x");
    EXPECT_FAILED("nowhere: cannot be opened", "run ring -i nowhere -o x");
    /* A file that ends too early is found out before anything is computed. */
    snprintf(path, sizeof path, "%s/qkv", folder);
    assert_int_equal(stat(path, &about), 0);
    char command[400];
    snprintf(command, sizeof command, "head -c %lld %s > %s/short", (long long)about.st_size - 4,
             path, folder);
    assert_int_equal(system(command), 0);
    EXPECT_FAILED("short: ", "run ring -i short -o x");
    assert_non_null(strstr(err, "data bytes"));
    assert_false(exists("x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_streams),   cmocka_unit_test(ring_takes_a_shard),
        cmocka_unit_test(ring_of_ranks),  cmocka_unit_test(ring_keeps_the_order),
        cmocka_unit_test(ring_complains),
    };
    return cmocka_run_group_tests(tests, make_files, remove_folder);
}
