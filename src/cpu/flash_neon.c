/* cpu:flash_neon, flash attention for every 64-bit ARM; f32 arithmetic for every dtype. The
 * algorithm is told in flash_body.h. Multiply-adds take keys and values by element
 * (flash_element.h): 8 keys by 2 vectors are 16 sums, with 8 registers of K and 2 of queries 26 of
 * 32; 8 columns by 2 vectors take 20. 8 divides a block's 64 keys and the usual head sizes. Has run
 * under QEMU only, which checks its results; its speed was never measured. */
#include "vec_neon.h"

#define FLASH_PAIRS      0
#define FLASH_TILE       2
#define FLASH_VECTORS    16
#define FLASH_KEYS       8
#define FLASH_COLUMNS    8
#define FLASH_NARROW     12
#define FLASH_BY_ELEMENT 1

#define flash_dot_lane(sum, a, b, lane) vfmaq_laneq_f32(sum, b, a, lane)

#include "flash_weights.h"
#include "flash_body.h"

const heed_impl_t hd_impl_flash_neon = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:flash_neon",
    .about = "blocked, online softmax, queries in lanes; NEON",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_NEON,
    .features = HEED_ATTENTION_CAN_ALL,
    .supports = flash_supports,
    .estimate = flash_estimate,
    .workspace = flash_workspace,
    .run = flash_run,
};
