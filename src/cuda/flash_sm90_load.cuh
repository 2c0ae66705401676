/* The role that loads, one lane of one warp: Q once a tile, K and V through rings of two stages
 * each, K one block ahead of V as the other roles use them. Only barriers hold it back, so that the
 * next tile's K and V are on their way while this one's output is stored. */
#ifndef HD_FLASH_SM90_LOAD_CUH
#define HD_FLASH_SM90_LOAD_CUH

#include "flash_sm90_config.cuh"

namespace flash_sm90
{

/* Position in a ring. */
typedef struct ring {
    int stage, parity;
} ring_t;

HD_INLINE void step_ring(ring_t *ring)
{
    ring->parity ^= ring->stage;
    ring->stage ^= 1;
}

template <class C> struct loader {
    const params_t *p;
    unsigned char *shared;
    barriers_t *bars;
    uint64_t keep, once; /* policies of L2 */
    ring_t k, v;
    int q_parity;

    static HD_INLINE bool chosen()
    {
        return hd_elect_one();
    }

    HD_INLINE void begin(const params_t *params, unsigned char *memory)
    {
        p = params, shared = memory;
        bars = (barriers_t *)(memory + C::BARRIERS_AT);
        keep = hd_l2_evict_last(), once = hd_l2_evict_first();
        k.stage = k.parity = v.stage = v.parity = q_parity = 0;
    }

    HD_INLINE void load_queries(const task_t *task)
    {
        hd_mbarrier_wait(&bars->q_free, q_parity ^ 1);
        q_parity ^= 1;
        hd_mbarrier_expect(&bars->q_full, C::GROUPS * C::Q_BYTES);
        for (int g = 0; g < C::GROUPS; g++)
            for (int s = 0; s < C::SLABS; s++)
                hd_tma_load(shared + g * C::Q_BYTES + s * QUERY_SLAB, &p->q, &bars->q_full,
                            C::SLAB_COLUMNS * s, task->first + ROWS * g, task->head, task->batch,
                            once);
    }

    HD_INLINE void load_keys(const hd_tensor_map_t *map, int at, uint64_t *full, uint64_t *free,
                             ring_t *ring, const task_t *task, int key)
    {
        hd_mbarrier_wait(&free[ring->stage], ring->parity ^ 1);
        hd_mbarrier_expect(&full[ring->stage], C::K_BYTES);
        unsigned char *to = shared + at + ring->stage * C::K_BYTES;
        for (int s = 0; s < C::SLABS; s++)
            hd_tma_load(to + s * C::KEYS * SLAB_BYTES, map, &full[ring->stage], C::SLAB_COLUMNS * s,
                        key, task->key_head, task->batch, keep);
        step_ring(ring);
    }
    HD_INLINE void load_k(const task_t *task, int key)
    {
        load_keys(&p->k, C::K_AT, bars->k_full, bars->k_free, &k, task, key);
    }
    HD_INLINE void load_v(const task_t *task, int key)
    {
        load_keys(&p->v, C::V_AT, bars->v_full, bars->v_free, &v, task, key);
    }

    HD_INLINE void load_band(const task_t *task)
    {
        blocks_t b = find_blocks<C>(p, task, true);
        if (b.begin >= b.end)
            return;
        load_k(task, (b.end - 1) * C::KEYS);
        load_queries(task);
        for (int block = b.end - 2; block >= b.begin; block--) {
            load_k(task, block * C::KEYS);
            load_v(task, (block + 1) * C::KEYS);
        }
        load_v(task, b.begin * C::KEYS);
    }

    HD_INLINE void load_tiles(const task_t *task)
    {
        hd_walk_t walk;
        hd_block_t block;
        int before = -1;
        hd_walk_begin(&walk, &p->a.visible, task->batch, task->head, task->first,
                      task->last + 1 - task->first);
        while (hd_walk_next(&walk, &block)) {
            load_k(task, (int)block.key);
            if (before < 0)
                load_queries(task);
            else
                load_v(task, before);
            before = (int)block.key;
        }
        if (before >= 0)
            load_v(task, before);
    }

    HD_INLINE void load(const task_t *task)
    {
        if (C::TILES)
            load_tiles(task);
        else
            load_band(task);
    }
};

} // namespace flash_sm90

#endif
