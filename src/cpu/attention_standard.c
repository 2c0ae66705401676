/* cpu:standard, attention as it is written: for each query all scores, softmax, weighted sum, in
 * float64. The reference that every other kernel is checked against; slow, any problem. A row's
 * scores are stored, one row a thread at a time. */
#include "../common/attention.h"
#include "../common/element.h"
#include "../common/merge.h"
#include "../common/peaks.h"
#include "parallel.h"

#include <math.h>

typedef struct job {
    hd_attention_t a;
    double *scores; /* [threads][keys + dv] */
} job_t;

/* A row of scores: query i of head h of sequence b, which sees what `visible` says. */
typedef struct row {
    const hd_attention_t *a;
    const hd_visibility_t *visible;
    int64_t b, h, i;
} row_t;

static double dot(const hd_attention_t *a, const char *q, const char *k)
{
    double sum = 0;
    for (int c = 0; c < a->d; c++)
        sum += (double)hd_element_load(a->q.dtype, q + c * a->q.elem) *
               (double)hd_code_load(a->k.dtype, k + c * a->k.elem);
    return sum;
}

static double score_pair(const row_t *row, const char *q, int64_t j)
{
    const hd_attention_t *a = row->a;
    int64_t group = row->h / a->group;
    double score = (double)a->scale * dot(a, q, hd_view_row(&a->k, row->b, j, group));
    score *= (double)hd_scale(&a->k_scale, row->b, j, group);
    return hd_score(&a->modifiers, row->visible, row->b, row->h, row->i, j, score);
}

/* Scores of the visible keys, -inf for the others. Returns the largest. */
static double score_row(const row_t *row, double *scores)
{
    const hd_visibility_t *visible = row->visible;
    const char *q = hd_view_row(&row->a->q, row->b, row->i, row->h);
    double most = -INFINITY;
    hd_walk_t walk;
    hd_block_t block;
    int64_t base = row->i / HD_BLOCK_ROWS * HD_BLOCK_ROWS;
    for (int64_t j = 0; j < visible->keys; j++)
        scores[j] = -INFINITY;
    hd_walk_begin(&walk, visible, row->b, row->h, base,
                  (int)hd_min(visible->queries - base, HD_BLOCK_ROWS));
    while (hd_walk_next(&walk, &block)) {
        uint64_t masks[HD_BLOCK_KEYS];
        hd_walk_masks(&walk, &block, masks);
        for (int j = 0; j < block.count; j++) {
            if (!(masks[j] >> (row->i - base) & 1))
                continue;
            double score = score_pair(row, q, block.key + j);
            scores[block.key + j] = score;
            most = score > most ? score : most;
        }
    }
    return most;
}

/* Merges (out, lse) with what is there, and stores. */
static void store_row(const hd_attention_t *a, int64_t b, int64_t i, int64_t h, const double *out,
                      double lse)
{
    char *to = hd_view_row(&a->out, b, i, h);
    char *lse_to = a->lse.data ? hd_view_row(&a->lse, b, i, h) : NULL;
    double old_weight = 0, weight = 1;
    if (a->merge) {
        double states[] = {(double)hd_element_load(HEED_F32, lse_to), lse};
        lse = hd_merge_weights(states, 2);
        old_weight = states[0];
        weight = states[1];
    }
    for (int c = 0; c < a->dv; c++) {
        double value = weight == 0 ? 0 : weight * out[c];
        if (old_weight != 0)
            value += old_weight * (double)hd_element_load(a->out.dtype, to + c * a->out.elem);
        hd_element_store(a->out.dtype, to + c * a->out.elem, (float)value);
    }
    if (lse_to)
        hd_element_store(HEED_F32, lse_to, (float)lse);
}

static void attend_row(const row_t *row, double *scores)
{
    const hd_attention_t *a = row->a;
    double *out = scores + a->keys, sink = hd_sink(&a->modifiers, row->h);
    double most = fmax(score_row(row, scores), sink);
    double reference = most == -INFINITY ? 0 : most, sum = exp(sink - reference);
    for (int c = 0; c < a->dv; c++)
        out[c] = 0;
    for (int64_t j = 0; j < row->visible->keys; j++) {
        double weight = exp(scores[j] - reference);
        if (weight == 0)
            continue;
        sum += weight;
        const char *v = hd_view_row(&a->v, row->b, j, row->h / a->group);
        weight *= (double)hd_scale(&a->v_scale, row->b, j, row->h / a->group);
        for (int c = 0; c < a->dv; c++)
            out[c] += weight * (double)hd_code_load(a->v.dtype, v + c * a->v.elem);
    }
    for (int c = 0; c < a->dv; c++)
        out[c] = sum == 0 ? 0 : out[c] / sum;
    store_row(a, row->b, row->i, row->h, out, sum == 0 ? -INFINITY : reference + log(sum));
}

static void attend(const hd_team_t *team, void *arg)
{
    const job_t *job = arg;
    const hd_attention_t *a = &job->a;
    double *scores = job->scores + team->rank * (a->keys + a->dv);
    int64_t number = 0;
    for (int64_t b = 0; b < a->batch; b++) {
        hd_visibility_t visible = hd_visible(a, b);
        for (int64_t at = 0; at < a->heads * visible.queries; at++, number++) {
            row_t row = {a, &visible, b, at / visible.queries, at % visible.queries};
            if (number % team->size == team->rank)
                attend_row(&row, scores);
        }
    }
}

static heed_status_t run(const heed_launch_t *launch)
{
    job_t job = {hd_attention_of(launch), launch->workspace};
    hd_parallel(launch->threads, attend, &job);
    return HEED_OK;
}

static size_t workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    (void)device;
    const heed_attention_desc_t *desc = at;
    return (size_t)(hd_room(desc) + desc->v.shape[3]) * sizeof(double) * (size_t)threads;
}

/* A product in float64 with a conversion of every element, 1/90 of what 16-byte vectors reach in
 * f32, of all pairs, seen or not; exp() for each takes as long as some 40 of them. */
static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_attention_desc_t *desc = at;
    const int64_t *q = desc->q.shape;
    double scores = (double)(q[0] * q[1] * q[2]) * (double)hd_room(desc);
    double flops = scores * (2.0 * (double)(q[3] + desc->v.shape[3]) + 40);
    return flops * 90 / hd_rate(&device->peaks, device->peaks.f32_portable, threads) +
           hd_region_ns(device, threads);
}

const heed_impl_t hd_impl_attention_standard = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:standard",
    .about = "the definition in float64: reference and last resort",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_ATTENTION_CAN_ALL,
    .estimate = estimate,
    .workspace = workspace,
    .run = run,
};
