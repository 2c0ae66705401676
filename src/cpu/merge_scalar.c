/* cpu:merge_scalar, plain C on any machine: rows whose elements follow each other by loops that the
 * compiler vectorises for the build's own instruction set, sums in f32. */
typedef float merge_sum_t;
#include "merge_body.h"

static void add_f32(const float *restrict row, int64_t n, float weight, float *restrict sums)
{
    for (int64_t c = 0; c < n; c++)
        sums[c] += weight * row[c];
}

static void add_bf16(const uint16_t *restrict row, int64_t n, float weight, float *restrict sums)
{
    for (int64_t c = 0; c < n; c++)
        sums[c] += weight * hd_bf16_to_f32(row[c]);
}

static void add_f16(const uint16_t *restrict row, int64_t n, float weight, float *restrict sums)
{
    for (int64_t c = 0; c < n; c++)
        sums[c] += weight * hd_f16_to_f32(row[c]);
}

static void merge_add(const hd_view_t *view, const char *row, int64_t n, double weight,
                      merge_sum_t *sums)
{
    const void *at = row;
    float factor = (float)weight;
    if (hd_view_is_plain(view, HEED_F32))
        add_f32(at, n, factor, sums);
    else if (hd_view_is_plain(view, HEED_BF16))
        add_bf16(at, n, factor, sums);
    else if (hd_view_is_plain(view, HEED_F16))
        add_f16(at, n, factor, sums);
    else
        for (int64_t c = 0; c < n; c++)
            sums[c] += factor * hd_element_load(view->dtype, row + c * view->elem);
}

static double merge_estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    return merge_estimate_at(desc, threads, 2);
}

const heed_impl_t hd_impl_merge_scalar = {
    .struct_size = sizeof(heed_impl_t),
    .op = "merge",
    .name = "cpu:merge_scalar",
    .about = "plain C, a row of sums in f32",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_MERGE_CAN_ALL,
    .estimate = merge_estimate,
    .workspace = merge_workspace,
    .run = merge_run,
};
