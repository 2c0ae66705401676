/* Problem strings: reading, writing, and what a wrong one is told. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <stdio.h>
#include <stdlib.h>

static heed_status_t parse(const char *text)
{
    heed_problem_t *problem = NULL;
    heed_status_t status = heed_problem_parse(text, &problem);
    assert_true((status == HEED_OK) == (problem != NULL));
    heed_problem_destroy(problem);
    return status;
}

static heed_status_t describe(const char *text)
{
    heed_problem_t *problem = NULL;
    void *desc;
    expect_ok(heed_problem_parse(text, &problem));
    heed_status_t status = heed_problem_desc(problem, &desc);
    assert_true((status == HEED_OK) == (desc != NULL));
    assert_true((status == HEED_OK) == (heed_problem_tensor(problem, 0) != NULL));
    heed_problem_destroy(problem);
    return status;
}

static void syntax_errors(void **state)
{
    static const struct {
        const char *text, *words;
        heed_status_t status;
    } bad[] = {
        {"", "operation", HEED_ERROR_SYNTAX},
        {"   ", "operation", HEED_ERROR_SYNTAX},
        {"convolution n=1", "attention", HEED_ERROR_UNKNOWN_IMPL},
        {"attention sq", "'sq'", HEED_ERROR_SYNTAX},
        {"attention =5", "there are dtype", HEED_ERROR_SYNTAX},
        {"attention heads=5", "'heads'", HEED_ERROR_SYNTAX},
        {"attention sq=", "sq=", HEED_ERROR_SYNTAX},
        {"attention sq=ten", "sq=ten", HEED_ERROR_SYNTAX},
        {"attention sq=1e3", "sq=1e3", HEED_ERROR_SYNTAX},
        {"attention sq=-1", "sq=-1", HEED_ERROR_SYNTAX},
        {"attention sq=99999999999999999999", "sq=", HEED_ERROR_SYNTAX},
        {"attention hq=0", "hq=0", HEED_ERROR_SYNTAX},
        {"attention dtype=f64", "f32|bf16|f16|e4m3", HEED_ERROR_SYNTAX},
        {"attention dtype=f3", "f32|bf16|f16|e4m3", HEED_ERROR_SYNTAX},
        {"attention causal=2", "0|1", HEED_ERROR_SYNTAX},
        {"attention causal-align=left", "bottom-right|top-left", HEED_ERROR_SYNTAX},
        {"attention window=3", "L,R", HEED_ERROR_SYNTAX},
        {"attention window=3,", "L,R", HEED_ERROR_SYNTAX},
        {"attention window=-2,0", "L,R", HEED_ERROR_SYNTAX},
        {"attention window=1,2,3", "L,R", HEED_ERROR_SYNTAX},
        {"attention scale=x", "scale=x", HEED_ERROR_SYNTAX},
        {"attention layout=sbhd", "bshd|bhsd|fused|custom", HEED_ERROR_SYNTAX},
        {"cast src=f32 dst=i8", "f32|bf16|f16", HEED_ERROR_SYNTAX},
        {"cast stride=0,1", "S,D", HEED_ERROR_SYNTAX},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_fails(parse(bad[i].text), bad[i].status, bad[i].words);
    expect_fails(parse(NULL), HEED_ERROR_NULL, "text");
    expect_fails(heed_problem_parse("cast", NULL), HEED_ERROR_NULL, "problem");
}

static void very_long_words(void **state)
{
    char text[8192];
    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    expect_fails(parse(text), HEED_ERROR_SYNTAX, "");
    memcpy(text, "attention ", 10);
    expect_fails(parse(text), HEED_ERROR_SYNTAX, "");
    memcpy(text, "attention tiles=", 16);
    expect_fails(parse(text), HEED_ERROR_SYNTAX, "");
}

static void words_that_do_not_fit_together(void **state)
{
    (void)state;
    expect_fails(describe("attention sq=3 sk=4 layout=fused"), HEED_ERROR_VALUE, "fused");
    expect_fails(describe("attention d=8 dv=16 layout=fused"), HEED_ERROR_VALUE, "fused");
    expect_fails(describe("attention layout=custom"), HEED_ERROR_VALUE, "strides");
    expect_fails(describe("attention strides=1:1:1:1/1:1:1:1/1:1:1:1/1:1:1:1"), HEED_ERROR_VALUE,
                 "layout=custom");
    expect_fails(describe("attention layout=custom strides=1:1:1/1:1:1:1/1:1:1:1/1:1:1:1"),
                 HEED_ERROR_VALUE, "strides: q");
    expect_fails(describe("attention layout=custom strides=1:a:1:1/1:1:1:1/1:1:1:1/1:1:1:1"),
                 HEED_ERROR_VALUE, "'a'");
    expect_fails(describe("attention tiles=diagonal"), HEED_ERROR_VALUE, "blockdiag");
    expect_fails(describe("attention tiles=random:1,200,64,64,shared"), HEED_ERROR_VALUE, "random");
    expect_fails(describe("attention tiles=random:1,50,64,32,each"), HEED_ERROR_VALUE, "64 or 128");
    expect_fails(describe("attention tiles=blockdiag:0,64,64"), HEED_ERROR_VALUE, "blockdiag");
}

/* Sizes that no address space holds are refused, here or by the plan, and never wrap around. */
static void huge_words(void **state)
{
    static const char *const texts[] = {
        "attention b=1099511627776 sq=1099511627776",
        "attention sq=9223372036854775807 sk=9223372036854775807 hq=9223372036854775807",
        "attention b=9223372036854775807 sq=3 layout=bhsd",
        "attention sq=4611686018427387904 hq=4 layout=fused",
        ("attention hq=9223372036854775807 hk=9223372036854775807 layout=fused "
         "d=9223372036854775807"),
        "attention sq=9223372036854775807 tiles=blockdiag:5,64,64",
        "attention sq=9223372036854775807 tiles=random:1,50,64,64,each",
        "cast n=9223372036854775807 stride=9223372036854775807,2",
    };
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        heed_problem_t *problem = NULL;
        heed_plan_t *plan = NULL;
        void *desc;
        expect_ok(heed_problem_parse(texts[i], &problem));
        heed_status_t status = heed_problem_desc(problem, &desc);
        if (status == HEED_OK)
            status = heed_plan_create(context, heed_problem_op(problem), desc, &plan);
        assert_true(status == HEED_ERROR_SHAPE || status == HEED_ERROR_STRIDE ||
                    status == HEED_ERROR_VALUE);
        assert_null(plan);
        heed_problem_destroy(problem);
    }
    heed_context_destroy(context);
}

/* ---- round trips ----------------------------------------------------------------------------- */

static void defaults_follow_other_words(void **state)
{
    char text[256];
    heed_problem_t *problem = NULL;
    void *at;
    (void)state;
    expect_ok(heed_problem_parse("attention  sq=70\thq=6 d=40", &problem));
    expect_ok(heed_problem_desc(problem, &at));
    const heed_attention_desc_t *desc = at;
    assert_int_equal(desc->k.shape[1], 70);
    assert_int_equal(desc->k.shape[2], 6);
    assert_int_equal(desc->v.shape[3], 40);
    assert_int_equal(desc->window_left, -1);
    assert_int_equal(desc->lse.ndim, 0);
    assert_null(desc->tiles);
    assert_string_equal(heed_problem_op(problem), "attention");
    size_t length = heed_problem_text(problem, text, sizeof(text));
    assert_int_equal(length, strlen(text));
    assert_int_equal(heed_problem_text(problem, NULL, 0), length);
    char cut[12];
    assert_int_equal(heed_problem_text(problem, cut, sizeof(cut)), length);
    assert_memory_equal(cut, "attention d", 12);
    heed_problem_destroy(problem);
    assert_null(heed_problem_op(NULL));
    heed_problem_destroy(NULL);
}

/* e4m3 has no output of its own: bf16 unless another one is named, and what is usual has no word.
 */
static void outputs_of_e4m3(void **state)
{
    static const struct {
        const char *text;
        heed_dtype_t out;
        const char *word;
    } known[] = {{"attention dtype=e4m3", HEED_BF16, NULL},
                 {"attention dtype=e4m3 out=same", HEED_BF16, NULL},
                 {"attention dtype=e4m3 out=bf16", HEED_BF16, NULL},
                 {"attention dtype=e4m3 out=f16", HEED_F16, "out=f16"},
                 {"attention dtype=e4m3 out=f32", HEED_F32, "out=f32"},
                 {"attention dtype=f16 out=f32", HEED_F32, "out=f32"},
                 {"attention dtype=f16 out=f16", HEED_F16, NULL}};
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char text[256];
        heed_problem_t *problem = NULL;
        heed_plan_t *plan = NULL;
        void *at;
        expect_ok(heed_problem_parse(known[i].text, &problem));
        expect_ok(heed_problem_desc(problem, &at));
        assert_int_equal(((const heed_attention_desc_t *)at)->out.dtype, known[i].out);
        expect_ok(heed_plan_create(context, "attention", at, &plan));
        heed_plan_problem(plan, text, sizeof(text));
        const char *word = strstr(text, " out=");
        assert_true(known[i].word ? word && !strncmp(word + 1, known[i].word, 7) : !word);
        heed_plan_destroy(plan);
        heed_problem_destroy(problem);
    }
    heed_context_destroy(context);
}

static void setting_words(void **state)
{
    char before[256], after[256];
    heed_problem_t *problem = NULL;
    void *desc;
    (void)state;
    expect_ok(heed_problem_parse("attention sq=5 sk=6 hq=2 d=16", &problem));
    heed_problem_text(problem, before, sizeof(before));
    expect_fails(heed_problem_set(problem, "sq", "five"), HEED_ERROR_SYNTAX, "sq=five");
    expect_fails(heed_problem_set(problem, "speed", "5"), HEED_ERROR_SYNTAX, "'speed'");
    expect_fails(heed_problem_set(problem, "window", "1,x"), HEED_ERROR_SYNTAX, "window=1,x");
    expect_fails(heed_problem_set(problem, NULL, "5"), HEED_ERROR_NULL, "word");
    expect_fails(heed_problem_set(problem, "sq", NULL), HEED_ERROR_NULL, "value");
    expect_fails(heed_problem_set(NULL, "sq", "5"), HEED_ERROR_NULL, "problem");
    heed_problem_text(problem, after, sizeof(after));
    assert_string_equal(before, after);
    assert_null(heed_problem_tensor(problem, 0)); /* no descriptor was made yet */
    expect_ok(heed_problem_set(problem, "sq", "9"));
    expect_ok(heed_problem_desc(problem, &desc));
    assert_int_equal(((heed_attention_desc_t *)desc)->q.shape[1], 9);
    assert_int_equal(heed_problem_tensor(problem, HEED_ATTENTION_Q)->shape[1], 9);
    assert_null(heed_problem_tensor(problem, HEED_ATTENTION_OPERANDS));
    assert_null(heed_problem_tensor(problem, -1));
    heed_problem_destroy(problem);
}

/* Text -> problem -> text -> problem: the same text, and the same descriptor. */
static void check_text(const char *text)
{
    char first[1024], second[1024];
    heed_problem_t *a = NULL, *b = NULL;
    void *desc_a, *desc_b;
    expect_ok(heed_problem_parse(text, &a));
    assert_true(heed_problem_text(a, first, sizeof(first)) < sizeof(first));
    expect_ok(heed_problem_parse(first, &b));
    heed_problem_text(b, second, sizeof(second));
    assert_string_equal(first, second);
    expect_ok(heed_problem_desc(a, &desc_a));
    expect_ok(heed_problem_desc(b, &desc_b));
    for (int i = 0; heed_problem_tensor(a, i); i++) {
        const heed_tensor_t *x = heed_problem_tensor(a, i), *y = heed_problem_tensor(b, i);
        assert_int_equal(x->ndim, y->ndim);
        assert_int_equal(x->dtype, y->dtype);
        if (x->ndim == 0)
            continue;
        assert_memory_equal(x->shape, y->shape, (size_t)x->ndim * sizeof(int64_t));
        assert_memory_equal(x->strides, y->strides, (size_t)x->ndim * sizeof(int64_t));
    }
    heed_problem_destroy(a);
    heed_problem_destroy(b);
}

/* What a plan prints of a problem's descriptor reads back as a problem with the same needs. */
static void check_plan(heed_context_t *context, const char *text)
{
    char printed[1024], again[1024];
    heed_problem_t *problem = NULL;
    heed_plan_t *plan = NULL;
    void *desc;
    expect_ok(heed_problem_parse(text, &problem));
    expect_ok(heed_problem_desc(problem, &desc));
    if (((heed_attention_desc_t *)desc)->tiles) { /* a list of the caller's has no text */
        heed_problem_destroy(problem);
        return;
    }
    expect_ok(heed_plan_create(context, heed_problem_op(problem), desc, &plan));
    assert_true(heed_plan_problem(plan, printed, sizeof(printed)) < sizeof(printed));
    heed_plan_destroy(plan);
    heed_problem_destroy(problem);
    expect_ok(heed_problem_parse(printed, &problem));
    expect_ok(heed_problem_desc(problem, &desc));
    expect_ok(heed_plan_create(context, heed_problem_op(problem), desc, &plan));
    heed_plan_problem(plan, again, sizeof(again));
    assert_string_equal(printed, again);
    heed_plan_destroy(plan);
    heed_problem_destroy(problem);
}

static void random_problems_round_trip(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (int o = 0; kit_op_at(o); o++) {
        for (uint64_t seed = 0; seed < 400; seed++) {
            char text[512];
            kit_random_t random = {seed};
            kit_op_at(o)->draw(&random, UINT64_MAX, text, sizeof(text));
            assert_true(strlen(text) < sizeof(text) - 1);
            check_text(text);
            if (strcmp(kit_op_at(o)->op, "attention") == 0)
                check_plan(context, text);
        }
    }
    heed_context_destroy(context);
}

/* ---- the tables for tools -------------------------------------------------------------------- */

static void tables(void **state)
{
    heed_op_operand_t operand;
    heed_op_word_t word;
    (void)state;
    for (int o = 0; heed_op_name(o); o++) {
        const char *op = heed_op_name(o);
        assert_non_null(kit_op_find(op));
        int words = 0, operands = 0;
        for (; heed_op_word(op, words, &word); words++)
            assert_true(word.name[0] && word.form[0] && word.about[0]);
        for (; heed_op_operand(op, operands, &operand); operands++)
            assert_true(operand.name[0] && operand.dtype[0] &&
                        (operand.shape[0] || operand.optional == 2));
        assert_true(words > 0 && operands > 0);
        assert_non_null(heed_op_feature(op, 0));
        assert_null(heed_op_feature(op, 64));
        assert_null(heed_op_feature(op, -1));
        assert_false(heed_op_word(op, -1, &word));
        assert_false(heed_op_operand(op, 0, NULL));
    }
    assert_null(heed_op_name(-1));
    assert_null(heed_op_name(1000));
    assert_false(heed_op_word("convolution", 0, &word));
    assert_false(heed_op_operand(NULL, 0, &operand));
    assert_null(heed_op_feature("convolution", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syntax_errors),
        cmocka_unit_test(very_long_words),
        cmocka_unit_test(words_that_do_not_fit_together),
        cmocka_unit_test(huge_words),
        cmocka_unit_test(defaults_follow_other_words),
        cmocka_unit_test(outputs_of_e4m3),
        cmocka_unit_test(setting_words),
        cmocka_unit_test(random_problems_round_trip),
        cmocka_unit_test(tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
