/* Variants of cuda:flash_sm90 for one tuning run on a card, in bf16 without tile lists: built with
 * -DHEED_CUDA_TUNE=ON only, each an implementation of its own that is never chosen by itself
 * (`bench/gpu.sh --only tune` runs them in turns). A file of variants is lines, each with one in
 * impls.def:
 *
 *     HD_VARIANT(name, mode, polynomials of 64, turns, keys of a block at head size 64, 128, 256)
 *
 * Warpgroups are those of flash_sm90: three at head size 64, else two; with more than 128 keys at
 * 64 two. What wins becomes an instance of flash_sm90.cu. */
#ifndef HD_FLASH_SM90_TUNE_CUH
#define HD_FLASH_SM90_TUNE_CUH

#include "flash_sm90_host.cuh"

extern "C" const heed_impl_t hd_impl_flash_sm80;

namespace flash_sm90
{

template <mode_t MODE, int POLY, bool TURNS, int KEYS64, int KEYS128, int KEYS256>
static heed_status_t run_variant(const heed_launch_t *at)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at->desc;
    params_t p = {};
    p.a = hd_attention_of(at);
    if (p.a.batch * p.a.heads * p.a.queries == 0)
        return HEED_OK;
    if (!is_aligned(&p.a))
        return hd_impl_flash_sm80.run(at);
    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(at, desc->q.device, operands, HEED_ATTENTION_OPERANDS, &scope);
    if (status != HEED_OK)
        return status;
    int error = 0, processors = hd_cuda_multiprocessors(desc->q.device);
    int dim = p.a.d > p.a.dv ? p.a.d : p.a.dv;
    if (dim <= 64)
        status = launch_instance<
            config<HD_MMA_BF16, 64, KEYS64, (KEYS64 > 128 ? 2 : 3), MODE, POLY, TURNS, false>>(
            at, &p, processors, &error);
    else if (dim <= 128)
        status = launch_instance<config<HD_MMA_BF16, 128, KEYS128, 2, MODE, POLY, TURNS, false>>(
            at, &p, processors, &error);
    else
        status = launch_instance<config<HD_MMA_BF16, 256, KEYS256, 2, MODE, POLY, TURNS, false>>(
            at, &p, processors, &error);
    heed_status_t left = hd_cuda_leave(&scope, error, "cuda:flash_sm90_tune");
    return status != HEED_OK ? status : left;
}

/* Behind all others. */
static double estimate_variant(const void *at, const heed_device_info_t *device, int32_t threads)
{
    return 1e6 * estimate(at, device, threads);
}

constexpr uint64_t variant_features =
    HEED_ATTENTION_CAN_PLAIN &
    ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_F16 | HEED_ATTENTION_CAN_E4M3 |
      HEED_ATTENTION_CAN_EXACT_E4M3 | HEED_ATTENTION_CAN_STRIDED_DIM | HEED_ATTENTION_CAN_TILES);

} // namespace flash_sm90

#define HD_VARIANT(name_, mode, poly, turns, keys64, keys128, keys256)                           \
    extern "C" const heed_impl_t hd_impl_flash_sm90_tune_##name_;                                \
    const heed_impl_t hd_impl_flash_sm90_tune_##name_ = {                                        \
        .struct_size = sizeof(heed_impl_t),                                                      \
        .op = "attention",                                                                       \
        .name = "cuda:flash_sm90_tune_" #name_,                                                  \
        .about = "flash_sm90 with " #mode ", polynomials " #poly ", turns " #turns               \
                 ", keys " #keys64 ", " #keys128 ", " #keys256,                                  \
        .device_type = HEED_DEVICE_CUDA,                                                         \
        .features = flash_sm90::variant_features,                                                \
        .supports = flash_sm90::supports,                                                        \
        .estimate = flash_sm90::estimate_variant,                                                \
        .run = flash_sm90::run_variant<flash_sm90::mode, poly, turns, keys64, keys128, keys256>, \
    };

#endif
