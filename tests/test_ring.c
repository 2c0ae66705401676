/* Ring attention against one call over all keys: ranks x layouts x causal x windows x grouped heads
 * x uneven parts; messages that do not come. */
#define _GNU_SOURCE
#include "one_call.h"
#include "kit_ranks.h"

static heed_ring_desc_t describe_ring(const problem_t *problem, int layout)
{
    heed_ring_desc_t desc = heed_ring_desc();
    desc.layout = (heed_ring_layout_t)layout;
    desc.causal = problem->causal;
    desc.window_left = problem->left;
    desc.window_right = problem->right;
    desc.tokens = N;
    desc.whole = 1;
    desc.q = heed_tensor(q, HEED_F32, 4, q_shape, NULL);
    desc.k = heed_tensor(k, HEED_F32, 4, k_shape, NULL);
    desc.v = heed_tensor(v, HEED_F32, 4, v_shape, NULL);
    desc.out = heed_tensor(out, HEED_F32, 4, out_shape, NULL);
    desc.lse = heed_tensor(lse, HEED_F32, 3, lse_shape, NULL);
    return desc;
}

static void test_ring(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const int sizes[] = {1, 2, 3, 4, 8};
    (void)state;
    fill();
    for (int p = 0; p < PROBLEMS; p++) {
        if (problems[p].queries != N)
            continue;
        attend_densely(context, &problems[p]);
        for (int n = 0; n < 15; n++) {
            heed_ring_desc_t desc = describe_ring(&problems[p], n / 5);
            poison();
            expect_ok(heed_ring_virtual(context, sizes[n % 5], &desc));
            expect_dense(&problems[p],
                         n / 5 == 0   ? "contiguous ranks"
                         : n / 5 == 1 ? "zigzag ranks"
                                      : "striped ranks",
                         sizes[n % 5]);
        }
    }
    heed_context_destroy(context);
}

static void test_runs(void **state)
{
    (void)state;
    for (int layout = 0; layout < 3; layout++) {
        for (int size = 1; size <= 5; size++) {
            int owners[N] = {0};
            for (int rank = 0; rank < size; rank++) {
                heed_ring_run_t runs[2];
                int count = heed_ring_runs((heed_ring_layout_t)layout, rank, size, N, runs);
                assert_int_equal(count, layout == HEED_RING_ZIGZAG ? 2 : 1);
                for (int r = 0; r < count; r++)
                    for (int64_t i = 0; i < runs[r].count; i++)
                        owners[runs[r].first + i * runs[r].distance]++;
            }
            for (int i = 0; i < N; i++)
                assert_int_equal(owners[i], 1);
        }
    }
    heed_ring_run_t runs[2];
    assert_int_equal(heed_ring_runs(HEED_RING_ZIGZAG, 2, 2, 10, runs), 0);
    assert_int_equal(heed_ring_runs((heed_ring_layout_t)3, 0, 2, 10, runs), 0);
}

/* Ranks with tensors of their own tokens alone. */
typedef struct member {
    heed_ring_desc_t desc;
    bool leaves; /* gives its end back at once */
    float q[N * H * D], k[N * H * D], v[N * H * DV], out[N * H * DV];
    int64_t shapes[4][4];
} member_t;

static rank_t ranks[3];
static member_t members[3];

static heed_status_t attend_tokens(rank_t *rank)
{
    const member_t *member = rank->own;
    return member->leaves ? HEED_OK
                          : heed_ring_attention(rank->context, &rank->comm, &member->desc);
}

static void describe_member(member_t *member, int layout, int rank, int size)
{
    heed_ring_run_t runs[2];
    int64_t n = 0;
    int count = heed_ring_runs((heed_ring_layout_t)layout, rank, size, N, runs);
    for (int r = 0; r < count; r++) {
        for (int64_t i = 0; i < runs[r].count; i++, n++) {
            int64_t token = runs[r].first + i * runs[r].distance;
            memcpy(member->q + n * H * D, q + token * H * D, sizeof(float) * H * D);
            memcpy(member->k + n * H * D, k + token * H * D, sizeof(float) * H * D);
            memcpy(member->v + n * H * DV, v + token * H * DV, sizeof(float) * H * DV);
        }
    }
    for (int t = 0; t < 4; t++)
        memcpy(member->shapes[t], (int64_t[]){1, n, H, t < 2 ? D : DV}, 4 * sizeof(int64_t));
    member->desc = heed_ring_desc();
    member->desc.layout = (heed_ring_layout_t)layout;
    member->desc.causal = 1;
    member->desc.tokens = N;
    member->desc.q = heed_tensor(member->q, HEED_F32, 4, member->shapes[0], NULL);
    member->desc.k = heed_tensor(member->k, HEED_F32, 4, member->shapes[1], NULL);
    member->desc.v = heed_tensor(member->v, HEED_F32, 4, member->shapes[2], NULL);
    member->desc.out = heed_tensor(member->out, HEED_F32, 4, member->shapes[3], NULL);
}

static void begin_ranks(heed_context_t *context, int layout, int timeout_ms)
{
    ranks_open(ranks, context, 3, timeout_ms);
    memset(members, 0, sizeof(members));
    for (int r = 0; r < 3; r++)
        describe_member(&members[r], layout, r, 3);
}

static void run_ranks(int size)
{
    ranks_run(ranks, size, attend_tokens, members, sizeof(members[0]));
}

static void test_own_tokens(void **state)
{
    heed_context_t *context = expect_context(NULL);
    problem_t problem = {N, H, 1, -1, -1};
    (void)state;
    fill();
    attend_densely(context, &problem);
    for (int layout = 0; layout < 3; layout++) {
        begin_ranks(context, layout, 60000);
        run_ranks(3);
        expect_ranks(ranks, 3, HEED_OK, NULL, "own tokens");
        for (int r = 0; r < 3; r++) {
            heed_ring_run_t runs[2];
            int64_t n = 0;
            int count = heed_ring_runs((heed_ring_layout_t)layout, r, 3, N, runs);
            for (int part = 0; part < count; part++)
                for (int64_t i = 0; i < runs[part].count; i++, n++)
                    for (int c = 0; c < H * DV; c++) {
                        int64_t token = runs[part].first + i * runs[part].distance;
                        assert_true(fabsf(members[r].out[n * H * DV + c] -
                                          dense_out[token * H * DV + c]) <= 1e-5f);
                    }
        }
    }
    heed_context_destroy(context);
}

/* What one rank gets wrong, all of them hear. */
static void test_disagreement(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    begin_ranks(context, 0, 60000);
    members[1].desc.causal = 0;
    run_ranks(3);
    expect_ranks(ranks, 3, HEED_ERROR_COMM, "causal is", "other causal");
    begin_ranks(context, 0, 60000);
    members[2].shapes[1][3] = D + 1;
    run_ranks(3);
    assert_int_equal(ranks[2].status, HEED_ERROR_SHAPE);
    assert_int_equal(ranks[0].status, HEED_ERROR_COMM);
    assert_non_null(strstr(ranks[0].sentence, "rank 2 cannot take part"));
    begin_ranks(context, 0, 60000);
    members[1].desc.window_left = -2;
    run_ranks(3);
    assert_int_equal(ranks[1].status, HEED_ERROR_VALUE);
    assert_non_null(strstr(ranks[2].sentence, "rank 1 cannot take part"));
    heed_context_destroy(context);
}

static void test_silence(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    /* A rank that goes away at once. */
    begin_ranks(context, 1, 60000);
    members[1].leaves = true;
    run_ranks(3);
    for (int r = 0; r < 3; r += 2) {
        assert_int_equal(ranks[r].status, HEED_ERROR_COMM);
        assert_non_null(strstr(ranks[r].sentence, "rank 1 of 3 left"));
    }
    /* One that never comes. */
    begin_ranks(context, 1, 100);
    run_ranks(2);
    expect_ranks(ranks, 2, HEED_ERROR_COMM, "waited longer than the time-out", "silence");
    heed_comm_threads_free(&ranks[2].comm);
    heed_context_destroy(context);
}

static void test_bad_ring(void **state)
{
    heed_context_t *context = expect_context(NULL);
    problem_t problem = {N, H, 1, -1, -1};
    heed_comm_t comms[2];
    (void)state;
    set_shapes(&problem);
    heed_ring_desc_t desc = describe_ring(&problem, 0);
    expect_fails(heed_ring_virtual(context, 0, &desc), HEED_ERROR_VALUE, "ranks=0");
    desc.layout = (heed_ring_layout_t)7;
    expect_fails(heed_ring_virtual(context, 2, &desc), HEED_ERROR_VALUE, "layout=7");
    desc = describe_ring(&problem, 0);
    desc.tokens = N + 1;
    expect_fails(heed_ring_virtual(context, 2, &desc), HEED_ERROR_SHAPE, "q.shape[1]=83");
    desc = describe_ring(&problem, 0);
    desc.whole = 0;
    expect_fails(heed_ring_virtual(context, 2, &desc), HEED_ERROR_VALUE, "whole=0");
    expect_fails(heed_comm_threads(context, 0, 0, comms), HEED_ERROR_VALUE, "size=0");
    expect_ok(heed_comm_threads(context, 2, 50, comms));
    float number = 0;
    expect_fails(comms[0].send(comms[0].user, 2, &number, 4), HEED_ERROR_VALUE, "rank 2");
    expect_ok(comms[0].send(comms[0].user, 1, &number, 4));
    expect_fails(comms[0].send(comms[0].user, 1, &number, 4), HEED_ERROR_VALUE, "second send");
    expect_ok(comms[1].recv(comms[1].user, 0, &number, 3));
    expect_fails(comms[1].wait(comms[1].user), HEED_ERROR_COMM, "another size");
    expect_fails(comms[0].wait(comms[0].user), HEED_ERROR_COMM, "another size");
    heed_comm_threads_free(&comms[0]);
    heed_comm_threads_free(&comms[1]);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),       cmocka_unit_test(test_ring),
        cmocka_unit_test(test_own_tokens), cmocka_unit_test(test_disagreement),
        cmocka_unit_test(test_silence),    cmocka_unit_test(test_bad_ring),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
