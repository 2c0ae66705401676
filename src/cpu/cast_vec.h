/* What casts have in common on processors with F16C and vectors: f16 by its own instructions, and
 * stores past the caches. Included after a vec_ISA.h and before cast_line.h. */
#ifndef HD_CAST_VEC_H
#define HD_CAST_VEC_H

#include "../common/element.h"

#define CAST_HAS_F16 1

static void cast_widen_f16(const uint16_t *from, float *to, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(to + i, vec_load_f16(from + i));
    for (; i < n; i++)
        to[i] = hd_f16_to_f32(from[i]);
}

static void cast_narrow_f16(const float *from, uint16_t *to, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store_f16(to + i, vec_load(from + i));
    for (; i < n; i++)
        to[i] = hd_f32_to_f16(from[i]);
}

/* Up to the first address that is aligned, then 32 bytes at a time. */
static void cast_stream(char *to, const char *from, int64_t bytes)
{
    enum { STEP = 32 };
    int64_t head = (int64_t)(-(uintptr_t)to % STEP), i = head < bytes ? head : bytes;
    memcpy(to, from, (size_t)i);
    for (; i + STEP <= bytes; i += STEP)
        _mm256_stream_si256((__m256i *)(void *)(to + i),
                            _mm256_loadu_si256((const __m256i *)(const void *)(from + i)));
    memcpy(to + i, from + i, (size_t)(bytes - i));
}
#define CAST_STREAM(to, from, bytes) cast_stream(to, from, bytes)

#endif
