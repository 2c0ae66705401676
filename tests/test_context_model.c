/* What the model of attention over ranks says: balance, volumes, messages, documents, and what is
 * chosen by it. */
#include "expect.h"

#include <heed/heed.h>

#include <math.h>
#include <string.h>

static heed_context_parallel_verdict_t verdicts[32];

static int explain(heed_context_t *context, int ranks, double rate, double latency,
                   const heed_context_parallel_desc_t *desc)
{
    int32_t count;
    expect_ok(
        heed_context_parallel_explain(context, ranks, rate, latency, desc, verdicts, 32, &count));
    return count;
}

static const heed_context_parallel_verdict_t *find(int count, heed_context_parallel_method_t method,
                                                   int group)
{
    for (int i = 0; i < count; i++)
        if (verdicts[i].method == method && (!group || verdicts[i].group == group))
            return &verdicts[i];
    fail_msg("no verdict for method %d, group %d", (int)method, group);
    return NULL;
}

static const heed_context_parallel_verdict_t *chosen(int count)
{
    const heed_context_parallel_verdict_t *found = NULL;
    for (int i = 0; i < count; i++) {
        assert_true(!verdicts[i].chosen || !found);
        if (verdicts[i].chosen)
            found = &verdicts[i];
    }
    assert_non_null(found);
    return found;
}

static heed_context_parallel_desc_t long_problem(int64_t *shapes, int64_t n, int64_t heads,
                                                 int64_t key_heads, int64_t queries)
{
    heed_context_parallel_desc_t desc = heed_context_parallel_desc();
    memcpy(shapes, (int64_t[]){1, queries ? queries : n, heads, 128, 1, n, key_heads, 128},
           8 * sizeof(int64_t));
    desc.causal = 1;
    desc.tokens = n;
    desc.queries = queries;
    desc.q = heed_tensor(NULL, HEED_F32, 4, shapes, NULL);
    desc.k = heed_tensor(NULL, HEED_F32, 4, shapes + 4, NULL);
    desc.v = desc.k;
    desc.out = desc.q;
    return desc;
}

/* Without messages the causal ring's steps have the closed forms: contiguous parts do P / (2P - 1)
 * of what is possible, zigzag and all-to-all all of it. */
static void test_balance(void **state)
{
    heed_context_t *context = expect_context(NULL);
    int64_t shapes[8];
    (void)state;
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        double total[3];
        for (int layout = 0; layout < 3; layout++) {
            heed_context_parallel_desc_t desc = long_problem(shapes, 65536, 8, 8, 0);
            desc.layout = (heed_ring_layout_t)layout;
            int count = explain(context, ranks, 1e30, 1e-9, &desc);
            const heed_context_parallel_verdict_t *ring =
                find(count, HEED_CONTEXT_PARALLEL_RING, 0);
            double want = layout == 0 ? (double)ranks / (2 * ranks - 1) : 1;
            assert_true(fabs(ring->efficiency - want) < 0.002);
            assert_true(fabs(find(count, HEED_CONTEXT_PARALLEL_ALL_TO_ALL, 0)->efficiency - 1) <
                        0.002);
            total[layout] = ring->total_ns;
        }
        if (ranks == 4)
            assert_true(total[0] / total[1] >= 1.7);
    }
    heed_context_destroy(context);
}

/* Bytes as the closed forms of context_parallel.h have them. */
static void test_volumes(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const double n = 4096, heads = 8, key_heads = 4, row = 128 * 4, size = 4;
    int64_t shapes[8];
    (void)state;
    heed_context_parallel_desc_t desc = long_problem(shapes, 4096, 8, 4, 0);
    int count = explain(context, 4, 0, 0, &desc);
    double ring = (size - 1) / size * 2 * n * key_heads * row;
    double heads_for_tokens = (size - 1) / size / size * n * row * (2 * heads + 2 * key_heads);
    double pass = (size - 1) / size * n * heads * (row + (128 + 1) * 4);
    assert_true(find(count, HEED_CONTEXT_PARALLEL_RING, 0)->bytes == ring);
    assert_true(find(count, HEED_CONTEXT_PARALLEL_ALL_GATHER, 0)->bytes == ring);
    assert_true(find(count, HEED_CONTEXT_PARALLEL_ALL_TO_ALL, 0)->bytes == heads_for_tokens);
    assert_true(find(count, HEED_CONTEXT_PARALLEL_PASS_Q, 0)->bytes == pass);
    assert_true(find(count, HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING, 2)->bytes > heads_for_tokens);
    assert_int_equal(find(count, HEED_CONTEXT_PARALLEL_TREE, 0)->status, HEED_ERROR_UNSUPPORTED);
    desc = long_problem(shapes, 4096, 8, 4, 8);
    desc.everywhere = 1;
    count = explain(context, 4, 0, 0, &desc);
    assert_true(find(count, HEED_CONTEXT_PARALLEL_TREE, 0)->bytes ==
                2 * (size - 1) / size * 8 * heads * (128 + 2) * 4);
    heed_context_destroy(context);
}

/* Messages take their latency and their bytes, by what is assumed where nothing is said. */
static void test_messages(void **state)
{
    heed_context_t *context = expect_context(NULL);
    int64_t shapes[8];
    (void)state;
    heed_context_parallel_desc_t desc = long_problem(shapes, 4096, 8, 4, 8);
    double assumed =
        find(explain(context, 4, 0, 0, &desc), HEED_CONTEXT_PARALLEL_RING, 0)->transfer_ns;
    const heed_context_parallel_verdict_t *ring =
        find(explain(context, 4, 10e9, 10e3, &desc), HEED_CONTEXT_PARALLEL_RING, 0);
    assert_true(assumed == ring->transfer_ns);
    assert_true(fabs(assumed - (3 * 10e3 + ring->bytes / 10)) < 1);
    desc.everywhere = 1;
    const heed_context_parallel_verdict_t *tree =
        find(explain(context, 4, 1e30, 1e6, &desc), HEED_CONTEXT_PARALLEL_TREE, 0);
    assert_true(fabs(tree->transfer_ns - 4e6) < 1);
    heed_context_destroy(context);
}

/* A group that was asked for is the one that runs, though another be cheaper. */
static void test_group(void **state)
{
    heed_context_t *context = expect_context(NULL);
    int64_t shapes[8];
    (void)state;
    heed_context_parallel_desc_t desc = long_problem(shapes, 65536, 8, 8, 0);
    desc.method = HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING;
    for (desc.group = 2; desc.group <= 4; desc.group += 2)
        assert_int_equal(chosen(explain(context, 8, 10e9, 1e4, &desc))->group, desc.group);
    heed_context_destroy(context);
}

/* Causal documents that end where parts do are balanced, and cost a part of one long one's work. */
static void test_documents(void **state)
{
    heed_context_t *context = expect_context(NULL);
    int64_t shapes[8];
    int32_t starts[5];
    (void)state;
    heed_context_parallel_desc_t desc = long_problem(shapes, 65536, 8, 8, 0);
    double one =
        find(explain(context, 1, 1e30, 1e-9, &desc), HEED_CONTEXT_PARALLEL_RING, 0)->total_ns;
    for (int d = 0; d <= 4; d++)
        starts[d] = 16384 * d;
    desc.cu_seqlens = HEED_TENSOR(starts, HEED_I32, 5);
    double four =
        find(explain(context, 1, 1e30, 1e-9, &desc), HEED_CONTEXT_PARALLEL_RING, 0)->total_ns;
    assert_true(fabs(one / four - 4) < 0.001);
    for (int layout = 0; layout < 3; layout++) {
        desc.layout = (heed_ring_layout_t)layout;
        const heed_context_parallel_verdict_t *ring =
            find(explain(context, 4, 1e30, 1e-9, &desc), HEED_CONTEXT_PARALLEL_RING, 0);
        if (layout != HEED_RING_ZIGZAG)
            assert_true(fabs(ring->efficiency - 1) < 0.01);
        else
            assert_true(ring->efficiency < 0.9);
    }
    heed_context_destroy(context);
}

static void test_choice(void **state)
{
    heed_context_t *context = expect_context(NULL);
    int64_t shapes[8];
    (void)state;
    /* A slow network: few queries go to the keys, not the keys to them. */
    heed_context_parallel_desc_t desc = long_problem(shapes, 65536, 8, 8, 64);
    assert_int_equal(chosen(explain(context, 4, 1e9, 1e4, &desc))->method,
                     HEED_CONTEXT_PARALLEL_PASS_Q);
    desc.everywhere = 1;
    assert_int_equal(chosen(explain(context, 4, 1e9, 1e4, &desc))->method,
                     HEED_CONTEXT_PARALLEL_TREE);
    /* Causal contiguous parts: heads for tokens is balanced, and worth its messages. */
    desc = long_problem(shapes, 65536, 8, 8, 0);
    assert_int_equal(chosen(explain(context, 4, 10e9, 1e4, &desc))->method,
                     HEED_CONTEXT_PARALLEL_ALL_TO_ALL);
    /* Balanced already: what can be hidden. */
    desc.layout = HEED_RING_ZIGZAG;
    heed_context_parallel_method_t method = chosen(explain(context, 4, 10e9, 1e4, &desc))->method;
    assert_true(method == HEED_CONTEXT_PARALLEL_RING || method == HEED_CONTEXT_PARALLEL_ALL_GATHER);
    /* Heads that cannot be dealt out. */
    desc = long_problem(shapes, 65536, 6, 6, 0);
    int count = explain(context, 4, 10e9, 1e4, &desc);
    const heed_context_parallel_verdict_t *verdict =
        find(count, HEED_CONTEXT_PARALLEL_ALL_TO_ALL, 0);
    assert_int_equal(verdict->status, HEED_ERROR_UNSUPPORTED);
    assert_non_null(strstr(verdict->why, "6 heads of q are no multiple of 4 ranks"));
    assert_int_equal(find(count, HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING, 2)->status, HEED_OK);
    desc.method = HEED_CONTEXT_PARALLEL_RING;
    assert_int_equal(chosen(explain(context, 4, 10e9, 1e4, &desc))->method,
                     HEED_CONTEXT_PARALLEL_RING);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_balance),   cmocka_unit_test(test_volumes),
        cmocka_unit_test(test_documents), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_group),     cmocka_unit_test(test_choice),
    };
    return cmocka_run_group_tests_name("context_model", tests, NULL, NULL);
}
