/* Decoding on CUDA, what the kernels of every card share on the device: the softmax over registers,
 * masked values that are no numbers, the end of a block.
 *
 * A warp holds 16 packed rows: lane l the rows l / 4 and l / 4 + 8. Scores of 8 keys by 8 keys are
 * accumulators of mma.sync or wgmma, which lie alike: four a lane, keys 2 * (l % 4) and the next of
 * the first row, then of the second. Weights are the left operand of the next product.
 *
 * A tile in shared memory is made of slabs of 64 columns: rows of 128 bytes, whose 16-byte piece p
 * lies at p ^ (row % 8), as TMA and wgmma have it. */
#ifndef HD_DECODE_CUH
#define HD_DECODE_CUH

#include "decode_seen.cuh"

typedef struct decode_state {
    float most[2]; /* of the scores seen, -inf before the first */
    float sum[2];  /* of the lane's weights */
} decode_state_t;

static __device__ inline const char *decode_query(const decode_params_t *p,
                                                  const decode_task_t *task, int row)
{
    int group = (int)p->a.group;
    return hd_view_row(&p->a.q, task->batch, row / group, task->key_head * group + row % group);
}

/* 8 elements of a row from `column` on, zeros behind column `width`. */
static __device__ inline uint4 decode_load_piece(const hd_view_t *view, const char *row, int column,
                                                 int width)
{
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int c = column + 2 * i;
        uint32_t low = c < width ? *(const uint16_t *)(row + c * view->elem) : 0;
        uint32_t high = c + 1 < width ? *(const uint16_t *)(row + (c + 1) * view->elem) : 0;
        words[i] = low | high << 16;
    }
    return {words[0], words[1], words[2], words[3]};
}

/* Where the 16-byte piece `piece` of row `row` lies in a tile of `rows` rows. */
static __device__ inline unsigned char *decode_piece(unsigned char *tile, int rows, int row,
                                                     int piece)
{
    return tile + (piece / 8 * rows + row) * 128 + (piece % 8 ^ row % 8) * 16;
}

template <bool BF16> static __device__ inline uint32_t decode_pack(float low, float high)
{
    return BF16 ? hd_pack_bf16(low, high) : hd_pack_f16(low, high);
}

template <bool BF16> static __device__ inline float decode_half(uint32_t pair, int high)
{
    uint32_t half = high ? pair >> 16 : pair & 0xffff, rest = (half & 0x7fff) << 13;
    if (BF16)
        return __uint_as_float(half << 16);
    /* Subnormal ones are right too. Infinities and NaN keep their fraction. */
    float value = __uint_as_float(rest) * 0x1p112f;
    value = rest >= 0x7c00 << 13 ? __uint_as_float(rest | 0x7f800000) : value;
    return half & 0x8000 ? -value : value;
}

/* Turns scores of 8 * TILES keys into weights, those that are not full with zeros where no bit of
 * `sees` is, and makes what was summed before relative to the new maximum. */
template <bool BF16, int TILES, int ACC>
static __device__ inline void decode_weigh(float scale, bool full, uint32_t sees,
                                           float (&s)[4 * TILES], decode_state_t *state,
                                           float (&acc)[ACC], uint32_t (&weights)[TILES / 2][4])
{
    float most[2] = {state->most[0], state->most[1]}, reference[2];
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++)
        s[i] *= scale;
    if (!full) {
#pragma unroll
        for (int i = 0; i < 4 * TILES; i++)
            s[i] = sees >> i & 1 ? s[i] : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++)
        most[i / 2 % 2] = fmaxf(most[i / 2 % 2], s[i]);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
        most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2));
        /* Nothing seen yet: any finite reference gives weights of zero. */
        reference[r] = most[r] == -INFINITY ? 0 : most[r];
    }
    if (__any_sync(~0u, most[0] > state->most[0] || most[1] > state->most[1])) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float factor = hd_ex2(state->most[r] - reference[r]);
            state->most[r] = most[r];
            state->sum[r] *= factor;
#pragma unroll
            for (int i = 2 * r; i < ACC; i += 4) {
                acc[i] *= factor;
                acc[i + 1] *= factor;
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++) {
        s[i] = hd_ex2(s[i] - reference[i / 2 % 2]);
        state->sum[i / 2 % 2] += s[i];
    }
#pragma unroll
    for (int i = 0; i < TILES / 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            weights[i][j] = decode_pack<BF16>(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
}

/* ---- values that are no numbers -------------------------------------------------------------- */

/* Whether rows from .. from+count-1 of a tile of values hold an infinity or a NaN. */
template <bool BF16>
static __device__ inline bool decode_is_special(unsigned char *tile, int rows, int pieces, int from,
                                                int count)
{
    uint32_t low = BF16 ? 0x7f80 : 0x7c00, high = low << 16, special = 0;
    for (int i = (int)threadIdx.x % 32; i < count * pieces; i += 32) {
        uint4 four = *(const uint4 *)decode_piece(tile, rows, from + i / pieces, i % pieces);
        uint32_t words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int j = 0; j < 4; j++)
            special |= (words[j] & low) == low || (words[j] & high) == high;
    }
    return __any_sync(~0u, (int)special);
}

/* In place of the product of weights and values: adds key by key for the rows that see it, since
 * zero times NaN is no zero. Row `from` of the tile is the first key of `mask`, of decode_sees. */
template <bool BF16, int KEYS, int ACC>
static __device__ inline void decode_add_seen(uint32_t mask, unsigned char *tile, int rows,
                                              int from, const uint32_t (&weights)[KEYS / 16][4],
                                              float (&acc)[ACC])
{
    int lane = (int)threadIdx.x % 32;
    uint32_t pairs[KEYS / 8][2];
#pragma unroll
    for (int i = 0; i < KEYS / 8; i++) {
        pairs[i][0] = weights[i / 2][i % 2 * 2];
        pairs[i][1] = weights[i / 2][i % 2 * 2 + 1];
    }
#pragma unroll 1
    for (int key = 0; key < KEYS; key++) {
        bool sees[2];
        float weight[2];
        int holder = lane / 4 * 4 + key % 8 / 2;
        uint32_t of_key = __shfl_sync(~0u, mask, holder) >> (key / 8 * 4 + key % 2);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            weight[r] = decode_half<BF16>(__shfl_sync(~0u, pairs[0][r], holder), key % 2);
            sees[r] = of_key >> 2 * r & 1;
        }
#pragma unroll
        for (int i = 0; i < ACC; i += 4) {
            uint32_t values =
                *(const uint32_t *)(decode_piece(tile, rows, from + key, i / 4) + lane % 4 * 4);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float sum = fmaf(weight[j / 2], decode_half<BF16>(values, j % 2), acc[i + j]);
                acc[i + j] = sees[j / 2] ? sum : acc[i + j];
            }
        }
        /* The next 8 keys' weights move up: registers have no index. */
#pragma unroll
        for (int i = 0; i < KEYS / 8 - 1; i++) {
            pairs[i][0] = key % 8 == 7 ? pairs[i + 1][0] : pairs[i][0];
            pairs[i][1] = key % 8 == 7 ? pairs[i + 1][1] : pairs[i][1];
        }
    }
}

/* ---- the end of a block ---------------------------------------------------------------------- */

/* The warps' states in shared memory. */
template <int DIM> struct decode_states {
    enum { STRIDE = DIM + 8 }; /* 8-byte stores of a warp touch all banks alike */
    float acc[DECODE_WARPS][DECODE_WARP_ROWS][STRIDE];
    float most[DECODE_WARPS][DECODE_WARP_ROWS], sum[DECODE_WARPS][DECODE_WARP_ROWS];
};

template <int DIM>
static __device__ inline void decode_put(decode_states<DIM> *states, const decode_state_t *state,
                                         const float (&acc)[DIM / 2])
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = lane / 4 + 8 * r;
        float sum = state->sum[r];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 == 0) {
            states->most[warp][row] = state->most[r];
            states->sum[warp][row] = sum;
        }
#pragma unroll
        for (int i = 0; i < DIM / 8; i++) {
            float2 two = {acc[4 * i + 2 * r], acc[4 * i + 2 * r + 1]};
            *(float2 *)&states->acc[warp][row][8 * i + lane % 4 * 2] = two;
        }
    }
}

/* Adds up the warps that hold the same rows, those row_tiles apart, and stores: the result, or the
 * split's state. A warp takes every fourth row, a lane every 32nd column. */
template <int DIM>
static __device__ inline void decode_finish(const decode_params_t *p, const decode_task_t *task,
                                            const decode_states<DIM> *states, int row_tiles)
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    for (int row = warp; row < p->rows; row += DECODE_WARPS) {
        int in = row % DECODE_WARP_ROWS;
        float most = -INFINITY, total = 0, factor[DECODE_WARPS];
        for (int w = row / DECODE_WARP_ROWS; w < DECODE_WARPS; w += row_tiles)
            most = fmaxf(most, states->most[w][in]);
        float reference = most == -INFINITY ? 0 : most;
#pragma unroll
        for (int w = 0; w < DECODE_WARPS; w++) {
            bool mine = w % row_tiles == row / DECODE_WARP_ROWS;
            factor[w] = mine ? hd_ex2(states->most[w][in] - reference) : 0;
            total = mine ? fmaf(factor[w], states->sum[w][in], total) : total;
        }
        float lse = total == 0 ? -INFINITY : most + hd_lg2(total);
        float scale = total == 0 ? 0 : 1 / total;
        int64_t state = (task->unit * p->splits + task->split) * p->rows + row;
        float *partial = p->partial ? p->partial + state * p->partial_stride : nullptr;
        decode_target_t target;
        if (partial) {
            if (lane == 0)
                p->partial_lse[state] = lse;
        } else {
            target = decode_target(p, task->unit, row, lse);
            __syncwarp();
            if (lane == 0)
                decode_store_lse(&target);
        }
        for (int column = lane; column < DIM; column += 32) {
            float value = 0;
#pragma unroll
            for (int w = 0; w < DECODE_WARPS; w++)
                if (w % row_tiles == row / DECODE_WARP_ROWS)
                    value = fmaf(factor[w], states->acc[w][in][column], value);
            if (partial && column < p->partial_stride)
                partial[column] = value * scale;
            if (!partial && column < p->a.dv)
                decode_store(p, &target, column, value * scale);
        }
    }
}

#endif
