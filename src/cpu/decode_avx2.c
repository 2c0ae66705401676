/* cpu:decode_avx2, few queries over many keys with AVX2 and FMA. The algorithm is told in
 * decode_body.h. Measured: docs/performance.md. */
#include "vec_avx2.h"

#define DECODE_SUMS     8
#define DECODE_HINT     3
#define DECODE_KEY_COST 0
#define DECODE_HIDDEN   0

HD_INLINE void decode_load_bf16(const uint16_t *at, vec_t *x)
{
    __m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)at);
    x[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    x[1] = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000)));
}

HD_INLINE void decode_from_f16(__m256i halves, vec_t *x)
{
    x[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    x[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
}

HD_INLINE __m256i decode_codes(const char *at)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)at));
}

/* Sign, exponent and fraction are moved to where f16 has them; of its five bits of exponent the
 * highest stays zero. A NaN is made one. */
HD_INLINE void decode_load_e4m3(const char *at, vec_t *x)
{
    const __m256i used = _mm256_set1_epi16((short)0xbfff);
    const __m256i nan = _mm256_set1_epi16((short)0xbf80), sign = _mm256_set1_epi16((short)0x8000);
    __m256i half = _mm256_and_si256(_mm256_slli_epi16(decode_codes(at), 7), used);
    __m256i is_nan = _mm256_cmpeq_epi16(_mm256_or_si256(half, sign), nan);
    decode_from_f16(_mm256_or_si256(half, is_nan), x);
}

/* The upper half of an f16. */
HD_INLINE void decode_load_e5m2(const char *at, vec_t *x)
{
    decode_from_f16(_mm256_slli_epi16(decode_codes(at), 8), x);
}

HD_INLINE void decode_load_i8(const char *at, vec_t *x)
{
    __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)at);
    x[0] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
    x[1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes)));
}

/* The largest of a vector's lanes. */
HD_INLINE float decode_most(vec_t x)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* Lane i: the sum of the lanes of x[i]. Two thirds of what a transpose and seven sums cost. */
HD_INLINE vec_t decode_lane_sums(vec_t *x)
{
    vec_t y[4], z[2];
    HD_UNROLL
    for (int i = 0; i < 4; i++) {
        y[i] = _mm256_add_ps(_mm256_permute2f128_ps(x[i], x[i + 4], 0x21),
                             _mm256_blend_ps(x[i], x[i + 4], 0xf0));
    }
    HD_UNROLL
    for (int i = 0; i < 2; i++) {
        z[i] = _mm256_add_ps(_mm256_shuffle_ps(y[2 * i], y[2 * i + 1], 0x4e),
                             _mm256_blend_ps(y[2 * i], y[2 * i + 1], 0xcc));
    }
    return _mm256_hadd_ps(z[0], z[1]);
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
    .estimate = decode_estimate,
    .workspace = decode_workspace,
    .run = decode_run,
};
