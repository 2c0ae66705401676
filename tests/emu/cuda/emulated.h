/* The CUDA kernels as implementations that run on the CPU, in the emulator. */
#ifndef HEED_EMULATED_H
#define HEED_EMULATED_H

#include <heed/heed.h>

namespace emu
{
/* Multiply-adds of tensor cores in all launches since this was last asked. */
uint64_t take_macs();
} // namespace emu

/* cuda:NAME as cpu:emulated_cuda_NAME, NULL at the end; NULL where they lack something, which is
 * then on stderr. */
const heed_impl_t *const *emulated_impls();

#endif
