/* Casts as an operation: what its files share. */
#ifndef HD_OP_CAST_H
#define HD_OP_CAST_H

#include "casting.h"
#include "op.h"

/* HEED_CAST_CAN_* of a dtype, 0: casts do not take it. */
uint64_t hd_cast_dtype_bit(heed_dtype_t dtype);

/* hd_op_t.complete */
heed_status_t hd_cast_complete(void *at);

#endif
