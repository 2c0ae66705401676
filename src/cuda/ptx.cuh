/* Every PTX instruction that a kernel names, one wrapper each; kernels hold no asm of their own.
 * With HD_EMULATED the same names come from tests/emu/cuda, made of plain C++, and run without a
 * device.
 *
 * Fragments of 16-bit matrices, for lane l: an 8x8 matrix is one register, elements (l / 4,
 * 2 * (l % 4)) and the next one in its row. */
#ifndef HD_PTX_CUH
#define HD_PTX_CUH

#if HD_EMULATED
#include "ptx_emu.h"
#else

#include "tensor_map.h"

#include <stdint.h>

#define HD_PTX __device__ __forceinline__

/* ---- addresses, arithmetic ------------------------------------------------------------------- */

HD_PTX uint32_t hd_shared_address(const void *at)
{
    return (uint32_t)__cvta_generic_to_shared(at);
}

/* 2^x and log2(x), a few ulp off; denormals are 0. */
HD_PTX float hd_ex2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
HD_PTX float hd_lg2(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two numbers rounded to nearest even; low is the first in memory. */
HD_PTX uint32_t hd_pack_bf16(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
HD_PTX uint32_t hd_pack_f16(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* Two numbers in E4M3, nearest even, saturated at 448, NaN kept; low is the first in memory. */
#if __CUDA_ARCH__ >= 890
HD_PTX uint32_t hd_pack_e4m3(float low, float high)
{
    uint16_t pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    return pair;
}
#endif
/* The larger one, NaN where either is. */
HD_PTX float hd_max_nan(float x, float y)
{
    float most;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(x), "f"(y));
    return most;
}

/* ---- barriers of some of a block's threads; number 0 is __syncthreads ------------------------ */

HD_PTX void hd_barrier_sync(int number, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
HD_PTX void hd_barrier_arrive(int number, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

/* ---- cp.async (sm_80) ------------------------------------------------------------------------ */

/* Copies `valid` bytes from global to shared memory and fills up with zeros. */
HD_PTX void hd_cp_async_16(void *to, const void *from, int valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(hd_shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(valid)
                 : "memory");
}
HD_PTX void hd_cp_async_4(void *to, const void *from, int valid)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(hd_shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(valid)
                 : "memory");
}
HD_PTX void hd_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Waits until at most `groups` of this thread's groups are on their way. */
template <int groups> HD_PTX void hd_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

/* ---- 8x8 matrices of 16-bit elements (sm_75; storing sm_90) ---------------------------------- */

/* Lane l gives the address of row l % 8 of matrix l / 8; rows are 16 bytes. */
HD_PTX void hd_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(hd_shared_address(row))
                 : "memory");
}
/* The same of the transposed matrices. */
HD_PTX void hd_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(hd_shared_address(row))
                 : "memory");
}
#if __CUDA_ARCH__ >= 900
HD_PTX void hd_stmatrix_x4(void *row, const uint32_t (&r)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     hd_shared_address(row)),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}
#endif

/* ---- mma.sync m16n8k16 (sm_80): d (16 x 8, f32) += a (16 x 16) * b (16 x 8) ------------------ */

/* a: rows 0-7 and 8-15 of columns 0-7, then of 8-15. b, of its transpose: columns 0-7, then 8-15.
 * d: row l / 4, columns 2 * (l % 4) and the next; then the same of row l / 4 + 8. */
HD_PTX void hd_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
HD_PTX void hd_mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Hopper's; hosts name the types too. */
enum hd_mma_type { HD_MMA_BF16, HD_MMA_F16, HD_MMA_E4M3 };

#if __CUDA_ARCH_FEAT_SM90_ALL
#include "ptx_sm90.cuh"
#endif

#endif
#endif
