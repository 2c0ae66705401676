/* The end of cuda:flash_sm80: normalised, merged with what is there, stored by whole rows. */
#ifndef HD_FLASH_SM80_STORE_CUH
#define HD_FLASH_SM80_STORE_CUH

#include "flash_rescue.cuh"
#include "flash_sm80_math.cuh"

/* The result passes through shared memory in f32. Behind a row's columns: what the old result is to
 * be multiplied by, and the new lse. */
template <class C> static __device__ inline float *staged_row(unsigned char *memory, int row)
{
    return (float *)memory + row * C::OUT_STRIDE;
}

typedef struct share {
    float mine, old; /* factors */
    float lse;
} share_t;

/* What a row's sums are worth beside the state that is there. */
static __device__ inline share_t find_share(float reference, float sum, bool merge, float old_lse)
{
    /* NaN is no reason to call a row empty. */
    bool empty = sum == 0;
    share_t share = {empty ? 0 : 1 / sum, 0, -INFINITY};
    if (!empty)
        share.lse = reference * 0.69314718055994530942f + logf(sum);
    if (!merge)
        return share;
    float top = fmaxf(old_lse, share.lse);
    if (top == -INFINITY)
        return share;
    float mine = expf(share.lse - top), theirs = expf(old_lse - top);
    share.mine *= mine / (mine + theirs);
    share.old = theirs / (mine + theirs);
    share.lse = top + logf(mine + theirs);
    return share;
}

/* Row r of the lane, from registers to its place in shared memory. */
template <class C>
static __device__ __forceinline__ void stage_row(const sm80_params_t *p, const task_t *task,
                                                 unsigned char *memory, int r, const state<C> &s)
{
    int lane = lane_index();
    int row = warp_index() * C::WARP_ROWS + r / 2 * 16 + r % 2 * 8 + lane / 4;
    float sum = s.sum[r], old_lse = -INFINITY;
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (p->a.merge && row < task->rows)
        old_lse =
            *(const float *)hd_view_row(&p->a.lse, task->batch, task->first + row, task->head);
    share_t share = find_share(s.reference[r], sum, p->a.merge, old_lse);
    float *to = staged_row<C>(memory, row) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < C::DV / 8; n++) {
        const float *pair = &s.out[r / 2][n][r % 2 * 2];
        float low = share.mine == 0 ? 0 : share.mine * pair[0];
        float high = share.mine == 0 ? 0 : share.mine * pair[1];
        *(float2 *)(to + n * 8) = {low, high};
    }
    if (lane % 4 == 0) {
        float *behind = staged_row<C>(memory, row) + C::DV;
        *(float2 *)behind = {share.old, share.lse};
    }
}

static __device__ inline bool is_huge(float reference)
{
    return fabsf(reference) > 0x1p20f && reference != -FLT_MAX;
}

/* A row of the tile once more, the plain way, to its place in shared memory. Not inlined: its
 * registers stay out of the main loop's way. */
template <class C>
static __device__ __attribute__((noinline)) void rescue_row(const sm80_params_t *p,
                                                            const task_t *task,
                                                            unsigned char *memory, int row)
{
    float *to = staged_row<C>(memory, row), old_lse = -INFINITY;
    rescue<task_t> x;
    x.a = &p->a;
    x.task = task;
    x.query = task->first + row;
    x.run();
    if (p->a.merge)
        old_lse = *(const float *)hd_view_row(&p->a.lse, task->batch, x.query, task->head);
    share_t share = find_share(x.most * 1.44269504088896340736f, x.sum, p->a.merge, old_lse);
    for (int c = 0; c < rescue<task_t>::COLUMNS; c++)
        if (x.lane + 32 * c < C::DV)
            to[x.lane + 32 * c] = share.mine == 0 ? 0 : share.mine * x.out[c];
    if (x.lane == 0)
        *(float2 *)(to + C::DV) = {share.old, share.lse};
}

/* The warp's rows whose scores leave no bits for a weight: products are not rounded before a
 * reference that is rounded is taken from them. */
template <class C>
static __device__ inline void rescue_rows(const sm80_params_t *p, const task_t *task,
                                          unsigned char *memory, const state<C> &s)
{
#pragma unroll
    for (int r = 0; r < 2 * C::TILES; r++) {
        unsigned huge = __ballot_sync(~0u, is_huge(s.reference[r])) & 0x11111111;
        for (int i = 0; huge && i < 8; i++) {
            int row = warp_index() * C::WARP_ROWS + r / 2 * 16 + r % 2 * 8 + i;
            if ((huge >> 4 * i & 1) && row < task->rows)
                rescue_row<C>(p, task, memory, row);
        }
    }
    __syncwarp();
}

/* A mean of f16 values is one, but rounded weights may bring it past the largest. */
template <class C> static __device__ inline float held(float value)
{
    float most = 65504;
    return C::BF16 || isinf(value) || isnan(value) ? value : fminf(fmaxf(value, -most), most);
}

/* Columns 8 * piece .. 8 * piece + 7 of a row in q's type, nothing to be merged. */
template <class C> static __device__ inline void store_piece(const float *from, char *to, int piece)
{
    uint32_t pairs[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = *(const float2 *)(from + 8 * piece + 2 * i);
        pairs[i] = pack<C>(held<C>(pair.x), held<C>(pair.y));
    }
    *(uint4 *)(to + 16 * piece) = {pairs[0], pairs[1], pairs[2], pairs[3]};
}

/* A warp's rows in aligned pieces of 16 bytes. */
template <class C>
static __device__ inline void store_pieces(const sm80_params_t *p, const task_t *task,
                                           unsigned char *memory, int first, int rows)
{
    enum { PIECES = C::DV / 8 };
#pragma unroll 1
    for (int i = lane_index(); i < rows * PIECES; i += 32) {
        int row = first + i / PIECES, piece = i % PIECES;
        if (piece * 8 < p->a.dv)
            store_piece<C>(staged_row<C>(memory, row),
                           hd_view_row(&p->a.out, task->batch, task->first + row, task->head),
                           piece);
    }
}

/* A warp's rows of any type and stride, merged with what is there. */
template <class C>
static __device__ inline void store_elements(const sm80_params_t *p, const task_t *task,
                                             unsigned char *memory, int first, int rows)
{
    const hd_view_t *out = &p->a.out;
#pragma unroll 1
    for (int row = first; row < first + rows; row++) {
        const float *from = staged_row<C>(memory, row);
        char *to = hd_view_row(out, task->batch, task->first + row, task->head);
        float old = from[C::DV];
#pragma unroll 1
        for (int column = lane_index(); column < p->a.dv; column += 32) {
            char *at = to + column * out->elem;
            float value = from[column];
            if (old != 0)
                value = fmaf(old, hd_element_load(out->dtype, at), value);
            hd_element_store(out->dtype, at, held<C>(value));
        }
    }
}

/* All of the tile. Nobody may be busy with Q, K and V any more. */
template <class C>
static __device__ inline void store_tile(const sm80_params_t *p, const task_t *task,
                                         unsigned char *memory, const state<C> &s)
{
    int first = warp_index() * C::WARP_ROWS, rows = min(task->rows - first, C::WARP_ROWS);
#pragma unroll
    for (int r = 0; r < 2 * C::TILES; r++)
        stage_row<C>(p, task, memory, r, s);
    __syncwarp();
    rescue_rows<C>(p, task, memory, s);
    if (p->pieces)
        store_pieces<C>(p, task, memory, first, rows);
    else
        store_elements<C>(p, task, memory, first, rows);
    if (p->a.lse.data && lane_index() < rows) {
        int row = first + lane_index();
        float lse = staged_row<C>(memory, row)[C::DV + 1];
        *(float *)hd_view_row(&p->a.lse, task->batch, task->first + row, task->head) = lse;
    }
}

#endif
