/* What every vec_ISA.h has in common. A vector file defines VEC_LANES, vec_t and static functions:
 *
 *     vec_zero, vec_set1, vec_load, vec_store       any alignment
 *     vec_add, vec_sub, vec_mul, vec_div, vec_fma(a, b, c)   a * b + c
 *     vec_max(a, b)                                 b where either is NaN
 *     vec_select(bits, a, b)                        bit i of bits: a, else b in lane i
 *     vec_exp2(t)                                   2^max(t, -126), 1e-6 relative; NaN stays
 *     vec_exp2_all(t, count)                        the same of several, VEC_EXP2_MOST if that is
 *                                                   defined, stage by stage: the chains of one
 *                                                   alone leave the ports idle
 *     vec_transpose(x)                              VEC_LANES x VEC_LANES, in place
 *     vec_load_bf16, vec_load_f16, vec_store_bf16, vec_store_f16
 *
 * All are static and inlined: an object file of one instruction set must not leak a function that
 * another one could call. */
#ifndef HD_VEC_H
#define HD_VEC_H

#include "../common/element.h"

#define HD_INLINE   static inline __attribute__((always_inline))
#define HD_NOINLINE static __attribute__((noinline))

#if defined(__clang__)
#define HD_UNROLL    _Pragma("clang loop unroll(full)")
#define HD_UNROLL_BY _Pragma("clang loop unroll(disable)")
#else
#define HD_UNROLL _Pragma("GCC unroll 16")
#if defined(HD_EMULATED) /* many instructions for each: four times the code, for nothing */
#define HD_UNROLL_BY _Pragma("GCC unroll 1")
#else
#define HD_UNROLL_BY _Pragma("GCC unroll 4")
#endif
#endif

/* Keeps a value in a register: GCC else folds a broadcast or a load into every multiply-add that
 * uses it, and the load ports become the limit. */
#if defined(__x86_64__) && !defined(HD_EMULATED)
#define HD_OPAQUE(x) __asm__("" : "+v"(x))
#elif defined(__aarch64__) && !defined(HD_EMULATED)
#define HD_OPAQUE(x) __asm__("" : "+w"(x))
#else
#define HD_OPAQUE(x)
#endif

/* Keeps the compiler from working an address out again from where it began. */
#if defined(__GNUC__)
#define HD_ADDRESS(x) __asm__("" : "+r"(x))
#else
#define HD_ADDRESS(x)
#endif

/* 2^f for |f| <= 1/2, highest power first: degree 5, minimax, 2.1e-7. */
#define VEC_EXP2_POLYNOMIAL                                                                    \
    {                                                                                          \
        0.00132764722f, 0.00967554133f, 0.0555071327f, 0.240221197f, 0.693146967f, 1.00000007f \
    }

/* The emulated twin of a kernel, built for the tests, goes by another name. */
#if defined(HD_EMULATED)
#define HD_IMPL_NAME(name) hd_impl_emu_##name
#else
#define HD_IMPL_NAME(name) hd_impl_##name
#endif

#endif
