/* cpu:flash_amx */
#include "tiles_amx.h"

#include "flash_body.h"

const heed_impl_t HD_IMPL_NAME(flash_amx) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_amx",
    .about = "blocked, online softmax, queries in lanes; AMX tiles of bf16",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AMX,
    .features = HEED_ATTENTION_CAN_ALL &
                ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_F16 | HEED_ATTENTION_CAN_E4M3 |
                  HEED_ATTENTION_CAN_EXACT_E4M3 | HEED_ATTENTION_CAN_KV_DTYPE |
                  HEED_ATTENTION_CAN_KV_SCALE),
    .supports = flash_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
