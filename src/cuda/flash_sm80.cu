/* cuda:flash_sm80, flash attention with the tensor cores of Ampere and later, in bf16 and f16. */
#include "cuda.h"
#include "flash_sm80_load.cuh"
#include "flash_sm80_store.cuh"

/* V sets out once K is there, the next K when this one is done with. */
template <class C>
static __device__ __forceinline__ void await_keys(const sm80_params_t *p, const sources_t *from, int key,
                                                  int count, unsigned char *memory)
{
    hd_cp_async_wait<0>();
    /* K is there for all, and all are done with the former V. */
    __syncthreads();
    start_values<C>(p, from, key, count, memory);
}

template <class C>
static __device__ __forceinline__ void await_values(const sm80_params_t *p, const sources_t *from,
                                                    int next_key, int next_count,
                                                    unsigned char *memory)
{
    hd_cp_async_wait<0>();
    /* V is there for all, and all are done with this K. */
    __syncthreads();
    start_keys<C>(p, from, next_key, next_count, memory);
}

/* Blocks one after the other that all rows see. */
template <class C>
static __device__ __forceinline__ void attend_full(const sm80_params_t *p, const sources_t *from,
                                                   const step_t *step, const step_t *next,
                                                   unsigned char *memory, state<C> &s)
{
    int key = step->key;
#pragma unroll 1
    for (int left = step->blocks; left > 0; left--) {
        scores_t<C> scores;
        await_keys<C>(p, from, key, KEYS, memory);
        find_scores<C>(memory, scores);
        key += KEYS;
        await_values<C>(p, from, left > 1 ? key : next->key, left > 1 ? KEYS : next->count, memory);
        raise_references<C>(p->log2_unit, scores, s);
#pragma unroll
        for (int part = 0; part < KEYS / 16; part++) {
            weigh<C>(p->log2_unit, scores, part, s);
            add_values<C>(memory, scores, part, s);
        }
    }
}

/* A block that not all rows see all of. A warp computes nothing where its half sees nothing. */
template <class C>
static __device__ __forceinline__ void attend_masked(const sm80_params_t *p, const task_t *task,
                                                     const sources_t *from, const step_t *step,
                                                     const step_t *next, bool careful, unsigned char *memory,
                                                     state<C> &s)
{
    int first = warp_index() * C::WARP_ROWS;
    int seen = first < HALF ? step->half[0].count : step->half[C::HALVES - 1].count;
    bool busy = seen > 0 && first < task->rows;
    scores_t<C> scores;
    if (p->gather) {
        gather_block<C>(p, task, step->key, step->count, memory);
        __syncthreads();
    } else {
        await_keys<C>(p, from, step->key, step->count, memory);
    }
    write_masks<C>(p, task, step, memory);
    if (busy)
        find_scores<C>(memory, scores);
    await_values<C>(p, from, next->key, next->count, memory);
    if (busy) {
        hide_scores<C>(memory, scores);
        raise_references<C>(p->log2_unit, scores, s);
#pragma unroll
        for (int part = 0; part < KEYS / 16; part++)
            weigh<C>(p->log2_unit, scores, part, s);
    }
    if (careful) {
        if (busy)
            add_specials<C>(memory, scores, s);
        __syncthreads();
        remove_specials<C>(memory);
        __syncthreads();
    }
    if (busy) {
#pragma unroll
        for (int part = 0; part < KEYS / 16; part++)
            add_values<C>(memory, scores, part, s);
    }
}

/* All keys; whether some block was masked. */
template <class C>
static __device__ __forceinline__ bool attend_keys(const sm80_params_t *p, const task_t *task,
                                                   bool careful, unsigned char *memory, state<C> &s)
{
    place_t places[C::HALVES];
    step_t step, next;
    bool masked = false;
    sources_t from = find_sources<C>(p, task);
    begin_state<C>(s);
    begin_steps<C>(p, task, places);
    find_step<C>(p, task, places, &step);
    start_keys<C>(p, &from, step.key, step.count, memory);
#pragma unroll 1
    while (step.count > 0) {
        find_step<C>(p, task, places, &next);
        if (step.blocks > 0) {
            attend_full<C>(p, &from, &step, &next, memory, s);
        } else {
            attend_masked<C>(p, task, &from, &step, &next, careful, memory, s);
            masked = true;
        }
        step = next;
    }
    return masked;
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
    task_t task = find_task<C>(&p, blockIdx.x);
    state<C> s;
    load_queries<C>(&p, &task, memory);
#pragma unroll 1
    for (bool careful = false;; careful = true) {
        bool masked = attend_keys<C>(&p, &task, careful, memory, s);
        if (careful || !masked || !is_lost<C>(memory, s))
            break;
    }
    __syncthreads();
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
