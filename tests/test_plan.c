/* Plans: what a wrong descriptor is told, what executing refuses, and what a plan tells. */
#define _GNU_SOURCE
#include "expect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static heed_context_t *context;
static small_t small;

static int set_up(void **state)
{
    (void)state;
    small_init(&small);
    context = expect_context(NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    heed_context_destroy(context);
    return 0;
}

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

/* ---- executing ------------------------------------------------------------------------------- */

typedef struct ready {
    heed_plan_t *plan;
    size_t bytes;
    char *workspace;
} ready_t;

static ready_t get_ready(const char *impl)
{
    ready_t ready = {0};
    size_t align;
    heed_context_destroy(context);
    context = expect_context(impl);
    expect_ok(heed_attention_plan(context, &small.desc, &ready.plan));
    expect_ok(heed_plan_workspace(ready.plan, &ready.bytes, &align));
    assert_int_equal(align & (align - 1), 0);
    ready.workspace = aligned_alloc(align, (ready.bytes + 2 * align) / align * align);
    assert_non_null(ready.workspace);
    return ready;
}

static heed_status_t execute(const ready_t *ready, int count)
{
    return heed_plan_execute(ready->plan, small.buffers, count, ready->workspace, ready->bytes,
                             NULL);
}

static void end_ready(ready_t *ready)
{
    heed_plan_destroy(ready->plan);
    free(ready->workspace);
}

static void execute_checks_its_operands(void **state)
{
    ready_t ready = get_ready(NULL);
    (void)state;
    expect_ok(execute(&ready, HEED_ATTENTION_OPERANDS));
    expect_fails(execute(&ready, 4), HEED_ERROR_VALUE, "buffer_count=4");
    expect_fails(execute(&ready, HEED_ATTENTION_OPERANDS + 1), HEED_ERROR_VALUE,
                 "buffer_count=16: this plan has 5 operands, attention at most 15");
    expect_fails(execute(&ready, -1), HEED_ERROR_VALUE, "buffer_count=-1");
    small.buffers[HEED_ATTENTION_K] = NULL;
    expect_fails(execute(&ready, 5), HEED_ERROR_NULL, "k, is null");
    small.buffers[HEED_ATTENTION_K] = (char *)small.k + 1;
    expect_fails(execute(&ready, 5), HEED_ERROR_ALIGNMENT, "k at");
    expect_fails(heed_plan_execute(NULL, small.buffers, 5, NULL, 0, NULL), HEED_ERROR_NULL, "plan");
    expect_fails(heed_plan_execute(ready.plan, NULL, 5, NULL, 0, NULL), HEED_ERROR_NULL, "buffers");
    end_ready(&ready);
}

static void absent_operands(void **state)
{
    (void)state;
    small.desc.lse.ndim = 0;
    ready_t ready = get_ready(NULL);
    expect_fails(execute(&ready, 5), HEED_ERROR_VALUE, "no lse");
    small.buffers[HEED_ATTENTION_LSE] = NULL;
    expect_ok(execute(&ready, 5));
    expect_ok(execute(&ready, 4));
    end_ready(&ready);
}

static void execute_checks_its_workspace(void **state)
{
    ready_t ready = get_ready("attention=cpu:standard");
    (void)state;
    assert_true(ready.bytes > 1);
    expect_ok(execute(&ready, 5));
    expect_fails(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes - 1, NULL),
        HEED_ERROR_WORKSPACE, "workspace_bytes=");
    expect_fails(heed_plan_execute(ready.plan, small.buffers, 5, NULL, ready.bytes, NULL),
                 HEED_ERROR_WORKSPACE, "workspace_bytes=0");
    expect_fails(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace + 8, ready.bytes, NULL),
        HEED_ERROR_WORKSPACE, "aligned");
    expect_ok(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes + 8, NULL));
    end_ready(&ready);
}

static void streams(void **state)
{
    ready_t ready = get_ready(NULL);
    heed_stream_t stream = {{HEED_DEVICE_CPU, 0}, NULL};
    (void)state;
    expect_ok(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes, &stream));
    stream.native = &stream;
    expect_fails(
        heed_plan_execute(ready.plan, small.buffers, 5, ready.workspace, ready.bytes, &stream),
        HEED_ERROR_VALUE, "stream");
    end_ready(&ready);
}

/* The caller's descriptor and shapes may go once the plan is made. */
static void plans_keep_their_own_descriptor(void **state)
{
    small_t other;
    ready_t ready = get_ready(NULL);
    (void)state;
    expect_ok(execute(&ready, 5));
    small_init(&other);
    memcpy(other.out, small.out, sizeof(small.out));
    memset(&small.desc, 0xee, sizeof(small.desc));
    memset(small.shapes, 0xee, sizeof(small.shapes));
    memset(small.out, 0, sizeof(small.out));
    expect_ok(execute(&ready, 5));
    assert_memory_equal(small.out, other.out, sizeof(small.out));
    end_ready(&ready);
}

/* ---- what a plan says ------------------------------------------------------------------------ */

static void infos(void **state)
{
    ready_t ready = get_ready("attention=cpu:flash_scalar");
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    size_t bytes, align;
    (void)state;
    expect_ok(heed_plan_info(ready.plan, &info));
    assert_string_equal(info.op, "attention");
    assert_string_equal(info.impl, "cpu:flash_scalar");
    assert_int_equal(info.threads, 2);
    assert_int_equal(info.device.type, HEED_DEVICE_CPU);
    assert_int_equal(info.workspace_bytes, ready.bytes);
    assert_true(info.flops == 2.0 * 2 * 4 * 5 * 7 * (16 + 8));
    info.struct_size = 12;
    expect_fails(heed_plan_info(ready.plan, &info), HEED_ERROR_STRUCT_SIZE, "struct_size=12");
    expect_fails(heed_plan_info(ready.plan, NULL), HEED_ERROR_NULL, "info");
    expect_fails(heed_plan_info(NULL, &info), HEED_ERROR_NULL, "plan");
    expect_fails(heed_plan_workspace(NULL, &bytes, &align), HEED_ERROR_NULL, "plan");
    expect_fails(heed_plan_workspace(ready.plan, NULL, &align), HEED_ERROR_NULL, "bytes");
    expect_fails(heed_plan_workspace(ready.plan, &bytes, NULL), HEED_ERROR_NULL, "alignment");
    end_ready(&ready);
}

/* Masked pairs are no work. */
static void useful_flops(void **state)
{
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    heed_plan_t *plan = NULL;
    (void)state;
    small.desc.causal = 1; /* 5 queries on 7 keys: 3 + 4 + 5 + 6 + 7 pairs a head */
    expect_ok(heed_attention_plan(context, &small.desc, &plan));
    expect_ok(heed_plan_info(plan, &info));
    assert_true(info.flops == 2.0 * 2 * 4 * 25 * (16 + 8));
    heed_plan_destroy(plan);
}

static void verdicts(void **state)
{
    heed_verdict_t verdict;
    int chosen = 0, count = 0, seen = 0;
    ready_t ready = get_ready("attention=cpu:flash_scalar");
    (void)state;
    const heed_impl_t *impl;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++)
        count += strcmp(impl->op, "attention") == 0;
    for (; heed_plan_verdict(ready.plan, seen, &verdict); seen++) {
        assert_non_null(verdict.impl);
        assert_non_null(verdict.why);
        chosen += verdict.chosen;
        if (verdict.chosen)
            assert_string_equal(verdict.impl, "cpu:flash_scalar");
        if (verdict.status != HEED_OK) {
            assert_true(verdict.why[0]);
            assert_false(verdict.chosen);
        }
        if (strcmp(verdict.impl, "cpu:standard") == 0)
            assert_non_null(strstr(verdict.why, "HEED_IMPL"));
    }
    assert_int_equal(seen, count);
    assert_int_equal(chosen, 1);
    assert_false(heed_plan_verdict(ready.plan, -1, &verdict));
    assert_false(heed_plan_verdict(ready.plan, 0, NULL));
    assert_false(heed_plan_verdict(NULL, 0, &verdict));
    end_ready(&ready);
}

static void problem_strings(void **state)
{
    char text[512], cut[20];
    ready_t ready = get_ready(NULL);
    (void)state;
    size_t length = heed_plan_problem(ready.plan, text, sizeof(text));
    assert_int_equal(length, strlen(text));
    assert_string_equal(text, "attention dtype=f32 b=2 sq=5 sk=7 hq=4 hk=2 d=16 dv=8 causal=0 "
                              "window=-1,-1 lse=1 layout=bshd");
    assert_int_equal(heed_plan_problem(ready.plan, cut, sizeof(cut)), length);
    assert_memory_equal(cut, "attention dtype=f32", 20);
    assert_int_equal(heed_plan_problem(ready.plan, NULL, 0), length);
    end_ready(&ready);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static heed_status_t impl_with(const heed_context_config_t *config, char *name)
{
    heed_context_t *made = NULL;
    heed_plan_t *plan = NULL;
    heed_plan_info_t info = {.struct_size = sizeof(info)};
    expect_ok(heed_context_create(config, &made));
    heed_status_t status = heed_attention_plan(made, &small.desc, &plan);
    if (status == HEED_OK) {
        expect_ok(heed_plan_info(plan, &info));
        strcpy(name, info.impl);
    }
    heed_plan_destroy(plan);
    heed_context_destroy(made);
    return status;
}

static void forced_and_skipped(void **state)
{
    char name[64];
    heed_context_config_t config = heed_context_config();
    (void)state;
    config.ignore_environment = 1;
    config.impl = "cpu:standard";
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:standard");
    config.impl = "cpu:flash_sc*";
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:flash_scalar");
    config.impl = NULL;
    config.skip_impl = "cpu:flash_*,cpu:short_*,cpu:decode_*";
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:standard");
#if defined(__aarch64__)
    config.skip_impl = "attention=cpu:flash_n*,cpu:short_*,cpu:decode_*,attention=cpu:standard";
#elif defined(__x86_64__)
    config.skip_impl = "attention=cpu:flash_a*,cpu:short_*,cpu:decode_*,attention=cpu:standard";
#else
    config.skip_impl = "cpu:short_*,cpu:decode_*,attention=cpu:standard";
#endif
    expect_ok(impl_with(&config, name));
    assert_string_equal(name, "cpu:flash_scalar");
    config.skip_impl = "*";
    expect_fails(impl_with(&config, name), HEED_ERROR_UNSUPPORTED, "HEED_SKIP_IMPL");
    config.skip_impl = NULL;
    config.impl = "cpu:flash_scalr";
    expect_fails(impl_with(&config, name), HEED_ERROR_UNKNOWN_IMPL, "cpu:flash_scalar");
    config.impl = "cast=cpu:standard"; /* says nothing of attention */
    expect_ok(impl_with(&config, name));
    assert_string_not_equal(name, "cpu:standard");
}

static void capped_instruction_sets(void **state)
{
    char name[64];
    heed_context_config_t config = heed_context_config();
    (void)state;
    config.ignore_environment = 1;
    config.max_cpu_isa = "scalar";
    config.skip_impl = "cpu:short_*";
    expect_ok(impl_with(&config, name));
    assert_non_null(strstr(name, "_scalar"));
    config.impl = "cpu:flash_avx2";
    heed_status_t status = impl_with(&config, name);
#if defined(__x86_64__)
    expect_fails(status, HEED_ERROR_UNSUPPORTED, "avx2");
#else
    expect_fails(status, HEED_ERROR_UNKNOWN_IMPL, "cpu:flash_avx2");
#endif
}

/* A problem that the only allowed implementation does not do. */
static void unsupported_combinations(void **state)
{
#if defined(__x86_64__)
    char name[64];
    heed_context_config_t config = heed_context_config();
    config.ignore_environment = 1;
    config.impl = "cpu:flash_avx512bf16";
    expect_fails(impl_with(&config, name), HEED_ERROR_UNSUPPORTED, "cpu:flash_avx512bf16: ");
#else
    skip();
#endif
    (void)state;
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
        TEST(execute_checks_its_operands),
        TEST(absent_operands),
        TEST(execute_checks_its_workspace),
        TEST(streams),
        TEST(plans_keep_their_own_descriptor),
        TEST(infos),
        TEST(useful_flops),
        TEST(verdicts),
        TEST(problem_strings),
        TEST(forced_and_skipped),
        TEST(capped_instruction_sets),
        TEST(unsupported_combinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
