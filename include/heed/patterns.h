/* Heed: patterns on an explicit attention matrix, whose other entries become zero.
 *
 *     heed_matrix_desc_t desc = heed_matrix_desc(HEED_MATRIX_SLIDING);
 *     heed_matrix_count_t count;
 *     desc.window = 1;
 *     desc.in = desc.out = HEED_TENSOR(weights, HEED_F32, 5, 5);
 *     heed_matrix_pattern(context, &desc, &count);          count.kept = 13
 *
 * For looking at small matrices, and for programs that have them: it takes time and memory for all
 * pairs. Attention itself never makes the matrix; what it sees is told by tile lists (tiles.h),
 * whose predicates are the ones used here. */
#ifndef HEED_PATTERNS_H
#define HEED_PATTERNS_H

#include "tiles.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which entries (i, j) are kept. */
typedef enum heed_matrix_kind {
    HEED_MATRIX_SPARSE = 0,  /* by their magnitudes: heed_matrix_rule_t */
    HEED_MATRIX_SLIDING = 1, /* |i - j| <= window */
    HEED_MATRIX_GLOBAL = 2,  /* all: tokens are only counted. With `strict` i or j is a token, or
                                |i - j| <= window (Beltagy et al., Longformer, 2020) */
    HEED_MATRIX_LOCAL = 3,   /* i / block == j / block */
    HEED_MATRIX_DILATED = 4  /* (i - j) mod dilation == 0, and |i - j| <= window if there is one */
} heed_matrix_kind_t;

/* What SPARSE keeps of n entries with a density d, by magnitude; NaN is the lowest. Numbers of
 * entries and positions that are within 1e-9 of a whole number count as that. */
typedef enum heed_matrix_rule {
    HEED_MATRIX_KEEP_LARGEST = 0,  /* the ceil(d n) largest; of equal ones the first by rows */
    HEED_MATRIX_DROP_SMALLEST = 1, /* all but the floor((1 - d) n) smallest, but for those that are
                                      equal to one that is kept */
    HEED_MATRIX_QUANTILE = 2,      /* at least the (1 - d)-quantile, interpolated between entries */
    HEED_MATRIX_ABOVE_QUANTILE = 3, /* above it */
    HEED_MATRIX_ABOVE = 4,          /* above `ratio` itself, in the matrix's dtype */
    HEED_MATRIX_ROWS = 5            /* the ceil(d columns) largest of each row; of equal ones the
                                       first */
} heed_matrix_rule_t;

/* A ratio of 0.6 on the 4 x 4 example of the artifact tools, which keeps 10, is 10, 10, 10, 8, 10
 * and 12 entries by these rules where it is the kept fraction; where it is the removed one, 7, 8,
 * 8, 4, 10 (ABOVE knows no fraction) and 8.
 *
 * Zero is the default of every field but window. Fields are only ever added at the end. */
typedef struct heed_matrix_desc {
    uint32_t struct_size; /* set by heed_matrix_desc() */
    heed_matrix_kind_t kind;
    heed_matrix_rule_t rule;
    heed_sparsity_t meaning; /* of ratio, KEYS_PER_ROW by the columns */
    double ratio;
    int64_t window;        /* entries on either side of the diagonal; -1: none. SLIDING needs it */
    int64_t block;         /* LOCAL, 1 or more */
    int64_t dilation;      /* DILATED, 1 or more */
    const int64_t *tokens; /* GLOBAL: [token_count], ascending; read only during the call */
    int64_t token_count;
    int32_t strict;    /* GLOBAL */
    heed_tensor_t in;  /* [rows, columns] f32, bf16, f16, host memory; any strides */
    heed_tensor_t out; /* the same shape and dtype; may be in's memory with in's strides */
} heed_matrix_desc_t;

static inline heed_matrix_desc_t heed_matrix_desc(heed_matrix_kind_t kind)
{
#ifdef __cplusplus
    heed_matrix_desc_t desc = {};
#else
    heed_matrix_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    desc.kind = kind;
    desc.window = -1;
    return desc;
}

typedef struct heed_matrix_count {
    int64_t total;     /* rows * columns */
    int64_t kept;      /* entries that the pattern keeps, zeros among them */
    int64_t non_zero;  /* entries of out that are not zero */
    double density;    /* kept / total; 0 of nothing */
    double zeros;      /* 1 - non_zero / total: how sparse out is; 0 of nothing */
    int64_t blocks;    /* LOCAL: ceil(rows / block) */
    int64_t positions; /* GLOBAL: token_count * columns, a pair of two tokens counted for both */
} heed_matrix_count_t;

/* count may be NULL. Errors: NULL, STRUCT_SIZE, VALUE, SHAPE, STRIDE, DTYPE, UNSUPPORTED (memory of
 * a device), OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_matrix_pattern(heed_context_t *context,
                                                         const heed_matrix_desc_t *desc,
                                                         heed_matrix_count_t *count);

/* Keeps what a tile list of one plane leaves visible: any visibility of tiles.h on a matrix. grid
 * describes the list; queries are rows. in and out as above. */
HEED_API HEED_MUST_USE heed_status_t heed_matrix_tiles(
    heed_context_t *context, const heed_tiles_grid_t *grid, const heed_tile_list_t *tiles,
    const heed_tensor_t *in, const heed_tensor_t *out, heed_matrix_count_t *count);

#ifdef __cplusplus
}
#endif
#endif
