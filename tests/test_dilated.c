/* Dilated attention against results of the original packages and of the exact definition, computed
 * in float64 by programs that share nothing with Heed (tests/data/dilated); and its bad input. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"
#include "safetensors.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 16384 }; /* elements of a tensor */

static float out[MOST], lse[MOST];

typedef struct golden {
    const char *name;
    st_file_t *file;
    json_t *json;
    heed_dilated_desc_t desc;
    int64_t shapes[4][4], lse_shape[3];
} golden_t;

/* ---- reading --------------------------------------------------------------------------------- */

static heed_tensor_t tensor_of(golden_t *golden, const char *name, int64_t *shape)
{
    const st_tensor_t *from = st_find(golden->file, name);
    assert_non_null(from);
    memcpy(shape, from->shape, 4 * sizeof(int64_t));
    return heed_tensor((void *)(uintptr_t)from->data, HEED_F32, 4, shape, NULL);
}

static void read_branches(golden_t *golden)
{
    const json_t *segments = json_object_get(golden->json, "segments");
    const json_t *rates = json_object_get(golden->json, "rates");
    golden->desc.branches = (int32_t)json_array_size(segments);
    assert_in_range(golden->desc.branches, 1, HEED_DILATED_BRANCHES);
    for (int i = 0; i < golden->desc.branches; i++) {
        golden->desc.segments[i] = json_integer_value(json_array_get(segments, (size_t)i));
        golden->desc.rates[i] = json_integer_value(json_array_get(rates, (size_t)i));
    }
}

static void open_golden(golden_t *golden, const char *name)
{
    char path[512];
    st_error_t error;
    memset(golden, 0, sizeof(*golden));
    golden->name = name;
    snprintf(path, sizeof(path), "%s/dilated/%s.safetensors", HEED_TEST_DATA, name);
    golden->file = st_open(path, &error);
    snprintf(path, sizeof(path), "%s/dilated/%s.json", HEED_TEST_DATA, name);
    golden->json = json_load_file(path, 0, NULL);
    assert_non_null(golden->file);
    assert_non_null(golden->json);
    golden->desc = heed_dilated_desc();
    golden->desc.q = tensor_of(golden, "q", golden->shapes[0]);
    golden->desc.k = tensor_of(golden, "k", golden->shapes[1]);
    golden->desc.v = tensor_of(golden, "v", golden->shapes[2]);
    const int64_t *q = golden->shapes[0];
    memcpy(golden->shapes[3], q, sizeof(golden->shapes[3]));
    golden->shapes[3][3] = golden->shapes[2][3];
    golden->desc.out = heed_tensor(out, HEED_F32, 4, golden->shapes[3], NULL);
    memcpy(golden->lse_shape, (int64_t[]){q[0], q[2], q[1]}, sizeof(golden->lse_shape));
    golden->desc.scale = (float)json_real_value(json_object_get(golden->json, "scale"));
    golden->desc.causal = json_is_true(json_object_get(golden->json, "causal"));
    const char *rule = json_string_value(json_object_get(golden->json, "offset_rule"));
    golden->desc.offset_rule =
        rule && strcmp(rule, "torchscale") == 0 ? HEED_OFFSET_TORCHSCALE : HEED_OFFSET_PAPER;
    read_branches(golden);
}

static void close_golden(golden_t *golden)
{
    st_close(golden->file);
    json_decref(golden->json);
}

/* ---- comparing ------------------------------------------------------------------------------- */

static void expect_numbers(const golden_t *golden, const char *impl, const char *name,
                           const float *got)
{
    const st_tensor_t *tensor = st_find(golden->file, name);
    assert_non_null(tensor);
    const double *want = (const double *)tensor->data;
    for (int64_t i = 0; i < tensor->elements; i++) {
        double err = (double)got[i] == want[i] ? 0 : fabs((double)got[i] - want[i]);
        if (!(err <= 1e-5 * (1 + fabs(want[i]))))
            fail_msg("%s by %s: %s[%lld] = %.9g, should be %.9g", golden->name, impl, name,
                     (long long)i, (double)got[i], want[i]);
    }
}

/* Runs one mode by one implementation; false where that does not have the mode. */
static bool run(golden_t *golden, const char *impl, heed_dilated_mode_t mode, bool with_lse)
{
    heed_context_t *context = expect_context(impl);
    golden->desc.mode = mode;
    golden->desc.lse = (heed_tensor_t){0};
    if (with_lse)
        golden->desc.lse = heed_tensor(lse, HEED_F32, 3, golden->lse_shape, NULL);
    memset(out, 0xff, sizeof(out));
    memset(lse, 0xff, sizeof(lse));
    heed_status_t status = heed_dilated_attention(context, &golden->desc);
    heed_context_destroy(context);
    if (status == HEED_ERROR_UNSUPPORTED)
        return false;
    expect_ok(status);
    return true;
}

static int check_golden(const char *name, const char *impl)
{
    golden_t golden;
    int runs = 0;
    open_golden(&golden, name);
    const char *mode = json_string_value(json_object_get(golden.json, "mode"));
    assert_non_null(mode);
    if (strcmp(mode, "torchscale") == 0) {
        if (run(&golden, impl, HEED_DILATED_TORCHSCALE, false) && ++runs)
            expect_numbers(&golden, impl, "out", out);
        if (run(&golden, impl, HEED_DILATED_LONGNET, true) && ++runs) {
            expect_numbers(&golden, impl, "out_exact", out);
            expect_numbers(&golden, impl, "lse_exact", lse);
        }
    } else if (strcmp(mode, "grouped_fkodom") == 0) {
        if (run(&golden, impl, HEED_DILATED_GROUPED_FKODOM, false) && ++runs)
            expect_numbers(&golden, impl, "out", out);
        if (run(&golden, impl, HEED_DILATED_GROUPED, true) && ++runs) {
            expect_numbers(&golden, impl, "out_grouped", out);
            expect_numbers(&golden, impl, "lse_grouped", lse);
        }
    } else {
        bool grouped = strcmp(mode, "grouped") == 0;
        if (run(&golden, impl, grouped ? HEED_DILATED_GROUPED : HEED_DILATED_LONGNET, true) &&
            ++runs) {
            expect_numbers(&golden, impl, "out", out);
            expect_numbers(&golden, impl, "lse", lse);
        }
    }
    close_golden(&golden);
    return runs;
}

static void check_all(const char *impl, int least)
{
    DIR *folder = opendir(HEED_TEST_DATA "/dilated");
    assert_non_null(folder);
    int runs = 0;
    for (const struct dirent *entry; (entry = readdir(folder));) {
        char name[256];
        const char *dot = strstr(entry->d_name, ".json");
        if (!dot)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(dot - entry->d_name), entry->d_name);
        runs += check_golden(name, impl);
    }
    closedir(folder);
    print_message("%s: %d results\n", impl, runs);
    assert_true(runs >= least);
}

static void test_standard(void **state)
{
    (void)state;
    check_all("dilated=cpu:standard", 50);
}

static void test_improved(void **state)
{
    (void)state;
    check_all("dilated=cpu:improved", 50);
}

static void test_ring(void **state)
{
    (void)state;
    check_all("dilated=cpu:ring", 30);
}

static void test_block_sparse(void **state)
{
    (void)state;
    check_all("dilated=cpu:block_sparse", 30);
}

/* ---- bad input ------------------------------------------------------------------------------- */

static heed_dilated_desc_t describe(void)
{
    static float memory[64 * 4 * 8];
    static int64_t shape[] = {1, 64, 4, 8};
    heed_dilated_desc_t desc = heed_dilated_desc();
    desc.q = desc.k = desc.v = heed_tensor(memory, HEED_F32, 4, shape, NULL);
    desc.out = heed_tensor(out, HEED_F32, 4, shape, NULL);
    desc.branches = 2;
    desc.segments[0] = 16, desc.segments[1] = 32;
    desc.rates[0] = 1, desc.rates[1] = 2;
    return desc;
}

#define EXPECT_BAD(change, status, words)                                    \
    do {                                                                     \
        heed_dilated_desc_t desc = describe();                               \
        change;                                                              \
        expect_fails(heed_dilated_attention(context, &desc), status, words); \
    } while (0)

static void test_bad_input(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    heed_dilated_desc_t good = describe();
    expect_ok(heed_dilated_attention(context, &good));
    EXPECT_BAD(desc.rates[1] = 0, HEED_ERROR_VALUE, "rates[1]=0");
    EXPECT_BAD(desc.segments[0] = 0, HEED_ERROR_VALUE, "segments[0]=0");
    EXPECT_BAD(desc.segments[1] = 15, HEED_ERROR_VALUE, "segments[1]=15 is below");
    EXPECT_BAD(desc.branches = 0, HEED_ERROR_VALUE, "branches=0");
    EXPECT_BAD(desc.branches = 17, HEED_ERROR_VALUE, "branches=17");
    EXPECT_BAD(desc.mode = (heed_dilated_mode_t)4, HEED_ERROR_VALUE, "mode=4");
    EXPECT_BAD(desc.offset_rule = (heed_offset_rule_t)2, HEED_ERROR_VALUE, "offset_rule=2");
    EXPECT_BAD(desc.causal = 2, HEED_ERROR_VALUE, "causal=2");
    EXPECT_BAD(desc.scale = NAN, HEED_ERROR_VALUE, "scale=");
    EXPECT_BAD((desc.mode = HEED_DILATED_GROUPED_FKODOM, desc.segments[1] = 33), HEED_ERROR_VALUE,
               "segments[1]=33 does not divide the 64");
    EXPECT_BAD(desc.out = HEED_TENSOR(out, HEED_BF16, 1, 64, 4, 8), HEED_ERROR_DTYPE,
               "out is bf16");
    EXPECT_BAD(desc.k = HEED_TENSOR(out, HEED_F32, 1, 63, 4, 8), HEED_ERROR_SHAPE, "k.shape[1]=63");
    EXPECT_BAD(desc.lse = HEED_TENSOR(lse, HEED_F32, 1, 64, 4), HEED_ERROR_SHAPE, "lse.shape[1]");
    heed_context_destroy(context);
}

/* A plan may be executed again, on other memory, and says what it is. */
static void test_plan(void **state)
{
    heed_context_t *context = expect_context("dilated=cpu:improved");
    heed_dilated_desc_t desc = describe();
    heed_plan_t *plan;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    static float memory[64 * 4 * 8], first[64 * 4 * 8];
    char problem[256];
    size_t bytes, alignment;
    (void)state;
    kit_random_t random = {3};
    for (int i = 0; i < 64 * 4 * 8; i++)
        memory[i] = (float)kit_random_normal(&random);
    expect_ok(heed_dilated_attention_plan(context, &desc, &plan));
    expect_ok(heed_plan_info(plan, &info));
    assert_string_equal(info.impl, "cpu:improved");
    heed_plan_problem(plan, problem, sizeof(problem));
    assert_non_null(strstr(problem, "segments=16,32 rates=1,2 mode=longnet"));
    expect_ok(heed_plan_workspace(plan, &bytes, &alignment));
    void *workspace = aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
    float *outs[] = {first, out};
    for (int n = 0; n < 2; n++) {
        void *buffers[] = {memory, memory, memory, outs[n]};
        expect_ok(heed_plan_execute(plan, buffers, 4, workspace, bytes, NULL));
    }
    assert_memory_equal(first, out, sizeof(first));
    free(workspace);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_standard),  cmocka_unit_test(test_improved),
        cmocka_unit_test(test_ring),      cmocka_unit_test(test_block_sparse),
        cmocka_unit_test(test_bad_input), cmocka_unit_test(test_plan),
    };
    return cmocka_run_group_tests_name("dilated", tests, NULL, NULL);
}
