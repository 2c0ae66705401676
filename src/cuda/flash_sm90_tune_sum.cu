/* Variants for a tuning run: the reference stays until the row sum shows that it should have moved.
 * sum16 is flash_sm90 itself at head sizes 64 and 128, sum8 at 256. */
#include "flash_sm90_tune.cuh"

HD_VARIANT(sum0, SUM, 0, true, 128, 176, 80)
HD_VARIANT(sum8, SUM, 8, true, 128, 176, 80)
HD_VARIANT(sum16, SUM, 16, true, 128, 176, 80)
HD_VARIANT(sum16_free, SUM, 16, false, 128, 176, 80)
HD_VARIANT(sum16_other, SUM, 16, true, 192, 128, 64)
