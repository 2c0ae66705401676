/* Tile lists of predicates, masks and other lists, pair by pair against the definitions. The counts
 * are those of tests/data's makers: computed in another language from the same words. */
#define _GNU_SOURCE
#include "expect.h"

#include "kit.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 256 };

static uint8_t seen[MOST][MOST]; /* [query][key] of the list that was read last */

/* ---- reading lists --------------------------------------------------------------------------- */

static void read_tile(const heed_tiles_grid_t *grid, const heed_tile_list_t *list, int64_t row,
                      int64_t entry)
{
    int words = grid->tile_q / 64;
    int32_t mask = list->mask[entry];
    int holes = 0, any = 0;
    for (int64_t j = 0; j < grid->tile_k; j++) {
        for (int64_t i = 0; i < grid->tile_q; i++) {
            int64_t query = row * grid->tile_q + i;
            int64_t key = (int64_t)list->column[entry] * grid->tile_k + j;
            const uint64_t *bits = list->bits + ((int64_t)mask * grid->tile_k + j) * words;
            if (query >= grid->queries || key >= grid->keys)
                continue;
            int sees = mask < 0 || (bits[i / 64] >> i % 64 & 1);
            seen[query][key] = (uint8_t)sees;
            holes += !sees;
            any += sees;
        }
    }
    assert_true(any > 0); /* no tile for nothing, no mask where there is nothing to mask */
    assert_int_equal(mask < 0, holes == 0);
}

/* Plane (batch, head) of a list into `seen`. */
static void read_plane(const heed_tiles_grid_t *grid, const heed_tile_list_t *list, int64_t batch,
                       int64_t head)
{
    int64_t plane = (list->batches > 1 ? batch : 0) * list->heads + (list->heads > 1 ? head : 0);
    memset(seen, 0, sizeof(seen));
    assert_int_equal(list->tile_q, grid->tile_q);
    assert_int_equal(list->tile_k, grid->tile_k);
    assert_int_equal(list->rows, (grid->queries + grid->tile_q - 1) / grid->tile_q);
    for (int64_t row = 0; row < list->rows; row++) {
        int64_t at = plane * list->rows + row;
        for (int64_t e = list->row_start[at]; e < list->row_start[at + 1]; e++) {
            assert_true(e == list->row_start[at] || list->column[e] > list->column[e - 1]);
            read_tile(grid, list, row, e);
        }
    }
}

static int64_t count_seen(const heed_tiles_grid_t *grid)
{
    int64_t pairs = 0;
    for (int64_t i = 0; i < grid->queries; i++)
        for (int64_t j = 0; j < grid->keys; j++)
            pairs += seen[i][j];
    return pairs;
}

/* ---- patterns -------------------------------------------------------------------------------- */

#define MOD(a, m) ((((a) % (m)) + (m)) % (m))

static int in(int x, const int *list, int count)
{
    for (int n = 0; n < count; n++)
        if (list[n] == x)
            return 1;
    return 0;
}
#define IN(x, ...) in((x), (int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)))

static int document_of(int token)
{
    return token < 20 ? 0 : token < 21 ? 1 : token < 65 ? 2 : 4;
}

/* name, queries, keys, text, visible pairs, definition in i, j and p = i + keys - queries */
#define PATTERNS(X)                                                                                \
    X(causal, 100, 100, "causal", 5050, j <= i)                                                    \
    X(causal_top_left_60, 60, 100, "causal:top-left", 1830, j <= i)                                \
    X(causal_60, 60, 100, "causal", 4230, j <= p)                                                  \
    X(causal_top_left_100, 100, 60, "causal:top-left", 4230, j <= i)                               \
    X(causal_empty_rows, 100, 60, "causal", 1830, j <= p)                                          \
    X(window_8_0, 100, 100, "band:8,0", 864, i - 8 <= j && j <= i)                                 \
    X(window_0_8, 100, 100, "band:0,8", 864, i <= j && j <= i + 8)                                 \
    X(window_5_11, 100, 100, "band:5,11", 1619, i - 5 <= j && j <= i + 11)                         \
    X(window_0_0, 100, 100, "band:0,0", 100, i == j)                                               \
    X(window_200, 100, 100, "band:200,200", 10000, 1)                                              \
    X(window_60, 60, 100, "band:9,3", 774, p - 9 <= j && j <= p + 3)                               \
    X(window_causal, 130, 130, "band:16,-1 & causal", 2074, j <= i && j >= i - 16)                 \
    X(sink_window, 130, 130, "first:4 & causal | band:12,0", 2074,                                 \
      j <= i && (j < 4 || i - 12 <= j))                                                            \
    X(local_global, 100, 100, "band:6,6 | keys:0,1,50 | queries:0,1,50", 1798,                     \
      abs(i - j) <= 6 || IN(i, 0, 1, 50) || IN(j, 0, 1, 50))                                       \
    X(local_global_causal, 100, 100, "band:6,0 | keys:0,1,50,causal | queries:0,1,50,causal", 949, \
      j <= i && (i - j <= 6 || IN(i, 0, 1, 50) || IN(j, 0, 1, 50)))                                \
    X(local_blocks_16, 100, 100, "blocks:16", 1552, i / 16 == j / 16)                              \
    X(local_blocks_24, 100, 100, "blocks:24", 2320, i / 24 == j / 24)                              \
    X(strided_causal, 100, 100, "band:7,0 | lattice:8,causal", 1348,                               \
      j <= i && (i - j <= 7 || (i - j) % 8 == 0))                                                  \
    X(strided, 100, 100, "band:7,7|lattice:8", 2596, abs(i - j) <= 7 || (i - j) % 8 == 0)          \
    X(fixed_causal, 100, 100, "blocks:16,causal | tails:16,2,causal", 1354,                        \
      j <= i && (j / 16 == i / 16 || j % 16 >= 14))                                                \
    X(dilated_2, 100, 100, "lattice:2", 5000, (i - j) % 2 == 0)                                    \
    X(dilated_3, 100, 100, "lattice:3", 3334, (i - j) % 3 == 0)                                    \
    X(dilated_3_window, 100, 100, "lattice:3 & band:21,21", 1332,                                  \
      (i - j) % 3 == 0 && abs(i - j) <= 21)                                                        \
    X(segments_16_2, 100, 100, "segments:16,2,0", 388,                                             \
      i / 16 == j / 16 && i % 2 == 0 && j % 2 == 0)                                                \
    X(segments_20_3, 100, 100, "segments:20,3,2", 180,                                             \
      i / 20 == j / 20 && i % 20 % 3 == 2 && j % 20 % 3 == 2)                                      \
    X(documents, 100, 100, "documents:20,1,44,0,35", 3562, document_of(i) == document_of(j))       \
    X(documents_causal, 100, 100, "documents:20,1,44,0,35 & causal", 1831,                         \
      document_of(i) == document_of(j) && j <= i)                                                  \
    X(prefix_lm, 100, 100, "causal | first:30", 5485, j <= i || j < 30)                            \
    X(vertical_slash, 130, 130, "keys:0,1,37,90,causal | slashes:0,1,2,17,64", 939,                \
      j <= i && (IN(j, 0, 1, 37, 90) || IN(i - j, 0, 1, 2, 17, 64)))                               \
    X(either, 100, 100, "band:5,11 | lattice:3", 4474,                                             \
      (i - 5 <= j && j <= i + 11) || (i - j) % 3 == 0)                                             \
    X(both, 100, 100, "band:5,11 & lattice:3", 479,                                                \
      (i - 5 <= j && j <= i + 11) && (i - j) % 3 == 0)                                             \
    X(far_lattice, 250, 250, "lattice:100", -1, (i - j) % 100 == 0)                                \
    X(far_lattice_shifted, 130, 250, "lattice:90,causal", -1, j <= p && MOD(p - j, 90) == 0)       \
    X(far_tails, 250, 250, "tails:100,3", -1, j % 100 >= 97)                                       \
    X(far_segments, 250, 250, "segments:150,70,69", -1,                                            \
      i / 150 == j / 150 && i % 150 % 70 == 69 && j % 150 % 70 == 69)                              \
    X(negative_slashes, 100, 200, "slashes:-70,-1,99", -1, IN(p - j, -70, -1, 99))                 \
    X(documents_short, 200, 200, "documents:60,70", -1,                                            \
      i < 130 && j < 130 && (i < 60) == (j < 60))                                                  \
    X(nothing, 70, 70, "first:0", 0, 0)

#define ENUMERATE(name, sq, sk, text, pairs, see) name,
enum { PATTERNS(ENUMERATE) PATTERN_COUNT };

static const struct {
    const char *name;
    int queries, keys;
    const char *text;
    int64_t pairs; /* -1: only by definition */
} patterns[] = {
#define ROW(name, sq, sk, text, pairs, see) {#name, sq, sk, text, pairs},
    PATTERNS(ROW)};

static int sees(int number, int i, int j)
{
    int p = i + patterns[number].keys - patterns[number].queries;
    (void)p;
    switch (number) {
#define CASE(name, sq, sk, text, pairs, see) \
    case name:                               \
        return see;
        PATTERNS(CASE)
    }
    return 0;
}

static void check_pattern(heed_context_t *context, int number, int tile_q, int tile_k)
{
    heed_tiles_grid_t grid = heed_tiles_grid(patterns[number].queries, patterns[number].keys);
    heed_tile_list_t *list = NULL;
    heed_tiles_count_t count;
    grid.tile_q = tile_q;
    grid.tile_k = tile_k;
    expect_ok(heed_tiles_from_text(context, &grid, patterns[number].text, &list));
    read_plane(&grid, list, 0, 0);
    for (int i = 0; i < grid.queries; i++)
        for (int j = 0; j < grid.keys; j++)
            if (seen[i][j] != sees(number, i, j))
                fail_msg("%s: query %d, key %d is %d", patterns[number].name, i, j, seen[i][j]);
    if (patterns[number].pairs >= 0)
        assert_int_equal(count_seen(&grid), patterns[number].pairs);
    expect_ok(heed_tiles_count(&grid, list, &count));
    assert_true(count.pairs == (double)count_seen(&grid));
    assert_true(count.density == count.pairs / (double)(grid.queries * grid.keys));
    heed_tiles_free(context, list);
}

static void test_patterns(void **state)
{
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (int number = 0; number < PATTERN_COUNT; number++)
        for (int tiles = 0; tiles < 4; tiles++)
            check_pattern(context, number, tiles & 1 ? 128 : 64, tiles & 2 ? 128 : 64);
    heed_context_destroy(context);
}

/* A mixture: each head its own pattern, and what attention makes of it is tested in test_sparse. */
static void test_mixture(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(100, 100);
    heed_tile_list_t *list;
    heed_pattern_t heads[3] = {heed_pattern(HEED_PATTERN_ALL), heed_pattern(HEED_PATTERN_BLOCKS),
                               heed_pattern(HEED_PATTERN_LATTICE)};
    const int64_t pairs[3] = {10000, 1552, 3334};
    (void)state;
    heads[1].size = 16;
    heads[2].size = 3;
    grid.heads = 3;
    expect_ok(heed_tiles_from_pattern(context, &grid, heads, 3, &list));
    for (int h = 0; h < 3; h++) {
        read_plane(&grid, list, 0, h);
        assert_int_equal(count_seen(&grid), pairs[h]);
    }
    heed_tiles_free(context, list);
    heed_context_destroy(context);
}

/* ---- masks and rows -------------------------------------------------------------------------- */

enum { PLANES = 4, SQ = 200, SK = 250, WORDS = 4 };

static uint8_t want[PLANES][SQ][SK];
static uint64_t words[PLANES][SQ][WORDS];
static int64_t row_start[PLANES * SQ + 1];
static int32_t column[PLANES * SQ * SK];

/* A random mask with empty rows, empty and full tiles, as bits and as compressed rows. */
static void draw(uint64_t seed)
{
    kit_random_t random = {seed};
    int64_t entries = 0;
    memset(words, 0, sizeof(words));
    for (int p = 0; p < PLANES; p++) {
        for (int i = 0; i < SQ; i++) {
            for (int j = 0; j < SK; j++) {
                int kind = (p + i / 64 + j / 64) % 3;
                want[p][i][j] = kind == 2 || (kind == 1 && kit_random_int(&random, 0, 4) == 0);
                words[p][i][j / 64] |= (uint64_t)want[p][i][j] << j % 64;
                if (want[p][i][j])
                    column[entries++] = j;
            }
            row_start[p * SQ + i + 1] = entries;
        }
    }
}

static void expect_wanted(const heed_tiles_grid_t *grid, const heed_tile_list_t *list)
{
    for (int p = 0; p < PLANES; p++) {
        read_plane(grid, list, p / 2, p % 2);
        for (int i = 0; i < SQ; i++)
            assert_memory_equal(seen[i], want[p][i], SK);
    }
}

static void test_masks(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tile_list_t *list;
    (void)state;
    draw(1);
    for (int tiles = 0; tiles < 4; tiles++) {
        heed_tiles_grid_t grid = heed_tiles_grid(SQ, SK);
        grid.batches = grid.heads = 2;
        grid.tile_q = tiles & 1 ? 128 : 64;
        grid.tile_k = tiles & 2 ? 128 : 64;
        expect_ok(heed_tiles_from_bits(context, &grid, &words[0][0][0], &list));
        expect_wanted(&grid, list);
        heed_tiles_free(context, list);
        expect_ok(heed_tiles_from_csr(context, &grid, row_start, column, &list));
        expect_wanted(&grid, list);
        heed_tiles_free(context, list);
    }
    heed_context_destroy(context);
}

/* Blocks of any size, larger than a tile too. */
static void test_blocks(void **state)
{
    heed_context_t *context = expect_context(NULL);
    const int sizes[][2] = {{16, 16}, {1, 7}, {100, 30}, {250, 300}};
    (void)state;
    for (int s = 0; s < 4; s++) {
        heed_tiles_grid_t grid = heed_tiles_grid(SQ, SK);
        heed_tile_list_t *list;
        int block_q = sizes[s][0], block_k = sizes[s][1];
        int rows = (SQ + block_q - 1) / block_q, columns = (SK + block_k - 1) / block_k;
        int64_t entries = 0;
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < columns; c++)
                if ((r * 7 + c * 3) % 4 == 0)
                    column[entries++] = c;
            row_start[r + 1] = entries;
        }
        expect_ok(
            heed_tiles_from_blocks(context, &grid, block_q, block_k, row_start, column, &list));
        read_plane(&grid, list, 0, 0);
        for (int i = 0; i < SQ; i++)
            for (int j = 0; j < SK; j++)
                assert_int_equal(seen[i][j], (i / block_q * 7 + j / block_k * 3) % 4 == 0);
        heed_tiles_free(context, list);
    }
    heed_context_destroy(context);
}

/* ---- lists of lists -------------------------------------------------------------------------- */

/* One list for all planes and one each, joined. */
static void test_combining(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(SQ, SK), shared = grid;
    heed_tile_list_t *each, *one, *both, *either;
    (void)state;
    draw(2);
    grid.batches = grid.heads = 2;
    expect_ok(heed_tiles_from_bits(context, &grid, &words[0][0][0], &each));
    expect_ok(heed_tiles_from_text(context, &shared, "lattice:3 | blocks:64", &one));
    expect_ok(heed_tiles_and(context, &grid, each, one, &both));
    expect_ok(heed_tiles_or(context, &grid, one, each, &either));
    for (int p = 0; p < PLANES; p++) {
        for (int way = 0; way < 2; way++) {
            read_plane(&grid, way ? either : both, p / 2, p % 2);
            for (int i = 0; i < SQ; i++) {
                for (int j = 0; j < SK; j++) {
                    int other = (i + SK - SQ - j) % 3 == 0 || i / 64 == j / 64;
                    assert_int_equal(seen[i][j],
                                     way ? want[p][i][j] | other : want[p][i][j] & other);
                }
            }
        }
    }
    heed_tiles_free(context, each);
    heed_tiles_free(context, one);
    heed_tiles_free(context, both);
    heed_tiles_free(context, either);
    heed_context_destroy(context);
}

static void test_transposing(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(SQ, SK), back;
    heed_tile_list_t *list, *turned, *again;
    (void)state;
    draw(3);
    grid.batches = grid.heads = 2;
    grid.tile_q = 128;
    back = grid;
    back.tile_q = 64, back.tile_k = 128;
    back.queries = SK, back.keys = SQ;
    expect_ok(heed_tiles_from_bits(context, &grid, &words[0][0][0], &list));
    expect_ok(heed_tiles_transpose(context, &grid, list, &turned));
    expect_ok(heed_tiles_transpose(context, &back, turned, &again));
    for (int p = 0; p < PLANES; p++) {
        read_plane(&back, turned, p / 2, p % 2);
        for (int i = 0; i < SQ; i++)
            for (int j = 0; j < SK; j++)
                assert_int_equal(seen[j][i], want[p][i][j]);
    }
    expect_wanted(&grid, again);
    heed_tiles_free(context, list);
    heed_tiles_free(context, turned);
    heed_tiles_free(context, again);
    heed_context_destroy(context);
}

/* ---- bad input ------------------------------------------------------------------------------- */

static void test_bad_text(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(100, 100);
    heed_tile_list_t *list = NULL;
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "is not the name"},           {"band:1,0 &", "is not the name"},
        {"spiral", "'spiral' is no term"}, {"band:1", "takes 2 to 2"},
        {"band:-2,0", "-1 is open"},       {"lattice:0", "pattern.size=0"},
        {"tails:4,5", "pattern.rate=5"},   {"segments:8,2,2", "offset=2"},
        {"keys:3,3", "numbers ascend"},    {"documents:4,-1", "numbers ascend"},
        {"keys:9999999999", "31 bits"},    {"random:0", "density=0"},
        {"random:1.5", "density=1.5"},     {"first:1 first:2", "& or | follows"},
        {"keys:,", "is no number"},        {"all | band:nan,0", "31 bits"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        expect_fails(heed_tiles_from_text(context, &grid, bad[i].text, &list), HEED_ERROR_VALUE,
                     bad[i].words);
        assert_null(list);
    }
    heed_context_destroy(context);
}

static void test_bad_lists(void **state)
{
    heed_context_t *context = expect_context(NULL);
    heed_tiles_grid_t grid = heed_tiles_grid(100, 100), other = grid;
    heed_tile_list_t *list = NULL, *made;
    int64_t starts[101] = {0, 2};
    int32_t columns[2] = {5, 4};
    uint64_t bits[200] = {0};
    double density;
    (void)state;
    for (int r = 2; r <= 100; r++)
        starts[r] = 2;
    expect_fails(heed_tiles_from_csr(context, &grid, starts, columns, &list), HEED_ERROR_VALUE,
                 "column[1]=4");
    columns[1] = 100;
    expect_fails(heed_tiles_from_csr(context, &grid, starts, columns, &list), HEED_ERROR_VALUE,
                 "below 100");
    starts[50] = 1;
    expect_fails(heed_tiles_from_csr(context, &grid, starts, columns, &list), HEED_ERROR_VALUE,
                 "row_start[50]=1");
    starts[0] = 1;
    expect_fails(heed_tiles_from_csr(context, &grid, starts, columns, &list), HEED_ERROR_VALUE,
                 "row_start[0]=1");
    expect_fails(heed_tiles_from_blocks(context, &grid, 0, 4, starts, columns, &list),
                 HEED_ERROR_VALUE, "block_q=0");
    expect_fails(heed_tiles_from_bits(context, &grid, NULL, &list), HEED_ERROR_NULL, "bits");
    grid.tile_q = 32;
    expect_fails(heed_tiles_from_bits(context, &grid, bits, &list), HEED_ERROR_VALUE, "tile_q=32");
    grid.tile_q = 64, grid.heads = 0;
    expect_fails(heed_tiles_from_bits(context, &grid, bits, &list), HEED_ERROR_SHAPE, "heads=0");
    grid.heads = 1, grid.keys = -1;
    expect_fails(heed_tiles_from_bits(context, &grid, bits, &list), HEED_ERROR_SHAPE, "keys=-1");
    grid.keys = 100, grid.struct_size = 3;
    expect_fails(heed_tiles_from_bits(context, &grid, bits, &list), HEED_ERROR_STRUCT_SIZE, "grid");
    grid = other;
    expect_ok(heed_tiles_from_text(context, &grid, "causal", &made));
    other.tile_q = 128;
    expect_fails(heed_tiles_and(context, &other, made, made, &list), HEED_ERROR_VALUE, "128 x 64");
    other.tile_q = 64, other.tile_k = 128;
    expect_fails(heed_tiles_or(context, &other, made, made, &list), HEED_ERROR_VALUE, "64 x 128");
    expect_fails(heed_tiles_transpose(context, &grid, NULL, &list), HEED_ERROR_NULL, "from");
    heed_tiles_free(context, made);
    heed_tiles_free(context, NULL);
    expect_fails(heed_density_from_sparsity(HEED_SPARSITY_REMOVED, 1, 0, &density),
                 HEED_ERROR_VALUE, "ratio=1");
    heed_context_destroy(context);
}

static void test_sparsity(void **state)
{
    double density;
    (void)state;
    expect_ok(heed_density_from_sparsity(HEED_SPARSITY_KEPT, 0.6, 0, &density));
    assert_true(density == 0.6);
    expect_ok(heed_density_from_sparsity(HEED_SPARSITY_REMOVED, 0.75, 0, &density));
    assert_true(density == 0.25);
    expect_ok(heed_density_from_sparsity(HEED_SPARSITY_KEYS_PER_ROW, 256, 1024, &density));
    assert_true(density == 0.25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),  cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_masks),     cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_combining), cmocka_unit_test(test_transposing),
        cmocka_unit_test(test_bad_text),  cmocka_unit_test(test_bad_lists),
        cmocka_unit_test(test_sparsity),
    };
    return cmocka_run_group_tests_name("tiles", tests, NULL, NULL);
}
