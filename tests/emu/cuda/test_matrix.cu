/* cp.async, ldmatrix, stmatrix and mma.sync against plain loops; 16-bit conversions. */
#include "test.h"

struct tile {
    const uint16_t *a, *b; /* 16 x 16 each, rows */
    uint16_t *moved;       /* a, transposed by ldmatrix.trans and put back by stmatrix */
    float *d;              /* a * b */
    int fault;             /* 1: no wait before the first read; 2: misaligned row */
    bool bf16;
};

static __global__ void use_tile(tile p)
{
    HD_SHARED(shared);
    uint16_t *a = (uint16_t *)shared, *b = a + 256;
    int lane = (int)threadIdx.x, at = lane % 16 * 16 + lane / 16 * 8;
    uint32_t ra[4], rb[4], turned[4];
    hd_cp_async_16(a + lane * 8, p.a + lane * 8, 16);
    hd_cp_async_16(b + lane * 8, p.b + lane * 8, 16);
    hd_cp_async_commit();
    if (p.fault != 1)
        hd_cp_async_wait<0>();
    __syncwarp();
    hd_ldmatrix_x4(ra, a + at + (p.fault == 2));
    hd_ldmatrix_x4_trans(rb, b + at);
    hd_ldmatrix_x4_trans(turned, a + lane % 8 * 16 + lane / 16 * 128 + lane / 8 % 2 * 8);
    hd_cp_async_wait<0>();
    float left[4] = {}, right[4] = {};
    const uint32_t low[2] = {rb[0], rb[1]}, high[2] = {rb[2], rb[3]};
    if (p.bf16) {
        hd_mma_bf16(left, ra, low);
        hd_mma_bf16(right, ra, high);
    } else {
        hd_mma_f16(left, ra, low);
        hd_mma_f16(right, ra, high);
    }
    for (int i = 0; i < 4; i++) {
        int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        p.d[row * 16 + column] = left[i];
        p.d[row * 16 + column + 8] = right[i];
    }
    __syncwarp();
    hd_stmatrix_x4(a + at, turned);
    __syncwarp();
    for (int i = lane; i < 256; i += 32)
        p.moved[i] = a[i];
}

static float number(uint16_t bits, bool bf16)
{
    return bf16 ? emu::from_bf16(bits) : emu::from_f16(bits);
}

static void test_tile(bool bf16)
{
    uint16_t *a = array<uint16_t>(256), *b = array<uint16_t>(256);
    for (int i = 0; i < 256; i++) {
        a[i] = (uint16_t)(bf16 ? emu::to_bf16(random_unit()) : emu::to_f16(random_unit()));
        b[i] = (uint16_t)(bf16 ? emu::to_bf16(random_unit()) : emu::to_f16(random_unit()));
    }
    tile p = {a, b, array<uint16_t>(256), array<float>(256), 0, bf16};
    run_kernel("matrix instructions", NULL, use_tile, dim3(1), dim3(32), 1024, p);
    bool turned = true, right = true;
    for (int i = 0; i < 256; i++) {
        double sum = 0;
        for (int k = 0; k < 16; k++)
            sum += (double)number(a[i / 16 * 16 + k], bf16) * number(b[k * 16 + i % 16], bf16);
        right = right && fabs(sum - p.d[i]) < 1e-5;
        turned = turned && p.moved[i] == a[i % 16 * 16 + i / 16];
    }
    expect(right, "mma.sync of fragments from ldmatrix");
    expect(turned, "ldmatrix.trans and stmatrix transpose");
    p.fault = 1;
    if (emu::is_instrumented())
        run_kernel("copies read too early", "race: thread overwrites", use_tile, dim3(1), dim3(32),
                   1024, p);
    p.fault = 2;
    run_kernel("misaligned row", "is not aligned to 16 bytes", use_tile, dim3(1), dim3(32), 1024,
               p);
    p.fault = 0;
    run_kernel("half a warp", "matrix: the warp has only the lanes 0000ffff", use_tile, dim3(1),
               dim3(16), 1024, p);
}

struct fill {
    const uint32_t *in;
    uint32_t *out;
};
static __global__ void fill_up(fill p)
{
    HD_SHARED(shared);
    int x = (int)threadIdx.x;
    hd_cp_async_16(shared + 16 * x, p.in + 4 * x, x);
    hd_cp_async_commit();
    hd_cp_async_wait<0>();
    memcpy(p.out + 4 * x, shared + 16 * x, 16);
}

static void test_zero_fill()
{
    uint32_t *in = array<uint32_t>(64);
    memset(in, 0x5a, 256);
    fill p = {in, array<uint32_t>(64)};
    run_kernel("cp.async of some bytes", NULL, fill_up, dim3(1), dim3(16), 256, p);
    bool good = true;
    for (int i = 0; i < 256; i++)
        good = good && ((uint8_t *)p.out)[i] == (i % 16 < i / 16 ? 0x5a : 0);
    expect(good, "cp.async fills up with zeros");
}

/* All 16-bit patterns come back; halves between neighbours go to the even one. */
static void test_conversions()
{
    bool good = true;
    for (uint32_t bits = 0; bits < 0x7c00; bits++) {
        float x = emu::from_f16(bits), middle = (x + emu::from_f16(bits + 1)) / 2;
        uint32_t even = bits + bits % 2;
        good = good && emu::to_f16(x) == bits && emu::to_f16(-x) == (bits | 0x8000);
        good = good && (bits == 0x7bff || emu::to_f16(middle) == even);
    }
    expect(good, "f16: every number and every midpoint");
    expect(emu::to_f16(65519.9f) == 0x7bff && emu::to_f16(65520) == 0x7c00, "f16: overflow");
    good = true;
    for (uint32_t bits = 0; bits < 0x7f80; bits++) {
        float x = emu::from_bf16(bits), middle = emu_bits<float>(bits << 16 | 0x8000);
        good = good && emu::to_bf16(x) == bits && emu::to_bf16(middle) == bits + bits % 2;
    }
    expect(good, "bf16: every number and every midpoint");
    expect(emu::to_bf16(NAN) == 0x7fff && emu::to_f16(NAN) == 0x7fff, "NaN");
    expect(hd_pack_bf16(1, 2) == 0x40003f80 && hd_pack_f16(1, 2) == 0x40003c00, "packing");
}

int main()
{
    test_tile(true);
    test_tile(false);
    test_zero_fill();
    test_conversions();
    emu::take_failed();
    return test_end("matrix");
}
