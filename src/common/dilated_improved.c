/* cpu:improved of dilated attention: a schedule over the attention operation. Each branch is
 * attention on strided views (a segment is a batch entry, every r-th row a row, heads of one offset
 * the heads), and branches are merged by lse, which is one softmax over their union.
 *
 * The first branch of rate 1 shows every row something, and is written plainly; without one, rows
 * begin as empty states. Plans are made once and shared by pieces of equal shape. */
#include "dilated.h"
#include "op.h"
#include "peaks.h"
#include "steps.h"

#include <string.h>

typedef struct schedule {
    const heed_dilated_desc_t *desc;
    hd_state_t state; /* in the workspace, as far as it is not the caller's */
    bool starts_empty;
    hd_steps_t steps;
} schedule_t;

extern const hd_op_t hd_op_dilated;

/* ---- pieces ---------------------------------------------------------------------------------- */

/* The heads of one piece as views: key heads that a single stride reaches, with their queries. */
typedef struct block {
    int64_t batch, first, segments, rows; /* token, segments in a row, lattice rows of each */
    int64_t key_head, key_heads, step;
} block_t;

static void set_view(const heed_tensor_t *from, const block_t *block, const hd_piece_t *piece,
                     int64_t group, int operand, hd_step_t *step)
{
    const int64_t *strides = from->strides;
    hd_axes_t *axes = &step->axes[operand];
    memcpy(axes->shape,
           (int64_t[]){block->segments, block->rows, block->key_heads * group, from->shape[3]},
           4 * sizeof(int64_t));
    memcpy(axes->strides,
           (int64_t[]){piece->segment * strides[1], piece->rate * strides[1],
                       block->step * strides[2], strides[3]},
           4 * sizeof(int64_t));
    *hd_step_tensor(step, operand) = heed_tensor(NULL, from->dtype, 4, axes->shape, axes->strides);
    step->at[operand] = block->batch * strides[0] + (block->first + piece->offset) * strides[1] +
                        block->key_head * group * strides[2];
    step->at[operand] *= (int64_t)heed_dtype_size(from->dtype);
}

static void set_lse(const heed_tensor_t *from, const block_t *block, const hd_piece_t *piece,
                    int64_t group, hd_step_t *step)
{
    const int64_t *strides = from->strides;
    hd_axes_t *axes = &step->axes[HEED_ATTENTION_LSE];
    memcpy(axes->shape, (int64_t[]){block->segments, block->key_heads * group, block->rows},
           3 * sizeof(int64_t));
    memcpy(axes->strides,
           (int64_t[]){piece->segment * strides[2], block->step * strides[1],
                       piece->rate * strides[2]},
           3 * sizeof(int64_t));
    step->desc.lse = heed_tensor(NULL, HEED_F32, 3, axes->shape, axes->strides);
    step->at[HEED_ATTENTION_LSE] =
        4 * (block->batch * strides[0] + block->key_head * group * strides[1] +
             (block->first + piece->offset) * strides[2]);
}

static heed_status_t add_step(heed_context_t *context, schedule_t *schedule,
                              const hd_piece_t *piece, const block_t *block, bool merge)
{
    const heed_dilated_desc_t *desc = schedule->desc;
    int64_t group = desc->q.shape[2] / desc->k.shape[2];
    if (block->segments == 0 || block->rows == 0 || block->key_heads == 0)
        return HEED_OK;
    hd_step_t *step = hd_steps_new(context, &schedule->steps);
    if (!step)
        return HEED_ERROR_OUT_OF_MEMORY;
    step->desc.causal = desc->causal;
    step->desc.scale = desc->scale;
    step->desc.merge = merge;
    set_view(&desc->q, block, piece, group, HEED_ATTENTION_Q, step);
    set_view(&desc->k, block, piece, 1, HEED_ATTENTION_K, step);
    set_view(&desc->v, block, piece, 1, HEED_ATTENTION_V, step);
    set_view(&schedule->state.out, block, piece, group, HEED_ATTENTION_OUT, step);
    set_lse(&schedule->state.lse, block, piece, group, step);
    return hd_steps_plan(context, &schedule->steps);
}

/* Whole segments together, then the rest of the tokens. */
static heed_status_t add_heads(heed_context_t *context, schedule_t *schedule,
                               const hd_piece_t *piece, block_t *block, bool merge)
{
    int64_t n = schedule->desc->q.shape[1], whole = n / piece->segment;
    block->first = 0;
    block->segments = whole;
    block->rows = hd_lattice_count(piece->segment, piece->rate, piece->offset);
    HD_TRY(add_step(context, schedule, piece, block, merge));
    block->first = whole * piece->segment;
    block->segments = 1;
    block->rows = hd_lattice_count(n - block->first, piece->rate, piece->offset);
    return add_step(context, schedule, piece, block, merge);
}

/* Query heads of several key heads follow one stride only where each key head has one, or where
 * key heads are neighbours. */
static heed_status_t add_piece(heed_context_t *context, schedule_t *schedule,
                               const hd_piece_t *piece, bool merge)
{
    const heed_dilated_desc_t *desc = schedule->desc;
    bool apart = desc->q.shape[2] != desc->k.shape[2] && piece->step > 1;
    for (int64_t b = 0; b < desc->q.shape[0]; b++) {
        for (int64_t n = 0; n < (apart ? piece->count : 1); n++) {
            block_t block = {.batch = b, .key_head = piece->first, .key_heads = piece->count};
            block.step = apart ? 1 : piece->step;
            if (apart) {
                block.key_head += n * piece->step;
                block.key_heads = 1;
            }
            HD_TRY(add_heads(context, schedule, piece, &block, merge));
        }
    }
    return HEED_OK;
}

static heed_status_t add_branch(heed_context_t *context, schedule_t *schedule, int branch,
                                bool merge)
{
    const heed_dilated_desc_t *desc = schedule->desc;
    int64_t rate = desc->rates[branch], heads = desc->k.shape[2], first, end;
    hd_piece_t piece = {.branch = branch, .rate = rate, .step = 1};
    piece.segment = hd_dilated_segment(desc, branch);
    if (desc->mode == HEED_DILATED_GROUPED) {
        hd_dilated_group(desc, branch, &first, &end);
        piece.offset = branch % rate;
        piece.first = first;
        piece.count = end - first;
        return add_piece(context, schedule, &piece, merge);
    }
    int64_t run = hd_ceil_div(heads, rate); /* torchscale: so many neighbours share an offset */
    bool paper = desc->offset_rule == HEED_OFFSET_PAPER;
    for (piece.offset = 0; piece.offset < hd_min(rate, heads); piece.offset++) {
        piece.first = paper ? piece.offset : piece.offset * run;
        piece.step = paper ? rate : 1;
        piece.count =
            paper ? hd_lattice_count(heads, rate, piece.offset) : hd_min(run, heads - piece.first);
        if (piece.count > 0)
            HD_TRY(add_piece(context, schedule, &piece, merge));
    }
    return HEED_OK;
}

static size_t state_bytes(const schedule_t *schedule)
{
    return schedule->state.lse_bytes; /* out is the caller's */
}

/* ---- preparing ------------------------------------------------------------------------------- */

static void release(heed_context_t *context, void *state)
{
    schedule_t *schedule = state;
    if (!schedule)
        return;
    hd_steps_free(context, &schedule->steps);
    hd_free(context, schedule);
}

static heed_status_t add_branches(heed_context_t *context, schedule_t *schedule)
{
    const heed_dilated_desc_t *desc = schedule->desc;
    int plain = -1; /* the branch that is written without merging */
    for (int i = 0; i < desc->branches && desc->mode == HEED_DILATED_LONGNET; i++)
        if (plain < 0 && desc->rates[i] == 1)
            plain = i;
    schedule->starts_empty = plain < 0;
    if (plain >= 0)
        HD_TRY(add_branch(context, schedule, plain, false));
    for (int i = 0; i < desc->branches; i++)
        if (i != plain)
            HD_TRY(add_branch(context, schedule, i, true));
    return HEED_OK;
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    schedule_t *schedule = hd_alloc(context, sizeof(*schedule));
    if (!schedule)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a schedule");
    memset(schedule, 0, sizeof(*schedule));
    schedule->desc = desc;
    hd_state_describe(&schedule->desc->out, &schedule->desc->lse, false, -1, &schedule->state);
    heed_status_t status = add_branches(context, schedule);
    if (status != HEED_OK) {
        release(context, schedule);
        return status;
    }
    *state = schedule;
    *workspace = state_bytes(schedule) + schedule->steps.workspace;
    return HEED_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

static heed_status_t run(const heed_launch_t *launch)
{
    const schedule_t *schedule = launch->state;
    const hd_state_t *state = &schedule->state;
    char *buffers[HD_STEP_OPERANDS], *memory = launch->workspace;
    for (int n = HEED_ATTENTION_Q; n <= HEED_ATTENTION_V; n++)
        buffers[n] = launch->buffers[n];
    hd_state_buffers(state, launch->buffers[HEED_DILATED_OUT], launch->buffers[HEED_DILATED_LSE],
                     memory, &buffers[HEED_ATTENTION_OUT], &buffers[HEED_ATTENTION_LSE]);
    if (schedule->starts_empty)
        hd_state_clear(state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE],
                       launch->threads);
    return hd_steps_run(&schedule->steps, 0, schedule->steps.count, buffers,
                        memory + state_bytes(schedule));
}

/* As blocked attention at four fifths of the machine's multiply-adds, and a start of a team for
 * each step. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    double steps = 0;
    hd_work_t work;
    hd_op_dilated.work(desc, &work);
    for (int i = 0; i < desc->branches; i++)
        steps += 2 * (double)hd_min(desc->rates[i], desc->k.shape[2]) * (double)desc->q.shape[0];
    return work.flops / (0.8 * hd_best_f32_rate(device, threads)) +
           (200 + hd_region_ns(device, threads)) * steps;
}

const heed_impl_t hd_impl_dilated_improved = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:improved",
    .about = "attention on strided views, branches merged by lse",
    .device_type = HEED_DEVICE_CPU,
    .features =
        HEED_DILATED_CAN_ALL & ~(HEED_DILATED_CAN_TORCHSCALE | HEED_DILATED_CAN_GROUPED_FKODOM),
    .estimate = estimate,
    .run = run,
    .prepare = prepare,
    .release = release,
};
