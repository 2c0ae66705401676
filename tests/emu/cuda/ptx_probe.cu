/* Every wrapper of src/cuda/ptx.cuh once, for the toolkit's compiler: ptx_check looks at what comes
 * out. Never run. */
#include "ptx.cuh"

extern "C" __global__ void probe(float *out, const void *from, uint32_t *pairs, int n)
{
    extern __shared__ __align__(16) unsigned char shared[];
    uint32_t a[4], turned[4];
    float d[4] = {1, 2, 3, 4};
    hd_cp_async_16(shared, from, n);
    hd_cp_async_4(shared + 64, from, n);
    hd_cp_async_commit();
    hd_cp_async_wait<1>();
    hd_barrier_sync(n, 64);
    hd_barrier_arrive(n, 96);
    hd_ldmatrix_x4(a, shared);
    hd_ldmatrix_x4_trans(turned, shared + n);
    const uint32_t b[2] = {turned[0], turned[1]};
    hd_mma_bf16(d, a, b);
    hd_mma_f16(d, a, b);
#if __CUDA_ARCH__ >= 900
    hd_stmatrix_x4(shared, a);
#endif
    out[0] = hd_ex2(d[0]) + hd_lg2(d[1]) + d[2] + d[3];
    pairs[0] = hd_pack_bf16(d[0], d[1]);
    pairs[1] = hd_pack_f16(d[0], d[1]);
}
