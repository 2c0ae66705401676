/* Merging partial states: golden problems computed in float64 and not by Heed, order and grouping
 * of the states, in place, and what a wrong descriptor is told. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"
#include "safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { P = 6, B = 2, SQ = 5, H = 3, D = 17, ROWS = B * SQ * H, ELEMENTS = ROWS * D };

static const char *const impls[] = {"cpu:standard", "cpu:merge_scalar"};

/* P states, and room for a result. */
typedef struct states {
    float out[P][ELEMENTS], lse[P][ROWS];
} states_t;

static states_t drawn;

/* Some states empty, their out full of NaN; row 3 without any state. */
static void draw_states(void)
{
    kit_random_t random = {5};
    for (int p = 0; p < P; p++) {
        for (int r = 0; r < ROWS; r++) {
            bool empty = r == 3 || kit_random_next(&random) % 4 == 0;
            int b = r / (SQ * H), i = r / H % SQ, h = r % H;
            drawn.lse[p][(b * H + h) * SQ + i] =
                empty ? -INFINITY : (float)(4 * kit_random_normal(&random));
            for (int c = 0; c < D; c++)
                drawn.out[p][r * D + c] = empty ? NAN : (float)kit_random_normal(&random);
        }
    }
}

static heed_merge_desc_t describe(const float *part_out, const float *part_lse, int64_t parts,
                                  float *out, float *lse)
{
    static int64_t shape[5] = {0, B, SQ, H, D}, lse_shape[4] = {0, B, H, SQ};
    heed_merge_desc_t desc = heed_merge_desc();
    shape[0] = lse_shape[0] = parts;
    desc.part_out = heed_tensor((float *)(uintptr_t)part_out, HEED_F32, 5, shape, NULL);
    desc.part_lse = heed_tensor((float *)(uintptr_t)part_lse, HEED_F32, 4, lse_shape, NULL);
    desc.out = heed_tensor(out, HEED_F32, 4, shape + 1, NULL);
    desc.lse = heed_tensor(lse, HEED_F32, 3, lse_shape + 1, NULL);
    return desc;
}

static void merge(heed_context_t *context, const states_t *from, int first, int parts, float *out,
                  float *lse)
{
    heed_merge_desc_t desc = describe(from->out[first], from->lse[first], parts, out, lse);
    expect_ok(heed_attention_merge(context, &desc));
}

static bool is_close(double got, double want, double tolerance)
{
    return got == want || fabs(got - want) <= tolerance * fmax(1, fabs(want));
}

static void expect_close(const float *got, const float *want, int count)
{
    for (int i = 0; i < count; i++)
        if (!is_close((double)got[i], (double)want[i], 1e-6))
            fail_msg("element %d is %.9g, should be %.9g", i, (double)got[i], (double)want[i]);
}

static void with_each(void (*run)(heed_context_t *context))
{
    draw_states();
    for (size_t i = 0; i < sizeof(impls) / sizeof(impls[0]); i++) {
        heed_context_t *context = expect_context(impls[i]);
        run(context);
        heed_context_destroy(context);
    }
}

/* ---- golden problems ------------------------------------------------------------------------- */

static const st_tensor_t *find(const st_file_t *file, const char *name)
{
    const st_tensor_t *tensor = st_find(file, name);
    if (!tensor)
        fail_msg("%s has no %s", st_path(file), name);
    return tensor;
}

static void expect_golden(const float *got, const double *want, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!is_close((double)got[i], want[i], 1e-6))
            fail_msg("element %lld is %.9g, should be %.9g", (long long)i, (double)got[i], want[i]);
}

/* Merges states first .. first+parts-1 of the file, and compares with result number `at` of these
 * names. */
static void check_golden(heed_context_t *context, const st_file_t *file, int64_t first,
                         int64_t parts, const char *out, const char *lse, int64_t at)
{
    const st_tensor_t *part_out = find(file, "part_out"), *part_lse = find(file, "part_lse");
    int64_t shape[5], lse_shape[4];
    memcpy(shape, part_out->shape, sizeof(shape));
    memcpy(lse_shape, part_lse->shape, sizeof(lse_shape));
    int64_t each = part_out->elements / shape[0], rows = part_lse->elements / shape[0];
    shape[0] = lse_shape[0] = parts;
    heed_merge_desc_t desc = heed_merge_desc();
    desc.part_out =
        heed_tensor((float *)(uintptr_t)part_out->data + first * each, HEED_F32, 5, shape, NULL);
    desc.part_lse = heed_tensor((float *)(uintptr_t)part_lse->data + first * rows, HEED_F32, 4,
                                lse_shape, NULL);
    float *memory = calloc((size_t)(each + rows), sizeof(*memory));
    assert_non_null(memory);
    desc.out = heed_tensor(memory, HEED_F32, 4, shape + 1, NULL);
    desc.lse = heed_tensor(memory + each, HEED_F32, 3, lse_shape + 1, NULL);
    expect_ok(heed_attention_merge(context, &desc));
    expect_golden(memory, (const double *)find(file, out)->data + at * each, each);
    expect_golden(memory + each, (const double *)find(file, lse)->data + at * rows, rows);
    free(memory);
}

static void golden(heed_context_t *context)
{
    st_error_t error;
    st_file_t *six = st_open(HEED_TEST_DATA "/attention/merge_six_parts.safetensors", &error);
    st_file_t *far = st_open(HEED_TEST_DATA "/attention/merge_extreme_lse.safetensors", &error);
    assert_non_null(six);
    assert_non_null(far);
    check_golden(context, six, 0, 6, "out", "lse", 0);
    check_golden(context, far, 0, 6, "out", "lse", 0);
    for (int pair = 0; pair < 3; pair++)
        check_golden(context, far, 2 * pair, 2, "pair_out", "pair_lse", pair);
    st_close(six);
    st_close(far);
}

static void golden_problems(void **state)
{
    (void)state;
    with_each(golden);
}

/* ---- order and grouping ---------------------------------------------------------------------- */

static void in_any_order(heed_context_t *context)
{
    static states_t turned;
    static float out[2][ELEMENTS], lse[2][ROWS];
    merge(context, &drawn, 0, P, out[0], lse[0]);
    for (int turn = 1; turn < P; turn++) {
        for (int p = 0; p < P; p++) {
            memcpy(turned.out[p], drawn.out[(P - p + turn) % P], sizeof(drawn.out[0]));
            memcpy(turned.lse[p], drawn.lse[(P - p + turn) % P], sizeof(drawn.lse[0]));
        }
        merge(context, &turned, 0, P, out[1], lse[1]);
        expect_close(out[1], out[0], ELEMENTS);
        expect_close(lse[1], lse[0], ROWS);
    }
}

static void order_does_not_matter(void **state)
{
    (void)state;
    with_each(in_any_order);
}

/* All at once; the first few, then those with the rest; one after the other into a state. */
static void in_any_grouping(heed_context_t *context)
{
    static states_t two;
    static float out[2][ELEMENTS], lse[2][ROWS];
    merge(context, &drawn, 0, P, out[0], lse[0]);
    for (int cut = 0; cut <= P; cut++) {
        merge(context, &drawn, 0, cut, two.out[0], two.lse[0]);
        merge(context, &drawn, cut, P - cut, two.out[1], two.lse[1]);
        merge(context, &two, 0, 2, out[1], lse[1]);
        expect_close(out[1], out[0], ELEMENTS);
        expect_close(lse[1], lse[0], ROWS);
    }
    for (int i = 0; i < ROWS; i++)
        lse[1][i] = -INFINITY;
    for (int p = 0; p < P; p++) {
        heed_merge_desc_t desc = describe(drawn.out[p], drawn.lse[p], 1, out[1], lse[1]);
        desc.into = 1;
        expect_ok(heed_attention_merge(context, &desc));
    }
    expect_close(out[1], out[0], ELEMENTS);
    expect_close(lse[1], lse[0], ROWS);
}

static void grouping_does_not_matter(void **state)
{
    (void)state;
    with_each(in_any_grouping);
}

/* A state alone comes back as it is, and empty ones beside it change no bit. */
static void one_state(heed_context_t *context)
{
    static float out[ELEMENTS], lse[ROWS];
    static states_t lone;
    for (int p = 0; p < P; p++)
        for (int i = 0; i < ROWS; i++)
            lone.lse[p][i] = p == 2 ? (float)i - 7 : -INFINITY;
    for (int i = 0; i < ELEMENTS; i++) {
        lone.out[0][i] = lone.out[5][i] = NAN;
        lone.out[2][i] = 0.1f * (float)i;
    }
    merge(context, &lone, 0, P, out, lse);
    assert_memory_equal(out, lone.out[2], sizeof(out));
    assert_memory_equal(lse, lone.lse[2], sizeof(lse));
    lone.lse[1][4] = NAN;
    lone.lse[3][5] = INFINITY;
    merge(context, &lone, 0, P, out, lse);
    assert_true(isnan(lse[4]) && isnan(lse[5]) && !isnan(lse[6]));
    for (int r = 0; r < ROWS; r++) {
        int i = r / H % SQ, h = r % H, at = (r / (SQ * H) * H + h) * SQ + i;
        for (int c = 0; c < D; c++)
            assert_int_equal(!!isnan(out[r * D + c]), at == 4 || at == 5);
    }
    merge(context, &lone, 0, 0, out, lse); /* of nothing */
    for (int i = 0; i < ELEMENTS; i++)
        assert_true(out[i] == 0);
    for (int i = 0; i < ROWS; i++)
        assert_true(lse[i] == -INFINITY);
}

static void lone_and_broken_states(void **state)
{
    (void)state;
    with_each(one_state);
}

/* The split of rows over threads shows in no bit. */
static void thread_counts(void **state)
{
    enum { MANY = 4, BIG_SQ = 700, BIG_D = 48 };
    static float part_out[MANY * BIG_SQ * BIG_D], part_lse[MANY * BIG_SQ];
    static float out[2][BIG_SQ * BIG_D], lse[2][BIG_SQ];
    kit_random_t random = {9};
    (void)state;
    for (int i = 0; i < MANY * BIG_SQ * BIG_D; i++)
        part_out[i] = (float)kit_random_normal(&random);
    for (int i = 0; i < MANY * BIG_SQ; i++)
        part_lse[i] = (float)kit_random_normal(&random);
    for (int threads = 1; threads <= 3; threads++) {
        int to = threads > 1;
        heed_context_config_t config = heed_context_config();
        heed_context_t *context;
        config.threads = threads;
        expect_ok(heed_context_create(&config, &context));
        heed_merge_desc_t desc = heed_merge_desc();
        desc.part_out = HEED_TENSOR(part_out, HEED_F32, MANY, 1, BIG_SQ, 1, BIG_D);
        desc.part_lse = HEED_TENSOR(part_lse, HEED_F32, MANY, 1, 1, BIG_SQ);
        desc.out = HEED_TENSOR(out[to], HEED_F32, 1, BIG_SQ, 1, BIG_D);
        desc.lse = HEED_TENSOR(lse[to], HEED_F32, 1, 1, BIG_SQ);
        expect_ok(heed_attention_merge(context, &desc));
        assert_memory_equal(out[to], out[0], sizeof(out[0]));
        assert_memory_equal(lse[to], lse[0], sizeof(lse[0]));
        heed_context_destroy(context);
    }
}

/* ---- addresses ------------------------------------------------------------------------------- */

static void onto_a_state(heed_context_t *context)
{
    static float out[ELEMENTS], lse[ROWS];
    merge(context, &drawn, 0, P, out, lse);
    for (int p = 0; p < P; p++) {
        states_t own = drawn;
        merge(context, &own, 0, P, own.out[p], own.lse[(p + 1) % P]);
        assert_memory_equal(own.out[p], out, sizeof(out));
        assert_memory_equal(own.lse[(p + 1) % P], lse, sizeof(lse));
        heed_merge_desc_t desc = describe(own.out[0], own.lse[0], P, own.out[0] + D, lse);
        expect_fails(heed_attention_merge(context, &desc), HEED_ERROR_VALUE, "out at ");
        desc = describe(own.out[0], own.lse[0], P, out, own.lse[1] + 1);
        expect_fails(heed_attention_merge(context, &desc), HEED_ERROR_VALUE, "lse at ");
        desc = describe(own.out[0], own.lse[0], P, own.out[0], own.out[1]);
        expect_fails(heed_attention_merge(context, &desc), HEED_ERROR_VALUE, "overlaps part_out");
        desc = describe(own.out[0], own.lse[0], P, own.out[0], lse);
        desc.out.dtype = HEED_BF16;
        expect_fails(heed_attention_merge(context, &desc), HEED_ERROR_VALUE, "none of its states");
    }
}

static void in_place(void **state)
{
    (void)state;
    with_each(onto_a_state);
}

/* ---- wrong descriptors ----------------------------------------------------------------------- */

static void wrong_descriptors(void **state)
{
    heed_context_t *context = expect_context(NULL);
    static float out[ELEMENTS], lse[ROWS];
    heed_plan_t *plan;
    (void)state;
#define REFUSED(status, words, change)                                                   \
    do {                                                                                 \
        heed_merge_desc_t desc = describe(drawn.out[0], drawn.lse[0], P, out, lse);      \
        int64_t shape[5] = {P, B, SQ, H, D};                                             \
        (void)shape;                                                                     \
        change;                                                                          \
        expect_fails(heed_attention_merge_plan(context, &desc, &plan), (status), words); \
    } while (0)
    REFUSED(HEED_ERROR_SHAPE, "part_out.ndim=4", desc.part_out.ndim = 4);
    REFUSED(HEED_ERROR_SHAPE, "lse.ndim=2", desc.lse.ndim = 2);
    REFUSED(HEED_ERROR_SHAPE, "part_lse.shape[0]=5, but part_out.shape[0]=6",
            desc.part_lse.shape = ((int64_t[]){5, B, H, SQ}));
    REFUSED(HEED_ERROR_SHAPE, "part_lse.shape[2]=5, but part_out.shape[3]=3",
            desc.part_lse.shape = ((int64_t[]){P, B, SQ, H}));
    REFUSED(HEED_ERROR_SHAPE, "out.shape[3]=5, but part_out.shape[4]=17",
            desc.out.shape = ((int64_t[]){B, SQ, H, 5}));
    REFUSED(HEED_ERROR_DTYPE, "part_out is e4m3", desc.part_out.dtype = HEED_E4M3);
    REFUSED(HEED_ERROR_DTYPE, "out is i64", desc.out.dtype = HEED_I64);
    REFUSED(HEED_ERROR_DTYPE, "part_lse is f16", desc.part_lse.dtype = HEED_F16);
    REFUSED(HEED_ERROR_VALUE, "into=2", desc.into = 2);
    REFUSED(HEED_ERROR_VALUE, "into=1 needs lse", (desc.into = 1, desc.lse.ndim = 0));
#undef REFUSED
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_problems),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(grouping_does_not_matter),
        cmocka_unit_test(lone_and_broken_states),
        cmocka_unit_test(thread_counts),
        cmocka_unit_test(in_place),
        cmocka_unit_test(wrong_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
