/* `heed run sparse`: its command line, and which tiles each head sees. */
#ifndef TOOLS_RUN_SPARSE_H
#define TOOLS_RUN_SPARSE_H

#include "run_long.h"

enum { SPARSE_MOST_PATTERNS = 64 };

/* What --pattern said: a generator, or a visibility as text. */
typedef struct sparse_pattern {
    const char *text;
    bool generates;
    heed_sparse_kind_t kind;
} sparse_pattern_t;

typedef struct sparse_options {
    sparse_pattern_t patterns[SPARSE_MOST_PATTERNS];
    int count;      /* head h takes number h modulo count */
    char *file;     /* text of --tiles, owned */
    double density; /* negative: not given */
    double mass;    /* 0: by density */
    heed_score_kind_t scores;
    int tile, seed;
    int sample;   /* queries that are compared with dense attention */
    int optional; /* 1: dense attention where it is predicted to be faster */
    long_options_t all;
} sparse_options_t;

/* Its input is a sparse_options_t. */
extern const struct argp sparse_argp;

/* Reads one --pattern; false: it is none. */
bool sparse_pattern_read(const char *text, sparse_pattern_t *pattern);

/* Whether some pattern needs --density; by scores, --mass does too. */
bool sparse_needs_density(const sparse_options_t *options);

/* The list of one head of one batch entry, for all of its queries. An exit code; the sentence is
 * then on stderr. */
int sparse_list(heed_context_t *context, const sparse_options_t *options, const long_input_t *input,
                int64_t b, int64_t head, heed_tile_list_t **tiles);

/* The rows of tiles from query first on, for `count` queries, and the columns of the first `keys`
 * keys. The arrays are the slice's own, but for the masks' bits. False: out of memory; free it in
 * any case. */
typedef struct sparse_slice {
    heed_tile_list_t list;
    int64_t *row_start;
    int32_t *column, *mask;
} sparse_slice_t;
bool sparse_slice_new(const heed_tile_list_t *tiles, int64_t first, int64_t count, int64_t keys,
                      sparse_slice_t *slice);
void sparse_slice_free(sparse_slice_t *slice);

#endif
