/* Delayed scaling against a model in doubles with a history of its own, and error statistics. */
#define _GNU_SOURCE
#include "expect.h"

#include "controls.h"
#include "kit.h"

#include <math.h>

/* ---- the library, or with a fault ------------------------------------------------------------ */

static heed_status_t note(heed_delayed_scaling_t *s, float amax)
{
    if (fault == FAULT_ACCEPTS)
        return HEED_OK;
    return heed_delayed_note(s, fault == FAULT_NAN && isnan(amax) ? 1e30f : amax);
}

static heed_status_t update(heed_delayed_scaling_t *s)
{
    if (fault == FAULT_ACCEPTS)
        return HEED_OK;
    if (s && fault == FAULT_IDLE)
        s->skip_idle = 0;
    if (s && fault == FAULT_MARGIN)
        s->relative_margin = 0;
    heed_status_t status = heed_delayed_update(s);
    if (status == HEED_OK && fault == FAULT_SCALE)
        s->scale = nextafterf(s->scale, 0);
    if (status == HEED_OK && fault == FAULT_WINDOW)
        s->history[s->length - 1] = 0;
    if (status == HEED_OK && fault == FAULT_COUNTS)
        s->overflows = 0;
    return status;
}

static heed_status_t measure(const heed_tensor_t *reference, const heed_tensor_t *value,
                             heed_error_statistics_t *to)
{
    heed_status_t status = heed_error_statistics(reference, value, to);
    if (status == HEED_OK && fault == FAULT_LAST)
        to->max_error = 0;
    if (status == HEED_OK && fault == FAULT_DOWN)
        to->sqnr_db -= 6; /* as if a bit were lost */
    if (status == HEED_OK && fault == FAULT_COUNTS)
        to->same_special = 0;
    return fault == FAULT_ACCEPTS ? HEED_OK : status;
}

/* ---- the model: a list of all steps' amaxes, the window looked up in it ---------------------- */

enum { MOST_STEPS = 64 };

typedef struct model {
    double amaxes[MOST_STEPS];
    int steps, length;
    bool most_recent;
    double aim, largest;
    float scale;
    int64_t overflows;
} model_t;

static void model_step(model_t *m, double amax)
{
    double most = 0;
    m->overflows += amax * (double)m->scale > m->largest;
    m->amaxes[m->steps++] = amax;
    for (int back = 0; back < (m->most_recent ? 1 : m->length) && back < m->steps; back++)
        most = fmax(most, m->amaxes[m->steps - 1 - back]);
    if (most > 0 && !isinf(most)) {
        float quotient = (float)(m->aim / most);
        m->scale = isinf(quotient) ? 0x1.fffffep127f : quotient;
    }
}

/* Amaxes of many binades, zeros and tiny ones among them, over windows that wrap. */
static void traces(void **state)
{
    kit_random_t random = {3};
    (void)state;
    for (int trace = 0; trace < 400; trace++) {
        float history[16];
        bool e4m3 = kit_random_next(&random) % 2;
        int length = (int)kit_random_int(&random, 1, 16);
        int margin = (int)kit_random_int(&random, 0, 3);
        heed_delayed_scaling_t s =
            heed_delayed_scaling(e4m3 ? HEED_E4M3 : HEED_E5M2, history, length);
        model_t m = {.length = length, .scale = 1, .largest = e4m3 ? 448 : 57344};
        m.aim = ldexp(m.largest, -margin);
        s.margin = margin;
        s.most_recent = m.most_recent = kit_random_next(&random) % 2;
        s.keep_bad = 1;
        for (int step = 0; step < MOST_STEPS; step++) {
            static const float odd[] = {0, 1e-44f, 1e-40f, 3e38f, INFINITY, 0, 0x1p-126f};
            float amax = (float)exp2(6 * kit_random_normal(&random));
            if (kit_random_next(&random) % 3 == 0)
                amax = odd[kit_random_int(&random, 0, 6)];
            expect_ok(note(&s, amax / 2));
            expect_ok(note(&s, amax));
            expect_ok(note(&s, 0));
            expect_ok(update(&s));
            model_step(&m, (double)amax);
            assert_true(s.scale == m.scale);
        }
        assert_int_equal(s.overflows, m.overflows);
        assert_int_equal(s.steps, MOST_STEPS);
    }
}

static void bad_amaxes(void **state)
{
    float history[3];
    heed_delayed_scaling_t s = heed_delayed_scaling(HEED_E4M3, history, 3);
    (void)state;
    expect_ok(note(&s, 7));
    expect_ok(update(&s));
    assert_true(s.scale == 64 && s.overflows == 0);
    /* Counted, not noted: the scale stays that of the window. */
    expect_ok(note(&s, NAN));
    expect_ok(note(&s, INFINITY));
    expect_ok(note(&s, 3.5f));
    expect_ok(update(&s));
    assert_true(s.scale == 64 && s.bad_amaxes == 2 && s.overflows == 1);
    /* 8 * 64 is above 448. */
    expect_ok(note(&s, 8));
    expect_ok(update(&s));
    assert_true(s.scale == 56 && s.overflows == 2);
    /* Kept, an infinity blocks the scale until it leaves the window. */
    s.keep_bad = 1;
    expect_ok(note(&s, INFINITY));
    expect_ok(update(&s));
    for (int step = 0; step < 2; step++) {
        expect_ok(note(&s, 1));
        expect_ok(update(&s));
        assert_true(s.scale == 56);
    }
    expect_ok(note(&s, 1));
    expect_ok(update(&s));
    assert_true(s.scale == 448);
    /* A tiny amax asks for more than f32 has. */
    s.most_recent = 1;
    expect_ok(note(&s, 1e-44f));
    expect_ok(update(&s));
    assert_true(s.scale == 0x1.fffffep127f && s.scale_overflows == 1);
}

static void idle_steps(void **state)
{
    float history[2];
    heed_delayed_scaling_t s = heed_delayed_scaling(HEED_E5M2, history, 2);
    (void)state;
    expect_ok(note(&s, 57344));
    expect_ok(update(&s));
    s.skip_idle = 1;
    for (int i = 0; i < 5; i++)
        expect_ok(update(&s));
    assert_true(s.scale == 1 && s.steps == 1 && s.skipped == 5 && history[1] == 57344);
    s.skip_idle = 0; /* now they push the window out, and the scale stays */
    for (int i = 0; i < 5; i++)
        expect_ok(update(&s));
    assert_true(s.scale == 1 && s.steps == 6 && history[1] == 0);
}

static void margins(void **state)
{
    float history[1];
    heed_delayed_scaling_t s = heed_delayed_scaling(HEED_E4M3, history, 1);
    (void)state;
    s.relative_margin = 0.01f;
    expect_ok(note(&s, 1));
    expect_ok(update(&s));
    assert_true(fabs((double)s.scale - 448 / 1.01) < 1e-4);
    s.relative_margin = 0;
    s.margin = 1;
    expect_ok(note(&s, 1));
    expect_ok(update(&s));
    assert_true(s.scale == 224);
}

static void bad_states(void **state)
{
    float history[2];
    heed_delayed_scaling_t s = heed_delayed_scaling(HEED_E4M3, history, 2);
    (void)state;
    expect_fails(update(NULL), HEED_ERROR_NULL, "state");
    expect_fails(note(&s, -1), HEED_ERROR_VALUE, "amax=-1 is negative");
    s.history = NULL;
    expect_fails(update(&s), HEED_ERROR_NULL, "history");
    s = heed_delayed_scaling(HEED_I8, history, 2);
    expect_fails(update(&s), HEED_ERROR_DTYPE, "dtype is i8");
    s = heed_delayed_scaling(HEED_E4M3, history, 0);
    expect_fails(note(&s, 1), HEED_ERROR_VALUE, "length=0");
    s = heed_delayed_scaling(HEED_E4M3, history, 2);
    s.margin = 65;
    expect_fails(note(&s, 1), HEED_ERROR_VALUE, "margin=65");
    s.margin = 0;
    s.relative_margin = NAN;
    expect_fails(note(&s, 1), HEED_ERROR_VALUE, "relative_margin=nan");
}

/* ---- error statistics ------------------------------------------------------------------------ */

static void statistics(void **state)
{
    float x[] = {3, 4, NAN, INFINITY, 0, INFINITY}, y[] = {3, 4.5f, NAN, INFINITY, 0, 1};
    heed_tensor_t a = HEED_TENSOR(x, HEED_F32, 2, 3), b = HEED_TENSOR(y, HEED_F32, 2, 3);
    heed_error_statistics_t e;
    (void)state;
    expect_ok(measure(&a, &b, &e));
    assert_int_equal(e.elements, 3);
    assert_int_equal(e.same_special, 2);
    assert_int_equal(e.bad, 1);
    assert_true(e.max_error == 0.5 && e.relative_rms == 0.1 && fabs(e.sqnr_db - 20) < 1e-12);
    assert_true(fabs(e.cosine - 27 / (5 * sqrt(29.25))) < 1e-15);
    expect_ok(measure(&a, &a, &e));
    assert_true(isinf(e.sqnr_db) && e.relative_rms == 0 && fabs(e.cosine - 1) < 1e-15);
    /* Strides, and codes against numbers: 1, 2, 3 in E4M3. */
    uint8_t codes[] = {0x38, 0, 0x40, 0, 0x44};
    float numbers[] = {1, 2, 3.25f};
    int64_t shape[] = {3}, strides[] = {2};
    a = heed_tensor(numbers, HEED_F32, 1, shape, NULL);
    b = heed_tensor(codes, HEED_E4M3, 1, shape, strides);
    expect_ok(measure(&a, &b, &e));
    assert_true(e.max_error == 0.25 && e.elements == 3);
    b.dtype = HEED_I8;
    expect_fails(measure(&a, &b, &e), HEED_ERROR_DTYPE, "value is i8");
    b = heed_tensor(NULL, HEED_E4M3, 1, shape, NULL);
    expect_fails(measure(&a, &b, &e), HEED_ERROR_NULL, "value.data");
    b.ndim = 0;
    expect_fails(measure(&a, &b, &e), HEED_ERROR_SHAPE, "value.ndim=0");
    b = HEED_TENSOR(codes, HEED_E4M3, 2);
    expect_fails(measure(&a, &b, &e), HEED_ERROR_SHAPE, "another shape");
    b.device.type = HEED_DEVICE_CUDA;
    expect_fails(measure(&a, &b, &e), HEED_ERROR_VALUE, "not on the CPU");
    expect_fails(measure(&a, NULL, &e), HEED_ERROR_NULL, "value");
}

/* What E4M3 with one scale for a tensor is known to keep of normal numbers: 31.5 dB. */
static void known_loss(void **state)
{
    enum { N = 1 << 18 };
    static float x[N], back[N];
    static uint8_t codes[N];
    kit_random_t random = {9};
    heed_context_t *context = expect_context(NULL);
    heed_cast_desc_t desc = heed_cast_desc();
    heed_error_statistics_t e;
    float scale;
    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)kit_random_normal(&random);
    desc.src = HEED_TENSOR(x, HEED_F32, N);
    desc.dst = HEED_TENSOR(codes, HEED_E4M3, N);
    desc.scaling = HEED_SCALE_TENSOR;
    desc.scale_use = HEED_SCALE_DIVIDES;
    desc.scale_out = HEED_TENSOR(&scale, HEED_F32, 1);
    expect_ok(heed_cast(context, &desc));
    heed_cast_desc_t decode = heed_cast_desc();
    decode.src = desc.dst;
    decode.dst = HEED_TENSOR(back, HEED_F32, N);
    decode.scaling = HEED_SCALE_TENSOR;
    decode.scale = desc.scale_out;
    expect_ok(heed_cast(context, &decode));
    expect_ok(measure(&desc.src, &decode.dst, &e));
    assert_true(e.sqnr_db > 31 && e.sqnr_db < 32 && e.elements == N);
    heed_context_destroy(context);
}

/* Of squares that are sums of parts, with elements that are not finite in some of them, and lengths
 * that no vector divides. */
static void statistics_of_parts(void **state)
{
    enum { N = 5003 };
    static float x[N], y[N];
    kit_random_t random = {11};
    (void)state;
    for (int64_t n = 1; n <= N; n += n < 40 ? 1 : 709) {
        double signal = 0, error = 0, worst = 0;
        for (int64_t i = 0; i < n; i++) {
            x[i] = (float)kit_random_normal(&random);
            y[i] = x[i] + (float)(0.01 * kit_random_normal(&random));
            if (i % 1500 == 1499) {
                x[i] = NAN;
                continue;
            }
            double off = fabs((double)x[i] - (double)y[i]);
            signal += (double)x[i] * (double)x[i];
            error += off * off;
            worst = fmax(worst, off);
        }
        heed_tensor_t a = heed_tensor(x, HEED_F32, 1, &n, NULL);
        heed_tensor_t b = heed_tensor(y, HEED_F32, 1, &n, NULL);
        heed_error_statistics_t e;
        expect_ok(measure(&a, &b, &e));
        assert_int_equal(e.bad, n / 1500);
        assert_int_equal(e.elements, n - n / 1500);
        assert_true(e.max_error == worst);
        assert_true(fabs(e.reference_squares / signal - 1) < 1e-12);
        assert_true(fabs(e.error_squares / error - 1) < 1e-12);
    }
}

static const control_t controls[] = {
    {"traces", FAULT_SCALE},       {"traces", FAULT_WINDOW},
    {"traces", FAULT_COUNTS},      {"bad_amaxes", FAULT_NAN},
    {"bad_amaxes", FAULT_COUNTS},  {"idle_steps", FAULT_IDLE},
    {"margins", FAULT_MARGIN},     {"margins", FAULT_SCALE},
    {"bad_states", FAULT_ACCEPTS}, {"statistics", FAULT_LAST},
    {"statistics", FAULT_COUNTS},  {"statistics", FAULT_ACCEPTS},
    {"known_loss", FAULT_DOWN},    {"statistics_of_parts", FAULT_LAST},
};

int main(int argc, char **argv)
{
    int status;
    if (use_arguments(argc, argv, controls, COUNT(controls), &status))
        return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traces),     cmocka_unit_test(bad_amaxes),
        cmocka_unit_test(idle_steps), cmocka_unit_test(margins),
        cmocka_unit_test(bad_states), cmocka_unit_test(statistics),
        cmocka_unit_test(known_loss), cmocka_unit_test(statistics_of_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
