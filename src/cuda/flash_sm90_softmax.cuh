/* The softmax of one warpgroup's 64 rows, in the registers of wgmma's accumulators: thread l of
 * warp w holds, of the rows 16 w + l / 4 (half 0) and 8 more (half 1), columns 2 (l % 4) and the
 * next of every 8. Element i belongs to half i / 2 % 2 and column 8 (i / 4) + i % 2 + 2 (l % 4).
 *
 * Everything is in log2: a weight is 2^(score * scale - M). The reference M is a whole number, so
 * that moving it multiplies by powers of two, which are exact, and so that the polynomial below can
 * take its fraction apart with it in one step. */
#ifndef HD_FLASH_SM90_SOFTMAX_CUH
#define HD_FLASH_SM90_SOFTMAX_CUH

#include "flash_sm90_config.cuh"

namespace flash_sm90
{

/* 1.5 * 2^23: adding it rounds to a whole number, which is left in the low bits. */
#define HD_MAGIC 12582912.f

/* A minimax polynomial of 2^f for f from -0.5 to 0.5 times 2^n, n in the low bits of `whole`:
 * relative error 7.5e-5. */
HD_INLINE float exp2_of_parts(float f, float whole)
{
    float y = fmaf(fmaf(fmaf(0.055171669f, f, 0.24261112f), f, 0.69326099f), f, 0.99992807f);
    return hd_from_bits(hd_to_bits(y) + (hd_to_bits(whole) << 23));
}

/* 2^(s * scale - M) on the multiply-add pipe; magic: HD_MAGIC - M, low: (M - 126) / scale. Wrong
 * where the result is above 2^127 or s is NaN: the caller sees it in `whole`, HD_MAGIC + n. */
HD_INLINE float exp2_poly(float s, float scale, float magic, float low, int *whole)
{
    s = hd_max_nan(s, low);
    float t = fmaf(s, scale, magic);
    *whole = (int)hd_to_bits(t);
    return exp2_of_parts(fmaf(s, scale, magic - t), t);
}

/* 2^x, the same way. */
HD_INLINE float exp2_poly(float x)
{
    x = fmaxf(x, -126.f);
    float t = x + HD_MAGIC;
    return exp2_of_parts(x - (t - HD_MAGIC), t);
}

/* Which of a thread's exponentials are polynomials: POLY of 64, spread evenly. */
template <class C> HD_INLINE constexpr bool is_poly(int i)
{
    return (i + 1) * C::POLY / 64 != i * C::POLY / 64;
}

HD_INLINE int larger(int x, int y)
{
    return x > y ? x : y;
}

/* Over the four lanes that share a row. */
HD_INLINE float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
HD_INLINE float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* What a thread knows of its rows. */
template <class C> struct state {
    static constexpr int SCORES = C::KEYS / 2, OUTS = C::DIM / 2;
    float s[SCORES];                  /* scores, then weights */
    uint32_t p[C::KEYS / C::STEP][4]; /* the weights rounded, as wgmma takes them */
    float o[OUTS];
    float reference[2], sum[2]; /* M; the sum of this thread's weights */
    int top;                    /* largest `whole` of a polynomial */
    float scale;

    HD_INLINE void clear(float scale_log2)
    {
#pragma unroll
        for (int i = 0; i < OUTS; i++)
            o[i] = 0;
        reference[0] = reference[1] = -INFINITY;
        sum[0] = sum[1] = 0;
        top = 0;
        scale = scale_log2;
    }

    HD_INLINE void scale_out(float by0, float by1)
    {
#pragma unroll
        for (int i = 0; i < OUTS; i++)
            o[i] *= i & 2 ? by1 : by0;
    }

    HD_INLINE void pack()
    {
        if constexpr (C::TYPE == HD_MMA_E4M3)
            pack_e4m3();
        else
            pack_16();
    }

    HD_INLINE void pack_16()
    {
#pragma unroll
        for (int i = 0; i < SCORES / 2; i++)
            p[i / 4][i % 4] = C::TYPE == HD_MMA_BF16 ? hd_pack_bf16(s[2 * i], s[2 * i + 1])
                                                     : hd_pack_f16(s[2 * i], s[2 * i + 1]);
    }

    /* A thread's 4 bytes of a product's operand are 4 keys that follow each other; in its scores
     * they are two and two, 8 further. V's keys lie in that order too. */
    HD_INLINE void pack_e4m3()
    {
#pragma unroll
        for (int i = 0; i < SCORES / 4; i++) {
            const float *w = s + 8 * (i / 2) + 2 * (i % 2);
            p[i / 4][i % 4] = hd_pack_e4m3(w[0], w[1]) | hd_pack_e4m3(w[4], w[5]) << 16;
        }
    }

    /* Two partial sums a row, so that additions do not wait for each other. */
    HD_INLINE void sum_weights(float (&part)[2])
    {
        float a[4] = {0, 0, 0, 0};
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            a[i & 3] += s[i];
        part[0] = a[0] + a[1];
        part[1] = a[2] + a[3];
    }

    HD_INLINE void row_max(float (&most)[2])
    {
        float a[4] = {s[0], s[1], s[2], s[3]};
#pragma unroll
        for (int i = 4; i < SCORES; i++)
            a[i & 3] = fmaxf(a[i & 3], s[i]);
        most[0] = quad_max(fmaxf(a[0], a[1]));
        most[1] = quad_max(fmaxf(a[2], a[3]));
    }

    /* ---- exact ------------------------------------------------------------------------------- */

    /* Masked scores are -inf. The former output is to be multiplied by `factor`. */
    HD_INLINE void softmax_exact(float (&factor)[2])
    {
        float most[2], base[2], part[2];
        row_max(most);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float next = fmaxf(reference[h], ceilf(most[h] * scale) - C::TOP);
            /* -inf: no key so far, for any of the row's lanes alike. */
            factor[h] = next == reference[h] ? 1.f : hd_ex2(reference[h] - next);
            reference[h] = next;
            base[h] = next == -INFINITY ? 0.f : next;
        }
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            s[i] = hd_ex2(fmaf(s[i], scale, -base[i >> 1 & 1]));
        sum_weights(part);
        sum[0] = fmaf(sum[0], factor[0], part[0]);
        sum[1] = fmaf(sum[1], factor[1], part[1]);
    }

    /* ---- without a maximum ------------------------------------------------------------------- */

    HD_INLINE void exps_sum(float (&part)[2])
    {
        float magic[2], low[2];
        int whole[SCORES], polys = 0;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            magic[h] = HD_MAGIC - reference[h];
            low[h] = (reference[h] - 126.f) * (1.f / scale);
        }
#pragma unroll
        for (int i = 0; i < SCORES; i++) {
            int h = i >> 1 & 1;
            if (is_poly<C>(i))
                s[i] = exp2_poly(s[i], scale, magic[h], low[h], &whole[polys++]);
            else
                s[i] = hd_ex2(fmaf(s[i], scale, -reference[h]));
        }
        /* In pairs: one three-way maximum each. */
#pragma unroll
        for (int i = 0; i + 1 < polys; i += 2)
            top = larger(larger(top, whole[i]), whole[i + 1]);
        if (polys & 1)
            top = larger(top, whole[polys - 1]);
        sum_weights(part);
    }

    /* Where weights go out of bounds: 2^30 in a sum of bf16 weights, which have the range of f32,
     * and 2^15 in this block's weights in f16. */
    static constexpr float LIMIT = C::TYPE == HD_MMA_BF16 ? 0x1p30f : 0x1p15f;

    /* With o at rest and s not yet packed. Rare: raises M by a whole number. An infinite sum
     * becomes NaN, which asks for the exact way. */
    HD_INLINE void settle_sum(float (&part)[2])
    {
        constexpr bool whole_sum = C::TYPE == HD_MMA_BF16;
#pragma unroll
        for (int h = 0; h < 2; h++)
            sum[h] += part[h];
        while (__any_sync(~0u, whole_sum ? fmaxf(sum[0], sum[1]) >= LIMIT
                                         : fmaxf(part[0], part[1]) >= LIMIT)) {
            float by[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float most = quad_max(whole_sum ? sum[h] : part[h]);
                float up = most >= LIMIT ? ceilf(hd_lg2(most)) : 0.f;
                by[h] = hd_ex2(-up);
                reference[h] += up;
                sum[h] *= by[h];
                part[h] *= by[h];
            }
#pragma unroll
            for (int i = 0; i < SCORES; i++)
                s[i] *= by[i >> 1 & 1];
            scale_out(by[0], by[1]);
        }
    }

    /* ---- with a bound ------------------------------------------------------------------------ */

    HD_INLINE void subtract_reference()
    {
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            s[i] = fmaf(s[i], scale, -reference[i >> 1 & 1]);
    }

    /* Is some score more than SLACK above M + TOP? Positive floats compare as integers do, negative
     * ones lie below, and a three-way integer maximum is one instruction. True of NaN too. */
    HD_INLINE bool is_above()
    {
        int most = (int)hd_to_bits(s[0]);
#pragma unroll
        for (int i = 1; i + 1 < SCORES; i += 2)
            most = larger(larger(most, (int)hd_to_bits(s[i])), (int)hd_to_bits(s[i + 1]));
        most = larger(most, (int)hd_to_bits(s[SCORES - 1]));
        return __any_sync(~0u, most > (int)hd_to_bits(C::TOP + C::SLACK));
    }

    /* Raises M; the former output is to be multiplied by `factor`. */
    HD_INLINE void raise(float (&factor)[2])
    {
        float most[2];
        row_max(most);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float up = most[h] > C::TOP + C::SLACK ? ceilf(most[h]) - C::TOP : 0.f;
            /* A NaN would get lost in a polynomial. */
#pragma unroll
            for (int i = 0; i < SCORES; i++)
                if ((i >> 1 & 1) == h && s[i] != s[i])
                    up = s[i];
            factor[h] = hd_ex2(-up);
            reference[h] += up;
            sum[h] *= factor[h];
#pragma unroll
            for (int i = 0; i < SCORES; i++)
                if ((i >> 1 & 1) == h)
                    s[i] -= up;
        }
    }

    HD_INLINE void exps_bound()
    {
        float part[2];
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            s[i] = is_poly<C>(i) ? exp2_poly(s[i]) : hd_ex2(s[i]);
        sum_weights(part);
        sum[0] += part[0];
        sum[1] += part[1];
    }

    HD_INLINE void pin_scores()
    {
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            hd_pin(s[i]);
    }
};

} // namespace flash_sm90

#endif
