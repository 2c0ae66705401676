/* What the files of the backend's host side share. They include the toolkit's headers, unlike the
 * kernels, whose side is cuda.h. */
#ifndef HD_CUDA_HOST_H
#define HD_CUDA_HOST_H

#include "cuda.h"

#include <cuda_runtime_api.h>

/* The status of an error that doing `what` on a card gave, with its sentence. An error that leaves
 * the card unusable for the rest of the process says so each time. */
heed_status_t hd_cuda_status(cudaError_t error, int id, const char *what);

/* hd_device_calls_t.check. */
heed_status_t hd_cuda_check(int32_t id, const char *name, const void *at, void *stream);

#endif
