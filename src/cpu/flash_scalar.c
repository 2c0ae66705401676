/* cpu:flash_scalar, flash attention in portable C, four lanes in the compiler's own vector type. */
#include "tiles_scalar.h"

#include "flash_body.h"

const heed_impl_t hd_impl_flash_scalar = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_scalar",
    .about = "blocked, online softmax, queries in lanes; portable C",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_ATTENTION_CAN_ALL,
    .supports = flash_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
