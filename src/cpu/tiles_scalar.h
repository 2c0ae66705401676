/* Register tiles for portable C: flash_body.h and short_body.h say what each means. */
#ifndef HD_TILES_SCALAR_H
#define HD_TILES_SCALAR_H

#include "vec_scalar.h"

#define FLASH_PAIRS   0
#define FLASH_TILE    2
#define FLASH_VECTORS 8
#define FLASH_KEYS    4
#define FLASH_COLUMNS 4
#define FLASH_NARROW  8

#include "flash_weights.h"

#endif
