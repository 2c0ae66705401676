/* cpu:cast_avx2: the loops of cast_blocks.h, 32 elements at a time, for AVX2 and F16C.
 *
 * Measured on a shared Zen 3, one thread, by `bench/peers/cast_peers.py` (docs/performance.md).
 * What made the difference: no address of a block's vectors leaves the loop (GCC kept them all in
 * memory); constants of packing that GCC cannot make anew; bf16 encoded in halves of 32 bits, half
 * again as fast; the largest magnitude in the same loop; prefetching 4 KiB ahead where stores go
 * past the caches (f32 to E4M3 from memory: 0.73 of memcpy without, 0.92 with). */
#include "cast_vec_avx2.h"

#include "cast_line_blocks.h"

static double estimate(const void *desc, const heed_device_info_t *device, int32_t threads)
{
    const cast_rates_t rates =
        cast_measured_rates(device, threads, device->peaks.encode_avx2, device->peaks.decode_avx2);
    return cast_estimate_at((const heed_cast_desc_t *)desc, device, threads, &rates);
}

const heed_impl_t hd_impl_cast_avx2 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cpu:cast_avx2",
    .about = "thirty-two elements at a time; AVX2 and F16C",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AVX2,
    .features = HEED_CAST_CAN_ALL,
    .estimate = estimate,
    .workspace = cast_workspace,
    .run = cast_run,
};
