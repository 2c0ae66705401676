/* cpu:decode_avx512, few queries over many keys with AVX-512. The algorithm is told in
 * decode_body.h. Has run in emulation only; its speed was never measured. */
#include "vec_avx512.h"

#define DECODE_SUMS 16
#define DECODE_HINT 2

HD_INLINE void decode_load_bf16(const uint16_t *at, vec_t *x)
{
    __m512i pairs = _mm512_loadu_si512(at);
    x[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    x[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}

HD_INLINE void decode_from_f16(__m512i halves, vec_t *x)
{
    x[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
    x[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
}

HD_INLINE __m512i decode_codes(const char *at)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)at));
}

/* Sign, exponent and fraction are moved to where f16 has them; of its five bits of exponent the
 * highest stays zero. A NaN is made one. */
HD_INLINE void decode_load_e4m3(const char *at, vec_t *x)
{
    const __m512i used = _mm512_set1_epi16((short)0xbfff);
    const __m512i nan = _mm512_set1_epi16((short)0xbf80), sign = _mm512_set1_epi16((short)0x8000);
    __m512i half = _mm512_and_si512(_mm512_slli_epi16(decode_codes(at), 7), used);
    __mmask32 is_nan = _mm512_cmpeq_epi16_mask(_mm512_or_si512(half, sign), nan);
    decode_from_f16(_mm512_mask_blend_epi16(is_nan, half, _mm512_set1_epi16(0x7e00)), x);
}

/* The upper half of an f16. */
HD_INLINE void decode_load_e5m2(const char *at, vec_t *x)
{
    decode_from_f16(_mm512_slli_epi16(decode_codes(at), 8), x);
}

HD_INLINE void decode_load_i8(const char *at, vec_t *x)
{
    HD_UNROLL
    for (int i = 0; i < 2; i++) {
        __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)(at + i * VEC_LANES));
        x[i] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
    }
}

/* The largest of a vector's lanes. */
HD_INLINE float decode_most(vec_t x)
{
    return _mm512_reduce_max_ps(x);
}

/* Lane i: the sum of the lanes of x[i]. Each step folds two vectors into one, half of it from
 * either: a permute, a blend and a sum, half of what a transpose costs on the port of permutes. */
HD_INLINE vec_t decode_lane_sums(vec_t *x)
{
    const __m512i blocks =
        _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    const __m512i lanes =
        _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
    HD_UNROLL
    for (int i = 0; i < 8; i++) {
        x[i] = vec_add(_mm512_shuffle_f32x4(x[i], x[i + 8], 0x4e),
                       _mm512_mask_blend_ps(0xff00, x[i], x[i + 8]));
    }
    HD_UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = vec_add(_mm512_permutex2var_ps(x[i], blocks, x[i + 4]),
                       _mm512_mask_blend_ps(0xf0f0, x[i], x[i + 4]));
    }
    HD_UNROLL
    for (int i = 0; i < 2; i++) {
        x[i] = vec_add(_mm512_shuffle_ps(x[i], x[i + 2], 0x4e),
                       _mm512_mask_blend_ps(0xcccc, x[i], x[i + 2]));
    }
    return vec_add(_mm512_permutex2var_ps(x[0], lanes, x[1]),
                   _mm512_mask_blend_ps(0xaaaa, x[0], x[1]));
}

#include "decode_body.h"

const heed_impl_t HD_IMPL_NAME(decode_avx512) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:decode_avx512",
    .about = "few queries: one pass over K and V, split over threads; AVX-512",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX512,
    .features = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_TILES,
    .estimate = decode_estimate,
    .workspace = decode_workspace,
    .run = decode_run,
};
