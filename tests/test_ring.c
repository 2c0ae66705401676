/* Streaming and ring attention against one call over all keys: ranks x layouts x causal x windows x
 * grouped heads x uneven parts; messages that do not come. */
#define _GNU_SOURCE
#include "ranks.h"

#include "kit.h"

#include <math.h>

enum { B = 2, N = 83, H = 4, D = 16, DV = 24, MOST_RANKS = 8 };

static float q[B * N * H * D], k[B * N * H * D], v[B * N * H * DV];
static float dense_out[B * N * H * DV], dense_lse[B * H * N];
static float out[B * N * H * DV], lse[B * H * N];
static int64_t q_shape[4], k_shape[4], v_shape[4], out_shape[4], lse_shape[3];

static void fill(void)
{
    kit_random_t random = {21};
    for (int i = 0; i < B * N * H * D; i++) {
        q[i] = (float)kit_random_normal(&random);
        k[i] = (float)kit_random_normal(&random);
    }
    for (int i = 0; i < B * N * H * DV; i++)
        v[i] = (float)kit_random_normal(&random);
}

typedef struct problem {
    int queries, key_heads, causal, left, right;
} problem_t;

static void set_shapes(const problem_t *problem)
{
    memcpy(q_shape, (int64_t[]){B, problem->queries, H, D}, sizeof(q_shape));
    memcpy(k_shape, (int64_t[]){B, N, problem->key_heads, D}, sizeof(k_shape));
    memcpy(v_shape, (int64_t[]){B, N, problem->key_heads, DV}, sizeof(v_shape));
    memcpy(out_shape, (int64_t[]){B, problem->queries, H, DV}, sizeof(out_shape));
    memcpy(lse_shape, (int64_t[]){B, H, problem->queries}, sizeof(lse_shape));
}

static void attend_densely(heed_context_t *context, const problem_t *problem)
{
    heed_attention_desc_t desc = heed_attention_desc();
    set_shapes(problem);
    desc.causal = problem->causal;
    desc.window_left = problem->left;
    desc.window_right = problem->right;
    desc.q = heed_tensor(q, HEED_F32, 4, q_shape, NULL);
    desc.k = heed_tensor(k, HEED_F32, 4, k_shape, NULL);
    desc.v = heed_tensor(v, HEED_F32, 4, v_shape, NULL);
    desc.out = heed_tensor(dense_out, HEED_F32, 4, out_shape, NULL);
    desc.lse = heed_tensor(dense_lse, HEED_F32, 3, lse_shape, NULL);
    expect_ok(heed_attention(context, &desc));
}

static void expect_dense(const problem_t *problem, const char *what, int number)
{
    const struct {
        const char *name;
        const float *got, *want;
        int count;
    } all[] = {{"out", out, dense_out, B * problem->queries * H * DV},
               {"lse", lse, dense_lse, B * problem->queries * H}};
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < all[n].count; i++)
            if (all[n].got[i] != all[n].want[i] &&
                !(fabsf(all[n].got[i] - all[n].want[i]) <= 1e-5f))
                fail_msg("%s %d: %s[%d] = %.8g, should be %.8g (%d queries, %d key heads, causal "
                         "%d, window %d,%d)",
                         what, number, all[n].name, i, (double)all[n].got[i],
                         (double)all[n].want[i], problem->queries, problem->key_heads,
                         problem->causal, problem->left, problem->right);
}

static void poison(void)
{
    memset(out, 0xff, sizeof(out));
    memset(lse, 0xff, sizeof(lse));
}

/* ---- streaming ------------------------------------------------------------------------------- */

static void stream(heed_context_t *context, const problem_t *problem, int chunk)
{
    heed_stream_desc_t desc = heed_stream_desc();
    heed_attention_stream_t *stream;
    desc.causal = problem->causal;
    desc.window_left = problem->left;
    desc.window_right = problem->right;
    desc.keys = N;
    desc.q = heed_tensor(q, HEED_F32, 4, q_shape, NULL);
    desc.out = heed_tensor(out, HEED_F32, 4, out_shape, NULL);
    desc.lse = heed_tensor(lse, HEED_F32, 3, lse_shape, NULL);
    expect_ok(heed_stream_begin(context, &desc, &stream));
    for (int first = 0; first < N; first += chunk) {
        int64_t count = first + chunk < N ? chunk : N - first, heads = problem->key_heads;
        int64_t shapes[2][4] = {{B, count, heads, D}, {B, count, heads, DV}};
        int64_t strides[2][4] = {{N * heads * D, heads * D, D, 1},
                                 {N * heads * DV, heads * DV, DV, 1}};
        heed_tensor_t ks = heed_tensor(k + first * heads * D, HEED_F32, 4, shapes[0], strides[0]);
        heed_tensor_t vs = heed_tensor(v + first * heads * DV, HEED_F32, 4, shapes[1], strides[1]);
        expect_ok(heed_stream_push(stream, &ks, &vs));
    }
    expect_ok(heed_stream_end(stream));
}

static const problem_t problems[] = {
    {N, H, 0, -1, -1}, {N, H, 1, -1, -1}, {N, 2, 1, 9, -1}, {N, 1, 0, 5, 7},   {N, 2, 0, -1, 3},
    {N, H, 0, 20, -1}, {7, H, 1, -1, -1}, {7, 2, 0, 12, 4}, {1, 1, 1, 30, -1}, {N, 2, 1, 0, -1},
};
enum { PROBLEMS = sizeof(problems) / sizeof(problems[0]) };

static void test_stream(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const int chunks[] = {1, 10, 32, 64, 100};
    (void)state;
    fill();
    for (int p = 0; p < PROBLEMS; p++) {
        attend_densely(context, &problems[p]);
        for (int c = 0; c < 5; c++) {
            poison();
            stream(context, &problems[p], chunks[c]);
            expect_dense(&problems[p], "chunks of", chunks[c]);
        }
    }
    heed_context_destroy(context);
}

/* The queries first .. end-1 as a shard of their own, written where they belong. */
static void stream_shard(heed_context_t *context, const problem_t *problem, int64_t first,
                         int64_t end)
{
    heed_stream_desc_t desc = heed_stream_desc();
    heed_attention_stream_t *stream;
    int64_t rows = end - first, shapes[3][4] = {{B, rows, H, D}, {B, rows, H, DV}, {B, H, rows}};
    int64_t strides[3][4] = {{N * H * D, H * D, D, 1}, {N * H * DV, H * DV, DV, 1}, {H * N, N, 1}};
    desc.causal = problem->causal;
    desc.window_left = problem->left;
    desc.window_right = problem->right;
    desc.keys = N;
    desc.after = N - end;
    desc.q = heed_tensor(q + first * H * D, HEED_F32, 4, shapes[0], strides[0]);
    desc.out = heed_tensor(out + first * H * DV, HEED_F32, 4, shapes[1], strides[1]);
    desc.lse = heed_tensor(lse + first, HEED_F32, 3, shapes[2], strides[2]);
    heed_tensor_t ks = heed_tensor(k, HEED_F32, 4, k_shape, NULL);
    heed_tensor_t vs = heed_tensor(v, HEED_F32, 4, v_shape, NULL);
    expect_ok(heed_stream_begin(context, &desc, &stream));
    expect_ok(heed_stream_push(stream, &ks, &vs));
    expect_ok(heed_stream_end(stream));
}

static void test_stream_shards(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    fill();
    for (int p = 0; p < PROBLEMS; p++) {
        if (problems[p].queries != N)
            continue;
        attend_densely(context, &problems[p]);
        poison();
        stream_shard(context, &problems[p], 0, 31);
        stream_shard(context, &problems[p], 31, 32);
        stream_shard(context, &problems[p], 32, N);
        expect_dense(&problems[p], "shards from", 31);
    }
    heed_context_destroy(context);
}

/* A bf16 result is rounded once, however many chunks there are. */
static void test_narrow_stream(void **state)
{
    heed_context_t *context = expect_context(NULL);
    static uint16_t nq[B * N * H * D], nk[B * N * H * D], nv[B * N * H * DV];
    static uint16_t whole[B * N * H * DV], parts[B * N * H * DV];
    (void)state;
    fill();
    for (int i = 0; i < B * N * H * D; i++) {
        kit_store(HEED_BF16, nq, i, (double)q[i]);
        kit_store(HEED_BF16, nk, i, (double)k[i]);
    }
    for (int i = 0; i < B * N * H * DV; i++)
        kit_store(HEED_BF16, nv, i, (double)v[i]);
    problem_t problem = {N, H, 0, -1, -1};
    uint16_t *outs[] = {whole, parts};
    set_shapes(&problem);
    for (int way = 0; way < 2; way++) {
        heed_stream_desc_t desc = heed_stream_desc();
        heed_attention_stream_t *stream;
        int chunk = way ? 4 : N;
        desc.q = heed_tensor(nq, HEED_BF16, 4, q_shape, NULL);
        desc.out = heed_tensor(outs[way], HEED_BF16, 4, out_shape, NULL);
        expect_ok(heed_stream_begin(context, &desc, &stream));
        for (int first = 0; first < N; first += chunk) {
            int64_t count = first + chunk < N ? chunk : N - first;
            int64_t shapes[2][4] = {{B, count, H, D}, {B, count, H, DV}};
            int64_t strides[2][4] = {{N * H * D, H * D, D, 1}, {N * H * DV, H * DV, DV, 1}};
            heed_tensor_t ks = heed_tensor(nk + first * H * D, HEED_BF16, 4, shapes[0], strides[0]);
            heed_tensor_t vs =
                heed_tensor(nv + first * H * DV, HEED_BF16, 4, shapes[1], strides[1]);
            expect_ok(heed_stream_push(stream, &ks, &vs));
        }
        expect_ok(heed_stream_end(stream));
    }
    /* Both rounded once differ by 0.0016 of their size, by 0.003 where weights are bf16 too; had
     * each of the 21 chunks been rounded, by 0.005. */
    double off = 0, size = 0;
    for (int i = 0; i < B * N * H * DV; i++) {
        double a = kit_load(HEED_BF16, whole, i), b = kit_load(HEED_BF16, parts, i);
        off += (a - b) * (a - b);
        size += a * a;
    }
    assert_true(sqrt(off / size) < 0.004);
    heed_context_destroy(context);
}

static void test_bad_stream(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_stream_desc_t desc = heed_stream_desc();
    heed_attention_stream_t *stream;
    problem_t problem = {N, H, 1, -1, -1};
    (void)state;
    set_shapes(&problem);
    desc.causal = 1;
    desc.q = heed_tensor(q, HEED_F32, 4, q_shape, NULL);
    desc.out = heed_tensor(out, HEED_F32, 4, out_shape, NULL);
    expect_fails(heed_stream_begin(context, &desc, &stream), HEED_ERROR_VALUE, "desc.keys=0");
    assert_null(stream);
    desc.keys = N - 1;
    expect_ok(heed_stream_begin(context, &desc, &stream));
    heed_tensor_t ks = heed_tensor(k, HEED_F32, 4, k_shape, NULL);
    heed_tensor_t vs = heed_tensor(v, HEED_F32, 4, v_shape, NULL);
    expect_fails(heed_stream_push(stream, &ks, &vs), HEED_ERROR_VALUE, "k.shape[1]=83: 0 of");
    expect_fails(heed_stream_push(stream, &ks, NULL), HEED_ERROR_NULL, "v is null");
    expect_fails(heed_stream_end(stream), HEED_ERROR_VALUE, "0 keys have come");
    desc.window_left = -2;
    expect_fails(heed_stream_begin(context, &desc, &stream), HEED_ERROR_VALUE, "window_left=-2");
    desc.window_left = -1;
    desc.after = -3;
    expect_fails(heed_stream_begin(context, &desc, &stream), HEED_ERROR_VALUE, "desc.after=-3");
    heed_context_destroy(context);
}

/* Chunks are as long as the plan says that it pays, and never beyond what was asked for. */
static void test_stream_chunk(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_stream_desc_t desc = heed_stream_desc();
    heed_attention_stream_t *stream;
    problem_t problem = {N, H, 0, -1, -1};
    int64_t keys, fewer, shape[4] = {B, 200000, H, D}, values[4] = {B, 200000, H, DV};
    (void)state;
    set_shapes(&problem);
    desc.q = heed_tensor(q, HEED_F32, 4, q_shape, NULL);
    desc.out = heed_tensor(out, HEED_F32, 4, out_shape, NULL);
    expect_ok(heed_stream_begin(context, &desc, &stream));
    heed_tensor_t ks = heed_tensor(NULL, HEED_F32, 4, shape, NULL);
    heed_tensor_t vs = heed_tensor(NULL, HEED_F32, 4, values, NULL);
    size_t each = B * H * (D + DV) * sizeof(float);
    expect_ok(heed_stream_chunk(stream, &ks, &vs, 4096 * each, &keys));
    assert_int_equal(keys % 1024, 0);
    assert_in_range(keys, 1024, 4096);
    expect_ok(heed_stream_chunk(stream, &ks, &vs, 1, &keys));
    assert_int_equal(keys, 1024);
    expect_ok(heed_stream_chunk(stream, &ks, &vs, SIZE_MAX, &fewer));
    assert_in_range(fewer, 1024, 199999);
    shape[1] = values[1] = 77;
    expect_ok(heed_stream_chunk(stream, &ks, &vs, 1, &keys));
    assert_int_equal(keys, 77);
    expect_fails(heed_stream_chunk(stream, &ks, NULL, 1, &keys), HEED_ERROR_NULL, "v is null");
    ks.ndim = 3;
    expect_fails(heed_stream_chunk(stream, &ks, &vs, 1, &keys), HEED_ERROR_SHAPE, "k.ndim=3");
    heed_stream_cancel(stream);
    heed_context_destroy(context);
}

/* ---- rings ----------------------------------------------------------------------------------- */

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
        cmocka_unit_test(test_stream),        cmocka_unit_test(test_narrow_stream),
        cmocka_unit_test(test_bad_stream),    cmocka_unit_test(test_stream_chunk),
        cmocka_unit_test(test_stream_shards), cmocka_unit_test(test_runs),
        cmocka_unit_test(test_ring),          cmocka_unit_test(test_own_tokens),
        cmocka_unit_test(test_disagreement),  cmocka_unit_test(test_silence),
        cmocka_unit_test(test_bad_ring),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
