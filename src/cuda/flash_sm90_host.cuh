/* The host's side of cuda:flash_sm90 and of its variants: what is supported, maps, launching. */
#ifndef HD_FLASH_SM90_HOST_CUH
#define HD_FLASH_SM90_HOST_CUH

#include "flash_sm90_kernel.cuh"
#include "cuda.h"

namespace flash_sm90
{

enum {
    MAX_DIM = 256,
    PIECE = 16,                  /* bytes that the copy engine counts in */
    L2_BYTES = 24 * 1024 * 1024, /* what keys and values of a section may take */
};

/* Of an axis that is there once, the stride is never used. */
static inline int64_t stride_of(int64_t extent, int64_t stride)
{
    return extent > 1 ? stride : (int64_t)PIECE;
}

/* Whether the copy engine can walk the tensor: rows without gaps, in steps of 16 bytes. */
static inline bool is_mappable(const heed_tensor_t *tensor)
{
    const int64_t *shape = tensor->shape, *strides = tensor->strides;
    bool good = shape[3] == 1 || strides[3] == 1;
    for (int i = 0; i < 3; i++) {
        int64_t bytes = stride_of(shape[i], strides[i] * hd_dtype_bytes(tensor->dtype));
        good = good && bytes > 0 && bytes % PIECE == 0 && bytes < INT64_C(1) << 40;
    }
    return good;
}

/* Whether the operands begin where the copy engine can fetch them: if not, another kernel does. */
static inline bool is_aligned(const hd_attention_t *a)
{
    return ((uintptr_t)a->q.data | (uintptr_t)a->k.data | (uintptr_t)a->v.data) % PIECE == 0;
}

/* A map of [B,S,H,D] in boxes of `rows` rows by 128 bytes. */
static inline heed_status_t make_map(hd_tensor_map_t *map, const hd_view_t *view,
                                     const heed_tensor_t *tensor, int rows, const char *name)
{
    hd_map_desc_t desc = {};
    desc.dtype = tensor->dtype;
    desc.data = view->data;
    desc.swizzle = SLAB_BYTES;
    const int axes[HD_MAP_AXES] = {3, 1, 2, 0};
    const int64_t strides[HD_MAP_AXES] = {view->elem, view->row, view->head, view->batch};
    for (int i = 0; i < HD_MAP_AXES; i++) {
        desc.sizes[i] = tensor->shape[axes[i]];
        desc.strides[i] = stride_of(desc.sizes[i], strides[i]);
        desc.box[i] = i == 0 ? SLAB_BYTES / (int)hd_dtype_bytes(tensor->dtype) : i == 1 ? rows : 1;
    }
    return hd_cuda_tensor_map(map, &desc, name);
}

static inline heed_status_t make_maps(params_t *p, const heed_attention_desc_t *desc, int keys)
{
    heed_status_t status = make_map(&p->q, &p->a.q, &desc->q, ROWS, "q");
    if (status == HEED_OK && p->a.keys > 0)
        status = make_map(&p->k, &p->a.k, &desc->k, keys, "k");
    if (status == HEED_OK && p->a.keys > 0)
        status = make_map(&p->v, &p->a.v, &desc->v, keys, "v");
    if (status == HEED_OK && p->tma_store)
        status = make_map(&p->out, &p->a.out, &desc->out, 16, "out");
    return status;
}

/* What does not depend on operands' addresses or tile sizes. */
static inline void fill_params(params_t *p, const heed_attention_desc_t *desc, int queries)
{
    const hd_attention_t *a = &p->a;
    double bytes =
        (double)hd_dtype_bytes(a->k.dtype) * (double)a->keys * (a->d + a->dv) / (double)a->group;
    double planes = bytes > 0 ? L2_BYTES / bytes : 1;
    p->scale = fmaxf(fabsf(a->scale) * 1.44269504f, 0x1p-126f);
    p->row_tiles = (int32_t)hd_ceil_div(a->queries, queries);
    p->planes = (int32_t)(a->batch * a->heads);
    p->section = planes < 1 ? 1 : planes < p->planes ? (int32_t)planes : p->planes;
    p->tiles = p->row_tiles * p->planes;
    p->exact = a->scale < 0;
    p->tma_store = !a->merge && a->out.dtype == a->q.dtype && is_mappable(&desc->out) &&
                   (uintptr_t)a->out.data % PIECE == 0;
}

/* Enqueues an instance. */
template <class C>
static heed_status_t launch_instance(const heed_launch_t *launch, params_t *p, int multiprocessors,
                                     int *error)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    fill_params(p, desc, C::QUERIES);
    heed_status_t status = make_maps(p, desc, C::KEYS);
    if (status != HEED_OK)
        return status;
    int blocks = multiprocessors;
    blocks = blocks < p->tiles ? blocks : p->tiles;
    while ((p->tiles / blocks + 1) >> p->shift > 32 * REDO_WORDS)
        p->shift++;
    /* A bit for several tiles would merge some of them twice. */
    if (p->shift && p->a.merge)
        p->exact = 1;
    *error = HD_LAUNCH(attend<C>, dim3((unsigned)blocks), dim3(C::THREADS), C::SHARED,
                       launch->stream.native, *p);
    return HEED_OK;
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const heed_tensor_t *inputs[] = {&desc->q, &desc->k, &desc->v};
    const int64_t *q = desc->q.shape, *k = desc->k.shape, *v = desc->v.shape;
    enum { SHARED_BYTES = 227 * 1024 };
    if (device->shared_bytes < SHARED_BYTES)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "needs %d bytes of shared memory: this card has %d", SHARED_BYTES,
                              device->shared_bytes);
    if (q[3] > MAX_DIM || v[3] > MAX_DIM)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape[3]=%lld, v.shape[3]=%lld: takes at most %d", (long long)q[3],
                              (long long)v[3], MAX_DIM);
    for (int i = 0; i < 3; i++)
        if (!is_mappable(inputs[i]))
            return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                                  "%s.strides: rows must begin at multiples of %d bytes, with no "
                                  "stride of 0",
                                  operands[i], PIECE);
    double tiles = (double)hd_ceil_div(q[1], ROWS) * (double)q[0] * (double)q[2];
    if (tiles > 1 << 28 || q[1] > 1 << 30 || k[1] > 1 << 30)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape, k.shape: Sq=%lld, Sk=%lld, B*H=%lld are beyond 2^30",
                              (long long)q[1], (long long)k[1], (long long)(q[0] * q[2]));
    return hd_sm90_takes(device, why);
}

/* A launch; then full rounds of tiles at two thirds of the tensor cores' peak. A guess until it is
 * measured. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const int64_t *q = desc->q.shape;
    hd_visibility_t visible = hd_visibility(desc);
    enum { TILE = 128, FLOPS_A_CLOCK = 4096 };
    double rows = (double)hd_max(q[1], 1), padded = (double)hd_ceil_div(q[1], TILE) * TILE;
    double tiles = padded / TILE * (double)q[0] * (double)q[2];
    double processors = device->multiprocessors > 0 ? device->multiprocessors : 132;
    double rounds = ceil(tiles / processors) * processors / fmax(tiles, 1);
    double clock_ghz = device->clock_khz > 0 ? device->clock_khz * 1e-6 : 1.8;
    double pairs = hd_band_pairs(&visible) * (double)q[0] * (double)q[2] * padded / rows * rounds;
    double reach = desc->tiles ? 0.2 : 0.65;
    return 4000 + 2 * pairs * (double)(q[3] + desc->v.shape[3]) /
                      (reach * FLOPS_A_CLOCK * clock_ghz * processors);
}

} // namespace flash_sm90

#endif
