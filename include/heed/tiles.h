/* Heed: tile lists, made and combined: which tiles of keys each tile of queries sees.
 *
 *     heed_tiles_grid_t grid = heed_tiles_grid(queries, keys);
 *     heed_pattern_t window = heed_pattern(HEED_PATTERN_ALL);
 *     heed_tile_list_t *tiles;
 *     window.left = 511, window.right = 0;
 *     if (heed_tiles_from_pattern(context, &grid, &window, 1, &tiles) == HEED_OK) {
 *         desc.tiles = tiles;
 *         ...
 *         heed_tiles_free(context, tiles);
 *     }
 *
 * Every function that makes a list writes *tiles: struct and arrays in one block of the context's
 * allocator, the caller's to free with heed_tiles_free. A list is built in parallel by the
 * context's threads in time and memory that follow the tiles listed, not the square of the sequence
 * (two words of scratch for 8192 keys aside), and is the same for any number of threads. All
 * functions may be called from many threads at once.
 *
 * Errors of all: NULL, STRUCT_SIZE, VALUE, SHAPE (the sentence names field and value),
 * OUT_OF_MEMORY; *tiles is then NULL. */
#ifndef HEED_TILES_H
#define HEED_TILES_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a list covers. */
typedef struct heed_tiles_grid {
    uint32_t struct_size;
    int32_t tile_q;  /* queries in a tile: 64 or 128 */
    int32_t tile_k;  /* keys in a tile: 64 or 128 */
    int64_t batches; /* B, or 1: the same for all */
    int64_t heads;   /* H, or 1: the same for all */
    int64_t queries, keys;
} heed_tiles_grid_t;

static inline heed_tiles_grid_t heed_tiles_grid(int64_t queries, int64_t keys)
{
#ifdef __cplusplus
    heed_tiles_grid_t grid = {};
#else
    heed_tiles_grid_t grid = {0};
#endif
    grid.struct_size = (uint32_t)sizeof(grid);
    grid.tile_q = grid.tile_k = 64;
    grid.batches = grid.heads = 1;
    grid.queries = queries;
    grid.keys = keys;
    return grid;
}

/* Frees a list that a function of this header made. NULL is fine. */
HEED_API void heed_tiles_free(const heed_context_t *context, heed_tile_list_t *tiles);

/* ---- predicates ------------------------------------------------------------------------------ */

/* Which keys j query i sees. p is the position of query i among the keys: i + Sk - Sq, or i with
 * HEED_ALIGN_TOP_LEFT. */
typedef enum heed_pattern_kind {
    HEED_PATTERN_ALL = 0,       /* every j */
    HEED_PATTERN_FIRST = 1,     /* j < size: a prefix, sinks */
    HEED_PATTERN_BLOCKS = 2,    /* i / size == j / size: local blocks */
    HEED_PATTERN_LATTICE = 3,   /* (p - j) mod size == 0: dilated */
    HEED_PATTERN_TAILS = 4,     /* j mod size >= size - rate: the "fixed" summary columns of Sparse
                                   Transformer */
    HEED_PATTERN_SEGMENTS = 5,  /* i / size == j / size, and i mod size and j mod size are both
                                   `offset` modulo rate: a branch of LongNet */
    HEED_PATTERN_DOCUMENTS = 6, /* i and j lie between the same two numbers: cumulative lengths,
                                   numbers[0] = 0, ascending */
    HEED_PATTERN_KEYS = 7,      /* j is one of the numbers: global columns, verticals */
    HEED_PATTERN_QUERIES = 8,   /* i is one of the numbers: global rows */
    HEED_PATTERN_SLASHES = 9    /* p - j is one of the numbers: diagonals */
} heed_pattern_kind_t;

/* A predicate, cut by a band. Others are made of these by heed_tiles_and and heed_tiles_or. */
typedef struct heed_pattern {
    uint32_t struct_size;
    heed_pattern_kind_t kind;
    heed_align_t align;
    int64_t left, right; /* p - left <= j <= p + right, -1: open. Causal is right = 0 */
    int64_t size, rate, offset;
    const int64_t *numbers; /* [count], ascending; read only during the call */
    int64_t count;
} heed_pattern_t;

static inline heed_pattern_t heed_pattern(heed_pattern_kind_t kind)
{
#ifdef __cplusplus
    heed_pattern_t pattern = {};
#else
    heed_pattern_t pattern = {0};
#endif
    pattern.struct_size = (uint32_t)sizeof(pattern);
    pattern.kind = kind;
    pattern.left = pattern.right = -1;
    return pattern;
}

/* One pattern for all planes (count 1), or one for each head (count = grid->heads): a mixture. */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_from_pattern(heed_context_t *context,
                                                             const heed_tiles_grid_t *grid,
                                                             const heed_pattern_t *patterns,
                                                             int64_t count,
                                                             heed_tile_list_t **tiles);

/* ---- masks and lists of other forms ---------------------------------------------------------- */

/* bits[batches][heads][queries][ceil(keys/64)]: bit j%64 of word j/64 says whether the query sees
 * key j. */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_from_bits(heed_context_t *context,
                                                          const heed_tiles_grid_t *grid,
                                                          const uint64_t *bits,
                                                          heed_tile_list_t **tiles);

/* Compressed rows of blocks of any size (BSR): row_start[batches*heads*ceil(queries/block_q) + 1],
 * column[] ascending within a row. */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_from_blocks(
    heed_context_t *context, const heed_tiles_grid_t *grid, int64_t block_q, int64_t block_k,
    const int64_t *row_start, const int32_t *column, heed_tile_list_t **tiles);

/* Compressed rows of single pairs (CSR): heed_tiles_from_blocks with blocks of one. */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_from_csr(heed_context_t *context,
                                                         const heed_tiles_grid_t *grid,
                                                         const int64_t *row_start,
                                                         const int32_t *column,
                                                         heed_tile_list_t **tiles);

/* ---- combining ------------------------------------------------------------------------------- */

/* Pairs that both lists leave visible, or that one of them does. grid describes both, whose tiles
 * have its sizes, and the result; a list with one batch or head stands for all of the grid's. */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_and(heed_context_t *context,
                                                    const heed_tiles_grid_t *grid,
                                                    const heed_tile_list_t *a,
                                                    const heed_tile_list_t *b,
                                                    heed_tile_list_t **tiles);
HEED_API HEED_MUST_USE heed_status_t heed_tiles_or(heed_context_t *context,
                                                   const heed_tiles_grid_t *grid,
                                                   const heed_tile_list_t *a,
                                                   const heed_tile_list_t *b,
                                                   heed_tile_list_t **tiles);

/* For each tile of keys the tiles of queries that see it: queries and keys change places. grid
 * describes `from`. */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_transpose(heed_context_t *context,
                                                          const heed_tiles_grid_t *grid,
                                                          const heed_tile_list_t *from,
                                                          heed_tile_list_t **tiles);

/* ---- generators ------------------------------------------------------------------------------ */

/* Whole tiles by a budget: a row of tiles that may see v tiles of keys keeps max(1, round(density *
 * v)) of them. */
typedef enum heed_sparse_kind {
    HEED_SPARSE_RANDOM = 0,       /* drawn without replacement (Zaheer et al., BigBird, 2020) */
    HEED_SPARSE_BLOCK_SPARSE = 1, /* the nearest to the position: a band of blocks. For a list of
                                     blocks of your own: heed_tiles_from_blocks */
    HEED_SPARSE_STRIDED = 2,      /* half of them nearest, the others at equal distances (Child et
                                     al., Sparse Transformer, 2019) */
    HEED_SPARSE_LOCAL_GLOBAL = 3, /* `globals` tiles that see and are seen by all, the rest nearest
                                     (Beltagy et al., Longformer, 2020); the density is met over
                                     all rows together */
    HEED_SPARSE_DYNAMIC_THRESHOLD = 4, /* the highest scores: those of heed_block_scores */
    HEED_SPARSE_LEARNED = 5            /* the highest scores: those of the caller's gate */
} heed_sparse_kind_t;

typedef struct heed_sparse {
    uint32_t struct_size;
    heed_sparse_kind_t kind;
    double density; /* kept fraction, in (0, 1] */
    uint64_t seed;  /* RANDOM: same seed, same list */
    int32_t causal; /* 1: tiles beyond the position of a row's last query are not visible */
    heed_align_t align;
    int64_t globals; /* LOCAL_GLOBAL: 0 takes a quarter of the budget, rounded down; by scores: how
                        many of the first tiles, sinks, are always kept */
    double mass;     /* by scores: 0, or in (0, 1]: instead of a budget the highest scores whose sum
                        is that part of the row's (Xu et al., XAttention, 2025); scores are then not
                        negative */
    const float
        *scores; /* by scores: [batches][heads][rows][columns] of tiles; NaN is the lowest */
} heed_sparse_t;

static inline heed_sparse_t heed_sparse(heed_sparse_kind_t kind, double density)
{
#ifdef __cplusplus
    heed_sparse_t sparse = {};
#else
    heed_sparse_t sparse = {0};
#endif
    sparse.struct_size = (uint32_t)sizeof(sparse);
    sparse.kind = kind;
    sparse.density = density;
    return sparse;
}

/* One generator for all planes (count 1), or one for each head (count = grid->heads). The tile at
 * the row's own position is always kept, so that no row that sees a key is empty. A causal list
 * still needs the descriptor's causal: it holds whole tiles. */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_generate(heed_context_t *context,
                                                         const heed_tiles_grid_t *grid,
                                                         const heed_sparse_t *sparse, int64_t count,
                                                         heed_tile_list_t **tiles);

/* ---- scores of tiles ------------------------------------------------------------------------- */

typedef enum heed_score_kind {
    HEED_SCORE_POOLED = 0,       /* softmax over tiles of <mean of q, mean of k> */
    HEED_SCORE_ANTIDIAGONAL = 1, /* sums along every stride-th antidiagonal, softmax, summed over
                                    the tile (Xu et al., XAttention, 2025) */
    HEED_SCORE_MASS = 2, /* exact: the weight of the tile, mean over its queries. The oracle */
    HEED_SCORE_MAX = 3   /* exact: the largest weight in the tile: what a learned gate is trained on
                            (Gao et al., SeerAttention, 2024) */
} heed_score_kind_t;

typedef struct heed_block_scores_desc {
    uint32_t struct_size;
    heed_score_kind_t kind;
    heed_tensor_t q; /* [B,Sq,H,D] f32, bf16, f16, with data; B, Sq, H are the grid's */
    heed_tensor_t k; /* [B,Sk,Hk,D] the same dtype */
    float scale;     /* 0: 1/sqrt(D) */
    int32_t causal;
    heed_align_t align;
    int32_t stride; /* ANTIDIAGONAL: divides 64; 0: 16 */
} heed_block_scores_desc_t;

static inline heed_block_scores_desc_t heed_block_scores_desc(heed_score_kind_t kind)
{
#ifdef __cplusplus
    heed_block_scores_desc_t desc = {};
#else
    heed_block_scores_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.kind = kind;
    return desc;
}

/* scores[B][H][rows][columns]; each row of POOLED, ANTIDIAGONAL and MASS adds up to 1 (0 where no
 * key is visible). On the CPU. Costs Sq Sk D multiply-adds, with POOLED divided by a tile's
 * pairs, with ANTIDIAGONAL by the stride. */
HEED_API HEED_MUST_USE heed_status_t heed_block_scores(heed_context_t *context,
                                                       const heed_tiles_grid_t *grid,
                                                       const heed_block_scores_desc_t *desc,
                                                       float *scores);

/* ---- text ------------------------------------------------------------------------------------ */

/* A visibility as text: terms joined by & and |, & first. A term is a name, and after a colon its
 * numbers and words separated by commas:
 *
 *     all   causal   band:L,R   first:N   blocks:SIZE   lattice:SIZE   tails:SIZE,N
 *     segments:SIZE,RATE,OFFSET   documents:LENGTH,...   keys:J,...   queries:I,...   slashes:N,...
 *     random:DENSITY[,SEED]   block_sparse:DENSITY   strided:DENSITY   local_global:DENSITY[,TILES]
 *
 * The words top-left (any term) and causal (those with a density). Example, a window with sinks:
 *
 *     "band:255,0 | first:4 & causal" */
HEED_API HEED_MUST_USE heed_status_t heed_tiles_from_text(heed_context_t *context,
                                                          const heed_tiles_grid_t *grid,
                                                          const char *text,
                                                          heed_tile_list_t **tiles);

/* ---- counting -------------------------------------------------------------------------------- */

typedef struct heed_tiles_count {
    int64_t tiles, full; /* listed, and listed as full; all planes */
    double pairs;        /* visible pairs, all planes */
    double density;      /* pairs / (planes * queries * keys): the kept fraction; 0 of nothing */
    double tile_density; /* tiles / all tiles there could be */
    int64_t empty_rows;  /* rows of tiles without any tile */
} heed_tiles_count_t;

HEED_API HEED_MUST_USE heed_status_t heed_tiles_count(const heed_tiles_grid_t *grid,
                                                      const heed_tile_list_t *tiles,
                                                      heed_tiles_count_t *count);

/* The density that an older `sparsity_ratio` meant. */
typedef enum heed_sparsity {
    HEED_SPARSITY_KEPT = 0,        /* the kept fraction: density = ratio (the artifact tools) */
    HEED_SPARSITY_REMOVED = 1,     /* the removed fraction: 1 - ratio (KernelPyTorch) */
    HEED_SPARSITY_KEYS_PER_ROW = 2 /* keys that a query keeps: ratio / keys (the dilated guide) */
} heed_sparsity_t;

/* Errors: VALUE where no density in (0,1] comes out. */
HEED_API HEED_MUST_USE heed_status_t heed_density_from_sparsity(heed_sparsity_t meaning,
                                                                double ratio, int64_t keys,
                                                                double *density);

#ifdef __cplusplus
}
#endif
#endif
