/* cpu:improved of dilated attention: a schedule over the attention operation. Each branch is
 * attention on strided views (a segment is a batch entry, every r-th row a row, heads of one offset
 * the heads), and branches are merged by lse, which is one softmax over their union.
 *
 * The first branch of rate 1 shows every row something, and is written plainly; without one, rows
 * begin as empty states. Plans are made once and shared by pieces of equal shape. */
#include "dilated.h"
#include "op.h"

#include "attention.h"
#include "loop.h"

#include <math.h>
#include <string.h>

/* One call of attention: a plan and where its operands begin, in bytes. */
typedef struct step {
    heed_plan_t *plan;
    bool owns; /* the plan is this step's, not an earlier one's */
    int64_t at[HEED_DILATED_OPERANDS];
    heed_attention_desc_t desc; /* to find equal ones; its shapes and strides are these */
    hd_axes_t axes[HEED_DILATED_OPERANDS];
} step_t;

typedef struct schedule {
    const heed_dilated_desc_t *desc;
    heed_tensor_t lse; /* the caller's, or one in the workspace */
    hd_axes_t lse_axes;
    size_t lse_bytes; /* 0: the caller's */
    size_t workspace; /* of one step at most */
    bool starts_empty;
    step_t *steps;
    int64_t count, room;
} schedule_t;

/* ---- pieces ---------------------------------------------------------------------------------- */

/* The heads of one piece as views: key heads that a single stride reaches, with their queries. */
typedef struct block {
    int64_t batch, first, segments, rows; /* token, segments in a row, lattice rows of each */
    int64_t key_head, key_heads, step;
} block_t;

static void set_view(const heed_tensor_t *from, const block_t *block, const hd_piece_t *piece,
                     int64_t head, int64_t heads, int64_t step, hd_axes_t *axes, heed_tensor_t *to,
                     int64_t *at)
{
    const int64_t *strides = from->strides;
    memcpy(axes->shape, (int64_t[]){block->segments, block->rows, heads, from->shape[3]},
           4 * sizeof(int64_t));
    memcpy(axes->strides,
           (int64_t[]){piece->segment * strides[1], piece->rate * strides[1], step * strides[2],
                       strides[3]},
           4 * sizeof(int64_t));
    *to = heed_tensor(NULL, from->dtype, 4, axes->shape, axes->strides);
    *at =
        block->batch * strides[0] + (block->first + piece->offset) * strides[1] + head * strides[2];
    *at *= (int64_t)heed_dtype_size(from->dtype);
}

static void set_lse(const schedule_t *schedule, const block_t *block, const hd_piece_t *piece,
                    int64_t head, int64_t heads, int64_t step, step_t *to)
{
    const int64_t *strides = schedule->lse.strides;
    hd_axes_t *axes = &to->axes[HEED_DILATED_LSE];
    memcpy(axes->shape, (int64_t[]){block->segments, heads, block->rows}, 3 * sizeof(int64_t));
    memcpy(axes->strides,
           (int64_t[]){piece->segment * strides[2], step * strides[1], piece->rate * strides[2]},
           3 * sizeof(int64_t));
    to->desc.lse = heed_tensor(NULL, HEED_F32, 3, axes->shape, axes->strides);
    to->at[HEED_DILATED_LSE] = (block->batch * strides[0] + head * strides[1] +
                                (block->first + piece->offset) * strides[2]) *
                               4;
}

static bool same_plan(const step_t *a, const step_t *b)
{
    return memcmp(a->axes, b->axes, sizeof(a->axes)) == 0 && a->desc.merge == b->desc.merge;
}

static heed_status_t make_plan(heed_context_t *context, schedule_t *schedule, step_t *step)
{
    for (int64_t i = 0; i < schedule->count; i++) {
        if (schedule->steps[i].owns && same_plan(&schedule->steps[i], step)) {
            step->plan = schedule->steps[i].plan;
            return HEED_OK;
        }
    }
    size_t bytes, alignment;
    HD_TRY(heed_plan_create(context, "attention", &step->desc, &step->plan));
    step->owns = true;
    HD_TRY(heed_plan_workspace(step->plan, &bytes, &alignment));
    if (bytes > schedule->workspace)
        schedule->workspace = bytes;
    return HEED_OK;
}

static heed_status_t grow(heed_context_t *context, schedule_t *schedule)
{
    if (schedule->count < schedule->room)
        return HEED_OK;
    int64_t room = hd_max(2 * schedule->room, 8);
    step_t *steps = hd_alloc(context, (size_t)room * sizeof(*steps));
    if (!steps)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %lld steps of a schedule",
                       (long long)room);
    if (schedule->count)
        memcpy(steps, schedule->steps, (size_t)schedule->count * sizeof(*steps));
    hd_free(context, schedule->steps);
    schedule->steps = steps;
    schedule->room = room;
    for (int64_t i = 0; i < schedule->count; i++) { /* tensors point into their step */
        step_t *step = &steps[i];
        heed_tensor_t *tensors[] = {&step->desc.q, &step->desc.k, &step->desc.v, &step->desc.out,
                                    &step->desc.lse};
        for (int t = 0; t < HEED_DILATED_OPERANDS; t++) {
            tensors[t]->shape = step->axes[t].shape;
            tensors[t]->strides = step->axes[t].strides;
        }
    }
    return HEED_OK;
}

static heed_status_t add_step(heed_context_t *context, schedule_t *schedule,
                              const hd_piece_t *piece, const block_t *block, bool merge)
{
    const heed_dilated_desc_t *desc = schedule->desc;
    if (block->segments == 0 || block->rows == 0 || block->key_heads == 0)
        return HEED_OK;
    HD_TRY(grow(context, schedule));
    step_t *step = &schedule->steps[schedule->count];
    memset(step, 0, sizeof(*step));
    step->desc = heed_attention_desc();
    step->desc.causal = desc->causal;
    step->desc.scale = desc->scale;
    step->desc.merge = merge;
    int64_t group = desc->q.shape[2] / desc->k.shape[2], head = block->key_head * group;
    int64_t heads = block->key_heads * group;
    set_view(&desc->q, block, piece, head, heads, block->step, &step->axes[0], &step->desc.q,
             &step->at[0]);
    set_view(&desc->k, block, piece, block->key_head, block->key_heads, block->step, &step->axes[1],
             &step->desc.k, &step->at[1]);
    set_view(&desc->v, block, piece, block->key_head, block->key_heads, block->step, &step->axes[2],
             &step->desc.v, &step->at[2]);
    set_view(&desc->out, block, piece, head, heads, block->step, &step->axes[3], &step->desc.out,
             &step->at[3]);
    set_lse(schedule, block, piece, head, heads, block->step, step);
    HD_TRY(make_plan(context, schedule, step));
    schedule->count++;
    return HEED_OK;
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

/* ---- preparing ------------------------------------------------------------------------------- */

static void release(heed_context_t *context, void *state)
{
    schedule_t *schedule = state;
    if (!schedule)
        return;
    for (int64_t i = 0; i < schedule->count; i++)
        if (schedule->steps[i].owns)
            heed_plan_destroy(schedule->steps[i].plan);
    hd_free(context, schedule->steps);
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
    schedule->lse = schedule->desc->lse;
    if (!schedule->lse.ndim) {
        const int64_t *q = schedule->desc->q.shape;
        memcpy(schedule->lse_axes.shape, (int64_t[]){q[0], q[2], q[1]}, 3 * sizeof(int64_t));
        hd_dense_strides(3, schedule->lse_axes.shape, schedule->lse_axes.strides);
        schedule->lse =
            heed_tensor(NULL, HEED_F32, 3, schedule->lse_axes.shape, schedule->lse_axes.strides);
        schedule->lse_bytes = hd_round_up((size_t)hd_tensor_elements(&schedule->lse) * 4, 64);
    }
    heed_status_t status = add_branches(context, schedule);
    if (status != HEED_OK) {
        release(context, schedule);
        return status;
    }
    *state = schedule;
    *workspace = schedule->lse_bytes + schedule->workspace;
    return HEED_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct empty {
    const schedule_t *schedule;
    hd_view_t out;
    char *lse;
} empty_t;

/* The rows of one head: out 0, lse -inf. */
static void make_empty(void *at, int worker, int64_t item)
{
    const empty_t *empty = at;
    const heed_dilated_desc_t *desc = empty->schedule->desc;
    const int64_t *strides = empty->schedule->lse.strides;
    int64_t heads = desc->q.shape[2], b = item / heads, h = item % heads;
    const float none = -INFINITY;
    (void)worker;
    for (int64_t i = 0; i < desc->q.shape[1]; i++) {
        char *row = hd_view_row(&empty->out, b, i, h);
        for (int64_t c = 0; c < desc->v.shape[3]; c++)
            memset(row + c * empty->out.elem, 0, heed_dtype_size(desc->out.dtype));
        memcpy(empty->lse + (b * strides[0] + h * strides[1] + i * strides[2]) * 4, &none, 4);
    }
}

static heed_status_t run(const heed_launch_t *launch)
{
    const schedule_t *schedule = launch->state;
    const heed_dilated_desc_t *desc = schedule->desc;
    char *workspace = (char *)launch->workspace + schedule->lse_bytes;
    char *lse = schedule->lse_bytes ? launch->workspace : launch->buffers[HEED_DILATED_LSE];
    if (schedule->starts_empty) {
        empty_t empty = {schedule, hd_view(&desc->out, launch->buffers[HEED_DILATED_OUT]), lse};
        hd_loop(launch->threads, desc->q.shape[0] * desc->q.shape[2], make_empty, &empty);
    }
    for (int64_t i = 0; i < schedule->count; i++) {
        const step_t *step = &schedule->steps[i];
        void *buffers[HEED_DILATED_OPERANDS];
        for (int n = 0; n < HEED_DILATED_OPERANDS; n++)
            buffers[n] = (n == HEED_DILATED_LSE ? lse : (char *)launch->buffers[n]) + step->at[n];
        HD_TRY(heed_plan_execute(step->plan, buffers, HEED_DILATED_OPERANDS,
                                 schedule->workspace ? workspace : NULL, schedule->workspace,
                                 NULL));
    }
    return HEED_OK;
}

/* As blocked attention: 80 % of 3 GHz and 16 operations a cycle, and some microseconds a step. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    double pairs = 0, steps = 0;
    (void)device;
    for (int i = 0; i < desc->branches; i++) {
        double rate = (double)desc->rates[i];
        pairs += (double)hd_dilated_segment(desc, i) / (rate * rate);
        steps += 2 * (double)hd_min(desc->rates[i], desc->k.shape[2]) * (double)desc->q.shape[0];
    }
    double rows = (double)(desc->q.shape[0] * desc->q.shape[1] * desc->q.shape[2]);
    return 2 * rows * pairs * (double)(desc->q.shape[3] + desc->v.shape[3]) / (40.0 * threads) +
           3000 * steps;
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
