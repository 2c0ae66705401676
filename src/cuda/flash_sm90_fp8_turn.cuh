/* V transposed. Tensor cores take E4M3 operands along the summed axis only: of V, rows of keys.
 * Tiles of V come as they are, a key's columns side by side, and three warps turn them, 16 keys by
 * 32 columns at a time:
 *
 *     ldmatrix.trans of pairs of bytes     thread l holds, of columns 2 c and 2 c + 1 (c = l / 4),
 * the keys 2 t, 2 t + 1 (t = l % 4) in one register, those 8 further in another two byte
 * permutations                column 2 c of these four keys, and column 2 c + 1 stmatrix 4 bytes of
 * row c, and of row 8 + c
 *
 * so that nothing moves between threads. Two orders come of it, and both cost nothing:
 *
 *     keys      place 4 t + 2 x + y of 16 is key 8 x + 2 t + y: as the weights lie in the registers
 * of the scores, which need no exchange to become an operand columns   row 8 x + c of 16 is column
 * 2 c + x: a thread ends with 4 columns that follow each other
 *
 * The rows of an 8x8 matrix lie in different banks on both sides. */
#ifndef HD_FLASH_SM90_FP8_TURN_CUH
#define HD_FLASH_SM90_FP8_TURN_CUH

#include "flash_sm90_fp8_config.cuh"
#include "flash_sm90_load.cuh"

namespace flash_sm90
{

template <class C> struct turner {
    const params_t *p;
    unsigned char *shared;
    fp8_barriers_t *bars;
    ring_t ring;

    static HD_INLINE bool chosen()
    {
        return true;
    }

    HD_INLINE void begin(const params_t *params, unsigned char *memory)
    {
        p = params, shared = memory;
        bars = (fp8_barriers_t *)(memory + C::BARRIERS_AT);
        ring.stage = ring.parity = 0;
    }

    /* Keys 16 piece .. and columns 32 part .. */
    static HD_INLINE void turn_part(const unsigned char *from, unsigned char *to, int piece,
                                    int part)
    {
        int lane = (int)threadIdx.x & 31, row = lane & 7, matrix = lane >> 3;
        /* Matrices: the first 8 keys and the others, of 16 columns and of the next 16. */
        int chunk = 2 * part + (matrix >> 1);
        uint32_t r[4], turned[4];
        hd_ldmatrix_x4_trans(r, from + (chunk >> 3) * (C::KEYS * SLAB_BYTES) +
                                    (16 * piece + 8 * (matrix & 1) + row) * SLAB_BYTES +
                                    ((chunk & 7) ^ row) * 16);
        turned[0] = __byte_perm(r[0], r[1], 0x6420);
        turned[1] = __byte_perm(r[0], r[1], 0x7531);
        turned[2] = __byte_perm(r[2], r[3], 0x6420);
        turned[3] = __byte_perm(r[2], r[3], 0x7531);
        hd_stmatrix_x4(to + (piece >> 3) * C::T_SLAB + (32 * part + lane) * SLAB_BYTES +
                           ((piece & 7) ^ row) * 16,
                       turned);
    }

    HD_INLINE void turn_tile()
    {
        constexpr int parts = C::DIM / 32, all = C::KEYS / 16 * parts;
        const unsigned char *from = shared + C::V_AT + ring.stage * C::K_BYTES;
        unsigned char *to = shared + C::T_AT + ring.stage * C::T_BYTES;
        hd_mbarrier_wait(&bars->base.v_full[ring.stage], ring.parity);
        hd_mbarrier_wait(&bars->t_free[ring.stage], ring.parity ^ 1);
#pragma unroll 2
        for (int i = (int)threadIdx.x / 32 - 1; i < all; i += C::TURNERS)
            turn_part(from, to, i / parts, i % parts);
        /* The products read through the other proxy. */
        hd_fence_async();
        __syncwarp();
        if ((threadIdx.x & 31) == 0) {
            hd_mbarrier_arrive(&bars->base.v_free[ring.stage]);
            hd_mbarrier_arrive(&bars->t_full[ring.stage]);
        }
        step_ring(&ring);
    }

    HD_INLINE void load(const task_t *task)
    {
        if (C::TILES) {
            hd_walk_t walk;
            hd_block_t block;
            hd_walk_begin(&walk, &p->a.visible, task->batch, task->head, task->first,
                          task->last + 1 - task->first);
            while (hd_walk_next(&walk, &block))
                turn_tile();
            return;
        }
        blocks_t b = find_blocks<C>(p, task, true);
#pragma unroll 1
        for (int block = b.begin; block < b.end; block++)
            turn_tile();
    }
};

} // namespace flash_sm90

#endif
