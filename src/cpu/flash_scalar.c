/* cpu:flash_scalar, flash attention in portable C, four lanes in the compiler's own vector type. */
#include "vec_scalar.h"

#define FLASH_ISA_FLOPS 8
#define FLASH_PAIRS     0
#define FLASH_TILE      2
#define FLASH_VECTORS   8
#define FLASH_KEYS      4
#define FLASH_COLUMNS   4
#define FLASH_NARROW    8

#include "flash_weights.h"
#include "flash_body.h"

const heed_impl_t hd_impl_flash_scalar = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_scalar",
    .about = "blocked, online softmax, queries in lanes; portable C",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_ATTENTION_CAN_PLAIN,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
