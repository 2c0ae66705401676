/* cuda:decode_sm90, attention of few queries on Hopper. decode.h says how rows are packed and keys
 * are split.
 *
 * A block is one warpgroup. It takes the rows of one key head, 64 with what is left zero, and a
 * split of the keys. TMA fills a ring of tiles, each the keys or the values of 64 keys: 96 KiB of
 * tiles (192 KiB where a head is longer than 128) are on their way in every block, two of which fit
 * a multiprocessor (one).
 *
 *     scores = Q K^T    (wgmma 64 x 64, both in shared memory)
 *     out   += P V      (wgmma 64 x DIM, P in registers, V as it lies in memory)
 *
 * The products are not overlapped with the softmax: together they take less than half of what
 * memory needs for the same tile, and the other block fills the gaps. A warp whose 16 rows are all
 * empty leaves the softmax out. One thread asks for the next tile when all warps have let go of
 * one; a warp of its own for this would make the block two warpgroups, and the registers of the
 * second are those of the second block.
 *
 * TMA wants rows of K and V that start at 16 bytes. Strides that do not allow it are refused;
 * addresses are known too late for that, and are left to decode_sm80.
 *
 * Has run in the emulator only, never on a card. */
#include "decode_sm90_kernel.cuh"

/* ---- the host's side ------------------------------------------------------------------------- */

using namespace decode_sm90;

extern "C" const heed_impl_t hd_impl_decode_sm80;

static const char *const operands[] = {"q", "k", "v", "out", "lse"};

/* Blocks that run at once. */
static int64_t slots(const heed_attention_desc_t *desc, int multiprocessors)
{
    return multiprocessors * (decode_dim(desc) == 256 ? 1 : 2);
}

/* K or V of the problem; an axis of one element has any stride. */
static heed_status_t make_map(hd_tensor_map_t *map, const hd_attention_t *a, const hd_view_t *view,
                              int width, const char *name)
{
    hd_map_desc_t desc = {.dtype = view->dtype, .data = view->data};
    const int64_t sizes[HD_MAP_AXES] = {width, a->keys, a->key_heads, a->batch};
    const int64_t strides[HD_MAP_AXES] = {2, view->row, view->head, view->batch};
    const int32_t box[HD_MAP_AXES] = {64, KEYS, 1, 1};
    for (int i = 0; i < HD_MAP_AXES; i++) {
        desc.sizes[i] = sizes[i];
        desc.strides[i] = sizes[i] > 1 ? strides[i] : 16;
        desc.box[i] = box[i];
    }
    desc.swizzle = 128;
    return hd_cuda_tensor_map(map, &desc, name);
}

template <bool BF16> static int launch_attend(int dim, void *stream, const params_t &p)
{
    dim3 grid((unsigned)(p.decode.units * p.decode.splits)), block(THREADS);
    if (dim == 64)
        return HD_LAUNCH((attend<BF16, 64>), grid, block, sizeof(shared_memory<64>), stream, p);
    if (dim == 128)
        return HD_LAUNCH((attend<BF16, 128>), grid, block, sizeof(shared_memory<128>), stream, p);
    return HD_LAUNCH((attend<BF16, 256>), grid, block, sizeof(shared_memory<256>), stream, p);
}

static int launch_both(const heed_attention_desc_t *desc, void *stream, const params_t &p)
{
    int dim = decode_dim(desc);
    int error = desc->q.dtype == HEED_BF16 ? launch_attend<true>(dim, stream, p)
                                           : launch_attend<false>(dim, stream, p);
    if (error || p.decode.splits == 1)
        return error;
    return HD_LAUNCH_DEPENDENT(decode_merge<true>, decode_merge_grid(&p.decode),
                               dim3(DECODE_MERGE_THREADS), decode_merge_shared(), stream, p.decode);
}

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    int64_t at_once = slots(desc, hd_cuda_multiprocessors(desc->q.device));
    params_t p = {decode_plan(desc, launch->buffers, at_once)};
    decode_params_t *decode = &p.decode;
    if (launch->tiles)
        decode->a.visible.tiles = launch->tiles;
    if (decode->units * decode->rows == 0)
        return HEED_OK;
    /* Without a key there is nothing to map. */
    if ((uintptr_t)decode->a.k.data % 16 || (uintptr_t)decode->a.v.data % 16 || decode->a.keys == 0)
        return hd_impl_decode_sm80.run(launch);
    decode_place(decode, launch->workspace);
    decode->fast_q = decode_is_aligned(&decode->a.q, 16);

    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(launch, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    status = make_map(&p.k, &decode->a, &decode->a.k, decode->a.d, "k");
    if (status == HEED_OK)
        status = make_map(&p.v, &decode->a, &decode->a.v, decode->a.dv, "v");
    int error = status == HEED_OK ? launch_both(desc, launch->stream.native, p) : 0;
    heed_status_t left = hd_cuda_leave(&scope, error, "cuda:decode_sm90");
    return status == HEED_OK ? left : status;
}

/* The first axis of a tensor whose stride TMA does not take, -1: none. */
static int bad_axis(const heed_tensor_t *tensor)
{
    for (int i = 0; i < 3; i++)
        if (tensor->shape[i] > 1 && (tensor->strides[i] <= 0 || tensor->strides[i] % 8))
            return i;
    return tensor->shape[3] > 1 && tensor->strides[3] != 1 ? 3 : -1;
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    const heed_tensor_t *tensors[] = {&desc->k, &desc->v};
    for (int i = 0; i < 2; i++) {
        int axis = bad_axis(tensors[i]);
        if (axis >= 0)
            return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                                  "%s.strides[%d]=%lld: TMA takes multiples of 8 elements",
                                  i ? "v" : "k", axis, (long long)tensors[i]->strides[axis]);
    }
    return decode_supports(desc, device, why) && hd_sm90_takes(device, why);
}

/* Enough for decode_sm80 too. */
static size_t workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    decode_params_t p = decode_plan(desc, NULL, slots(desc, device->multiprocessors));
    size_t other = hd_impl_decode_sm80.workspace(at, device, threads), mine = decode_workspace(&p);
    return mine > other ? mine : other;
}

static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)threads;
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at;
    return 0.9 * decode_estimate(desc, device, slots(desc, device->multiprocessors));
}

extern "C" const heed_impl_t hd_impl_decode_sm90;
const heed_impl_t hd_impl_decode_sm90 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:decode_sm90",
    .about = "few queries: rows of a key head packed, keys split over the card; TMA and wgmma",
    .device_type = HEED_DEVICE_CUDA,
    .features = DECODE_FEATURES,
    .supports = supports,
    .estimate = estimate,
    .workspace = workspace,
    .run = run,
};
