/* Tile lists: checking a caller's, and making one from a problem's `tiles` word. */
#ifndef HD_TILES_H
#define HD_TILES_H

#include "visibility.h"

/* Checks sizes, order and mask numbers against an attention of these sizes, in O(entries). */
heed_status_t hd_tiles_check(const heed_tile_list_t *tiles, int64_t batch, int64_t heads,
                             int64_t queries, int64_t keys);

/* Makes a list from text, in one block from malloc:
 *
 *     random:SEED,PERCENT,TQ,TK,shared|each   each tile with that chance, half of them with a
 *                                             random mask; one list for all heads, or one each
 *     blockdiag:SIZE,TQ,TK                    queries see the keys of their own block of SIZE
 *
 * Errors: VALUE, OUT_OF_MEMORY. */
heed_status_t hd_tiles_parse(const char *text, int64_t batch, int64_t heads, int64_t queries,
                             int64_t keys, heed_tile_list_t **tiles);

/* The list and its arrays in one block, as they are when the block lies at address `at`. */
size_t hd_tiles_placed_bytes(const heed_tile_list_t *tiles);
void hd_tiles_place(const heed_tile_list_t *tiles, char *image, uintptr_t at);

/* What a walk over the list costs, without walking it: keys that a query's walks pass on average,
 * and which part of them is in tiles with a mask. Looks up each row, and some of its entries. */
double hd_tiles_mean_keys(const hd_visibility_t *visible, double *partial);

/* Visible (query, key) pairs of one head, or of all heads with a tile list that differs. */
double hd_visible_pairs(const hd_visibility_t *visible, int64_t batch, int64_t heads);

#endif
