/* What tile lists cost, for estimates. */
#include "tiles.h"
#include "tiles_build.h"

enum { LOOKED_AT = 8 };

typedef struct cost {
    double pairs, masked, seen; /* of tiles listed; with a mask, of `seen` entries looked at */
} cost_t;

/* Entries `first` .. `end`-1 of one row of tiles of `queries` queries. */
static void add_row(const heed_tile_list_t *tiles, int64_t first, int64_t end, int64_t queries,
                    cost_t *cost)
{
    int64_t step = hd_max((end - first) / LOOKED_AT, 1);
    cost->pairs += (double)(end - first) * tiles->tile_k * (double)queries;
    if (!tiles->mask)
        return;
    for (int64_t e = first; e < end; e += step) {
        cost->masked += (double)step * (tiles->mask[e] >= 0);
        cost->seen += (double)step;
    }
}

double hd_tiles_mean_keys(const hd_visibility_t *visible, double *partial)
{
    const heed_tile_list_t *tiles = visible->tiles;
    int64_t planes = tiles->batches * tiles->heads;
    cost_t cost = {0};
    for (int64_t at = 0; at < planes * tiles->rows; at++) {
        int64_t first = at % tiles->rows * tiles->tile_q;
        int64_t queries = hd_min(visible->queries - first, tiles->tile_q);
        int64_t low = hd_first_key(visible, first) / tiles->tile_k;
        int64_t high =
            hd_ceil_div(hd_end_key(visible, first + queries - 1), (int64_t)tiles->tile_k);
        int64_t start = tiles->row_start[at], end = tiles->row_start[at + 1];
        start = hd_lower_bound(tiles->column, start, end, low);
        end = hd_lower_bound(tiles->column, start, end, high);
        add_row(tiles, start, end, queries, &cost);
    }
    *partial = cost.seen > 0 ? cost.masked / cost.seen : 0;
    double queries = (double)planes * (double)visible->queries;
    double keys = queries > 0 ? cost.pairs / queries : 0;
    return keys < (double)visible->keys ? keys : (double)visible->keys;
}
