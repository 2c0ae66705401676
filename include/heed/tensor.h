/* Heed: tensors. A tensor describes memory that the caller owns; Heed never copies or frees it.
 *
 * heed_tensor_t has the layout of DLPack's DLTensor (dlpack.h, v1), so a DLTensor* may be cast to a
 * heed_tensor_t* on the little-endian machines that Heed builds on. There is no layout enum: the
 * logical axes are fixed by each operation and the order in memory is said by the strides. */
#ifndef HEED_TENSOR_H
#define HEED_TENSOR_H

#include "status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* {code, bits, lanes} of DLPack's DLDataType in one word: compare with ==. */
typedef uint32_t heed_dtype_t;
#define HEED_DTYPE(code, bits) ((uint32_t)(code) | (uint32_t)(bits) << 8 | 1u << 16)

enum {
    HEED_I8 = HEED_DTYPE(0, 8),
    HEED_I32 = HEED_DTYPE(0, 32),
    HEED_I64 = HEED_DTYPE(0, 64),
    HEED_U8 = HEED_DTYPE(1, 8),
    HEED_F16 = HEED_DTYPE(2, 16),
    HEED_F32 = HEED_DTYPE(2, 32),
    HEED_F64 = HEED_DTYPE(2, 64),
    HEED_BF16 = HEED_DTYPE(4, 16),
    HEED_BOOL = HEED_DTYPE(6, 8),
    HEED_E4M3IEEE = HEED_DTYPE(8, 8),  /* with infinities, largest 240 */
    HEED_E4M3 = HEED_DTYPE(10, 8),     /* OCP "fn": no infinities, largest 448 */
    HEED_E4M3FNUZ = HEED_DTYPE(11, 8), /* half of OCP's value, one NaN, no -0, largest 240 */
    HEED_E5M2 = HEED_DTYPE(12, 8),     /* with infinities, largest 57344 */
    HEED_E5M2FNUZ = HEED_DTYPE(13, 8),
    HEED_E8M0 = HEED_DTYPE(14, 8) /* a power of two: 2^(code - 127); 0xff is NaN */
};

/* DLPack's device types. */
enum { HEED_DEVICE_CPU = 1, HEED_DEVICE_CUDA = 2 };

typedef struct heed_device {
    int32_t type; /* HEED_DEVICE_CPU, HEED_DEVICE_CUDA */
    int32_t id;   /* ordinal, 0 for the CPU */
} heed_device_t;

enum { HEED_MAX_NDIM = 8 };

typedef struct heed_tensor {
    void *data;           /* may be NULL in a descriptor that is only planned */
    heed_device_t device; /* where data lives */
    int32_t ndim;         /* 0: this tensor is absent */
    heed_dtype_t dtype;
    int64_t *shape;       /* [ndim], owned by the caller, read while a plan is made */
    int64_t *strides;     /* [ndim] in elements, NULL: dense in the order of the axes */
    uint64_t byte_offset; /* added to data */
} heed_tensor_t;

/* Bytes of one element, 0 for a dtype that Heed does not know. */
HEED_API size_t heed_dtype_size(heed_dtype_t dtype);

/* "f32", "bf16", "e4m3", ...; "?" for a dtype that Heed does not know. Static. */
HEED_API const char *heed_dtype_name(heed_dtype_t dtype);

/* The dtype with that name; an error that lists the known ones otherwise. */
HEED_API HEED_MUST_USE heed_status_t heed_dtype_parse(const char *name, heed_dtype_t *dtype);

/* A tensor on the CPU over the caller's memory, shape and strides (NULL: dense). */
static inline heed_tensor_t heed_tensor(void *data, heed_dtype_t dtype, int32_t ndim,
                                        int64_t *shape, int64_t *strides)
{
    heed_tensor_t tensor;
    tensor.data = data;
    tensor.device.type = HEED_DEVICE_CPU;
    tensor.device.id = 0;
    tensor.ndim = ndim;
    tensor.dtype = dtype;
    tensor.shape = shape;
    tensor.strides = strides;
    tensor.byte_offset = 0;
    return tensor;
}

#ifndef __cplusplus
/* A dense CPU tensor with its shape in place, C only:
 *     desc.q = HEED_TENSOR(data, HEED_F32, B, S, H, D);
 * The shape lives until the enclosing block ends. */
#define HEED_TENSOR(data, dtype, ...)                                                           \
    heed_tensor((data), (dtype), (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), \
                (int64_t[]){__VA_ARGS__}, NULL)
#endif

#ifdef __cplusplus
}
#endif
#endif
