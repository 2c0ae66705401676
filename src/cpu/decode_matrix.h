/* The matrix unit of an instruction set, or that it has none: then nothing of this is called. */
#ifndef HD_DECODE_MATRIX_H
#define HD_DECODE_MATRIX_H

#include "decode_task.h"

#if DECODE_MATRIX
#include "decode_amx.h"
#else

HD_INLINE void matrix_begin(const decode_sizes_t *z)
{
    (void)z;
}

HD_INLINE void matrix_end(void)
{
}

HD_INLINE void matrix_pack(decode_task_t *task)
{
    (void)task;
}

HD_INLINE void matrix_scores(decode_task_t *task, decode_block_t *block, decode_ahead_t ahead)
{
    (void)task, (void)block, (void)ahead;
}

HD_INLINE void matrix_add(decode_task_t *task, const decode_block_t *block, decode_ahead_t ahead)
{
    (void)task, (void)block, (void)ahead;
}

#endif

#endif
