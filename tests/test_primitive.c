/* Three proofs that the primitive has the right shape, for every usable implementation: keys split
 * in any three parts and merged give the single pass; a block-diagonal tile list equals a loop over
 * the blocks; a second, tiny operation goes through the same calls. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 2, SQ = 37, SK = 150, H = 4, HK = 2, D = 24, DV = 40 };

typedef struct buffers {
    float q[B * SQ * H * D], k[B * SK * HK * D], v[B * SK * HK * DV];
    float out[B * SQ * H * DV], lse[B * H * SQ];
} buffers_t;

static buffers_t whole, part;
static double merged_out[B * SQ * H * DV], merged_lse[B * H * SQ];

static void fill(buffers_t *to, uint64_t seed)
{
    kit_random_t random = {seed};
    for (size_t i = 0; i < sizeof(to->q) / sizeof(float); i++)
        to->q[i] = (float)kit_random_normal(&random);
    for (size_t i = 0; i < sizeof(to->k) / sizeof(float); i++)
        to->k[i] = (float)kit_random_normal(&random);
    for (size_t i = 0; i < sizeof(to->v) / sizeof(float); i++)
        to->v[i] = (float)kit_random_normal(&random);
}

static int64_t q_shape[4], k_shape[4], v_shape[4], out_shape[4], lse_shape[3];
static int64_t k_strides[4] = {SK * HK * D, HK *D, D, 1};
static int64_t v_strides[4] = {SK * HK * DV, HK *DV, DV, 1};

/* Attention of all queries on the keys first .. first+count-1, into `to`. */
static heed_attention_desc_t describe(buffers_t *to, int64_t first, int64_t count)
{
    memcpy(q_shape, (int64_t[]){B, SQ, H, D}, sizeof(q_shape));
    memcpy(k_shape, (int64_t[]){B, count, HK, D}, sizeof(k_shape));
    memcpy(v_shape, (int64_t[]){B, count, HK, DV}, sizeof(v_shape));
    memcpy(out_shape, (int64_t[]){B, SQ, H, DV}, sizeof(out_shape));
    memcpy(lse_shape, (int64_t[]){B, H, SQ}, sizeof(lse_shape));
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = heed_tensor(whole.q, HEED_F32, 4, q_shape, NULL);
    desc.k = heed_tensor(whole.k + first * HK * D, HEED_F32, 4, k_shape, k_strides);
    desc.v = heed_tensor(whole.v + first * HK * DV, HEED_F32, 4, v_shape, v_strides);
    desc.out = heed_tensor(to->out, HEED_F32, 4, out_shape, NULL);
    desc.lse = heed_tensor(to->lse, HEED_F32, 3, lse_shape, NULL);
    return desc;
}

/* Same numbers up to rounding: both sides compute in f32, with sums in another order. */
static void assert_near(const char *what, const float *got, const float *want, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double err = fabs((double)got[i] - (double)want[i]);
        if (got[i] == want[i] || err <= 2e-5 * (1 + fabs((double)want[i])))
            continue;
        print_error("%s[%zu] = %.9g, should be %.9g\n", what, i, (double)got[i], (double)want[i]);
        fail();
    }
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void assert_whole(const buffers_t *got)
{
    assert_near("out", got->out, whole.out, COUNT(whole.out));
    assert_near("lse", got->lse, whole.lse, COUNT(whole.lse));
}

/* ---- for each implementation ----------------------------------------------------------------- */

/* Calls `prove` with a context that has no other implementation of `op`. Returns how many. */
static int for_each(const char *op, uint64_t features, void (*prove)(heed_context_t *context))
{
    heed_context_t *all = expect_context(NULL);
    const heed_impl_t *impl;
    int count = 0;
    for (int i = 0; (impl = heed_impl_at(all, i)); i++) {
        char only[128];
        if (strcmp(impl->op, op) != 0 || features & ~impl->features ||
            strcmp(impl->name, "cpu:dense") == 0 || /* it only stands in for tile lists */
            !heed_impl_usable(all, impl, NULL))
            continue;
        snprintf(only, sizeof(only), "%s=%s", op, impl->name);
        heed_context_t *context = expect_context(only);
        prove(context);
        heed_context_destroy(context);
        count++;
    }
    heed_context_destroy(all);
    return count;
}

enum {
    NEEDS = HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_GROUPED | HEED_ATTENTION_CAN_LSE |
            HEED_ATTENTION_CAN_ODD_DIM | HEED_ATTENTION_CAN_DV
};

/* ---- three parts ----------------------------------------------------------------------------- */

static const int64_t cuts[][2] = {{50, 100}, {1, 149},   {0, 64}, {64, 128},
                                  {75, 75},  {150, 150}, {0, 0},  {33, 97}};

static void merge_in_place(heed_context_t *context)
{
    heed_attention_desc_t desc = describe(&whole, 0, SK);
    expect_ok(heed_attention(context, &desc));
    for (size_t c = 0; c < COUNT(cuts); c++) {
        const int64_t edges[4] = {0, cuts[c][0], cuts[c][1], SK};
        memset(&part, 0xff, sizeof(part));
        for (int p = 0; p < 3; p++) {
            desc = describe(&part, edges[p], edges[p + 1] - edges[p]);
            desc.merge = p > 0;
            expect_ok(heed_attention(context, &desc));
        }
        assert_whole(&part);
    }
}

static void parts_merged_in_place(void **state)
{
    (void)state;
    fill(&whole, 1);
    assert_true(for_each("attention", NEEDS | HEED_ATTENTION_CAN_MERGE, merge_in_place) >= 2);
}

/* The same from outside: states are plain numbers that anyone may merge. */
static void merge_here(void)
{
    for (size_t r = 0; r < COUNT(merged_lse); r++) {
        size_t b = r / (H * SQ), h = r / SQ % H, i = r % SQ;
        double x = merged_lse[r], y = (double)part.lse[r], top = fmax(x, y);
        double weight_x = top == -INFINITY ? 0 : exp(x - top);
        double weight_y = top == -INFINITY ? 0 : exp(y - top);
        double *to = merged_out + ((b * SQ + i) * H + h) * DV;
        const float *from = part.out + ((b * SQ + i) * H + h) * DV;
        if (top == -INFINITY)
            continue;
        merged_lse[r] = top + log(weight_x + weight_y);
        for (int d = 0; d < DV; d++)
            to[d] = (weight_x * to[d] + weight_y * (double)from[d]) / (weight_x + weight_y);
    }
}

static void merge_outside(heed_context_t *context)
{
    heed_attention_desc_t desc = describe(&whole, 0, SK);
    heed_status_t status = heed_attention(context, &desc);
    if (status == HEED_ERROR_UNSUPPORTED && strstr(heed_last_error(), "takes up to 128 keys"))
        return; /* made for fewer keys than these */
    expect_ok(status);
    for (size_t c = 0; c < COUNT(cuts); c++) {
        const int64_t edges[4] = {0, cuts[c][0], cuts[c][1], SK};
        memset(merged_out, 0, sizeof(merged_out));
        for (size_t r = 0; r < COUNT(merged_lse); r++)
            merged_lse[r] = -INFINITY;
        for (int p = 2; p >= 0; p--) { /* the order does not matter */
            desc = describe(&part, edges[p], edges[p + 1] - edges[p]);
            expect_ok(heed_attention(context, &desc));
            merge_here();
        }
        for (size_t i = 0; i < COUNT(merged_out); i++)
            part.out[i] = (float)merged_out[i];
        for (size_t i = 0; i < COUNT(merged_lse); i++)
            part.lse[i] = (float)merged_lse[i];
        assert_whole(&part);
    }
}

static void parts_merged_outside(void **state)
{
    (void)state;
    fill(&whole, 2);
    assert_true(for_each("attention", NEEDS, merge_outside) >= 2);
}

/* A part may be any set of keys: here every third, by strides, and windows of a causal row. */
static void merge_thirds(heed_context_t *context)
{
    int64_t k_third[4] = {SK * HK * D, 3 * HK * D, D, 1};
    int64_t v_third[4] = {SK * HK * DV, 3 * HK * DV, DV, 1};
    heed_attention_desc_t desc = describe(&whole, 0, SK);
    expect_ok(heed_attention(context, &desc));
    for (int p = 0; p < 3; p++) {
        desc = describe(&part, p, SK / 3);
        desc.k.strides = k_third;
        desc.v.strides = v_third;
        desc.merge = p > 0;
        expect_ok(heed_attention(context, &desc));
    }
    assert_whole(&part);
}

static void parts_by_stride(void **state)
{
    (void)state;
    fill(&whole, 3);
    assert_true(for_each("attention", NEEDS | HEED_ATTENTION_CAN_MERGE, merge_thirds) >= 2);
}

/* Causal rows are the near keys by a window, and the far ones by a causal part that ends earlier.
 */
static void merge_near_and_far(heed_context_t *context)
{
    const int64_t near = 20;
    heed_attention_desc_t desc = describe(&whole, 0, SK);
    desc.causal = 1;
    expect_ok(heed_attention(context, &desc));
    desc = describe(&part, 0, SK);
    desc.causal = 1;
    desc.window_left = near - 1;
    expect_ok(heed_attention(context, &desc));
    desc = describe(&part, 0, SK - near); /* bottom right: each row ends `near` keys earlier */
    desc.causal = 1;
    desc.merge = 1;
    expect_ok(heed_attention(context, &desc));
    assert_whole(&part);
}

static void windows_are_parts_too(void **state)
{
    uint64_t needs =
        NEEDS | HEED_ATTENTION_CAN_MERGE | HEED_ATTENTION_CAN_CAUSAL | HEED_ATTENTION_CAN_WINDOW;
    (void)state;
    fill(&whole, 4);
    assert_true(for_each("attention", needs, merge_near_and_far) >= 2);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

enum { BLOCK = 64, BLOCKS = 3, S = BLOCK * BLOCKS - 20 };

static float square_q[S * D], square_k[S * D], square_v[S * D];
static float square_out[S * D], block_out[S * D], square_lse[S], block_lse[S];

static int64_t square_shape[4] = {1, S, 1, D}, square_lse_shape[3] = {1, 1, S};

static heed_attention_desc_t describe_rows(int64_t first, int64_t count)
{
    static int64_t shape[4], lse[3];
    heed_attention_desc_t desc = heed_attention_desc();
    memcpy(shape, (int64_t[]){1, count, 1, D}, sizeof(shape));
    memcpy(lse, (int64_t[]){1, 1, count}, sizeof(lse));
    desc.q = heed_tensor(square_q + first * D, HEED_F32, 4, shape, NULL);
    desc.k = heed_tensor(square_k + first * D, HEED_F32, 4, shape, NULL);
    desc.v = heed_tensor(square_v + first * D, HEED_F32, 4, shape, NULL);
    desc.out = heed_tensor(block_out + first * D, HEED_F32, 4, shape, NULL);
    desc.lse = heed_tensor(block_lse + first, HEED_F32, 3, lse, NULL);
    return desc;
}

static heed_attention_desc_t describe_tiles(const heed_tile_list_t *tiles)
{
    heed_attention_desc_t desc = describe_rows(0, S);
    desc.out = heed_tensor(square_out, HEED_F32, 4, square_shape, NULL);
    desc.lse = heed_tensor(square_lse, HEED_F32, 3, square_lse_shape, NULL);
    desc.tiles = tiles;
    return desc;
}

static void loop_over_blocks(heed_context_t *context, int64_t size, int causal)
{
    for (int64_t first = 0; first < S; first += size) {
        heed_attention_desc_t desc = describe_rows(first, size < S - first ? size : S - first);
        desc.causal = causal;
        expect_ok(heed_attention(context, &desc));
    }
}

static void assert_blocks(void)
{
    assert_near("out", square_out, block_out, COUNT(block_out));
    assert_near("lse", square_lse, block_lse, COUNT(block_lse));
}

/* Blocks of whole tiles: every tile of the list is full, none has bits. */
static void full_tiles(heed_context_t *context)
{
    const int64_t row_start[BLOCKS + 1] = {0, 1, 2, 3};
    const int32_t column[BLOCKS] = {0, 1, 2};
    const heed_tile_list_t tiles = {.struct_size = sizeof(tiles),
                                    .tile_q = BLOCK,
                                    .tile_k = BLOCK,
                                    .batches = 1,
                                    .heads = 1,
                                    .rows = BLOCKS,
                                    .row_start = row_start,
                                    .column = column};
    for (int causal = 0; causal < 2; causal++) {
        heed_attention_desc_t desc = describe_tiles(&tiles);
        desc.causal = causal;
        expect_ok(heed_attention(context, &desc));
        loop_over_blocks(context, BLOCK, causal);
        assert_blocks();
    }
}

/* Blocks of any size: tiles with bits, made by the library from a problem's words. */
static void masked_tiles(heed_context_t *context)
{
    static const int sizes[] = {1, 17, 50, 64, 100, 128, 500};
    for (size_t i = 0; i < 4 * COUNT(sizes); i++) {
        char text[160];
        heed_problem_t *problem = NULL;
        void *made;
        int size = sizes[i / 4];
        snprintf(text, sizeof(text), "attention sq=%d sk=%d hq=1 d=%d tiles=blockdiag:%d,%d,%d",
                 (int)S, (int)S, (int)D, size, i & 1 ? 128 : 64, i & 2 ? 128 : 64);
        expect_ok(heed_problem_parse(text, &problem));
        expect_ok(heed_problem_desc(problem, &made));
        heed_attention_desc_t desc = describe_tiles(((const heed_attention_desc_t *)made)->tiles);
        assert_non_null(desc.tiles);
        expect_ok(heed_attention(context, &desc));
        loop_over_blocks(context, size, 0);
        assert_blocks();
        heed_problem_destroy(problem);
    }
}

static void blocks_by_a_tile_list(void **state)
{
    uint64_t needs = HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_LSE | HEED_ATTENTION_CAN_TILES |
                     HEED_ATTENTION_CAN_ODD_DIM | HEED_ATTENTION_CAN_CAUSAL;
    kit_random_t random = {5};
    (void)state;
    for (int i = 0; i < S * D; i++) {
        square_q[i] = (float)kit_random_normal(&random);
        square_k[i] = (float)kit_random_normal(&random);
        square_v[i] = (float)kit_random_normal(&random);
    }
    assert_true(for_each("attention", needs, full_tiles) >= 2);
    assert_true(for_each("attention", needs, masked_tiles) >= 2);
}

/* ---- another operation ----------------------------------------------------------------------- */

/* heed_cast through descriptor, plan, workspace and execute, with nothing of its own. */
static void cast_both_ways(heed_context_t *context)
{
    enum { ROWS = 3, COLUMNS = 37 };
    static const heed_dtype_t dtypes[] = {HEED_BF16, HEED_F16};
    float from[ROWS * COLUMNS], back[ROWS * COLUMNS];
    uint16_t half[ROWS * COLUMNS], want[ROWS * COLUMNS];
    kit_random_t random = {6};
    for (int i = 0; i < ROWS * COLUMNS; i++)
        from[i] = (float)kit_random_normal(&random);
    for (size_t t = 0; t < COUNT(dtypes); t++) {
        heed_plan_t *plan = NULL;
        size_t bytes, align;
        heed_cast_desc_t desc = heed_cast_desc();
        desc.src = HEED_TENSOR(from, HEED_F32, ROWS, COLUMNS);
        desc.dst = HEED_TENSOR(half, dtypes[t], ROWS, COLUMNS);
        expect_ok(heed_plan_create(context, "cast", &desc, &plan));
        expect_ok(heed_plan_workspace(plan, &bytes, &align));
        void *workspace = bytes ? aligned_alloc(align, (bytes + align) / align * align) : NULL;
        void *const buffers[HEED_CAST_OPERANDS] = {from, half};
        expect_ok(heed_plan_execute(plan, buffers, HEED_CAST_OPERANDS, workspace, bytes, NULL));
        free(workspace);
        heed_plan_destroy(plan);
        for (int i = 0; i < ROWS * COLUMNS; i++)
            kit_store(dtypes[t], want, i, (double)from[i]);
        assert_memory_equal(half, want, sizeof(want));

        desc.src = desc.dst;
        desc.dst = HEED_TENSOR(back, HEED_F32, ROWS, COLUMNS);
        expect_ok(heed_cast(context, &desc));
        for (int i = 0; i < ROWS * COLUMNS; i++)
            assert_true((double)back[i] == kit_load(dtypes[t], want, i));
    }
}

static void casts_take_the_same_way(void **state)
{
    uint64_t needs = HEED_CAST_CAN_F32 | HEED_CAST_CAN_BF16 | HEED_CAST_CAN_F16;
    (void)state;
    assert_true(for_each("cast", needs, cast_both_ways) >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_merged_in_place), cmocka_unit_test(parts_merged_outside),
        cmocka_unit_test(parts_by_stride),       cmocka_unit_test(windows_are_parts_too),
        cmocka_unit_test(blocks_by_a_tile_list), cmocka_unit_test(casts_take_the_same_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
