/* The FP8 definition against the host functions of NVIDIA's cuda_fp8.h: every f16 and bf16 number,
 * every upper half of f32 with lower halves around its ties, every midpoint of codes with its
 * neighbours, both formats, saturating and not; and every code decoded. Compiled by a C++ compiler
 * where the toolkit's header is installed; no card is needed. With an argument the definition is
 * broken on purpose, by number, and the comparison must fail. */
#include <cuda_fp8.h>

#include "element.h"
#include "exact.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

static int broken;
static long compared, wrong;

static float number(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint8_t ours(heed_dtype_t dtype, uint32_t bits, bool saturate)
{
    const hd_fp8_rule_t rule = {saturate ? HEED_OVERFLOW_SATURATE : HEED_OVERFLOW_NOSAT,
                                broken == 1 ? HEED_NAN_SIGNED : HEED_NAN_POSITIVE,
                                broken == 2 ? HEED_ROUND_ZERO : HEED_ROUND_NEAREST};
    if (broken == 3 && saturate)
        return hd_fp8_encode(hd_fp8_format(dtype), bits, {HEED_OVERFLOW_FINITE, 0, 0}, 0);
    return hd_fp8_encode(hd_fp8_format(dtype), bits, rule, 0);
}

static void judge(const char *what, uint32_t bits, unsigned got, unsigned want)
{
    compared++;
    if (got != want && wrong++ < 5)
        printf("%s of 0x%08x: 0x%02x, but cuda_fp8.h has 0x%02x\n", what, bits, got, want);
}

static const struct {
    heed_dtype_t dtype;
    __nv_fp8_interpretation_t theirs;
} formats[] = {{HEED_E4M3, __NV_E4M3}, {HEED_E5M2, __NV_E5M2}};

static void one_f32(uint32_t bits)
{
    for (const auto &format : formats)
        for (int saturate = 0; saturate < 2; saturate++)
            judge("f32", bits, ours(format.dtype, bits, saturate),
                  __nv_cvt_float_to_fp8(number(bits), saturate ? __NV_SATFINITE : __NV_NOSAT,
                                        format.theirs));
}

static void halves()
{
    static const uint32_t lower[] = {0, 1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
    for (uint32_t upper = 0; upper < 65536; upper++) {
        for (uint32_t low : lower)
            one_f32(upper << 16 | low);
        const __nv_bfloat16_raw bf16 = {(unsigned short)upper};
        const __half_raw f16 = {(unsigned short)upper};
        for (const auto &format : formats)
            for (int saturate = 0; saturate < 2; saturate++) {
                const auto mode = saturate ? __NV_SATFINITE : __NV_NOSAT;
                judge("bf16", upper, ours(format.dtype, upper << 16, saturate),
                      __nv_cvt_bfloat16raw_to_fp8(bf16, mode, format.theirs));
                judge("f16", upper, ours(format.dtype, hd_to_bits(hd_f16_to_f32((uint16_t)upper)),
                                         saturate),
                      __nv_cvt_halfraw_to_fp8(f16, mode, format.theirs));
            }
    }
}

static void midpoints()
{
    for (const auto &format : formats)
        for (int code = 0; code < 255; code++) {
            const hd_fp8_t f = hd_fp8_format(format.dtype);
            const float low = number(hd_fp8_decode(f, (uint8_t)code));
            const float high = number(hd_fp8_decode(f, (uint8_t)(code + 1)));
            const float points[] = {low, (low + high) / 2};
            for (float point : points)
                for (uint32_t aside = 0; aside < 7; aside++)
                    one_f32(hd_to_bits(point) + aside - 3);
        }
}

/* All numbers alike; what a NaN looks like, docs/fp8.md says. */
static void codes()
{
    for (const auto &format : formats)
        for (int code = 0; code < 256; code++) {
            const float got = number(hd_fp8_decode(hd_fp8_format(format.dtype),
                                                   (uint8_t)(broken == 4 ? code ^ 1 : code)));
            const __half_raw half = __nv_cvt_fp8_to_halfraw((__nv_fp8_storage_t)code, format.theirs);
            const float want = hd_f16_to_f32(half.x);
            const bool same = got != got ? want != want : got == want;
            judge("code", (uint32_t)code, same, true);
        }
}

int main(int argc, char **argv)
{
    broken = argc > 1 ? atoi(argv[1]) : 0;
    halves();
    midpoints();
    codes();
    printf("%ld comparisons, %ld wrong\n", compared, wrong);
    return wrong != 0;
}
