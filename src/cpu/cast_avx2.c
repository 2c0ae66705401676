/* cpu:cast_avx2, eight elements at a time through f32 registers. Bound by memory beyond the caches;
 * strided elements go one by one. */
#include "vec_avx2.h"

HD_INLINE vec_t load8(heed_dtype_t dtype, const char *at)
{
    if (dtype == HEED_F32)
        return vec_load(at);
    return dtype == HEED_BF16 ? vec_load_bf16((const uint16_t *)(const void *)at)
                              : vec_load_f16((const uint16_t *)(const void *)at);
}

HD_INLINE void store8(heed_dtype_t dtype, char *at, vec_t x)
{
    if (dtype == HEED_F32)
        vec_store(at, x);
    else if (dtype == HEED_BF16)
        vec_store_bf16((uint16_t *)(void *)at, x);
    else
        vec_store_f16((uint16_t *)(void *)at, x);
}

HD_INLINE void cast_pair(const heed_dtype_t from_dtype, const char *from,
                         const heed_dtype_t to_dtype, char *to, int64_t n)
{
    const int64_t from_size = hd_dtype_bytes(from_dtype), to_size = hd_dtype_bytes(to_dtype);
    int64_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES)
        store8(to_dtype, to + i * to_size, load8(from_dtype, from + i * from_size));
    for (; i < n; i++)
        hd_element_store(to_dtype, to + i * to_size,
                         hd_element_load(from_dtype, from + i * from_size));
}

static void cast_row(heed_dtype_t from_dtype, const char *from, heed_dtype_t to_dtype, char *to,
                     int64_t n)
{
#define PAIR(f, t)                          \
    if (from_dtype == f && to_dtype == t) { \
        cast_pair(f, from, t, to, n);       \
        return;                             \
    }
    PAIR(HEED_F32, HEED_BF16)
    PAIR(HEED_F32, HEED_F16)
    PAIR(HEED_BF16, HEED_F32)
    PAIR(HEED_F16, HEED_F32)
    PAIR(HEED_BF16, HEED_F16)
    PAIR(HEED_F16, HEED_BF16)
#undef PAIR
    cast_pair(from_dtype, from, to_dtype, to, n);
}

#include "cast_body.h"

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    return cast_estimate_at(desc, threads, 4);
}

const heed_impl_t hd_impl_cast_avx2 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cpu:cast_avx2",
    .about = "eight elements at a time; AVX2 and F16C",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX2,
    .features = HEED_CAST_CAN_ALL,
    .estimate = estimate,
    .run = cast_run,
};
