/* Attention over ranks against one call: methods x layouts x ranks x masks x grouped heads x uneven
 * parts; decoding; documents; ranks that disagree or leave. */
#define _GNU_SOURCE
#include "kit_ranks.h"

#include "sequence.h"

enum { MOST = 6, METHODS = HEED_CONTEXT_PARALLEL_TREE + 1 };

static rank_t ranks[MOST];

/* Of each rank. */
static struct member {
    part_t part;
    bool leaves;
} members[MOST];

static heed_status_t attend(rank_t *rank)
{
    const struct member *member = rank->own;
    if (member->leaves)
        return HEED_OK;
    return heed_context_parallel_attention(rank->context, &rank->comm, &member->part.desc);
}

/* Members with parts of their own; a test may change them before they run. */
static void begin(heed_context_t *context, const sequence_t *seq, int layout, int size,
                  int everywhere, int method, int group)
{
    ranks_open(ranks, context, size, 60000);
    for (int r = 0; r < size; r++) {
        part_t *part = &members[r].part;
        members[r].leaves = false;
        part_make(seq, (heed_ring_layout_t)layout, size, r, everywhere, part);
        part->desc.method = (heed_context_parallel_method_t)method;
        part->desc.group = group;
    }
}

static void run_all(int size)
{
    ranks_run(ranks, size, attend, members, sizeof(members[0]));
}

static void end(int size)
{
    for (int r = 0; r < size; r++)
        part_free(&members[r].part);
}

static void expect_results(const sequence_t *seq, int size, const char *what)
{
    char problem[192];
    snprintf(problem, sizeof(problem),
             "%s, layout %d, group %d (%d queries of %d, %d of %d heads, causal %d, window %d,%d)",
             what, (int)members[0].part.desc.layout, members[0].part.desc.group, (int)seq->queries,
             (int)seq->tokens, (int)seq->key_heads, (int)seq->heads, seq->causal, (int)seq->left,
             (int)seq->right);
    expect_ranks(ranks, size, HEED_OK, NULL, problem);
    for (int r = 0; r < size; r++) {
        double error = part_error(seq, &members[r].part);
        if (!(error <= 1e-5))
            fail_msg("%s: rank %d of %d: off by %g", problem, r, size, error);
    }
}

/* Whether heads can be dealt out among so many. */
static bool deals(const sequence_t *seq, int group)
{
    return seq->heads % group == 0 && (seq->key_heads % group == 0 || group % seq->key_heads == 0);
}

static bool takes(const sequence_t *seq, int method, int size)
{
    if (method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL)
        return deals(seq, size);
    return method != HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING || (size % 2 == 0 && deals(seq, 2));
}

static void try_method(heed_context_t *context, const sequence_t *seq, int method, int size)
{
    int everywhere = method == HEED_CONTEXT_PARALLEL_TREE;
    int group = method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING ? 2 : 0;
    for (int layout = 0; layout < 3; layout++) {
        begin(context, seq, layout, size, everywhere, method, group);
        run_all(size);
        if (takes(seq, method, size)) {
            expect_results(seq, size,
                           heed_context_parallel_name((heed_context_parallel_method_t)method));
        } else {
            for (int r = 0; r < size; r++)
                assert_true(ranks[r].status == HEED_ERROR_UNSUPPORTED ||
                            (group && size % group && ranks[r].status == HEED_ERROR_VALUE));
        }
        end(size);
    }
}

/* ---- results --------------------------------------------------------------------------------- */

static const sequence_t sequences[] = {
    {2, 83, 0, 4, 4, 16, 24, 0, -1, -1, .q = NULL}, {1, 83, 0, 4, 2, 16, 16, 1, -1, -1, .q = NULL},
    {2, 61, 0, 8, 1, 8, 16, 1, 9, -1, .q = NULL},   {1, 64, 0, 4, 4, 8, 8, 0, 5, 7, .q = NULL},
    {1, 90, 7, 4, 2, 16, 8, 1, -1, -1, .q = NULL},  {2, 77, 11, 6, 3, 8, 8, 1, 30, -1, .q = NULL},
    {1, 40, 1, 4, 1, 16, 16, 1, -1, -1, .q = NULL}, {1, 3, 0, 4, 4, 8, 8, 1, -1, -1, .q = NULL},
};
enum { SEQUENCES = sizeof(sequences) / sizeof(sequences[0]) };

/* Documents: long and short, empty ones at either end and in the middle, of one token. */
static const int32_t mixed[] = {0, 0, 31, 31, 32, 70, 83, 83}, even[] = {0, 30, 60, 90};
static const int32_t tiny[] = {0, 1, 2, 3, 3, 4, 6, 7, 9, 9, 10, 61}, whole[] = {0, 64};

static const sequence_t ragged[] = {
    {2, 83, 0, 4, 4, 16, 24, 0, -1, -1, .starts = mixed, .documents = 7},
    {1, 83, 0, 4, 2, 16, 16, 1, -1, -1, .starts = mixed, .documents = 7},
    {1, 83, 0, 4, 1, 16, 16, 1, 6, -1, .starts = mixed, .documents = 7},
    {1, 83, 0, 4, 4, 8, 8, 0, 5, 7, .starts = mixed, .documents = 7},
    {1, 83, 40, 4, 2, 8, 8, 1, -1, -1, .starts = mixed, .documents = 7},
    {2, 90, 0, 4, 2, 16, 16, 1, 40, -1, .starts = even, .documents = 3},
    {2, 61, 0, 4, 4, 8, 16, 1, -1, -1, .starts = tiny, .documents = 11},
    {1, 64, 0, 4, 4, 8, 8, 1, -1, -1, .starts = whole, .documents = 1},
};
enum { RAGGED = sizeof(ragged) / sizeof(ragged[0]) };

static void test_methods(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const int sizes[] = {1, 2, 3, 4, 6};
    (void)state;
    for (int s = 0; s < SEQUENCES + RAGGED; s++) {
        sequence_t seq = s < SEQUENCES ? sequences[s] : ragged[s - SEQUENCES];
        expect_ok(sequence_make(context, &seq));
        for (int method = 0; method < METHODS; method++)
            for (int n = 0; n < 5; n++)
                try_method(context, &seq, method, sizes[n]);
        sequence_free(&seq);
    }
    heed_context_destroy(context);
}

/* Queries that every rank has: there is one way. */
static void test_everywhere(void **state)
{
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {2, 50, 3, 4, 2, 16, 16, 1, -1, -1, .q = NULL};
    (void)state;
    expect_ok(sequence_make(context, &seq));
    for (int layout = 0; layout < 3; layout++) {
        begin(context, &seq, layout, 3, 1, HEED_CONTEXT_PARALLEL_AUTO, 0);
        run_all(3);
        expect_results(&seq, 3, "auto with queries everywhere");
        end(3);
    }
    sequence_free(&seq);
    heed_context_destroy(context);
}

/* Rows whose every score is -inf are empty on all ranks, and on one where they have few keys. */
static void test_empty_rows(void **state)
{
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {1, 40, 5, 4, 2, 8, 8, 1, -1, -1, .q = NULL};
    (void)state;
    expect_ok(sequence_make(context, &seq));
    for (int i = 0; i < 5 * 4 * 8; i++)
        seq.q[i] = i / 8 % 4 < 2 ? 1e30f : 10;
    for (int i = 0; i < 40 * 2 * 8; i++)
        seq.k[i] = i / 8 % 2 == 0 ? -1e30f : i < 20 * 2 * 8 ? -1e38f : 1;
    expect_ok(sequence_attend(context, &seq));
    assert_true(seq.lse[0] == -INFINITY && seq.out[0] == 0 && isfinite(seq.lse[4 * 5 - 1]));
    for (int method = 0; method < METHODS; method++)
        try_method(context, &seq, method, 4);
    sequence_free(&seq);
    heed_context_destroy(context);
}

/* On whole tensors, in threads of this process; bf16 results are rounded once. */
static void test_virtual(void **state)
{
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {2, 70, 0, 4, 2, 16, 16, 1, -1, -1, .q = NULL};
    (void)state;
    expect_ok(sequence_make(context, &seq));
    for (int method = 0; method < HEED_CONTEXT_PARALLEL_TREE; method++) {
        for (int layout = 0; layout < 3; layout++) {
            part_t part;
            part_make(&seq, HEED_RING_CONTIGUOUS, 1, 0, 0, &part);
            part.desc.whole = 1;
            part.desc.layout = (heed_ring_layout_t)layout;
            part.desc.method = (heed_context_parallel_method_t)method;
            expect_ok(heed_context_parallel_virtual(context, 4, &part.desc));
            if (!(part_error(&seq, &part) <= 1e-5))
                fail_msg("method %d, layout %d: off by %g", method, layout,
                         part_error(&seq, &part));
            part_free(&part);
        }
    }
    sequence_free(&seq);
    heed_context_destroy(context);
}

static void test_narrow(void **state)
{
    heed_context_t *context = expect_context(NULL);
    enum { N = 96, H = 4, D = 16 };
    static uint16_t q[N * H * D], k[N * H * D], v[N * H * D], out[2][N * H * D];
    kit_random_t random = {5};
    (void)state;
    for (int i = 0; i < N * H * D; i++) {
        kit_store(HEED_BF16, q, i, kit_random_normal(&random));
        kit_store(HEED_BF16, k, i, kit_random_normal(&random));
        kit_store(HEED_BF16, v, i, kit_random_normal(&random));
    }
    heed_context_parallel_desc_t desc = heed_context_parallel_desc();
    desc.whole = 1;
    desc.tokens = N;
    desc.q = HEED_TENSOR(q, HEED_BF16, 1, N, H, D);
    desc.k = HEED_TENSOR(k, HEED_BF16, 1, N, H, D);
    desc.v = HEED_TENSOR(v, HEED_BF16, 1, N, H, D);
    for (int method = 1; method < HEED_CONTEXT_PARALLEL_TREE; method++) {
        double off = 0, size = 0;
        for (int way = 0; way < 2; way++) {
            desc.out = HEED_TENSOR(out[way], HEED_BF16, 1, N, H, D);
            desc.method = (heed_context_parallel_method_t)(way ? method : 1);
            expect_ok(heed_context_parallel_virtual(context, way ? 4 : 1, &desc));
        }
        for (int i = 0; i < N * H * D; i++) {
            double a = kit_load(HEED_BF16, out[0], i), b = kit_load(HEED_BF16, out[1], i);
            off += (a - b) * (a - b);
            size += a * a;
        }
        assert_true(sqrt(off / size) < 0.004);
    }
    heed_context_destroy(context);
}

/* ---- the choice of unlike ranks -------------------------------------------------------------- */

/* Ranks whose messages are unlike see unlike costs: the slowest one's count for all. */
static void test_unlike_ranks(void **state)
{
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {1, 90, 7, 4, 4, 16, 16, 1, -1, -1, .q = NULL};
    (void)state;
    expect_ok(sequence_make(context, &seq));
    for (int fast = 0; fast < 4; fast++) {
        begin(context, &seq, 0, 4, 0, HEED_CONTEXT_PARALLEL_AUTO, 0);
        for (int r = 0; r < 4; r++) {
            ranks[r].comm.bytes_per_second = r == fast ? 1e30 : 1;
            ranks[r].comm.latency_ns = 1e-9;
        }
        run_all(4);
        expect_results(&seq, 4, "auto of unlike ranks");
        end(4);
    }
    sequence_free(&seq);
    heed_context_destroy(context);
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static void test_disagreement(void **state)
{
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {1, 24, 0, 4, 2, 8, 8, 1, -1, -1, .q = NULL};
    (void)state;
    expect_ok(sequence_make(context, &seq));
    begin(context, &seq, 0, 3, 0, HEED_CONTEXT_PARALLEL_RING, 0);
    members[1].part.desc.method = HEED_CONTEXT_PARALLEL_ALL_GATHER;
    run_all(3);
    expect_ranks(ranks, 3, HEED_ERROR_COMM, "method is", "disagreement");
    for (int r = 0; r < 3; r++) /* nothing has moved */
        assert_true(isnan(members[r].part.out[0]));
    end(3);
    begin(context, &seq, 0, 3, 0, HEED_CONTEXT_PARALLEL_AUTO, 0);
    members[2].part.desc.causal = 0;
    run_all(3);
    expect_ranks(ranks, 3, HEED_ERROR_COMM, "causal is", "disagreement");
    end(3);
    begin(context, &seq, 0, 4, 0, HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING, 2);
    members[2].part.desc.group = 4;
    run_all(4);
    expect_ranks(ranks, 4, HEED_ERROR_COMM, "group is", "disagreement");
    end(4);
    int32_t starts[3][4] = {{0, 10, 20, 24}, {0, 10, 21, 24}, {0, 10, 24}};
    int64_t counts[3] = {4, 4, 3};
    for (int other = 1; other < 3; other++) {
        begin(context, &seq, 0, 3, 0, HEED_CONTEXT_PARALLEL_RING, 0);
        for (int r = 0; r < 3; r++) {
            int of = r < 2 ? 0 : other;
            members[r].part.desc.cu_seqlens =
                heed_tensor(starts[of], HEED_I32, 1, &counts[of], NULL);
        }
        run_all(3);
        expect_ranks(ranks, 3, HEED_ERROR_COMM,
                     other == 1 ? "checksum of cu_seqlens" : "number of documents", "disagreement");
        end(3);
    }
    begin(context, &seq, 0, 3, 0, HEED_CONTEXT_PARALLEL_AUTO, 0);
    members[0].part.desc.queries = 25;
    run_all(3);
    assert_int_equal(ranks[0].status, HEED_ERROR_VALUE);
    assert_int_equal(ranks[1].status, HEED_ERROR_COMM);
    assert_non_null(strstr(ranks[2].sentence, "rank 0 cannot take part"));
    end(3);
    sequence_free(&seq);
    heed_context_destroy(context);
}

static void test_leaving(void **state)
{
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {1, 24, 0, 4, 4, 8, 8, 0, -1, -1, .q = NULL};
    (void)state;
    expect_ok(sequence_make(context, &seq));
    for (int method = 0; method < HEED_CONTEXT_PARALLEL_TREE; method++) {
        begin(context, &seq, 0, 4, 0, method, 0);
        members[1].leaves = true;
        run_all(4);
        assert_int_equal(ranks[1].status, HEED_OK);
        expect_ranks(ranks, 1, HEED_ERROR_COMM, "rank 1 of 4 left", "leaving");
        expect_ranks(ranks + 2, 2, HEED_ERROR_COMM, "rank 1 of 4 left", "leaving");
        end(4);
    }
    sequence_free(&seq);
    heed_context_destroy(context);
}

static void test_bad(void **state)
{
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {1, 24, 0, 4, 4, 8, 8, 0, -1, -1, .q = NULL};
    heed_comm_t comm;
    part_t part;
    heed_context_parallel_verdict_t verdict;
    int32_t count;
    (void)state;
    expect_ok(sequence_make(context, &seq));
    expect_ok(heed_comm_threads(context, 1, 0, &comm));
    part_make(&seq, HEED_RING_CONTIGUOUS, 1, 0, 0, &part);
    heed_context_parallel_desc_t good = part.desc, *desc = &part.desc;
#define BAD(field, value, status, text)                                                    \
    do {                                                                                   \
        part.desc = good;                                                                  \
        part.desc.field = value;                                                           \
        expect_fails(heed_context_parallel_attention(context, &comm, desc), status, text); \
    } while (0)
    BAD(method, (heed_context_parallel_method_t)9, HEED_ERROR_VALUE, "method=9");
    BAD(group, -1, HEED_ERROR_VALUE, "group=-1");
    BAD(everywhere, 2, HEED_ERROR_VALUE, "everywhere=2");
    BAD(method, HEED_CONTEXT_PARALLEL_TREE, HEED_ERROR_UNSUPPORTED, "method tree");
    BAD(queries, 5, HEED_ERROR_SHAPE, "5 of 5 queries");
    BAD(tokens, 23, HEED_ERROR_SHAPE, "23 of 23 tokens");
    BAD(out.dtype, HEED_F16, HEED_ERROR_DTYPE, "out is f16");
    BAD(scale, NAN, HEED_ERROR_VALUE, "scale=");
    int32_t late[] = {1, 24}, falls[] = {0, 9, 8, 24}, ends[] = {0, 9, 23}, more[] = {0, 25};
    BAD(cu_seqlens, HEED_TENSOR(late, HEED_I32, 2), HEED_ERROR_VALUE, "cu_seqlens[0]=1");
    BAD(cu_seqlens, HEED_TENSOR(falls, HEED_I32, 4), HEED_ERROR_VALUE, "cu_seqlens[2]=8");
    BAD(cu_seqlens, HEED_TENSOR(ends, HEED_I32, 3), HEED_ERROR_VALUE, "=23, but tokens=24");
    BAD(cu_seqlens, HEED_TENSOR(more, HEED_I32, 2), HEED_ERROR_VALUE, "=25, but tokens=24");
    BAD(cu_seqlens, HEED_TENSOR(ends, HEED_I32, 1), HEED_ERROR_SHAPE, "cu_seqlens has 1 axes");
    BAD(cu_seqlens, HEED_TENSOR(ends, HEED_F32, 3), HEED_ERROR_DTYPE, "cu_seqlens is f32");
    BAD(cu_seqlens, HEED_TENSOR((void *)NULL, HEED_I32, 3), HEED_ERROR_NULL, "cu_seqlens.data");
    part.desc = good;
    expect_fails(heed_context_parallel_explain(context, 0, 0, 0, desc, &verdict, 1, &count),
                 HEED_ERROR_VALUE, "ranks=0");
    expect_fails(heed_context_parallel_virtual(context, 2, desc), HEED_ERROR_VALUE, "whole=0");
    part_free(&part);
    sequence_free(&seq);
    heed_comm_threads_free(&comm);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods), cmocka_unit_test(test_everywhere),
        cmocka_unit_test(test_virtual), cmocka_unit_test(test_empty_rows),
        cmocka_unit_test(test_narrow),  cmocka_unit_test(test_unlike_ranks),
        cmocka_unit_test(test_bad),     cmocka_unit_test(test_disagreement),
        cmocka_unit_test(test_leaving),
    };
    return cmocka_run_group_tests_name("context_parallel", tests, NULL, NULL);
}
