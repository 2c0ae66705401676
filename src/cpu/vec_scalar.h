/* Four lanes in the compiler's own vector type: any architecture, no instruction set assumed. */
#ifndef HD_VEC_SCALAR_H
#define HD_VEC_SCALAR_H

#include "vec.h"

#define VEC_LANES 4
typedef float vec_t __attribute__((vector_size(16)));
typedef int32_t vec_int_t __attribute__((vector_size(16)));

HD_INLINE vec_t vec_set1(float x)
{
    return (vec_t){x, x, x, x};
}

HD_INLINE vec_t vec_zero(void)
{
    return vec_set1(0);
}

HD_INLINE vec_t vec_load(const void *at)
{
    vec_t x;
    memcpy(&x, at, sizeof(x));
    return x;
}

HD_INLINE void vec_store(void *at, vec_t x)
{
    memcpy(at, &x, sizeof(x));
}

HD_INLINE vec_t vec_broadcast(const char *at)
{
    float x;
    memcpy(&x, at, sizeof(x));
    return vec_set1(x);
}

HD_INLINE vec_t vec_add(vec_t a, vec_t b)
{
    return a + b;
}

HD_INLINE vec_t vec_sub(vec_t a, vec_t b)
{
    return a - b;
}

HD_INLINE vec_t vec_mul(vec_t a, vec_t b)
{
    return a * b;
}

HD_INLINE vec_t vec_div(vec_t a, vec_t b)
{
    return a / b;
}

HD_INLINE vec_t vec_fma(vec_t a, vec_t b, vec_t c)
{
    return a * b + c;
}

HD_INLINE vec_t vec_blend(vec_int_t choose, vec_t a, vec_t b)
{
    return (vec_t)((choose & (vec_int_t)a) | (~choose & (vec_int_t)b));
}

HD_INLINE vec_t vec_max(vec_t a, vec_t b)
{
    return vec_blend(a > b, a, b);
}

HD_INLINE vec_t vec_select(uint32_t bits, vec_t a, vec_t b)
{
    const vec_int_t lane = {1, 2, 4, 8},
                    all = (vec_int_t){(int)bits, (int)bits, (int)bits, (int)bits};
    return vec_blend((all & lane) == lane, a, b);
}

/* 2^t = 2^n 2^f, n the nearest integer, f by a polynomial. */
HD_INLINE vec_t vec_exp2(vec_t t)
{
    static const float coefficients[] = VEC_EXP2_POLYNOMIAL;
    const vec_t magic = vec_set1(12582912.0f); /* 1.5 * 2^23: the sum's low bits are the integer */
    t = vec_max(vec_set1(-126.0f), t);
    vec_t z = t + magic, f = t - (z - magic), p = vec_set1(coefficients[0]);
    HD_UNROLL
    for (int c = 1; c < 6; c++) {
        p = p * f + vec_set1(coefficients[c]);
    }
    return (vec_t)((vec_int_t)p + ((vec_int_t)z << 23));
}

HD_INLINE void vec_exp2_all(vec_t *t, const int count)
{
    for (int i = 0; i < count; i++)
        t[i] = vec_exp2(t[i]);
}

HD_INLINE void vec_transpose(vec_t *x)
{
    const vec_t a = x[0], b = x[1], c = x[2], d = x[3];
    for (int i = 0; i < 4; i++)
        x[i] = (vec_t){a[i], b[i], c[i], d[i]};
}

HD_INLINE vec_t vec_load_bf16(const uint16_t *at)
{
    return (vec_t){hd_bf16_to_f32(at[0]), hd_bf16_to_f32(at[1]), hd_bf16_to_f32(at[2]),
                   hd_bf16_to_f32(at[3])};
}

HD_INLINE vec_t vec_load_f16(const uint16_t *at)
{
    return (vec_t){hd_f16_to_f32(at[0]), hd_f16_to_f32(at[1]), hd_f16_to_f32(at[2]),
                   hd_f16_to_f32(at[3])};
}

HD_INLINE void vec_store_bf16(uint16_t *at, vec_t x)
{
    for (int i = 0; i < 4; i++)
        at[i] = hd_f32_to_bf16(x[i]);
}

HD_INLINE void vec_store_f16(uint16_t *at, vec_t x)
{
    for (int i = 0; i < 4; i++)
        at[i] = hd_f32_to_f16(x[i]);
}

#endif
