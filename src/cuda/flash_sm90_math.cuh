/* The role that computes: one warpgroup, 64 queries of a tile. Q K^T takes both operands from
 * shared memory, P V takes P from registers: accumulators of the first, converted pair by pair, are
 * the operand of the second.
 *
 * In the steady state, for block j (blocks go from the last to the first):
 *
 *     take the turn; start S_j = Q K_j^T; wait for V_j-1; start O += P_j-1 V_j-1; give the turn
 *     wait for S_j; free K_j; exponentials of S_j, while P V is still running
 *     wait for K_j+1; wait for P V; free V_j-1; convert P_j
 *
 * so that the tensor cores have this warpgroup's P V, and the other warpgroups' products, to do
 * while this one's exponentials run. */
#ifndef HD_FLASH_SM90_MATH_CUH
#define HD_FLASH_SM90_MATH_CUH

#include "flash_sm90_load.cuh"
#include "flash_sm90_softmax.cuh"

namespace flash_sm90
{

/* Tells the compiler that a number is the same in all lanes. */
HD_INLINE int same_in_warp(int x)
{
    return __shfl_sync(~0u, x, 0);
}

template <class C> struct worker {
    const params_t *p;
    barriers_t *bars;
    int group;     /* number of this warpgroup */
    int row0;      /* of the tile: the thread's first row, the second is 8 further */
    bool leads;    /* one thread of the warpgroup */
    ring_t ring;   /* of the next K; V is one block behind */
    uint64_t q, v; /* wgmma descriptors of Q, of V at the other stage than `ring` */
    uint64_t k0, v0, v_step;
    state<C> x;

    HD_INLINE void begin(const params_t *params, unsigned char *shared, int number)
    {
        int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5 & 3;
        p = params, group = number;
        bars = (barriers_t *)(shared + C::BARRIERS_AT);
        row0 = ROWS * group + 16 * warp + (lane >> 2);
        leads = (threadIdx.x & 127) == 0;
        ring.stage = ring.parity = 0;
        q = hd_wgmma_descriptor(shared + group * C::Q_BYTES, 16, 1024);
        k0 = hd_wgmma_descriptor(shared + C::K_AT, 16, 1024);
        v0 = hd_wgmma_descriptor(shared + C::V_AT, C::KEYS * SLAB_BYTES, 1024);
        /* There are two stages: an exclusive or leads from each to the other. */
        v_step = v0 ^ (v0 + (C::K_BYTES >> 4));
    }

    HD_INLINE void begin_tile()
    {
        ring.stage = __any_sync(~0u, ring.stage) ? 1 : 0;
        ring.parity = __any_sync(~0u, ring.parity) ? 1 : 0;
        v = ring.stage ? v0 : v0 ^ v_step;
    }

    /* ---- products, asynchronous -------------------------------------------------------------- */

    HD_INLINE void start_scores()
    {
        /* K at `ring`, by a vote: the compiler then forms the descriptors in uniform registers. One
         * that is carried from block to block it keeps in the threads' registers, and moves for
         * each product: 2 more instructions a score element at head size 256. */
        uint64_t k = __any_sync(~0u, ring.stage) ? k0 + (C::K_BYTES >> 4) : k0;
        hd_wgmma_fence();
#pragma unroll
        for (int i = 0; i < C::DIM / C::STEP; i++)
            hd_wgmma<C::TYPE, C::KEYS>::template ss<HD_K_MAJOR>(
                x.s, q + (i / 4) * (QUERY_SLAB >> 4) + (i % 4) * 2,
                k + (i / 4) * (C::KEYS * SLAB_BYTES >> 4) + (i % 4) * 2, i != 0);
        hd_wgmma_commit();
    }

    HD_INLINE void start_values()
    {
        hd_wgmma_fence();
#pragma unroll
        for (int i = 0; i < C::KEYS / 16; i++)
            hd_wgmma<C::TYPE, C::DIM>::template rs<HD_MN_MAJOR>(x.o, x.p[i], v + i * 128, 1);
        hd_wgmma_commit();
    }

    /* ---- turns and rings --------------------------------------------------------------------- */

    HD_INLINE void take_turn()
    {
        if (C::PING)
            hd_barrier_sync(TURN + group, 256);
    }
    HD_INLINE void give_turn()
    {
        if (C::PING)
            hd_barrier_arrive(TURN + (group + 1) % C::GROUPS, 256);
    }
    HD_INLINE void wait_k()
    {
        hd_mbarrier_wait(&bars->k_full[ring.stage], ring.parity);
    }
    HD_INLINE void wait_next_k()
    {
        hd_mbarrier_wait(&bars->k_full[ring.stage ^ 1], ring.parity ^ ring.stage);
    }
    HD_INLINE void wait_v()
    {
        hd_mbarrier_wait(&bars->v_full[ring.stage ^ 1], ring.parity ^ ring.stage ^ 1);
    }
    HD_INLINE void free_k()
    {
        if (leads)
            hd_mbarrier_arrive(&bars->k_free[ring.stage]);
    }
    HD_INLINE void free_v()
    {
        if (leads)
            hd_mbarrier_arrive(&bars->v_free[ring.stage ^ 1]);
    }
    HD_INLINE void advance()
    {
        step_ring(&ring);
        v ^= v_step;
    }

    /* ---- masks ------------------------------------------------------------------------------- */

    /* What a query sees of a block, as columns from .. end-1 of this thread. */
    HD_INLINE void mask_band(const task_t *task, int block)
    {
        int from[2], end[2], shift = block * C::KEYS + 2 * ((int)threadIdx.x & 3);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            /* Rows behind the last query see what it sees: nobody reads them, but they need not
             * be dealt with specially. */
            int query = task->first + row0 + 8 * h;
            query = query < task->last ? query : task->last;
            from[h] = (int)hd_first_key(&p->a.visible, query) - shift;
            end[h] = (int)hd_end_key(&p->a.visible, query) - shift;
        }
#pragma unroll
        for (int i = 0; i < C::KEYS / 2; i++) {
            int column = 8 * (i / 4) + (i & 1), h = i >> 1 & 1;
            if (column < from[h] || column >= end[h])
                x.s[i] = -INFINITY;
        }
    }

    /* The 16 bits of this warp's rows of two words: of keys `lane` and `lane + 32`. A column's bits
     * come from the lane that holds its key. */
    HD_INLINE void mask_tile(const hd_walk_t *walk, const hd_block_t *block)
    {
        int lane = (int)threadIdx.x & 31, rows = (int)threadIdx.x >> 5 & 3;
        uint32_t held = 0;
        for (int half = 0; half < 2; half++) {
            int key = lane + 32 * half;
            uint64_t word = key < block->count ? hd_walk_mask(walk, block, key) : 0;
            held |= (uint32_t)(word >> 16 * rows & 0xffff) << 16 * half;
        }
#pragma unroll
        for (int i = 0; i < C::KEYS / 2; i++) {
            int column = 8 * (i / 4) + (i & 1) + 2 * (lane & 3);
            uint32_t bits = 0;
            if ((i & 2) == 0)
                bits = __shfl_sync(~0u, held, column & 31) >> (column & 32 ? 16 : 0);
            else
                continue;
            if (!(bits >> (lane >> 2) & 1))
                x.s[i] = -INFINITY;
            if (!(bits >> ((lane >> 2) + 8) & 1))
                x.s[i + 2] = -INFINITY;
        }
    }

    HD_INLINE void flip()
    {
#pragma unroll
        for (int i = 0; i < C::KEYS / 2; i++)
            x.s[i] = -x.s[i];
    }

    /* ---- a block of keys --------------------------------------------------------------------- */

    /* The tile's first block: nothing to overlap with. */
    template <class Mask> HD_INLINE void first_block(Mask mask)
    {
        float unused[2];
        take_turn();
        start_scores();
        give_turn();
        hd_wgmma_wait<0>();
        free_k();
        if (p->a.scale < 0)
            flip();
        mask();
        x.softmax_exact(unused);
        x.pack();
    }

    HD_INLINE void start_block()
    {
        take_turn();
        start_scores();
        wait_v();
        start_values();
        give_turn();
        hd_wgmma_wait<1>();
        free_k();
    }

    template <class Mask> HD_INLINE void masked_block(Mask mask)
    {
        float factor[2];
        start_block();
        if (p->a.scale < 0)
            flip();
        mask();
        x.softmax_exact(factor);
        hd_wgmma_wait<0>();
        free_v();
        advance();
        x.scale_out(factor[0], factor[1]);
        x.pack();
    }

    /* Once, or twice with a NaN, which stays above everything. */
    HD_INLINE void raise_reference()
    {
#pragma unroll 1
        for (int i = 0; i < 2 && x.is_above(); i++) {
            float factor[2];
            x.raise(factor);
            hd_wgmma_wait<0>();
            x.scale_out(factor[0], factor[1]);
        }
    }

    /* The steady state. Waiting for the next K is a loop, which the compiler does not move
     * exponentials across as it does across a wait for wgmma: so they stay under P V. */
    HD_INLINE void full_block(bool more)
    {
        float part[2];
        start_block();
        if (C::MODE == BOUND) {
            x.subtract_reference();
            raise_reference();
            x.exps_bound();
        } else if (C::MODE == SUM) {
            x.exps_sum(part);
        } else {
            x.softmax_exact(part);
        }
        x.pin_scores();
        if (more)
            wait_next_k();
        hd_wgmma_wait<0>();
        free_v();
        advance();
        if (C::MODE == SUM)
            x.settle_sum(part);
        else if (C::MODE == EXACT)
            x.scale_out(part[0], part[1]);
        x.pack();
    }

    template <class Self>
    HD_INLINE void masked_band_block(Self &self, const task_t *task, int block, int begin)
    {
        self.masked_block([&] { mask_band(task, block); });
        if (block > begin)
            wait_k();
    }

    HD_INLINE void last_values()
    {
        wait_v();
        start_values();
        hd_wgmma_wait<0>();
        free_v();
    }

    /* ---- a tile ------------------------------------------------------------------------------ */

    /* `self` is this object as what it is made of: variants have their own products and blocks.
     *
     * Masked blocks, full blocks, and masked ones again where a window ends. */
    template <class Self>
    HD_INLINE void attend_band(Self &self, const task_t *task, const blocks_t *b, int q_parity)
    {
        int begin = same_in_warp(b->begin), block = same_in_warp(b->end) - 1;
        int masked = same_in_warp(b->full_end), full = same_in_warp(b->full_begin);
        self.begin_tile();
        hd_mbarrier_wait(&bars->q_full, q_parity);
        wait_k();
        first_block([&] { mask_band(task, block); });
        if (block > begin)
            wait_next_k();
        self.advance();
        --block;
        /* Three loops one after the other: in a loop around them the compiler would no longer see
         * that descriptors are the same for all lanes. */
#pragma unroll 1
        for (; block >= masked; --block)
            masked_band_block(self, task, block, begin);
#pragma unroll 1
        for (; block >= full; --block)
            self.full_block(block > begin);
#pragma unroll 1
        for (; block >= begin; --block)
            masked_band_block(self, task, block, begin);
        self.last_values();
    }

    /* False where no block of keys is seen. */
    template <class Self>
    HD_INLINE bool attend_tiles(Self &self, const task_t *task, bool *hides, int q_parity)
    {
        hd_walk_t walk;
        hd_block_t block = {};
        hd_walk_begin(&walk, &p->a.visible, task->batch, task->head, task->first,
                      task->last + 1 - task->first);
        auto mask = [&] {
            if (!block.full || block.count < C::KEYS)
                mask_tile(&walk, &block);
        };
        *hides = false;
        if (!hd_walk_next(&walk, &block))
            return false;
        self.begin_tile();
        hd_mbarrier_wait(&bars->q_full, q_parity);
        wait_k();
        first_block(mask);
        self.advance();
        *hides = !block.full;
#pragma unroll 1
        while (hd_walk_next(&walk, &block)) {
            wait_k();
            self.masked_block(mask);
            *hides = *hides || !block.full;
        }
        self.last_values();
        return true;
    }
};

} // namespace flash_sm90

#endif
