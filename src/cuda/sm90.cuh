/* What the kernels for Hopper have in common: bodies that only code for sm_90a has, and the
 * question whether a card is one and would load that code. A card of 9.0 also takes a library
 * without it: its driver compiles the PTX of an older architecture, in which the bodies are empty
 * and would leave the output as it was. */
#ifndef HD_SM90_CUH
#define HD_SM90_CUH

#include "simt.cuh"

#include "cuda.h"

#if defined(HD_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HD_SM90 1
#else
#define HD_SM90 0
#endif

#if !HD_EMULATED
/* Never launched: its launch bound says which code a card would load. A template, so that only
 * files that ask have it. */
template <int>
static __global__ void __launch_bounds__(HD_SM90 ? HD_CUDA_MARK_THREADS : HD_CUDA_MARK_THREADS / 2)
    hd_sm90_mark()
{
}
#endif

/* Whether the card is one of compute capability 9.0 that loads code for sm_90a; 0 with the reason.
 * To be asked last: it may start CUDA on the card. */
static inline int hd_sm90_takes(const heed_device_info_t *device, heed_why_t *why)
{
    if (device->compute_major != 9 || device->compute_minor != 0)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "needs compute capability 9.0: this card has %d.%d",
                              device->compute_major, device->compute_minor);
#if HD_EMULATED
    return 1;
#else
    return hd_cuda_has_mark(device->device, (const void *)hd_sm90_mark<0>, "sm_90a", why);
#endif
}

#endif
