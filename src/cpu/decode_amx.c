/* cpu:decode_amx, few queries over many keys on the matrix unit of Intel's servers, 32 keys at a
 * time: q of bf16, K and V of bf16, E4M3 or E5M2, all rows of a group in tiles of 16. What the unit
 * does not take (other types, rows that cannot be read in place, blocks that are not whole, values
 * that a row does not see) goes as in decode_avx512vbmi.c. The algorithm is told in decode_body.h,
 * the products in decode_amx.h. Weights are rounded to bf16, as cpu:flash_amx does.
 *
 * Limits of one core, in cycles for 32 keys of head size 128: 16 loads and 8 dots of 8 to 13 for
 * scores, 128 stores of pairs of V, 4 x 80 for sums (loading and storing them takes longer than the
 * dots), 45 instructions of the softmax for each row. Measured: docs/performance.md; it pays from
 * four rows on. Rows that come next are fetched all the time, also while weights are made: fetched
 * in bursts between products, groups of eight and sixteen took a fifth longer.
 *
 * Tried and left: blocks of 64 keys (a tenth slower), whole rows of V packed before the sums (a
 * fifth), products on the unit for scores alone (2 points more than without it for groups of four,
 * a fifth slower than this for sixteen) or for values alone (slower than without it). */
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
