/* The language of CUDA kernels for a C++ compiler: a .cu file that includes this header in place of
 * the toolkit's is compiled by g++ or clang++ and runs in the emulator (emu.h).
 *
 * src/cuda/simt.cuh includes it under HD_EMULATED and hides what differs behind two macros, which a
 * kernel's file must use:
 *
 *     HD_SHARED(name)    unsigned char *name, the block's shared memory; on a device
 *                        extern __shared__ __align__(1024) unsigned char name[];
 *                        here unsigned char *name = emu_shared();
 *     HD_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)
 *                        on a device kernel<<<grid, block, shared_bytes, stream>>>(...)
 *                        here emu_launch(kernel, grid, block, shared_bytes, stream, ...)
 *
 * Static __shared__ variables do not exist here: the word is left undefined, so that using one does
 * not compile. */
#ifndef HEED_SIMT_EMU_H
#define HEED_SIMT_EMU_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

#define EMU_VECTORS(type, scalar)                                         \
    struct __align__(2 * sizeof(scalar)) type##2                          \
    {                                                                     \
        scalar x, y;                                                      \
    };                                                                    \
    struct __align__(16) type##4                                          \
    {                                                                     \
        scalar x, y, z, w;                                                \
    };                                                                    \
    inline type##2 make_##type##2(scalar x, scalar y)                     \
    {                                                                     \
        return {x, y};                                                    \
    }                                                                     \
    inline type##4 make_##type##4(scalar x, scalar y, scalar z, scalar w) \
    {                                                                     \
        return {x, y, z, w};                                              \
    }
EMU_VECTORS(float, float)
EMU_VECTORS(int, int)
EMU_VECTORS(uint, unsigned)

#include "emu.h"

/* ---- the host's side ------------------------------------------------------------------------- */

typedef void *cudaStream_t;
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorLaunchFailure = 719 };

/* Whether the launches since the last call went well; the messages stay with the emulator. */
inline cudaError_t cudaGetLastError()
{
    return emu::take_failed() ? cudaErrorLaunchFailure : cudaSuccess;
}
inline const char *cudaGetErrorString(cudaError_t error)
{
    return error ? "the emulator found a fault" : "no error";
}

/* Every thread gets its own copies of the arguments, as on a device. */
template <class... Parameters, class... Arguments>
static emu::result emu_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                              size_t shared_bytes, cudaStream_t, Arguments... arguments)
{
    auto thread = [=] { kernel(arguments...); };
    auto call = [](void *closure) { (*(decltype(thread) *)closure)(); };
    return emu::launch(grid, block, shared_bytes, call, &thread);
}
inline unsigned char *emu_shared()
{
    return (unsigned char *)emu::shared();
}

/* ---- where a thread is ----------------------------------------------------------------------- */

#define threadIdx (emu::here().thread)
#define blockIdx  (emu::here().block)
#define blockDim  (emu::here().block_dim)
#define gridDim   (emu::here().grid_dim)
enum { warpSize = 32 };

/* ---- barriers, fences, votes, shuffles ------------------------------------------------------- */

inline void __syncthreads()
{
    emu::barrier(0, (int)(blockDim.x * blockDim.y * blockDim.z), true);
}
inline void __syncwarp(unsigned mask = ~0u)
{
    emu::sync_warp(mask);
}
inline void __threadfence()
{
    emu::fence_memory();
}
inline void __threadfence_block()
{
    emu::fence_memory();
}
inline void __threadfence_system()
{
    emu::fence_memory();
}
inline void __nanosleep(unsigned)
{
    emu::relax();
}

/* The value of lane `source`; its own where that lane is outside the segment. */
template <class T> inline T emu_shuffle(unsigned mask, T value, int source, bool inside)
{
    T all[32];
    emu::exchange(mask, &value, sizeof(value), all);
    if (inside && !(mask >> source & 1))
        emu::fault("shuffle: reads lane %d, which is not in mask %08x", source, mask);
    return inside ? all[source] : value;
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32)
{
    int first = emu::lane() & -width;
    return emu_shuffle(mask, value, first + (source & (width - 1)), true);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32)
{
    int source = emu::lane() ^ lanes;
    /* Segments below the own one may be read, those above may not. */
    return emu_shuffle(mask, value, source & 31, source < (emu::lane() & -width) + width);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    int source = emu::lane() - (int)by;
    return emu_shuffle(mask, value, source & 31, source >= (emu::lane() & -width));
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32)
{
    int source = emu::lane() + (int)by;
    return emu_shuffle(mask, value, source & 31, source < (emu::lane() & -width) + width);
}

inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    int all[32];
    unsigned result = 0;
    emu::exchange(mask, &predicate, sizeof(predicate), all);
    for (int i = 0; i < 32; i++)
        result |= (unsigned)((mask >> i & 1) && all[i]) << i;
    return result;
}
inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) == mask;
}
inline unsigned __activemask()
{
    return emu::lanes_of_warp();
}

/* ---- atomics --------------------------------------------------------------------------------- */

/* Fibers only switch inside calls of the emulator, so that a plain update is atomic; the access is
 * reported as one, and orders the thread after earlier atomics on the same place. */
template <class T, class Update> inline T emu_atomic(T *at, Update update)
{
    emu::atomic(at, sizeof(T));
    T old, next;
    emu::copy(&old, at, sizeof(T));
    next = update(old);
    emu::copy(at, &next, sizeof(T));
    return old;
}
template <class T> struct emu_same {
    using type = T;
};
/* The value takes the type of the place, as with the toolkit's overloads. */
#define EMU_ATOMIC(name, result)                                              \
    template <class T> inline T name(T *at, typename emu_same<T>::type value) \
    {                                                                         \
        return emu_atomic(at, [=](T old) { return (T)(result); });            \
    }
EMU_ATOMIC(atomicAdd, old + value)
EMU_ATOMIC(atomicSub, old - value)
EMU_ATOMIC(atomicMax, old > value ? old : value)
EMU_ATOMIC(atomicMin, old < value ? old : value)
EMU_ATOMIC(atomicOr, old | value)
EMU_ATOMIC(atomicAnd, old &value)
EMU_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
template <class T> inline T atomicExch(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T) { return value; });
}
template <class T>
inline T atomicCAS(T *at, typename emu_same<T>::type expected, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return old == expected ? value : old; });
}

#include "math_emu.h"

#endif
