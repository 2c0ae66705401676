/* Register tiles for AVX2: flash_body.h and short_body.h say what each means. */
#ifndef HD_TILES_AVX2_H
#define HD_TILES_AVX2_H

#include "vec_avx2.h"

#define FLASH_PAIRS 0
#define FLASH_TILE  2
#ifndef FLASH_VECTORS
#define FLASH_VECTORS 8
#endif
#define FLASH_KEYS    6
#define FLASH_COLUMNS 6
#define FLASH_NARROW  8

#include "flash_weights.h"

#endif
