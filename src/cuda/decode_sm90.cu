/* cuda:decode_sm90, attention of few queries on Hopper. decode.h says how rows are packed and keys
 * are split.
 *
 * A block is one warpgroup. It takes the rows of one key head, 64 with what is left zero, and a
 * split of the keys. TMA fills a ring of tiles, each the keys or the values of 64 keys: 96 KiB of
 * tiles (192 KiB where a head is longer than 128) are on their way in every block, two of which fit
 * a multiprocessor (one).
 *
 *     scores = Q K^T    (wgmma 64 x 64, both in shared memory)
 *     out   += P V      (wgmma 64 x DIM, P in registers, V as it lies in memory)
 *
 * The products are not overlapped with the softmax: together they take less than half of what
 * memory needs for the same tile, and the other block fills the gaps. A warp whose 16 rows are all
 * empty leaves the softmax out. One thread asks for the next tile when all warps have let go of
 * one; a warp of its own for this would make the block two warpgroups, and the registers of the
 * second are those of the second block.
 *
 * TMA wants rows of K and V that start at 16 bytes. Strides that do not allow it are refused;
 * addresses are known too late for that, and are left to decode_sm80.
 *
 * Has run in the emulator only, never on a card. */
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

/* One thread: asks for tile `number` of the split, keys and values in turn, to lie in place `to`.
 */
template <int DIM>
static __device__ inline void request(const params_t *p, const decode_task_t *task,
                                      shared_memory<DIM> *s, int to, int number)
{
    const hd_tensor_map_t *map = number % 2 ? &p->v : &p->k;
    int key = task->first + number / 2 * KEYS;
    /* Nobody reads it twice. */
    uint64_t policy = hd_l2_evict_first();
    hd_mbarrier_expect(&s->full[to], shared_memory<DIM>::TILE);
#pragma unroll
    for (int slab = 0; slab < DIM / 64; slab++)
        hd_tma_load(s->tiles[to] + slab * SLAB, map, &s->full[to], 64 * slab, key,
                    (int)task->key_head, (int)task->batch, policy);
}

/* Barriers, and the first tiles. */
template <int DIM>
static __device__ inline void begin(const params_t *p, const decode_task_t *task,
                                    shared_memory<DIM> *s)
{
    enum { TILES = shared_memory<DIM>::TILES };
    for (int i = 0; i < TILES; i++) {
        hd_mbarrier_init(&s->full[i], 1);
        hd_mbarrier_init(&s->empty[i], DECODE_WARPS);
    }
    hd_fence_mbarrier_init();
    for (int i = 0; i < TILES && task->first + i / 2 * KEYS < task->end; i++)
        request<DIM>(p, task, s, i, i);
}

/* Where tile `number` was, there the ring's next one goes, when all warps have let go. */
template <int DIM>
static __device__ inline void refill(const params_t *p, const decode_task_t *task,
                                     shared_memory<DIM> *s, place<DIM> at, int number)
{
    number += shared_memory<DIM>::TILES;
    if (threadIdx.x == 0 && task->first + number / 2 * KEYS < task->end) {
        hd_mbarrier_wait(&s->empty[at.tile], at.parity);
        request<DIM>(p, task, s, at.tile, number);
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

/* All keys of the split. */
template <bool BF16, int DIM>
static __device__ inline void consume(const params_t *params, const decode_task_t *task,
                                      shared_memory<DIM> *s, decode_state_t *state,
                                      float (&acc)[DIM / 2])
{
    constexpr hd_mma_type TYPE = BF16 ? HD_MMA_BF16 : HD_MMA_F16;
    const decode_params_t *p = &params->decode;
    int row = (int)threadIdx.x / 32 * DECODE_WARP_ROWS, number = 0;
    decode_seen_t seen = decode_sees(p, row + (int)threadIdx.x % 32 / 4);
    uint32_t weights[KEYS / 16][4] = {};
    place<DIM> at = {0, 0};
#pragma unroll 1
    for (int key = task->first; key < task->end; key += KEYS, number += 2) {
        float scores[32];
        bool full = key >= p->all_low && key + KEYS <= p->all_high;
        hd_mbarrier_wait(&s->full[at.tile], at.parity);
        score<TYPE, DIM>(s->queries, s->tiles[at.tile], scores);
        let_go<DIM>(s, at);
        if (row < p->rows)
            decode_weigh<BF16, 8>(p, &seen, key, full, scores, state, acc, weights);
        refill<DIM>(params, task, s, at, number);
        at.step();

        hd_mbarrier_wait(&s->full[at.tile], at.parity);
        unsigned char *values = s->tiles[at.tile];
        /* Each warp looks at the whole tile, so that all go the same way. */
        if (!full && decode_is_special<BF16>(values, KEYS, DIM / 8, 0, KEYS))
            decode_add_seen<BF16, KEYS>(&seen, key, values, KEYS, 0, weights, acc);
        else
            add_values<TYPE, DIM>(weights, values, acc);
        let_go<DIM>(s, at);
        refill<DIM>(params, task, s, at, number + 1);
        at.step();
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
    if (threadIdx.x == 0)
        begin<DIM>(&p, &task, s);
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
    consume<BF16, DIM>(&p, &task, s, &state, acc);

    /* All warps have read the last tile. */
    __syncthreads();
    decode_states<DIM> *states = (decode_states<DIM> *)memory;
    decode_put<DIM>(states, &state, acc);
    __syncthreads();
    decode_finish<DIM>(&p.decode, &task, states, DECODE_WARPS);
#endif
}

} // namespace decode_sm90

/* ---- the host's side ------------------------------------------------------------------------- */

using namespace decode_sm90;

extern "C" const heed_impl_t hd_impl_decode_sm80;

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

/* Blocks that run at once. */
static int64_t slots(const heed_attention_desc_t *desc, int multiprocessors)
{
    return multiprocessors * (decode_dim(desc) == 256 ? 1 : 2);
}

/* K or V of the problem; an axis of one element has any stride. */
static heed_status_t make_map(hd_tensor_map_t *map, const hd_attention_t *a, const hd_view_t *view,
                              int width, const char *name)
{
    hd_map_desc_t desc = {.dtype = view->dtype, .data = view->data};
    const int64_t sizes[HD_MAP_AXES] = {width, a->keys, a->key_heads, a->batch};
    const int64_t strides[HD_MAP_AXES] = {2, view->row, view->head, view->batch};
    const int32_t box[HD_MAP_AXES] = {64, KEYS, 1, 1};
    for (int i = 0; i < HD_MAP_AXES; i++) {
        desc.sizes[i] = sizes[i];
        desc.strides[i] = sizes[i] > 1 ? strides[i] : 16;
        desc.box[i] = box[i];
    }
    desc.swizzle = 128;
    return hd_cuda_tensor_map(map, &desc, name);
}

template <bool BF16> static int launch_attend(int dim, void *stream, const params_t &p)
{
    dim3 grid((unsigned)(p.decode.units * p.decode.splits)), block(THREADS);
    if (dim == 64)
        return HD_LAUNCH((attend<BF16, 64>), grid, block, sizeof(shared_memory<64>), stream, p);
    if (dim == 128)
        return HD_LAUNCH((attend<BF16, 128>), grid, block, sizeof(shared_memory<128>), stream, p);
    return HD_LAUNCH((attend<BF16, 256>), grid, block, sizeof(shared_memory<256>), stream, p);
}

static int launch_both(const heed_attention_desc_t *desc, void *stream, const params_t &p)
{
    int dim = decode_dim(desc);
    int error = desc->q.dtype == HEED_BF16 ? launch_attend<true>(dim, stream, p)
                                           : launch_attend<false>(dim, stream, p);
    if (error || p.decode.splits == 1)
        return error;
    return HD_LAUNCH_DEPENDENT(decode_merge<true>, decode_merge_grid(&p.decode),
                               dim3(DECODE_MERGE_THREADS), decode_merge_shared(), stream, p.decode);
}

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    int64_t at_once = slots(desc, hd_cuda_multiprocessors(desc->q.device));
    params_t p = {decode_plan(desc, launch->buffers, at_once)};
    decode_params_t *decode = &p.decode;
    if (decode->units * decode->rows == 0)
        return HEED_OK;
    /* Without a key there is nothing to map. */
    if ((uintptr_t)decode->a.k.data % 16 || (uintptr_t)decode->a.v.data % 16 || decode->a.keys == 0)
        return hd_impl_decode_sm80.run(launch);
    decode_place(decode, launch->workspace);
    decode->fast_q = decode_is_aligned(&decode->a.q, 16);

    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(launch, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    status = make_map(&p.k, &decode->a, &decode->a.k, decode->a.d, "k");
    if (status == HEED_OK)
        status = make_map(&p.v, &decode->a, &decode->a.v, decode->a.dv, "v");
    int error = status == HEED_OK ? launch_both(desc, launch->stream.native, p) : 0;
    heed_status_t left = hd_cuda_leave(&scope, error, "cuda:decode_sm90");
    return status == HEED_OK ? left : status;
}

/* The first axis of a tensor whose stride TMA does not take, -1: none. */
static int bad_axis(const heed_tensor_t *tensor)
{
    for (int i = 0; i < 3; i++)
        if (tensor->shape[i] > 1 && (tensor->strides[i] <= 0 || tensor->strides[i] % 8))
            return i;
    return tensor->shape[3] > 1 && tensor->strides[3] != 1 ? 3 : -1;
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const heed_tensor_t *tensors[] = {&desc->k, &desc->v};
    for (int i = 0; i < 2; i++) {
        int axis = bad_axis(tensors[i]);
        if (axis >= 0)
            return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                                  "%s.strides[%d]=%lld: TMA takes multiples of 8 elements",
                                  i ? "v" : "k", axis, (long long)tensors[i]->strides[axis]);
    }
    return decode_supports(desc, device, why) && hd_sm90_takes(device, why);
}

/* Enough for decode_sm80 too. */
static size_t workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    decode_params_t p = decode_plan(desc, NULL, slots(desc, device->multiprocessors));
    size_t other = hd_impl_decode_sm80.workspace(at, device, threads), mine = decode_workspace(&p);
    return mine > other ? mine : other;
}

static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    return 0.9 * decode_estimate(desc, device, slots(desc, device->multiprocessors));
}

extern "C" const heed_impl_t hd_impl_decode_sm90;
const heed_impl_t hd_impl_decode_sm90 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:decode_sm90",
    .about = "few queries: rows of a key head packed, keys split over the card; TMA and wgmma",
    .device_type = HEED_DEVICE_CUDA,
    .features = DECODE_FEATURES,
    .supports = supports,
    .estimate = estimate,
    .workspace = workspace,
    .run = run,
};
