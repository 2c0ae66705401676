/* cuda:flash_sm80, flash attention with the tensor cores of Ampere and later, in bf16 and f16. */
#include "cuda.h"
#include "flash_sm80_load.cuh"
#include "flash_sm80_store.cuh"

/* Brings V while the scores are made, and the next K while V is used: K of the block is on its way
 * when it begins. */
template <class C>
static __device__ __forceinline__ void attend_full(const sm80_params_t *p,
                                                   const volatile cold_t *cold, int key, bool last,
                                                   unsigned char *memory, state<C> &s)
{
    scores_t<C> scores;
    hd_cp_async_wait<0>();
    /* K is there for all, and all are done with the former V. */
    __syncthreads();
    start_values<C>(p, key, KEYS, memory);
    find_scores<C>(memory, scores);
    hd_cp_async_wait<0>();
    /* V is there for all, and all are done with this K. */
    __syncthreads();
    int count = KEYS;
    key += KEYS;
    if (last) {
        key = cold->next.key;
        count = cold->next.count;
    }
    start_keys<C>(p, key, count, memory);
    raise_references<C>(p->log2_unit, scores, s);
#pragma unroll
    for (int part = 0; part < KEYS / 16; part++) {
        weigh<C>(p->log2_unit, scores, part, s);
        add_values<C>(memory, scores, part, s);
    }
}

/* The same for a block that not all rows see all of. All warps pass the barriers; one that sees
 * nothing of the block does nothing between them. */
template <class C>
static __device__ __forceinline__ void
attend_masked(const sm80_params_t *p, const volatile cold_t *cold, unsigned char *memory,
              state<C> &s)
{
    scores_t<C> scores;
    if (p->gather)
        gather_block<C>(p, cold, memory);
    hd_cp_async_wait<0>();
    __syncthreads();
    if (!p->gather)
        start_values<C>(p, cold->now.key, cold->now.count, memory);
    /* The former masks were read before this barrier, these are after the next. */
    write_masks<C>(p, cold, memory);
    bool busy = is_busy<C>(cold, warp_index());
    if (busy)
        find_scores<C>(memory, scores);
    hd_cp_async_wait<0>();
    __syncthreads();
    start_keys<C>(p, cold->next.key, cold->next.count, memory);
    if (busy) {
        hide_scores<C>(memory, cold->zero, scores);
        raise_references<C>(p->log2_unit, scores, s);
    }
    if (cold->careful) {
        if (busy)
            add_specials<C>(p->log2_unit, memory, cold->zero, scores, s);
        __syncthreads();
        remove_specials<C>(memory, cold->zero);
        __syncthreads();
    }
    if (busy) {
#pragma unroll
        for (int part = 0; part < KEYS / 16; part++) {
            weigh<C>(p->log2_unit, scores, part, s);
            add_values<C>(memory, scores, part, s);
        }
    }
}

/* All keys. */
template <class C>
static __device__ __forceinline__ void attend_keys(const sm80_params_t *p, volatile cold_t *cold,
                                                   unsigned char *memory, state<C> &s)
{
    begin_state<C>(s);
    begin_steps<C>(p, cold);
    start_keys<C>(p, cold->next.key, cold->next.count, memory);
#pragma unroll 1
    while (cold->next.count > 0) {
        find_step<C>(p, cold);
        int key = cold->now.key;
#pragma unroll 1
        for (int left = cold->now.blocks; left > 0; left--, key += KEYS)
            attend_full<C>(p, cold, key, left == 1, memory, s);
        if (cold->now.blocks == 0)
            attend_masked<C>(p, cold, memory, s);
    }
}

/* Whether any warp's result holds numbers that are none. All are done with the keys then. */
template <class C>
static __device__ inline bool is_lost(unsigned char *memory, const state<C> &s)
{
    bool lost = __any_sync(~0u, has_specials<C>(s));
    if (lane_index() == 0)
        *flag_of<C>(memory, warp_index()) = lost;
    __syncthreads();
    for (int warp = 0; warp < C::WARPS; warp++)
        lost = lost || *flag_of<C>(memory, warp);
    return lost;
}

template <class C>
static __global__ void __launch_bounds__(C::THREADS) attend(const __grid_constant__ sm80_params_t p)
{
    HD_SHARED(memory);
    volatile cold_t cold;
    put_task(&cold, find_task<C>(&p, blockIdx.x));
    cold.careful = cold.zero = 0;
    state<C> s;
    put_sources<C>(&p, &cold, memory);
    load_queries<C>(&p, &cold, memory);
    __syncthreads();
#pragma unroll 1
    for (;; cold.careful = 1) {
        attend_keys<C>(&p, &cold, memory, s);
        if (cold.careful || !cold.masked || !is_lost<C>(memory, s))
            break;
    }
    __syncthreads();
    task_t task = get_task(&cold);
    store_tile<C>(&p, &task, memory, s);
}

/* ---- the host's side ------------------------------------------------------------------------- */

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

/* A kernel for head sizes up to d and dv; the first that fits is taken. */
typedef struct choice {
    int d, dv, rows, threads, shared_bytes;
    int (*launch)(dim3 grid, void *stream, const sm80_params_t *p);
} choice_t;

template <class C> static int launch(dim3 grid, void *stream, const sm80_params_t *p)
{
    return HD_LAUNCH(attend<C>, grid, dim3(C::THREADS), C::BYTES, stream, *p);
}

template <class C> constexpr choice_t choice()
{
    return {C::D, C::DV, C::ROWS, C::THREADS, C::BYTES, launch<C>};
}

#ifdef ONLY128
#define CHOICES(bf16) {choice<config<true,128,128,4,2>>()}
#else
#define CHOICES(bf16)                                                                     \
    {                                                                                     \
        choice<config<bf16, 64, 64, 4, 2>>(), choice<config<bf16, 128, 128, 4, 2>>(),     \
            choice<config<bf16, 192, 128, 4, 2>>(), choice<config<bf16, 256, 256, 8, 1>>(), \
            choice<config<bf16, 256, 256, 4, 1>>(),                                       \
    }
#endif

static const choice_t *choose(const heed_attention_desc_t *desc, int shared_bytes)
{
    enum { COUNT = 5 };
    static const choice_t choices[2][COUNT] = {CHOICES(false), CHOICES(true)};
    const choice_t *of = choices[desc->q.dtype == HEED_BF16];
    for (int i = 0; i < COUNT; i++)
        if (desc->q.shape[3] <= of[i].d && desc->v.shape[3] <= of[i].dv &&
            of[i].shared_bytes <= shared_bytes)
            return &of[i];
    return NULL;
}

/* Whether all rows are runs of whole 16-byte pieces at aligned addresses. */
static bool is_in_pieces(const hd_view_t *view, heed_dtype_t dtype, int columns)
{
    uint64_t all = (uint64_t)(uintptr_t)view->data | (uint64_t)view->batch | (uint64_t)view->row |
                   (uint64_t)view->head;
    return hd_view_is_plain(view, dtype) && all % 16 == 0 && columns % 8 == 0 &&
           view->row <= INT32_MAX;
}

static sm80_params_t make_params(const heed_attention_desc_t *desc, void *const *buffers, int rows)
{
    sm80_params_t p = {hd_attention(desc, buffers)};
    heed_dtype_t dtype = desc->q.dtype;
    p.tiles = hd_ceil_div(p.a.queries, rows);
    p.log2_unit = fabsf(p.a.scale) * 1.44269504088896340736f;
    p.negate = p.a.scale < 0;
    p.gather = !is_in_pieces(&p.a.q, dtype, p.a.d) || !is_in_pieces(&p.a.k, dtype, p.a.d) ||
               !is_in_pieces(&p.a.v, dtype, p.a.dv);
    p.pieces = is_in_pieces(&p.a.out, dtype, p.a.dv) && !p.a.merge;
    p.q_row = (int)p.a.q.row;
    p.k_row = (int)p.a.k.row;
    p.v_row = (int)p.a.v.row;
    p.k_pieces = p.a.d / 8;
    p.v_pieces = p.a.dv / 8;
    return p;
}

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    hd_cuda_scope_t scope;
    int64_t heads = desc->q.shape[0] * desc->q.shape[2];
    if (heads * desc->q.shape[1] == 0)
        return HEED_OK;
    heed_status_t status =
        hd_cuda_enter(launch, desc->q.device, operands, HEED_ATTENTION_OPERANDS, &scope);
    if (status != HEED_OK)
        return status;
    const choice_t *chosen = choose(desc, hd_simt_shared_limit());
    if (!chosen) {
        (void)hd_cuda_leave(&scope, 0, "");
        return hd_cuda_fail(HEED_ERROR_UNSUPPORTED, "cuda:flash_sm80: d=%d, dv=%d fit no tile",
                            (int)desc->q.shape[3], (int)desc->v.shape[3]);
    }
    sm80_params_t p = make_params(desc, launch->buffers, chosen->rows);
    int error = chosen->launch(dim3((unsigned)(p.tiles * heads)), launch->stream.native, &p);
    return hd_cuda_leave(&scope, error, "cuda:flash_sm80");
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const int64_t *q = desc->q.shape, dv = desc->v.shape[3];
    if (device->compute_major < HD_CUDA_MIN_MAJOR)
        return hd_cuda_refuse(
            why, HEED_ERROR_UNSUPPORTED, "needs compute capability %d.%d: this card has %d.%d",
            HD_CUDA_MIN_MAJOR, HD_CUDA_MIN_MINOR, device->compute_major, device->compute_minor);
    if (q[3] > 256 || dv > 256)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape[3]=%d, v.shape[3]=%d: head sizes up to 256", (int)q[3],
                              (int)dv);
    const choice_t *chosen = choose(desc, device->shared_bytes);
    if (!chosen)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape[3]=%d, v.shape[3]=%d: no tile fits this card's %d bytes of "
                              "shared memory",
                              (int)q[3], (int)dv, device->shared_bytes);
    double blocks = (double)hd_ceil_div(q[1], chosen->rows) * (double)q[0] * (double)q[2];
    if (blocks > INT32_MAX)
        return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                              "q.shape: %.0f blocks of %d queries, one launch takes %d", blocks,
                              chosen->rows, INT32_MAX);
    return 1;
}

/* A launch, and half of what mma.sync can do with whole tiles on as many multiprocessors as there
 * are blocks for: a guess that nothing was measured for. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const choice_t *chosen = choose(desc, device->shared_bytes);
    const int64_t *q = desc->q.shape;
    if (!chosen || q[1] == 0)
        return 5000;
    hd_visibility_t visible = hd_visibility(desc);
    double heads = (double)q[0] * (double)q[2], tiles = (double)hd_ceil_div(q[1], chosen->rows);
    double rows = tiles * chosen->rows / (double)q[1];
    double flops = 2 * hd_band_pairs(&visible) * rows * heads * (chosen->d + chosen->dv);
    double clock_ghz = device->clock_khz > 0 ? device->clock_khz * 1e-6 : 1.4;
    /* Cards for data centres have twice the tensor cores of the others. */
    bool wide = device->compute_major >= 9 && device->compute_major <= 10;
    wide = wide || (device->compute_major == 8 && device->compute_minor == 0);
    double busy = fmin(device->multiprocessors, tiles * heads);
    return 5000 + flops / (0.5 * (wide ? 2048 : 1024) * clock_ghz * fmax(busy, 1));
}

extern "C" const heed_impl_t hd_impl_flash_sm80;
const heed_impl_t hd_impl_flash_sm80 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:flash_sm80",
    .about = "tensor cores of Ampere and later (mma.sync), bf16 and f16, head sizes up to 256",
    .device_type = HEED_DEVICE_CUDA,
    .features = HEED_ATTENTION_CAN_ALL & ~HEED_ATTENTION_CAN_F32,
    .supports = supports,
    .estimate = estimate,
    .run = run,
};
