/* Arithmetic of CUDA kernels for a C++ compiler. Part of simt_emu.h. */
#ifndef HEED_MATH_EMU_H
#define HEED_MATH_EMU_H

/* ---- arithmetic ------------------------------------------------------------------------------ */

template <class To, class From> inline To emu_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}
inline float __uint_as_float(unsigned bits)
{
    return emu_bits<float>(bits);
}
inline float __int_as_float(int bits)
{
    return emu_bits<float>(bits);
}
inline unsigned __float_as_uint(float value)
{
    return emu_bits<unsigned>(value);
}
inline int __float_as_int(float value)
{
    return emu_bits<int>(value);
}
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
/* A device's are a few ulp off. */
inline float __fdividef(float a, float b)
{
    return a / b;
}
inline float __frcp_rn(float x)
{
    return 1 / x;
}
inline float __expf(float x)
{
    return expf(x);
}
inline float __logf(float x)
{
    return logf(x);
}
inline float __log2f(float x)
{
    return log2f(x);
}
inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
inline int __float2int_rn(float x)
{
    return (int)rintf(x);
}
inline int __float2int_rz(float x)
{
    return (int)x;
}
inline float __int2float_rn(int x)
{
    return (float)x;
}
inline float __uint2float_rn(unsigned x)
{
    return (float)x;
}

/* ---- bits ------------------------------------------------------------------------------------ */

/* The bytes of x (0-3) and y (4-7) that the four low digits of `select` name; 8 more: its sign. */
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned select)
{
    unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        unsigned digit = select >> 4 * i & 15, byte = (unsigned)(both >> 8 * (digit & 7)) & 255;
        result |= (digit & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
    }
    return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((unsigned long long)high << 32 | low) << (by & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
inline unsigned __umulhi(unsigned x, unsigned y)
{
    return (unsigned)((unsigned long long)x * y >> 32);
}
inline unsigned __brev(unsigned x)
{
    unsigned result = 0;
    for (int i = 0; i < 32; i++)
        result |= (x >> i & 1) << (31 - i);
    return result;
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}

/* ---- loads and stores with a cache policy ---------------------------------------------------- */

#define EMU_LOAD(name)                            \
    template <class T> inline T name(const T *at) \
    {                                             \
        return *at;                               \
    }
EMU_LOAD(__ldg)
EMU_LOAD(__ldcg)
EMU_LOAD(__ldcs)
#define EMU_STORE(name)                                                          \
    template <class T> inline void name(T *at, typename emu_same<T>::type value) \
    {                                                                            \
        *at = value;                                                             \
    }
EMU_STORE(__stcg)
EMU_STORE(__stcs)

/* ---- the smaller and the larger one ---------------------------------------------------------- */

#define EMU_MIN_MAX(type)           \
    inline type min(type a, type b) \
    {                               \
        return a < b ? a : b;       \
    }                               \
    inline type max(type a, type b) \
    {                               \
        return a > b ? a : b;       \
    }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)

/* The other one where one is NaN. */
inline float min(float a, float b)
{
    return fminf(a, b);
}
inline float max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
