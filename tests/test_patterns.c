/* Patterns on explicit matrices: the published examples with their counts, those that contradict
 * themselves in both readings; every kind and rule against its definition, entry by entry, on
 * matrices of any shape, dtype and strides; bad input. */
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 160 };

static heed_context_t *context;

static int set_up(void **state)
{
    (void)state;
    context = expect_context(NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    heed_context_destroy(context);
    return 0;
}

/* ---- published examples ---------------------------------------------------------------------- */

static const float four[16] = {1.0f, 0.8f, 0.6f, 0.4f, 0.8f, 1.0f, 0.7f, 0.5f,
                               0.6f, 0.7f, 1.0f, 0.8f, 0.4f, 0.5f, 0.8f, 1.0f};
static const float five[25] = {1.0f, 0.8f, 0.6f, 0.4f, 0.2f, 0.8f, 1.0f, 0.7f, 0.5f,
                               0.3f, 0.6f, 0.7f, 1.0f, 0.8f, 0.6f, 0.4f, 0.5f, 0.8f,
                               1.0f, 0.7f, 0.2f, 0.3f, 0.6f, 0.7f, 1.0f};
static const float three[9] = {1.0f, 0.1f, 0.1f, 0.1f, 1.0f, 0.1f, 0.1f, 0.1f, 1.0f};

static heed_matrix_count_t run(heed_matrix_desc_t *desc, const float *in, float *out, int n)
{
    int64_t shape[] = {n, n};
    heed_matrix_count_t count;
    desc->in = heed_tensor((void *)(uintptr_t)in, HEED_F32, 2, shape, NULL);
    desc->out = heed_tensor(out, HEED_F32, 2, shape, NULL);
    for (int i = 0; i < n * n; i++)
        out[i] = NAN;
    expect_ok(heed_matrix_pattern(context, desc, &count));
    assert_int_equal(count.total, n * n);
    return count;
}

static const float sparse_kept[16] = {1.0f, 0.8f, 0, 0,    0.8f, 1.0f, 0.7f, 0,
                                      0,    0.7f, 1, 0.8f, 0,    0,    0.8f, 1.0f};

static heed_matrix_count_t sparse(heed_matrix_rule_t rule, heed_sparsity_t meaning, float *out)
{
    heed_matrix_desc_t desc = heed_matrix_desc(HEED_MATRIX_SPARSE);
    desc.rule = rule;
    desc.meaning = meaning;
    desc.ratio = 0.6;
    return run(&desc, four, out, 4);
}

static void test_sparse_example(void **state)
{
    const heed_matrix_rule_t rules[] = {HEED_MATRIX_KEEP_LARGEST, HEED_MATRIX_DROP_SMALLEST,
                                        HEED_MATRIX_QUANTILE, HEED_MATRIX_ABOVE};
    float out[16];
    (void)state;
    for (int n = 0; n < 4; n++) {
        heed_matrix_count_t count = sparse(rules[n], HEED_SPARSITY_KEPT, out);
        assert_memory_equal(out, sparse_kept, sizeof(out));
        assert_int_equal(count.non_zero, 10);
        assert_int_equal(count.kept, 10);
        assert_true(count.zeros == 0.375 && count.density == 0.625);
    }
}

/* The word's other meaning, and rules that the example rules out. */
static void test_sparse_other_readings(void **state)
{
    const int kept[] = {10, 10, 10, 8, 10, 12}, removed[] = {7, 8, 8, 4, 10, 8};
    float out[16];
    (void)state;
    for (int rule = 0; rule <= HEED_MATRIX_ROWS; rule++) {
        heed_matrix_rule_t at = (heed_matrix_rule_t)rule;
        assert_int_equal(sparse(at, HEED_SPARSITY_KEPT, out).kept, kept[rule]);
        assert_int_equal(sparse(at, HEED_SPARSITY_REMOVED, out).kept, removed[rule]);
    }
    /* Of the four 0.8, three: the first by rows. */
    const float seven[16] = {1, 0.8f, 0, 0, 0.8f, 1, 0, 0, 0, 0, 1, 0.8f, 0, 0, 0, 1};
    sparse(HEED_MATRIX_KEEP_LARGEST, HEED_SPARSITY_REMOVED, out);
    assert_memory_equal(out, seven, sizeof(out));
}

static void test_sliding_example(void **state)
{
    heed_matrix_desc_t desc = heed_matrix_desc(HEED_MATRIX_SLIDING);
    const float want[25] = {1,    0.8f, 0, 0, 0,    0.8f, 1,    0.7f, 0, 0, 0,    0.7f, 1,
                            0.8f, 0,    0, 0, 0.8f, 1,    0.7f, 0,    0, 0, 0.7f, 1};
    float out[25];
    (void)state;
    desc.window = 1;
    heed_matrix_count_t count = run(&desc, five, out, 5);
    assert_memory_equal(out, want, sizeof(out));
    assert_int_equal(count.kept, 13);
}

static void test_global_example(void **state)
{
    heed_matrix_desc_t desc = heed_matrix_desc(HEED_MATRIX_GLOBAL);
    const int64_t tokens[] = {0};
    float out[9];
    (void)state;
    desc.tokens = tokens;
    desc.token_count = 1;
    heed_matrix_count_t count = run(&desc, three, out, 3);
    assert_memory_equal(out, three, sizeof(out));
    assert_int_equal(count.positions, 3);
    assert_int_equal(count.kept, 9);
    /* Rows and columns of tokens, and the diagonal. */
    const float strict[9] = {1.0f, 0.1f, 0.1f, 0.1f, 1.0f, 0, 0.1f, 0, 1.0f};
    desc.strict = 1;
    desc.window = 0;
    assert_int_equal(run(&desc, three, out, 3).kept, 7);
    assert_memory_equal(out, strict, sizeof(out));
    desc.window = -1;
    assert_int_equal(run(&desc, three, out, 3).kept, 5);
}

static void test_local_example(void **state)
{
    heed_matrix_desc_t desc = heed_matrix_desc(HEED_MATRIX_LOCAL);
    const float want[16] = {1, 0.8f, 0, 0, 0.8f, 1, 0, 0, 0, 0, 1, 0.8f, 0, 0, 0.8f, 1};
    float out[16];
    (void)state;
    desc.block = 2;
    heed_matrix_count_t count = run(&desc, four, out, 4);
    assert_memory_equal(out, want, sizeof(out));
    assert_int_equal(count.blocks, 2);
    assert_int_equal(count.kept, 8);
}

/* ---- definitions ----------------------------------------------------------------------------- */

typedef struct trial {
    heed_matrix_desc_t desc;
    int64_t shape[2], strides[2], tokens[3];
    heed_dtype_t dtype;
    bool in_place;
    float values[MOST * MOST]; /* after rounding to dtype, by rows */
    char in[MOST * MOST * 8], out[MOST * MOST * 8];
} trial_t;

static trial_t trial;

static bool is_token(int64_t i)
{
    for (int64_t n = 0; n < trial.desc.token_count; n++)
        if (trial.tokens[n] == i)
            return true;
    return false;
}

static bool sees(int64_t i, int64_t j)
{
    const heed_matrix_desc_t *desc = &trial.desc;
    int64_t apart = i < j ? j - i : i - j;
    switch (desc->kind) {
    case HEED_MATRIX_SLIDING:
        return apart <= desc->window;
    case HEED_MATRIX_LOCAL:
        return i / desc->block == j / desc->block;
    case HEED_MATRIX_DILATED:
        return apart % desc->dilation == 0 && (desc->window < 0 || apart <= desc->window);
    default:
        return !desc->strict || is_token(i) || is_token(j) || apart <= desc->window;
    }
}

/* Entries of [from, end) that come before entry n: larger, or equal and earlier. */
static int64_t rank_of(int64_t n, int64_t from, int64_t end, bool ties)
{
    float a = fabsf(trial.values[n]);
    int64_t rank = 0;
    for (int64_t m = from; m < end; m++) {
        float b = fabsf(trial.values[m]);
        rank += b > a || (b == a && m < n && !ties);
    }
    return rank;
}

/* By counting: no threshold, no sorting. The quantile of n entries at p lies at p (n - 1). */
static bool keeps(int64_t i, int64_t j)
{
    const heed_matrix_desc_t *desc = &trial.desc;
    int64_t columns = trial.shape[1], count = trial.shape[0] * columns, n = i * columns + j;
    double d = desc->meaning == HEED_SPARSITY_REMOVED ? 1 - desc->ratio : desc->ratio;
    switch (desc->rule) {
    case HEED_MATRIX_KEEP_LARGEST:
        return (double)rank_of(n, 0, count, false) < d * (double)count - 1e-9;
    case HEED_MATRIX_ROWS:
        return (double)rank_of(n, i * columns, (i + 1) * columns, false) <
               d * (double)columns - 1e-9;
    case HEED_MATRIX_DROP_SMALLEST:
        return rank_of(n, 0, count, true) < count - (int64_t)floor((1 - d) * (double)count + 1e-9);
    default:
        return fabsf(trial.values[n]) > (float)desc->ratio;
    }
}

static void draw(kit_random_t *random, heed_matrix_kind_t kind)
{
    const heed_dtype_t dtypes[] = {HEED_F32, HEED_BF16, HEED_F16};
    heed_matrix_desc_t *desc = &trial.desc;
    *desc = heed_matrix_desc(kind);
    for (int a = 0; a < 2; a++)
        trial.shape[a] = kit_random_int(random, 1, kind == HEED_MATRIX_SPARSE ? 20 : MOST);
    trial.dtype = dtypes[kit_random_int(random, 0, 2)];
    bool turned = kit_random_int(random, 0, 1);
    trial.strides[turned] = trial.shape[!turned];
    trial.strides[!turned] = 1;
    trial.in_place = kit_random_int(random, 0, 1);
    desc->rule = (heed_matrix_rule_t)kit_random_int(random, 0, HEED_MATRIX_ROWS);
    while (desc->rule == HEED_MATRIX_QUANTILE || desc->rule == HEED_MATRIX_ABOVE_QUANTILE)
        desc->rule = (heed_matrix_rule_t)kit_random_int(random, 0, HEED_MATRIX_ROWS);
    desc->meaning = (heed_sparsity_t)kit_random_int(random, 0, 1);
    desc->ratio = (double)kit_random_int(random, 1, 15) / 16;
    desc->window = kit_random_int(random, kind == HEED_MATRIX_SLIDING ? 0 : -1, 70);
    desc->block = kit_random_int(random, 1, 70);
    desc->dilation = kit_random_int(random, 1, 70);
    desc->strict = kind == HEED_MATRIX_GLOBAL && kit_random_int(random, 0, 3);
    int64_t most = trial.shape[0] < trial.shape[1] ? trial.shape[0] : trial.shape[1];
    desc->token_count = kit_random_int(random, 0, most < 3 ? most : 3);
    for (int64_t n = 0; n < desc->token_count; n++)
        trial.tokens[n] = n * (most / desc->token_count);
    desc->tokens = trial.tokens;
}

/* Quarters, so that there are equal ones. */
static void fill(kit_random_t *random)
{
    memset(trial.out, 0xff, sizeof(trial.out));
    for (int64_t i = 0; i < trial.shape[0]; i++)
        for (int64_t j = 0; j < trial.shape[1]; j++) {
            double value = (double)kit_random_int(random, -12, 12) / 4;
            trial.values[i * trial.shape[1] + j] = (float)value;
            kit_store(trial.dtype, trial.in, i * trial.strides[0] + j * trial.strides[1], value);
        }
    trial.desc.in = heed_tensor(trial.in, trial.dtype, 2, trial.shape, trial.strides);
    trial.desc.out =
        trial.in_place ? trial.desc.in : heed_tensor(trial.out, trial.dtype, 2, trial.shape, NULL);
}

static void judge(const heed_matrix_count_t *count)
{
    int64_t kept = 0, non_zero = 0, columns = trial.shape[1];
    for (int64_t i = 0; i < trial.shape[0]; i++)
        for (int64_t j = 0; j < columns; j++) {
            bool keep = trial.desc.kind == HEED_MATRIX_SPARSE ? keeps(i, j) : sees(i, j);
            double want = keep ? (double)trial.values[i * columns + j] : 0;
            double got = trial.in_place ? kit_load(trial.dtype, trial.in,
                                                   i * trial.strides[0] + j * trial.strides[1])
                                        : kit_load(trial.dtype, trial.out, i * columns + j);
            if (got != want)
                fail_msg("kind %d rule %d, %lld x %lld: [%lld,%lld] = %g, should be %g",
                         (int)trial.desc.kind, (int)trial.desc.rule, (long long)trial.shape[0],
                         (long long)columns, (long long)i, (long long)j, got, want);
            kept += keep;
            non_zero += want != 0;
        }
    assert_int_equal(count->kept, kept);
    assert_int_equal(count->non_zero, non_zero);
}

static void test_definitions(void **state)
{
    kit_random_t random = {41};
    (void)state;
    for (int n = 0; n < 300; n++) {
        heed_matrix_count_t count;
        draw(&random, (heed_matrix_kind_t)(n % 5));
        fill(&random);
        expect_ok(heed_matrix_pattern(context, &trial.desc, &count));
        judge(&count);
    }
}

/* A quantile between two entries: of 0 1 2 3 4 at 0.375 it is 1.5. */
static void test_quantile(void **state)
{
    float values[] = {3, 0, 4, 1, 2}, out[5];
    heed_matrix_desc_t desc = heed_matrix_desc(HEED_MATRIX_SPARSE);
    heed_matrix_count_t count;
    (void)state;
    desc.in = HEED_TENSOR(values, HEED_F32, 1, 5);
    desc.out = HEED_TENSOR(out, HEED_F32, 1, 5);
    const struct {
        double ratio;
        int at_least, above;
    } cases[] = {{0.625, 3, 3}, {0.75, 4, 3}, {1, 5, 4}, {0.0625, 1, 1}};
    for (int n = 0; n < 4; n++) {
        desc.ratio = cases[n].ratio;
        desc.rule = HEED_MATRIX_QUANTILE;
        expect_ok(heed_matrix_pattern(context, &desc, &count));
        assert_int_equal(count.kept, cases[n].at_least);
        desc.rule = HEED_MATRIX_ABOVE_QUANTILE;
        expect_ok(heed_matrix_pattern(context, &desc, &count));
        assert_int_equal(count.kept, cases[n].above);
    }
}

/* 0.07 * 100 is above 7 in double, and (1 - 0.9) * 10 below 1. */
static void test_whole_numbers(void **state)
{
    float values[100], out[100];
    heed_matrix_desc_t desc = heed_matrix_desc(HEED_MATRIX_SPARSE);
    heed_matrix_count_t count;
    (void)state;
    for (int i = 0; i < 100; i++)
        values[i] = (float)i;
    desc.in = HEED_TENSOR(values, HEED_F32, 1, 100);
    desc.out = HEED_TENSOR(out, HEED_F32, 1, 100);
    desc.ratio = 0.07;
    expect_ok(heed_matrix_pattern(context, &desc, &count));
    assert_int_equal(count.kept, 7);
    desc.in.shape = desc.out.shape = (int64_t[]){1, 10};
    desc.ratio = 0.9;
    desc.rule = HEED_MATRIX_DROP_SMALLEST;
    expect_ok(heed_matrix_pattern(context, &desc, &count));
    assert_int_equal(count.kept, 9);
}

/* Any visibility, by its list. */
static void test_tiles(void **state)
{
    static float in[100 * 90], out[100 * 90];
    heed_tiles_grid_t grid = heed_tiles_grid(100, 90);
    heed_tensor_t from = HEED_TENSOR(in, HEED_F32, 100, 90);
    heed_tensor_t to = HEED_TENSOR(out, HEED_F32, 100, 90);
    heed_tile_list_t *tiles;
    heed_matrix_count_t count;
    heed_tiles_count_t listed;
    (void)state;
    for (int i = 0; i < 100 * 90; i++)
        in[i] = 1;
    expect_ok(heed_tiles_from_text(context, &grid, "band:9,0,top-left | keys:3,80", &tiles));
    expect_ok(heed_tiles_count(&grid, tiles, &listed));
    expect_ok(heed_matrix_tiles(context, &grid, tiles, &from, &to, &count));
    assert_true((double)count.kept == listed.pairs);
    for (int i = 0; i < 100; i++)
        for (int j = 0; j < 90; j++)
            if ((out[i * 90 + j] != 0) != ((i - 9 <= j && j <= i) || j == 3 || j == 80))
                fail_msg("[%d,%d] = %g", i, j, (double)out[i * 90 + j]);
    grid.keys = 91;
    expect_fails(heed_matrix_tiles(context, &grid, tiles, &from, &to, &count), HEED_ERROR_SHAPE,
                 "91 keys");
    grid.keys = 90;
    expect_fails(heed_matrix_tiles(context, &grid, NULL, &from, &to, &count), HEED_ERROR_NULL,
                 "tiles is null");
    heed_tiles_free(context, tiles);
}

/* ---- bad input ------------------------------------------------------------------------------- */

#define EXPECT_BAD(of, change, status, words)                                       \
    do {                                                                            \
        heed_matrix_desc_t desc = heed_matrix_desc(of);                             \
        desc.in = desc.out = HEED_TENSOR(matrix, HEED_F32, 4, 4);                   \
        desc.ratio = 0.5, desc.window = 1, desc.block = desc.dilation = 1;          \
        change;                                                                     \
        expect_fails(heed_matrix_pattern(context, &desc, NULL), (status), (words)); \
    } while (0)

static void test_bad_input(void **state)
{
    float matrix[16] = {0};
    const int64_t high[] = {4}, falling[] = {2, 1};
    (void)state;
    EXPECT_BAD(HEED_MATRIX_SPARSE, desc.ratio = 0, HEED_ERROR_VALUE, "ratio=0");
    EXPECT_BAD(HEED_MATRIX_SPARSE, desc.ratio = 1.5, HEED_ERROR_VALUE, "ratio=1.5");
    EXPECT_BAD(HEED_MATRIX_SPARSE, desc.ratio = NAN, HEED_ERROR_VALUE, "is not finite");
    EXPECT_BAD(HEED_MATRIX_SPARSE, desc.rule = (heed_matrix_rule_t)6, HEED_ERROR_VALUE, "rule=6");
    EXPECT_BAD((heed_matrix_kind_t)5, (void)0, HEED_ERROR_VALUE, "kind=5");
    EXPECT_BAD(HEED_MATRIX_SLIDING, desc.window = -1, HEED_ERROR_VALUE, "window=-1");
    EXPECT_BAD(HEED_MATRIX_DILATED, desc.window = -2, HEED_ERROR_VALUE, "window=-2");
    EXPECT_BAD(HEED_MATRIX_DILATED, desc.dilation = 0, HEED_ERROR_VALUE, "dilation=0");
    EXPECT_BAD(HEED_MATRIX_LOCAL, desc.block = 0, HEED_ERROR_VALUE, "block=0");
    EXPECT_BAD(HEED_MATRIX_GLOBAL, (desc.tokens = high, desc.token_count = 1), HEED_ERROR_VALUE,
               "tokens[0]=4");
    EXPECT_BAD(HEED_MATRIX_GLOBAL, (desc.tokens = falling, desc.token_count = 2), HEED_ERROR_VALUE,
               "tokens[1]=1");
    EXPECT_BAD(HEED_MATRIX_GLOBAL, desc.token_count = 1, HEED_ERROR_NULL, "tokens is null");
    EXPECT_BAD(HEED_MATRIX_LOCAL, desc.out.dtype = HEED_BF16, HEED_ERROR_DTYPE, "out is bf16");
    EXPECT_BAD(HEED_MATRIX_LOCAL, desc.in = HEED_TENSOR(matrix, HEED_F32, 4, 3), HEED_ERROR_SHAPE,
               "out.shape[1]=4");
    EXPECT_BAD(HEED_MATRIX_LOCAL, desc.in = HEED_TENSOR(matrix, HEED_F32, 16), HEED_ERROR_SHAPE,
               "in.ndim=1");
    EXPECT_BAD(HEED_MATRIX_LOCAL, desc.in.data = NULL, HEED_ERROR_NULL, "in.data is null");
    EXPECT_BAD(HEED_MATRIX_LOCAL, desc.struct_size = 8, HEED_ERROR_STRUCT_SIZE, "struct_size");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sparse_example),  cmocka_unit_test(test_sparse_other_readings),
        cmocka_unit_test(test_sliding_example), cmocka_unit_test(test_global_example),
        cmocka_unit_test(test_local_example),   cmocka_unit_test(test_definitions),
        cmocka_unit_test(test_quantile),        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_bad_input),       cmocka_unit_test(test_whole_numbers),
    };
    return cmocka_run_group_tests_name("patterns", tests, set_up, tear_down);
}
