/* Register tiles for the matrix unit and AVX-512: flash_body.h says what each means. */
#ifndef HD_TILES_AMX_H
#define HD_TILES_AMX_H

#include "amx.h"
#include "tiles_avx512bf16.h"

#define FLASH_AMX 1

HD_INLINE bool vec_all_equal(vec_t a, vec_t b)
{
    return _mm512_cmpeq_ps_mask(a, b) == 0xffff;
}

#endif
