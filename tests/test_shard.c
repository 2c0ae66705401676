/* What ranks of tensor and data parallelism have: products of their parts give the whole product,
 * rows of fused weights come together again, volumes are as published; meshes. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdlib.h>

/* ---- one weight ------------------------------------------------------------------------------ */

enum { MOST = 24 };

typedef struct linear {
    int out, in;
    double w[MOST][MOST], b[MOST], x[MOST], dy[MOST];
} linear_t;

static void draw(kit_random_t *random, linear_t *linear)
{
    linear->out = (int)kit_random_int(random, 1, MOST);
    linear->in = (int)kit_random_int(random, 1, MOST);
    for (int i = 0; i < MOST; i++) {
        for (int j = 0; j < MOST; j++)
            linear->w[i][j] = (double)kit_random_int(random, -9, 9);
        linear->b[i] = (double)kit_random_int(random, -9, 9);
        linear->x[i] = (double)kit_random_int(random, -9, 9);
        linear->dy[i] = (double)kit_random_int(random, -9, 9);
    }
}

/* Adds what a rank makes of its part: y forward, dx backward. */
static void add_rank(const linear_t *linear, const heed_linear_slice_t *slice, double *y,
                     double *dx)
{
    for (int64_t i = slice->out.first; i < slice->out.first + slice->out.count; i++)
        for (int64_t j = slice->in.first; j < slice->in.first + slice->in.count; j++) {
            y[i] += linear->w[i][j] * linear->x[j];
            dx[j] += linear->w[i][j] * linear->dy[i];
        }
    for (int64_t i = slice->bias.first;
         !slice->bias_after && i < slice->bias.first + slice->bias.count; i++)
        y[i] += linear->b[i];
}

static void expect_linear(const linear_t *linear, heed_linear_kind_t kind, int ranks,
                          heed_split_policy_t policy)
{
    double y[MOST] = {0}, dx[MOST] = {0}, whole_y[MOST] = {0}, whole_dx[MOST] = {0};
    heed_linear_slice_t slice = {0}, whole;
    for (int rank = 0; rank < ranks; rank++) {
        expect_ok(
            heed_linear_slice(kind, linear->out, linear->in, ranks, rank, policy, 1, 0, &slice));
        add_rank(linear, &slice, y, dx);
    }
    for (int64_t i = 0; slice.bias_after && i < slice.bias.count;
         i++) /* once, on what was summed */
        y[slice.bias.first + i] += linear->b[slice.bias.first + i];
    expect_ok(heed_linear_slice(HEED_LINEAR_COLUMN, linear->out, linear->in, 1, 0, HEED_SPLIT_EQUAL,
                                1, 0, &whole));
    add_rank(linear, &whole, whole_y, whole_dx);
    assert_memory_equal(y, whole_y, sizeof(y));
    assert_memory_equal(dx, whole_dx, sizeof(dx));
}

static void test_linear(void **state)
{
    static linear_t linear;
    kit_random_t random = {4};
    (void)state;
    for (int round = 0; round < 500; round++) {
        draw(&random, &linear);
        heed_linear_kind_t kind = round % 2 ? HEED_LINEAR_ROW : HEED_LINEAR_COLUMN;
        int n = kind == HEED_LINEAR_COLUMN ? linear.out : linear.in;
        int ranks = (int)kit_random_int(&random, 1, n);
        expect_linear(&linear, kind, ranks, HEED_SPLIT_BALANCED);
        expect_linear(&linear, kind, ranks, HEED_SPLIT_CEIL);
        if (n % ranks == 0)
            expect_linear(&linear, kind, ranks, HEED_SPLIT_EQUAL);
    }
}

static void test_collectives(void **state)
{
    static const struct {
        heed_linear_kind_t kind;
        int ranks, sequence_parallel;
        heed_collective_t x, y, dy, dx;
    } wanted[] = {
        {HEED_LINEAR_COLUMN, 4, 0, 0, 0, 0, HEED_COLLECTIVE_ALL_REDUCE},
        {HEED_LINEAR_ROW, 4, 0, 0, HEED_COLLECTIVE_ALL_REDUCE, 0, 0},
        {HEED_LINEAR_COLUMN, 4, 1, HEED_COLLECTIVE_ALL_GATHER, 0, 0,
         HEED_COLLECTIVE_REDUCE_SCATTER},
        {HEED_LINEAR_ROW, 4, 1, 0, HEED_COLLECTIVE_REDUCE_SCATTER, HEED_COLLECTIVE_ALL_GATHER, 0},
        {HEED_LINEAR_COLUMN, 1, 1, 0, 0, 0, 0},
        {HEED_LINEAR_ROW, 1, 0, 0, 0, 0, 0},
    };
    heed_linear_slice_t slice;
    (void)state;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        expect_ok(heed_linear_slice(wanted[i].kind, 8, 8, wanted[i].ranks, 0, HEED_SPLIT_EQUAL, 1,
                                    wanted[i].sequence_parallel, &slice));
        assert_int_equal(slice.x, wanted[i].x);
        assert_int_equal(slice.y, wanted[i].y);
        assert_int_equal(slice.dy, wanted[i].dy);
        assert_int_equal(slice.dx, wanted[i].dx);
    }
    assert_true(heed_collective_bytes(HEED_COLLECTIVE_ALL_REDUCE, 4, 1000) == 1500);
    assert_true(heed_collective_bytes(HEED_COLLECTIVE_ALL_GATHER, 4, 1000) == 750);
    assert_true(heed_collective_bytes(HEED_COLLECTIVE_REDUCE_SCATTER, 4, 1000) == 750);
    assert_true(heed_collective_bytes(HEED_COLLECTIVE_ALL_TO_ALL, 4, 1000) == 750);
    assert_true(heed_collective_bytes(HEED_COLLECTIVE_ALL_REDUCE, 1, 1000) == 0);
    assert_true(heed_collective_bytes(HEED_COLLECTIVE_NONE, 4, 1000) == 0);
    assert_string_equal(heed_collective_name(HEED_COLLECTIVE_REDUCE_SCATTER), "reduce-scatter");
    assert_string_equal(heed_collective_name((heed_collective_t)5), "?");
}

/* ---- gates and vocabularies ------------------------------------------------------------------ */

/* Row i of the gate is i, row i of the up is 100 + i. */
static void test_gated(void **state)
{
    (void)state;
    for (int layout = 0; layout < 2; layout++)
        for (int hidden = 1; hidden <= 20; hidden++)
            for (int ranks = 1; ranks <= hidden; ranks++) {
                int seen[200] = {0};
                for (int rank = 0; rank < ranks; rank++) {
                    heed_range_t rows[2];
                    int32_t count, own[2] = {0, 0};
                    expect_ok(heed_gated_slice(hidden, (heed_fused_layout_t)layout, ranks, rank,
                                               HEED_SPLIT_BALANCED, 1, rows, &count));
                    assert_int_equal(count, layout || ranks == 1 ? 1 : 2);
                    for (int i = 0; i < count; i++)
                        for (int64_t r = rows[i].first; r < rows[i].first + rows[i].count; r++) {
                            int up = layout ? (int)(r % 2) : r >= hidden;
                            int feature = (int)(layout ? r / 2 : r % hidden);
                            seen[100 * up + feature]++;
                            own[up]++;
                            /* A gate meets its own up: the same rank has both. */
                            seen[100 * up + feature] += 1000 * rank;
                        }
                    assert_int_equal(own[0], own[1]);
                }
                for (int i = 0; i < hidden; i++) {
                    assert_int_equal(seen[i] % 1000, 1);
                    assert_int_equal(seen[i], seen[100 + i]);
                }
            }
}

static void test_vocab(void **state)
{
    heed_vocab_slice_t slice;
    (void)state;
    expect_ok(heed_vocab_slice(50257, 128, 8, 7, &slice)); /* GPT-2 in Megatron */
    assert_int_equal(slice.padded, 51200);
    assert_int_equal(slice.tokens.first, 44800);
    assert_int_equal(slice.tokens.count, 6400);
    assert_int_equal(slice.real, 5457);
    for (int tokens = 1; tokens <= 60; tokens++)
        for (int ranks = 1; ranks <= 6; ranks++) {
            int owners[60] = {0};
            for (int rank = 0; rank < ranks; rank++) {
                expect_ok(heed_vocab_slice(tokens, 4, ranks, rank, &slice));
                assert_int_equal(slice.padded % (4 * ranks), 0);
                assert_true(slice.padded >= tokens && slice.padded < tokens + 4 * ranks);
                assert_int_equal(slice.tokens.count, slice.padded / ranks);
                for (int token = 0; token < tokens; token++) {
                    int64_t row = heed_vocab_row(&slice, token);
                    assert_true(row < slice.tokens.count);
                    owners[token] += row >= 0 && row + slice.tokens.first == token;
                }
                assert_int_equal(heed_vocab_row(&slice, tokens), -1);
                assert_int_equal(heed_vocab_row(&slice, -1), -1);
            }
            for (int token = 0; token < tokens; token++)
                assert_int_equal(owners[token], 1);
        }
}

/* ---- a layer --------------------------------------------------------------------------------- */

static heed_layer_desc_t some_layer(int ranks)
{
    heed_layer_desc_t desc = heed_layer_desc();
    desc.ranks = ranks;
    desc.batch = 2;
    desc.sequence = 4096;
    desc.hidden = 4096;
    desc.heads = 32;
    desc.kv_heads = 8;
    desc.dim = 128;
    desc.ffn = 14336;
    desc.gated = 1;
    return desc;
}

static double sum_of(const heed_layer_plan_t *plan, int64_t *parameters)
{
    double flops = 0;
    *parameters = 0;
    for (int i = 0; i < HEED_LAYER_STEPS; i++) {
        *parameters += plan->steps[i].parameters;
        flops += plan->steps[i].flops;
    }
    return flops;
}

/* Llama 3 8B: 218112000 parameters a layer. Two all-reduces each way. */
static void test_layer(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 32; ranks *= 2)
        for (int way = 0; way < 4; way++) {
            heed_layer_desc_t desc = some_layer(ranks);
            heed_layer_plan_t plan;
            desc.sequence_parallel = way & 1;
            desc.layout = (heed_fused_layout_t)(way >> 1);
            int64_t parameters = 0, own, norms = 2 * 4096;
            double flops = 0, volume = 4.0 * (ranks - 1) / ranks * 2 * 4096 * 4096 * 2;
            for (int rank = 0; rank < ranks; rank++) {
                expect_ok(heed_layer_plan(&desc, rank, &plan));
                flops += sum_of(&plan, &own);
                assert_int_equal(own, plan.parameters);
                parameters += own - norms;
                assert_true(fabs(plan.forward_bytes - volume) < 1);
                assert_true(fabs(plan.backward_bytes - volume) < 1);
                assert_int_equal(plan.steps[1].gradient_ranks, ranks > 8 ? ranks / 8 : 1);
                assert_int_equal(plan.steps[0].gradient_ranks, way & 1 ? ranks : 1);
                int copies = plan.qkv.copies;
                double keys = 2.0 * (copies - 1) / copies * 2 * 128 * 4096 * 2;
                assert_true(plan.steps[1].gradient_bytes == keys);
                assert_true((plan.gradient_bytes > 0) == (ranks > 8 || (way & 1 && ranks > 1)));
            }
            int64_t copied = ranks > 8 ? (ranks / 8 - 1) * 2 * 8 * 128 * INT64_C(4096) : 0;
            assert_int_equal(parameters + norms, 218112000 + copied);
            /* Two for each parameter and token; 4 S hidden for the scores and what they weigh. */
            double products = 2.0 * 8192 * (218112000 - 8192 + (double)copied);
            assert_true(fabs(flops - (products + 4.0 * 8192 * 4096 * 4096)) < 1e-9 * flops);
        }
}

/* Steps fit each other: the rows of one are the columns of the next. */
static void test_layer_steps(void **state)
{
    static const char *const names[] = {"norm", "qkv", "attention", "out", "norm", "up", "down"};
    heed_layer_desc_t desc = some_layer(3);
    heed_layer_plan_t plan;
    (void)state;
    desc.policy = HEED_SPLIT_BALANCED;
    desc.gated = 0;
    desc.bias = 1;
    desc.sequence_parallel = 1;
    for (int rank = 0; rank < 3; rank++) {
        expect_ok(heed_layer_plan(&desc, rank, &plan));
        for (int i = 0; i < HEED_LAYER_STEPS; i++)
            assert_string_equal(plan.steps[i].name, names[i]);
        assert_int_equal(plan.steps[3].columns.count, plan.qkv.q_heads.count * 128);
        assert_int_equal(plan.steps[3].columns.first, plan.qkv.q_heads.first * 128);
        assert_memory_equal(&plan.steps[6].columns, &plan.steps[5].rows[0], sizeof(heed_range_t));
        assert_int_equal(plan.steps[6].parameters, 4096 * (plan.steps[6].columns.count + 1));
        assert_int_equal(plan.steps[6].gradient_ranks, 3); /* of the bias */
        assert_true(plan.steps[6].gradient_bytes == 4.0 / 3 * 4096 * 2);
    }
    assert_int_equal(plan.qkv.kv_heads.count, 2); /* 8 in 3: 3, 3, 2 */
}

static void test_layer_refused(void **state)
{
    heed_layer_plan_t plan;
    (void)state;
    struct {
        size_t field;
        int64_t value;
        bool narrow;
        const char *words;
    } bad[] = {
        {offsetof(heed_layer_desc_t, batch), 0, false, "desc.batch=0"},
        {offsetof(heed_layer_desc_t, sequence), -1, false, "desc.sequence=-1"},
        {offsetof(heed_layer_desc_t, hidden), 1 << 25, false, "desc.hidden=33554432"},
        {offsetof(heed_layer_desc_t, ffn), 0, false, "desc.ffn=0"},
        {offsetof(heed_layer_desc_t, ffn), 9, false, "desc.ffn=9 does not divide into parts=8"},
        {offsetof(heed_layer_desc_t, heads), 0, false, "heads=0"},
        {offsetof(heed_layer_desc_t, heads), INT64_MAX, false, "times dim=128 is more than"},
        {offsetof(heed_layer_desc_t, kv_heads), 5, false, "no multiple of kv_heads=5"},
        {offsetof(heed_layer_desc_t, gated), 2, true, "desc.gated=2"},
        {offsetof(heed_layer_desc_t, ranks), 0, true, "desc.ranks=0"},
        {offsetof(heed_layer_desc_t, ranks), 7, true, "ranks=7 equal parts"},
        {offsetof(heed_layer_desc_t, policy), 1, true, "policy=1"},
        {offsetof(heed_layer_desc_t, layout), 3, true, "layout=3"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        heed_layer_desc_t desc = some_layer(8);
        int32_t narrow = (int32_t)bad[i].value;
        if (bad[i].narrow)
            memcpy((char *)&desc + bad[i].field, &narrow, sizeof(narrow));
        else
            memcpy((char *)&desc + bad[i].field, &bad[i].value, sizeof(bad[i].value));
        expect_fails(heed_layer_plan(&desc, 0, &plan), HEED_ERROR_VALUE, bad[i].words);
    }
    heed_layer_desc_t desc = some_layer(8);
    expect_fails(heed_layer_plan(NULL, 0, &plan), HEED_ERROR_NULL, "desc");
    expect_fails(heed_layer_plan(&desc, 0, NULL), HEED_ERROR_NULL, "plan");
    expect_fails(heed_layer_plan(&desc, 8, &plan), HEED_ERROR_VALUE, "rank=8");
    desc.dtype = 5;
    expect_fails(heed_layer_plan(&desc, 0, &plan), HEED_ERROR_DTYPE, "desc.dtype=0x5");
    desc = some_layer(8);
    desc.sequence_parallel = 1;
    desc.batch = 1;
    desc.sequence = 7;
    expect_fails(heed_layer_plan(&desc, 0, &plan), HEED_ERROR_VALUE, "is more than the 7 tokens");
    heed_linear_slice_t slice;
    expect_fails(heed_linear_slice((heed_linear_kind_t)2, 8, 8, 2, 0, 0, 1, 0, &slice),
                 HEED_ERROR_VALUE, "kind=2");
    expect_fails(heed_linear_slice(HEED_LINEAR_ROW, 8, 9, 2, 0, 0, 1, 0, &slice), HEED_ERROR_VALUE,
                 "in=9 does not divide into parts=2");
    expect_fails(
        heed_linear_slice(HEED_LINEAR_COLUMN, 8, 9, 2, 0, HEED_SPLIT_ALIGNED, 3, 0, &slice),
        HEED_ERROR_VALUE, "out=8 is no multiple of align=3");
    expect_fails(heed_linear_slice(HEED_LINEAR_COLUMN, 8, 8, 9, 0, HEED_SPLIT_CEIL, 1, 0, &slice),
                 HEED_ERROR_VALUE, "parts=9 is not 1 to 8");
    expect_fails(heed_linear_slice(HEED_LINEAR_COLUMN, 8, 8, 2, 0, 0, 1, 2, &slice),
                 HEED_ERROR_VALUE, "sequence_parallel=2");
    heed_vocab_slice_t vocab;
    expect_fails(heed_vocab_slice(0, 128, 2, 0, &vocab), HEED_ERROR_VALUE, "tokens=0");
    expect_fails(heed_vocab_slice(10, 0, 2, 0, &vocab), HEED_ERROR_VALUE, "multiple=0");
    expect_fails(heed_vocab_slice(10, 1, 2, -1, &vocab), HEED_ERROR_VALUE, "rank=-1");
}

/* ---- batches --------------------------------------------------------------------------------- */

static void test_batches(void **state)
{
    (void)state;
    for (int batch = 1; batch <= 40; batch++)
        for (int ranks = 1; ranks <= batch; ranks++)
            for (int size = 1; size <= batch; size++) {
                heed_batch_slice_t slice;
                int64_t samples = 0;
                double weight = 0;
                for (int rank = 0; rank < ranks; rank++) {
                    expect_ok(
                        heed_batch_slice(batch, ranks, rank, HEED_SPLIT_BALANCED, size, &slice));
                    assert_int_equal(slice.samples.first, samples);
                    assert_true(slice.last >= 1 && slice.last <= size);
                    assert_int_equal((slice.microbatches - 1) * size + slice.last,
                                     slice.samples.count);
                    samples += slice.samples.count;
                    weight += slice.weight;
                }
                assert_int_equal(samples, batch);
                assert_true(fabs(weight - 1) < 1e-12);
            }
    heed_batch_slice_t slice;
    expect_ok(heed_batch_slice(10, 6, 5, HEED_SPLIT_CEIL, 2, &slice));
    assert_int_equal(slice.microbatches + slice.last + slice.samples.count, 0);
    expect_ok(heed_batch_slice(24, 3, 0, HEED_SPLIT_ALIGNED, 4, &slice));
    assert_int_equal(slice.microbatches * 10 + slice.last, 24);
    expect_fails(heed_batch_slice(10, 3, 0, HEED_SPLIT_EQUAL, 1, &slice), HEED_ERROR_VALUE,
                 "batch=10 does not divide into parts=3");
    expect_fails(heed_batch_slice(10, 2, 0, HEED_SPLIT_EQUAL, 0, &slice), HEED_ERROR_VALUE,
                 "microbatch=0");
    expect_fails(heed_batch_slice(10, 11, 0, HEED_SPLIT_CEIL, 1, &slice), HEED_ERROR_VALUE,
                 "parts=11");
    expect_fails(heed_batch_slice(10, 2, 0, HEED_SPLIT_EQUAL, 1, NULL), HEED_ERROR_NULL, "slice");
}

/* ---- meshes ---------------------------------------------------------------------------------- */

static void test_mesh(void **state)
{
    heed_mesh_t mesh;
    int32_t point[HEED_MESH_MAX_AXES], rank, count, members[64], place;
    (void)state;
    expect_ok(heed_mesh_parse("2x2x2", 8, &mesh));
    assert_int_equal(mesh.axes, 3);
    expect_ok(heed_mesh_point(&mesh, 5, point));
    assert_memory_equal(point, ((int32_t[]){1, 0, 1}), sizeof(int32_t) * 3);
    expect_ok(heed_mesh_group(&mesh, 5, 4, &count, members, &place)); /* the last axis */
    assert_int_equal(count, 2);
    assert_memory_equal(members, ((int32_t[]){4, 5}), sizeof(int32_t) * 2);
    assert_int_equal(place, 1);
    expect_ok(heed_mesh_group(&mesh, 5, 1, &count, members, &place)); /* the first */
    assert_memory_equal(members, ((int32_t[]){1, 5}), sizeof(int32_t) * 2);
    expect_ok(heed_mesh_group(&mesh, 5, 0, &count, members, &place));
    assert_int_equal(count * 100 + members[0] * 10 + place, 150);
    static const char *const texts[] = {"1", "6", "2x3", "3x1x4", "2x2x2x2", "4x3x5"};
    for (int t = 0; t < 6; t++) {
        expect_ok(heed_mesh_parse(texts[t], 0, &mesh));
        for (uint32_t along = 0; along < 1u << mesh.axes; along++)
            for (int r = 0; r < mesh.ranks; r++) {
                expect_ok(heed_mesh_point(&mesh, r, point));
                expect_ok(heed_mesh_rank(&mesh, point, &rank));
                assert_int_equal(rank, r);
                expect_ok(heed_mesh_group(&mesh, r, along, &count, members, &place));
                assert_int_equal(members[place], r);
                /* Exactly those that agree on every other axis, in rising order. */
                int found = 0;
                for (int other = 0; other < mesh.ranks; other++) {
                    int32_t at[HEED_MESH_MAX_AXES];
                    bool same = true;
                    expect_ok(heed_mesh_point(&mesh, other, at));
                    for (int axis = 0; axis < mesh.axes; axis++)
                        same = same && (along >> axis & 1 || at[axis] == point[axis]);
                    if (same)
                        assert_int_equal(members[found++], other);
                }
                assert_int_equal(found, count);
                expect_ok(heed_mesh_group(&mesh, r, along, &count, NULL, &place));
                assert_int_equal(found, count);
            }
    }
}

static void test_mesh_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "x",
                                      "2x",
                                      "x2",
                                      "2xx2",
                                      "0",
                                      "2x0",
                                      "-2x2",
                                      "2 x2",
                                      "2x2 ",
                                      "2*2",
                                      "+2",
                                      "1x1x1x1x1x1x1x1x1"};
    heed_mesh_t mesh = {0};
    int32_t point[] = {0, 2, 0}, rank, place;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_fails(heed_mesh_parse(bad[i], 0, &mesh), HEED_ERROR_SYNTAX, "mesh '");
    expect_fails(heed_mesh_parse("2x2x2", 6, &mesh), HEED_ERROR_VALUE,
                 "mesh '2x2x2' has 8 ranks, but ranks=6");
    expect_fails(heed_mesh_parse("65536x65536", 0, &mesh), HEED_ERROR_VALUE, "more than");
    expect_fails(heed_mesh_parse("99999999999999999999", 0, &mesh), HEED_ERROR_VALUE, "more than");
    expect_fails(heed_mesh_parse(NULL, 0, &mesh), HEED_ERROR_NULL, "text");
    expect_fails(heed_mesh_parse("2", -1, &mesh), HEED_ERROR_VALUE, "ranks=-1");
    expect_fails(heed_mesh_point(&mesh, 0, point), HEED_ERROR_VALUE, "mesh.axes=0");
    expect_ok(heed_mesh_parse("2x2x2", 0, &mesh));
    expect_fails(heed_mesh_point(&mesh, 8, point), HEED_ERROR_VALUE, "rank=8 is not 0 to 7");
    expect_fails(heed_mesh_rank(&mesh, point, &rank), HEED_ERROR_VALUE, "point[1]=2 is not 0 to 1");
    expect_fails(heed_mesh_group(&mesh, 0, 8, &rank, NULL, &place), HEED_ERROR_VALUE, "along=0x8");
    expect_fails(heed_mesh_group(&mesh, 0, 1, NULL, NULL, &place), HEED_ERROR_NULL, "count");
    mesh.ranks = 9;
    expect_fails(heed_mesh_point(&mesh, 0, point), HEED_ERROR_VALUE,
                 "mesh.ranks=9, but its sizes multiply to 8");
    mesh.size[1] = 0;
    expect_fails(heed_mesh_point(&mesh, 0, point), HEED_ERROR_VALUE, "mesh.size[1]=0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),        cmocka_unit_test(test_collectives),
        cmocka_unit_test(test_gated),         cmocka_unit_test(test_vocab),
        cmocka_unit_test(test_layer),         cmocka_unit_test(test_layer_steps),
        cmocka_unit_test(test_layer_refused), cmocka_unit_test(test_batches),
        cmocka_unit_test(test_mesh),          cmocka_unit_test(test_mesh_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
