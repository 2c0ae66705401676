/* cpu:decode_avx2, few queries over many keys with AVX2 and FMA. The algorithm is told in
 * decode_body.h. Measured: docs/performance.md. */
#include "vec_avx2.h"

#define DECODE_ISA_FLOPS 32
#define DECODE_SUMS      8 /* accumulators of a tile */

/* The even elements, then the odd ones. */
HD_INLINE void decode_load_bf16(const uint16_t *at, vec_t *x)
{
    __m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)at);
    x[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    x[1] = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

/* As f16 with a bias of 15: 2^-8 of the number. NaN is made one. */
HD_INLINE void decode_load_e4m3(const char *at, vec_t *x)
{
    const __m256i magnitude = _mm256_set1_epi16((short)0xbfff);
    __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)at));
    __m256i half = _mm256_and_si256(_mm256_slli_epi16(codes, 7), magnitude);
    __m256i nan = _mm256_or_si256(half, _mm256_set1_epi16((short)0x8000));
    half = _mm256_or_si256(half, _mm256_cmpeq_epi16(nan, _mm256_set1_epi16((short)0xbf80)));
    x[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(half));
    x[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1));
}

/* The largest of a vector's lanes. */
HD_INLINE float decode_most(vec_t x)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#include "decode_body.h"

const heed_impl_t hd_impl_decode_avx2 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:decode_avx2",
    .about = "few queries: one pass over K and V, split over threads; AVX2 and FMA",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX2,
    .features = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_TILES,
    .supports = decode_supports,
    .estimate = decode_estimate,
    .workspace = decode_workspace,
    .run = decode_run,
};
