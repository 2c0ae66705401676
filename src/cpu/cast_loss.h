/* What a cast lost: a unit's source and its result, brought back, are compared as f32 while both
 * lie in the cache. The loops that make them f32 are the implementation's own. */
#ifndef HD_CAST_LOSS_H
#define HD_CAST_LOSS_H

#include "cast_job.h"

/* The casts that the comparison takes: of the source, and of the result with what brings it back.
 */
static void cast_loss_begin(cast_job_t *job)
{
    static const char any = 0;
    hd_cast_t plain = job->cast;
    plain.scale = NULL;
    plain.scale_out = NULL;
    plain.amax = NULL;
    plain.counts = NULL;
    plain.rule = (hd_fp8_rule_t){0, 0, HEED_ROUND_NEAREST};
    plain.dst_dtype = HEED_F32;
    plain.dst = NULL; /* not its source: never in place */
    job->widen = job->restore = plain;
    job->restore.src_dtype = job->cast.dst_dtype;
    job->restore.scale = hd_cast_scaled(&job->cast) ? &any : NULL;
}

/* What brings a group's results back. */
static uint32_t cast_loss_factor(const hd_cast_t *cast, hd_scale_t scale)
{
    if (cast->use == HEED_SCALE_MULTIPLIES)
        return hd_reciprocal(scale.multiplier);
    return cast->scale_dtype == HEED_E8M0 ? hd_e8m0_decode((uint8_t)scale.stored) : scale.stored;
}

/* x, y: [CAST_LOSS_PIECE], of which n are compared; both may be written. `from` is where x lies. */
static void cast_loss_add(hd_cast_stats_t *stats, const float *from, float *x, float *y, int64_t n)
{
    hd_sums_t part = {0};
    if (n % HD_SUMS_STEP == 0)
        part = hd_sum_up(from, y, n, false);
    if (n % HD_SUMS_STEP || !isfinite(part.error)) {
        if (from != x)
            memcpy(x, from, (size_t)n * sizeof(*x));
        for (int64_t i = 0; i < n; i++)
            hd_sums_keep(&x[i], &y[i]);
        for (int64_t i = n; i % HD_SUMS_STEP; i++)
            x[i] = y[i] = 0;
        part = hd_sum_up(x, y, hd_ceil_div(n, HD_SUMS_STEP) * HD_SUMS_STEP, false);
    }
    stats->loss[HEED_LOSS_SIGNAL] += part.reference;
    stats->loss[HEED_LOSS_NOISE] += part.error;
    stats->loss[HEED_LOSS_WORST] = fmax(stats->loss[HEED_LOSS_WORST], part.worst);
}

/* The source as f32, where it is or in x. */
static const float *cast_loss_source(const cast_job_t *job, const char *from, float *x, int64_t n)
{
    hd_cast_stats_t unused = {0};
    if (job->cast.src_dtype == HEED_F32)
        return (const float *)(const void *)from;
    cast_line(&job->widen, from, (char *)x, n, 0, 0, false, &unused);
    return x;
}

/* One element of a column, or of a line with gaps. */
static void cast_loss_element(const hd_cast_t *cast, const char *from, const char *to,
                              uint32_t factor, float *x, float *y)
{
    const uint32_t bits = hd_cast_load(cast->dst_dtype, to);
    *x = hd_from_bits(hd_cast_load(cast->src_dtype, from));
    *y = hd_from_bits(hd_cast_scaled(cast) ? hd_exact_scale(bits, factor) : bits);
}

/* A unit of group `number`. */
static void cast_loss_unit(const cast_job_t *job, const cast_unit_t *unit, int64_t number,
                           hd_cast_stats_t *stats)
{
    __attribute__((aligned(64))) float x[CAST_LOSS_PIECE], y[CAST_LOSS_PIECE];
    const hd_cast_t *cast = &job->cast;
    const uint32_t factor = hd_cast_scaled(cast) ? job->factors[number] : 0;
    const int64_t from_step = cast->src_stride[cast->ndim - 1] * hd_dtype_bytes(cast->src_dtype);
    const int64_t to_step = cast->dst_stride[cast->ndim - 1] * hd_dtype_bytes(cast->dst_dtype);
    hd_cast_stats_t unused = {0};
    if (cast_is_line(cast)) {
        const float *from = cast_loss_source(job, unit->from, x, unit->n);
        cast_line(&job->restore, unit->to, (char *)y, unit->n, factor, 0, false, &unused);
        cast_loss_add(stats, from, x, y, unit->n);
        return;
    }
    for (int64_t i = 0; i < unit->n; i++)
        cast_loss_element(cast, unit->from + i * from_step, unit->to + i * to_step, factor, &x[i],
                          &y[i]);
    cast_loss_add(stats, x, x, y, unit->n);
}

/* Groups of `width` elements along a line. */
static void cast_loss_groups(const cast_job_t *job, const cast_unit_t *unit, int64_t width,
                             int64_t groups, const uint32_t *factors, hd_cast_stats_t *stats)
{
    __attribute__((aligned(64))) float x[CAST_LOSS_PIECE], y[CAST_LOSS_PIECE];
    const int64_t n = width * groups, step = width * hd_dtype_bytes(job->cast.dst_dtype);
    hd_cast_stats_t unused = {0};
    if (!cast_line_of_groups(&job->restore, unit->to, (char *)y, width, groups, factors,
                             unused.counts))
        for (int64_t g = 0; g < groups; g++)
            cast_line(&job->restore, unit->to + g * step, (char *)(y + g * width), width,
                      factors[g], 0, false, &unused);
    cast_loss_add(stats, cast_loss_source(job, unit->from, x, n), x, y, n);
}

/* Members in their order: the same threads, the same bits. */
static void cast_store_loss(const cast_job_t *job, int members, double *to)
{
    double loss[HEED_CAST_LOSS_SIZE] = {0};
    for (int m = 0; m < members; m++) {
        loss[HEED_LOSS_SIGNAL] += job->losses[m][HEED_LOSS_SIGNAL];
        loss[HEED_LOSS_NOISE] += job->losses[m][HEED_LOSS_NOISE];
        loss[HEED_LOSS_WORST] = fmax(loss[HEED_LOSS_WORST], job->losses[m][HEED_LOSS_WORST]);
    }
    for (int i = 0; i < HEED_CAST_LOSS_SIZE; i++)
        to[i * job->desc->loss.strides[0]] = loss[i];
}

#endif
