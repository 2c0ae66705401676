/* cpu:dense: dense attention in the place of a tile list that approximates it, where the list is
 * predicted to take longer. The best of the other implementations does the work. */
#include "op.h"

#include <math.h>
#include <string.h>

/* What it computes. */
static heed_attention_desc_t without_tiles(const heed_attention_desc_t *desc)
{
    heed_attention_desc_t dense = *desc;
    dense.tiles = NULL;
    dense.tiles_optional = 0;
    return dense;
}

static int supports(const void *at, const heed_device_info_t *device, heed_why_t *why)
{
    const heed_attention_desc_t *desc = at;
    (void)device;
    if (desc->tiles && desc->tiles_optional)
        return 1;
    return hd_refuse(why, HEED_ERROR_UNSUPPORTED,
                     desc->tiles ? "tiles_optional=0: the tile list is what is meant"
                                 : "there is no tile list to do without");
}

/* ---- what it is predicted to take: the best of the implementations --------------------------- */

#define HEED_OP(name)
#define HEED_IMPL(op, symbol) extern const heed_impl_t hd_impl_##symbol;
#include "impls.def"
#undef HEED_IMPL
static const heed_impl_t *const impls[] = {
#define HEED_IMPL(op, symbol) &hd_impl_##symbol,
#include "impls.def"
};
#undef HEED_OP
#undef HEED_IMPL

extern const hd_op_t hd_op_attention;

static bool can_run(const heed_impl_t *impl, const heed_attention_desc_t *desc,
                    const heed_device_info_t *device)
{
    return impl->estimate && impl != &hd_impl_attention_dense &&
           strcmp(impl->op, hd_op_attention.name) == 0 && !(impl->required_isa & ~device->isa) &&
           !(hd_op_attention.needs(desc) & ~impl->features) &&
           (!impl->supports || impl->supports(desc, device, NULL));
}

/* The fastest, of those that the context's lists allow if there are such; NULL: none. */
static const heed_impl_t *choose(const heed_context_t *context, const heed_attention_desc_t *dense,
                                 const heed_device_info_t *device, double *ns)
{
    const heed_impl_t *best = NULL;
    bool best_allowed = false;
    *ns = NAN;
    for (int i = 0; i < HD_COUNT(impls); i++) {
        if (!can_run(impls[i], dense, device))
            continue;
        bool allowed = !context || hd_impl_allowed(context, impls[i], device, NULL);
        double estimate = impls[i]->estimate(dense, device, device->threads);
        if (best && (allowed < best_allowed || (allowed == best_allowed && !(estimate < *ns))))
            continue;
        best = impls[i];
        best_allowed = allowed;
        *ns = estimate;
    }
    return best;
}

static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    heed_attention_desc_t dense = without_tiles(at);
    double ns;
    (void)threads;
    (void)choose(NULL, &dense, device, &ns);
    return ns;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct state {
    const heed_impl_t *impl;
    heed_attention_desc_t desc;
} state_t;

static void release(heed_context_t *context, void *state)
{
    hd_free(context, state);
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **to,
                             size_t *workspace)
{
    const heed_device_info_t *device = &context->devices[0];
    double ns;
    state_t *state = hd_alloc(context, sizeof(*state));
    if (!state)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a plan of dense attention");
    state->desc = without_tiles(desc);
    state->impl = choose(context, &state->desc, device, &ns);
    if (!state->impl) {
        release(context, state);
        return hd_fail(HEED_ERROR_UNSUPPORTED, "no implementation takes this attention densely");
    }
    *workspace =
        state->impl->workspace ? state->impl->workspace(&state->desc, device, device->threads) : 0;
    *to = state;
    return HEED_OK;
}

static heed_status_t run(const heed_launch_t *launch)
{
    const state_t *state = launch->state;
    heed_launch_t dense = *launch;
    dense.desc = &state->desc;
    dense.state = NULL;
    dense.user = state->impl->user;
    return state->impl->run(&dense);
}

const heed_impl_t hd_impl_attention_dense = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:dense",
    .about = "dense attention in place of tiles that approximate it and would take longer",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_ATTENTION_CAN_ALL,
    .supports = supports,
    .estimate = estimate,
    .run = run,
    .prepare = prepare,
    .release = release,
};
