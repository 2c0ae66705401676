/* cuda:cast, casts on any card by the definition of the CPU: casting.h is the same code.
 *
 * A thread takes 16 elements that follow each other in the order of the axes. Where they are dense
 * in src and dst, aligned to 16 bytes and of one group, they move by 16-byte accesses; otherwise
 * one by one. Statistics are gathered in the same pass: a thread's over its elements, a warp's by
 * shuffles, then one atomic. Maxima are of integers and counts are sums, so that results do not
 * depend on the order.
 *
 * Kernels in a row on one stream: clear; with computed scales the maxima; the scales; the cast;
 * what is stored of amax and counts; the transposed copy, from dst. Compiles for every
 * architecture; has run in the emulator only. */
#include "cast_kernels.cuh"
#include "cuda.h"

/* ---- the host's side ------------------------------------------------------------------------- */

static const char *const operands[] = {"src",  "dst",    "scale",      "scale_out",
                                       "amax", "counts", "transposed", "loss"};

static bool is_dense(const heed_tensor_t *tensor)
{
    int64_t stride = 1;
    for (int i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->shape[i] > 1 && tensor->strides[i] != stride)
            return false;
        stride *= tensor->shape[i];
    }
    return true;
}

static int64_t count_groups(const heed_cast_desc_t *desc, int64_t *elements)
{
    int64_t block[HEED_MAX_NDIM], groups = 1;
    *elements = 1;
    hd_cast_blocks(desc, block);
    for (int i = 0; i < desc->src.ndim; i++) {
        groups *= hd_ceil_div(desc->src.shape[i], block[i]);
        *elements *= desc->src.shape[i];
    }
    return groups;
}

static size_t workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    int64_t elements, groups = count_groups((const heed_cast_desc_t *)at, &elements);
    (void)device, (void)threads;
    return HEED_CAST_COUNTS_SIZE * sizeof(unsigned long long) +
           (size_t)groups * 2 * sizeof(uint32_t);
}

static dim3 blocks_for(int64_t work, int64_t a_thread)
{
    int64_t blocks = hd_ceil_div(hd_ceil_div(work, a_thread), THREADS);
    return dim3((unsigned)hd_max(blocks, 1));
}

/* The first error of the launches in their order. */
static int launch_all(const params_t *p, void *stream)
{
    const hd_cast_t *cast = &p->cast;
    dim3 block(THREADS), all = blocks_for(p->elements, RUN);
    dim3 groups = blocks_for(hd_max(cast->group_count, HEED_CAST_COUNTS_SIZE), 1);
    int error = HD_LAUNCH(clear, groups, block, 0, stream, *p);
    if (!error && cast->scale_out && p->elements)
        error = HD_LAUNCH(find_amax, all, block, 0, stream, *p);
    if (!error && hd_cast_scaled(cast) && p->elements)
        error =
            HD_LAUNCH(settle, blocks_for(cast->group_count, GROUPS_A_THREAD), block, 0, stream, *p);
    if (!error && p->elements)
        error = HD_LAUNCH(cast_all, all, block, 0, stream, *p);
    if (!error && (cast->amax || cast->counts))
        error = HD_LAUNCH(store_statistics, groups, block, 0, stream, *p);
    if (!error && p->transposed && p->elements)
        error = HD_LAUNCH(transpose, all, block, 0, stream, *p);
    return error;
}

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_cast_desc_t *desc = (const heed_cast_desc_t *)launch->desc;
    params_t p = {hd_cast(desc, launch->buffers)};
    count_groups(desc, &p.elements);
    p.dense = is_dense(&desc->src) && is_dense(&desc->dst);
    p.counts = (unsigned long long *)launch->workspace;
    p.multipliers = (uint32_t *)(p.counts + HEED_CAST_COUNTS_SIZE);
    p.amax = p.multipliers + p.cast.group_count;
    p.transposed = (char *)launch->buffers[HEED_CAST_TRANSPOSED];
    for (int i = 0; p.transposed && i < desc->transposed.ndim; i++)
        p.transposed_stride[i] = desc->transposed.strides[i];
    if (p.elements == 0 && !p.cast.counts)
        return HEED_OK;
    if (p.cast.src == p.cast.dst && desc->src.dtype != desc->dst.dtype &&
        hd_dtype_bytes(desc->src.dtype) != hd_dtype_bytes(desc->dst.dtype))
        return hd_cuda_fail(HEED_ERROR_VALUE,
                            "dst at %p is src's memory: cuda:cast does not narrow in place",
                            (void *)p.cast.dst);

    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(launch, desc->src.device, operands, HEED_CAST_OPERANDS, &scope);
    if (status != HEED_OK)
        return status;
    return hd_cuda_leave(&scope, launch_all(&p, launch->stream.native), "cuda:cast");
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    int64_t elements, groups = count_groups((const heed_cast_desc_t *)at, &elements);
    if (device->compute_major < HD_CUDA_MIN_MAJOR)
        return hd_cuda_refuse(
            why, HEED_ERROR_UNSUPPORTED, "needs compute capability %d.%d: this card has %d.%d",
            HD_CUDA_MIN_MAJOR, HD_CUDA_MIN_MINOR, device->compute_major, device->compute_minor);
    if (hd_ceil_div(elements, RUN * THREADS) > INT32_MAX ||
        hd_ceil_div(groups, THREADS) > INT32_MAX)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "src: %lld elements, one launch takes %lld", (long long)elements,
                              (long long)INT32_MAX * RUN * THREADS);
    return 1;
}

/* Launches, and bytes at half of an H100's bandwidth for each multiprocessor: a guess that nothing
 * was measured for. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_cast_desc_t *desc = (const heed_cast_desc_t *)at;
    int64_t elements;
    count_groups(desc, &elements);
    (void)threads;
    double bytes = (double)elements *
                   (double)(hd_dtype_bytes(desc->src.dtype) + hd_dtype_bytes(desc->dst.dtype));
    return 10000 + bytes / (12.0 * (double)hd_max(device->multiprocessors, 1));
}

extern "C" const heed_impl_t hd_impl_cast;
const heed_impl_t hd_impl_cast = {
    .struct_size = sizeof(heed_impl_t),
    .op = "cast",
    .name = "cuda:cast",
    .about = "the CPU's definition, 16 elements a thread; any card",
    .device_type = HEED_DEVICE_CUDA,
    .features = HEED_CAST_CAN_ALL & ~HEED_CAST_CAN_LOSS,
    .supports = supports,
    .estimate = estimate,
    .workspace = workspace,
    .run = run,
};
