/* Twins of the wrappers of src/cuda/ptx.cuh: same names, same arguments, what PTX documents. */
#ifndef HEED_PTX_EMU_H
#define HEED_PTX_EMU_H

#include "simt_emu.h"

#define HD_PTX inline __attribute__((always_inline))

/* ---- addresses, arithmetic ------------------------------------------------------------------- */

/* Shared addresses start somewhere above 0, as on a device. */
HD_PTX uint32_t hd_shared_address(const void *at)
{
    return (uint32_t)((const char *)at - (const char *)emu::shared()) + 1024;
}
HD_PTX float hd_ex2(float x)
{
    float y = exp2f(x);
    return fabsf(y) < 0x1p-126f ? 0 : y;
}
HD_PTX float hd_lg2(float x)
{
    return log2f(fabsf(x) < 0x1p-126f ? 0 : x);
}
HD_PTX uint32_t hd_pack_bf16(float low, float high)
{
    return emu::to_bf16(low) | emu::to_bf16(high) << 16;
}
HD_PTX uint32_t hd_pack_f16(float low, float high)
{
    return emu::to_f16(low) | emu::to_f16(high) << 16;
}

HD_PTX uint32_t hd_pack_e4m3(float low, float high)
{
    return emu::to_e4m3(low) | emu::to_e4m3(high) << 8;
}
HD_PTX float hd_max_nan(float x, float y)
{
    return x != x || y != y ? __uint_as_float(0x7fffffff) : fmaxf(x, y);
}

/* ---- barriers -------------------------------------------------------------------------------- */

HD_PTX void hd_barrier_sync(int number, int threads)
{
    emu::barrier(number, threads, true);
}
HD_PTX void hd_barrier_arrive(int number, int threads)
{
    emu::barrier(number, threads, false);
}

/* ---- cp.async -------------------------------------------------------------------------------- */

HD_PTX void hd_cp_async_16(void *to, const void *from, int valid)
{
    emu::cp_async(to, from, 16, valid);
}
HD_PTX void hd_cp_async_4(void *to, const void *from, int valid)
{
    emu::cp_async(to, from, 4, valid);
}
HD_PTX void hd_cp_async_commit()
{
    emu::cp_async_commit();
}
template <int groups> HD_PTX void hd_cp_async_wait()
{
    emu::cp_async_wait(groups);
}

/* ---- matrices -------------------------------------------------------------------------------- */

HD_PTX void hd_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    emu::load_matrices(r, row, false);
}
HD_PTX void hd_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    emu::load_matrices(r, row, true);
}
HD_PTX void hd_stmatrix_x4(void *row, const uint32_t (&r)[4])
{
    emu::store_matrices(row, r);
}
HD_PTX void hd_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    emu::multiply_matrices(d, a, b, true);
}
HD_PTX void hd_mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    emu::multiply_matrices(d, a, b, false);
}

#include "ptx_sm90_emu.h"

#endif
