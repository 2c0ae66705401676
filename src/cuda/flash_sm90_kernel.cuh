/* The kernel: who does what, tile by tile. */
#ifndef HD_FLASH_SM90_KERNEL_CUH
#define HD_FLASH_SM90_KERNEL_CUH

#include "flash_sm90_config.cuh"

#if HD_SM90

#include "flash_sm90_load.cuh"
#include "flash_sm90_math.cuh"
#include "flash_sm90_rescue.cuh"
#include "flash_sm90_store.cuh"

namespace flash_sm90
{

/* Who computes and stores, and what the idle warps beside the one that loads do: a variant of the
 * kernel has its own. */
template <class C> struct roles {
    using work = worker<C>;
    using write = writer<C>;
    static HD_INLINE void start(unsigned char *)
    {
    }
    static HD_INLINE void help(const params_t *, unsigned char *)
    {
    }
};

/* The tiles that have to be done again, the exact way: for each warp a bit a wave (or a few waves).
 * They wait until the block has done all its tiles, so that the role that loads never has to. */
template <class C> HD_INLINE uint32_t *redo_words(unsigned char *shared, int warp)
{
    return (uint32_t *)(shared + C::REDO_AT) + warp * REDO_WORDS;
}
template <class C>
HD_INLINE bool is_marked(const params_t *p, unsigned char *shared, int warp, int wave)
{
    int bit = wave >> p->shift;
    return redo_words<C>(shared, warp)[bit >> 5] >> (bit & 31) & 1;
}
template <class C> HD_INLINE bool any_marked(const params_t *p, unsigned char *shared, int wave)
{
    bool any = false;
    for (int warp = 0; warp < C::WARPS; warp++)
        any |= is_marked<C>(p, shared, warp, wave);
    return any;
}

template <class C> HD_INLINE void start_barriers(unsigned char *shared, const params_t *p)
{
    barriers_t *bars = (barriers_t *)(shared + C::BARRIERS_AT);
    hd_tma_prefetch(&p->q);
    /* Without keys they have no maps. */
    if (p->a.keys > 0) {
        hd_tma_prefetch(&p->k);
        hd_tma_prefetch(&p->v);
    }
    hd_mbarrier_init(&bars->q_full, 1);
    hd_mbarrier_init(&bars->q_free, C::WARPS);
    for (int i = 0; i < STAGES; i++) {
        hd_mbarrier_init(&bars->k_full[i], 1);
        hd_mbarrier_init(&bars->v_full[i], 1);
        hd_mbarrier_init(&bars->k_free[i], C::GROUPS);
        hd_mbarrier_init(&bars->v_free[i], C::V_READERS);
    }
    roles<C>::start(shared);
    hd_fence_mbarrier_init();
}

/* Warps that compute, and those that load. */
template <class C> HD_INLINE void join()
{
    hd_barrier_sync(JOIN, C::JOINING);
}

template <class C, class Role> HD_INLINE void load_all(const params_t *p, unsigned char *shared)
{
    constexpr int rounds = C::MODE == EXACT ? 1 : 2;
    Role role;
    bool chosen = Role::chosen();
    role.begin(p, shared);
#pragma unroll 1
    for (int round = 0; round < rounds; round++) {
        for (int wave = 0; chosen; wave++) {
            int tile = tile_of(wave, (int)blockIdx.x, (int)gridDim.x);
            if (wave * (int)gridDim.x >= p->tiles)
                break;
            if (tile >= p->tiles || (round && !any_marked<C>(p, shared, wave)))
                continue;
            task_t task = find_task<C>(p, tile);
            role.load(&task);
        }
        __syncwarp();
        if (rounds == 2 && round == 0)
            join<C>();
    }
}

/* Judges and stores what a warp has computed. Returns whether it is to be done again. */
template <class C>
HD_INLINE bool finish(const params_t *p, const task_t *task, state<C> *x, bool exact, bool hides,
                      unsigned char *staging)
{
    typename roles<C>::write to;
    bool lost[2], huge = false;
    to.begin(p, task);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        x->sum[h] = quad_sum(x->sum[h]);
        lost[h] = to.is_lost(x, h) && to.first + (to.lane >> 2) + 8 * h < (int)p->a.queries;
        huge |= to.is_huge(x->reference[h]);
    }
    if (C::MODE != EXACT && !exact &&
        __any_sync(~0u, lost[0] || lost[1] || x->top > (int)hd_to_bits(HD_MAGIC + 127.f)))
        return true;
    /* Numbers that are none in spite of a mask may be the masked keys'. */
    bool rescued = hides || __any_sync(~0u, huge);
    lost[0] = lost[0] && rescued;
    lost[1] = lost[1] && rescued;
    to.store(x, lost, staging);
    for (int h = 0; h < 2; h++) {
        unsigned rows = __ballot_sync(~0u, lost[h]) & 0x11111111;
        for (int r = 0; r < 8; r++)
            if (rows >> 4 * r & 1)
                rescue_row(&p->a, task, to.first + r + 8 * h);
    }
    return false;
}

template <class C> HD_INLINE void compute_all(const params_t *p, unsigned char *shared)
{
    constexpr int rounds = C::MODE == EXACT ? 1 : 2;
    int group = same_in_warp((int)threadIdx.x / 128) - 1, warp = (int)threadIdx.x / 32 - 4;
    int lane = (int)threadIdx.x & 31, q_parity = 0;
    unsigned char *staging = shared + C::OUT_AT + group * C::Q_BYTES + (warp & 3) * 16 * SLAB_BYTES;
    typename roles<C>::work role;
    role.begin(p, shared, group);
    redo_words<C>(shared, warp)[lane] = 0;
    __syncwarp();
    /* The first turn is the first warpgroup's. */
    if (C::PING && group == C::GROUPS - 1)
        hd_barrier_arrive(TURN, 256);
    int round = 0;
    /* One loop for both rounds: with one in the other, the compiler would no longer see that
     * descriptors are the same in all lanes. */
#pragma unroll 1
    for (int wave = 0;; wave++) {
        if (wave * (int)gridDim.x >= p->tiles) {
            if (++round == rounds)
                break;
            join<C>();
            wave = 0;
        }
        int tile = tile_of(wave, (int)blockIdx.x, (int)gridDim.x);
        if (tile >= p->tiles)
            continue;
        /* By a vote, which the compiler knows to be the same for all lanes: else it would keep
         * descriptors where wgmma cannot take them from. */
        if (round && !__any_sync(~0u, any_marked<C>(p, shared, wave)))
            continue;
        task_t task = find_task<C>(p, tile);
        bool exact = C::MODE == EXACT || round == 1 || p->exact, hides, any;
        role.x.clear(p->scale);
        if (C::TILES) {
            any = role.attend_tiles(role, &task, &hides, q_parity);
        } else {
            blocks_t b = find_blocks<C>(p, &task, exact);
            any = b.begin < b.end;
            hides = b.hides;
            if (any)
                role.attend_band(role, &task, &b, q_parity);
        }
        q_parity ^= any;
        /* With a place of its own for the output, Q's is free now. */
        if (any && C::OWN_OUT && lane == 0)
            hd_mbarrier_arrive(&role.bars->q_free);
        /* For the other lanes by the __syncwarp of store_lse. */
        if (C::OWN_OUT && C::STAGED && lane == 0)
            hd_tma_wait_read<0>();
        bool wanted = round == 0 || is_marked<C>(p, shared, warp, wave);
        /* Without keys no Q came: its place may belong to the next tile's by now. */
        unsigned char *place = any || C::OWN_OUT ? staging : nullptr;
        if (wanted && finish<C>(p, &task, &role.x, exact, hides, place) && lane == 0)
            redo_words<C>(shared, warp)[wave >> p->shift >> 5] |= 1u << (wave >> p->shift & 31);
        if (any && !C::OWN_OUT && lane == 0) {
            hd_tma_wait_read<0>();
            hd_mbarrier_arrive(&role.bars->q_free);
        }
    }
    if (C::STAGED && lane == 0)
        hd_tma_wait<0>();
}

} // namespace flash_sm90

#endif

namespace flash_sm90
{

template <class C>
static __global__ void __launch_bounds__(C::THREADS, 1) attend(const __grid_constant__ params_t p)
{
#if HD_SM90
    HD_SHARED(shared);
    if (threadIdx.x == 0)
        start_barriers<C>(shared, &p);
    __syncthreads();
    if (threadIdx.x < 128) {
        hd_setmaxnreg_dec<C::LOAD_REGISTERS>();
        if (threadIdx.x < 32)
            load_all<C, loader<C>>(&p, shared);
        else
            roles<C>::help(&p, shared);
    } else {
        hd_setmaxnreg_inc<C::MATH_REGISTERS>();
        compute_all<C>(&p, shared);
    }
#endif
}

} // namespace flash_sm90

#endif
