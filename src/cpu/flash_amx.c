/* cpu:flash_amx, flash attention of bf16 on the matrix unit of Intel's servers (Sapphire Rapids and
 * later): both products by tiles of 16 x 32 bf16 with f32 sums, exponentials by AVX-512 between
 * them. The algorithm is told in flash_body.h, what is different here in flash_amx_tile.h
 * (products), flash_amx_softmax.h (weights) and flash_amx_block.h (how they are mixed). Weights are
 * rounded to bf16 between the products, as cpu:flash_avx512bf16 does; the unit takes subnormal bf16
 * as zero.
 *
 * Limits of one core: a dot of 16384 multiply-adds takes 16 cycles, 2.3 TFLOP/s at 2.3 GHz; a
 * weight 6 cycles of the one vector port that is left beside dots. With 64 columns that is 384
 * cycles of weights beside 256 of dots for 32 keys and 32 queries, with 128 it is 384 beside 512.
 *
 * Measured: docs/performance.md, 253 to 505 GFLOP/s for 64 columns, depending on what else used the
 * core. Two builds in turns, on the way here: steps with one product after the other and maxima
 * first were a quarter slower; prefetching the next operands 5 to 10 %. Few queries over 16384 keys
 * in memory: fetching the next step ahead 1.25 to 1.45 times as fast; copying rows of K first, so
 * that the processor's prefetcher sees them in order, lost 1 to 20 %, fetching beside packing too
 * brought nothing. Packing V from registers, addresses worked out once: 1.05 to 1.15. */
#include "tiles_amx.h"

#include "flash_body.h"

/* Others than these would lose bits as bf16. */
static bool amx_takes(heed_dtype_t dtype)
{
    return dtype == HEED_BF16 || dtype == HEED_E4M3 || dtype == HEED_E5M2 || dtype == HEED_I8;
}

static int amx_supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = at;
    if (!amx_takes(desc->k.dtype) || !amx_takes(desc->v.dtype))
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED,
                         "k.dtype=%s, v.dtype=%s: takes bf16, e4m3, e5m2, i8 beside q of bf16",
                         heed_dtype_name(desc->k.dtype), heed_dtype_name(desc->v.dtype));
    return flash_supports(at, device, why);
}

const heed_impl_t HD_IMPL_NAME(flash_amx) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_amx",
    .about = "blocked, online softmax, queries in lanes; AMX tiles of bf16",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AMX,
    .features = HEED_ATTENTION_CAN_ALL & ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_F16 |
                                           HEED_ATTENTION_CAN_E4M3 | HEED_ATTENTION_CAN_EXACT_E4M3),
    .supports = amx_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
