/* Register tiles for AVX-512: flash_body.h and short_body.h say what each means. */
#ifndef HD_TILES_AVX512_H
#define HD_TILES_AVX512_H

#include "vec_avx512.h"

#define FLASH_PAIRS   0
#define FLASH_TILE    4
#define FLASH_VECTORS 4
#define FLASH_KEYS    6
#define FLASH_COLUMNS 6
#define FLASH_NARROW  12

#include "flash_weights.h"

#endif
