/* What a block of cuda:flash_sm80 works on: the sizes of its tiles, where they lie in shared
 * memory, its rows, and the blocks of keys that these rows see. */
#ifndef HD_FLASH_SM80_TILE_CUH
#define HD_FLASH_SM80_TILE_CUH

#include "ptx.cuh"
#include "simt.cuh"

#include "../common/attention.h"
#include "../common/element.h"

enum { KEYS = HD_BLOCK_KEYS, HALF = HD_BLOCK_ROWS };

/* A row of a tile in shared memory and 16 bytes more: with an odd number of 16-byte pieces, eight
 * rows of ldmatrix touch all banks once. What the padding holds besides is said below. */
enum { PADDING = 16 };

/* Head sizes rounded up, warps, and tiles of 16 rows that a warp has. */
template <bool BF16_, int D_, int DV_, int WARPS_, int TILES_> struct config {
    static constexpr bool BF16 = BF16_;
    static constexpr int D = D_, DV = DV_, WARPS = WARPS_, TILES = TILES_;
    static constexpr int THREADS = 32 * WARPS, WARP_ROWS = 16 * TILES, ROWS = WARPS * WARP_ROWS;
    static constexpr int HALVES = ROWS / HALF;
    /* Bytes between rows of Q and K, and of V. */
    static constexpr int K_STRIDE = 2 * D + PADDING, V_STRIDE = 2 * DV + PADDING;
    static constexpr int Q_BYTES = ROWS * K_STRIDE, K_BYTES = KEYS * K_STRIDE;
    static constexpr int BYTES = Q_BYTES + K_BYTES + KEYS * V_STRIDE;
    /* Rows of the result, in f32, when all else is done. */
    static constexpr int OUT_STRIDE = DV + 8;
    static_assert(4 * ROWS * OUT_STRIDE <= BYTES, "the result fits");
    static_assert(ROWS % HALF == 0 && HALF % WARP_ROWS == 0, "a warp's rows share a walk");
};

typedef struct sm80_params {
    hd_attention_t a;
    int64_t tiles;   /* of queries, in a head */
    int q_row, k_row, v_row; /* bytes, unless `gather` */
    float log2_unit; /* |scale| log2(e) */
    bool negate;     /* scale < 0: the queries change their sign */
    bool gather;     /* some row of q, k, v is no run of whole aligned 16-byte pieces */
    bool pieces;     /* rows of out are such runs, in q's type, and nothing is merged */
} sm80_params_t;

/* ---- shared memory: Q, K, V ------------------------------------------------------------------ */

template <class C> static __device__ inline unsigned char *keys_of(unsigned char *memory)
{
    return memory + C::Q_BYTES;
}
template <class C> static __device__ inline unsigned char *values_of(unsigned char *memory)
{
    return memory + C::Q_BYTES + C::K_BYTES;
}

/* Behind key j's row: which rows of either half of the tile see it. */
template <class C> static __device__ inline uint64_t *mask_of(unsigned char *memory, int key)
{
    return (uint64_t *)(keys_of<C>(memory) + key * C::K_STRIDE + 2 * C::D);
}

/* Behind the first queries: one flag a warp. */
template <class C> static __device__ inline int *flag_of(unsigned char *memory, int warp)
{
    return (int *)(memory + warp * C::K_STRIDE + 2 * C::D);
}

/* ---- the rows -------------------------------------------------------------------------------- */

typedef struct task {
    int64_t batch, head, key_head;
    int64_t first; /* query */
    int rows;
} task_t;

/* The last tiles of a head come first: with a causal mask they are the longest. */
template <class C> static __device__ inline task_t find_task(const sm80_params_t *p, int64_t index)
{
    task_t task;
    task.first = (p->tiles - 1 - index % p->tiles) * C::ROWS;
    task.head = index / p->tiles % p->a.heads;
    task.batch = index / p->tiles / p->a.heads;
    task.key_head = task.head / p->a.group;
    task.rows = (int)hd_min(p->a.queries - task.first, C::ROWS);
    return task;
}

static __device__ inline int rows_of_half(const task_t *task, int half)
{
    return min(max(task->rows - HALF * half, 0), HALF);
}

/* ---- the keys -------------------------------------------------------------------------------- */

/* Half a tile walks by itself, for that is what a walk allows. The two walks are brought together:
 * a step is the next block that either half sees. Between steps a walk is these two numbers; the
 * rest of it is computed anew, which costs fewer registers than keeping it. */
typedef struct place {
    int64_t next, entry;
} place_t;

/* What a half sees of a step's block. */
typedef struct half {
    int count; /* keys, 0: none */
    bool full;
    const uint64_t *bits;
} half_t;

typedef struct step {
    int key; /* first */
    int count;   /* keys that are to be there; 0: there is no further step */
    int blocks;  /* full ones in a row, of KEYS keys, that all rows see; 0: one that is not */
    half_t half[2];
} step_t;

static __device__ inline hd_walk_t begin_walk(const sm80_params_t *p, const task_t *task, int half)
{
    hd_walk_t walk;
    hd_walk_begin(&walk, &p->a.visible, task->batch, task->head, task->first + HALF * half,
                  rows_of_half(task, half));
    return walk;
}

template <class C>
static __device__ inline void begin_steps(const sm80_params_t *p, const task_t *task, place_t *places)
{
#pragma unroll
    for (int h = 0; h < C::HALVES; h++) {
        if (h > 0 && rows_of_half(task, h) == 0)
            break;
        hd_walk_t walk = begin_walk(p, task, h);
        places[h].next = walk.next;
        places[h].entry = walk.entry;
    }
}

/* The next step; with count = 0 where there is none. */
template <class C>
static __device__ inline void find_step(const sm80_params_t *p, const task_t *task, place_t *places,
                                        step_t *step)
{
    hd_walk_t walks[C::HALVES];
    hd_block_t blocks[C::HALVES];
    const int NONE = INT32_MAX; /* no multiple of KEYS */
    bool full = true;
    step->key = NONE;
    step->count = step->blocks = 0;
#pragma unroll
    for (int h = 0; h < C::HALVES; h++) {
        blocks[h].key = NONE;
        if (h > 0 && rows_of_half(task, h) == 0)
            break;
        walks[h] = begin_walk(p, task, h);
        walks[h].next = places[h].next;
        walks[h].entry = places[h].entry;
        if (!hd_walk_next(&walks[h], &blocks[h]))
            blocks[h].key = NONE;
        step->key = min(step->key, (int)blocks[h].key);
    }
#pragma unroll
    for (int h = 0; h < C::HALVES; h++) {
        step->half[h] = (half_t){0, true, NULL};
        if (h > 0 && rows_of_half(task, h) == 0)
            break;
        if (blocks[h].key != step->key || step->key == NONE) {
            full = false;
            continue;
        }
        step->half[h] = (half_t){blocks[h].count, blocks[h].full, blocks[h].bits};
        step->count = max(step->count, blocks[h].count);
        full = full && blocks[h].full && blocks[h].count == KEYS;
        places[h].next = walks[h].next;
        places[h].entry = walks[h].entry;
    }
    /* What has to be gathered takes its time anyway. */
    if (!full || step->count == 0 || p->gather)
        return;
    step->blocks = 1;
    if (p->a.visible.tiles)
        return;
    /* Full blocks of a band follow each other up to the end of the first row's. */
    step->blocks = ((int)hd_end_key(&p->a.visible, task->first) - step->key) / KEYS;
#pragma unroll
    for (int h = 0; h < C::HALVES; h++)
        places[h].next = step->key + (int64_t)KEYS * step->blocks;
}

/* Writes the words of mask_of for a block that is not full, one a thread. */
template <class C>
static __device__ inline void write_masks(const sm80_params_t *p, const task_t *task,
                                          const step_t *step, unsigned char *memory)
{
    int half = (int)threadIdx.x / KEYS, key = (int)threadIdx.x % KEYS;
    if (half >= C::HALVES)
        return;
    half_t mine = half ? step->half[C::HALVES - 1] : step->half[0];
    const heed_tile_list_t *tiles = p->a.visible.tiles;
    hd_walk_t walk = {.visible = &p->a.visible,
                      .first = task->first + HALF * half,
                      .rows = rows_of_half(task, half),
                      .words = tiles ? tiles->tile_q / 64 : 0};
    hd_block_t block = {step->key, mine.count, mine.full, mine.bits};
    uint64_t mask = key >= mine.count ? 0 : mine.full ? ~UINT64_C(0) : 0;
    if (key < mine.count && !mine.full)
        mask = hd_walk_mask(&walk, &block, key);
    mask_of<C>(memory, key)[half] = mask;
}

#endif
