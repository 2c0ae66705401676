/* Twins of the wrappers of src/cuda/ptx_sm90.cuh. Part of ptx_emu.h. */
#ifndef HEED_PTX_SM90_EMU_H
#define HEED_PTX_SM90_EMU_H

#include "../../../src/cuda/tensor_map.h"

/* ---- mbarriers ------------------------------------------------------------------------------- */

HD_PTX void hd_mbarrier_init(uint64_t *bar, uint32_t count)
{
    emu::mbarrier_init(bar, count);
}
HD_PTX void hd_mbarrier_arrive(uint64_t *bar)
{
    emu::mbarrier_arrive(bar, 0);
}
HD_PTX void hd_mbarrier_expect(uint64_t *bar, uint32_t bytes)
{
    emu::mbarrier_arrive(bar, bytes);
}
HD_PTX void hd_mbarrier_wait(uint64_t *bar, uint32_t parity)
{
    emu::mbarrier_wait(bar, parity);
}
HD_PTX void hd_fence_mbarrier_init()
{
    emu::fence_mbarrier_init();
}
HD_PTX void hd_fence_async()
{
    emu::fence_async();
}

/* ---- TMA ------------------------------------------------------------------------------------- */

HD_PTX void hd_tma_prefetch(const hd_tensor_map_t *map)
{
    emu::check_map(map);
}
enum : uint64_t { EMU_EVICT_FIRST = 0x12f0000000000000, EMU_EVICT_LAST = 0x14f0000000000000 };
HD_PTX uint64_t hd_l2_evict_first()
{
    return EMU_EVICT_FIRST;
}
HD_PTX uint64_t hd_l2_evict_last()
{
    return EMU_EVICT_LAST;
}
HD_PTX void hd_tma_load(void *to, const hd_tensor_map_t *map, uint64_t *bar, int c0, int c1, int c2,
                        int c3)
{
    const int at[HD_MAP_AXES] = {c0, c1, c2, c3};
    emu::tma_load(to, map, bar, at);
}
HD_PTX void hd_tma_load(void *to, const hd_tensor_map_t *map, uint64_t *bar, int c0, int c1, int c2,
                        int c3, uint64_t policy)
{
    const int at[HD_MAP_AXES] = {c0, c1, c2, c3};
    if (policy != EMU_EVICT_FIRST && policy != EMU_EVICT_LAST)
        emu::fault("TMA load: %#llx is no L2 policy", (unsigned long long)policy);
    emu::tma_load(to, map, bar, at);
}
HD_PTX void hd_tma_store(const hd_tensor_map_t *map, const void *from, int c0, int c1, int c2,
                         int c3)
{
    const int at[HD_MAP_AXES] = {c0, c1, c2, c3};
    emu::tma_store(map, from, at);
}
HD_PTX void hd_tma_commit()
{
    emu::tma_commit();
}
template <int groups> HD_PTX void hd_tma_wait()
{
    emu::tma_wait(groups, false);
}
template <int groups> HD_PTX void hd_tma_wait_read()
{
    emu::tma_wait(groups, true);
}

/* ---- warps and grids ------------------------------------------------------------------------- */

template <int registers> HD_PTX void hd_setmaxnreg_inc()
{
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256, "24 to 256 by 8");
    emu::set_registers(registers, true);
}
template <int registers> HD_PTX void hd_setmaxnreg_dec()
{
    static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256, "24 to 256 by 8");
    emu::set_registers(registers, false);
}
HD_PTX bool hd_elect_one()
{
    return emu::elect();
}
/* Launches follow each other here. */
HD_PTX void hd_grid_wait()
{
}
HD_PTX void hd_grid_release()
{
}

/* ---- wgmma ----------------------------------------------------------------------------------- */

HD_PTX uint64_t hd_wgmma_descriptor(const void *at, uint32_t lead, uint32_t stride)
{
    return (uint64_t)((hd_shared_address(at) & 0x3ffff) >> 4) | (uint64_t)(lead >> 4) << 16 |
           (uint64_t)(stride >> 4) << 32 | 1ull << 62;
}
HD_PTX void hd_wgmma_fence()
{
    emu::wgmma_fence();
}
HD_PTX void hd_wgmma_commit()
{
    emu::wgmma_commit();
}
template <int groups> HD_PTX void hd_wgmma_wait()
{
    static_assert(groups >= 0 && groups <= 7, "0 to 7");
    emu::wgmma_wait(groups);
}
HD_PTX void hd_pin(float &)
{
}

enum hd_mma_type { HD_MMA_BF16, HD_MMA_F16, HD_MMA_E4M3 };
enum hd_major { HD_K_MAJOR = 0, HD_MN_MAJOR = 1 };

template <hd_mma_type type, int N> struct hd_wgmma {
    static_assert(N % 16 == 0 && N >= 16 && N <= 256, "the shapes that have a wrapper");

    template <hd_major major>
    static HD_PTX void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate)
    {
        static_assert(type != HD_MMA_E4M3 || major == HD_K_MAJOR, "8-bit elements are K-major");
        emu::wgmma(d, {N, type == HD_MMA_E4M3, type == HD_MMA_F16, major}, NULL, a, b, accumulate);
    }
    template <hd_major major>
    static HD_PTX void rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        static_assert(type != HD_MMA_E4M3 || major == HD_K_MAJOR, "8-bit elements are K-major");
        emu::wgmma(d, {N, type == HD_MMA_E4M3, type == HD_MMA_F16, major}, a, 0, b, accumulate);
    }
};

#endif
