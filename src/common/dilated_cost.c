#include "dilated_cost.h"

#include "dilated_steps.h"
#include "op.h"
#include "peaks.h"

#include <string.h>

extern const hd_op_t hd_op_attention;

typedef struct cost {
    const heed_dilated_desc_t *desc;
    const heed_device_info_t *device;
    int32_t threads;
    double ns;
} cost_t;

/* One operand of the attention of `segments` segments of `rows` rows of such a piece. */
static heed_tensor_t view_of(const heed_tensor_t *from, const hd_piece_t *piece, int64_t segments,
                             int64_t rows, int64_t heads, hd_axes_t *axes)
{
    const int64_t *strides = from->strides;
    memcpy(axes->shape, (int64_t[]){segments, rows, heads, from->shape[3]}, 4 * sizeof(int64_t));
    memcpy(axes->strides,
           (int64_t[]){piece->segment * strides[1], piece->rate * strides[1],
                       piece->step * strides[2], strides[3]},
           4 * sizeof(int64_t));
    return heed_tensor(NULL, from->dtype, 4, axes->shape, axes->strides);
}

/* Segments that the tokens do not fill count as parts of one. */
static heed_status_t add_piece(void *at, const hd_piece_t *piece)
{
    cost_t *cost = at;
    const heed_dilated_desc_t *desc = cost->desc;
    int64_t tokens = desc->q.shape[1], group = desc->q.shape[2] / desc->k.shape[2];
    int64_t segments = hd_max(tokens / piece->segment, 1);
    int64_t rows = hd_lattice_count(piece->segment, piece->rate, piece->offset);
    heed_attention_desc_t step = heed_attention_desc();
    hd_axes_t axes[4];
    if (rows == 0 || tokens == 0 || piece->count == 0)
        return HEED_OK;
    step.q = view_of(&desc->q, piece, segments, rows, piece->count * group, &axes[0]);
    step.k = view_of(&desc->k, piece, segments, rows, piece->count, &axes[1]);
    step.v = view_of(&desc->v, piece, segments, rows, piece->count, &axes[2]);
    step.out = view_of(&desc->out, piece, segments, rows, piece->count * group, &axes[3]);
    step.scale = desc->scale;
    step.causal = desc->causal;
    HD_TRY(hd_op_attention.complete(&step));
    double ns = hd_best_estimate(&hd_op_attention, &step, cost->device, cost->threads);
    cost->ns +=
        ns * (double)desc->q.shape[0] * (double)tokens / (double)(segments * piece->segment);
    return HEED_OK;
}

static double branch_ns(const heed_dilated_desc_t *desc, int branch,
                        const heed_device_info_t *device, int32_t threads)
{
    cost_t cost = {.desc = desc, .device = device, .threads = threads};
    /* A descriptor that no attention takes: the plan will say why. */
    if (hd_dilated_pieces(desc, branch, add_piece, &cost) != HEED_OK)
        return 0;
    return cost.ns;
}

double hd_dilated_ns(const heed_dilated_desc_t *desc, const heed_device_info_t *device,
                     int32_t threads)
{
    double ns = 0;
    for (int i = 0; i < desc->branches; i++)
        ns += branch_ns(desc, i, device, threads);
    return ns + hd_dilated_start_ns(device, threads);
}

/* A segment's tiles are all touched up to rates of 64; beyond, one of rate / 64 each way. */
double hd_dilated_tiles_ns(const heed_dilated_desc_t *desc, int branch,
                           const heed_device_info_t *device, int32_t threads)
{
    heed_dilated_desc_t dense = *desc;
    double apart = (double)hd_max(desc->rates[branch], 64) / 64;
    double masks = desc->rates[branch] > 1 ? 1.07 : 1; /* as flash_cost_t.masked */
    dense.rates[branch] = 1;
    return masks * branch_ns(&dense, branch, device, threads) / (apart * apart);
}

double hd_dilated_start_ns(const heed_device_info_t *device, int32_t threads)
{
    return 200 + hd_region_ns(device, threads);
}

double hd_dilated_state_ns(const heed_dilated_desc_t *desc, const heed_device_info_t *device,
                           int32_t threads)
{
    double bytes = 4 * (double)hd_tensor_elements(&desc->out);
    return (desc->out.dtype == HEED_F32 ? 1 : 2) * bytes / hd_copy_rate(device, bytes, threads);
}

double hd_dilated_step_count(const heed_dilated_desc_t *desc)
{
    double steps = 0;
    for (int i = 0; i < desc->branches; i++)
        steps += 2 * (double)hd_min(desc->rates[i], desc->k.shape[2]);
    return steps * (double)desc->q.shape[0];
}
