/* heed-check-cuda: the CUDA kernels, compiled for the emulator, through the checker. */
#include "emulated.h"

extern "C" {
#include "loop.h"
}

int main(int argc, char **argv)
{
    const heed_impl_t *const *impls = emulated_impls();
    return impls ? kit_loop_main(argc, argv, impls) : 1;
}
