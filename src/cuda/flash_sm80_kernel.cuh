/* The kernel of cuda:flash_sm80 and its table for one type; flash_sm80.cu says how it works. */
#ifndef HD_FLASH_SM80_KERNEL_CUH
#define HD_FLASH_SM80_KERNEL_CUH

#include "flash_sm80_load.cuh"
#include "flash_sm80_store.cuh"

/* Brings V while the scores are made, and the next K while V is used: K of the block is on its way
 * when it begins. */
template <class C>
static __device__ __forceinline__ void attend_full(const sm80_params_t *p,
                                                   const volatile cold_t *cold, int key, bool last,
                                                   unsigned char *memory, state<C> &s)
{
    scores_t<C> scores;
    hd_cp_async_wait<0>();
    /* K is there for all, and all are done with the former V. */
    __syncthreads();
    start_values<C>(p, key, KEYS, memory);
    find_scores<C>(memory, scores);
    hd_cp_async_wait<0>();
    /* V is there for all, and all are done with this K. */
    __syncthreads();
    int count = KEYS;
    key += KEYS;
    if (last) {
        key = cold->next.key;
        count = cold->next.count;
    }
    start_keys<C>(p, key, count, memory);
    raise_references<C>(p->log2_unit, scores, s);
#pragma unroll
    for (int part = 0; part < KEYS / 16; part++) {
        weigh<C>(p->log2_unit, scores, part, s);
        add_values<C>(memory, scores, part, s);
    }
}

/* The same for a block that not all rows see all of. All warps pass the barriers; one that sees
 * nothing of the block does nothing between them. */
template <class C>
static __device__ __forceinline__ void attend_masked(const sm80_params_t *p,
                                                     const volatile cold_t *cold,
                                                     unsigned char *memory, state<C> &s)
{
    scores_t<C> scores;
    if (p->gather)
        gather_block<C>(p, cold, memory);
    hd_cp_async_wait<0>();
    __syncthreads();
    if (!p->gather)
        start_values<C>(p, cold->now.key, cold->now.count, memory);
    /* The former masks were read before this barrier, these are after the next. */
    write_masks<C>(p, cold, memory);
    bool busy = is_busy<C>(cold, warp_index());
    if (busy)
        find_scores<C>(memory, scores);
    hd_cp_async_wait<0>();
    __syncthreads();
    start_keys<C>(p, cold->next.key, cold->next.count, memory);
    if (busy) {
        hide_scores<C>(memory, cold->zero, scores);
        raise_references<C>(p->log2_unit, scores, s);
    }
    if (cold->careful) {
        if (busy)
            add_specials<C>(p->log2_unit, memory, cold->zero, scores, s);
        __syncthreads();
        remove_specials<C>(memory, cold->zero);
        __syncthreads();
    }
    if (busy) {
#pragma unroll
        for (int part = 0; part < KEYS / 16; part++) {
            weigh<C>(p->log2_unit, scores, part, s);
            add_values<C>(memory, scores, part, s);
        }
    }
}

/* All keys. */
template <class C>
static __device__ __forceinline__ void attend_keys(const sm80_params_t *p, volatile cold_t *cold,
                                                   unsigned char *memory, state<C> &s)
{
    begin_state<C>(s);
    begin_steps<C>(p, cold);
    start_keys<C>(p, cold->next.key, cold->next.count, memory);
#pragma unroll 1
    while (cold->next.count > 0) {
        find_step<C>(p, cold);
        int key = cold->now.key;
#pragma unroll 1
        for (int left = cold->now.blocks; left > 0; left--, key += KEYS)
            attend_full<C>(p, cold, key, left == 1, memory, s);
        if (cold->now.blocks == 0)
            attend_masked<C>(p, cold, memory, s);
    }
}

/* Whether any warp's result holds numbers that are none. All are done with the keys then. */
template <class C> static __device__ inline bool is_lost(unsigned char *memory, const state<C> &s)
{
    bool lost = __any_sync(~0u, has_specials<C>(s));
    if (lane_index() == 0)
        *flag_of<C>(memory, warp_index()) = lost;
    __syncthreads();
    for (int warp = 0; warp < C::WARPS; warp++)
        lost = lost || *flag_of<C>(memory, warp);
    return lost;
}

template <class C>
static __global__ void __launch_bounds__(C::THREADS) attend(const __grid_constant__ sm80_params_t p)
{
    HD_SHARED(memory);
    volatile cold_t cold;
    put_task(&cold, find_task<C>(&p, blockIdx.x));
    cold.careful = cold.zero = 0;
    state<C> s;
    put_sources<C>(&p, &cold, memory);
    load_queries<C>(&p, &cold, memory);
    __syncthreads();
#pragma unroll 1
    for (;; cold.careful = 1) {
        attend_keys<C>(&p, &cold, memory, s);
        if (cold.careful || !cold.masked || !is_lost<C>(memory, s))
            break;
    }
    /* Without a key nobody has waited for Q. */
    hd_cp_async_wait<0>();
    __syncthreads();
    task_t task = get_task(&cold);
    store_tile<C>(&p, &task, memory, s);
}

template <class C> static int launch(dim3 grid, void *stream, const sm80_params_t *p)
{
    return HD_LAUNCH(attend<C>, grid, dim3(C::THREADS), C::BYTES, stream, *p);
}

template <class C> constexpr sm80_choice_t choice()
{
    return {C::D, C::DV, C::ROWS, C::BYTES, launch<C>};
}

/* The last one is for cards with less shared memory. */
#define HD_SM80_CHOICES(bf16)                                                               \
    {                                                                                       \
        choice<config<bf16, 64, 64, 4, 2>>(), choice<config<bf16, 128, 128, 4, 2>>(),       \
            choice<config<bf16, 192, 128, 4, 2>>(), choice<config<bf16, 256, 256, 8, 1>>(), \
            choice<config<bf16, 256, 256, 4, 1>>(),                                         \
    }

#endif
