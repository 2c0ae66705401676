/* The role that computes, in E4M3: as that of 16 bits, but for the sums of P V.
 *
 * Tensor cores add products of E4M3 with about 14 bits, so that their sums drift over many keys.
 * They are kept for FLUSH tiles at most and then added to the output in f32 registers. */
#ifndef HD_FLASH_SM90_FP8_MATH_CUH
#define HD_FLASH_SM90_FP8_MATH_CUH

#include "flash_sm90_fp8_config.cuh"
#include "flash_sm90_math.cuh"

namespace flash_sm90
{

template <class C> struct fp8_worker : worker<C> {
    using base = worker<C>;
    using base::p;
    using base::ring;
    using base::x;
    fp8_barriers_t *own;
    uint64_t t, t0, t_step; /* descriptor of V transposed, as base's v */
    float sums[C::PIECE / 2];
    int held; /* tiles in sums */

    HD_INLINE void begin(const params_t *params, unsigned char *shared, int number)
    {
        base::begin(params, shared, number);
        own = (fp8_barriers_t *)base::bars;
        t0 = hd_wgmma_descriptor(shared + C::T_AT, 16, 1024);
        t_step = t0 ^ (t0 + (C::T_BYTES >> 4));
    }

    HD_INLINE void begin_tile()
    {
        base::begin_tile();
        t = ring.stage ? t0 : t0 ^ t_step;
        held = 0;
    }

    /* ---- products ---------------------------------------------------------------------------- */

    HD_INLINE void start_piece(int piece)
    {
        hd_wgmma_fence();
#pragma unroll
        for (int i = 0; i < C::KEYS / C::STEP; i++)
            hd_wgmma<C::TYPE, C::PIECE>::template rs<HD_K_MAJOR>(
                sums, x.p[i],
                t + piece * (C::PIECE * SLAB_BYTES >> 4) + (i / 4) * (C::T_SLAB >> 4) + (i % 4) * 2,
                i != 0 || held != 0);
        hd_wgmma_commit();
    }

    HD_INLINE void add_piece(int piece)
    {
#pragma unroll
        for (int i = 0; i < C::PIECE / 2; i++)
            x.o[piece * (C::PIECE / 2) + i] += sums[i];
        held = 0;
    }

    HD_INLINE void start_values()
    {
        start_piece(0);
        held++;
    }

    /* Waits for what start_values started. */
    HD_INLINE void wait_values()
    {
        hd_wgmma_wait<0>();
        if constexpr (C::PIECES > 1) {
#pragma unroll
            for (int piece = 1; piece < C::PIECES; piece++) {
                add_piece(piece - 1);
                start_piece(piece);
                hd_wgmma_wait<0>();
            }
            add_piece(C::PIECES - 1);
        }
    }

    /* All of the sums into the output, which then is complete. */
    HD_INLINE void flush()
    {
        if (C::PIECES == 1)
            add_piece(0);
    }

    /* ---- rings ------------------------------------------------------------------------------- */

    HD_INLINE void wait_v()
    {
        hd_mbarrier_wait(&own->t_full[ring.stage ^ 1], ring.parity ^ ring.stage ^ 1);
    }
    HD_INLINE void free_v()
    {
        if (base::leads)
            hd_mbarrier_arrive(&own->t_free[ring.stage ^ 1]);
    }
    HD_INLINE void advance()
    {
        step_ring(&ring);
        t ^= t_step;
    }

    /* ---- a block of keys --------------------------------------------------------------------- */

    HD_INLINE void start_block()
    {
        base::take_turn();
        base::start_scores();
        wait_v();
        start_values();
        base::give_turn();
        hd_wgmma_wait<1>();
        base::free_k();
    }

    template <class Mask> HD_INLINE void masked_block(Mask mask)
    {
        float factor[2];
        start_block();
        if (p->a.scale < 0)
            base::flip();
        mask();
        x.softmax_exact(factor);
        wait_values();
        free_v();
        advance();
        flush();
        x.scale_out(factor[0], factor[1]);
        x.pack();
    }

    /* A warp whose M has moved multiplies what it holds. Warps of a warpgroup must not differ in
     * the products that they start, so the sums are not flushed for it. */
    HD_INLINE void scale_all(const float (&by)[2])
    {
        x.scale_out(by[0], by[1]);
        if (C::PIECES == 1)
#pragma unroll
            for (int i = 0; i < C::PIECE / 2; i++)
                sums[i] *= by[i >> 1 & 1];
    }

    HD_INLINE void full_block(bool more)
    {
        float by[2] = {1, 1};
        start_block();
        x.subtract_reference();
#pragma unroll 1
        for (int i = 0; i < 2 && x.is_above(); i++) {
            float factor[2];
            x.raise(factor);
            if (C::PIECES == 1) {
                hd_wgmma_wait<0>();
                scale_all(factor);
            }
            by[0] *= factor[0];
            by[1] *= factor[1];
        }
        x.exps_bound();
        x.pin_scores();
        if (more)
            base::wait_next_k();
        wait_values();
        free_v();
        advance();
        /* Pieces are complete only now. */
        for (int i = 0; C::PIECES > 1 && i < 1 && __any_sync(~0u, by[0] != 1 || by[1] != 1); i++)
            scale_all(by);
#pragma unroll 1
        while (C::PIECES == 1 && held >= C::FLUSH)
            add_piece(0);
        x.pack();
    }

    HD_INLINE void last_values()
    {
        wait_v();
        start_values();
        wait_values();
        free_v();
        flush();
    }
};

} // namespace flash_sm90

#endif
