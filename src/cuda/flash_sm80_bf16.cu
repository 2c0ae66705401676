/* The kernels of cuda:flash_sm80 for bf16, in a file of their own so that both types compile at
 * once. */
#include "flash_sm80_kernel.cuh"

const sm80_choice_t hd_flash_sm80_bf16[HD_SM80_COUNT] = HD_SM80_CHOICES(true);
