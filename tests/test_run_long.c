/* `heed run ring` and `heed run sparse` from outside, against `heed run attention`; `heed run
 * dilated` of a long sequence, against the library. */
#define _GNU_SOURCE
#include "cli.h"
#include "kit.h"

#include <math.h>
#include <sys/stat.h>

enum { TOKENS = 331, QUERIES = 301, HEADS = 4, KEY_HEADS = 2, DIM = 16, VALUES = 24 };

/* ---- files ----------------------------------------------------------------------------------- */

static float random_values[2][2 * (TOKENS + 150) * HEADS * VALUES];

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

/* One sequence of documents; keys' starts are `of_keys`. */
static void write_documents(const char *name, const int32_t of_keys[5])
{
    static const int32_t starts[5] = {0, 100, 100, 101, TOKENS};
    const int64_t q[4] = {TOKENS, HEADS, DIM}, k[4] = {TOKENS, KEY_HEADS, DIM}, count = 5;
    st_tensor_t tensors[5] = {tensor("q", 0, q), tensor("k", 1, k), tensor("v", 0, k)};
    tensors[0].ndim = tensors[1].ndim = tensors[2].ndim = 3;
    for (int i = 0; i < 2; i++)
        tensors[3 + i] = (st_tensor_t){
            i ? "cu_seqlens_k" : "cu_seqlens_q", st_dtype_find("I32"), 1, &count, 0, 0, 0,
            i && of_keys ? of_keys : starts};
    write_tensors(name, tensors, 5);
}

static void write_text(const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
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
    write_input("tall", TOKENS + 150, false);
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

static void ring_of_documents(void **state)
{
    static const int32_t others[5] = {0, 100, 100, 102, TOKENS};
    (void)state;
    write_documents("packed", NULL);
    write_documents("unlike", others);
    EXPECT_OUT("ragged=qk", "run attention -i packed -o want --causal");
    EXPECT_OUT("out: max abs error", "run ring -i packed -o got --golden want --tolerance 1e-5 "
                                     "--ranks 3 --layout zigzag --method auto --causal");
    EXPECT_FAILED("packed: cu_seqlens_q: a stream is one sequence", "run ring -i packed -o got");
    EXPECT_FAILED("unlike: cu_seqlens_q and cu_seqlens_k differ",
                  "run ring -i unlike -o got --ranks 2");
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
    EXPECT_USAGE("--device cuda: it runs on the CPU", "run ring -i qkv -o x --device cuda");
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

/* ---- dilated --------------------------------------------------------------------------------- */

enum { LONG = (1 << 16) + 1234, LONG_HEADS = 3, LONG_DIM = 4 };

/* A long sequence goes through in spans; the library takes it whole. */
static void dilated_in_spans(void **state)
{
    static float data[3][LONG * LONG_HEADS * LONG_DIM], want[LONG * LONG_HEADS * LONG_DIM];
    static float want_lse[LONG_HEADS * LONG];
    int64_t shape[4] = {1, LONG, LONG_HEADS, LONG_DIM}, lse[3] = {1, LONG_HEADS, LONG};
    st_tensor_t tensors[3] = {tensor("q", 0, shape), tensor("k", 0, shape), tensor("v", 0, shape)};
    kit_random_t random = {.state = 7};
    (void)state;
    for (int n = 0; n < 3; n++) {
        for (int i = 0; i < LONG * LONG_HEADS * LONG_DIM; i++)
            data[n][i] = (float)kit_random_normal(&random);
        tensors[n].data = data[n];
    }
    write_tensors("long", tensors, 3);
    EXPECT_OUT("mode=longnet causal=1",
               "run dilated -i long -o got --segments 24,100 --rates 1,3 --causal");

    heed_context_t *context;
    heed_dilated_desc_t desc = heed_dilated_desc();
    desc.branches = 2;
    memcpy(desc.segments, (int64_t[]){24, 100}, 2 * sizeof(int64_t));
    memcpy(desc.rates, (int64_t[]){1, 3}, 2 * sizeof(int64_t));
    desc.causal = 1;
    desc.q = heed_tensor(data[0], HEED_F32, 4, shape, NULL);
    desc.k = heed_tensor(data[1], HEED_F32, 4, shape, NULL);
    desc.v = heed_tensor(data[2], HEED_F32, 4, shape, NULL);
    desc.out = heed_tensor(want, HEED_F32, 4, shape, NULL);
    desc.lse = heed_tensor(want_lse, HEED_F32, 3, lse, NULL);
    assert_int_equal(heed_context_create(NULL, &context), HEED_OK);
    assert_int_equal(heed_dilated_attention(context, &desc), HEED_OK);
    heed_context_destroy(context);

    st_file_t *file = open_file("got");
    const float *out = values_of(file, "out"), *out_lse = values_of(file, "lse");
    for (int i = 0; i < LONG * LONG_HEADS * LONG_DIM; i++)
        assert_float_equal(out[i], want[i], 1e-5);
    for (int i = 0; i < LONG_HEADS * LONG; i++)
        assert_float_equal(out_lse[i], want_lse[i], 1e-5);
    st_close(file);
}

/* ---- sparse ---------------------------------------------------------------------------------- */

/* The same visibility by way of attention's own flag, which takes it for all heads at once. */
static void sparse_by_text(void **state)
{
    (void)state;
    static const char *const texts[] = {"all", "band:100,20|first:16", "blocks:70&lattice:3"};
    for (int i = 0; i < 3 * 2; i++) {
        const char *text = texts[i / 2], *causal = i % 2 ? "--causal" : "";
        EXPECT_OUT("attention", "run attention -i qkv -o want --tiles 'text:%s' %s", text, causal);
        EXPECT_OUT("measured",
                   "run sparse -i qkv -o got --golden want --tolerance 1e-5 --block 100 "
                   "--pattern '%s' %s",
                   text, causal);
        EXPECT_OUT("lse: max abs error",
                   "run sparse -i qkv -o got --golden want --tolerance 1e-5 --tile 128 "
                   "--pattern '%s' %s",
                   text, causal);
    }
    EXPECT_OUT("recall 1.00000, of the worst 1 % of rows 1.00000",
               "run sparse -i qkv -o got --pattern all");
    EXPECT_OUT("attention", "run attention -i heads -o want --layout bhsd --causal");
    EXPECT_OUT("out: max abs error",
               "run sparse -i heads -o got --order bhsd --causal --pattern all --golden want "
               "--tolerance 1e-5");
    EXPECT_OUT("attention", "run attention -i tall -o want --causal");
    EXPECT_OUT("out: max abs error",
               "run sparse -i tall -o got --causal --pattern all --golden want --tolerance 1e-5 "
               "--block 64");
    write_text("visibility", "band:100,20\n| first:16\n");
    EXPECT_OUT("attention", "run attention -i qkv -o want --tiles 'text:band:100,20|first:16'");
    EXPECT_OUT("out: max abs error",
               "run sparse -i qkv -o got --golden want --tolerance 1e-5 --tiles visibility");
}

/* Heads take the patterns in turns. */
static void sparse_by_head(void **state)
{
    (void)state;
    EXPECT_OUT("attention", "run attention -i qkv -o even --tiles 'text:band:50,0'");
    EXPECT_OUT("attention", "run attention -i qkv -o odd --tiles 'text:first:90'");
    EXPECT_OUT("band:50,0", "run sparse -i qkv -o got --pattern band:50,0 --pattern first:90");
    assert_non_null(strstr(out, "first:90: recall"));
    st_file_t *files[] = {open_file("even"), open_file("odd"), open_file("got")};
    const float *want[] = {values_of(files[0], "out"), values_of(files[1], "out")};
    const float *got = values_of(files[2], "out");
    for (int n = 0; n < 2 * QUERIES * HEADS * VALUES; n++)
        assert_float_equal(want[n / VALUES % HEADS % 2][n], got[n], 1e-5);
    for (int i = 0; i < 3; i++)
        st_close(files[i]);
}

static double number_after(const char *words)
{
    const char *at = strstr(out, words);
    if (!at)
        fail_msg("no \"%s\" in: %s%s", words, out, err);
    return strtod(at + strlen(words), NULL);
}

/* Half of the tiles that each row of five or six has; the exact scores keep the most. */
static void sparse_by_budget(void **state)
{
    (void)state;
    static const char *const names[] = {"random", "block_sparse", "strided", "local_global",
                                        "dynamic_threshold"};
    for (int i = 0; i < 5; i++) {
        EXPECT_OUT("speed-up predicted", "run sparse -i qkv -o got --density 0.5 --pattern %s",
                   names[i]);
        assert_in_range((int)number_after("density "), 40, 60);
        double recall = number_after(": recall ");
        assert_true(recall > 0.3 && recall < 0.9);
    }
    EXPECT_OUT("",
               "run sparse -i qkv -o a --density 0.5 --pattern dynamic_threshold --scores mass");
    double best = number_after(": recall ");
    EXPECT_OUT("", "run sparse -i qkv -o b --density 0.5 --pattern random --seed 3 --causal");
    EXPECT_OUT("", "run sparse -i qkv -o b --density 0.5 --pattern random --seed 3");
    assert_true(best > number_after(": recall "));
    EXPECT_OUT("out: max abs error 0,",
               "run sparse -i qkv -o c --density 0.5 --pattern random --seed 3 --golden b "
               "--tolerance 0");
    EXPECT_OUT("", "run sparse -i qkv -o c --mass 0.95 --pattern dynamic_threshold --scores mass");
    assert_true(number_after(": recall ") > 0.94);
    EXPECT_OUT("density", "run sparse -i qkv -o c --density 0.2 --pattern random --sample 0");
    assert_null(strstr(out, "recall"));
    /* A list of every tile, each with a mask, has nothing to offer. */
    EXPECT_OUT("dense attention was predicted to be faster in 8 of 8 blocks",
               "run sparse -i qkv -o c --pattern lattice:2 --optional");
}

/* The gate's scores: of the six columns of tiles the last is best, then the first. */
static void sparse_by_gate(void **state)
{
    (void)state;
    enum { ROWS = 5, COLUMNS = 6 };
    static float scores[2 * HEADS * ROWS * COLUMNS];
    const int64_t shape[4] = {2, HEADS, ROWS, COLUMNS};
    st_file_t *file = open_file("qkv");
    for (int n = 0; n < 2 * HEADS * ROWS * COLUMNS; n++)
        scores[n] = n % COLUMNS == 5 ? 2 : n % COLUMNS == 0;
    st_tensor_t tensors[4] = {*st_find(file, "q"), *st_find(file, "k"), *st_find(file, "v"),
                              tensor("gate", 0, shape)};
    tensors[3].data = scores;
    write_tensors("gated", tensors, 4);
    EXPECT_OUT("learned: recall", "run sparse -i gated -o got --pattern learned --density 0.5");
    tensors[3].shape = (const int64_t[]){2, HEADS, ROWS, COLUMNS - 1};
    write_tensors("narrow", tensors, 4);
    EXPECT_FAILED("narrow: gate is F32 [2,4,5,5]: it is [2,4,5,6] F32",
                  "run sparse -i narrow -o got --pattern learned --density 0.5");
    EXPECT_FAILED("qkv: has no tensor gate",
                  "run sparse -i qkv -o got --pattern learned --density 0.5");
    st_close(file);
}

static void sparse_complains(void **state)
{
    (void)state;
    EXPECT_OUT("Examples:", "run sparse --help");
    EXPECT_USAGE("--pattern is missing", "run sparse -i qkv -o x");
    EXPECT_USAGE("--density is missing", "run sparse -i qkv -o x --pattern random");
    EXPECT_USAGE("--density takes a number above 0 up to 1, not \"0\"",
                 "run sparse -i qkv -o x --pattern random --density 0");
    EXPECT_USAGE("not \"1.01\"", "run sparse -i qkv -o x --pattern random --density 1.01");
    EXPECT_USAGE("not \"nan\"", "run sparse -i qkv -o x --pattern random --density nan");
    EXPECT_USAGE("--mass takes", "run sparse -i qkv -o x --pattern random --mass -1");
    EXPECT_USAGE("--scores takes", "run sparse -i qkv -o x --pattern random --scores best");
    EXPECT_USAGE("--tile 96", "run sparse -i qkv -o x --pattern all --tile 96");
    EXPECT_FAILED("'spiral' is no term", "run sparse -i qkv -o x --pattern spiral");
    EXPECT_FAILED("'& all' is not the name of a term",
                  "run sparse -i qkv -o x --pattern 'all & & all'");
    assert_int_equal(heed("run sparse -i qkv -o x --tiles nowhere"), 1);
    assert_non_null(strstr(err, "nowhere: No such file"));
    assert_false(exists("x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_streams),         cmocka_unit_test(ring_takes_a_shard),
        cmocka_unit_test(ring_of_ranks),        cmocka_unit_test(ring_of_documents),
        cmocka_unit_test(ring_keeps_the_order), cmocka_unit_test(ring_complains),
        cmocka_unit_test(dilated_in_spans),     cmocka_unit_test(sparse_by_text),
        cmocka_unit_test(sparse_by_head),       cmocka_unit_test(sparse_by_budget),
        cmocka_unit_test(sparse_by_gate),       cmocka_unit_test(sparse_complains),
    };
    return cmocka_run_group_tests(tests, make_files, remove_folder);
}
