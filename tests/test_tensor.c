/* Tensors: dtypes by name, spans, and what the tensor checks of every operation refuse. A cast is
 * the smallest operation that takes them. */
#include "expect.h"

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

static void dtypes_by_name(void **state)
{
    static const struct {
        heed_dtype_t dtype;
        const char *name;
        size_t size;
    } known[] = {{HEED_F32, "f32", 4},
                 {HEED_BF16, "bf16", 2},
                 {HEED_F16, "f16", 2},
                 {HEED_F64, "f64", 8},
                 {HEED_E4M3, "e4m3", 1},
                 {HEED_E5M2, "e5m2", 1},
                 {HEED_I8, "i8", 1},
                 {HEED_I32, "i32", 4},
                 {HEED_I64, "i64", 8},
                 {HEED_U8, "u8", 1},
                 {HEED_BOOL, "bool", 1},
                 {HEED_E4M3IEEE, "e4m3ieee", 1},
                 {HEED_E4M3FNUZ, "e4m3fnuz", 1},
                 {HEED_E5M2FNUZ, "e5m2fnuz", 1},
                 {HEED_E8M0, "e8m0", 1}};
    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        heed_dtype_t dtype = 0;
        assert_string_equal(heed_dtype_name(known[i].dtype), known[i].name);
        assert_int_equal(heed_dtype_size(known[i].dtype), known[i].size);
        expect_ok(heed_dtype_parse(known[i].name, &dtype));
        assert_int_equal(dtype, known[i].dtype);
    }
    heed_dtype_t dtype;
    assert_string_equal(heed_dtype_name(12345), "?");
    assert_int_equal(heed_dtype_size(12345), 0);
    assert_int_equal(heed_dtype_size(0), 0);
    expect_fails(heed_dtype_parse("float32", &dtype), HEED_ERROR_DTYPE, "f32, bf16, f16");
    expect_fails(heed_dtype_parse(NULL, &dtype), HEED_ERROR_NULL, "name");
    expect_fails(heed_dtype_parse("f32", NULL), HEED_ERROR_NULL, "dtype");
}

/* DLPack's DLTensor on a 64-bit machine. */
static void the_layout_is_dlpacks(void **state)
{
    (void)state;
    assert_int_equal(sizeof(heed_tensor_t), 48);
    assert_int_equal(offsetof(heed_tensor_t, device), 8);
    assert_int_equal(offsetof(heed_tensor_t, ndim), 16);
    assert_int_equal(offsetof(heed_tensor_t, dtype), 20);
    assert_int_equal(offsetof(heed_tensor_t, shape), 24);
    assert_int_equal(offsetof(heed_tensor_t, strides), 32);
    assert_int_equal(offsetof(heed_tensor_t, byte_offset), 40);
    const unsigned char bf16[4] = {4, 16, 1, 0}; /* code, bits, lanes (16 bits) */
    heed_dtype_t dtype = HEED_BF16;
    assert_memory_equal(&dtype, bf16, sizeof(bf16));
}

static void spans(void **state)
{
    int64_t shape[] = {2, 3, 4}, strides[] = {100, 10, 2};
    heed_tensor_t tensor = heed_tensor(NULL, HEED_F32, 3, shape, NULL);
    (void)state;
    assert_int_equal(heed_tensor_span(&tensor), 24);
    tensor.strides = strides;
    assert_int_equal(heed_tensor_span(&tensor), 100 + 20 + 6 + 1);
    strides[0] = 0;
    assert_int_equal(heed_tensor_span(&tensor), 20 + 6 + 1);
    shape[1] = 0;
    assert_int_equal(heed_tensor_span(&tensor), 0);
    tensor.ndim = 0;
    assert_int_equal(heed_tensor_span(&tensor), 0);
    assert_int_equal(heed_tensor_span(NULL), 0);
}

static heed_status_t plan_cast(heed_tensor_t src, heed_tensor_t dst)
{
    heed_cast_desc_t desc = heed_cast_desc();
    heed_plan_t *plan = NULL;
    desc.src = src;
    desc.dst = dst;
    heed_status_t status = heed_cast_plan(context, &desc, &plan);
    assert_true((status == HEED_OK) == (plan != NULL));
    heed_plan_destroy(plan);
    return status;
}

/* The same shape and strides for both. */
static heed_status_t plan_with(int ndim, int64_t *shape, int64_t *strides)
{
    return plan_cast(heed_tensor(NULL, HEED_F32, ndim, shape, NULL),
                     heed_tensor(NULL, HEED_BF16, ndim, shape, strides));
}

static void shapes_that_are_refused(void **state)
{
    int64_t shape[9] = {2, 3, 4, 1, 1, 1, 1, 1, 1};
    (void)state;
    expect_ok(plan_with(8, shape, NULL));
    expect_fails(plan_with(9, shape, NULL), HEED_ERROR_SHAPE, "src.ndim=9");
    expect_fails(plan_with(0, shape, NULL), HEED_ERROR_SHAPE, "src.ndim=0");
    expect_fails(plan_with(-1, shape, NULL), HEED_ERROR_SHAPE, "src.ndim=-1");
    expect_fails(plan_with(3, NULL, NULL), HEED_ERROR_NULL, "src.shape");
    shape[1] = -3;
    expect_fails(plan_with(3, shape, NULL), HEED_ERROR_SHAPE, "src.shape[1]=-3");
    shape[1] = INT64_MIN;
    expect_fails(plan_with(3, shape, NULL), HEED_ERROR_SHAPE, "src.shape[1]=");
    shape[1] = 0;
    expect_ok(plan_with(3, shape, NULL));
}

static void sizes_that_overflow(void **state)
{
    int64_t shape[4] = {INT64_C(1) << 40, INT64_C(1) << 40, 2, 2};
    (void)state;
    expect_fails(plan_with(4, shape, NULL), HEED_ERROR_SHAPE, "too many elements");
    shape[1] = 0; /* an empty axis must not hide it: strides are products of the others */
    expect_ok(plan_with(2, shape, NULL));
    shape[2] = INT64_C(1) << 40;
    expect_fails(plan_with(3, shape, NULL), HEED_ERROR_SHAPE, "too many elements");
    shape[0] = INT64_MAX;
    expect_fails(plan_with(1, shape, NULL), HEED_ERROR_SHAPE, "too many elements");
}

static void strides_that_are_refused(void **state)
{
    int64_t shape[2] = {3, 4}, strides[2] = {4, 1};
    (void)state;
    expect_ok(plan_with(2, shape, strides));
    strides[0] = -4;
    expect_fails(plan_with(2, shape, strides), HEED_ERROR_STRIDE, "dst.strides[0]=-4");
    strides[0] = INT64_MAX / 2;
    expect_fails(plan_with(2, shape, strides), HEED_ERROR_STRIDE, "beyond any address");
    strides[0] = INT64_MAX;
    expect_fails(plan_with(2, shape, strides), HEED_ERROR_STRIDE, "beyond any address");
    strides[0] = 3; /* rows of 4 elements, 3 apart */
    expect_fails(plan_with(2, shape, strides), HEED_ERROR_STRIDE, "share an address");
    strides[0] = 0;
    expect_fails(plan_with(2, shape, strides), HEED_ERROR_STRIDE, "share an address");
    strides[0] = 1, strides[1] = 3; /* columns in the inner place */
    expect_ok(plan_with(2, shape, strides));
    strides[1] = 1;
    expect_fails(plan_with(2, shape, strides), HEED_ERROR_STRIDE, "share an address");
    shape[0] = 1; /* an axis of one element has no stride to speak of */
    strides[0] = 0;
    expect_ok(plan_with(2, shape, strides));
}

/* What an output may not do, an input may: repeat its elements. */
static void inputs_may_overlap(void **state)
{
    int64_t shape[2] = {3, 4}, strides[2] = {0, 1};
    (void)state;
    expect_ok(plan_cast(heed_tensor(NULL, HEED_F32, 2, shape, strides),
                        heed_tensor(NULL, HEED_F16, 2, shape, NULL)));
}

static void dtypes_that_are_refused(void **state)
{
    int64_t shape[1] = {4};
    (void)state;
    expect_fails(plan_cast(heed_tensor(NULL, 77, 1, shape, NULL),
                           heed_tensor(NULL, HEED_F16, 1, shape, NULL)),
                 HEED_ERROR_DTYPE, "src.dtype");
    expect_fails(plan_cast(heed_tensor(NULL, HEED_F32, 1, shape, NULL),
                           heed_tensor(NULL, HEED_I32, 1, shape, NULL)),
                 HEED_ERROR_DTYPE, "i32");
}

static void byte_offsets(void **state)
{
    int64_t shape[1] = {3};
    float src[4] = {9, 1, 2, 3}, dst[5] = {0};
    heed_cast_desc_t desc = heed_cast_desc();
    (void)state;
    desc.src = heed_tensor(src, HEED_F32, 1, shape, NULL);
    desc.dst = heed_tensor(dst, HEED_F32, 1, shape, NULL);
    desc.src.byte_offset = 4;
    desc.dst.byte_offset = 8;
    expect_ok(heed_cast(context, &desc));
    const float want[5] = {0, 0, 1, 2, 3};
    assert_memory_equal(dst, want, sizeof(want));
    desc.src.byte_offset = UINT64_MAX;
    expect_fails(heed_cast(context, &desc), HEED_ERROR_VALUE, "src.byte_offset");
    desc.src.byte_offset = 2;
    expect_fails(heed_cast(context, &desc), HEED_ERROR_ALIGNMENT, "src");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_by_name),
        cmocka_unit_test(the_layout_is_dlpacks),
        cmocka_unit_test(spans),
        cmocka_unit_test(shapes_that_are_refused),
        cmocka_unit_test(sizes_that_overflow),
        cmocka_unit_test(strides_that_are_refused),
        cmocka_unit_test(inputs_may_overlap),
        cmocka_unit_test(dtypes_that_are_refused),
        cmocka_unit_test(byte_offsets),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
