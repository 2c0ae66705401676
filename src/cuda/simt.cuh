/* What a kernel's file includes in place of the toolkit's headers. Under HD_EMULATED the same file
 * is compiled by a C++ compiler and runs in the emulator of tests/emu/cuda; what differs between
 * the two is behind the two macros below.
 *
 * Kernels are static, take one struct by value, keep to threadIdx, blockIdx, the barriers, shuffles
 * and votes, and have no static __shared__ variables. */
#ifndef HD_SIMT_CUH
#define HD_SIMT_CUH

#if defined(HD_EMULATED)

#include "simt_emu.h"

#define HD_SHARED(name) unsigned char *name = emu_shared()
#define HD_LAUNCH(kernel, grid, block, shared_bytes, stream, params)                \
    (emu_launch(kernel, grid, block, shared_bytes, (cudaStream_t)(stream), params), \
     cudaGetLastError())
#define HD_LAUNCH_DEPENDENT HD_LAUNCH

static inline int hd_simt_shared_limit()
{
    return emu::shared_limit();
}

#else

#include <cuda_runtime.h>

/* The block's dynamic shared memory: unsigned char *name. */
#define HD_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

/* Enqueues kernel(params) and gives its cudaError_t: that of this launch, not one that the program
 * left behind. More than 48 KiB of shared memory have to be asked for. */
#define HD_LAUNCH(kernel, grid, block, shared_bytes, stream, params) \
    hd_simt_launch(kernel, grid, block, shared_bytes, (cudaStream_t)(stream), params)

/* Bytes of shared memory that a block may ask for on the current device; 0 where CUDA cannot say.
 */
static inline int hd_simt_shared_limit()
{
    int device = 0, bytes = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
            cudaSuccess)
        return 0;
    return bytes;
}

template <class Params>
static cudaError_t hd_simt_launch(void (*kernel)(Params), dim3 grid, dim3 block,
                                  size_t shared_bytes, cudaStream_t stream, Params params)
{
    enum { WITHOUT_ASKING = 48 * 1024 };
    void *arguments[] = {&params};
    if (shared_bytes > WITHOUT_ASKING) {
        cudaError_t error = cudaFuncSetAttribute(
            (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
        if (error != cudaSuccess)
            return error;
    }
    return cudaLaunchKernel((const void *)kernel, grid, block, arguments, shared_bytes, stream);
}

/* The same for a kernel that may begin before the one ahead of it in the stream has ended, and
 * calls hd_grid_wait before it reads what that one writes. From sm_90 on; at most 48 KiB. */
#define HD_LAUNCH_DEPENDENT(kernel, grid, block, shared_bytes, stream, params) \
    hd_simt_launch_dependent(kernel, grid, block, shared_bytes, (cudaStream_t)(stream), params)

template <class Params>
static cudaError_t hd_simt_launch_dependent(void (*kernel)(Params), dim3 grid, dim3 block,
                                            size_t shared_bytes, cudaStream_t stream, Params params)
{
    void *arguments[] = {&params};
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = 1;
    return cudaLaunchKernelExC(&config, (const void *)kernel, arguments);
}

#endif

/* Over the 32 lanes of a warp, in every lane. */
static __device__ inline float hd_warp_max(float value)
{
    for (int lanes = 16; lanes > 0; lanes /= 2)
        value = fmaxf(value, __shfl_xor_sync(~0u, value, lanes));
    return value;
}

static __device__ inline float hd_warp_sum(float value)
{
    for (int lanes = 16; lanes > 0; lanes /= 2)
        value += __shfl_xor_sync(~0u, value, lanes);
    return value;
}

#endif
