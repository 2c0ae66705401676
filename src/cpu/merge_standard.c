/* cpu:standard for merges: the definition in float64, element by element. The reference. */
typedef double merge_sum_t;
#include "merge_body.h"

static void merge_add(const hd_view_t *view, const char *row, int64_t n, double weight,
                      merge_sum_t *sums)
{
    for (int64_t c = 0; c < n; c++)
        sums[c] += weight * (double)hd_element_load(view->dtype, row + c * view->elem);
}

static double merge_estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    return merge_estimate_at(desc, threads, 0.2);
}

const heed_impl_t hd_impl_merge_standard = {
    .struct_size = sizeof(heed_impl_t),
    .op = "merge",
    .name = "cpu:standard",
    .about = "the definition in float64: reference and last resort",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_MERGE_CAN_ALL,
    .estimate = merge_estimate,
    .workspace = merge_workspace,
    .run = merge_run,
};
