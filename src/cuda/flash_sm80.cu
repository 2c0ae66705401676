/* cuda:flash_sm80, flash attention with the tensor cores of Ampere and later: cp.async, ldmatrix,
 * mma.sync m16n8k16, in bf16 and f16, head sizes up to 256. It has run in the emulator only, never
 * on a card; what is said of speed below is read from machine code.
 *
 * A block takes 128 queries of one head and walks the keys in blocks of 64, two barriers each:
 *
 *     K there | V sets out | S = Q K^T | V there | next K sets out | P = softmax(S) | O += P V
 *
 * Q, K, V lie in shared memory in rows that are 16 bytes longer than they hold, S, P and O in
 * registers. A warp has 32 rows with head sizes up to 128 of V, else 16 (then 8 warps; on cards
 * with 99 KiB of shared memory 4, and 64 queries).
 *
 *     d, dv up to   64, 64   128, 128   192, 128   256, 256
 *     warps x rows   4 x 32     4 x 32     4 x 32     8 x 16   or 4 x 16
 *
 * - Softmax: weights are 2^(score - reference). The reference follows a row's maximum only when a
 *   score is more than 2^8 above it; then O and the sums are scaled. Most blocks need no
 *   shuffle, no maximum over lanes, and no pass over O. Exponentials and products of P V are
 *   interleaved, 16 keys at a time.
 * - A tile of 128 queries is two walks of 64. Blocks that all rows see follow each other in a loop
 *   without masks; in others a warp skips what its half does not see, and the masks are one word a
 *   key and half, behind K's rows.
 * - Masked NaN and infinity: where the result of a tile with masks is no number, the tile is done
 *   again, and in masked blocks such values are added one by one to the rows that see them.
 * - Scores beyond 2^20: rows whose reference is there are done the plain way at the end.
 * - Rows that are no runs of whole aligned 16-byte pieces are gathered element by element.
 *
 * ptxas lets ldmatrix run ahead of its product only while nothing at all is spilled. Therefore what
 * is needed between blocks only is kept in local memory by hand (cold_t).
 *
 * Static profile, sm_80, bf16, the loop without masks, CUDA 13.0: instructions of a thread per
 * score element; tensor time as a part of tensor and softmax in turns, and of an in-order replay.
 *
 *     d, dv         instructions   serialised   replay
 *     64, 64               8.1         67 %       78 %
 *     128, 128            11.0         80 %       86 %     no spills in the loop
 *     192, 128            10.1         83 %       84 %
 *     256, 256            19.3         70 %       76 %
 *
 *     nvcc -std=c++17 -O3 -gencode arch=compute_80,code=sm_80 -Iinclude -cubin \
 *         src/cuda/flash_sm80_bf16.cu -o sm80.cubin, then bench/sass */
#include "cuda.h"
#include "flash_sm80_tile.cuh"

#include <math.h>

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

/* The first kernel that the head sizes fit, and that fits the card. */
static const sm80_choice_t *choose(const heed_attention_desc_t *desc, int shared_bytes)
{
    const sm80_choice_t *of = desc->q.dtype == HEED_BF16 ? hd_flash_sm80_bf16 : hd_flash_sm80_f16;
    for (int i = 0; i < HD_SM80_COUNT; i++)
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

static sm80_params_t make_params(const heed_launch_t *launch, int rows)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    sm80_params_t p = {hd_attention(desc, launch->buffers)};
    if (launch->tiles)
        p.a.visible.tiles = launch->tiles;
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
        hd_cuda_enter(launch, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    const sm80_choice_t *chosen = choose(desc, hd_simt_shared_limit());
    if (!chosen) {
        (void)hd_cuda_leave(&scope, 0, "");
        return hd_cuda_fail(HEED_ERROR_UNSUPPORTED, "cuda:flash_sm80: d=%d, dv=%d fit no tile",
                            (int)desc->q.shape[3], (int)desc->v.shape[3]);
    }
    sm80_params_t p = make_params(launch, chosen->rows);
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
    const sm80_choice_t *chosen = choose(desc, device->shared_bytes);
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
    const sm80_choice_t *chosen = choose(desc, device->shared_bytes);
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
    .features = HEED_ATTENTION_CAN_PLAIN &
                ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_E4M3 | HEED_ATTENTION_CAN_EXACT_E4M3),
    .supports = supports,
    .estimate = estimate,
    .run = run,
};
