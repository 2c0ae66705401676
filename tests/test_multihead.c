/* Multi-head dilated attention against its parts in double, presets and their overrides, initial
 * parameters, bad input. */
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 3, N = 37, E = 24, H = 6, D = E / H, ROW = E + 4 }; /* rows of x lie apart */

static float x[B * N * ROW], other[B * N * E], out[B * N * E], want[B * N * E];
static float weights[4][E * E], biases[4][E], gamma_[E], beta[E];
static float q[B * N * E], k[B * N * E], v[B * N * E], a[B * N * E];

static void fill(float *to, int count, double scale, uint64_t seed)
{
    kit_random_t random = {seed};
    for (int i = 0; i < count; i++)
        to[i] = (float)(scale * kit_random_normal(&random));
}

static void fill_all(void)
{
    fill(x, B * N * ROW, 1, 1);
    fill(other, B * N * E, 1, 2);
    for (int i = 0; i < 4; i++) {
        fill(weights[i], E * E, 0.3, 3 + (uint64_t)i);
        fill(biases[i], E, 0.5, 7 + (uint64_t)i);
    }
    fill(gamma_, E, 1, 11);
    fill(beta, E, 1, 12);
}

typedef struct trial {
    heed_multihead_config_t config;
    heed_multihead_desc_t desc;
    int64_t rows[3], strides[3], full[3], square[2], few[2], one[1], one_few[1];
    bool cross;
} trial_t;

static heed_tensor_t if_(bool there, float *data, int ndim, int64_t *shape)
{
    return there ? heed_tensor(data, HEED_F32, ndim, shape, NULL) : (heed_tensor_t){0};
}

static void describe(trial_t *t, const char *overrides)
{
    char text[256];
    snprintf(text, sizeof(text),
             "embed_dim=%d num_heads=%d segment_lengths=8,20 dilation_rates=1,3 %s", E, H,
             overrides);
    expect_ok(heed_multihead_preset("standard", text, &t->config));
    int64_t kv = t->config.num_kv_heads ? t->config.num_kv_heads : H;
    memcpy(t->rows, (const int64_t[]){B, N, E}, sizeof(t->rows));
    memcpy(t->full, t->rows, sizeof(t->rows));
    memcpy(t->strides, (const int64_t[]){N * ROW, ROW, 1}, sizeof(t->strides));
    t->square[0] = t->square[1] = t->few[1] = t->one[0] = E;
    t->few[0] = t->one_few[0] = kv * D;
    heed_multihead_desc_t *d = &t->desc;
    *d = heed_multihead_desc();
    d->config = &t->config;
    d->query = heed_tensor(x, HEED_F32, 3, t->rows, t->strides);
    d->key = if_(t->cross, other, 3, t->full);
    d->value = if_(t->cross, other, 3, t->full);
    d->out = heed_tensor(out, HEED_F32, 3, t->full, NULL);
    bool bias = t->config.bias, norm = t->config.layer_norm;
    d->q_weight = if_(true, weights[0], 2, t->square);
    d->k_weight = if_(true, weights[1], 2, t->few);
    d->v_weight = if_(true, weights[2], 2, t->few);
    d->out_weight = if_(true, weights[3], 2, t->square);
    d->q_bias = if_(bias, biases[0], 1, t->one);
    d->k_bias = if_(bias, biases[1], 1, t->one_few);
    d->v_bias = if_(bias, biases[2], 1, t->one_few);
    d->out_bias = if_(bias, biases[3], 1, t->one);
    d->norm_gamma = if_(norm, gamma_, 1, t->one);
    d->norm_beta = if_(norm, beta, 1, t->one);
}

/* ---- in double ------------------------------------------------------------------------------- */

static void product(const trial_t *t, const float *from, int64_t stride, int number,
                    int64_t columns, float *to)
{
    for (int64_t i = 0; i < B * N; i++)
        for (int64_t j = 0; j < columns; j++) {
            double sum = t->config.bias ? (double)biases[number][j] : 0;
            for (int64_t c = 0; c < E; c++)
                sum += (double)from[i * stride + c] * (double)weights[number][j * E + c];
            to[i * columns + j] = (float)sum;
        }
}

static void attend(heed_context_t *context, const trial_t *t)
{
    const heed_multihead_config_t *config = &t->config;
    int64_t wide[] = {B, N, H, D}, few[] = {B, N, t->few[0] / D, D};
    heed_dilated_desc_t desc = heed_dilated_desc();
    heed_plan_t *plan;
    desc.mode = config->mode;
    desc.offset_rule = config->offset_rule;
    desc.causal = config->causal;
    desc.branches = 2;
    memcpy(desc.segments, (const int64_t[]){8, 20}, 2 * sizeof(int64_t));
    memcpy(desc.rates, (const int64_t[]){1, 3}, 2 * sizeof(int64_t));
    desc.q = heed_tensor(q, HEED_F32, 4, wide, NULL);
    desc.k = heed_tensor(k, HEED_F32, 4, few, NULL);
    desc.v = heed_tensor(v, HEED_F32, 4, few, NULL);
    desc.out = heed_tensor(a, HEED_F32, 4, wide, NULL);
    void *const buffers[] = {q, k, v, a};
    expect_ok(heed_plan_create_named(context, "dilated", "standard", &desc, &plan));
    expect_ok(heed_plan_execute(plan, buffers, 4, NULL, 0, NULL));
    heed_plan_destroy(plan);
}

static void norm_rows(void)
{
    for (int i = 0; i < B * N; i++) {
        double mean = 0, square = 0;
        for (int c = 0; c < E; c++) {
            mean += (double)a[i * E + c] / E;
            square += (double)a[i * E + c] * (double)a[i * E + c] / E;
        }
        for (int c = 0; c < E; c++)
            a[i * E + c] = (float)(((double)a[i * E + c] - mean) /
                                       sqrt(square - mean * mean + 1e-5) * (double)gamma_[c] +
                                   (double)beta[c]);
    }
}

static void expect_right(heed_context_t *context, const trial_t *t, double bound, const char *what)
{
    const float *keys = t->cross ? other : x;
    int64_t stride = t->cross ? E : ROW;
    memset(out, 0xff, sizeof(out));
    expect_ok(heed_multihead_dilated_attention(context, &t->desc));
    product(t, x, ROW, 0, E, q);
    product(t, keys, stride, 1, t->few[0], k);
    product(t, keys, stride, 2, t->few[0], v);
    attend(context, t);
    if (t->config.layer_norm)
        norm_rows();
    product(t, a, E, 3, E, want);
    for (int i = 0; i < B * N * E; i++)
        if (!(fabs((double)out[i] - (double)want[i]) <= bound))
            fail_msg("%s: out[%d] = %g, should be %g", what, i, (double)out[i], (double)want[i]);
}

static void test_against_parts(void **state)
{
    static const char *const cases[] = {
        "",
        "causal=1 layer_norm=0",
        "bias=0 offset_rule=torchscale",
        "num_kv_heads=2 causal=1 batch_step=2",
        "mode=grouped layer_norm=0 batch_step=1",
        "mode=torchscale",
        "impl=ring",
        "impl=cpu:block_sparse causal=1",
    };
    heed_context_t *context = expect_context(NULL);
    (void)state;
    if (!*heed_linear_library())
        skip();
    fill_all();
    for (int n = 0; n < (int)(sizeof(cases) / sizeof(cases[0])); n++) {
        trial_t trial = {.cross = n % 2 != 0};
        describe(&trial, cases[n]);
        expect_right(context, &trial, 1e-4, cases[n]);
    }
    trial_t narrow = {.cross = false};
    describe(&narrow, "dtype=bf16 layer_norm=0");
    expect_right(context, &narrow, 0.1, "bf16");
    /* It was rounded: the same in f32 is nearer. */
    describe(&narrow, "layer_norm=0");
    float *rounded = malloc(sizeof(out));
    assert_non_null(rounded);
    memcpy(rounded, out, sizeof(out));
    expect_right(context, &narrow, 1e-4, "f32");
    assert_memory_not_equal(rounded, out, sizeof(out));
    free(rounded);
    heed_context_destroy(context);
}

/* ---- plans ----------------------------------------------------------------------------------- */

static void set_buffers(const heed_multihead_desc_t *d, void **buffers)
{
    const heed_tensor_t *const tensors[] = {
        &d->query,      &d->key,       &d->value,      &d->out,      &d->q_weight,
        &d->q_bias,     &d->k_weight,  &d->k_bias,     &d->v_weight, &d->v_bias,
        &d->norm_gamma, &d->norm_beta, &d->out_weight, &d->out_bias};
    for (int i = 0; i < HEED_MULTIHEAD_OPERANDS; i++)
        buffers[i] = tensors[i]->ndim ? tensors[i]->data : NULL;
}

/* A plan that knows no addresses, executed twice on other numbers each time, gives the call's bits;
 * what it was made from may be gone by then. */
static void test_plan(void **state)
{
    static const char *const cases[] = {"", "batch_step=2 bias=0", "dtype=bf16 layer_norm=0",
                                        "mode=torchscale num_kv_heads=3", "impl=ring batch_step=1"};
    static float planned[B * N * E];
    heed_context_t *context = expect_context(NULL);
    (void)state;
    if (!*heed_linear_library())
        skip();
    fill_all();
    for (int n = 0; n < (int)(sizeof(cases) / sizeof(cases[0])); n++) {
        trial_t trial = {.cross = n % 2 != 0};
        void *buffers[HEED_MULTIHEAD_OPERANDS];
        heed_multihead_plan_t *plan;
        size_t bytes, alignment;
        describe(&trial, cases[n]);
        set_buffers(&trial.desc, buffers);
        heed_multihead_desc_t blind = trial.desc;
        blind.query.data = blind.out.data = blind.q_weight.data = NULL;
        expect_ok(heed_multihead_plan_create(context, &blind, &plan));
        memset(&blind, 0xff, sizeof(blind));
        expect_ok(heed_multihead_plan_workspace(plan, &bytes, &alignment));
        void *workspace = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        assert_non_null(workspace);
        for (uint64_t time = 0; time < 2; time++) {
            fill(x, B * N * ROW, 1, 20 + time);
            expect_ok(heed_multihead_dilated_attention(context, &trial.desc));
            buffers[HEED_MULTIHEAD_OUT] = planned;
            memset(planned, 0xff, sizeof(planned));
            expect_ok(heed_multihead_plan_execute(plan, buffers, workspace, bytes));
            assert_memory_equal(planned, out, sizeof(out));
        }
        expect_fails(heed_multihead_plan_execute(plan, buffers, workspace, bytes - 1),
                     HEED_ERROR_WORKSPACE, "the plan needs");
        buffers[HEED_MULTIHEAD_V_WEIGHT] = NULL;
        expect_fails(heed_multihead_plan_execute(plan, buffers, workspace, bytes), HEED_ERROR_NULL,
                     "buffers[8] is null: the plan has v_weight");
        set_buffers(&trial.desc, buffers);
        if (trial.config.layer_norm == 0) {
            buffers[HEED_MULTIHEAD_NORM_BETA] = beta;
            expect_fails(heed_multihead_plan_execute(plan, buffers, workspace, bytes),
                         HEED_ERROR_VALUE, "the plan has no norm_beta");
        }
        free(workspace);
        heed_multihead_plan_destroy(plan);
    }
    heed_context_destroy(context);
}

/* ---- configurations -------------------------------------------------------------------------- */

static void test_presets(void **state)
{
    heed_multihead_config_t config;
    (void)state;
    expect_ok(heed_multihead_preset("standard", NULL, &config));
    assert_string_equal(config.impl, "auto");
    assert_true(config.embed_dim == 768 && config.num_heads == 12 && config.branches == 3);
    assert_true(config.segment_lengths[2] == 8192 && config.dilation_rates[2] == 4);
    assert_true(config.bias && config.layer_norm && config.dtype == HEED_F32);
    assert_true(config.gamma_init == 1 && config.layer_norm_eps == 1e-5f && !config.causal);
    expect_ok(heed_multihead_preset("development", "", &config));
    assert_string_equal(config.impl, "standard");
    assert_true(config.branches == 2 && config.segment_lengths[1] == 128);
    expect_ok(heed_multihead_preset("high_performance", NULL, &config));
    assert_int_equal(config.dtype, HEED_BF16);
    expect_ok(heed_multihead_preset("memory_efficient", NULL, &config));
    assert_int_equal(config.batch_step, 1);
    expect_ok(
        heed_multihead_preset("research", " gamma_init=0.5  mode=grouped layer_norm=1 ", &config));
    assert_true(config.gamma_init == 0.5f && config.mode == HEED_DILATED_GROUPED &&
                config.layer_norm == 1 && config.batch_step == 1);
    expect_ok(heed_multihead_preset("high_performance",
                                    "segment_lengths=4 dilation_rates=2 dtype=f16", &config));
    assert_true(config.branches == 1 && config.dtype == HEED_F16 && config.segment_lengths[1] == 0);
}

static void test_bad_overrides(void **state)
{
    static const char *const bad[][2] = {
        {"colour=1", "\"colour\" is no key: impl, embed_dim"},
        {"causal", "\"causal\" is no key=value"},
        {"causal=2", "causal=2 is not 0 to 1"},
        {"num_heads=0", "num_heads=0 is not 1 to"},
        {"gamma_init=inf", "gamma_init=inf is no finite number"},
        {"dtype=f64", "dtype=f64 is none of f32|bf16|f16"},
        {"mode=", "mode= is none of"},
        {"segment_lengths=", "segment_lengths= is not 1 to"},
        {"segment_lengths=4,8", "2 segment_lengths and 3 dilation_rates"},
        {"dilation_rates=1,0,2", "dilation_rates=1,0,2 is not 1 to"},
        {"dilation_rates=1,x", "dilation_rates=1,x is not 1 to"},
        {"segment_lengths=1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "more than 16 numbers"},
        {"impl=0123456789012345678901234567890123", "is too long"},
    };
    heed_multihead_config_t config;
    (void)state;
    for (int n = 0; n < (int)(sizeof(bad) / sizeof(bad[0])); n++)
        expect_fails(heed_multihead_preset("standard", bad[n][0], &config), HEED_ERROR_VALUE,
                     bad[n][1]);
    expect_fails(heed_multihead_preset("fast", NULL, &config), HEED_ERROR_VALUE,
                 "\"fast\" is no preset: development");
    expect_fails(heed_multihead_preset(NULL, NULL, &config), HEED_ERROR_NULL, "preset is null");
}

/* Mean and deviation within five standard errors; the gain is that of the configuration. */
static void expect_normal(const float *weight, double deviation)
{
    double sum = 0, square = 0, count = E * E;
    for (int i = 0; i < E * E; i++) {
        sum += (double)weight[i];
        square += (double)weight[i] * (double)weight[i];
    }
    assert_true(fabs(sum / count) < 5 * deviation / sqrt(count));
    assert_true(fabs(sqrt(square / count) / deviation - 1) < 5 / sqrt(2 * count));
}

static void test_init(void **state)
{
    static float first[E * E];
    trial_t trial = {.cross = false};
    (void)state;
    describe(&trial, "gamma_init=0.25");
    expect_ok(heed_multihead_init(&trial.desc, 5));
    memcpy(first, weights[0], sizeof(first));
    double deviation = sqrt(2.0 / (E + E));
    expect_normal(weights[0], deviation);
    expect_normal(weights[1], deviation);
    expect_normal(weights[2], deviation / 4);
    expect_normal(weights[3], deviation / 4);
    assert_memory_not_equal(weights[0], weights[1], sizeof(first));
    for (int i = 0; i < E; i++)
        assert_true(gamma_[i] == 1 && beta[i] == 0 && biases[0][i] == 0 && biases[3][i] == 0);
    expect_ok(heed_multihead_init(&trial.desc, 5));
    assert_memory_equal(weights[0], first, sizeof(first));
    expect_ok(heed_multihead_init(&trial.desc, 6));
    assert_memory_not_equal(weights[0], first, sizeof(first));
}

/* ---- bad input ------------------------------------------------------------------------------- */

#define EXPECT_BAD(change, status, words)                                                  \
    do {                                                                                   \
        trial_t t = {.cross = true};                                                       \
        describe(&t, "");                                                                  \
        change;                                                                            \
        expect_fails(heed_multihead_dilated_attention(context, &t.desc), (status), words); \
    } while (0)

static void test_bad_input(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    fill_all();
    EXPECT_BAD(t.config.embed_dim = 25, HEED_ERROR_VALUE, "embed_dim=25 is no multiple");
    EXPECT_BAD(t.config.num_kv_heads = 4, HEED_ERROR_VALUE, "num_kv_heads=4 does not divide");
    EXPECT_BAD(t.config.batch_step = -1, HEED_ERROR_VALUE, "batch_step=-1");
    EXPECT_BAD(t.config.layer_norm_eps = NAN, HEED_ERROR_VALUE, "layer_norm_eps");
    EXPECT_BAD(t.desc.config = NULL, HEED_ERROR_NULL, "desc.config");
    EXPECT_BAD(t.desc.query.ndim = 2, HEED_ERROR_SHAPE, "query.ndim=2");
    EXPECT_BAD(t.full[1] = N - 1, HEED_ERROR_SHAPE, "key.shape[1]=36 is not 37");
    EXPECT_BAD(t.few[0] = 12, HEED_ERROR_SHAPE, "k_weight.shape[0]=12 is not 24");
    EXPECT_BAD(t.desc.out_bias.ndim = 0, HEED_ERROR_SHAPE, "out_bias.ndim=0");
    EXPECT_BAD(t.config.layer_norm = 0, HEED_ERROR_VALUE, "norm_gamma is there");
    EXPECT_BAD(t.desc.v_weight.dtype = HEED_BF16, HEED_ERROR_DTYPE, "v_weight is bf16");
    EXPECT_BAD(t.desc.out.data = NULL, HEED_ERROR_NULL, "out.data is null");
    EXPECT_BAD(t.strides[2] = 2, HEED_ERROR_STRIDE, "query: its last axis");
    if (*heed_linear_library()) {
        EXPECT_BAD(t.config.dilation_rates[0] = 0, HEED_ERROR_VALUE, "rates[0]=0");
        EXPECT_BAD(strcpy(t.config.impl, "fast"), HEED_ERROR_UNKNOWN_IMPL, "\"fast\"");
        EXPECT_BAD(strcpy(t.config.impl, "distributed"), HEED_ERROR_UNSUPPORTED, "no ranks");
        EXPECT_BAD(t.config.dtype = HEED_I32, HEED_ERROR_DTYPE, NULL);
    }
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_parts), cmocka_unit_test(test_plan),
        cmocka_unit_test(test_presets),       cmocka_unit_test(test_bad_overrides),
        cmocka_unit_test(test_init),          cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests_name("multihead", tests, NULL, NULL);
}
