/* Generated tile lists and scores of tiles: budgets, determinism, the mass that is kept. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t tiles_of(const heed_tile_list_t *list, int64_t row)
{
    return list->row_start[row + 1] - list->row_start[row];
}

static bool has(const heed_tile_list_t *list, int64_t row, int64_t column)
{
    for (int64_t e = list->row_start[row]; e < list->row_start[row + 1]; e++)
        if (list->column[e] == column)
            return true;
    return false;
}

static bool same(const heed_tile_list_t *a, const heed_tile_list_t *b)
{
    int64_t rows = a->batches * a->heads * a->rows;
    return memcmp(a->row_start, b->row_start, (size_t)(rows + 1) * 8) == 0 &&
           memcmp(a->column, b->column, (size_t)a->row_start[rows] * 4) == 0;
}

/* ---- budgets --------------------------------------------------------------------------------- */

/* Rows of 30 or 21 tiles, the last of them ragged; more queries than keys, and fewer. */
static const struct {
    int64_t queries, keys;
    int32_t tile;
} grids[] = {{1900, 1900, 64}, {1900, 1300, 64}, {700, 1900, 64}, {2600, 2600, 128}};

static void expect_budget(const heed_tiles_grid_t *grid, const heed_sparse_t *sparse,
                          const heed_tile_list_t *list)
{
    int64_t columns = (grid->keys + grid->tile_k - 1) / grid->tile_k;
    double wanted = 0, got = 0;
    for (int64_t r = 0; r < list->rows; r++) {
        int64_t last =
            (r + 1) * grid->tile_q < grid->queries ? (r + 1) * grid->tile_q : grid->queries;
        int64_t position = last - 1 + grid->keys - grid->queries, visible = columns;
        if (sparse->causal)
            visible = position < 0 ? 0 : position / grid->tile_k + 1;
        double keep = fmax(sparse->density * (double)visible, visible > 0);
        wanted += keep;
        got += (double)tiles_of(list, r);
        if (sparse->kind != HEED_SPARSE_LOCAL_GLOBAL)
            assert_true(fabs((double)tiles_of(list, r) - keep) <= 0.5 + 1e-9);
        assert_true(visible == 0 || tiles_of(list, r) > 0);
        for (int64_t e = list->row_start[r]; e < list->row_start[r + 1]; e++)
            assert_true(list->column[e] < visible && list->mask[e] == -1);
        if (visible > 0) /* the tile of the row's own position */
            assert_true(has(list, r,
                            position < 0                        ? 0
                            : position / grid->tile_k < visible ? position / grid->tile_k
                                                                : visible - 1));
    }
    if (fabs(got - wanted) > (double)list->rows)
        fail_msg("kind %d, density %g, causal %d: %g tiles instead of %g in %lld rows",
                 (int)sparse->kind, sparse->density, sparse->causal, got, wanted,
                 (long long)list->rows);
}

static void test_budgets(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const double densities[] = {0.01, 0.1, 0.25, 0.5, 0.93, 1};
    (void)state;
    for (int n = 0; n < 4 * 6 * 4 * 2; n++) {
        int g = n % 4, d = n / 4 % 6, kind = n / 24 % 4, causal = n / 96;
        heed_tiles_grid_t grid = heed_tiles_grid(grids[g].queries, grids[g].keys);
        heed_sparse_t sparse = heed_sparse((heed_sparse_kind_t)kind, densities[d]);
        heed_tile_list_t *list;
        grid.tile_q = grid.tile_k = grids[g].tile;
        sparse.causal = causal;
        expect_ok(heed_tiles_generate(context, &grid, &sparse, 1, &list));
        expect_budget(&grid, &sparse, list);
        heed_tiles_free(context, list);
    }
    heed_context_destroy(context);
}

/* The same on one thread and on two; another for another seed and for each head. */
static void test_random(void **state)
{
    heed_context_t *two = expect_context(NULL), *one = NULL;
    heed_context_config_t config = heed_context_config();
    heed_tiles_grid_t grid = heed_tiles_grid(4000, 4000);
    heed_sparse_t sparse = heed_sparse(HEED_SPARSE_RANDOM, 0.2);
    heed_tile_list_t *a, *b, *c;
    (void)state;
    config.ignore_environment = config.threads = 1;
    expect_ok(heed_context_create(&config, &one));
    grid.heads = 2;
    sparse.seed = 7;
    expect_ok(heed_tiles_generate(two, &grid, &sparse, 1, &a));
    expect_ok(heed_tiles_generate(one, &grid, &sparse, 1, &b));
    sparse.seed = 8;
    expect_ok(heed_tiles_generate(one, &grid, &sparse, 1, &c));
    assert_true(same(a, b));
    assert_false(same(a, c));
    int64_t half = a->row_start[a->rows];
    assert_memory_not_equal(a->column, a->column + half, (size_t)half * 4);
    /* Each column is as likely as the next: 126 rows of 13 out of 63. */
    int counts[63] = {0};
    for (int64_t e = 0; e < a->row_start[2 * a->rows]; e++)
        counts[a->column[e]]++;
    for (int column = 0; column < 63; column++)
        assert_in_range(counts[column], 8, 46);
    heed_tiles_free(two, a);
    heed_tiles_free(one, b);
    heed_tiles_free(one, c);
    heed_context_destroy(one);
    heed_context_destroy(two);
}

static void test_shapes(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(64 * 40, 64 * 40);
    heed_tile_list_t *list;
    (void)state;
    expect_ok(heed_tiles_from_text(context, &grid, "block_sparse:0.1", &list));
    for (int64_t column = 18; column < 22; column++)
        assert_true(has(list, 20, column));
    heed_tiles_free(context, list);
    /* Ten tiles: five nearest, five that divide the other 35 evenly. */
    expect_ok(heed_tiles_from_text(context, &grid, "strided:0.25", &list));
    for (int64_t column = 18; column < 23; column++)
        assert_true(has(list, 20, column));
    assert_true(has(list, 20, 11) && has(list, 20, 4) && has(list, 20, 37) && has(list, 20, 30) &&
                has(list, 20, 23));
    heed_tiles_free(context, list);
    expect_ok(heed_tiles_from_text(context, &grid, "local_global:0.25,2", &list));
    assert_int_equal(tiles_of(list, 0), 40);
    assert_int_equal(tiles_of(list, 1), 40);
    for (int64_t row = 2; row < 40; row++)
        assert_true(has(list, row, 0) && has(list, row, 1) && has(list, row, row));
    heed_tiles_free(context, list);
    heed_context_destroy(context);
}

/* ---- by scores ------------------------------------------------------------------------------- */

static void test_scored(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(64 * 4, 64 * 8);
    heed_sparse_t sparse = heed_sparse(HEED_SPARSE_LEARNED, 0.5);
    heed_tile_list_t *list;
    float scores[4][8] = {{1, 2, 3, 4, 5, 6, 7, 8},
                          {8, 7, 6, 5, 4, 3, 2, 1},
                          {NAN, 1, NAN, 1, 1, 1, 0, 0},
                          {0, 0, 90, 0, 5, 0, 0, 5}};
    (void)state;
    sparse.scores = &scores[0][0];
    sparse.globals = 1;
    /* Row r is at tile 4 + r (bottom right). Forced: 0 and that; the rest by score. */
    expect_ok(heed_tiles_generate(context, &grid, &sparse, 1, &list));
    const int32_t budget[4][4] = {{0, 4, 6, 7}, {0, 1, 2, 5}, {0, 1, 3, 6}, {0, 2, 4, 7}};
    for (int r = 0; r < 4; r++)
        assert_memory_equal(list->column + list->row_start[r], budget[r], sizeof(budget[r]));
    heed_tiles_free(context, list);
    /* A part of the mass: in row 3, tile 7 is forced with 5 of 100, 2 brings 90. */
    sparse.kind = HEED_SPARSE_DYNAMIC_THRESHOLD;
    sparse.density = 0;
    sparse.mass = 0.95;
    expect_ok(heed_tiles_generate(context, &grid, &sparse, 1, &list));
    assert_int_equal(tiles_of(list, 3), 3);
    assert_true(has(list, 3, 0) && has(list, 3, 2) && has(list, 3, 7));
    heed_tiles_free(context, list);
    sparse.scores = NULL;
    expect_fails(heed_tiles_generate(context, &grid, &sparse, 1, &list), HEED_ERROR_NULL, "scores");
    sparse.mass = 1.5;
    expect_fails(heed_tiles_generate(context, &grid, &sparse, 1, &list), HEED_ERROR_VALUE,
                 "mass=1.5");
    heed_context_destroy(context);
}

enum { B = 2, H = 4, HK = 2, D = 20, SQ = 150, SK = 200 };

static float q[B * SQ * H * D], k[B * SK * HK * D];

static double score_of(int b, int h, int i, int j)
{
    double sum = 0;
    for (int c = 0; c < D; c++)
        sum += (double)q[((b * SQ + i) * H + h) * D + c] *
               (double)k[((b * SK + j) * HK + h / (H / HK)) * D + c];
    return sum / sqrt((double)D);
}

/* The exact kinds against plain loops; every kind adds up to 1. */
static void check_scores(heed_context_t *context, int causal)
{
    heed_tiles_grid_t grid = heed_tiles_grid(SQ, SK);
    heed_block_scores_desc_t desc = heed_block_scores_desc(HEED_SCORE_MASS);
    static float mass[B][H][3][4], most[B][H][3][4], other[B][H][3][4];
    grid.batches = B, grid.heads = H;
    desc.q = HEED_TENSOR(q, HEED_F32, B, SQ, H, D);
    desc.k = HEED_TENSOR(k, HEED_F32, B, SK, HK, D);
    desc.causal = causal;
    expect_ok(heed_block_scores(context, &grid, &desc, &mass[0][0][0][0]));
    desc.kind = HEED_SCORE_MAX;
    expect_ok(heed_block_scores(context, &grid, &desc, &most[0][0][0][0]));
    for (int b = 0; b < B; b++) {
        for (int h = 0; h < H; h++) {
            double sums[3][4] = {{0}}, tops[3][4] = {{0}};
            for (int i = 0; i < SQ; i++) {
                double total = 0;
                int end = causal ? i + SK - SQ + 1 : SK;
                for (int j = 0; j < end; j++)
                    total += exp(score_of(b, h, i, j));
                for (int j = 0; j < end; j++) {
                    double weight = exp(score_of(b, h, i, j)) / total;
                    sums[i / 64][j / 64] += weight;
                    tops[i / 64][j / 64] = fmax(tops[i / 64][j / 64], weight);
                }
            }
            for (int n = 0; n < 12; n++) {
                double queries = n / 4 < 2 ? 64 : SQ - 128;
                assert_true(fabs(sums[n / 4][n % 4] / queries - (double)mass[b][h][n / 4][n % 4]) <
                            1e-5);
                assert_true(fabs(tops[n / 4][n % 4] - (double)most[b][h][n / 4][n % 4]) < 1e-5);
            }
        }
    }
    for (int kind = HEED_SCORE_POOLED; kind <= HEED_SCORE_MASS; kind++) {
        desc.kind = (heed_score_kind_t)kind;
        desc.stride = 8;
        expect_ok(heed_block_scores(context, &grid, &desc, &other[0][0][0][0]));
        for (int row = 0; row < B * H * 3; row++) {
            const float *at = &other[0][0][0][0] + row * 4;
            assert_true(fabs((double)(at[0] + at[1] + at[2] + at[3]) - 1) < 1e-5);
        }
    }
}

/* Sums along antidiagonals of 8 x 8, in plain loops; keys and queries past the end count as 0. */
static double antidiagonal(int b, int h, int group_q, int group_k)
{
    double sum = 0;
    for (int t = 0; t < 8; t++) {
        int i = group_q * 8 + 7 - t, j = group_k * 8 + t;
        sum += i < SQ && j < SK ? score_of(b, h, i, j) : 0;
    }
    return sum / 8;
}

static void check_antidiagonal(heed_context_t *context)
{
    enum { GROUPS_Q = (SQ + 7) / 8, GROUPS_K = (SK + 7) / 8 };
    heed_tiles_grid_t grid = heed_tiles_grid(SQ, SK);
    heed_block_scores_desc_t desc = heed_block_scores_desc(HEED_SCORE_ANTIDIAGONAL);
    static float got[B][H][3][4];
    grid.batches = B, grid.heads = H;
    desc.q = HEED_TENSOR(q, HEED_F32, B, SQ, H, D);
    desc.k = HEED_TENSOR(k, HEED_F32, B, SK, HK, D);
    desc.causal = 1;
    desc.stride = 8;
    expect_ok(heed_block_scores(context, &grid, &desc, &got[0][0][0][0]));
    for (int head = 0; head < B * H; head++) {
        double sums[3][4] = {{0}};
        for (int g = 0; g < GROUPS_Q; g++) {
            int last = g * 8 + 7 < SQ ? g * 8 + 7 : SQ - 1;
            int end = (last + SK - SQ) / 8 + 1;
            double total = 0;
            for (int j = 0; j < end && j < GROUPS_K; j++)
                total += exp(antidiagonal(head / H, head % H, g, j));
            for (int j = 0; j < end && j < GROUPS_K; j++)
                sums[g / 8][j / 8] += exp(antidiagonal(head / H, head % H, g, j)) / total;
        }
        for (int n = 0; n < 12; n++)
            assert_true(fabs(sums[n / 4][n % 4] / (n / 4 < 2 ? 8 : GROUPS_Q - 16) -
                             (double)got[head / H][head % H][n / 4][n % 4]) < 1e-5);
    }
}

static void test_scores(void **state)
{
    heed_context_t *context = expect_context(NULL);
    kit_random_t random = {5};
    (void)state;
    for (size_t i = 0; i < sizeof(q) / sizeof(float); i++)
        q[i] = (float)kit_random_normal(&random);
    for (size_t i = 0; i < sizeof(k) / sizeof(float); i++)
        k[i] = (float)kit_random_normal(&random);
    check_scores(context, 0);
    check_scores(context, 1);
    check_antidiagonal(context);
    heed_context_destroy(context);
}

static void test_bad_scores(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(SQ, SK);
    heed_block_scores_desc_t desc = heed_block_scores_desc(HEED_SCORE_POOLED);
    float scores[B * H * 12];
    (void)state;
    grid.batches = B, grid.heads = H;
    desc.q = HEED_TENSOR(q, HEED_F32, B, SQ, H, D);
    desc.k = HEED_TENSOR(k, HEED_F32, B, SK, HK, D);
    desc.stride = 7;
    expect_fails(heed_block_scores(context, &grid, &desc, scores), HEED_ERROR_VALUE, "stride=7");
    desc.stride = 0, desc.scale = INFINITY;
    expect_fails(heed_block_scores(context, &grid, &desc, scores), HEED_ERROR_VALUE, "scale");
    desc.scale = 0, grid.keys = 10;
    expect_fails(heed_block_scores(context, &grid, &desc, scores), HEED_ERROR_SHAPE, "k.shape[1]");
    grid.keys = SK;
    desc.k = HEED_TENSOR(k, HEED_F16, B, SK, HK, D);
    expect_fails(heed_block_scores(context, &grid, &desc, scores), HEED_ERROR_DTYPE, "k is f16");
    desc.k = HEED_TENSOR(NULL, HEED_F32, B, SK, HK, D);
    expect_fails(heed_block_scores(context, &grid, &desc, scores), HEED_ERROR_NULL, "k.data");
    heed_context_destroy(context);
}

/* ---- planted structure ----------------------------------------------------------------------- */

enum { N = 2560, PD = 64 }; /* 40 tiles */

static float pq[N * PD], pk[N * PD], pv[N * PD], dense_out[N * PD], sparse_out[N * PD];
static float dense_lse[N], sparse_lse[N];

/* Every query looks at the sink, at its neighbours' tile, and at one needle of 64 keys. */
static void plant(void)
{
    static float directions[42][PD];
    kit_random_t random = {11};
    for (int n = 0; n < 42 * PD; n++)
        directions[n / PD][n % PD] = (float)kit_random_normal(&random);
    for (int i = 0; i < N; i++) {
        int tile = i / 64, needle = (tile * 17 + 5) % 40;
        for (int c = 0; c < PD; c++) {
            pk[i * PD + c] = directions[tile][c] + 0.1f * (float)kit_random_normal(&random);
            pq[i * PD + c] =
                1.2f * (directions[tile][c] + directions[needle][c] + directions[0][c]) +
                0.1f * (float)kit_random_normal(&random);
            pv[i * PD + c] = (float)kit_random_normal(&random);
        }
    }
}

static void attend(heed_context_t *context, const heed_tile_list_t *tiles, float *out, float *lse)
{
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(pq, HEED_F32, 1, N, 1, PD);
    desc.k = HEED_TENSOR(pk, HEED_F32, 1, N, 1, PD);
    desc.v = HEED_TENSOR(pv, HEED_F32, 1, N, 1, PD);
    desc.out = HEED_TENSOR(out, HEED_F32, 1, N, 1, PD);
    desc.lse = HEED_TENSOR(lse, HEED_F32, 1, 1, N);
    desc.tiles = tiles;
    expect_ok(heed_attention(context, &desc));
}

/* The part of each query's mass that the list keeps is exp(lse - dense lse). */
static double recall_of(heed_context_t *context, const heed_tiles_grid_t *grid, const float *scores,
                        double *error)
{
    heed_sparse_t sparse = heed_sparse(HEED_SPARSE_DYNAMIC_THRESHOLD, 0.1);
    heed_tile_list_t *list;
    double recall = 0, off = 0, all = 0;
    sparse.scores = scores;
    sparse.globals = 1;
    expect_ok(heed_tiles_generate(context, grid, &sparse, 1, &list));
    attend(context, list, sparse_out, sparse_lse);
    heed_tiles_free(context, list);
    for (int i = 0; i < N; i++)
        recall += exp((double)sparse_lse[i] - (double)dense_lse[i]) / N;
    for (int i = 0; i < N * PD; i++) {
        off += pow((double)sparse_out[i] - (double)dense_out[i], 2);
        all += pow((double)dense_out[i], 2);
    }
    *error = sqrt(off / all);
    return recall;
}

static void test_recall(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(N, N);
    static float scores[40 * 40];
    double oracle = 0, error;
    (void)state;
    plant();
    attend(context, NULL, dense_out, dense_lse);
    for (int kind = HEED_SCORE_MASS; kind >= HEED_SCORE_POOLED; kind--) {
        heed_block_scores_desc_t desc = heed_block_scores_desc((heed_score_kind_t)kind);
        desc.q = HEED_TENSOR(pq, HEED_F32, 1, N, 1, PD);
        desc.k = HEED_TENSOR(pk, HEED_F32, 1, N, 1, PD);
        expect_ok(heed_block_scores(context, &grid, &desc, scores));
        double recall = recall_of(context, &grid, scores, &error);
        if (kind == HEED_SCORE_MASS)
            oracle = recall;
        print_message("score kind %d: recall %.5f, output error %.2e\n", kind, recall, error);
        assert_true(recall >= 0.99 && recall >= oracle - 0.01 && error <= 1e-2);
    }
    /* Chance alone keeps little: the data are no gift. */
    for (int i = 0; i < 1600; i++)
        scores[i] = (float)((i * 7919) % 1601);
    assert_true(recall_of(context, &grid, scores, &error) < 0.9);
    heed_context_destroy(context);
}

/* ---- dense attention instead ----------------------------------------------------------------- */

static heed_plan_t *plan_of(heed_context_t *context, const char *text)
{
    heed_problem_t *problem;
    heed_plan_t *plan;
    void *desc;
    expect_ok(heed_problem_parse(text, &problem));
    expect_ok(heed_problem_desc(problem, &desc));
    expect_ok(heed_plan_create(context, "attention", desc, &plan));
    heed_problem_destroy(problem);
    return plan;
}

static const char *impl_of(const heed_plan_t *plan, heed_plan_info_t *info)
{
    *info = (heed_plan_info_t){.struct_size = sizeof(*info)};
    expect_ok(heed_plan_info(plan, info));
    return info->impl;
}

/* Lists whose every tile is listed with a mask gain nothing; those of a quarter do; and a list that
 * is meant as it is stays, whatever it costs. */
static void test_optional(void **state)
{
    static const char *const sizes = "attention sq=2048 sk=2048 hq=2 d=64 ";
    heed_context_t *context = expect_context(NULL);
    heed_plan_info_t info, dense;
    heed_verdict_t verdict;
    char text[256];
    bool told = false;
    (void)state;
    snprintf(text, sizeof(text), "%stiles=text:lattice:2 tiles-optional=1", sizes);
    heed_plan_t *plan = plan_of(context, text);
    assert_string_equal(impl_of(plan, &info), "cpu:dense");
    for (int i = 0; heed_plan_verdict(plan, i, &verdict); i++)
        told = told || strstr(verdict.why, "dense attention is predicted to take");
    assert_true(told);
    heed_plan_destroy(plan);
    plan = plan_of(context, sizes);
    (void)impl_of(plan, &dense);
    assert_true(fabs(dense.estimate_ns - info.estimate_ns) < 1e-3 * dense.estimate_ns);
    heed_plan_destroy(plan);
    static const char *const kept[] = {"tiles=text:lattice:2",
                                       "tiles=text:random:0.25 tiles-optional=1"};
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof(text), "%s%s", sizes, kept[i]);
        plan = plan_of(context, text);
        assert_non_null(strstr(impl_of(plan, &info), "cpu:flash_"));
        assert_true(i > 0 || info.estimate_ns > 1.02 * dense.estimate_ns); /* masks cost */
        heed_plan_destroy(plan);
    }
    /* A quarter of the tiles is predicted to take about a quarter of the time. */
    assert_true(info.estimate_ns > 0.2 * dense.estimate_ns);
    assert_true(info.estimate_ns < 0.35 * dense.estimate_ns);
    heed_attention_desc_t desc = heed_attention_desc();
    int64_t shape[4] = {1, 8, 1, 16};
    desc.q = desc.k = desc.v = desc.out = heed_tensor(NULL, HEED_F32, 4, shape, NULL);
    desc.tiles_optional = 2;
    expect_fails(heed_attention_plan(context, &desc, &plan), HEED_ERROR_VALUE, "tiles_optional=2");
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budgets), cmocka_unit_test(test_random),
        cmocka_unit_test(test_shapes),  cmocka_unit_test(test_scored),
        cmocka_unit_test(test_scores),  cmocka_unit_test(test_bad_scores),
        cmocka_unit_test(test_recall),  cmocka_unit_test(test_optional),
    };
    return cmocka_run_group_tests_name("sparse", tests, NULL, NULL);
}
