/* cpu:decode_amx */
#define DECODE_VBMI   1
#define DECODE_MATRIX 1
#define DECODE_KEYS   32
#include "decode_avx512.h"

#include "decode_body.h"

const heed_impl_t HD_IMPL_NAME(decode_amx) = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:decode_amx",
    .about = "few queries: one pass over K and V, split over threads; AMX tiles of bf16",
    .device_type = HEED_DEVICE_CPU,
    .required_isa = HEED_ISA_AMX,
    .features = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_TILES,
    .estimate = decode_estimate,
    .workspace = decode_workspace,
    .run = decode_run,
};
