/* cpu:decode_scalar, few queries over many keys in portable C, four lanes in the compiler's own
 * vector type. The algorithm is told in decode_body.h. */
#include "vec_scalar.h"

#define DECODE_SUMS     8
#define DECODE_HINT     3
#define DECODE_KEY_COST 0
#define DECODE_HIDDEN   0

HD_INLINE void decode_load_bf16(const uint16_t *at, vec_t *x)
{
    uint16_t sorted[2 * VEC_LANES];
    for (int i = 0; i < 2 * VEC_LANES; i++)
        sorted[i % 2 * VEC_LANES + i / 2] = at[i];
    x[0] = vec_load_bf16(sorted);
    x[1] = vec_load_bf16(sorted + VEC_LANES);
}

HD_INLINE void decode_load_codes(heed_dtype_t dtype, float unit, const char *at, vec_t *x)
{
    float values[2 * VEC_LANES];
    for (int i = 0; i < 2 * VEC_LANES; i++)
        values[i] = unit * hd_code_load(dtype, at + i);
    x[0] = vec_load(values);
    x[1] = vec_load(values + VEC_LANES);
}

/* As the other instruction sets load it. */
HD_INLINE void decode_load_e4m3(const char *at, vec_t *x)
{
    decode_load_codes(HEED_E4M3, 1.0f / 256, at, x);
}

HD_INLINE void decode_load_e5m2(const char *at, vec_t *x)
{
    decode_load_codes(HEED_E5M2, 1, at, x);
}

HD_INLINE void decode_load_i8(const char *at, vec_t *x)
{
    decode_load_codes(HEED_I8, 1, at, x);
}

HD_INLINE float decode_most(vec_t x)
{
    float most = x[0];
    for (int i = 1; i < VEC_LANES; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

HD_INLINE vec_t decode_lane_sums(vec_t *x)
{
    vec_transpose(x);
    return vec_add(vec_add(x[0], x[1]), vec_add(x[2], x[3]));
}

#include "decode_body.h"

const heed_impl_t hd_impl_decode_scalar = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:decode_scalar",
    .about = "few queries: one pass over K and V, split over threads; portable C",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_TILES,
    .estimate = decode_estimate,
    .workspace = decode_workspace,
    .run = decode_run,
};
