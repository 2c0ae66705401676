/* Variants for a tuning run: the reference stays until a score lies far above it. bound0 is the
 * plain one: no polynomial, no maximum in floating point, 4.8 instructions a score element at head
 * size 128. */
#include "flash_sm90_tune.cuh"

HD_VARIANT(bound0, BOUND, 0, true, 128, 176, 80)
HD_VARIANT(bound8, BOUND, 8, true, 128, 176, 80)
HD_VARIANT(bound16, BOUND, 16, true, 128, 176, 80)
HD_VARIANT(bound0_free, BOUND, 0, false, 128, 176, 80)
