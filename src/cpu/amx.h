/* The matrix unit: eight tiles of up to 16 rows of 64 bytes. The instruction set has no names for
 * what they hold; here tiles 0 to 3 are sums, 4 and 5 left operands, 6 and 7 right ones.
 *
 *     sum[i][j] += left[i][2k] right[k][2j] + left[i][2k+1] right[k][2j+1]      bf16, k = 0 .. 15
 *
 * A thread sets them up with amx_begin and lets them go with amx_end. The compilers' intrinsics do
 * not say that they touch memory: these do. */
#ifndef HD_AMX_H
#define HD_AMX_H

#include "vec.h"

enum { AMX_ROWS = 16, AMX_ROW_BYTES = 64, AMX_TILE_BYTES = 1024, AMX_PAIRS = 16 };

/* How a tile is laid out, as LDTILECFG reads it (Intel SDM volume 1, 18.3). */
typedef struct amx_config {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} amx_config_t;

/* Sums and left operands of `rows` rows, right operands of 16. */
static inline amx_config_t amx_config(int rows)
{
    amx_config_t config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.bytes[t] = AMX_ROW_BYTES;
        config.rows[t] = (uint8_t)(t < 6 ? rows : AMX_ROWS);
    }
    return config;
}

#if defined(HD_EMULATED)
#include "amx_emu.h"
#else

/* Tile numbers have to be literals. */
#define amx_zero(tile) __asm__ volatile("tilezero %%tmm" #tile ::)
#define amx_load(tile, from, stride)                                                 \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"((const void *)(from)), \
                     "r"((int64_t)(stride))                                          \
                     : "memory")
#define amx_store(tile, to, stride)                                              \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"((void *)(to)), \
                     "r"((int64_t)(stride))                                      \
                     : "memory")
#define amx_dot(sum, left, right) \
    __asm__ volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sum ::)

HD_INLINE void amx_begin(const amx_config_t *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*config));
}

HD_INLINE void amx_end(void)
{
    __asm__ volatile("tilerelease" ::);
}

#endif

#endif
