/* The state that a schedule merges into. */
#include "attention.h"
#include "element.h"
#include "loop.h"
#include "steps.h"

#include <math.h>
#include <string.h>

void hd_state_describe(const heed_tensor_t *out, const heed_tensor_t *lse, bool wide, int64_t rows,
                       hd_state_t *state)
{
    const int64_t *shape = out->shape;
    int64_t own = rows < 0 ? shape[1] : rows;
    *state = (hd_state_t){.out = *out, .lse = *lse};
    memcpy(state->axes[0].shape, (int64_t[]){shape[0], own, shape[2], shape[3]},
           4 * sizeof(int64_t));
    memcpy(state->axes[1].shape, (int64_t[]){shape[0], shape[2], own}, 3 * sizeof(int64_t));
    if (rows >= 0 || (wide && out->dtype != HEED_F32)) {
        hd_dense_strides(4, state->axes[0].shape, state->axes[0].strides);
        state->out = heed_tensor(NULL, HEED_F32, 4, state->axes[0].shape, state->axes[0].strides);
        state->out_bytes = hd_round_up((size_t)hd_tensor_elements(&state->out) * 4, 64);
    }
    if (rows >= 0 || !lse->ndim) {
        hd_dense_strides(3, state->axes[1].shape, state->axes[1].strides);
        state->lse = heed_tensor(NULL, HEED_F32, 3, state->axes[1].shape, state->axes[1].strides);
        state->lse_bytes = hd_round_up((size_t)hd_tensor_elements(&state->lse) * 4, 64);
    }
}

void hd_state_buffers(const hd_state_t *state, void *out, void *lse, char *memory, char **out_at,
                      char **lse_at)
{
    *out_at = state->out_bytes ? memory : out;
    *lse_at = state->lse_bytes ? memory + state->out_bytes : lse;
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum { CLEAR_ROWS = 256 };

typedef struct job {
    hd_view_t out, lse;       /* of the state */
    hd_view_t out_to, lse_to; /* the caller's, data NULL where nothing is to be written */
    hd_rows_t rows;
    int64_t heads, dv;
} job_t;

static job_t job_of(const hd_state_t *state, char *out_at, char *lse_at)
{
    job_t job = {.out = hd_view(&state->out, out_at), .lse = hd_lse_view(&state->lse, lse_at)};
    job.rows.count = state->out.shape[1];
    job.heads = state->out.shape[2];
    job.dv = state->out.shape[3];
    return job;
}

static void clear_row(const job_t *job, int64_t b, int64_t i, int64_t h)
{
    char *row = hd_view_row(&job->out, b, i, h);
    if (hd_view_is_plain(&job->out, job->out.dtype)) /* zero is zeros in every dtype */
        memset(row, 0, (size_t)job->dv * (size_t)job->out.elem);
    else
        for (int64_t c = 0; c < job->dv; c++)
            hd_element_store(job->out.dtype, row + c * job->out.elem, 0);
}

/* Some rows of all heads, in the order that they mostly lie in. */
static void clear_rows(void *at, int worker, int64_t item)
{
    const job_t *job = at;
    const float none = -INFINITY;
    int64_t blocks = hd_ceil_div(job->rows.count, CLEAR_ROWS), b = item / blocks;
    int64_t first = item % blocks * CLEAR_ROWS;
    int64_t end = hd_min(first + CLEAR_ROWS, job->rows.count);
    (void)worker;
    for (int64_t i = first; i < end; i++)
        for (int64_t h = 0; h < job->heads; h++)
            clear_row(job, b, i, h);
    for (int64_t h = 0; h < job->heads; h++)
        for (int64_t i = first; i < end; i++)
            memcpy(hd_view_row(&job->lse, b, i, h), &none, sizeof(none));
}

void hd_state_clear(const hd_state_t *state, char *out_at, char *lse_at, int threads)
{
    job_t job = job_of(state, out_at, lse_at);
    hd_loop(threads, state->out.shape[0] * hd_ceil_div(job.rows.count, CLEAR_ROWS), clear_rows,
            &job);
}

static void store_head(void *at, int worker, int64_t item)
{
    const job_t *job = at;
    int64_t b = item / job->heads, h = item % job->heads;
    (void)worker;
    for (int64_t n = 0; n < job->rows.count; n++) {
        int64_t from = job->rows.from + n * job->rows.apart,
                to = job->rows.first + n * job->rows.distance;
        if (job->lse_to.data)
            memcpy(hd_view_row(&job->lse_to, b, to, h), hd_view_row(&job->lse, b, from, h),
                   sizeof(float));
        if (!job->out_to.data)
            continue;
        const char *row = hd_view_row(&job->out, b, from, h);
        char *row_to = hd_view_row(&job->out_to, b, to, h);
        for (int64_t c = 0; c < job->dv; c++)
            hd_element_store(job->out_to.dtype, row_to + c * job->out_to.elem,
                             hd_element_load(HEED_F32, row + c * job->out.elem));
    }
}

void hd_state_store(const hd_state_t *state, char *const *buffers, const hd_rows_t *rows,
                    const heed_tensor_t *out, void *out_data, const heed_tensor_t *lse,
                    void *lse_data, int threads)
{
    job_t job = job_of(state, buffers[HEED_ATTENTION_OUT], buffers[HEED_ATTENTION_LSE]);
    job.rows = *rows;
    if (state->out_bytes)
        job.out_to = hd_view(out, out_data);
    if (state->lse_bytes && lse->ndim)
        job.lse_to = hd_lse_view(lse, lse_data);
    if (job.out_to.data || job.lse_to.data)
        hd_loop(threads, out->shape[0] * job.heads, store_head, &job);
}
