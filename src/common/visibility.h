/* Which keys a query may see, and the walk over the key blocks of a range of queries.
 *
 * Dense, causal and windowed attention is a band: query i sees the keys from i + offset - left to
 * i + offset + right. The walk computes its blocks from these numbers; a tile list is walked entry
 * by entry and cut by the band. Each block is full (no test inside) or partial: then hd_walk_masks
 * gives one word a key, bit x saying whether query x of the range sees it. */
#ifndef HD_VISIBILITY_H
#define HD_VISIBILITY_H

#include "base.h"

enum { HD_BLOCK_KEYS = 64 }; /* keys of a block at most, and its alignment */
enum { HD_BLOCK_ROWS = 64 }; /* queries that share a walk at most */

typedef struct hd_visibility {
    int64_t queries, keys;
    int64_t offset;
    int64_t left, right; /* clamped so that no sum overflows */
    const heed_tile_list_t *tiles;
} hd_visibility_t;

/* Keys of a sequence that there is room for; all keys together where they are ragged. */
static inline int64_t hd_room(const heed_attention_desc_t *desc)
{
    int64_t rows = desc->k.shape[1];
    return desc->page_table.ndim ? desc->page_table.shape[1] * rows : rows;
}

static inline hd_visibility_t hd_visibility(const heed_attention_desc_t *desc)
{
    int64_t queries = desc->q.shape[1], keys = hd_room(desc), open = queries + keys;
    int64_t left = desc->window_left, right = desc->window_right;
    hd_visibility_t visible = {.queries = queries, .keys = keys, .tiles = desc->tiles};
    visible.offset = desc->align == HEED_ALIGN_BOTTOM_RIGHT ? keys - queries : 0;
    visible.left = left < 0 ? open : hd_min(left, open);
    visible.right = desc->causal ? 0 : right < 0 ? open : hd_min(right, open);
    return visible;
}

HD_DEVICE static inline int64_t hd_first_key(const hd_visibility_t *visible, int64_t query)
{
    return hd_min(hd_max(query + visible->offset - visible->left, 0), visible->keys);
}

HD_DEVICE static inline int64_t hd_end_key(const hd_visibility_t *visible, int64_t query)
{
    return hd_min(hd_max(query + visible->offset + visible->right + 1, 0), visible->keys);
}

/* Sum over all queries i of i + from, clamped to 0 .. keys. */
static inline double hd_clamped_sum(const hd_visibility_t *visible, int64_t from)
{
    int64_t low = hd_min(hd_max(-from, 0), visible->queries);
    int64_t high = hd_min(hd_max(visible->keys - from, 0), visible->queries);
    double slope = ((double)(low + high - 1) / 2 + (double)from) * (double)(high - low);
    return slope + (double)(visible->queries - high) * (double)visible->keys;
}

/* Visible pairs of the band of one head: what hd_end_key less hd_first_key sums up to. */
static inline double hd_band_pairs(const hd_visibility_t *visible)
{
    return hd_clamped_sum(visible, visible->offset + visible->right + 1) -
           hd_clamped_sum(visible, visible->offset - visible->left);
}

/* Bits of the queries first .. first+count-1 (count <= 64) that the band lets see a key. */
HD_DEVICE static inline uint64_t hd_band_mask(const hd_visibility_t *visible, int64_t key,
                                              int64_t first, int count)
{
    int64_t low = hd_max(key - visible->offset - visible->right - first, 0);
    int64_t high = hd_min(key - visible->offset + visible->left + 1 - first, count);
    if (low >= high)
        return 0;
    uint64_t below = high == 64 ? ~UINT64_C(0) : (UINT64_C(1) << high) - 1;
    return below & ~((UINT64_C(1) << low) - 1);
}

/* ---- the walk -------------------------------------------------------------------------------- */

typedef struct hd_block {
    int64_t key; /* first, a multiple of HD_BLOCK_KEYS */
    int count;
    bool full;
    const uint64_t *bits; /* tile mask words of the first key, NULL: none */
} hd_block_t;

typedef struct hd_walk {
    const hd_visibility_t *visible;
    int64_t first; /* query */
    int rows;
    int64_t low, high; /* keys of the band over all rows; low is aligned down */
    int64_t next;      /* key */
    int64_t entry, entry_end;
    int words; /* of a mask word row, tile_q / 64 */
} hd_walk_t;

/* Where the entries of tiles of queries `row` of (batch, head) start, and behind it where they end.
 */
HD_DEVICE static inline const int64_t *hd_tile_row(const heed_tile_list_t *tiles, int64_t batch,
                                                   int64_t head, int64_t row)
{
    int64_t plane = (tiles->batches > 1 ? batch : 0) * tiles->heads;
    plane += tiles->heads > 1 ? head : 0;
    return tiles->row_start + plane * tiles->rows + row;
}

/* Walks the blocks that any of the queries first .. first+rows-1 of (batch, head) may see. With a
 * tile list, the range crosses no multiple of 64. */
HD_DEVICE static inline void hd_walk_begin(hd_walk_t *walk, const hd_visibility_t *visible,
                                           int64_t batch, int64_t head, int64_t first, int rows)
{
    const heed_tile_list_t *tiles = visible->tiles;
    int64_t low = hd_first_key(visible, first);
    *walk = (hd_walk_t){.visible = visible, .first = first, .rows = rows};
    walk->high = hd_end_key(visible, first + rows - 1);
    walk->low = low / HD_BLOCK_KEYS * HD_BLOCK_KEYS;
    walk->next = walk->low;
    if (low >= walk->high)
        walk->next = walk->high;
    if (tiles) {
        const int64_t *start = hd_tile_row(tiles, batch, head, first / tiles->tile_q);
        walk->entry = start[0];
        walk->entry_end = start[1];
        walk->words = tiles->tile_q / 64;
        walk->next = 0;
    }
}

HD_DEVICE static inline void hd_walk_block(const hd_walk_t *walk, int64_t key, hd_block_t *block)
{
    const hd_visibility_t *visible = walk->visible;
    int64_t end = hd_min(key + HD_BLOCK_KEYS, walk->high);
    block->key = key;
    block->count = (int)(end - key);
    block->full = hd_first_key(visible, walk->first + walk->rows - 1) <= key &&
                  hd_end_key(visible, walk->first) >= end;
    block->bits = NULL;
}

/* The next block of an entry of the tile list. walk->next counts keys within the tile. */
HD_DEVICE static inline bool hd_walk_next_tile(hd_walk_t *walk, hd_block_t *block)
{
    const heed_tile_list_t *tiles = walk->visible->tiles;
    for (; walk->entry < walk->entry_end; walk->entry++, walk->next = 0) {
        int64_t tile = (int64_t)tiles->column[walk->entry] * tiles->tile_k;
        while (walk->next < tiles->tile_k) {
            int64_t inside = walk->next, key = tile + inside;
            walk->next += HD_BLOCK_KEYS;
            if (key < walk->low || key >= walk->high)
                continue;
            hd_walk_block(walk, key, block);
            int64_t mask = tiles->mask ? tiles->mask[walk->entry] : -1;
            if (mask >= 0) {
                block->full = false;
                block->bits = tiles->bits + (mask * tiles->tile_k + inside) * walk->words +
                              walk->first % tiles->tile_q / 64;
            }
            return true;
        }
    }
    return false;
}

HD_DEVICE static inline bool hd_walk_next(hd_walk_t *walk, hd_block_t *block)
{
    if (walk->visible->tiles)
        return hd_walk_next_tile(walk, block);
    if (walk->next >= walk->high)
        return false;
    hd_walk_block(walk, walk->next, block);
    walk->next += HD_BLOCK_KEYS;
    return true;
}

/* The word of key j of the block: bit x is query first + x. */
HD_DEVICE static inline uint64_t hd_walk_mask(const hd_walk_t *walk, const hd_block_t *block, int j)
{
    uint64_t mask = hd_band_mask(walk->visible, block->key + j, walk->first, walk->rows);
    if (block->bits)
        mask &= block->bits[(int64_t)j * walk->words] >> walk->first % 64;
    return mask;
}

/* One word for each key of the block. */
HD_DEVICE static inline void hd_walk_masks(const hd_walk_t *walk, const hd_block_t *block,
                                           uint64_t *masks)
{
    for (int j = 0; j < block->count; j++)
        masks[j] = hd_walk_mask(walk, block, j);
}

#endif
