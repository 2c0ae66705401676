/* Tensor maps by the driver's encoder, which is looked up when it is first needed: nothing links
 * to the driver. */
#include "tensor_map.h"
#include "cuda.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <stdatomic.h>

_Static_assert(sizeof(hd_tensor_map_t) == sizeof(CUtensorMap), "the layout of CUtensorMap");

typedef CUresult encode_t(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                          const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                          const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                          CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* NULL where the driver has none. */
static encode_t *find_encoder(void)
{
    static _Atomic(encode_t *) found;
    encode_t *encode = atomic_load(&found);
    if (encode)
        return encode;
    enum cudaDriverEntryPointQueryResult result;
    void *symbol = NULL;
#if CUDART_VERSION >= 13000
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                                         cudaEnableDefault, &result);
#else
    cudaError_t error =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &symbol, cudaEnableDefault, &result);
#endif
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess)
        return NULL;
    *(void **)&encode = symbol;
    atomic_store(&found, encode);
    return encode;
}

static CUtensorMapDataType type_of(heed_dtype_t dtype)
{
    return dtype == HEED_BF16  ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
           : dtype == HEED_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
           : dtype == HEED_F32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                               : CU_TENSOR_MAP_DATA_TYPE_UINT8;
}

heed_status_t hd_cuda_tensor_map(hd_tensor_map_t *map, const hd_map_desc_t *desc, const char *name)
{
    if ((uintptr_t)desc->data % 16)
        return hd_cuda_fail(HEED_ERROR_ALIGNMENT, "%s at %p is not aligned to 16 bytes", name,
                            desc->data);
    cuuint64_t sizes[HD_MAP_AXES], strides[HD_MAP_AXES - 1];
    cuuint32_t box[HD_MAP_AXES], steps[HD_MAP_AXES];
    for (int i = 0; i < HD_MAP_AXES; i++) {
        sizes[i] = (cuuint64_t)desc->sizes[i];
        box[i] = (cuuint32_t)desc->box[i];
        steps[i] = 1;
        if (i > 0)
            strides[i - 1] = (cuuint64_t)desc->strides[i];
        if (i > 0 && desc->strides[i] % 16)
            return hd_cuda_fail(HEED_ERROR_ALIGNMENT,
                                "%s: a stride of %lld bytes is no multiple of 16", name,
                                (long long)desc->strides[i]);
    }
    encode_t *encode = find_encoder();
    if (!encode)
        return hd_cuda_fail(HEED_ERROR_DEVICE, "the driver has no cuTensorMapEncodeTiled");
    CUresult result =
        encode((CUtensorMap *)(void *)map, type_of(desc->dtype), HD_MAP_AXES, (void *)desc->data,
               sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
               desc->swizzle ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS)
        return HEED_OK;
    return hd_cuda_fail(HEED_ERROR_DEVICE,
                        "%s: the driver takes no tensor map of %lld x %lld x %lld x %lld "
                        "(CUresult %d)",
                        name, (long long)desc->sizes[0], (long long)desc->sizes[1],
                        (long long)desc->sizes[2], (long long)desc->sizes[3], (int)result);
}
