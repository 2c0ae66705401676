/* Decoding on CUDA, what is visible: the blocks of keys that a block of threads visits, and the
 * keys of them that a lane's two rows see.
 *
 * Without a tile list every block of the split is visited, and the band says the rest. With one,
 * all rows are in its first tile of queries, for there are 64 at most, but each head of the group
 * may have a list of its own. The threads mark in shared memory which blocks of the split any of
 * these lists has; the walk goes from mark to mark, and what nobody sees is never read. Then each
 * row follows its own list, a place in it that only moves on. */
#ifndef HD_DECODE_SEEN_CUH
#define HD_DECODE_SEEN_CUH

#include "decode_merge.cuh"

enum {
    DECODE_WARPS = 4, /* that compute */
    DECODE_WARP_ROWS = 16
};

/* What a block works on. */
typedef struct decode_task {
    int64_t unit, batch, key_head;
    int split;
    int first, end; /* keys; first is a multiple of HD_BLOCK_KEYS */
} decode_task_t;

static __device__ inline decode_task_t decode_task(const decode_params_t *p)
{
    decode_task_t task;
    task.unit = blockIdx.x / p->splits;
    task.split = (int)(blockIdx.x % p->splits);
    task.batch = task.unit / p->a.key_heads;
    task.key_head = task.unit % p->a.key_heads;
    task.first = p->low / HD_BLOCK_KEYS * HD_BLOCK_KEYS + task.split * p->split_keys;
    task.end = min(task.first + p->split_keys, p->high);
    return task;
}

/* ---- the blocks ------------------------------------------------------------------------------ */

/* Of the split's blocks of HD_BLOCK_KEYS keys, one bit each. */
typedef struct decode_map {
    uint32_t listed[DECODE_MAP_BLOCKS / 32]; /* in a list of some row */
    uint32_t whole[DECODE_MAP_BLOCKS / 32];  /* in the one list of all rows, without a mask */
} decode_map_t;

/* Index of the first entry of a row of tiles that is not before `key`. */
static __device__ inline int64_t decode_find(const heed_tile_list_t *tiles, const int64_t *row,
                                             int key)
{
    int64_t low = row[0], high = row[1];
    int tile = key / tiles->tile_k;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (tiles->column[middle] < tile)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* By all threads, with a tile list; what they marked is there for all of them. A warp takes every
 * fourth list, a lane every 32nd entry. */
static __device__ inline void decode_mark(const decode_params_t *p, const decode_task_t *task,
                                          decode_map_t *map)
{
    const heed_tile_list_t *tiles = p->a.visible.tiles;
    int lists = tiles->heads > 1 ? (int)p->a.group : 1, lane = (int)threadIdx.x % 32;
    for (int i = (int)threadIdx.x; i < DECODE_MAP_BLOCKS / 32; i += 32 * DECODE_WARPS)
        map->listed[i] = map->whole[i] = 0;
    __syncthreads();
#pragma unroll 1
    for (int list = (int)threadIdx.x / 32; list < lists; list += DECODE_WARPS) {
        const int64_t *row = hd_tile_row(tiles, task->batch, task->key_head * p->a.group + list, 0);
        for (int64_t i = decode_find(tiles, row, task->first) + lane; i < row[1]; i += 32) {
            int key = tiles->column[i] * tiles->tile_k, end = min(key + tiles->tile_k, task->end);
            if (key >= end)
                break;
            bool whole = lists == 1 && (!tiles->mask || tiles->mask[i] < 0);
            for (key = max(key, task->first); key < end; key += HD_BLOCK_KEYS) {
                int block = (key - task->first) / HD_BLOCK_KEYS;
                atomicOr(&map->listed[block / 32], 1u << block % 32);
                if (whole)
                    atomicOr(&map->whole[block / 32], 1u << block % 32);
            }
        }
    }
    __syncthreads();
}

/* The first key from `key` on that is in a block to be visited; the split's end or more if there is
 * none. */
static __device__ inline int decode_next(const decode_params_t *p, const decode_task_t *task,
                                         const decode_map_t *map, int key)
{
    if (!p->a.visible.tiles)
        return key;
    int block = (key - task->first) / HD_BLOCK_KEYS;
    uint32_t above = ~0u << block % 32;
#pragma unroll 1
    for (block = block / 32 * 32; task->first + block * HD_BLOCK_KEYS < task->end; block += 32) {
        uint32_t listed = map->listed[block / 32] & above;
        if (listed)
            return max(key, task->first + (block + __ffs((int)listed) - 1) * HD_BLOCK_KEYS);
        above = ~0u;
    }
    return task->end;
}

/* Whether all rows see the keys from `key` on, up to `end`, all of one block. */
static __device__ inline bool decode_is_full(const decode_params_t *p, const decode_task_t *task,
                                             const decode_map_t *map, int key, int end)
{
    bool full = key >= p->all_low && end <= p->all_high;
    if (full && p->a.visible.tiles) {
        int block = (key - task->first) / HD_BLOCK_KEYS;
        full = map->whole[block / 32] >> block % 32 & 1;
    }
    return full;
}

/* ---- the rows -------------------------------------------------------------------------------- */

/* Where the lane's two rows are in their lists: entries from the list's first one on. */
typedef struct decode_place {
    int entry[2];
} decode_place_t;

/* Rows behind the last one see what the last one does. */
static __device__ inline int decode_lane_row(const decode_params_t *p, int row, int r)
{
    return min(row + (int)threadIdx.x % 32 / 4 + 8 * r, p->rows - 1);
}

static __device__ inline const int64_t *decode_row_list(const decode_params_t *p,
                                                        const decode_task_t *task, int row)
{
    int64_t group = p->a.group;
    return hd_tile_row(p->a.visible.tiles, task->batch, task->key_head * group + row % (int)group,
                       0);
}

/* Of the warp's rows from `row` on. */
static __device__ inline decode_place_t decode_start(const decode_params_t *p,
                                                     const decode_task_t *task, int row)
{
    decode_place_t place = {{0, 0}};
    if (p->a.visible.tiles) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int64_t *list = decode_row_list(p, task, decode_lane_row(p, row, r));
            place.entry[r] = (int)(decode_find(p->a.visible.tiles, list, task->first) - list[0]);
        }
    }
    return place;
}

/* What a list says of the lane's keys from `key` on, of 8 * TILES in a row its two of each 8: bits
 * as of decode_sees, for a first row. */
template <int TILES>
static __device__ inline uint32_t decode_listed(const heed_tile_list_t *tiles, const int64_t *list,
                                                int *entry, int query, int key)
{
    int64_t at = list[0] + *entry;
    for (; at < list[1] && (tiles->column[at] + 1) * tiles->tile_k <= key; at++)
        ++*entry;
    int inside = at < list[1] ? key - tiles->column[at] * tiles->tile_k : -1;
    if (inside < 0)
        return 0;
    int64_t mask = tiles->mask ? tiles->mask[at] : -1;
    if (mask < 0)
        return ~0u;
    int words = tiles->tile_q / 64;
    const uint64_t *bits = tiles->bits + (mask * tiles->tile_k + inside) * words;
    uint32_t listed = 0;
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++)
        listed |= (uint32_t)(bits[(i / 2 * 8 + i % 2) * words] >> query & 1) << (i / 2 * 4 + i % 2);
    return listed;
}

/* Which of the lane's scores are of pairs that are visible, of 8 * TILES keys from `key` on and the
 * warp's rows from `row` on: bit i is that of score i. Keys of one tile of a list. */
template <int TILES>
static __device__ inline uint32_t decode_sees(const decode_params_t *p, const decode_task_t *task,
                                              int row, int key, decode_place_t *place)
{
    const hd_visibility_t *visible = &p->a.visible;
    uint32_t sees = 0;
    key += 2 * ((int)threadIdx.x % 4);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int mine = decode_lane_row(p, row, r), query = mine / (int)p->a.group;
        int first = (int)hd_first_key(visible, query), end = (int)hd_end_key(visible, query);
        uint32_t band = 0;
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++) {
            int at = key + i / 2 * 8 + i % 2;
            band |= (uint32_t)(at >= first && at < end) << (i / 2 * 4 + i % 2);
        }
        if (visible->tiles)
            band &= decode_listed<TILES>(visible->tiles, decode_row_list(p, task, mine),
                                         &place->entry[r], query, key);
        sees |= band << 2 * r;
    }
    return sees;
}

#endif
