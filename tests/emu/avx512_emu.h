/* AVX-512 on any machine: SIMDe for nearly all of it, and here, lane by lane, what SIMDe (0.7.4 to
 * 0.7.6) lacks or does otherwise than the manual. Put before a kernel's source with -include.
 *
 * The bf16 instructions follow the operation sections of Intel's Software Developer's Manual:
 * VDPBF16PS adds the odd product first, then the even one, each fused and rounded to nearest even,
 * reads subnormal numbers as zero and flushes subnormal results; SIMDe does neither. Masked loads
 * and stores do not touch the memory of lanes that are off. */
#ifndef EMU_AVX512_H
#define EMU_AVX512_H

/* All callers of a function that takes such vectors are compiled without AVX-512, like the
 * function. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

#include <stdint.h>
#include <string.h>

#define EMU_INLINE static inline __attribute__((always_inline))

/* The lanes of a vector as an array of TYPE, and back. */
#define EMU_LANES(type, name, vector)         \
    type name[sizeof(vector) / sizeof(type)]; \
    memcpy(name, &(vector), sizeof(name))
#define EMU_VECTOR(vector_type, name, lanes) \
    vector_type name;                        \
    memcpy(&name, lanes, sizeof(name))

EMU_INLINE float emu_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

EMU_INLINE uint32_t emu_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* ---- bf16 ------------------------------------------------------------------------------------ */

/* A subnormal number as the zero of its sign. */
EMU_INLINE float emu_flush(float value)
{
    uint32_t bits = emu_bits(value);
    return emu_float(bits & 0x7f800000 ? bits : bits & 0x80000000);
}

EMU_INLINE uint16_t emu_to_bf16(float value)
{
    uint32_t bits = emu_bits(value), rounded = bits + 0x7fff + (bits >> 16 & 1);
    uint32_t magnitude = bits & 0x7fffffff;
    rounded = magnitude > 0x7f800000 ? bits | 0x400000 : rounded;
    rounded = magnitude < 0x00800000 ? bits & 0x80000000 : rounded;
    return (uint16_t)(rounded >> 16);
}

#define EMU_DOT(name, lanes, vector, pairs)                                       \
    EMU_INLINE vector name(vector sum, pairs x, pairs y)                          \
    {                                                                             \
        EMU_LANES(float, s, sum);                                                 \
        EMU_LANES(uint32_t, a, x);                                                \
        EMU_LANES(uint32_t, b, y);                                                \
        for (int i = 0; i < lanes; i++) {                                         \
            float odd_a = emu_flush(emu_float(a[i] & 0xffff0000));                \
            float odd_b = emu_flush(emu_float(b[i] & 0xffff0000));                \
            float even_a = emu_flush(emu_float(a[i] << 16));                      \
            float even_b = emu_flush(emu_float(b[i] << 16));                      \
            float odd = emu_flush(__builtin_fmaf(odd_a, odd_b, emu_flush(s[i]))); \
            s[i] = emu_flush(__builtin_fmaf(even_a, even_b, odd));                \
        }                                                                         \
        EMU_VECTOR(vector, result, s);                                            \
        return result;                                                            \
    }
EMU_DOT(emu_dot_512, 16, simde__m512, simde__m512bh)
EMU_DOT(emu_dot_256, 8, simde__m256, simde__m256bh)

EMU_INLINE simde__m256bh emu_to_bf16_512(simde__m512 x)
{
    EMU_LANES(float, from, x);
    uint16_t to[16];
    for (int i = 0; i < 16; i++)
        to[i] = emu_to_bf16(from[i]);
    EMU_VECTOR(simde__m256bh, result, to);
    return result;
}

/* The second argument fills the lower half. */
EMU_INLINE simde__m512bh emu_two_to_bf16_512(simde__m512 high, simde__m512 low)
{
    EMU_LANES(float, upper, high);
    EMU_LANES(float, lower, low);
    uint16_t to[32];
    for (int i = 0; i < 16; i++) {
        to[i] = emu_to_bf16(lower[i]);
        to[i + 16] = emu_to_bf16(upper[i]);
    }
    EMU_VECTOR(simde__m512bh, result, to);
    return result;
}

#undef _mm512_dpbf16_ps
#define _mm512_dpbf16_ps(sum, a, b) emu_dot_512(sum, a, b)
#undef _mm256_dpbf16_ps
#define _mm256_dpbf16_ps(sum, a, b) emu_dot_256(sum, a, b)
#undef _mm512_cvtneps_pbh
#define _mm512_cvtneps_pbh(x) emu_to_bf16_512(x)
#undef _mm512_cvtne2ps_pbh
#define _mm512_cvtne2ps_pbh(high, low) emu_two_to_bf16_512(high, low)

/* ---- f16 ------------------------------------------------------------------------------------- */

EMU_INLINE simde__m512 emu_from_f16(simde__m256i x)
{
    simde__m128i half[2];
    simde__m256 wide[2];
    memcpy(half, &x, sizeof(x));
    wide[0] = simde_mm256_cvtph_ps(half[0]);
    wide[1] = simde_mm256_cvtph_ps(half[1]);
    EMU_VECTOR(simde__m512, result, wide);
    return result;
}

/* To nearest even, the only rounding that is asked for. */
EMU_INLINE simde__m256i emu_to_f16(simde__m512 x)
{
    simde__m256 wide[2];
    simde__m128i half[2];
    memcpy(wide, &x, sizeof(x));
    half[0] = simde_mm256_cvtps_ph(wide[0], 0);
    half[1] = simde_mm256_cvtps_ph(wide[1], 0);
    EMU_VECTOR(simde__m256i, result, half);
    return result;
}

#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(x) emu_from_f16(x)
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph(x, rounding) emu_to_f16(x)

/* ---- integers of other widths ---------------------------------------------------------------- */

EMU_INLINE simde__m512i emu_widen(simde__m256i x)
{
    EMU_LANES(uint16_t, from, x);
    uint32_t to[16];
    for (int i = 0; i < 16; i++)
        to[i] = from[i];
    EMU_VECTOR(simde__m512i, result, to);
    return result;
}

EMU_INLINE simde__m256i emu_narrow(simde__m512i x)
{
    EMU_LANES(uint32_t, from, x);
    uint16_t to[16];
    for (int i = 0; i < 16; i++)
        to[i] = (uint16_t)from[i];
    EMU_VECTOR(simde__m256i, result, to);
    return result;
}

#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32(x) emu_widen(x)
#undef _mm512_cvtepi32_epi16
#define _mm512_cvtepi32_epi16(x) emu_narrow(x)

/* ---- moving lanes ---------------------------------------------------------------------------- */

/* Two blocks of 128 bits of a, then two of b. */
EMU_INLINE simde__m512 emu_shuffle_blocks(simde__m512 a, simde__m512 b, int which)
{
    EMU_LANES(float, x, a);
    EMU_LANES(float, y, b);
    float to[16];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            to[4 * i + j] = (i < 2 ? x : y)[4 * (which >> 2 * i & 3) + j];
    EMU_VECTOR(simde__m512, result, to);
    return result;
}

EMU_INLINE simde__m512 emu_permute(simde__m512 a, int which)
{
    EMU_LANES(float, x, a);
    float to[16];
    for (int i = 0; i < 16; i++)
        to[i] = x[i / 4 * 4 + (which >> 2 * (i % 4) & 3)];
    EMU_VECTOR(simde__m512, result, to);
    return result;
}

#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4(a, b, which) emu_shuffle_blocks(a, b, which)
#undef _mm512_permute_ps
#define _mm512_permute_ps(a, which) emu_permute(a, which)
#undef _mm512_shuffle_epi32
#define _mm512_shuffle_epi32(a, which) \
    simde_mm512_castps_si512(emu_permute(simde_mm512_castsi512_ps(a), (int)(which)))

/* ---- one number of a vector ------------------------------------------------------------------ */

/* Halves are folded onto each other, as compilers expand these. */
#define EMU_REDUCE(name, combine)                  \
    EMU_INLINE float name(simde__m512 x)           \
    {                                              \
        EMU_LANES(float, a, x);                    \
        for (int half = 8; half; half /= 2)        \
            for (int i = 0; i < half; i++)         \
                a[i] = combine(a[i], a[i + half]); \
        return a[0];                               \
    }
#define EMU_ADD(a, b) ((a) + (b))
#define EMU_MAX(a, b) ((a) > (b) ? (a) : (b))
EMU_REDUCE(emu_reduce_add, EMU_ADD)
EMU_REDUCE(emu_reduce_max, EMU_MAX)

#undef _mm512_reduce_add_ps
#define _mm512_reduce_add_ps(x) emu_reduce_add(x)
#undef _mm512_reduce_max_ps
#define _mm512_reduce_max_ps(x) emu_reduce_max(x)

/* ---- comparing ------------------------------------------------------------------------------- */

EMU_INLINE uint32_t emu_above_16(simde__m512i x, simde__m512i y)
{
    EMU_LANES(int16_t, a, x);
    EMU_LANES(int16_t, b, y);
    uint32_t mask = 0;
    for (int i = 0; i < 32; i++)
        mask |= (uint32_t)(a[i] > b[i]) << i;
    return mask;
}

#undef _mm512_cmpgt_epi16_mask
#define _mm512_cmpgt_epi16_mask(a, b) emu_above_16(a, b)

/* ---- stores past the caches: stores ---------------------------------------------------------- */

#undef _mm512_stream_si512
#define _mm512_stream_si512(at, x) memcpy(at, &(x), sizeof(x))

/* ---- small integers -------------------------------------------------------------------------- */

EMU_INLINE simde__mmask32 emu_equal_epi16(simde__m512i x, simde__m512i y)
{
    EMU_LANES(uint16_t, a, x);
    EMU_LANES(uint16_t, b, y);
    uint32_t mask = 0;
    for (int i = 0; i < 32; i++)
        mask |= (uint32_t)(a[i] == b[i]) << i;
    return mask;
}

EMU_INLINE simde__m512i emu_from_epi8(simde__m128i x)
{
    EMU_LANES(int8_t, from, x);
    int32_t to[16];
    for (int i = 0; i < 16; i++)
        to[i] = from[i];
    EMU_VECTOR(simde__m512i, result, to);
    return result;
}

EMU_INLINE simde__m512 emu_int_to_float(simde__m512i x)
{
    EMU_LANES(int32_t, from, x);
    float to[16];
    for (int i = 0; i < 16; i++)
        to[i] = (float)from[i];
    EMU_VECTOR(simde__m512, result, to);
    return result;
}

#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(x) emu_int_to_float(x)
#undef _mm512_cmpeq_epi16_mask
#define _mm512_cmpeq_epi16_mask(x, y) emu_equal_epi16(x, y)
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32(x) emu_from_epi8(x)

/* ---- powers of two --------------------------------------------------------------------------- */

/* x less its floor (immediate 9: towards -inf, to whole numbers), 0 of an infinity. */
EMU_INLINE simde__m512 emu_reduce(simde__m512 x)
{
    EMU_LANES(float, lane, x);
    for (int i = 0; i < 16; i++)
        lane[i] = __builtin_isinf(lane[i]) ? 0 : lane[i] - __builtin_floorf(lane[i]);
    EMU_VECTOR(simde__m512, result, lane);
    return result;
}

/* a 2^floor(b) */
EMU_INLINE simde__m512 emu_scalef(simde__m512 a, simde__m512 b)
{
    EMU_LANES(float, value, a);
    EMU_LANES(float, power, b);
    for (int i = 0; i < 16; i++) {
        float whole = __builtin_floorf(power[i]);
        whole = whole > 1000 ? 1000 : whole < -1000 ? -1000 : whole;
        value[i] = power[i] != power[i] ? power[i] : __builtin_ldexpf(value[i], (int)whole);
    }
    EMU_VECTOR(simde__m512, result, value);
    return result;
}

/* Word i of the result: word index[i] of x where bit i of the mask is set, else word i of other. */
EMU_INLINE simde__m512i emu_mask_permute_words(simde__m512i other, uint32_t mask,
                                               simde__m512i index, simde__m512i x)
{
    EMU_LANES(uint16_t, to, other);
    EMU_LANES(uint16_t, at, index);
    EMU_LANES(uint16_t, from, x);
    for (int i = 0; i < 32; i++)
        to[i] = mask >> i & 1 ? from[at[i] & 31] : to[i];
    EMU_VECTOR(simde__m512i, result, to);
    return result;
}

#undef _mm512_reduce_ps
#define _mm512_reduce_ps(x, immediate) emu_reduce(x)
#undef _mm512_scalef_ps
#define _mm512_scalef_ps(a, b) emu_scalef(a, b)
#undef _mm512_mask_permutexvar_epi16
#define _mm512_mask_permutexvar_epi16(other, mask, index, x) \
    emu_mask_permute_words(other, mask, index, x)

/* ---- masked memory --------------------------------------------------------------------------- */

#define EMU_MASKED(bits, element, vector)                                                \
    EMU_INLINE vector emu_load_##vector##_##bits(uint64_t mask, const void *at)          \
    {                                                                                    \
        element to[sizeof(vector) / sizeof(element)] = {0};                              \
        for (size_t i = 0; i < sizeof(vector) / sizeof(element); i++)                    \
            if (mask >> i & 1)                                                           \
                memcpy(&to[i], (const char *)at + i * sizeof(element), sizeof(element)); \
        EMU_VECTOR(vector, result, to);                                                  \
        return result;                                                                   \
    }                                                                                    \
    EMU_INLINE void emu_store_##vector##_##bits(void *at, uint64_t mask, vector x)       \
    {                                                                                    \
        EMU_LANES(element, from, x);                                                     \
        for (size_t i = 0; i < sizeof(vector) / sizeof(element); i++)                    \
            if (mask >> i & 1)                                                           \
                memcpy((char *)at + i * sizeof(element), &from[i], sizeof(element));     \
    }
EMU_MASKED(32, uint32_t, simde__m512)
EMU_MASKED(32, uint32_t, simde__m512i)
EMU_MASKED(16, uint16_t, simde__m512i)
EMU_MASKED(32, uint32_t, simde__m256i)
EMU_MASKED(16, uint16_t, simde__m256i)

#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps(mask, at) emu_load_simde__m512_32(mask, at)
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps(at, mask, x) emu_store_simde__m512_32(at, mask, x)
#undef _mm512_maskz_loadu_epi32
#define _mm512_maskz_loadu_epi32(mask, at) emu_load_simde__m512i_32(mask, at)
#undef _mm512_mask_storeu_epi32
#define _mm512_mask_storeu_epi32(at, mask, x) emu_store_simde__m512i_32(at, mask, x)
#undef _mm512_maskz_loadu_epi16
#define _mm512_maskz_loadu_epi16(mask, at) emu_load_simde__m512i_16(mask, at)
#undef _mm512_mask_storeu_epi16
#define _mm512_mask_storeu_epi16(at, mask, x) emu_store_simde__m512i_16(at, mask, x)
#undef _mm256_maskz_loadu_epi32
#define _mm256_maskz_loadu_epi32(mask, at) emu_load_simde__m256i_32(mask, at)
#undef _mm256_mask_storeu_epi32
#define _mm256_mask_storeu_epi32(at, mask, x) emu_store_simde__m256i_32(at, mask, x)
#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16(mask, at) emu_load_simde__m256i_16(mask, at)
#undef _mm256_mask_storeu_epi16
#define _mm256_mask_storeu_epi16(at, mask, x) emu_store_simde__m256i_16(at, mask, x)

#endif
