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
    int64_t tiles; /* of queries, in a head */
    /* Unless `gather`: bytes between rows, pieces of 16 bytes in a row. */
    int q_row, k_row, v_row, k_pieces, v_pieces;
    float log2_unit; /* |scale| log2(e) */
    bool negate;     /* scale < 0: the queries change their sign */
    bool gather;     /* some row of q, k, v is no run of whole aligned 16-byte pieces */
    bool pieces;     /* rows of out are such runs, in q's type, and nothing is merged */
} sm80_params_t;

/* A kernel for head sizes up to d and dv. */
typedef struct sm80_choice {
    int d, dv, rows, shared_bytes;
    int (*launch)(dim3 grid, void *stream, const sm80_params_t *p);
} sm80_choice_t;

enum { HD_SM80_COUNT = 5 };
extern const sm80_choice_t hd_flash_sm80_bf16[HD_SM80_COUNT], hd_flash_sm80_f16[HD_SM80_COUNT];

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

/* Behind the next ones: where K and V come from, 16 * piece bytes into the rows, for the pieces
 * that threads begin with. A register less than adding that. */
typedef struct sources {
    const char *k, *v;
} sources_t;

enum { FIRST_PIECES = 8 };

template <class C> static __device__ inline sources_t *sources_of(unsigned char *memory, int piece)
{
    return (sources_t *)(memory + (C::WARPS + piece) * C::K_STRIDE + 2 * C::D);
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
    int count;    /* keys, 0: none */
    uint8_t full; /* no bool: find_step also copies what nobody has set yet */
    const uint64_t *bits;
} half_t;

typedef struct step {
    int key;    /* first */
    int count;  /* keys that are to be there; 0: there is no further step */
    int blocks; /* full ones in a row, of KEYS keys, that all rows see; 0: one that is not */
    half_t half[2];
} step_t;

/* All that is of use between blocks only. It is volatile, which keeps it in local memory: in
 * registers it would leave the products too few to load their fragments ahead. */
typedef struct cold {
    task_t task;
    place_t places[2];
    step_t now, next;
    int careful; /* the tile is done a second time */
    int masked;  /* some block was not full */
    int zero;    /* added to what rarely run code computes of the thread's number, which nobody can
                    compute ahead then */
} cold_t;

static __device__ inline task_t get_task(const volatile cold_t *cold)
{
    const volatile task_t *task = &cold->task;
    return (task_t){task->batch, task->head, task->key_head, task->first, task->rows};
}
static __device__ inline void put_task(volatile cold_t *cold, task_t task)
{
    cold->task.batch = task.batch;
    cold->task.head = task.head;
    cold->task.key_head = task.key_head;
    cold->task.first = task.first;
    cold->task.rows = task.rows;
}

static __device__ inline hd_walk_t begin_walk(const sm80_params_t *p, const task_t *task, int half)
{
    hd_walk_t walk;
    hd_walk_begin(&walk, &p->a.visible, task->batch, task->head, task->first + HALF * half,
                  rows_of_half(task, half));
    return walk;
}

/* Puts the step after cold->next there, and that into cold->now. */
template <class C>
static __device__ __attribute__((noinline)) void find_step(const sm80_params_t *p,
                                                           volatile cold_t *cold)
{
    const int NONE = INT32_MAX; /* no multiple of KEYS */
    task_t task = get_task(cold);
    volatile step_t *now = &cold->now, *next = &cold->next;
    now->key = next->key;
    now->count = next->count;
    now->blocks = next->blocks;
    hd_walk_t walks[C::HALVES];
    hd_block_t blocks[C::HALVES];
    bool full = true;
    int key = NONE, count = 0;
#pragma unroll
    for (int h = 0; h < C::HALVES; h++) {
        blocks[h].key = NONE;
        if (h > 0 && rows_of_half(&task, h) == 0)
            break;
        walks[h] = begin_walk(p, &task, h);
        walks[h].next = cold->places[h].next;
        walks[h].entry = cold->places[h].entry;
        if (!hd_walk_next(&walks[h], &blocks[h]))
            blocks[h].key = NONE;
        key = min(key, (int)blocks[h].key);
    }
#pragma unroll
    for (int h = 0; h < C::HALVES; h++) {
        now->half[h].count = next->half[h].count;
        now->half[h].full = next->half[h].full;
        now->half[h].bits = next->half[h].bits;
        next->half[h].count = 0;
        if (h > 0 && rows_of_half(&task, h) == 0)
            break;
        if (blocks[h].key != key || key == NONE) {
            full = false;
            continue;
        }
        next->half[h].count = blocks[h].count;
        next->half[h].full = blocks[h].full;
        next->half[h].bits = blocks[h].bits;
        count = max(count, blocks[h].count);
        full = full && blocks[h].full && blocks[h].count == KEYS;
        cold->places[h].next = walks[h].next;
        cold->places[h].entry = walks[h].entry;
    }
    /* What has to be gathered takes its time anyway. */
    full = full && count > 0 && !p->gather;
    int run = full;
    if (full && !p->a.visible.tiles) {
        /* Full blocks of a band follow each other up to the end of the first row's. */
        run = ((int)hd_end_key(&p->a.visible, task.first) - key) / KEYS;
#pragma unroll
        for (int h = 0; h < C::HALVES; h++)
            cold->places[h].next = key + (int64_t)KEYS * run;
    }
    next->key = key;
    next->count = count;
    next->blocks = run;
    if (count > 0 && run == 0)
        cold->masked = 1;
}

/* The first step is cold->next then. */
template <class C>
static __device__ __attribute__((noinline)) void begin_steps(const sm80_params_t *p,
                                                             volatile cold_t *cold)
{
    task_t task = get_task(cold);
#pragma unroll
    for (int h = 0; h < C::HALVES; h++) {
        if (h > 0 && rows_of_half(&task, h) == 0)
            break;
        hd_walk_t walk = begin_walk(p, &task, h);
        cold->places[h].next = walk.next;
        cold->places[h].entry = walk.entry;
    }
    cold->masked = 0;
    find_step<C>(p, cold);
}

/* Writes the words of mask_of for the present block, one a thread. */
template <class C>
static __device__ __attribute__((noinline)) void write_masks(const sm80_params_t *p,
                                                             const volatile cold_t *cold,
                                                             unsigned char *memory)
{
    int thread = (int)threadIdx.x + cold->zero, h = thread / KEYS, key = thread % KEYS;
    if (h >= C::HALVES)
        return;
    task_t task = get_task(cold);
    const volatile half_t *half = &cold->now.half[h];
    const heed_tile_list_t *tiles = p->a.visible.tiles;
    hd_walk_t walk = {.visible = &p->a.visible,
                      .first = task.first + HALF * h,
                      .rows = rows_of_half(&task, h),
                      .words = tiles ? tiles->tile_q / 64 : 0};
    hd_block_t block = {cold->now.key, half->count, half->full != 0, half->bits};
    uint64_t mask = 0;
    if (key < block.count)
        mask = block.full ? ~UINT64_C(0) : hd_walk_mask(&walk, &block, key);
    mask_of<C>(memory, key)[h] = mask;
}

/* Whether the warp has rows that see something of the present block. */
template <class C> static __device__ inline bool is_busy(const volatile cold_t *cold, int warp)
{
    int first = warp * C::WARP_ROWS;
    return first < cold->task.rows && cold->now.half[first / HALF].count > 0;
}

#endif
