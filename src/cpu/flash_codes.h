/* The values of all codes of the types of one byte that keys and values are stored in. Tables, for
 * they are exact whatever the caller's floating-point environment does with subnormal numbers. */
#ifndef HD_FLASH_CODES_H
#define HD_FLASH_CODES_H

#include "vec.h"

#include <math.h>

#define HD_CODE_SIGN(c)  ((c)&0x80 ? -1.0f : 1.0f)
#define HD_CODE_POWER(e) ((e) < 16 ? (float)(1u << ((e)&15)) : 65536.0f * (float)(1u << ((e)&15)))
#define HD_CODE_E4M3_(c, e, m) \
    ((e) ? (float)(8 + (m)) * HD_CODE_POWER(e) * 0x1p-10f : (float)(m)*0x1p-9f)
#define HD_CODE_E5M2_(c, e, m) \
    ((e) ? (float)(4 + (m)) * HD_CODE_POWER(e) * 0x1p-17f : (float)(m)*0x1p-16f)
#define HD_CODE_E4M3(c) \
    (((c)&0x7f) == 0x7f ? NAN : HD_CODE_SIGN(c) * HD_CODE_E4M3_(c, (c) >> 3 & 15, (c)&7))
#define HD_CODE_E5M2(c)                                \
    (((c)&0x7f) > 0x7c    ? NAN                        \
     : ((c)&0x7f) == 0x7c ? HD_CODE_SIGN(c) * INFINITY \
                          : HD_CODE_SIGN(c) * HD_CODE_E5M2_(c, (c) >> 2 & 31, (c)&3))
#define HD_CODE_I8(c) ((float)((c) < 128 ? (c) : (c)-256))

#define HD_CODES4(f, c) f(c), f((c) + 1), f((c) + 2), f((c) + 3)
#define HD_CODES16(f, c) \
    HD_CODES4(f, c), HD_CODES4(f, (c) + 4), HD_CODES4(f, (c) + 8), HD_CODES4(f, (c) + 12)
#define HD_CODES64(f, c) \
    HD_CODES16(f, c), HD_CODES16(f, (c) + 16), HD_CODES16(f, (c) + 32), HD_CODES16(f, (c) + 48)
#define HD_CODES256(f) HD_CODES64(f, 0), HD_CODES64(f, 64), HD_CODES64(f, 128), HD_CODES64(f, 192)

static const float flash_e4m3[256] = {HD_CODES256(HD_CODE_E4M3)};
static const float flash_e5m2[256] = {HD_CODES256(HD_CODE_E5M2)};
static const float flash_i8[256] = {HD_CODES256(HD_CODE_I8)};

/* NULL: the type has more than 256 codes. */
static inline const float *flash_codes(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3   ? flash_e4m3
           : dtype == HEED_E5M2 ? flash_e5m2
           : dtype == HEED_I8   ? flash_i8
                                : NULL;
}

#endif
