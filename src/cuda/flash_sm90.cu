/* cuda:flash_sm90, flash attention in bf16 and f16 on Hopper's tensor cores: one warp fetches tiles
 * by TMA, two or three warpgroups of 64 queries each compute (flash_sm90_math.cuh) and take turns
 * at the tensor cores. Blocks stay for the whole launch and are dealt tiles of queries.
 *
 *     head sizes up to    64    96   128   192   256
 *     queries x keys    192x128  128x176  128x176  128x112  128x80
 *
 * Has run in the emulator only, never on a card. By the profile of the machine code (bench/sass,
 * CUDA 13.0), bf16: 56 % of the tensor cores' peak at head size 64, 73 % at 128, 82 % at 256, if
 * products and softmax took turns; all exponentials are issued while the warpgroup's own product
 * runs. Variants for a tuning run on a card are in flash_sm90_tune.cuh. */
#include "flash_sm90_host.cuh"

extern "C" const heed_impl_t hd_impl_flash_sm80;

using namespace flash_sm90;

/* ---- instances: head dim, keys of a block, warpgroups, mode, polynomials of 64, turns, tiles - */

template <hd_mma_type TYPE>
static heed_status_t launch(const heed_launch_t *launch, params_t *p, int processors, int *error)
{
    int dim = p->a.d > p->a.dv ? p->a.d : p->a.dv;
    if (p->a.visible.tiles) {
        if (dim <= 64)
            return launch_instance<config<TYPE, 64, 64, 1, EXACT, 0, false, true>>(
                launch, p, processors, error);
        if (dim <= 128)
            return launch_instance<config<TYPE, 128, 64, 1, EXACT, 0, false, true>>(
                launch, p, processors, error);
        return launch_instance<config<TYPE, 256, 64, 1, EXACT, 0, false, true>>(launch, p,
                                                                                processors, error);
    }
    if (dim <= 64)
        return launch_instance<config<TYPE, 64, 128, 3, SUM, 16, true, false>>(launch, p,
                                                                               processors, error);
    if (dim <= 96)
        return launch_instance<config<TYPE, 96, 176, 2, SUM, 16, true, false>>(launch, p,
                                                                               processors, error);
    if (dim <= 128)
        return launch_instance<config<TYPE, 128, 176, 2, SUM, 16, true, false>>(launch, p,
                                                                                processors, error);
    if (dim <= 192)
        return launch_instance<config<TYPE, 192, 112, 2, SUM, 8, true, false>>(launch, p,
                                                                               processors, error);
    return launch_instance<config<TYPE, 256, 80, 2, SUM, 8, true, false>>(launch, p, processors,
                                                                          error);
}

static heed_status_t run(const heed_launch_t *at)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at->desc;
    params_t p = {};
    p.a = hd_attention_of(at);
    if (p.a.batch * p.a.heads * p.a.queries == 0)
        return HEED_OK;
    /* Addresses are not known to a plan. */
    if (!is_aligned(&p.a))
        return hd_impl_flash_sm80.run(at);
    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(at, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    int error = 0, processors = hd_cuda_multiprocessors(desc->q.device);
    status = desc->q.dtype == HEED_BF16 ? launch<HD_MMA_BF16>(at, &p, processors, &error)
                                        : launch<HD_MMA_F16>(at, &p, processors, &error);
    heed_status_t left = hd_cuda_leave(&scope, error, "cuda:flash_sm90");
    return status != HEED_OK ? status : left;
}

extern "C" const heed_impl_t hd_impl_flash_sm90;
const heed_impl_t hd_impl_flash_sm90 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:flash_sm90",
    .about = "bf16 and f16 on Hopper's tensor cores: TMA, wgmma, specialised warps",
    .device_type = HEED_DEVICE_CUDA,
    .features = HEED_ATTENTION_CAN_PLAIN & ~HEED_ATTENTION_CAN_F32 & ~HEED_ATTENTION_CAN_E4M3 &
                ~HEED_ATTENTION_CAN_EXACT_E4M3 & ~HEED_ATTENTION_CAN_STRIDED_DIM,
    .supports = supports,
    .estimate = estimate,
    .run = run,
};
