/* cuda:flash_sm90_fp8, flash attention in E4M3 on Hopper's tensor cores: the roles of flash_sm90,
 * and three warps that transpose V (flash_sm90_fp8_turn.cuh).
 *
 * Weights are at most 2^8 when the row's reference M is set, and 448 before it moves; rounded to
 * E4M3 they stay in registers. The row sum is that of unrounded weights. The tensor cores' sums of
 * P V go into f32 registers every 4 blocks of 128 keys up to D 128 (3 of 192 up to D 64): more
 * registers than these there are not. Above D 128 both do not fit: P V is done in pieces of 64
 * columns, and each goes into f32 after every block (of 128 keys up to D 192, of 64 up to 256).
 *
 * Has run in the emulator only, never on a card. By the profile of its machine code (D 128): 52 %
 * of the peak if products and softmax take turns, issue and shared memory near 100 %. */
#include "flash_sm90_fp8_config.cuh"

#include "flash_sm90_host.cuh"

#if HD_SM90
#include "flash_sm90_fp8_math.cuh"
#include "flash_sm90_fp8_store.cuh"
#include "flash_sm90_fp8_turn.cuh"

namespace flash_sm90
{

template <int DIM, int KEYS, int GROUPS, int PIECE, int FLUSH, int POLY, bool PING, bool TILES>
struct roles<fp8_config<DIM, KEYS, GROUPS, PIECE, FLUSH, POLY, PING, TILES>> {
    using C = fp8_config<DIM, KEYS, GROUPS, PIECE, FLUSH, POLY, PING, TILES>;
    using work = fp8_worker<C>;
    using write = fp8_writer<C>;

    static HD_INLINE void start(unsigned char *shared)
    {
        fp8_barriers_t *bars = (fp8_barriers_t *)(shared + C::BARRIERS_AT);
        for (int i = 0; i < STAGES; i++) {
            hd_mbarrier_init(&bars->t_full[i], C::TURNERS);
            hd_mbarrier_init(&bars->t_free[i], C::GROUPS);
        }
    }
    static HD_INLINE void help(const params_t *p, unsigned char *shared)
    {
        load_all<C, turner<C>>(p, shared);
    }
};

} // namespace flash_sm90
#endif

extern "C" const heed_impl_t hd_impl_flash_simt;

using namespace flash_sm90;

#define LAUNCH(...) launch_instance<fp8_config<__VA_ARGS__>>(launch, p, processors, error)

/* Instances: head dim, keys of a block, warpgroups, piece, flush, polynomials of 64, turns, tiles.
 */
static heed_status_t launch(const heed_launch_t *launch, params_t *p, int processors, int *error)
{
    int dim = p->a.d > p->a.dv ? p->a.d : p->a.dv;
    if (p->a.visible.tiles)
        return dim <= 128 ? LAUNCH(128, 64, 1, 128, 8, 0, false, true)
                          : LAUNCH(256, 64, 1, 64, 1, 0, false, true);
    if (dim <= 64)
        return LAUNCH(64, 192, 2, 64, 3, 12, true, false);
    if (dim <= 96)
        return LAUNCH(96, 128, 2, 96, 4, 12, true, false);
    if (dim <= 128)
        return LAUNCH(128, 128, 2, 128, 4, 12, true, false);
    if (dim <= 192)
        return LAUNCH(192, 128, 2, 64, 1, 0, true, false);
    return LAUNCH(256, 64, 2, 64, 1, 0, true, false);
}

static heed_status_t run(const heed_launch_t *at)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)at->desc;
    params_t p = {};
    p.a = hd_attention_of(at);
    if (p.a.batch * p.a.heads * p.a.queries == 0)
        return HEED_OK;
    /* Addresses are not known to a plan. flash_simt needs no workspace either. */
    if (!is_aligned(&p.a))
        return hd_impl_flash_simt.run(at);
    hd_cuda_scope_t scope;
    heed_status_t status =
        hd_cuda_enter(at, desc->q.device, operands, HEED_ATTENTION_LSE + 1, &scope);
    if (status != HEED_OK)
        return status;
    int error = 0;
    status = launch(at, &p, hd_cuda_multiprocessors(desc->q.device), &error);
    heed_status_t left = hd_cuda_leave(&scope, error, "cuda:flash_sm90_fp8");
    return status != HEED_OK ? status : left;
}

extern "C" const heed_impl_t hd_impl_flash_sm90_fp8;
const heed_impl_t hd_impl_flash_sm90_fp8 = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:flash_sm90_fp8",
    .about = "e4m3 on Hopper's tensor cores: V transposed by warps, sums flushed to f32",
    .device_type = HEED_DEVICE_CUDA,
    .features = HEED_ATTENTION_CAN_PLAIN &
                ~(HEED_ATTENTION_CAN_F32 | HEED_ATTENTION_CAN_BF16 | HEED_ATTENTION_CAN_F16 |
                  HEED_ATTENTION_CAN_EXACT_E4M3 | HEED_ATTENTION_CAN_STRIDED_DIM),
    .supports = supports,
    .estimate = estimate,
    .run = run,
};
