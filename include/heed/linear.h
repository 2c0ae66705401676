/* Heed: linear layers split over ranks (tensor parallelism), by a BLAS and a communicator
 * (Shoeybi et al., Megatron-LM, 2019).
 *
 *     out = x w^T + bias        x [M,K], w [N,K], bias [N], out [M,N]
 *
 * COLUMN: a rank has N / P rows of w, and of bias. Nothing moves, unless out is to be gathered.
 * ROW:    a rank has K / P columns of w and of x. Products are added over ranks, the bias once. A
 * gated MLP is two COLUMN layers and a ROW layer, attention a COLUMN layer for its heads'
 * q, k, v and a ROW layer after them: one reduction each.
 *
 * The communicator says where a layer computes: in the memory that its messages lie in.
 *
 * On the host products are made by whichever cblas_sgemm the system has (OpenBLAS, BLIS, MKL, the
 * reference), loaded when it is first asked for; Heed links none. It runs its own threads.
 *
 * On a CUDA device (a communicator of NCCL) by cuBLAS, loaded in the same way, in f32, bf16 or f16
 * with sums in f32. Products are rounded to out's dtype before ranks add them. All is enqueued on
 * comm.stream: what the caller enqueues there before is done before, and COLUMN without gather is
 * not waited for. What ranks tell each other is, as comm.h says of wait and of collectives. It has
 * not run on a GPU. */
#ifndef HEED_LINEAR_H
#define HEED_LINEAR_H

#include "comm.h"
#include "split.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zero is the default of every field. Fields are only ever added at the end. Tensors have data,
 * where comm has it; their last axis is dense, a row may lie anywhere: a slice of a whole weight is
 * a view. On the host all are f32; on a device x and w are f32, bf16 or f16, out as x or f32, bias
 * as out. */
typedef struct heed_linear_desc {
    uint32_t struct_size;
    heed_linear_kind_t split; /* as in split.h, whose heed_linear_slice tells a rank's part */
    int32_t gather;           /* COLUMN: 1: every rank gets all N columns of out */
    int32_t scatter;          /* ROW: 1: a rank gets M / P rows of out, those of its place (sequence
                                 parallelism); M has to be a multiple of P */
    heed_tensor_t x;          /* COLUMN [M,K]; ROW [M,K/P] */
    heed_tensor_t w;          /* COLUMN [N/P,K]; ROW [N,K/P] */
    heed_tensor_t bias;       /* COLUMN [N/P]; ROW [N], the same on all ranks; optional */
    heed_tensor_t out; /* COLUMN [M,N/P], or [M,N] gathered; ROW [M,N], or [M/P,N] scattered; dense
                          where ranks exchange it */
    int32_t unchecked; /* 1: ranks do not compare their descriptors, for they have: a call with the
                          same shapes went well. One that fails leaves the others to the time-out */
} heed_linear_desc_t;

static inline heed_linear_desc_t heed_linear_desc(void)
{
#ifdef __cplusplus
    heed_linear_desc_t desc = {};
#else
    heed_linear_desc_t desc = {0};
#endif
    desc.struct_size = (uint32_t)sizeof(desc);
    return desc;
}

/* Called by every rank; M, N, the widths of parts (equal on all ranks) and dtypes are compared
 * before anything moves. Errors: NULL, STRUCT_SIZE, VALUE (memory that lies on another device than
 * its tensor says too), SHAPE, STRIDE, DTYPE, OUT_OF_MEMORY; UNSUPPORTED where no BLAS or cuBLAS is
 * installed, or where a tensor is of another device than comm; NO_DEVICE where the context has none
 * such, DEVICE; COMM. */
HEED_API HEED_MUST_USE heed_status_t heed_parallel_linear(heed_context_t *context,
                                                          const heed_comm_t *comm,
                                                          const heed_linear_desc_t *desc);

/* The BLAS's file, "" where there is none. Static. */
HEED_API const char *heed_linear_library(void);

#ifdef __cplusplus
}
#endif
#endif
