/* Scores of tiles: logits of groups of queries against groups of keys, a softmax for each group of
 * queries, and what falls into each tile. Plain C whose sums a compiler can put into vectors: one
 * pass over a list's life, never the attention itself. */
#include "../common/element.h"
#include "../common/loop.h"
#include "../common/scores.h"

#include <math.h>
#include <string.h>

enum { LANES = 16 };

/* One head's keys in groups, and the rows of tiles that go over them. */
typedef struct plane {
    const hd_scores_t *job;
    int64_t batch, head;
    int64_t groups, width; /* of keys; floats in a group */
    float *keys;           /* [groups][width] */
    float *scratch;        /* per worker: queries of a group, then logits */
    int64_t scratch_floats;
} plane_t;

static bool is_pooled(const hd_scores_t *job)
{
    return job->kind == HEED_SCORE_POOLED;
}

/* A multiple of LANES, zero past the values. */
static int64_t width_of(const hd_scores_t *job)
{
    return (int64_t)hd_round_up((size_t)job->d * (is_pooled(job) ? 1 : (size_t)job->group_k),
                                LANES);
}

static int64_t worker_floats(const hd_scores_t *job)
{
    int64_t groups = hd_ceil_div(job->keys, job->group_k);
    return (int64_t)hd_round_up((size_t)(width_of(job) + groups), LANES);
}

int64_t hd_scores_scratch(const hd_scores_t *job, int threads)
{
    return hd_ceil_div(job->keys, job->group_k) * width_of(job) + threads * worker_floats(job);
}

static float dot(const float *a, const float *b, int64_t n)
{
    float sum[LANES] = {0}, all = 0;
    for (int64_t i = 0; i < n; i += LANES)
        for (int x = 0; x < LANES; x++)
            sum[x] += a[i + x] * b[i + x];
    for (int x = 0; x < LANES; x++)
        all += sum[x];
    return all;
}

/* The rows first .. first+count-1 of a head as one group. */
static void gather(const hd_scores_t *job, const hd_view_t *view, int64_t batch, int64_t head,
                   int64_t first, int64_t count, int group, bool reverse, float *to)
{
    memset(to, 0, (size_t)width_of(job) * sizeof(float));
    for (int64_t r = 0; r < count; r++) {
        const char *row = hd_view_row(view, batch, first + r, head);
        float *at = is_pooled(job) ? to : to + (reverse ? group - 1 - r : r) * job->d;
        for (int c = 0; c < job->d; c++)
            at[c] += hd_element_load(view->dtype, row + c * view->elem);
    }
    for (int c = 0; is_pooled(job) && c < job->d; c++)
        to[c] /= (float)count;
}

static void gather_keys(void *at, int worker, int64_t group)
{
    const plane_t *plane = at;
    const hd_scores_t *job = plane->job;
    int64_t first = group * job->group_k, key_head = plane->head / (job->heads / job->key_heads);
    (void)worker;
    gather(job, &job->k, plane->batch, key_head, first, hd_min(job->group_k, job->keys - first),
           job->group_k, false, plane->keys + group * plane->width);
}

/* Groups of keys that some query of the group sees. */
static int64_t visible_groups(const plane_t *plane, int64_t last_query)
{
    const hd_scores_t *job = plane->job;
    if (!job->causal)
        return plane->groups;
    int64_t position = last_query + job->offset;
    return position < 0 ? 0 : hd_min(position / job->group_k + 1, plane->groups);
}

/* Softmax of the logits of one group of queries, added up by tiles of keys. */
static void add_weights(const hd_scores_t *job, float *logits, int64_t groups, float *to)
{
    int64_t per_tile = job->tile_k / job->group_k;
    float top = -INFINITY;
    double sum = 0;
    for (int64_t g = 0; g < groups; g++)
        top = fmaxf(top, logits[g]);
    if (!isfinite(top))
        top = 0;
    for (int64_t g = 0; g < groups; g++) {
        logits[g] = expf(logits[g] - top);
        sum += (double)logits[g];
    }
    for (int64_t g = 0; g < groups; g++) {
        float weight = (float)((double)logits[g] / sum);
        float *tile = &to[g / per_tile];
        *tile = job->kind == HEED_SCORE_MAX ? fmaxf(*tile, weight) : *tile + weight;
    }
}

static void score_row(void *at, int worker, int64_t row)
{
    const plane_t *plane = at;
    const hd_scores_t *job = plane->job;
    int64_t rows = hd_ceil_div(job->queries, job->tile_q);
    int64_t columns = hd_ceil_div(job->keys, job->tile_k);
    float *to = job->scores + ((plane->batch * job->heads + plane->head) * rows + row) * columns;
    float *query = plane->scratch + worker * plane->scratch_floats;
    float *logits = query + plane->width;
    int64_t end = hd_min((row + 1) * job->tile_q, job->queries), count = 0;
    memset(to, 0, (size_t)columns * sizeof(float));
    for (int64_t first = row * job->tile_q; first < end; first += job->group_q) {
        int64_t rows_here = hd_min(job->group_q, end - first);
        int64_t groups = visible_groups(plane, first + rows_here - 1);
        if (groups == 0)
            continue;
        gather(job, &job->q, plane->batch, plane->head, first, rows_here, job->group_q, true,
               query);
        for (int64_t g = 0; g < groups; g++)
            logits[g] = job->scale * dot(query, plane->keys + g * plane->width, plane->width);
        add_weights(job, logits, groups, to);
        count++;
    }
    for (int64_t c = 0; job->kind != HEED_SCORE_MAX && count && c < columns; c++)
        to[c] /= (float)count;
}

void hd_scores_run(const hd_scores_t *job, int threads, float *scratch)
{
    plane_t plane = {.job = job, .width = width_of(job), .keys = scratch};
    plane.groups = hd_ceil_div(job->keys, job->group_k);
    plane.scratch = scratch + plane.groups * plane.width;
    plane.scratch_floats = worker_floats(job);
    int64_t group = job->heads / job->key_heads;
    for (plane.batch = 0; plane.batch < job->batch; plane.batch++) {
        for (plane.head = 0; plane.head < job->heads; plane.head++) {
            if (plane.head % group == 0)
                hd_loop(threads, plane.groups, gather_keys, &plane);
            hd_loop(threads, hd_ceil_div(job->queries, job->tile_q), score_row, &plane);
        }
    }
}
