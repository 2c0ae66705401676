/* The matrix unit on any machine, for src/cpu/amx.h: eight tiles of a thread, and what the
 * operation sections of Intel's Software Developer's Manual say of the instructions. TDPBF16PS sums
 * even and odd products apart, each fused and rounded to nearest even, then adds both to what was
 * there; it reads subnormal numbers as zero and flushes subnormal results. Rows and bytes beyond
 * those that are set up are zero after a load, and a set-up clears every tile. */
#ifndef AMX_EMU_H
#define AMX_EMU_H

typedef struct emu_tiles {
    amx_config_t config;
    uint8_t row[8][16][64];
} emu_tiles_t;

static _Thread_local emu_tiles_t emu_tiles;

static inline void amx_begin(const amx_config_t *config)
{
    memset(&emu_tiles, 0, sizeof(emu_tiles));
    emu_tiles.config = *config;
}

static inline void amx_end(void)
{
    memset(&emu_tiles, 0, sizeof(emu_tiles));
}

static inline void amx_zero(int tile)
{
    memset(emu_tiles.row[tile], 0, sizeof(emu_tiles.row[tile]));
}

static inline void amx_load(int tile, const void *from, int64_t stride)
{
    const char *at = from;
    amx_zero(tile);
    for (int i = 0; i < emu_tiles.config.rows[tile]; i++)
        memcpy(emu_tiles.row[tile][i], at + i * stride, emu_tiles.config.bytes[tile]);
}

static inline void amx_store(int tile, void *to, int64_t stride)
{
    char *at = to;
    for (int i = 0; i < emu_tiles.config.rows[tile]; i++)
        memcpy(at + i * stride, emu_tiles.row[tile][i], emu_tiles.config.bytes[tile]);
}

static inline float emu_tile_bf16(const uint8_t *row, int element)
{
    uint16_t bits;
    memcpy(&bits, row + element * 2, sizeof(bits));
    return emu_flush(emu_float((uint32_t)bits << 16));
}

static inline void amx_dot(int sum, int left, int right)
{
    int depth = emu_tiles.config.bytes[left] / 4, columns = emu_tiles.config.bytes[sum] / 4;
    for (int i = 0; i < emu_tiles.config.rows[sum]; i++)
        for (int j = 0; j < columns; j++) {
            float value, part[2] = {0, 0};
            uint8_t *at = emu_tiles.row[sum][i] + j * 4;
            for (int k = 0; k < depth; k++) {
                const uint8_t *a = emu_tiles.row[left][i] + k * 4;
                const uint8_t *b = emu_tiles.row[right][k] + j * 4;
                for (int half = 0; half < 2; half++)
                    part[half] = emu_flush(
                        __builtin_fmaf(emu_tile_bf16(a, half), emu_tile_bf16(b, half), part[half]));
            }
            memcpy(&value, at, sizeof(value));
            value = emu_flush(emu_flush(value) + emu_flush(part[0] + part[1]));
            memcpy(at, &value, sizeof(value));
        }
}

#endif
