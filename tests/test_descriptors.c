/* What a wrong descriptor of attention is told, and one of any size. */
#define _GNU_SOURCE
#include "small_context.h"

static heed_status_t plan_small(void)
{
    heed_plan_t *plan = NULL;
    heed_status_t status = heed_attention_plan(context, &small.desc, &plan);
    assert_true((status == HEED_OK) == (plan != NULL));
    heed_plan_destroy(plan);
    return status;
}

#define REFUSES(change, status, words)             \
    do {                                           \
        small_init(&small);                        \
        change;                                    \
        expect_fails(plan_small(), status, words); \
    } while (0)

/* ---- descriptors ----------------------------------------------------------------------------- */

static void null_pointers(void **state)
{
    heed_plan_t *plan = (heed_plan_t *)state;
    (void)state;
    expect_fails(heed_attention_plan(NULL, &small.desc, &plan), HEED_ERROR_NULL, "context");
    assert_null(plan);
    expect_fails(heed_attention_plan(context, NULL, &plan), HEED_ERROR_NULL, "desc");
    expect_fails(heed_attention_plan(context, &small.desc, NULL), HEED_ERROR_NULL, "plan");
    expect_fails(heed_plan_create(context, NULL, &small.desc, &plan), HEED_ERROR_NULL, "op");
    expect_fails(heed_plan_create(context, "convolution", &small.desc, &plan),
                 HEED_ERROR_UNKNOWN_IMPL, "attention");
    expect_fails(heed_attention(NULL, &small.desc), HEED_ERROR_NULL, "context");
    expect_fails(heed_attention(context, NULL), HEED_ERROR_NULL, "desc");
    heed_plan_destroy(NULL);
    REFUSES(small.desc.q.shape = NULL, HEED_ERROR_NULL, "q.shape");
    REFUSES(small.desc.q.ndim = 0, HEED_ERROR_SHAPE, "q.ndim=0");
    REFUSES(small.desc.v.ndim = 3, HEED_ERROR_SHAPE, "v.ndim=3");
    REFUSES(small.desc.lse.ndim = 2, HEED_ERROR_SHAPE, "lse.ndim=2");
    REFUSES(small.desc.lse.ndim = 0, HEED_OK, NULL);
}

static void shapes_that_do_not_match(void **state)
{
    (void)state;
    REFUSES(small.shapes[0][1] = -5, HEED_ERROR_SHAPE, "q.shape[1]=-5");
    REFUSES(small.shapes[1][0] = 3, HEED_ERROR_SHAPE, "k.shape[0]=3, but q.shape[0]=2");
    REFUSES(small.shapes[1][3] = 17, HEED_ERROR_SHAPE, "k.shape[3]=17, but q.shape[3]=16");
    REFUSES(small.shapes[2][1] = 8, HEED_ERROR_SHAPE, "v.shape[1]=8, but k.shape[1]=7");
    REFUSES(small.shapes[2][2] = 1, HEED_ERROR_SHAPE, "v.shape[2]=1, but k.shape[2]=2");
    REFUSES(small.shapes[3][1] = 6, HEED_ERROR_SHAPE, "out.shape[1]=6, but q.shape[1]=5");
    REFUSES(small.shapes[3][3] = 16, HEED_ERROR_SHAPE, "out.shape[3]=16, but v.shape[3]=8");
    REFUSES(small.lse_shape[1] = 5, HEED_ERROR_SHAPE, "lse.shape[1]=5, but q.shape[2]=4");
    REFUSES(small.lse_shape[2] = 4, HEED_ERROR_SHAPE, "lse.shape[2]=4, but q.shape[1]=5");
    REFUSES((small.shapes[1][2] = 3, small.shapes[2][2] = 3), HEED_ERROR_SHAPE, "4 heads");
    REFUSES((small.shapes[1][2] = 0, small.shapes[2][2] = 0), HEED_ERROR_SHAPE, "heads");
    REFUSES((small.shapes[0][3] = 513, small.shapes[1][3] = 513), HEED_ERROR_SHAPE, "513");
    REFUSES((small.shapes[0][3] = 0, small.shapes[1][3] = 0), HEED_ERROR_SHAPE, "=0");
    REFUSES((small.shapes[2][3] = 600, small.shapes[3][3] = 600), HEED_ERROR_SHAPE, "600");
}

static void dtypes_that_do_not_match(void **state)
{
    (void)state;
    REFUSES(small.desc.q.dtype = HEED_F64, HEED_ERROR_DTYPE, "f64");
    REFUSES(small.desc.k.dtype = HEED_F64, HEED_ERROR_DTYPE, "k is f64");
    REFUSES(small.desc.v.dtype = HEED_I32, HEED_ERROR_DTYPE, "v is i32");
    REFUSES(small.desc.out.dtype = HEED_BF16, HEED_ERROR_DTYPE, "out is bf16");
    REFUSES(small.desc.lse.dtype = HEED_F16, HEED_ERROR_DTYPE, "lse is f16");
    REFUSES(small.desc.q.dtype = 1, HEED_ERROR_DTYPE, "q.dtype");
    REFUSES(small.desc.q.dtype = HEED_E5M2, HEED_ERROR_DTYPE, "q is e5m2");
    REFUSES(small.desc.q.dtype = HEED_E4M3, HEED_ERROR_DTYPE, "k is f32");
    REFUSES(small.desc.out.dtype = HEED_E4M3, HEED_ERROR_DTYPE, "out is e4m3");
#define ALL_E4M3 small.desc.q.dtype = small.desc.k.dtype = small.desc.v.dtype = HEED_E4M3
    REFUSES((ALL_E4M3, small.desc.out.dtype = HEED_E4M3), HEED_ERROR_DTYPE,
            "out is e4m3: with q in e4m3 it is bf16, f16 or f32");
    REFUSES((ALL_E4M3, small.desc.out.dtype = HEED_F64), HEED_ERROR_DTYPE, "out is f64");
}

static void strides_of_outputs(void **state)
{
    int64_t rows_together[4] = {160, 31, 8, 1}, heads_together[4] = {160, 32, 7, 1};
    int64_t lse[3] = {20, 4, 1};
    (void)state;
    REFUSES(small.desc.out.strides = rows_together, HEED_ERROR_STRIDE, "out.strides");
    REFUSES(small.desc.out.strides = heads_together, HEED_ERROR_STRIDE, "out.strides");
    REFUSES(small.desc.lse.strides = lse, HEED_ERROR_STRIDE, "lse.strides");
    REFUSES(small.desc.k.strides = (heads_together[1] = -32, heads_together), HEED_ERROR_STRIDE,
            "k.strides[1]=-32");
}

static void parameters(void **state)
{
    (void)state;
    REFUSES(small.desc.scale = NAN, HEED_ERROR_VALUE, "scale=");
    REFUSES(small.desc.scale = -INFINITY, HEED_ERROR_VALUE, "scale=-inf");
    REFUSES(small.desc.scale = -0.5f, HEED_OK, NULL);
    REFUSES(small.desc.causal = 2, HEED_ERROR_VALUE, "causal=2");
    REFUSES(small.desc.merge = -1, HEED_ERROR_VALUE, "merge=-1");
    REFUSES(small.desc.align = (heed_align_t)2, HEED_ERROR_VALUE, "align=2");
    REFUSES(small.desc.window_left = -2, HEED_ERROR_VALUE, "window_left=-2");
    REFUSES(small.desc.window_right = INT64_MIN, HEED_ERROR_VALUE,
            "window_right=-9223372036854775808");
    REFUSES(small.desc.window_left = INT64_MAX, HEED_OK, NULL);
    REFUSES((small.desc.merge = 1, small.desc.lse.ndim = 0), HEED_ERROR_VALUE, "merge=1 needs lse");
    REFUSES(small.desc.k.device.id = 3, HEED_ERROR_VALUE, "k is on device");
    REFUSES(small.desc.q.byte_offset = UINT64_MAX, HEED_ERROR_VALUE, "q.byte_offset");
}

static void descriptor_sizes(void **state)
{
    struct {
        heed_attention_desc_t known;
        char later[64];
    } larger;
    heed_plan_t *plan = NULL;
    (void)state;
    REFUSES(small.desc.struct_size = 0, HEED_ERROR_STRUCT_SIZE, "desc.struct_size=0");
    REFUSES(small.desc.struct_size = 100, HEED_ERROR_STRUCT_SIZE, "desc.struct_size=100");
    small_init(&small);
    memset(&larger, 0, sizeof(larger));
    larger.known = small.desc;
    larger.known.struct_size = sizeof(larger);
    expect_ok(heed_attention_plan(context, &larger.known, &plan));
    heed_plan_destroy(plan);
    larger.later[63] = 1;
    expect_fails(heed_attention_plan(context, &larger.known, &plan), HEED_ERROR_STRUCT_SIZE,
                 "is set");
    assert_null(plan);
}

/* ---- tile lists ------------------------------------------------------------------------------ */

static heed_tile_list_t tiles;
static int64_t row_start[9];
static int32_t column[8], mask[8];
static uint64_t bits[64];

static heed_status_t plan_tiles(void)
{
    heed_status_t status;
    small_init(&small);
    small.desc.tiles = &tiles;
    status = plan_small();
    tiles = (heed_tile_list_t){.struct_size = sizeof(tiles),
                               .tile_q = 64,
                               .tile_k = 64,
                               .batches = 1,
                               .heads = 1,
                               .rows = 1,
                               .row_start = row_start,
                               .column = column,
                               .mask = mask,
                               .bits = bits,
                               .masks = 1};
    row_start[0] = 0;
    row_start[1] = 1;
    column[0] = 0;
    mask[0] = 0;
    return status;
}

#define TILES_REFUSE(change, status, words)        \
    do {                                           \
        change;                                    \
        expect_fails(plan_tiles(), status, words); \
    } while (0)

static void tile_lists(void **state)
{
    (void)state;
    tiles = (heed_tile_list_t){0};
    TILES_REFUSE((void)0, HEED_ERROR_STRUCT_SIZE, "tiles.struct_size=0");
    TILES_REFUSE((void)0, HEED_OK, NULL);
    TILES_REFUSE(tiles.tile_q = 32, HEED_ERROR_VALUE, "tiles.tile_q=32");
    TILES_REFUSE(tiles.tile_k = 96, HEED_ERROR_VALUE, "tile_k=96");
    TILES_REFUSE(tiles.batches = 3, HEED_ERROR_SHAPE, "tiles.batches=3");
    TILES_REFUSE(tiles.heads = 2, HEED_ERROR_SHAPE, "heads=2");
    TILES_REFUSE(tiles.rows = 2, HEED_ERROR_SHAPE, "tiles.rows=2");
    TILES_REFUSE(tiles.row_start = NULL, HEED_ERROR_NULL, "tiles.row_start");
    TILES_REFUSE(tiles.column = NULL, HEED_ERROR_NULL, "tiles.column");
    TILES_REFUSE(tiles.bits = NULL, HEED_ERROR_NULL, "tiles.bits");
    TILES_REFUSE(tiles.mask = NULL, HEED_OK, NULL);
    TILES_REFUSE(tiles.masks = -1, HEED_ERROR_VALUE, "tiles.masks=-1");
    TILES_REFUSE(row_start[0] = 1, HEED_ERROR_VALUE, "tiles.row_start[0]=1");
    TILES_REFUSE(row_start[1] = -1, HEED_ERROR_VALUE, "tiles.row_start[1]=-1");
    TILES_REFUSE(column[0] = 1, HEED_ERROR_VALUE, "tiles.column[0]=1");
    TILES_REFUSE(column[0] = -1, HEED_ERROR_VALUE, "tiles.column[0]=-1");
    TILES_REFUSE((row_start[1] = 2, column[1] = 0), HEED_ERROR_VALUE, "tiles.column[1]=0");
    TILES_REFUSE(mask[0] = 1, HEED_ERROR_VALUE, "tiles.mask[0]=1");
    TILES_REFUSE(mask[0] = -2, HEED_ERROR_VALUE, "tiles.mask[0]=-2");
    TILES_REFUSE(row_start[1] = 0, HEED_OK, NULL);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static heed_status_t plan_sizes(int64_t b, int64_t sq, int64_t sk, int64_t h, int64_t d)
{
    small_init(&small);
    const int64_t shapes[4][4] = {{b, sq, h, d}, {b, sk, h, d}, {b, sk, h, d}, {b, sq, h, d}};
    memcpy(small.shapes, shapes, sizeof(shapes));
    memcpy(small.lse_shape, (const int64_t[]){b, h, sq}, sizeof(small.lse_shape));
    return plan_small();
}

/* Whatever the sizes, a plan is made with a workspace that was computed without overflow, or
 * refused. */
static void huge_sizes(void **state)
{
    const int64_t T = INT64_C(1) << 40;
    static const int64_t some[] = {
        0, 1, 3, 4096, INT32_MAX, INT64_C(1) << 31, INT64_C(1) << 40, INT64_C(1) << 62, INT64_MAX};
    enum { SOME = sizeof(some) / sizeof(some[0]) };
    (void)state;
    expect_fails(plan_sizes(T, T, 1, 1, 16), HEED_ERROR_SHAPE, "q.shape");
    expect_fails(plan_sizes(1, T, T, 1, 16), HEED_ERROR_SHAPE, "q.shape[1]=");
    expect_fails(plan_sizes(1, 1, T, 1, 16), HEED_ERROR_SHAPE, "k.shape[1]=");
    expect_fails(plan_sizes(INT64_MAX, 1, 1, 1, 1), HEED_ERROR_SHAPE, "too many elements");
    expect_fails(plan_sizes(INT64_MAX, 0, 0, 2, 64), HEED_ERROR_SHAPE, "too many elements");
    for (int i = 0; i < SOME * SOME * SOME; i++) {
        heed_status_t status =
            plan_sizes(some[i % SOME], 5, some[i / SOME % SOME], some[i / SOME / SOME], 64);
        assert_true(status == HEED_OK || status == HEED_ERROR_SHAPE ||
                    status == HEED_ERROR_UNSUPPORTED);
    }
}

/* 2^40 batch entries: too much work for anyone, but no reason to refuse to plan it. */
static void a_large_plan_has_large_numbers(void **state)
{
    heed_plan_t *plan = NULL;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    size_t bytes, align;
    (void)state;
    expect_ok(plan_sizes(INT64_C(1) << 40, 5, 7, 4, 64));
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    expect_ok(heed_plan_info(plan, &info));
    assert_true(info.flops == 2.0 * 0x1p40 * 5 * 7 * 4 * 128);
    expect_ok(heed_plan_workspace(plan, &bytes, &align));
    assert_int_equal(bytes, info.workspace_bytes);
    assert_true(bytes < (size_t)1 << 40);
    heed_plan_destroy(plan);
}

static void nothing_to_do(void **state)
{
    void *none[HEED_ATTENTION_OPERANDS] = {NULL};
    heed_plan_t *plan = NULL;
    (void)state;
    expect_ok(plan_sizes(0, 5, 7, 2, 16));
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    small.desc.q.data = small.desc.k.data = small.desc.v.data = small.desc.out.data = NULL;
    small.desc.lse.data = NULL;
    expect_ok(heed_attention(context, &small.desc));
    size_t bytes, align;
    expect_ok(heed_plan_workspace(plan, &bytes, &align));
    if (bytes == 0)
        expect_ok(heed_plan_execute(plan, none, HEED_ATTENTION_OPERANDS, NULL, 0, NULL));
    heed_plan_destroy(plan);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(null_pointers),
        TEST(shapes_that_do_not_match),
        TEST(dtypes_that_do_not_match),
        TEST(strides_of_outputs),
        TEST(parameters),
        TEST(descriptor_sizes),
        TEST(tile_lists),
        TEST(huge_sizes),
        TEST(a_large_plan_has_large_numbers),
        TEST(nothing_to_do),
    };
    return cmocka_run_group_tests_name("descriptors", tests, NULL, NULL);
}
