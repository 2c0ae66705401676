/* cuda:decode_sm80, attention of few queries with mma.sync, for any card. decode.h says how rows
 * are packed and keys are split.
 *
 * A block of 4 warps takes the rows of one key head, 16 a warp, and a split of the keys. Tiles of
 * 64 keys (32 where a head is longer than 128) of K and of V pass through a ring of stages in
 * shared memory, filled by cp.async; two stages of 32 KiB are on their way while one is used. With
 * 16 rows or fewer each warp takes 16 keys of a tile, with up to 32 two warps take 32 keys each;
 * every warp has a softmax of its own, and they are added up at the end. Queries stay in registers.
 *
 * Rows of K and V that do not start at 16 bytes, or whose elements do not follow each other, are
 * copied element by element into the same tiles.
 *
 * Has run in the emulator only, never on a card. */
#include "simt.cuh"
#include "ptx.cuh"

#include "decode.cuh"

enum { THREADS = 32 * DECODE_WARPS, STEP = 16 /* keys that a warp takes at once */ };

template <int DIM> struct ring {
    enum {
        KEYS = DIM > 128 ? 32 : 64,
        STAGES = DIM > 64 ? 3 : 4,
        TILE = KEYS * DIM * 2, /* bytes */
        BYTES = STAGES * 2 * TILE,
        SHARED = BYTES + sizeof(decode_map_t) /* which is behind it */
    };
    static_assert(sizeof(decode_states<DIM>) <= BYTES, "the states lie where the ring was");
};

/* The block's tile of keys, or values, from `key` on; zeros for keys that nobody sees, which are
 * not read. */
template <int DIM>
static __device__ inline void copy_tile(const decode_params_t *p, const decode_task_t *task,
                                        const hd_view_t *view, int width, int key,
                                        unsigned char *tile)
{
    enum { PIECES = DIM / 8, KEYS = ring<DIM>::KEYS, AT_ONCE = THREADS / PIECES };
    int piece = (int)threadIdx.x % PIECES, row = (int)threadIdx.x / PIECES;
    int low = p->low - key, high = task->end - key;
    const char *head = hd_view_row(view, task->batch, 0, task->key_head);
    const char *from = head + (key + row) * view->row + 16 * piece;
    int bytes = max(min(2 * (width - 8 * piece), 16), 0);
#pragma unroll
    for (int i = 0; i < KEYS / AT_ONCE; i++, row += AT_ONCE, from += AT_ONCE * view->row) {
        int valid = row >= low && row < high ? bytes : 0;
        hd_cp_async_16(decode_piece(tile, KEYS, row, piece), valid ? from : head, valid);
    }
}

/* The same for rows of any alignment, whose elements lie anywhere. */
template <int DIM>
static __device__ inline void gather_tile(const decode_params_t *p, const decode_task_t *task,
                                          const hd_view_t *view, int width, int key,
                                          unsigned char *tile)
{
    enum { PIECES = DIM / 8, KEYS = ring<DIM>::KEYS };
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < KEYS * PIECES; i += THREADS) {
        int row = i / PIECES, piece = i % PIECES;
        bool read = key + row >= p->low && key + row < task->end;
        const char *from = hd_view_row(view, task->batch, read ? key + row : 0, task->key_head);
        *(uint4 *)decode_piece(tile, KEYS, row, piece) =
            decode_load_piece(view, from, 8 * piece, read ? width : 0);
    }
}

/* Both tiles of a stage, if there are keys left; one group of copies always. */
template <int DIM>
static __device__ inline void load_stage(const decode_params_t *p, const decode_task_t *task,
                                         int key, unsigned char *stage)
{
#pragma unroll 1
    for (int i = 0; key < task->end && i < 2; i++, stage += ring<DIM>::TILE) {
        const hd_view_t *view = i ? &p->a.v : &p->a.k;
        int width = i ? p->a.dv : p->a.d;
        if (i ? p->fast_v : p->fast_k)
            copy_tile<DIM>(p, task, view, width, key, stage);
        else
            gather_tile<DIM>(p, task, view, width, key, stage);
    }
    hd_cp_async_commit();
}

static __device__ inline uint32_t load_pair(const decode_params_t *p, const char *row, int column)
{
    const char *at = row + column * p->a.q.elem;
    if (p->fast_q && column + 1 < p->a.d)
        return *(const uint32_t *)at;
    uint32_t low = column < p->a.d ? *(const uint16_t *)at : 0;
    uint32_t high = column + 1 < p->a.d ? *(const uint16_t *)(at + p->a.q.elem) : 0;
    return low | high << 16;
}

/* The warp's rows, from `row` on, as left operands; zeros where there are none. */
template <int DIM>
static __device__ inline void load_queries(const decode_params_t *p, const decode_task_t *task,
                                           int row, uint32_t (&q)[DIM / 16][4])
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int mine = row + lane / 4 + 8 * r;
        const char *from = decode_query(p, task, min(mine, p->rows - 1));
#pragma unroll
        for (int i = 0; i < DIM / 8; i++)
            q[i / 2][i % 2 * 2 + r] = mine < p->rows ? load_pair(p, from, 8 * i + lane % 4 * 2) : 0;
    }
}

template <bool BF16>
static __device__ inline void multiply(float *d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    uint32_t b[2] = {b0, b1};
    float(&four)[4] = *(float(*)[4])d;
    if (BF16)
        hd_mma_bf16(four, a, b);
    else
        hd_mma_f16(four, a, b);
}

/* decode_piece for ldmatrix, written so that few registers hold many addresses: piece 2 * i + odd
 * of a row is pieces(tile, offset(row, odd), i). */
static __device__ inline int offset(int row, int odd)
{
    return row * 128 + (odd ^ row % 8) * 16;
}

template <int DIM>
static __device__ inline unsigned char *pieces(unsigned char *tile, int offset, int i)
{
    return tile + i / 4 * ring<DIM>::KEYS * 128 + (offset ^ i % 4 * 32);
}

/* Scores of the 16 keys in the rows from `key` on of a tile. */
template <bool BF16, int DIM>
static __device__ inline void score(unsigned char *tile, int key, const uint32_t (&q)[DIM / 16][4],
                                    float (&s)[8])
{
    int lane = (int)threadIdx.x % 32;
    int at = offset(key + lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int i = 0; i < 8; i++)
        s[i] = 0;
#pragma unroll
    for (int i = 0; i < DIM / 16; i++) {
        uint32_t k[4];
        hd_ldmatrix_x4(k, pieces<DIM>(tile, at, i));
        multiply<BF16>(s, q[i], k[0], k[1]);
        multiply<BF16>(s + 4, q[i], k[2], k[3]);
    }
}

template <bool BF16, int DIM>
static __device__ inline void add_values(unsigned char *tile, int key, const uint32_t (&weights)[4],
                                         float (&acc)[DIM / 2])
{
    int lane = (int)threadIdx.x % 32, at = offset(key + lane % 16, lane / 16);
#pragma unroll
    for (int i = 0; i < DIM / 16; i++) {
        uint32_t v[4];
        hd_ldmatrix_x4_trans(v, pieces<DIM>(tile, at, i));
        multiply<BF16>(acc + 8 * i, weights, v[0], v[1]);
        multiply<BF16>(acc + 8 * i + 4, weights, v[2], v[3]);
    }
}

/* The warp's part of a stage whose first key is `first`. */
template <bool BF16, int DIM>
static __device__ inline void attend_stage(const decode_params_t *p, const decode_task_t *task,
                                           const decode_map_t *map, unsigned char *stage, int first,
                                           int row, int part, int parts,
                                           const uint32_t (&q)[DIM / 16][4], decode_place_t *place,
                                           decode_state_t *state, float (&acc)[DIM / 2])
{
    enum { KEYS = ring<DIM>::KEYS };
    unsigned char *values = stage + ring<DIM>::TILE;
#pragma unroll 1
    for (int from = part * STEP; from < KEYS; from += parts * STEP) {
        int key = first + from;
        bool full = decode_is_full(p, task, map, key, key + STEP);
        float s[8];
        uint32_t weights[1][4], sees = full ? 0 : decode_sees<2>(p, task, row, key, place);
        score<BF16, DIM>(stage, from, q, s);
        decode_weigh<BF16, 2>(p->scale, full, sees, s, state, acc, weights);
        if (!full && decode_is_special<BF16>(values, KEYS, DIM / 8, from, STEP)) {
            decode_add_seen<BF16, STEP>(sees, values, KEYS, from, weights, acc);
        } else {
            add_values<BF16, DIM>(values, from, weights[0], acc);
        }
    }
}

template <bool BF16, int DIM>
static __global__ void __launch_bounds__(THREADS) attend(const __grid_constant__ decode_params_t p)
{
    enum { KEYS = ring<DIM>::KEYS, STAGES = ring<DIM>::STAGES, STAGE = 2 * ring<DIM>::TILE };
    HD_SHARED(memory);
    decode_map_t *map = (decode_map_t *)(memory + ring<DIM>::BYTES);
    decode_task_t task = decode_task(&p);
    int row_tiles = p.rows <= 16 ? 1 : p.rows <= 32 ? 2 : 4, warp = (int)threadIdx.x / 32;
    int row = warp % row_tiles * DECODE_WARP_ROWS;
    decode_place_t place = decode_start(&p, &task, row);
    decode_state_t state = {{-INFINITY, -INFINITY}, {0, 0}};
    uint32_t q[DIM / 16][4];
    float acc[DIM / 2];
    load_queries<DIM>(&p, &task, row, q);
#pragma unroll
    for (int i = 0; i < DIM / 2; i++)
        acc[i] = 0;
    if (p.a.visible.tiles)
        decode_mark(&p, &task, map);

    /* Keys are attended to from `key` on, and asked for from `ahead` on. */
    int at = 0, next = 0, key = decode_next(&p, &task, map, task.first), ahead = key;
#pragma unroll 1
    for (int number = 1 - STAGES; key < task.end; number++) {
        /* This stage is there for all, and the one before it has been read by all. */
        if (number >= 0) {
            hd_cp_async_wait<STAGES - 2>();
            __syncthreads();
        }
        load_stage<DIM>(&p, &task, ahead, memory + next * STAGE);
        next = next + 1 == STAGES ? 0 : next + 1;
        ahead = decode_next(&p, &task, map, ahead + KEYS);
        if (number < 0)
            continue;
        if (row < p.rows)
            attend_stage<BF16, DIM>(&p, &task, map, memory + at * STAGE, key, row, warp / row_tiles,
                                    DECODE_WARPS / row_tiles, q, &place, &state, acc);
        at = at + 1 == STAGES ? 0 : at + 1;
        key = decode_next(&p, &task, map, key + KEYS);
    }

    decode_states<DIM> *states = (decode_states<DIM> *)memory;
    hd_cp_async_wait<0>();
    __syncthreads();
    decode_put<DIM>(states, &state, acc);
    __syncthreads();
    decode_finish<DIM>(&p, &task, states, row_tiles);
}

/* ---- the host's side ------------------------------------------------------------------------- */

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

/* Blocks that run at once: what the smallest shared memory of a multiprocessor, 100 KiB, holds. */
static int64_t slots(const heed_attention_desc_t *desc, int multiprocessors)
{
    return multiprocessors * (decode_dim(desc) == 64 ? 2 : 1);
}

template <bool BF16> static int launch_attend(int dim, void *stream, const decode_params_t &p)
{
    dim3 grid((unsigned)(p.units * p.splits)), block(THREADS);
    if (dim == 64)
        return HD_LAUNCH((attend<BF16, 64>), grid, block, ring<64>::SHARED, stream, p);
    if (dim == 128)
        return HD_LAUNCH((attend<BF16, 128>), grid, block, ring<128>::SHARED, stream, p);
    return HD_LAUNCH((attend<BF16, 256>), grid, block, ring<256>::SHARED, stream, p);
}

static int launch_both(const heed_attention_desc_t *desc, void *stream, const decode_params_t &p)
{
    int dim = decode_dim(desc);
    int error = desc->q.dtype == HEED_BF16 ? launch_attend<true>(dim, stream, p)
                                           : launch_attend<false>(dim, stream, p);
    if (error || p.splits == 1)
        return error;
    return HD_LAUNCH(decode_merge<false>, decode_merge_grid(&p), dim3(DECODE_MERGE_THREADS),
                     decode_merge_shared(), stream, p);
}

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    int64_t at_once = slots(desc, hd_cuda_multiprocessors(desc->q.device));
    decode_params_t p = decode_plan(desc, launch->buffers, at_once);
    if (launch->tiles)
        p.a.visible.tiles = launch->tiles;
    if (p.units * p.rows == 0)
        return HEED_OK;
    decode_place(&p, launch->workspace);
    p.fast_q = decode_is_aligned(&p.a.q, 4);
    p.fast_k = decode_is_aligned(&p.a.k, 16);
    p.fast_v = decode_is_aligned(&p.a.v, 16);

    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(launch, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    int error = launch_both(desc, launch->stream.native, p);
    return hd_cuda_leave(&scope, error, "cuda:decode_sm80");
}

static int supports(const void *desc, const heed_device_info_t *device, heed_why_t *why)
{
    return decode_supports((const heed_attention_desc_t *)desc, device, why);
}

static size_t workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    decode_params_t p = decode_plan(desc, NULL, slots(desc, device->multiprocessors));
    return decode_workspace(&p);
}

static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    return decode_estimate(desc, device, slots(desc, device->multiprocessors));
}

extern "C" const heed_impl_t hd_impl_decode_sm80;
const heed_impl_t hd_impl_decode_sm80 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:decode_sm80",
    .about = "few queries: rows of a key head packed, keys split over the card; any card",
    .device_type = HEED_DEVICE_CUDA,
    .features = DECODE_FEATURES | HEED_ATTENTION_CAN_STRIDED_DIM,
    .supports = supports,
    .estimate = estimate,
    .workspace = workspace,
    .run = run,
};
