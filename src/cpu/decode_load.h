/* Elements of keys and values as f32 in registers, of any stored type, and the order in which they
 * come there. */
#ifndef HD_DECODE_LOAD_H
#define HD_DECODE_LOAD_H

#include "rows.h"

enum { DECODE_STEP = 2 * VEC_LANES }; /* elements that a load makes */

/* 1: there is a decode_load_wide. */
#ifndef DECODE_CODES_WIDE
#define DECODE_CODES_WIDE 0
#endif

/* DECODE_STEP elements of a row as f32; decode_order says in which order. */
HD_INLINE void decode_load(const heed_dtype_t dtype, const char *at, vec_t *x)
{
    const uint16_t *halves = (const uint16_t *)(const void *)at;
    switch (dtype) {
    case HEED_F32:
        x[0] = vec_load(at);
        x[1] = vec_load(at + 4 * VEC_LANES);
        break;
    case HEED_BF16:
        decode_load_bf16(halves, x);
        break;
    case HEED_F16:
        x[0] = vec_load_f16(halves);
        x[1] = vec_load_f16(halves + VEC_LANES);
        break;
    case HEED_E4M3:
        decode_load_e4m3(at, x);
        break;
    case HEED_E5M2:
        decode_load_e5m2(at, x);
        break;
    default:
        decode_load_i8(at, x);
    }
    HD_OPAQUE(x[0]);
    HD_OPAQUE(x[1]);
}

/* Whether rows are loaded two steps at a time, of which four vectors are made. */
HD_INLINE bool decode_is_wide(heed_dtype_t dtype)
{
    return DECODE_CODES_WIDE && (dtype == HEED_E4M3 || dtype == HEED_E5M2);
}

/* Vectors of a load where so many are left. */
HD_INLINE int decode_width(heed_dtype_t dtype, int vectors)
{
    return decode_is_wide(dtype) && vectors >= 4 ? 4 : 2;
}

HD_INLINE void decode_load_vectors(const heed_dtype_t dtype, const int vectors, const char *at,
                                   vec_t *x)
{
#if DECODE_CODES_WIDE
    if (vectors == 4) {
        decode_load_wide(dtype, at, x);
        HD_OPAQUE(x[0]);
        HD_OPAQUE(x[1]);
        HD_OPAQUE(x[2]);
        HD_OPAQUE(x[3]);
        return;
    }
#endif
    (void)vectors;
    decode_load(dtype, at, x);
}

/* Whether rows keep the order of their elements when they are loaded. */
HD_INLINE bool decode_keeps_order(heed_dtype_t dtype)
{
    return dtype != HEED_BF16 && !decode_is_wide(dtype);
}

/* Elements of a step in the order of loads, those of even index first, since both halves of a pair
 * are one instruction away; or back from it. `from` and `to` are at the step. */
HD_INLINE void decode_arrange_step(bool back, const float *from, float factor, float *to)
{
    for (int i = 0; i < VEC_LANES; i++)
        for (int odd = 0; odd < 2; odd++) {
            const int natural = 2 * i + odd, loaded = odd * VEC_LANES + i;
            to[back ? natural : loaded] = factor * from[back ? loaded : natural];
        }
}

/* The same of two steps and wide loads, which take the lower halves of every sixteen elements, then
 * the upper ones. */
HD_INLINE void decode_arrange_wide(bool back, const float *from, float factor, float *to)
{
    for (int sixteen = 0; sixteen < DECODE_STEP / 8; sixteen++)
        for (int i = 0; i < 16; i++) {
            const int natural = 16 * sixteen + i;
            const int loaded = (i / 8 * 2 + i % 2) * VEC_LANES + 4 * sixteen + i % 8 / 2;
            to[back ? natural : loaded] = factor * from[back ? loaded : natural];
        }
}

/* A row times a factor, in the order of loads, or back from it. Only rows that keep their order may
 * have a count that is no multiple of steps. */
HD_INLINE void decode_arrange(heed_dtype_t dtype, int count, const bool back, const float *from,
                              float factor, float *to)
{
    int c = 0;
    if (decode_keeps_order(dtype)) {
        for (; c < count; c++)
            to[c] = factor * from[c];
        return;
    }
    for (; decode_is_wide(dtype) && c + 2 * DECODE_STEP <= count; c += 2 * DECODE_STEP)
        decode_arrange_wide(back, from + c, factor, to + c);
    for (; c < count; c += DECODE_STEP)
        decode_arrange_step(back, from + c, factor, to + c);
}

/* What a loaded number is to be multiplied by: e4m3 is loaded as f16 with its bias of 7, but not
 * from tables. */
static float decode_unit(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3 && !DECODE_CODES_WIDE ? 256 : 1;
}

#endif
