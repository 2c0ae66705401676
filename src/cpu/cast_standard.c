/* cpu:standard for casts: element by element in portable C. The reference. */
#include "../common/element.h"

static void cast_row(heed_dtype_t from_dtype, const char *from, heed_dtype_t to_dtype, char *to,
                     int64_t n)
{
    int64_t from_size = hd_dtype_bytes(from_dtype), to_size = hd_dtype_bytes(to_dtype);
    for (int64_t i = 0; i < n; i++)
        hd_element_store(to_dtype, to + i * to_size,
                         hd_element_load(from_dtype, from + i * from_size));
}

#include "cast_body.h"

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    return cast_estimate_at(desc, threads, 0.5);
}

const heed_impl_t hd_impl_cast_standard = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cpu:standard",
    .about = "element by element: reference and last resort",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_CAST_CAN_ALL,
    .estimate = estimate,
    .run = cast_run,
};
