/* Magnitudes of f32 where encoding into a format changes its way. */
#ifndef HD_CAST_LIMITS_H
#define HD_CAST_LIMITS_H

#include "../common/casting.h"

/* The bits of f32 magnitudes that matter to a type: its largest, the first that rounds beyond, the
 * last that rounds to 0. To nearest. */
typedef struct cast_limits {
    uint32_t largest, beyond, zero;
} cast_limits_t;

static inline cast_limits_t cast_limits(heed_dtype_t dtype)
{
    const cast_limits_t e4m3 = {0x43e00000, 0x43e80001, 0x3a800000};
    const cast_limits_t e5m2 = {0x47600000, 0x47700000, 0x37000000};
    const cast_limits_t e4m3ieee = {0x43700000, 0x43780000, 0x3a800000};
    const cast_limits_t e4m3fnuz = {0x43700000, 0x43780000, 0x3a000000};
    const cast_limits_t e5m2fnuz = {0x47600000, 0x47700000, 0x36800000};
    const cast_limits_t f16 = {0x477fe000, 0x477ff000, 0x33000000};
    const cast_limits_t bf16 = {0x7f7f0000, 0x7f7f8000, 0x00008000};
    const cast_limits_t f32 = {0x7f7fffff, 0x7f800000, 0};
    return dtype == HEED_E4M3       ? e4m3
           : dtype == HEED_E5M2     ? e5m2
           : dtype == HEED_E4M3IEEE ? e4m3ieee
           : dtype == HEED_E4M3FNUZ ? e4m3fnuz
           : dtype == HEED_E5M2FNUZ ? e5m2fnuz
           : dtype == HEED_F16      ? f16
           : dtype == HEED_BF16     ? bf16
                                    : f32;
}

#endif
