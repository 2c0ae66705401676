/* The kernel of cuda:decode_sm90; decode_sm90.cu has its algorithm. */
#ifndef HD_DECODE_SM90_KERNEL_CUH
#define HD_DECODE_SM90_KERNEL_CUH

#include "sm90.cuh"
#include "ptx.cuh"

#include "decode.cuh"
#include "tensor_map.h"

namespace decode_sm90
{

enum {
    THREADS = 32 * DECODE_WARPS,
    KEYS = HD_BLOCK_KEYS,
    SLAB = KEYS * 128 /* bytes: 64 rows of 64 columns */
};

typedef struct params {
    decode_params_t decode;
    hd_tensor_map_t k, v;
} params_t;

template <int DIM> struct shared_memory {
    enum { SLABS = DIM / 64, TILE = SLABS * SLAB, TILES = DIM == 64 ? 12 : 6 };
    unsigned char tiles[TILES][TILE]; /* keys, values, keys, ...; at the end the states */
    unsigned char queries[TILE];
    uint64_t full[TILES], empty[TILES];
    decode_map_t map;
    static_assert(sizeof(decode_states<DIM>) <= TILES * TILE, "the states lie where the ring was");
};

#if HD_SM90

/* Where a walk through the ring is. */
template <int DIM> struct place {
    int tile;
    uint32_t parity;

    __device__ void step()
    {
        if (++tile == shared_memory<DIM>::TILES) {
            tile = 0;
            parity ^= 1;
        }
    }
};

/* The queries in tiles as TMA would bring them, zeros where there is no row. */
template <int DIM>
static __device__ inline void load_queries(const decode_params_t *p, const decode_task_t *task,
                                           unsigned char *tile)
{
#pragma unroll 2
    for (int i = (int)threadIdx.x; i < DECODE_ROWS * DIM / 8; i += THREADS) {
        int row = i / (DIM / 8), piece = i % (DIM / 8);
        const char *from = decode_query(p, task, min(row, p->rows - 1));
        uint4 values = {0, 0, 0, 0};
        if (row < p->rows && p->fast_q && 8 * piece + 8 <= p->a.d)
            values = *(const uint4 *)(from + 16 * piece);
        else if (row < p->rows)
            values = decode_load_piece(&p->a.q, from, 8 * piece, p->a.d);
        *(uint4 *)decode_piece(tile, DECODE_ROWS, row, piece) = values;
    }
}

/* One thread: asks for the tile of keys or values from `key` on, to lie in place `to`. */
template <int DIM>
static __device__ inline void request(const hd_tensor_map_t *map, const decode_task_t *task,
                                      shared_memory<DIM> *s, int to, int key)
{
    /* Nobody reads it twice. */
    uint64_t policy = hd_l2_evict_first();
    hd_mbarrier_expect(&s->full[to], shared_memory<DIM>::TILE);
#pragma unroll
    for (int slab = 0; slab < DIM / 64; slab++)
        hd_tma_load(s->tiles[to] + slab * SLAB, map, &s->full[to], 64 * slab, key,
                    (int)task->key_head, (int)task->batch, policy);
}

/* One thread: barriers, and the first tiles. Returns the key of the next ones. */
template <int DIM>
static __device__ inline int begin(const params_t *p, const decode_task_t *task,
                                   shared_memory<DIM> *s)
{
    enum { TILES = shared_memory<DIM>::TILES };
    for (int i = 0; i < TILES; i++) {
        hd_mbarrier_init(&s->full[i], 1);
        hd_mbarrier_init(&s->empty[i], DECODE_WARPS);
    }
    hd_fence_mbarrier_init();
    int key = decode_next(&p->decode, task, &s->map, task->first);
    for (int i = 0; i < TILES && key < task->end; i += 2) {
        request<DIM>(&p->k, task, s, i, key);
        request<DIM>(&p->v, task, s, i + 1, key);
        key = decode_next(&p->decode, task, &s->map, key + KEYS);
    }
    return key;
}

/* Where a tile was, there the one from `key` on goes, when all warps have let go. */
template <int DIM>
static __device__ inline void refill(const hd_tensor_map_t *map, const decode_task_t *task,
                                     shared_memory<DIM> *s, place<DIM> at, int key)
{
    if (threadIdx.x == 0 && key < task->end) {
        hd_mbarrier_wait(&s->empty[at.tile], at.parity);
        request<DIM>(map, task, s, at.tile, key);
    }
    __syncwarp();
}

/* The tile at `at` is not needed any more by this warp. */
template <int DIM> static __device__ inline void let_go(shared_memory<DIM> *s, place<DIM> at)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        hd_mbarrier_arrive(&s->empty[at.tile]);
}

template <hd_mma_type TYPE, int DIM>
static __device__ inline void score(const unsigned char *queries, const unsigned char *keys,
                                    float (&s)[32])
{
    uint64_t a = hd_wgmma_descriptor(queries, 0, 1024), b = hd_wgmma_descriptor(keys, 0, 1024);
    hd_wgmma_fence();
#pragma unroll
    for (int i = 0; i < DIM / 16; i++) {
        int step = i / 4 * (SLAB / 16) + i % 4 * 2;
        hd_wgmma<TYPE, 64>::template ss<HD_K_MAJOR>(s, a + step, b + step, i > 0);
    }
    hd_wgmma_commit();
    hd_wgmma_wait<0>();
}

template <hd_mma_type TYPE, int DIM>
static __device__ inline void add_values(const uint32_t (&weights)[KEYS / 16][4],
                                         const unsigned char *values, float (&acc)[DIM / 2])
{
    uint64_t b = hd_wgmma_descriptor(values, SLAB, 1024);
    hd_wgmma_fence();
#pragma unroll
    for (int i = 0; i < KEYS / 16; i++)
        hd_wgmma<TYPE, DIM>::template rs<HD_MN_MAJOR>(acc, weights[i], b + i * 128, 1);
    hd_wgmma_commit();
    hd_wgmma_wait<0>();
}

/* All keys of the split that are to be visited. The next ones to be asked for are those from
 * `ahead` on, which thread 0 alone knows. */
template <bool BF16, int DIM>
static __device__ inline void consume(const params_t *params, const decode_task_t *task,
                                      shared_memory<DIM> *s, int ahead, decode_state_t *state,
                                      float (&acc)[DIM / 2])
{
    constexpr hd_mma_type TYPE = BF16 ? HD_MMA_BF16 : HD_MMA_F16;
    const decode_params_t *p = &params->decode;
    int row = (int)threadIdx.x / 32 * DECODE_WARP_ROWS;
    decode_place_t rows = decode_start(p, task, row);
    uint32_t weights[KEYS / 16][4] = {};
    place<DIM> at = {0, 0};
    int key = decode_next(p, task, &s->map, task->first);
#pragma unroll 1
    for (; key < task->end; key = decode_next(p, task, &s->map, key + KEYS)) {
        float scores[32];
        bool full = decode_is_full(p, task, &s->map, key, key + KEYS);
        uint32_t sees = 0;
        hd_mbarrier_wait(&s->full[at.tile], at.parity);
        score<TYPE, DIM>(s->queries, s->tiles[at.tile], scores);
        let_go<DIM>(s, at);
        if (row < p->rows) {
            if (!full)
                sees = decode_sees<8>(p, task, row, key, &rows);
            decode_weigh<BF16, 8>(p->scale, full, sees, scores, state, acc, weights);
        }
        refill<DIM>(&params->k, task, s, at, ahead);
        at.step();

        hd_mbarrier_wait(&s->full[at.tile], at.parity);
        unsigned char *values = s->tiles[at.tile];
        /* Each warp looks at the whole tile, so that all go the same way. */
        if (!full && decode_is_special<BF16>(values, KEYS, DIM / 8, 0, KEYS))
            decode_add_seen<BF16, KEYS>(sees, values, KEYS, 0, weights, acc);
        else
            add_values<TYPE, DIM>(weights, values, acc);
        let_go<DIM>(s, at);
        refill<DIM>(&params->v, task, s, at, ahead);
        at.step();
        if (threadIdx.x == 0)
            ahead = decode_next(p, task, &s->map, ahead + KEYS);
    }
}

#endif

template <bool BF16, int DIM>
static __global__ void __launch_bounds__(THREADS, DIM == 256 ? 1 : 2)
    attend(const __grid_constant__ params_t p)
{
#if HD_SM90
    HD_SHARED(memory);
    shared_memory<DIM> *s = (shared_memory<DIM> *)memory;
    decode_task_t task = decode_task(&p.decode);
    int ahead = 0;
    if (p.decode.a.visible.tiles)
        decode_mark(&p.decode, &task, &s->map);
    if (threadIdx.x == 0)
        ahead = begin<DIM>(&p, &task, s);
    /* Once all blocks have begun, those of the merge may wait where there is room. */
    hd_grid_release();

    decode_state_t state = {{-INFINITY, -INFINITY}, {0, 0}};
    float acc[DIM / 2];
#pragma unroll
    for (int i = 0; i < DIM / 2; i++)
        acc[i] = 0;
    load_queries<DIM>(&p.decode, &task, s->queries);
    hd_fence_async();
    __syncthreads();
    consume<BF16, DIM>(&p, &task, s, ahead, &state, acc);

    /* All warps have read the last tile. */
    __syncthreads();
    decode_states<DIM> *states = (decode_states<DIM> *)memory;
    decode_put<DIM>(states, &state, acc);
    __syncthreads();
    decode_finish<DIM>(&p.decode, &task, states, DECODE_WARPS);
#endif
}

} // namespace decode_sm90

#endif
