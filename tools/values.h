/* The numbers of a file's tensor, a piece at a time, whatever their dtype. */
#ifndef TOOLS_VALUES_H
#define TOOLS_VALUES_H

#include "safetensors.h"

enum { VALUES_PIECE = 1 << 16 };

/* Whether values_read knows the dtype. */
bool values_known(heed_context_t *context, const st_dtype_t *dtype);

/* Writes elements from .. from+count-1, at most VALUES_PIECE. Integers beyond 2^53 are rounded. */
heed_status_t values_read(heed_context_t *context, const st_tensor_t *tensor, int64_t from,
                          int64_t count, double *to);

/* Whether the dtype is one of floating-point numbers. */
bool values_are_float(const st_dtype_t *dtype);

#endif
