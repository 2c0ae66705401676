/* Dilated attention by its names: "distributed" over 1 to 5 ranks, "ring" in blocks of any number
 * and "block_sparse", each against the definition; what refuses, and why; ranks that disagree. */
#define _GNU_SOURCE
#include "kit_ranks.h"

#include "kit.h"

#include <math.h>

enum { B = 2, N = 61, H = 6, HK = 3, D = 8, DV = 12, MOST = 5 };

static float q[B * N * H * D], k[B * N * HK * D], v[B * N * HK * DV];
static float wanted[B * N * H * DV], wanted_lse[B * H * N];
static float got[B * N * H * DV], got_lse[B * H * N];

static void fill(void)
{
    kit_random_t random = {12};
    for (int i = 0; i < B * N * H * D; i++)
        q[i] = (float)kit_random_normal(&random);
    for (int i = 0; i < B * N * HK * D; i++)
        k[i] = (float)kit_random_normal(&random);
    for (int i = 0; i < B * N * HK * DV; i++)
        v[i] = (float)kit_random_normal(&random);
}

/* Rows first .. first+count-1 of whole tensors. */
static heed_dilated_desc_t describe(int64_t first, int64_t count, float *out, float *lse,
                                    int64_t shapes[5][4], int64_t strides[5][4])
{
    const int64_t heads[] = {H, HK, HK, H}, dims[] = {D, D, DV, DV};
    float *const data[] = {q, k, v, out};
    heed_dilated_desc_t desc = heed_dilated_desc();
    heed_tensor_t *const tensors[] = {&desc.q, &desc.k, &desc.v, &desc.out};
    for (int i = 0; i < 4; i++) {
        const int64_t shape[] = {B, count, heads[i], dims[i]};
        const int64_t stride[] = {N * heads[i] * dims[i], heads[i] * dims[i], dims[i], 1};
        memcpy(shapes[i], shape, sizeof(shape));
        memcpy(strides[i], stride, sizeof(stride));
        *tensors[i] =
            heed_tensor(data[i] + first * heads[i] * dims[i], HEED_F32, 4, shapes[i], strides[i]);
    }
    const int64_t lse_shape[] = {B, H, count}, lse_strides[] = {H * N, N, 1};
    memcpy(shapes[4], lse_shape, sizeof(lse_shape));
    memcpy(strides[4], lse_strides, sizeof(lse_strides));
    desc.lse = heed_tensor(lse + first, HEED_F32, 3, shapes[4], strides[4]);
    desc.branches = 3;
    memcpy(desc.segments, (const int64_t[]){5, 16, 48}, 3 * sizeof(int64_t));
    memcpy(desc.rates, (const int64_t[]){1, 2, 5}, 3 * sizeof(int64_t));
    return desc;
}

static void vary(heed_dilated_desc_t *desc, int variant)
{
    desc->causal = variant & 1;
    desc->offset_rule = variant & 2 ? HEED_OFFSET_TORCHSCALE : HEED_OFFSET_PAPER;
    if (variant & 4) /* tokens that nothing sees */
        desc->rates[0] = 3;
}

static void expect_wanted(const char *what)
{
    for (int i = 0; i < B * N * H * DV; i++)
        if (!(fabsf(got[i] - wanted[i]) <= 1e-5f * (1 + fabsf(wanted[i]))))
            fail_msg("%s: out[%d] = %g, should be %g", what, i, (double)got[i], (double)wanted[i]);
    for (int i = 0; i < B * H * N; i++)
        if (got_lse[i] != wanted_lse[i] && !(fabsf(got_lse[i] - wanted_lse[i]) <= 1e-5f))
            fail_msg("%s: lse[%d] = %g, should be %g", what, i, (double)got_lse[i],
                     (double)wanted_lse[i]);
}

static heed_status_t run_named(heed_context_t *context, const char *impl, heed_dilated_desc_t *desc)
{
    heed_plan_t *plan;
    size_t bytes, alignment;
    heed_status_t status = heed_plan_create_named(context, "dilated", impl, desc, &plan);
    if (status != HEED_OK)
        return status;
    expect_ok(heed_plan_workspace(plan, &bytes, &alignment));
    void *workspace = aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
    void *buffers[] = {desc->q.data, desc->k.data, desc->v.data, desc->out.data, desc->lse.data};
    status = heed_plan_execute(plan, buffers, 5, workspace, bytes, NULL);
    free(workspace);
    heed_plan_destroy(plan);
    return status;
}

static void make_wanted(heed_context_t *context, int variant)
{
    int64_t shapes[5][4], strides[5][4];
    heed_dilated_desc_t desc = describe(0, N, wanted, wanted_lse, shapes, strides);
    vary(&desc, variant);
    expect_ok(run_named(context, "standard", &desc));
    memset(got, 0xff, sizeof(got));
    memset(got_lse, 0xff, sizeof(got_lse));
}

/* ---- in one process -------------------------------------------------------------------------- */

static void test_blocks(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const int blocks[] = {0, 1, 2, 3, 7, 61, 100};
    (void)state;
    fill();
    for (int variant = 0; variant < 8; variant++) {
        int64_t shapes[5][4], strides[5][4];
        make_wanted(context, variant);
        heed_dilated_desc_t desc = describe(0, N, got, got_lse, shapes, strides);
        vary(&desc, variant);
        for (int n = 0; n < 7; n++) {
            char what[64];
            snprintf(what, sizeof(what), "ring of %d blocks, variant %d", blocks[n], variant);
            desc.blocks = blocks[n];
            memset(got, 0xff, sizeof(got));
            expect_ok(run_named(context, "ring", &desc));
            expect_wanted(what);
        }
        memset(got, 0xff, sizeof(got));
        expect_ok(run_named(context, "cpu:block_sparse", &desc));
        expect_wanted("block_sparse");
    }
    heed_context_destroy(context);
}

/* ---- over ranks ------------------------------------------------------------------------------ */

typedef struct task {
    int variant;
    bool differs;
} task_t;

static rank_t ranks[MOST];

static heed_status_t attend_rows(rank_t *rank)
{
    const task_t *task = rank->own;
    int64_t shapes[5][4], strides[5][4];
    heed_ring_run_t runs[2];
    heed_ring_runs(HEED_RING_CONTIGUOUS, rank->comm.rank, rank->comm.size, N, runs);
    heed_dilated_desc_t desc =
        describe(runs[0].first, runs[0].count, got, got_lse, shapes, strides);
    vary(&desc, task->variant);
    desc.comm = &rank->comm;
    desc.tokens = N;
    if (task->differs)
        desc.rates[2] = 4;
    return heed_dilated_attention(rank->context, &desc);
}

static void run_all(heed_context_t *context, int size, int variant, int differs)
{
    task_t tasks[MOST];
    for (int r = 0; r < size; r++)
        tasks[r] = (task_t){.variant = variant, .differs = r == differs};
    ranks_open(ranks, context, size, 60000);
    ranks_run(ranks, size, attend_rows, tasks, sizeof(tasks[0]));
}

static void test_ranks(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    fill();
    for (int size = 1; size <= MOST; size++)
        for (int variant = 0; variant < 8; variant++) {
            char what[64];
            snprintf(what, sizeof(what), "%d ranks, variant %d", size, variant);
            make_wanted(context, variant);
            run_all(context, size, variant, -1);
            expect_ranks(ranks, size, HEED_OK, NULL, what);
            expect_wanted(what);
        }
    heed_context_destroy(context);
}

static void test_ranks_disagree(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    run_all(context, 3, 0, 1);
    expect_ranks(ranks, 3, HEED_ERROR_COMM, NULL, "other rates");
    assert_non_null(strstr(ranks[1].sentence, "rates"));
    heed_context_destroy(context);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    heed_context_t *context = expect_context(NULL);
    int64_t shapes[5][4], strides[5][4];
    heed_comm_t comms[2];
    (void)state;
    heed_dilated_desc_t desc = describe(0, N, got, got_lse, shapes, strides);
    expect_fails(run_named(context, "distributed", &desc), HEED_ERROR_UNSUPPORTED,
                 "comm is null: there are no ranks");
    expect_fails(run_named(context, "flash", &desc), HEED_ERROR_UNKNOWN_IMPL, "cpu:block_sparse");
    expect_ok(run_named(context, "auto", &desc));
    expect_ok(run_named(context, NULL, &desc));
    desc.tokens = N;
    expect_fails(run_named(context, "auto", &desc), HEED_ERROR_VALUE, "tokens=61 without comm");
    expect_ok(heed_comm_threads(context, 2, 1000, comms));
    desc.comm = &comms[1];
    expect_fails(run_named(context, "auto", &desc), HEED_ERROR_SHAPE,
                 "q.shape[1]=61: rank 1 of 2 has 30 of 61");
    shapes[0][1] = shapes[1][1] = shapes[2][1] = shapes[3][1] = shapes[4][2] = 30;
    expect_fails(run_named(context, "improved", &desc), HEED_ERROR_UNSUPPORTED, "ranks");
    expect_fails(run_named(context, "standard", &desc), HEED_ERROR_UNSUPPORTED, "ranks");
    heed_comm_threads_free(&comms[0]);
    heed_comm_threads_free(&comms[1]);
    desc = describe(0, N, got, got_lse, shapes, strides);
    desc.mode = HEED_DILATED_TORCHSCALE;
    const char *const exact[] = {"ring", "block_sparse"};
    for (int n = 0; n < 2; n++)
        expect_fails(run_named(context, exact[n], &desc), HEED_ERROR_UNSUPPORTED,
                     "does not do: torchscale");
    desc.mode = HEED_DILATED_LONGNET;
    desc.blocks = 5000;
    expect_fails(run_named(context, "ring", &desc), HEED_ERROR_VALUE, "blocks=5000");
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_ranks_disagree),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("dilated_ranks", tests, NULL, NULL);
}
