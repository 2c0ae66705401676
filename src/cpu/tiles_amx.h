/* Register tiles for the matrix unit and AVX-512: flash_body.h says what each means. */
#ifndef HD_TILES_AMX_H
#define HD_TILES_AMX_H

#include "amx.h"
#include "tiles_avx512bf16.h"

#define FLASH_AMX   1
#define FLASH_CODES 1
#undef FLASH_TILE
#undef FLASH_KEYS
#undef FLASH_COLUMNS
#define FLASH_TILE    2
#define FLASH_KEYS    16
#define FLASH_COLUMNS 16

#endif
