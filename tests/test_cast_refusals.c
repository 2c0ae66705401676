/* What casts refuse, and scales that they take as they are. */
#define _GNU_SOURCE
#include "each_cast.h"
#include "fp8_faults.h"

#include <math.h>

/* ---- what is refused ------------------------------------------------------------------------- */

typedef struct bad {
    heed_context_t *context;
    heed_cast_desc_t desc;
    int64_t shape[2], groups[2], swapped[2], counts[1], losses[1];
    double lost[HEED_CAST_LOSS_SIZE];
    float source[12], scale[12], scale_out[12], amax[12];
    uint8_t codes[12], transposed[12];
    int64_t counted[HEED_CAST_COUNTS_SIZE];
} bad_t;

static void bad_init(bad_t *b, heed_context_t *context)
{
    *b = (bad_t){.context = context,
                 .shape = {3, 4},
                 .groups = {3, 1},
                 .swapped = {4, 3},
                 .counts = {HEED_CAST_COUNTS_SIZE},
                 .losses = {HEED_CAST_LOSS_SIZE}};
    b->desc = heed_cast_desc();
    b->desc.src = heed_tensor(b->source, HEED_F32, 2, b->shape, NULL);
    b->desc.dst = heed_tensor(b->codes, HEED_E4M3, 2, b->shape, NULL);
    b->desc.scaling = HEED_SCALE_ROW;
    b->desc.scale = heed_tensor(b->scale, HEED_F32, 2, b->groups, NULL);
    b->desc.amax = heed_tensor(b->amax, HEED_F32, 2, b->groups, NULL);
    b->desc.counts = heed_tensor(b->counted, HEED_I64, 1, b->counts, NULL);
    b->desc.transposed = heed_tensor(b->transposed, HEED_E4M3, 2, b->swapped, NULL);
}

#define REFUSED(change, status, words)                            \
    do {                                                          \
        bad_init(&b, context);                                    \
        change;                                                   \
        if (fault == FAULT_ACCEPTS)                               \
            bad_init(&b, context);                                \
        expect_fails(heed_cast(context, &b.desc), status, words); \
    } while (0)

static void bad_descriptors(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_cast_preset_t preset;
    bad_t b;
    (void)state;
    bad_init(&b, context);
    expect_ok(heed_cast(context, &b.desc));
    REFUSED(b.groups[0] = 4, HEED_ERROR_SHAPE, "scale.shape[0]=4, but there are 3 groups");
    REFUSED(b.desc.scale.ndim = 1; b.groups[0] = 2, HEED_ERROR_SHAPE, "there are 3 groups");
    REFUSED(b.desc.scale.dtype = HEED_F64, HEED_ERROR_DTYPE, "scale is f64: it takes f32, e8m0");
    REFUSED(b.desc.scaling = 0, HEED_ERROR_VALUE, "scaling=0, none, but there is a scale");
    REFUSED(b.desc.scale.ndim = 0, HEED_ERROR_VALUE, "takes scale or scale_out, here are neither");
    REFUSED(b.desc.scale_out = b.desc.scale, HEED_ERROR_VALUE, "here are both");
    REFUSED(b.desc.scaling = HEED_SCALE_BLOCK, HEED_ERROR_VALUE, "block=0,0");
    REFUSED(b.desc.scale_form = HEED_SCALE_FORM_MX; b.desc.scale_out = b.desc.scale;
            b.desc.scale.ndim = 0, HEED_ERROR_DTYPE, "scale_out is f32: scale_form=2 makes e8m0");
    REFUSED(b.desc.overflow = 3, HEED_ERROR_VALUE, "overflow=3 is not 0 to 2");
    REFUSED(b.desc.rounding = HEED_ROUND_UP, HEED_ERROR_VALUE, "is for dst e8m0, but dst is e4m3");
    REFUSED(b.desc.dst.dtype = HEED_E8M0; b.desc.rounding = HEED_ROUND_STOCHASTIC, HEED_ERROR_VALUE,
                                          "is for fp8, but dst is e8m0");
    REFUSED(b.desc.amax_floor = NAN, HEED_ERROR_VALUE, "amax_floor=nan");
    REFUSED(b.desc.amax.dtype = HEED_F16, HEED_ERROR_DTYPE, "amax is f16: it takes f32");
    REFUSED(b.desc.counts.dtype = HEED_I32, HEED_ERROR_DTYPE, "counts is i32: it takes i64");
    REFUSED(b.counts[0] = 5, HEED_ERROR_SHAPE, "it takes [6]");
    REFUSED(b.desc.loss = heed_tensor(b.lost, HEED_F32, 1, b.losses, NULL), HEED_ERROR_DTYPE,
            "loss is f32: it takes f64");
    REFUSED(b.desc.loss = heed_tensor(b.lost, HEED_F64, 1, b.counts, NULL), HEED_ERROR_SHAPE,
            "loss.ndim=1, loss.shape[0]=6: it takes [3]");
    REFUSED(b.desc.transposed.dtype = HEED_E5M2, HEED_ERROR_DTYPE, "transposed is e5m2, but dst");
    REFUSED(b.swapped[0] = 3, HEED_ERROR_SHAPE, "transposed.shape[0]=3, but src.shape[1]=4");
    REFUSED(b.shape[0] = INT64_C(1) << 62, HEED_ERROR_SHAPE, "too many elements");
    expect_fails(heed_cast_apply_preset(&b.desc, HEED_CAST_PRESETS), HEED_ERROR_VALUE, "preset=9");
    expect_fails(heed_cast_apply_preset(NULL, HEED_CAST_TORCH), HEED_ERROR_NULL, "desc");
    expect_fails(heed_cast_preset_parse("tpu", &preset), HEED_ERROR_VALUE, "ocp_sat, ocp_nosat");
    for (int i = 0; i < HEED_CAST_PRESETS; i++) {
        expect_ok(heed_cast_preset_parse(heed_cast_preset_name((heed_cast_preset_t)i), &preset));
        assert_int_equal(preset, i);
    }
    heed_context_destroy(context);
}

static void overlaps(void **state)
{
    heed_context_t *context = expect_context(NULL);
    bad_t b;
    (void)state;
    REFUSED(b.desc.dst.data = (uint8_t *)b.source + 1, HEED_ERROR_VALUE, "dst at");
    REFUSED(b.desc.dst.data = b.source, HEED_ERROR_VALUE, "does not work in place");
    REFUSED(b.desc.transposed.ndim = 0; b.desc.dst.data = b.source;
            b.desc.loss = heed_tensor(b.lost, HEED_F64, 1, b.losses, NULL), HEED_ERROR_VALUE,
            "does not work in place");
    REFUSED(b.desc.dst.data = (uint8_t *)b.scale + 11, HEED_ERROR_VALUE, "overlaps dst at");
    REFUSED(b.desc.amax.data = b.source + 11, HEED_ERROR_VALUE, "amax at");
    REFUSED(b.desc.amax.data = b.scale, HEED_ERROR_VALUE, "overlaps scale at");
    REFUSED(b.desc.transposed.data = b.codes + 11, HEED_ERROR_VALUE, "transposed at");
    heed_context_destroy(context);
}

/* Bad scales are used as they are, and counted. */
static void bad_scales(heed_context_t *context)
{
    bad_t b;
    bad_init(&b, context);
    const float source[12] = {1, -2, 3, 0, 1, -2, 3, 0, 1, -2, 3, NAN};
    memcpy(b.source, source, sizeof(source));
    b.scale[0] = 0, b.scale[1] = INFINITY, b.scale[2] = NAN;
    expect_ok(heed_cast(context, &b.desc));
    const uint8_t want[12] = {0, 0x80, 0, 0, 0x7e, 0xfe, 0x7e, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f};
    const int64_t counts[] = {3, 3, 3, 1, 0, 3};
    if (fault == FAULT_COUNTS)
        memset(b.counted, 0, sizeof(b.counted));
    assert_memory_equal(b.codes, want, sizeof(want));
    assert_memory_equal(b.counted, counts, sizeof(counts));
    assert_true(b.amax[0] == 3 && b.amax[1] == 3 && isnan(b.amax[2]));
}

static void scales_that_are_bad(void **state)
{
    (void)state;
    for_each(bad_scales);
}

static const control_t controls[] = {
    {"bad_descriptors", FAULT_ACCEPTS},
    {"overlaps", FAULT_ACCEPTS},
    {"scales_that_are_bad", FAULT_COUNTS},
};

int main(int argc, char **argv)
{
    int status;
    if (use_arguments(argc, argv, controls, COUNT(controls), &status))
        return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_descriptors),
        cmocka_unit_test(overlaps),
        cmocka_unit_test(scales_that_are_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
