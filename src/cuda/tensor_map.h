/* Tensor maps: how a Hopper card's copy engine (TMA) sees an operand. In C, without the toolkit's
 * headers; the emulator of tests/emu/cuda has a hd_cuda_tensor_map of its own. */
#ifndef HD_TENSOR_MAP_H
#define HD_TENSOR_MAP_H

#include <heed/heed.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HD_MAP_AXES = 4 };

/* The layout of CUtensorMap: opaque, handed to a kernel in its parameters. */
typedef struct hd_tensor_map {
    uint64_t opaque[16] __attribute__((aligned(64)));
} hd_tensor_map_t;

/* What a map is made of. Axis 0 is the innermost, whose elements follow each other. A copy moves a
 * box: elements outside the tensor read as zeros and are not written. */
typedef struct hd_map_desc {
    heed_dtype_t dtype; /* bf16, f16, f32, or any of one byte */
    const void *data;   /* aligned to 16 */
    int64_t sizes[HD_MAP_AXES];
    int64_t strides[HD_MAP_AXES]; /* in bytes, multiples of 16; that of axis 0 is not read */
    int32_t box[HD_MAP_AXES];     /* elements, at most 256 along an axis */
    int32_t swizzle;              /* bytes: 128 (the box's rows are at most that long) or 0 */
} hd_map_desc_t;

/* Fills *map for the calling thread's current device. `name` is the operand, for sentences. Errors:
 * ALIGNMENT (data, strides), DEVICE. */
heed_status_t hd_cuda_tensor_map(hd_tensor_map_t *map, const hd_map_desc_t *desc, const char *name);

#ifdef __cplusplus
}
#endif
#endif
