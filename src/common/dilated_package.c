/* Modes as packages compute them. Attention of each branch is that of cpu:improved, on strided
 * views, into rows of its own; a pass over these then does what the package does:
 *
 *     torchscale       a segment is filled up with rows of zeros, which are seen: `pads` of them
 * are a state of out 0 and lse log(pads) merged to each row. A row of zeros among the queries has
 * the mean of the values. An lse of exactly 0 counts as absent, and so does what a branch lacks:
 * -1e8, which matters where all are. grouped_fkodom   rows of a branch are divided by their sum
 * over all positions, and all added up and divided by the number of branches.
 *
 * Sums are kept in f32, the lse of torchscale's in f64: -1e8 leaves f32 no digit for a sum of two.
 * Rows of a branch follow each other as torchscale lays them, pitch by pitch (dilated.h). */
#include "dilated_package.h"

#include "attention.h"
#include "dilated_schedule.h"
#include "loop.h"
#include "merge.h"

#include <math.h>
#include <string.h>

enum { BLOCK_ROWS = 1024 };

#define ABSENT (-1e8) /* what torchscale writes as the lse of a row that a branch lacks */

typedef struct package {
    hd_dilated_schedule_t base; /* its state is what branches are added up in */
    hd_state_t branch;
    int64_t step_end[HEED_DILATED_BRANCHES];
    size_t mixed_bytes; /* of lse in f64, or sums of rows */
} package_t;

/* ---- preparing ------------------------------------------------------------------------------- */

/* Rows of the longest branch. */
static int64_t branch_rows(const heed_dilated_desc_t *desc)
{
    int64_t most = 0;
    for (int i = 0; i < desc->branches; i++) {
        int64_t segment = hd_dilated_segment(desc, i), rate = desc->rates[i];
        int64_t filled = hd_ceil_div(segment, rate) * rate;
        most = hd_max(most, hd_ceil_div(desc->q.shape[1], segment) * filled);
    }
    return most;
}

static heed_status_t add_branches(hd_dilated_schedule_t *schedule)
{
    package_t *package = (package_t *)schedule;
    const heed_dilated_desc_t *desc = schedule->desc;
    hd_state_describe(&desc->out, &desc->lse, true, branch_rows(desc), &package->branch);
    hd_dilated_part_t all = hd_dilated_whole(desc, &package->branch);
    for (int i = 0; i < desc->branches; i++) {
        HD_TRY(hd_dilated_branch(schedule->context, &schedule->steps, &all, i, false));
        package->step_end[i] = schedule->steps.count;
    }
    return HEED_OK;
}

void hd_package_release(heed_context_t *context, void *state)
{
    hd_dilated_release(context, state);
}

heed_status_t hd_package_prepare(heed_context_t *context, const void *desc, void **state,
                                 size_t *workspace)
{
    const heed_dilated_desc_t *of = desc;
    HD_TRY(hd_dilated_prepare(context, desc, sizeof(package_t), true, add_branches,
                              hd_package_release, state, workspace));
    package_t *package = *state;
    int64_t numbers = of->mode == HEED_DILATED_TORCHSCALE ? of->q.shape[1] : of->v.shape[3];
    package->mixed_bytes =
        hd_round_up((size_t)(of->q.shape[0] * of->q.shape[2] * numbers) * sizeof(double), 64);
    *workspace += package->branch.out_bytes + package->branch.lse_bytes + package->mixed_bytes;
    return HEED_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct pass {
    const heed_dilated_desc_t *desc;
    hd_view_t from, from_lse, to, to_lse, q, k, v;
    double *mixed;
    int64_t tokens, heads, blocks;
    int branch;
    int64_t segment, rate, filled; /* of the branch */
    int64_t step;                  /* elements from one of `to` to the next */
    int dv;
} pass_t;

/* Rows first .. end-1 of a head, which are an item's. */
typedef struct span {
    int64_t b, h, first, end;
} span_t;

static span_t span_of(const pass_t *pass, int64_t item)
{
    int64_t head = item / pass->blocks, first = item % pass->blocks * BLOCK_ROWS;
    return (span_t){head / pass->heads, head % pass->heads, first,
                    hd_min(first + BLOCK_ROWS, pass->tokens)};
}

static float *row_of(const hd_view_t *view, int64_t b, int64_t i, int64_t h)
{
    return (float *)(void *)hd_view_row(view, b, i, h);
}

static double *mixed_lse(const pass_t *pass, int64_t b, int64_t h)
{
    return pass->mixed + (b * pass->heads + h) * pass->tokens;
}

/* ---- torchscale ------------------------------------------------------------------------------ */

/* A row of a branch: its numbers times `scale` (NULL: zeros), and lse. */
typedef struct shown {
    const float *row;
    double scale, lse;
} shown_t;

/* The mean of `count` values, of which those past the segment's own are zeros. */
static void mean_of_values(const pass_t *pass, int64_t b, int64_t key_head, int64_t token,
                           int64_t real, int64_t count, float *mean)
{
    double sums[512] = {0};
    for (int64_t m = 0; m < hd_min(real, count); m++) {
        const char *v = hd_view_row(&pass->v, b, token + m * pass->rate, key_head);
        for (int c = 0; c < pass->dv; c++)
            sums[c] += (double)hd_element_load(pass->v.dtype, v + c * pass->v.elem);
    }
    for (int c = 0; c < pass->dv; c++)
        mean[c] = (float)(sums[c] / (double)count);
}

/* The score of a token with itself: the lse of a row that sees one key. Kernels may miss a 0 by
 * their last bits. */
static double own_score(const pass_t *pass, int64_t b, int64_t h, int64_t token, int64_t key_head)
{
    const char *q = hd_view_row(&pass->q, b, token, h);
    const char *k = hd_view_row(&pass->k, b, token, key_head);
    double sum = 0;
    for (int64_t c = 0; c < pass->desc->q.shape[3]; c++)
        sum += (double)hd_element_load(pass->q.dtype, q + c * pass->q.elem) *
               (double)hd_element_load(pass->k.dtype, k + c * pass->k.elem);
    return (double)pass->desc->scale * sum;
}

/* What the branch shows the row that torchscale puts at i. */
static shown_t shown_to(const pass_t *pass, int64_t b, int64_t h, int64_t i, float *spare)
{
    const heed_dilated_desc_t *desc = pass->desc;
    int64_t key_head = h / (pass->heads / desc->k.shape[2]);
    int64_t offset = hd_dilated_offset(desc, pass->branch, key_head);
    int64_t start = i / pass->filled * pass->segment, inside = i % pass->filled;
    int64_t count = pass->filled / pass->rate, m = inside / pass->rate;
    int64_t own = hd_min(pass->segment, pass->tokens - start);
    int64_t real = hd_lattice_count(own, pass->rate, offset);
    shown_t shown = {NULL, 1, ABSENT};
    if (inside % pass->rate != offset)
        return shown;
    if (desc->causal)
        count = m + 1;
    if (m >= real) { /* a row of zeros sees all alike */
        mean_of_values(pass, b, key_head, start + offset, real, count, spare);
        shown = (shown_t){spare, 1, log((double)count)};
    } else {
        shown =
            (shown_t){row_of(&pass->from, b, i, h), 1, (double)*row_of(&pass->from_lse, b, i, h)};
        if (count == 1)
            shown.lse = own_score(pass, b, h, start + offset, key_head);
        double states[] = {shown.lse, log((double)(count - real))}; /* none: -inf */
        if (count > real) {
            shown.lse = hd_merge_weights(states, 2);
            shown.scale = states[0];
        }
    }
    shown.lse = shown.lse == 0 ? ABSENT : shown.lse;
    return shown;
}

static void mix_rows(void *at, int worker, int64_t item)
{
    const pass_t *pass = at;
    span_t span = span_of(pass, item);
    double *lse = mixed_lse(pass, span.b, span.h);
    float spare[512];
    (void)worker;
    for (int64_t i = span.first; i < span.end; i++) {
        shown_t shown = shown_to(pass, span.b, span.h, i, spare);
        double states[] = {pass->branch ? lse[i] : -INFINITY, shown.lse};
        float *to = row_of(&pass->to, span.b, i, span.h);
        lse[i] = hd_merge_weights(states, 2);
        float old = (float)states[0], now = (float)(states[1] * shown.scale);
        for (int c = 0; c < pass->dv; c++) {
            float *sum = &to[c * pass->step];
            *sum = pass->branch ? old * *sum : 0; /* at first there is anything */
            *sum += shown.row && now != 0 ? now * shown.row[c] : 0;
        }
        *row_of(&pass->to_lse, span.b, i, span.h) = (float)lse[i];
    }
}

/* ---- dilated-attention-pytorch --------------------------------------------------------------- */

static bool has_branch(const pass_t *pass, int64_t h)
{
    int64_t first, end;
    hd_dilated_group(pass->desc, pass->branch, &first, &end);
    return h >= first && h < end;
}

static void add_up(void *at, int worker, int64_t head)
{
    const pass_t *pass = at;
    int64_t b = head / pass->heads, h = head % pass->heads;
    double *sums = pass->mixed + head * pass->dv;
    (void)worker;
    memset(sums, 0, (size_t)pass->dv * sizeof(*sums));
    for (int64_t start = 0; start < pass->tokens && has_branch(pass, h); start += pass->segment)
        for (int64_t i = pass->branch % pass->rate; i < pass->segment; i += pass->rate) {
            const float *row = row_of(&pass->from, b, start + i, h);
            for (int c = 0; c < pass->dv; c++)
                sums[c] += (double)row[c];
        }
}

static void divide_rows(void *at, int worker, int64_t item)
{
    const pass_t *pass = at;
    span_t span = span_of(pass, item);
    const double *sums = pass->mixed + (span.b * pass->heads + span.h) * pass->dv;
    const bool has = has_branch(pass, span.h);
    (void)worker;
    for (int64_t i = span.first; i < span.end; i++) {
        float *to = row_of(&pass->to, span.b, i, span.h);
        const float *from = row_of(&pass->from, span.b, i, span.h);
        for (int c = 0; pass->branch == 0 && c < pass->dv; c++)
            to[c * pass->step] = 0;
        if (has && i % pass->segment % pass->rate == pass->branch % pass->rate)
            for (int c = 0; c < pass->dv; c++)
                to[c * pass->step] += (float)((double)from[c] / (sums[c] * pass->desc->branches));
    }
}

/* ---- running --------------------------------------------------------------------------------- */

static void set_branch(pass_t *pass, int branch)
{
    pass->branch = branch;
    pass->segment = hd_dilated_segment(pass->desc, branch);
    pass->rate = pass->desc->rates[branch];
    pass->filled = hd_ceil_div(pass->segment, pass->rate) * pass->rate;
}

static void fold(pass_t *pass, int threads)
{
    int64_t heads = pass->desc->q.shape[0] * pass->heads;
    if (pass->desc->mode == HEED_DILATED_TORCHSCALE) {
        hd_loop(threads, heads * pass->blocks, mix_rows, pass);
        return;
    }
    hd_loop(threads, heads, add_up, pass);
    hd_loop(threads, heads * pass->blocks, divide_rows, pass);
}

heed_status_t hd_package_run(const heed_launch_t *launch)
{
    const package_t *package = launch->state;
    const hd_dilated_schedule_t *base = &package->base;
    const heed_dilated_desc_t *desc = base->desc;
    void *out = launch->buffers[HEED_DILATED_OUT], *lse = launch->buffers[HEED_DILATED_LSE];
    char *sums[HD_STEP_OPERANDS], *steps[HD_STEP_OPERANDS], *memory = launch->workspace;
    for (int n = HEED_ATTENTION_Q; n <= HEED_ATTENTION_V; n++)
        steps[n] = sums[n] = launch->buffers[n];
    hd_state_buffers(&base->state, out, lse, memory, &sums[HEED_ATTENTION_OUT],
                     &sums[HEED_ATTENTION_LSE]);
    memory += base->state.out_bytes + base->state.lse_bytes;
    hd_state_buffers(&package->branch, NULL, NULL, memory, &steps[HEED_ATTENTION_OUT],
                     &steps[HEED_ATTENTION_LSE]);
    memory += package->branch.out_bytes + package->branch.lse_bytes;
    pass_t pass = {.desc = desc,
                   .from = hd_view(&package->branch.out, steps[HEED_ATTENTION_OUT]),
                   .from_lse = hd_lse_view(&package->branch.lse, steps[HEED_ATTENTION_LSE]),
                   .to = hd_view(&base->state.out, sums[HEED_ATTENTION_OUT]),
                   .to_lse = hd_lse_view(&base->state.lse, sums[HEED_ATTENTION_LSE]),
                   .q = hd_view(&desc->q, steps[HEED_ATTENTION_Q]),
                   .k = hd_view(&desc->k, steps[HEED_ATTENTION_K]),
                   .v = hd_view(&desc->v, steps[HEED_ATTENTION_V]),
                   .mixed = (double *)(void *)memory,
                   .tokens = desc->q.shape[1],
                   .heads = desc->q.shape[2],
                   .blocks = hd_ceil_div(desc->q.shape[1], BLOCK_ROWS),
                   .dv = (int)desc->v.shape[3]};
    pass.step = pass.to.elem / (int64_t)sizeof(float);
    for (int i = 0; i < desc->branches; i++) {
        HD_TRY(hd_steps_run(&base->steps, i ? package->step_end[i - 1] : 0, package->step_end[i],
                            steps, memory + package->mixed_bytes));
        set_branch(&pass, i);
        fold(&pass, launch->threads);
    }
    hd_rows_t all = {.count = desc->q.shape[1], .distance = 1, .apart = 1};
    hd_state_store(&base->state, sums, &all, &desc->out, out, &desc->lse, lse, launch->threads);
    return HEED_OK;
}
