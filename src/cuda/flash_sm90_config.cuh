/* What the host and all roles of cuda:flash_sm90 agree on: parameters, tile sizes, where things lie
 * in shared memory, and the order of the work. */
#ifndef HD_FLASH_SM90_CONFIG_CUH
#define HD_FLASH_SM90_CONFIG_CUH

#include "sm90.cuh"
#include "ptx.cuh"
#include "tensor_map.h"

#include "../common/attention.h"
#include "../common/element.h"

#define HD_INLINE __device__ __forceinline__

namespace flash_sm90
{

/* How the reference of a row, the number that is subtracted from its scores, follows the scores in
 * blocks without masks. Blocks with masks, and the first of a tile, always take the exact way. */
enum mode_t {
    EXACT, /* the largest score so far, known before each block's exponentials */
    BOUND, /* stays until a score lies more than 8 above it (in log2) */
    SUM,   /* stays until the row sum shows that it should have moved */
};

enum {
    ROWS = 64,        /* queries of a warpgroup */
    STAGES = 2,       /* tiles of K, and of V, in shared memory */
    REDO_WORDS = 32,  /* of 32 waves each */
    SLAB_BYTES = 128, /* of a row of a slab: 64 elements of 16 bits */
    QUERY_SLAB = ROWS * SLAB_BYTES,
};

typedef struct params {
    hd_tensor_map_t q, k, v, out;
    hd_attention_t a;
    float scale;       /* |a.scale| log2(e) */
    int32_t exact;     /* all blocks the exact way */
    int32_t tma_store; /* the output can leave through its map */
    int32_t row_tiles; /* of a head */
    int32_t planes;    /* B * H */
    int32_t section;   /* planes whose keys and values fit into L2 */
    int32_t tiles;     /* row_tiles * planes */
    int32_t shift;     /* of waves that share a bit of the redo list, as a power of 2 */
} params_t;

/* TYPE: of the operands. DIM: head dim, D and Dv are at most that. KEYS: of a block. GROUPS:
 * warpgroups that compute. POLY: how many of 64 exponentials are polynomials. PING: warpgroups take
 * turns at the tensor cores. TILES: visibility is a tile list. */
template <hd_mma_type TYPE_, int DIM_, int KEYS_, int GROUPS_, mode_t MODE_, int POLY_, bool PING_,
          bool TILES_>
struct config {
    static constexpr hd_mma_type TYPE = TYPE_;
    static constexpr int DIM = DIM_, KEYS = KEYS_, GROUPS = GROUPS_, POLY = POLY_;
    static constexpr mode_t MODE = MODE_;
    static constexpr bool PING = PING_ && GROUPS_ > 1, TILES = TILES_;
    static constexpr int QUERIES = ROWS * GROUPS, WARPS = 4 * GROUPS;
    static constexpr int THREADS = 128 * (GROUPS + 1);
    static constexpr int SLAB_COLUMNS = 64, SLABS = (DIM + SLAB_COLUMNS - 1) / SLAB_COLUMNS;
    static constexpr int STEP = 16;          /* keys of a product P V */
    static constexpr int TOP = 0;            /* log2 of the largest weight of a row */
    static constexpr float SLACK = 8;        /* by which a weight may come to lie above it */
    static constexpr int V_READERS = GROUPS; /* of a tile of V, each counts once */
    static constexpr int JOINING = 32 * (WARPS + 1); /* threads that meet between rounds */
    /* Registers of a thread that loads, and of one that computes: 64 Ki in a multiprocessor. */
    static constexpr int LOAD_REGISTERS = GROUPS == 3 ? 32 : 24;
    static constexpr int MATH_REGISTERS = GROUPS == 3 ? 160 : GROUPS == 2 ? 240 : 256;

    /* Shared memory: Q of each warpgroup, rings of K and V, the output where it fits (else it
     * leaves through Q's place), barriers. */
    static constexpr int Q_BYTES = SLABS * QUERY_SLAB, K_BYTES = SLABS * KEYS * SLAB_BYTES;
    static constexpr int K_AT = GROUPS * Q_BYTES, V_AT = K_AT + STAGES * K_BYTES;
    static constexpr int END = V_AT + STAGES * K_BYTES;
    static constexpr bool STAGED = true; /* the output leaves through shared memory */
    static constexpr bool OWN_OUT = END + GROUPS * Q_BYTES <= 220 * 1024;
    static constexpr int OUT_AT = OWN_OUT ? END : 0;
    static constexpr int BARRIERS_AT = END + (OWN_OUT ? GROUPS * Q_BYTES : 0);
    static constexpr int REDO_AT = BARRIERS_AT + 128;
    static constexpr int SHARED = REDO_AT + WARPS * REDO_WORDS * 4;
};

typedef struct barriers {
    uint64_t q_full, q_free, k_full[STAGES], k_free[STAGES], v_full[STAGES], v_free[STAGES];
} barriers_t;

/* Numbers of named barriers. 1 to 3 are the warpgroups' turns. */
enum { TURN = 1, JOIN = 4 };

/* ---- the order of the work ------------------------------------------------------------------- */

/* Tiles are dealt to the blocks of the grid like cards, in rounds of alternating direction. Their
 * order: a few heads at a time, so that their keys stay in L2, the last queries first, which see
 * the most keys under a causal mask: what comes last is short. All of it follows from the numbers
 * of the tile and the block, so that nothing has to be cleared before a launch, and two launches of
 * a plan do the same. */
typedef struct task {
    int first; /* query */
    int last;
    int head, batch, key_head;
} task_t;

/* The number of wave `wave`'s tile; p->tiles and more: none. */
HD_DEVICE static inline int tile_of(int wave, int block, int blocks)
{
    return wave * blocks + (wave & 1 ? blocks - 1 - block : block);
}

template <class C> HD_DEVICE static inline task_t find_task(const params_t *p, int tile)
{
    int per_section = p->section * p->row_tiles, section = tile / per_section;
    int planes = p->planes - section * p->section, rest = tile - section * per_section;
    planes = planes < p->section ? planes : p->section;
    int plane = section * p->section + rest % planes, heads = (int)p->a.heads;
    task_t task;
    task.first = (p->row_tiles - 1 - rest / planes) * C::QUERIES;
    task.last = task.first + C::QUERIES - 1;
    if (task.last >= (int)p->a.queries)
        task.last = (int)p->a.queries - 1;
    task.batch = plane / heads;
    task.head = plane - task.batch * heads;
    task.key_head = task.head / (int)p->a.group;
    return task;
}

/* The blocks of keys of a band, from the last to the first: end-1 .. begin. Those from full_end-1
 * to full_begin need no mask. */
typedef struct blocks {
    int begin, end, full_begin, full_end;
    bool hides; /* a key of these blocks is masked for some query */
} blocks_t;

template <class C>
HD_DEVICE static inline blocks_t find_blocks(const params_t *p, const task_t *task, bool exact)
{
    const hd_visibility_t *visible = &p->a.visible;
    int low = (int)hd_first_key(visible, task->first), high = (int)hd_end_key(visible, task->last);
    int all_from = (int)hd_first_key(visible, task->last);
    int all_end = (int)hd_end_key(visible, task->first);
    blocks_t b;
    b.begin = low / C::KEYS;
    b.end = low < high ? (high + C::KEYS - 1) / C::KEYS : b.begin;
    int reach = b.end * C::KEYS < (int)p->a.keys ? b.end * C::KEYS : (int)p->a.keys;
    b.hides = all_from > b.begin * C::KEYS || all_end < reach;
    b.full_begin = (all_from + C::KEYS - 1) / C::KEYS;
    /* The block with the last key that the first query sees keeps its mask: after it every row has
     * seen a key, and so has a reference. */
    b.full_end = all_end > 0 ? (all_end - 1) / C::KEYS : 0;
    if (exact || b.full_begin >= b.full_end)
        b.full_begin = b.full_end = b.begin;
    return b;
}

} // namespace flash_sm90

#endif
