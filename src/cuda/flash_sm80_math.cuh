/* The arithmetic of cuda:flash_sm80 on a warp's rows and one block of keys, in registers. */
#ifndef HD_FLASH_SM80_MATH_CUH
#define HD_FLASH_SM80_MATH_CUH

#include "flash_sm80_tile.cuh"

#include <float.h>
#include <math.h>

/* Fragments as mma.sync has them: lane l holds rows l / 4 and l / 4 + 8 of a tile of 16, columns
 * 2 * (l % 4) and the next of a tile of 8; element e is row l / 4 + e / 2 * 8, column e % 2. */
template <class C> using scores_t = float[C::TILES][KEYS / 8][4];

/* The rows so far. Row r of a lane is row l / 4 + r % 2 * 8 of tile r / 2. */
template <class C> struct state {
    float out[C::TILES][C::DV / 8][4];
    float reference[2 * C::TILES]; /* in units of log2: weights are 2^(score - reference) */
    float sum[2 * C::TILES];       /* of the lane's weights */
};

/* A weight stays below 2^SLACK: the reference follows the maximum only when it must. */
#define SLACK 8.0f

static __device__ inline int warp_index()
{
    return (int)threadIdx.x / 32;
}
static __device__ inline int lane_index()
{
    return (int)threadIdx.x % 32;
}

template <class C> static __device__ __forceinline__ uint32_t pack(float low, float high)
{
    return C::BF16 ? hd_pack_bf16(low, high) : hd_pack_f16(low, high);
}

template <class C>
static __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                                uint32_t b1)
{
    const uint32_t b[2] = {b0, b1};
    if (C::BF16)
        hd_mma_bf16(d, a, b);
    else
        hd_mma_f16(d, a, b);
}

template <class C> static __device__ inline void begin_state(state<C> &s)
{
#pragma unroll
    for (int t = 0; t < C::TILES; t++)
#pragma unroll
        for (int n = 0; n < C::DV / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s.out[t][n][e] = 0;
#pragma unroll
    for (int r = 0; r < 2 * C::TILES; r++) {
        s.reference[r] = -FLT_MAX;
        s.sum[r] = 0;
    }
}

/* Q K^T. ptxas loads fragments ahead by itself, as long as it has registers. */
template <class C>
static __device__ __forceinline__ void find_scores(unsigned char *memory, scores_t<C> &scores)
{
    int lane = lane_index();
    const unsigned char *q = memory + (warp_index() * C::WARP_ROWS + lane % 16) * C::K_STRIDE;
    const unsigned char *k = keys_of<C>(memory) + (lane % 8 + lane / 16 * 8) * C::K_STRIDE;
    q += lane / 16 * 16;
    k += lane / 8 % 2 * 16;
#pragma unroll
    for (int t = 0; t < C::TILES; t++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                scores[t][n][e] = 0;
#pragma unroll
    for (int c = 0; c < C::D / 16; c++) {
        uint32_t a[C::TILES][4];
#pragma unroll
        for (int t = 0; t < C::TILES; t++)
            hd_ldmatrix_x4(a[t], q + t * 16 * C::K_STRIDE + c * 32);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
            uint32_t b[4];
            hd_ldmatrix_x4(b, k + n * 8 * C::K_STRIDE + c * 32);
#pragma unroll
            for (int t = 0; t < C::TILES; t++) {
                multiply<C>(scores[t][n], a[t], b[0], b[1]);
                multiply<C>(scores[t][n + 1], a[t], b[2], b[3]);
            }
        }
    }
}

/* out += P V for the keys 16 * step .. 16 * step + 15. */
template <class C>
static __device__ __forceinline__ void add_values(unsigned char *memory, const scores_t<C> &weights,
                                                  int step, state<C> &s)
{
    int lane = lane_index();
    const unsigned char *v = values_of<C>(memory) + (16 * step + lane % 16) * C::V_STRIDE;
    v += lane / 16 * 16;
    uint32_t a[C::TILES][4];
#pragma unroll
    for (int t = 0; t < C::TILES; t++) {
        const float(&low)[4] = weights[t][2 * step], (&high)[4] = weights[t][2 * step + 1];
        a[t][0] = pack<C>(low[0], low[1]);
        a[t][1] = pack<C>(low[2], low[3]);
        a[t][2] = pack<C>(high[0], high[1]);
        a[t][3] = pack<C>(high[2], high[3]);
    }
#pragma unroll
    for (int n = 0; n < C::DV / 8; n += 2) {
        uint32_t b[4];
        hd_ldmatrix_x4_trans(b, v + n * 16);
#pragma unroll
        for (int t = 0; t < C::TILES; t++) {
            multiply<C>(s.out[t][n], a[t], b[0], b[1]);
            multiply<C>(s.out[t][n + 1], a[t], b[2], b[3]);
        }
    }
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* Bit t * 16 + h * 8: row h of tile t sees the key. */
template <class C>
static __device__ __forceinline__ uint32_t seen_by(unsigned char *memory, int thread, int key)
{
    int row = thread / 32 * C::WARP_ROWS + thread % 32 / 4;
    const uint32_t *words = (const uint32_t *)mask_of<C>(memory, key);
    return words[row / 32] >> row % 32;
}

template <class C>
static __device__ __forceinline__ void hide_scores(unsigned char *memory, int zero,
                                                   scores_t<C> &scores)
{
    int thread = (int)threadIdx.x + zero;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            uint32_t seen = seen_by<C>(memory, thread, n * 8 + thread % 4 * 2 + e);
#pragma unroll
            for (int t = 0; t < C::TILES; t++) {
                if (!(seen >> (16 * t) & 1))
                    scores[t][n][e] = -INFINITY;
                if (!(seen >> (16 * t + 8) & 1))
                    scores[t][n][e + 2] = -INFINITY;
            }
        }
}

/* Moves the references to the largest scores, and with them all that was summed. */
template <class C>
static __device__ __forceinline__ void raise(float unit, const float (&most)[2 * C::TILES],
                                             state<C> &s)
{
#pragma unroll
    for (int r = 0; r < 2 * C::TILES; r++) {
        float top = most[r];
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float reference = top * unit;
        /* Above what was rounded: however large scores are, one step is enough. */
        reference = fmaxf(s.reference[r], fmaf(fabsf(reference), 0x1p-22f, reference));
        float factor = hd_ex2(s.reference[r] - reference);
        s.reference[r] = reference;
        s.sum[r] *= factor;
#pragma unroll
        for (int n = 0; n < C::DV / 8; n++) {
            s.out[r / 2][n][r % 2 * 2] *= factor;
            s.out[r / 2][n][r % 2 * 2 + 1] *= factor;
        }
    }
}

/* Sees to it that no weight of the block is above 2^SLACK. Each lane looks at its own scores: the
 * rows' maxima are only made when some lane finds one too large. */
template <class C>
static __device__ __forceinline__ void raise_references(float unit, const scores_t<C> &scores,
                                                        state<C> &s)
{
    float most[2 * C::TILES];
#pragma unroll
    for (int r = 0; r < 2 * C::TILES; r++) {
        const float(*of)[4] = scores[r / 2];
        int e = r % 2 * 2;
        most[r] = fmaxf(of[0][e], of[0][e + 1]);
#pragma unroll
        for (int n = 1; n < KEYS / 8; n++)
            most[r] = fmaxf(most[r], fmaxf(of[n][e], of[n][e + 1]));
    }
    for (;;) {
        bool above = false;
#pragma unroll
        for (int r = 0; r < 2 * C::TILES; r++)
            above = above || fmaf(most[r], unit, -s.reference[r]) > SLACK;
        if (!__any_sync(~0u, above))
            break;
        raise<C>(unit, most, s);
    }
}

/* Scores of the keys 16 * step .. 16 * step + 15 become weights. */
template <class C>
static __device__ __forceinline__ void weigh(float unit, scores_t<C> &scores, int step, state<C> &s)
{
#pragma unroll
    for (int n = 2 * step; n < 2 * step + 2; n++)
#pragma unroll
        for (int t = 0; t < C::TILES; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int r = 2 * t + e / 2;
                float weight = hd_ex2(fmaf(scores[t][n][e], unit, -s.reference[r]));
                scores[t][n][e] = weight;
                s.sum[r] += weight;
            }
}

/* ---- masked values that are no numbers ------------------------------------------------------- */

/* Zero times NaN or infinity would let a masked value into the products. Where that may have
 * happened the tile is done again: in blocks with a mask such values are added one by one to the
 * rows that see them, and replaced by zeros before the product. */

/* Whether a 16-bit value is NaN or infinite. */
template <class C> static __device__ inline bool is_special(uint32_t bits)
{
    uint32_t exponent = C::BF16 ? 0x7f80 : 0x7c00;
    return (bits & exponent) == exponent;
}

/* One value for two columns, where it is no number. */
template <class C>
static __device__ inline void add_special(float weight, uint32_t seen, uint32_t pair, float *out)
{
    float low = hd_element_load(C::BF16 ? HEED_BF16 : HEED_F16, &pair);
    uint32_t rest = pair >> 16;
    float high = hd_element_load(C::BF16 ? HEED_BF16 : HEED_F16, &rest);
    if ((seen & 1) && is_special<C>(pair))
        out[0] += weight * low;
    if ((seen & 1) && is_special<C>(rest))
        out[1] += weight * high;
}

/* The scores of key `key` for the lane's rows: they are with one lane of its quad. */
template <class C>
static __device__ inline void pick_scores(const scores_t<C> &scores, int lane, int key,
                                          float (&picked)[2 * C::TILES])
{
    int source = (lane & ~3) | key % 8 / 2;
#pragma unroll
    for (int r = 0; r < 2 * C::TILES; r++) {
        float score = 0;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            const float *pair = &scores[r / 2][n][r % 2 * 2];
            float chosen = key % 2 ? pair[1] : pair[0];
            score = key / 8 == n ? chosen : score;
        }
        picked[r] = __shfl_sync(~0u, score, source);
    }
}

template <class C>
static __device__ inline void add_specials(float unit, unsigned char *memory, int zero,
                                           const scores_t<C> &scores, state<C> &s)
{
    int thread = (int)threadIdx.x + zero;
#pragma unroll 1
    for (int key = 0; key < KEYS; key++) {
        float picked[2 * C::TILES];
        pick_scores<C>(scores, thread % 32, key, picked);
        uint32_t seen = seen_by<C>(memory, thread, key);
        const unsigned char *v = values_of<C>(memory) + key * C::V_STRIDE + thread % 4 * 4;
#pragma unroll
        for (int n = 0; n < C::DV / 8; n++) {
            uint32_t pair = *(const uint32_t *)(v + n * 16);
            if (!is_special<C>(pair) && !is_special<C>(pair >> 16))
                continue;
#pragma unroll
            for (int r = 0; r < 2 * C::TILES; r++)
                add_special<C>(hd_ex2(fmaf(picked[r], unit, -s.reference[r])), seen >> 8 * r, pair,
                               &s.out[r / 2][n][r % 2 * 2]);
        }
    }
}

template <class C> static __device__ inline uint32_t without_specials(uint32_t pair)
{
    return (is_special<C>(pair) ? 0 : pair & 0xffff) |
           (is_special<C>(pair >> 16) ? 0 : pair & 0xffff0000);
}

/* Zeros in V for what is no number. A barrier has to follow. */
template <class C> static __device__ inline void remove_specials(unsigned char *memory, int zero)
{
    enum { PIECES = C::DV / 8 };
#pragma unroll 1
    for (int i = (int)threadIdx.x + zero; i < KEYS * PIECES; i += C::THREADS) {
        uint4 *at = (uint4 *)(values_of<C>(memory) + i / PIECES * C::V_STRIDE + i % PIECES * 16);
        uint4 x = *at;
        *at = {without_specials<C>(x.x), without_specials<C>(x.y), without_specials<C>(x.z),
               without_specials<C>(x.w)};
    }
}

/* Whether some number of the result is none. */
template <class C> static __device__ inline bool has_specials(const state<C> &s)
{
    float sum = 0;
#pragma unroll
    for (int t = 0; t < C::TILES; t++)
#pragma unroll
        for (int n = 0; n < C::DV / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sum = fmaf(s.out[t][n][e], 0.0f, sum);
    return !(sum == 0);
}

#endif
