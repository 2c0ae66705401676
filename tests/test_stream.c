/* Streaming attention against one call over all keys: chunks, shards of queries, causal, windows,
 * grouped heads. */
#define _GNU_SOURCE
#include "one_call.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),       cmocka_unit_test(test_stream_shards),
        cmocka_unit_test(test_stream_chunk), cmocka_unit_test(test_narrow_stream),
        cmocka_unit_test(test_bad_stream),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
