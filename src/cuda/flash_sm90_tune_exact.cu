/* Variants for a tuning run: the largest score is known before each block's exponentials. */
#include "flash_sm90_tune.cuh"

HD_VARIANT(exact0, EXACT, 0, true, 128, 176, 80)
HD_VARIANT(exact0_free, EXACT, 0, false, 128, 176, 80)
