/* cpu:flash_split_amx, flash attention of f16 on the matrix unit, which has bf16 alone: each number
 * is the sum of a high and a low part of bf16, exactly for q, k and v, to 16 bits for weights. A
 * score is the sum of all four products of parts, a result of three (the one of both low parts is
 * below 2^-16). The rest is as in flash_amx.c, with exponentials to 1e-7. Where a result is
 * infinite or NaN, the task is done again in f32: infinity times a part that is zero would be NaN.
 */
#include "tiles_split_amx.h"

#include "flash_body.h"

const heed_impl_t HD_IMPL_NAME(flash_split_amx) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_split_amx",
    .about = "blocked, online softmax, queries in lanes; f16 as two bf16 in AMX tiles",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AMX,
    .features = HEED_ATTENTION_CAN_ALL &
                ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_BF16 | HEED_ATTENTION_CAN_E4M3 |
                  HEED_ATTENTION_CAN_EXACT_E4M3 | HEED_ATTENTION_CAN_KV_DTYPE |
                  HEED_ATTENTION_CAN_KV_SCALE),
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
