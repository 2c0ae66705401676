/* The kernels of cuda:cast (cast.cu), and what a thread does with its elements. */
#ifndef HD_CAST_KERNELS_CUH
#define HD_CAST_KERNELS_CUH

#include "simt.cuh"

#include "../common/casting.h"

enum { THREADS = 256, RUN = 16, GROUPS_A_THREAD = 4, WIDE = 16 /* bytes */ };

typedef struct params {
    hd_cast_t cast;
    int64_t elements;
    bool dense;                   /* src and dst: the offset is the index */
    uint32_t *multipliers, *amax; /* [groups] of the workspace */
    unsigned long long *counts;   /* [HEED_CAST_COUNTS_SIZE] */
    char *transposed;
    int64_t transposed_stride[HEED_MAX_NDIM];
} params_t;

static __device__ inline int64_t thread_number()
{
    return (int64_t)blockIdx.x * THREADS + (int64_t)threadIdx.x;
}

/* ---- where elements are ---------------------------------------------------------------------- */

typedef struct place {
    int64_t src, dst, group; /* offsets in elements */
} place_t;

static __device__ inline place_t find_place(const hd_cast_t *cast, int64_t index)
{
    place_t place = {0, 0, 0};
    int64_t step = 1;
    for (int i = cast->ndim - 1; i >= 0; i--) {
        int64_t at = index % cast->shape[i];
        place.src += at * cast->src_stride[i];
        place.dst += at * cast->dst_stride[i];
        place.group += at / cast->block[i] * step;
        step *= cast->groups[i];
        index /= cast->shape[i];
    }
    return place;
}

/* Whether RUN elements from `index` on are one piece of memory and of one group. */
static __device__ inline bool is_run(const params_t *p, int64_t index)
{
    const hd_cast_t *cast = &p->cast;
    int last = cast->ndim - 1;
    if (!p->dense || index + RUN > p->elements)
        return false;
    if (((uintptr_t)cast->src | (uintptr_t)cast->dst) % WIDE)
        return false;
    int64_t at = index % cast->shape[last];
    return cast->group_count == 1 || (at + RUN <= cast->shape[last] &&
                                      at / cast->block[last] == (at + RUN - 1) / cast->block[last]);
}

/* ---- statistics ------------------------------------------------------------------------------ */

/* The largest magnitude of one group from all lanes of a warp; group -1: the lane has none. */
static __device__ void raise_amax(const params_t *p, int64_t group, uint32_t most)
{
    int64_t first = __shfl_sync(~0u, group, 0);
    if (!__all_sync(~0u, group == first)) {
        if (group >= 0 && most)
            atomicMax(&p->amax[group], most);
        return;
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        uint32_t other = __shfl_xor_sync(~0u, most, lanes);
        most = other > most ? other : most;
    }
    if (threadIdx.x % 32 == 0 && group >= 0 && most)
        atomicMax(&p->amax[group], most);
}

static __device__ void add_counts(const params_t *p, const hd_cast_stats_t *stats)
{
    for (int i = 0; i < HEED_COUNT_BAD_SCALES; i++) {
        uint32_t sum = (uint32_t)stats->counts[i];
        for (int lanes = 16; lanes > 0; lanes /= 2)
            sum += __shfl_xor_sync(~0u, sum, lanes);
        if (threadIdx.x % 32 == 0 && sum)
            atomicAdd(&p->counts[i], (unsigned long long)sum);
    }
}

/* ---- one element ----------------------------------------------------------------------------- */

/* hd_exact_scale by the card's multiplier, which rounds and keeps subnormal numbers alike. */
static __device__ inline uint32_t multiply(uint32_t bits, uint32_t multiplier)
{
    if ((bits & HD_F32_MAGNITUDE) > HD_F32_INF)
        return bits | 0x400000;
    uint32_t product = hd_to_bits(hd_from_bits(bits) * hd_from_bits(multiplier));
    return (product & HD_F32_MAGNITUDE) > HD_F32_INF ? (uint32_t)HD_F32_NAN : product;
}

static __device__ inline uint32_t convert(const params_t *p, uint32_t bits, uint32_t multiplier,
                                          int64_t index, hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &p->cast;
    uint32_t random = 0, magnitude = bits & HD_F32_MAGNITUDE;
    uint32_t product = hd_cast_scaled(cast) ? multiply(bits, multiplier) : bits;
    if (cast->rule.rounding == HEED_ROUND_STOCHASTIC)
        random = hd_fp8_random(cast->seed, (uint64_t)index);
    uint32_t element = hd_cast_round(cast->dst_dtype, product, cast->rule, random);
    stats->amax = magnitude > stats->amax ? magnitude : stats->amax;
    if (cast->counts) {
        bool clipped;
        int class_of = hd_cast_class(cast->dst_dtype, cast->largest, bits, product, element,
                                     cast->rule, random, &clipped);
        stats->counts[HEED_COUNT_CLIPPED] += clipped;
        if (class_of >= 0)
            stats->counts[class_of]++;
    }
    return element;
}

/* ---- 16-byte accesses ------------------------------------------------------------------------ */

typedef union run {
    uint4 wide[RUN * sizeof(float) / WIDE];
    char bytes[RUN * sizeof(float)];
} run_t;

static __device__ inline void load_run(run_t *run, const char *from, int64_t bytes)
{
    for (int i = 0; i < (int)(RUN * sizeof(float) / WIDE); i++)
        if (i * WIDE < bytes)
            run->wide[i] = ((const uint4 *)from)[i];
}

static __device__ inline void store_run(char *to, const run_t *run, int64_t bytes)
{
    for (int i = 0; i < (int)(RUN * sizeof(float) / WIDE); i++)
        if (i * WIDE < bytes)
            ((uint4 *)to)[i] = run->wide[i];
}

static __device__ void cast_run(const params_t *p, int64_t index, uint32_t multiplier,
                                hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &p->cast;
    int from = (int)hd_dtype_bytes(cast->src_dtype), to = (int)hd_dtype_bytes(cast->dst_dtype);
    run_t source, result;
    load_run(&source, cast->src + index * from, RUN * from);
    for (int i = 0; i < RUN; i++) {
        uint32_t bits = hd_cast_load(cast->src_dtype, source.bytes + i * from);
        uint32_t element = convert(p, bits, multiplier, index + i, stats);
        hd_cast_store(cast->dst_dtype, result.bytes + i * to, element);
    }
    store_run(cast->dst + index * to, &result, RUN * to);
}

/* ---- kernels --------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) clear(const __grid_constant__ params_t p)
{
    int64_t group = thread_number();
    if (group < p.cast.group_count)
        p.amax[group] = 0;
    if (group < HEED_CAST_COUNTS_SIZE)
        p.counts[group] = 0;
}

static __global__ void __launch_bounds__(THREADS) find_amax(const __grid_constant__ params_t p)
{
    const hd_cast_t *cast = &p.cast;
    int64_t index = thread_number() * RUN, group = -1;
    int size = (int)hd_dtype_bytes(cast->src_dtype);
    uint32_t most = 0;
    if (index < p.elements && is_run(&p, index)) {
        run_t source;
        group = find_place(cast, index).group;
        load_run(&source, cast->src + index * size, RUN * size);
        for (int i = 0; i < RUN; i++) {
            uint32_t bits = hd_cast_load(cast->src_dtype, source.bytes + i * size);
            most = (bits & HD_F32_MAGNITUDE) > most ? bits & HD_F32_MAGNITUDE : most;
        }
    } else {
        for (int64_t i = index; i < hd_min(index + RUN, p.elements); i++) {
            place_t place = find_place(cast, i);
            uint32_t bits = hd_cast_load(cast->src_dtype, cast->src + place.src * size);
            atomicMax(&p.amax[place.group], bits & HD_F32_MAGNITUDE);
        }
    }
    raise_amax(&p, group, most);
}

static __global__ void __launch_bounds__(THREADS) settle(const __grid_constant__ params_t p)
{
    const hd_cast_t *cast = &p.cast;
    int64_t begin = thread_number() * GROUPS_A_THREAD;
    for (int64_t i = begin; i < hd_min(begin + GROUPS_A_THREAD, cast->group_count); i++) {
        hd_scale_t scale;
        if (cast->scale) {
            int64_t offset = hd_cast_group_offset(cast, cast->scale_stride, i);
            scale =
                hd_scale_given(cast->scale_dtype,
                               cast->scale + offset * hd_dtype_bytes(cast->scale_dtype), cast->use);
        } else {
            scale = hd_scale_computed(p.amax[i], cast->largest, cast->amax_floor, cast->form,
                                      cast->use);
            hd_scale_store(cast, hd_cast_group_offset(cast, cast->scale_stride, i), scale);
        }
        p.multipliers[i] = scale.multiplier;
        if (scale.bad)
            atomicAdd(&p.counts[HEED_COUNT_BAD_SCALES], 1ull);
    }
}

static __global__ void __launch_bounds__(THREADS) cast_all(const __grid_constant__ params_t p)
{
    const hd_cast_t *cast = &p.cast;
    int64_t index = thread_number() * RUN, group = -1;
    int from = (int)hd_dtype_bytes(cast->src_dtype), to = (int)hd_dtype_bytes(cast->dst_dtype);
    bool scaled = hd_cast_scaled(cast), noted = cast->amax && !cast->scale_out;
    hd_cast_stats_t stats = {0, {0}};
    if (index < p.elements && is_run(&p, index)) {
        group = find_place(cast, index).group;
        cast_run(&p, index, scaled ? p.multipliers[group] : 0, &stats);
    } else {
        for (int64_t i = index; i < hd_min(index + RUN, p.elements); i++) {
            place_t place = find_place(cast, i);
            uint32_t bits = hd_cast_load(cast->src_dtype, cast->src + place.src * from);
            stats.amax = 0;
            uint32_t element =
                convert(&p, bits, scaled ? p.multipliers[place.group] : 0, i, &stats);
            hd_cast_store(cast->dst_dtype, cast->dst + place.dst * to, element);
            if (noted)
                atomicMax(&p.amax[place.group], stats.amax);
        }
    }
    if (noted)
        raise_amax(&p, group, group >= 0 ? stats.amax : 0);
    if (cast->counts)
        add_counts(&p, &stats);
}

static __global__ void __launch_bounds__(THREADS)
    store_statistics(const __grid_constant__ params_t p)
{
    const hd_cast_t *cast = &p.cast;
    int64_t i = thread_number();
    if (cast->amax && i < cast->group_count) {
        uint32_t most = p.amax[i] > HD_F32_INF ? (uint32_t)HD_F32_NAN : p.amax[i];
        cast->amax[hd_cast_group_offset(cast, cast->amax_stride, i)] = hd_from_bits(most);
    }
    if (cast->counts && i < HEED_CAST_COUNTS_SIZE)
        cast->counts[i * cast->counts_stride] = (int64_t)p.counts[i];
}

/* Element `index` of the transposed copy, whose last two axes are dst's swapped. */
static __device__ inline void copy_transposed(const params_t *p, int64_t index)
{
    const hd_cast_t *cast = &p->cast;
    int last = cast->ndim - 1;
    int64_t to = 0, from = 0, size = hd_dtype_bytes(cast->dst_dtype);
    for (int i = last; i >= 0; i--) {
        int axis = i >= last - 1 ? 2 * last - 1 - i : i; /* of dst */
        int64_t at = index % cast->shape[axis];
        to += at * p->transposed_stride[i];
        from += at * cast->dst_stride[axis];
        index /= cast->shape[axis];
    }
    for (int64_t i = 0; i < size; i++)
        p->transposed[to * size + i] = cast->dst[from * size + i];
}

static __global__ void __launch_bounds__(THREADS) transpose(const __grid_constant__ params_t p)
{
    int64_t index = thread_number() * RUN;
    for (int64_t i = index; i < hd_min(index + RUN, p.elements); i++)
        copy_transposed(&p, i);
}

#endif
