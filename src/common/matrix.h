/* An explicit matrix of attention, from which a pattern takes what it does not keep. */
#ifndef HD_MATRIX_H
#define HD_MATRIX_H

#include "tiles_build.h"

#include <heed/patterns.h>

typedef struct matrix {
    heed_context_t *context;
    heed_tensor_t in, out; /* complete */
    hd_axes_t axes[2];
    const char *from;
    char *to;
    int64_t rows, columns;
    heed_matrix_count_t count;
} hd_matrix_t;

/* Checks both tensors; nothing is counted yet. */
heed_status_t hd_matrix_open(hd_matrix_t *matrix, const heed_tensor_t *in,
                             const heed_tensor_t *out);

float hd_matrix_value(const hd_matrix_t *matrix, int64_t i, int64_t j);

/* Writes an entry of out, what `in` has or 0, and counts it. */
void hd_matrix_put(hd_matrix_t *matrix, int64_t i, int64_t j, bool keep);

/* Writes all of out: entries that a tile list of the matrix's shape leaves visible. */
void hd_matrix_keep_tiles(hd_matrix_t *matrix, const heed_tile_list_t *tiles);

/* What was counted, with parts of all; count may be NULL. */
void hd_matrix_finish(const hd_matrix_t *matrix, heed_matrix_count_t *count);

#endif
