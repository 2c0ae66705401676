/* Warp-wide matrix instructions, lane by lane, and 16-bit floats. */
#include "state.h"

namespace emu
{

/* ---- 16-bit floats --------------------------------------------------------------------------- */

uint32_t to_bf16(float value)
{
    uint32_t bits = emu_bits<uint32_t>(value);
    return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

float from_bf16(uint32_t bits)
{
    return emu_bits<float>(bits << 16);
}

/* Numbers below 2^-14 are multiples of 2^-24; nearbyint rounds to even. */
uint32_t to_f16(float value)
{
    uint32_t bits = emu_bits<uint32_t>(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (value != value)
        return 0x7fff;
    if (rest >= 0x477ff000) /* 65520 and above */
        return sign | 0x7c00;
    if (rest < 0x38800000)
        return sign | (uint32_t)nearbyintf(fabsf(value) * 0x1p24f);
    return sign | (rest + 0xfff + (rest >> 13 & 1) - 0x38000000) >> 13;
}

float from_f16(uint32_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                 : exponent     ? ldexpf((float)(1024 + fraction), exponent - 25)
                                : ldexpf((float)fraction, -24);
    return bits & 0x8000 ? -size : size;
}

/* ---- E4M3: no infinities, NaN is 0x7f -------------------------------------------------------- */

/* Multiples of 2^-9 below 2^-6, four bits of the value above. */
uint32_t to_e4m3(float value)
{
    uint32_t sign = emu_bits<uint32_t>(value) >> 24 & 0x80;
    float size = fabsf(value);
    if (value != value)
        return 0x7f;
    if (size >= 448)
        return sign | 0x7e;
    if (size < 0x1p-6f)
        return sign | (uint32_t)nearbyintf(size * 0x1p9f);
    uint32_t bits = emu_bits<uint32_t>(size);
    return sign | (((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3));
}

float from_e4m3(uint32_t bits)
{
    int exponent = bits >> 3 & 15, fraction = bits & 7;
    float size = (bits & 127) == 127 ? NAN
                 : exponent          ? ldexpf((float)(8 + fraction), exponent - 10)
                                     : ldexpf((float)fraction, -9);
    return bits & 128 ? -size : size;
}

/* ---- ldmatrix, stmatrix ---------------------------------------------------------------------- */

static void need_whole_warp(const void *site)
{
    if (lanes_of_warp() != ~0u)
        fatal(site, "matrix: the warp has only the lanes %08x", lanes_of_warp());
}

static const char *checked_row(const void *row, const void *site)
{
    need_whole_warp(site);
    if ((uintptr_t)row % 16)
        fatal(site, "matrix: row address %p is not aligned to 16 bytes", row);
    shared_offset(row, 16, site);
    return (const char *)row;
}

static uint32_t load_element(const char *at, const void *site)
{
    uint16_t element;
    saw_read(at, 2, site);
    memcpy(&element, at, 2);
    return element;
}

/* Each lane reads what it receives, so that the detector knows who depends on the bytes. */
void load_matrices(uint32_t *registers, const void *row, bool transposed)
{
    const void *site = EMU_SITE;
    const char *mine = checked_row(row, site), *rows[32];
    exchange(~0u, &mine, sizeof(mine), rows);
    int major = m.cur->lane / 4, minor = m.cur->lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
        registers[i] = 0;
        for (int x = 0; x < 2; x++) {
            int line = transposed ? minor + x : major, column = transposed ? major : minor + x;
            registers[i] |= load_element(rows[8 * i + line] + 2 * column, site) << 16 * x;
        }
    }
}

void store_matrices(void *row, const uint32_t *registers)
{
    const void *site = EMU_SITE;
    const char *mine = checked_row(row, site), *rows[32];
    exchange(~0u, &mine, sizeof(mine), rows);
    for (int i = 0; i < 4; i++) {
        char *to = (char *)rows[8 * i + m.cur->lane / 4] + m.cur->lane % 4 * 4;
        saw_write(to, 4, site);
        memcpy(to, &registers[i], 4);
    }
}

/* ---- mma.sync -------------------------------------------------------------------------------- */

struct fragment {
    uint32_t a[4], b[2];
};

static float half_of(uint32_t pair, int which, bool bf16)
{
    uint32_t bits = pair >> 16 * which & 0xffff;
    return bf16 ? from_bf16(bits) : from_f16(bits);
}

/* Products and sums are f32, in the order of k: a device rounds less often, in an order of its own.
 */
void multiply_matrices(float *d, const uint32_t *a, const uint32_t *b, bool bf16)
{
    need_whole_warp(EMU_SITE);
    fragment mine, all[32];
    memcpy(mine.a, a, sizeof(mine.a));
    memcpy(mine.b, b, sizeof(mine.b));
    exchange(~0u, &mine, sizeof(mine), all);
    for (int i = 0; i < 4; i++) {
        int row = m.cur->lane / 4 + 8 * (i / 2), column = m.cur->lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            const fragment &left = all[row % 8 * 4 + k % 8 / 2], &up = all[column * 4 + k % 8 / 2];
            d[i] += half_of(left.a[row / 8 + k / 8 * 2], k % 2, bf16) *
                    half_of(up.b[k / 8], k % 2, bf16);
        }
    }
    m.res.tensor_macs += m.cur->lane == 0 ? 16 * 8 * 16 : 0;
}

} // namespace emu
