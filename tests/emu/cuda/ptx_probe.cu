/* A tiny function for each wrapper of src/cuda/ptx.cuh, for the toolkit's compiler. ptx_check
 * compares what comes out with the lines in the comment above it; never run. In them
 *
 *     $i     is a register that holds parameter i, as it is or as an address
 *     >i     one that is stored at p0[i] afterwards; >i..j a list of them
 *     %      any register
 *     sm_NN: begins the comment where the wrapper needs that architecture
 */
#include "ptx.cuh"

#define PROBE(name, ...) extern "C" __global__ void probe_##name(__VA_ARGS__)

typedef volatile uint32_t *words_t;
typedef volatile float *floats_t;

/* ---- arithmetic, barriers -------------------------------------------------------------------- */

/* ex2.approx.ftz.f32 >0, $1; */
PROBE(ex2, floats_t p0, float p1)
{
    p0[0] = hd_ex2(p1);
}
/* lg2.approx.ftz.f32 >0, $1; */
PROBE(lg2, floats_t p0, float p1)
{
    p0[0] = hd_lg2(p1);
}
/* cvt.rn.bf16x2.f32 >0, $2, $1; */
PROBE(pack_bf16, words_t p0, float p1, float p2)
{
    p0[0] = hd_pack_bf16(p1, p2);
}
/* cvt.rn.f16x2.f32 >0, $2, $1; */
PROBE(pack_f16, words_t p0, float p1, float p2)
{
    p0[0] = hd_pack_f16(p1, p2);
}
#if __CUDA_ARCH__ >= 890
/* sm_89: cvt.rn.satfinite.e4m3x2.f32 >0, $2, $1; */
PROBE(pack_e4m3, words_t p0, float p1, float p2)
{
    p0[0] = hd_pack_e4m3(p1, p2);
}
#endif
/* max.NaN.f32 >0, $1, $2; */
PROBE(max_nan, floats_t p0, float p1, float p2)
{
    p0[0] = hd_max_nan(p1, p2);
}
/* bar.sync $0, $1; */
PROBE(barrier_sync, int p0, int p1)
{
    hd_barrier_sync(p0, p1);
}
/* bar.arrive $0, $1; */
PROBE(barrier_arrive, int p0, int p1)
{
    hd_barrier_arrive(p0, p1);
}

/* ---- cp.async -------------------------------------------------------------------------------- */

/* cp.async.cg.shared.global [$0], [$1], 16, $2; */
PROBE(cp_async_16, void *p0, const void *p1, int p2)
{
    hd_cp_async_16(p0, p1, p2);
}
/* cp.async.ca.shared.global [$0], [$1], 4, $2; */
PROBE(cp_async_4, void *p0, const void *p1, int p2)
{
    hd_cp_async_4(p0, p1, p2);
}
/* cp.async.commit_group; */
PROBE(cp_async_commit)
{
    hd_cp_async_commit();
}
/* cp.async.wait_group 3; */
PROBE(cp_async_wait)
{
    hd_cp_async_wait<3>();
}

/* ---- matrices -------------------------------------------------------------------------------- */

static __device__ void store_four(words_t to, const uint32_t (&r)[4])
{
    for (int i = 0; i < 4; i++)
        to[i] = r[i];
}
/* ldmatrix.sync.aligned.m8n8.x4.shared.b16 {>0..3}, [$1]; */
PROBE(ldmatrix, words_t p0, const void *p1)
{
    uint32_t r[4];
    hd_ldmatrix_x4(r, p1);
    store_four(p0, r);
}
/* ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {>0..3}, [$1]; */
PROBE(ldmatrix_trans, words_t p0, const void *p1)
{
    uint32_t r[4];
    hd_ldmatrix_x4_trans(r, p1);
    store_four(p0, r);
}
#if __CUDA_ARCH__ >= 900
/* sm_90: stmatrix.sync.aligned.m8n8.x4.shared.b16 [$0], {$1, $2, $3, $4}; */
PROBE(stmatrix, void *p0, uint32_t p1, uint32_t p2, uint32_t p3, uint32_t p4)
{
    const uint32_t r[4] = {p1, p2, p3, p4};
    hd_stmatrix_x4(p0, r);
}
#endif

#define MMA_PROBE(name)                                                                       \
    PROBE(name, floats_t p0, uint32_t p1, uint32_t p2, uint32_t p3, uint32_t p4, uint32_t p5, \
          uint32_t p6)                                                                        \
    {                                                                                         \
        const uint32_t a[4] = {p1, p2, p3, p4}, b[2] = {p5, p6};                              \
        float d[4];                                                                           \
        for (int i = 0; i < 4; i++)                                                           \
            d[i] = p0[i];                                                                     \
        hd_##name(d, a, b);                                                                   \
        for (int i = 0; i < 4; i++)                                                           \
            p0[i] = d[i];                                                                     \
    }
/* mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {>0..3}, {$1, $2, $3, $4}, {$5, $6}, {>0..3};
 */
MMA_PROBE(mma_bf16)
/* mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {>0..3}, {$1, $2, $3, $4}, {$5, $6}, {>0..3};
 */
MMA_PROBE(mma_f16)

/* ---- Hopper: mbarriers ----------------------------------------------------------------------- */

#if __CUDA_ARCH_FEAT_SM90_ALL

/* sm_90: mbarrier.init.shared::cta.b64 [$0], $1; */
PROBE(mbarrier_init, uint64_t *p0, uint32_t p1)
{
    hd_mbarrier_init(p0, p1);
}
/* sm_90: mbarrier.arrive.shared::cta.b64 _, [$0]; */
PROBE(mbarrier_arrive, uint64_t *p0)
{
    hd_mbarrier_arrive(p0);
}
/* sm_90: mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1; */
PROBE(mbarrier_expect, uint64_t *p0, uint32_t p1)
{
    hd_mbarrier_expect(p0, p1);
}
/* sm_90: mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1;
 * @!done bra WAIT; */
PROBE(mbarrier_wait, uint64_t *p0, uint32_t p1)
{
    hd_mbarrier_wait(p0, p1);
}
/* sm_90: fence.mbarrier_init.release.cluster; */
PROBE(fence_mbarrier_init)
{
    hd_fence_mbarrier_init();
}
/* sm_90: fence.proxy.async.shared::cta; */
PROBE(fence_async)
{
    hd_fence_async();
}

/* ---- Hopper: TMA ----------------------------------------------------------------------------- */

/* sm_90: prefetch.tensormap [$0]; */
PROBE(tma_prefetch, const hd_tensor_map_t *p0)
{
    hd_tma_prefetch(p0);
}
/* sm_90: createpolicy.fractional.L2::evict_first.b64 >0, 1.0; */
PROBE(l2_evict_first, volatile uint64_t *p0)
{
    p0[0] = hd_l2_evict_first();
}
/* sm_90: createpolicy.fractional.L2::evict_last.b64 >0, 1.0; */
PROBE(l2_evict_last, volatile uint64_t *p0)
{
    p0[0] = hd_l2_evict_last();
}
/* sm_90: cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes
 *   [$0], [$1, {$3, $4, $5, $6}], [$2]; */
PROBE(tma_load, void *p0, const hd_tensor_map_t *p1, uint64_t *p2, int p3, int p4, int p5, int p6)
{
    hd_tma_load(p0, p1, p2, p3, p4, p5, p6);
}
/* sm_90: cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint
 *   [$0], [$1, {$3, $4, $5, $6}], [$2], $7; */
PROBE(tma_load_policy, void *p0, const hd_tensor_map_t *p1, uint64_t *p2, int p3, int p4, int p5,
      int p6, uint64_t p7)
{
    hd_tma_load(p0, p1, p2, p3, p4, p5, p6, p7);
}
/* sm_90: cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [$0, {$2, $3, $4, $5}], [$1]; */
PROBE(tma_store, const hd_tensor_map_t *p0, const void *p1, int p2, int p3, int p4, int p5)
{
    hd_tma_store(p0, p1, p2, p3, p4, p5);
}
/* sm_90: cp.async.bulk.commit_group; */
PROBE(tma_commit)
{
    hd_tma_commit();
}
/* sm_90: cp.async.bulk.wait_group 2; */
PROBE(tma_wait)
{
    hd_tma_wait<2>();
}
/* sm_90: cp.async.bulk.wait_group.read 1; */
PROBE(tma_wait_read)
{
    hd_tma_wait_read<1>();
}

/* ---- Hopper: warps, grids, wgmma; its products come from ptx_check --------------------------- */

/* sm_90: setmaxnreg.inc.sync.aligned.u32 240; */
PROBE(setmaxnreg_inc)
{
    hd_setmaxnreg_inc<240>();
}
/* sm_90: setmaxnreg.dec.sync.aligned.u32 24; */
PROBE(setmaxnreg_dec)
{
    hd_setmaxnreg_dec<24>();
}
/* sm_90: elect.sync _|p, 0xffffffff;
 * selp.u32 %, 1, 0, p; */
PROBE(elect_one, words_t p0)
{
    p0[0] = hd_elect_one();
}
/* sm_90: griddepcontrol.wait; */
PROBE(grid_wait)
{
    hd_grid_wait();
}
/* sm_90: griddepcontrol.launch_dependents; */
PROBE(grid_release)
{
    hd_grid_release();
}
/* sm_90: wgmma.fence.sync.aligned; */
PROBE(wgmma_fence)
{
    hd_wgmma_fence();
}
/* sm_90: wgmma.commit_group.sync.aligned; */
PROBE(wgmma_commit)
{
    hd_wgmma_commit();
}
/* sm_90: wgmma.wait_group.sync.aligned 1; */
PROBE(wgmma_wait)
{
    hd_wgmma_wait<1>();
}

template <hd_mma_type type, int N, hd_major major>
static __device__ void probe_ss(floats_t p0, uint64_t a, uint64_t b, int accumulate)
{
    float d[N / 2];
    for (int i = 0; i < N / 2; i++)
        d[i] = p0[i];
    hd_wgmma<type, N>::template ss<major>(d, a, b, accumulate);
    for (int i = 0; i < N / 2; i++)
        p0[i] = d[i];
}
template <hd_mma_type type, int N, hd_major major>
static __device__ void probe_rs(floats_t p0, const uint32_t (&a)[4], uint64_t b, int accumulate)
{
    float d[N / 2];
    for (int i = 0; i < N / 2; i++)
        d[i] = p0[i];
    hd_wgmma<type, N>::template rs<major>(d, a, b, accumulate);
    for (int i = 0; i < N / 2; i++)
        p0[i] = d[i];
}

#endif
