/* cpu:standard of dilated attention: every mode as it is defined, in float64, a row at a time. The
 * reference that the others are checked against; slow, any problem. */
#include "../common/attention.h"
#include "../common/dilated.h"
#include "../common/element.h"
#include "../common/loop.h"

#include <math.h>

enum { MOST_D = 512 };

typedef struct job {
    const heed_dilated_desc_t *desc;
    hd_view_t q, k, v, out, lse;
    int64_t batch, tokens, heads, group;
    int d, dv;
    double *sums; /* grouped_fkodom: [batch][branches][heads][dv] */
} job_t;

/* A softmax while keys come in. */
typedef struct state {
    double most, sum, out[MOST_D];
} state_t;

static void begin(state_t *state, int dv)
{
    state->most = -INFINITY;
    state->sum = 0;
    for (int c = 0; c < dv; c++)
        state->out[c] = 0;
}

/* A key with this score; v NULL: a row of zeros. */
static void take(const job_t *job, state_t *state, double score, const char *v)
{
    double top = fmax(state->most, score);
    if (top == -INFINITY)
        return;
    double old = exp(state->most - top), weight = exp(score - top);
    state->most = top;
    state->sum = state->sum * old + weight;
    for (int c = 0; c < job->dv; c++)
        state->out[c] =
            state->out[c] * old +
            (v ? weight * (double)hd_element_load(job->v.dtype, v + c * job->v.elem) : 0);
}

static double lse_of(const state_t *state)
{
    return state->sum > 0 ? state->most + log(state->sum) : -INFINITY;
}

static double score(const job_t *job, int64_t b, int64_t i, int64_t j, int64_t h)
{
    const char *q = hd_view_row(&job->q, b, i, h), *k = hd_view_row(&job->k, b, j, h / job->group);
    double sum = 0;
    for (int c = 0; c < job->d; c++)
        sum += (double)hd_element_load(job->q.dtype, q + c * job->q.elem) *
               (double)hd_element_load(job->k.dtype, k + c * job->k.elem);
    return (double)job->desc->scale * sum;
}

/* ---- exact ----------------------------------------------------------------------------------- */

/* What the branch shows query i of head h, on the lattice with that offset. */
static void add_branch(const job_t *job, state_t *state, int64_t b, int64_t i, int64_t h,
                       int branch, int64_t offset)
{
    int64_t segment = hd_dilated_segment(job->desc, branch), rate = job->desc->rates[branch];
    int64_t start = i / segment * segment, end = hd_min(start + segment, job->tokens);
    if (i % segment % rate != offset)
        return;
    if (job->desc->causal)
        end = i + 1;
    for (int64_t j = start + offset; j < end; j += rate)
        take(job, state, score(job, b, i, j, h), hd_view_row(&job->v, b, j, h / job->group));
}

static void store(const job_t *job, const state_t *state, int64_t b, int64_t i, int64_t h)
{
    char *out = hd_view_row(&job->out, b, i, h);
    for (int c = 0; c < job->dv; c++)
        hd_element_store(job->out.dtype, out + c * job->out.elem,
                         state->sum > 0 ? (float)(state->out[c] / state->sum) : 0);
    if (job->lse.data)
        hd_element_store(HEED_F32, hd_view_row(&job->lse, b, i, h), (float)lse_of(state));
}

static void exact_row(const job_t *job, int64_t b, int64_t i, int64_t h)
{
    state_t state;
    begin(&state, job->dv);
    for (int n = 0; n < job->desc->branches; n++) {
        int64_t first = 0, end = job->heads;
        int64_t offset = hd_dilated_offset(job->desc, n, h / job->group);
        if (job->desc->mode == HEED_DILATED_GROUPED) {
            hd_dilated_group(job->desc, n, &first, &end);
            offset = n % job->desc->rates[n];
        }
        if (h >= first && h < end)
            add_branch(job, &state, b, i, h, n, offset);
    }
    store(job, &state, b, i, h);
}

/* ---- torchscale ------------------------------------------------------------------------------ */

enum { ABSENT = -100000000 }; /* what torchscale writes as the lse of a row that a branch lacks */

/* The branch's state of the row that torchscale puts at i. Segments are filled up to ceil(w/r) * r
 * rows of zeros, and the rows of all segments follow each other without being cut again. */
static double slipped_branch(const job_t *job, state_t *state, int64_t b, int64_t i, int64_t h,
                             int branch)
{
    int64_t segment = hd_dilated_segment(job->desc, branch), rate = job->desc->rates[branch];
    int64_t offset = hd_dilated_offset(job->desc, branch, h / job->group);
    int64_t count = hd_ceil_div(segment, rate), filled = count * rate;
    int64_t start = i / filled * segment, inside = i % filled;
    int64_t end = hd_min(start + segment, job->tokens), query = start + inside;
    begin(state, job->dv);
    if (inside % rate != offset)
        return ABSENT;
    if (job->desc->causal)
        count = inside / rate + 1;
    for (int64_t m = 0; m < count; m++) {
        int64_t j = start + offset + m * rate;
        bool real = j < end;
        double at = real && query < end ? score(job, b, query, j, h) : 0;
        take(job, state, at, real ? hd_view_row(&job->v, b, j, h / job->group) : NULL);
    }
    return lse_of(state) == 0 ? ABSENT : lse_of(state);
}

static void torchscale_row(const job_t *job, int64_t b, int64_t i, int64_t h)
{
    state_t all, one;
    begin(&all, job->dv);
    for (int n = 0; n < job->desc->branches; n++) {
        double lse = slipped_branch(job, &one, b, i, h, n), top = fmax(all.most, lse);
        double old = exp(all.most - top), weight = exp(lse - top);
        all.most = top;
        all.sum = all.sum * old + weight;
        for (int c = 0; c < job->dv; c++)
            all.out[c] = all.out[c] * old + (one.sum > 0 ? weight * (one.out[c] / one.sum) : 0);
    }
    store(job, &all, b, i, h);
}

/* ---- dilated-attention-pytorch --------------------------------------------------------------- */

/* The branch's own row i, divided; false where it has none. */
static bool branch_row(const job_t *job, state_t *state, int64_t b, int64_t i, int64_t h,
                       int branch)
{
    int64_t first, end;
    hd_dilated_group(job->desc, branch, &first, &end);
    begin(state, job->dv);
    if (h < first || h >= end)
        return false;
    add_branch(job, state, b, i, h, branch, branch % job->desc->rates[branch]);
    for (int c = 0; c < job->dv; c++)
        state->out[c] = state->sum > 0 ? state->out[c] / state->sum : 0;
    return state->sum > 0;
}

static double *sums_of(const job_t *job, int64_t b, int branch, int64_t h)
{
    return job->sums + ((b * job->desc->branches + branch) * job->heads + h) * job->dv;
}

static void add_up(void *at, int worker, int64_t item)
{
    const job_t *job = at;
    int64_t h = item % job->heads, b = item / job->heads / job->desc->branches;
    int branch = (int)(item / job->heads % job->desc->branches);
    double *sums = sums_of(job, b, branch, h);
    state_t state;
    (void)worker;
    for (int c = 0; c < job->dv; c++)
        sums[c] = 0;
    for (int64_t i = 0; i < job->tokens; i++)
        if (branch_row(job, &state, b, i, h, branch))
            for (int c = 0; c < job->dv; c++)
                sums[c] += state.out[c];
}

static void fkodom_row(const job_t *job, int64_t b, int64_t i, int64_t h)
{
    state_t all, one;
    begin(&all, job->dv);
    all.sum = job->desc->branches;
    for (int n = 0; n < job->desc->branches; n++) {
        if (!branch_row(job, &one, b, i, h, n))
            continue;
        for (int c = 0; c < job->dv; c++)
            all.out[c] += one.out[c] / sums_of(job, b, n, h)[c];
    }
    store(job, &all, b, i, h);
}

/* ---- all rows -------------------------------------------------------------------------------- */

static void attend_row(void *at, int worker, int64_t row)
{
    const job_t *job = at;
    int64_t i = row % job->tokens, h = row / job->tokens % job->heads;
    int64_t b = row / job->tokens / job->heads;
    (void)worker;
    if (job->desc->mode == HEED_DILATED_TORCHSCALE)
        torchscale_row(job, b, i, h);
    else if (job->desc->mode == HEED_DILATED_GROUPED_FKODOM)
        fkodom_row(job, b, i, h);
    else
        exact_row(job, b, i, h);
}

static heed_status_t run(const heed_launch_t *launch)
{
    const heed_dilated_desc_t *desc = launch->desc;
    job_t job = {.desc = desc, .sums = launch->workspace};
    job.q = hd_view(&desc->q, launch->buffers[HEED_DILATED_Q]);
    job.k = hd_view(&desc->k, launch->buffers[HEED_DILATED_K]);
    job.v = hd_view(&desc->v, launch->buffers[HEED_DILATED_V]);
    job.out = hd_view(&desc->out, launch->buffers[HEED_DILATED_OUT]);
    if (desc->lse.ndim)
        job.lse = hd_lse_view(&desc->lse, launch->buffers[HEED_DILATED_LSE]);
    job.batch = desc->q.shape[0];
    job.tokens = desc->q.shape[1];
    job.heads = desc->q.shape[2];
    job.group = job.heads / desc->k.shape[2];
    job.d = (int)desc->q.shape[3];
    job.dv = (int)desc->v.shape[3];
    if (desc->mode == HEED_DILATED_GROUPED_FKODOM)
        hd_loop(launch->threads, job.batch * desc->branches * job.heads, add_up, &job);
    hd_loop(launch->threads, job.batch * job.heads * job.tokens, attend_row, &job);
    return HEED_OK;
}

static size_t workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    (void)device, (void)threads;
    if (desc->mode != HEED_DILATED_GROUPED_FKODOM)
        return 0;
    return (size_t)(desc->q.shape[0] * desc->branches * desc->q.shape[2] * desc->v.shape[3]) *
           sizeof(double);
}

/* It only has to come last. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_dilated_desc_t *desc = at;
    double keys = 0;
    (void)device;
    for (int i = 0; i < desc->branches; i++)
        keys += (double)hd_dilated_segment(desc, i) / (double)desc->rates[i];
    return 20 * (double)(desc->q.shape[0] * desc->q.shape[1] * desc->q.shape[2]) * keys *
           (double)(desc->q.shape[3] + desc->v.shape[3]) / threads;
}

const heed_impl_t hd_impl_dilated_standard = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:standard",
    .about = "the definition of every mode in float64: reference and last resort",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_DILATED_CAN_ALL & ~HEED_DILATED_CAN_RANKS,
    .estimate = estimate,
    .workspace = workspace,
    .run = run,
};
