/* Casts, for every instruction set: the walk over groups of elements that share a scale, threads,
 * statistics. A file that includes this defines what a dense run of elements needs:
 *
 *     cast_line(cast, from, to, n, multiplier, index, stream, stats)     casts n elements
 *     cast_line_amax(cast, from, n)                                      their largest magnitude
 *
 * and with CAST_HAS_GROUPS, of groups behind each other on a line (false: it has no loop for
 * these),
 *
 *     cast_line_of_groups(cast, from, to, width, groups, multipliers, counts)
 *
 * A unit of work is a piece of the last axis within one group. Without computed scales, and where
 * groups are few, all members of the team share all units; otherwise a group is one member's, who
 * reads it twice while it lies in the cache. Maxima are of integers and counts are sums, so that
 * the results do not depend on who did what.
 *
 * Every member works in the default floating-point environment and puts the caller's back. */
#ifndef HD_CAST_BODY_H
#define HD_CAST_BODY_H

#include "cast_job.h"

enum {
    CAST_SERIAL = 1 << 16,       /* elements that are not worth a team */
    CAST_OWN_GROUP = 1 << 18,    /* elements of a group that one member reads twice */
    CAST_SMALL_GROUPS = 1 << 12, /* elements of groups that go together */
    CAST_SMALL_CHUNK = 1 << 14,
    CAST_LARGE_CHUNK = 1 << 16,
    CAST_MOST_CACHE = 32 << 20
};

static void cast_line(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                      uint32_t multiplier, int64_t index, bool stream, hd_cast_stats_t *stats);
static uint32_t cast_line_amax(const hd_cast_t *cast, const char *from, int64_t n);
#if defined(CAST_HAS_GROUPS)
static bool cast_line_of_groups(const hd_cast_t *cast, const char *from, char *to, int64_t width,
                                int64_t groups, const uint32_t *multipliers, int64_t *counts);
#else
static bool cast_line_of_groups(const hd_cast_t *cast, const char *from, char *to, int64_t width,
                                int64_t groups, const uint32_t *multipliers, int64_t *counts)
{
    (void)cast, (void)from, (void)to, (void)width, (void)groups, (void)multipliers, (void)counts;
    return false;
}
#endif

#include "cast_across.h"

/* A unit of group `number`. */
static void cast_unit(const cast_job_t *job, const cast_unit_t *unit, int64_t number,
                      hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    const uint32_t multiplier = hd_cast_scaled(cast) ? job->multipliers[number] : 0;
    int last = cast->ndim - 1;
    int64_t from_step = cast->src_stride[last] * hd_dtype_bytes(cast->src_dtype);
    int64_t to_step = cast->dst_stride[last] * hd_dtype_bytes(cast->dst_dtype);
    if (cast_is_line(cast) || unit->n == 1)
        cast_line(cast, unit->from, unit->to, unit->n, multiplier, unit->index, job->stream, stats);
    else
        for (int64_t i = 0; i < unit->n; i++)
            hd_cast_element(cast, unit->from + i * from_step, unit->to + i * to_step, multiplier,
                            unit->index + i, stats);
    if (job->factors)
        cast_loss_unit(job, unit, number, stats);
}

static uint32_t cast_unit_amax(const hd_cast_t *cast, const cast_unit_t *unit)
{
    int last = cast->ndim - 1;
    if (cast->src_stride[last] == 1)
        return cast_line_amax(cast, unit->from, unit->n);
    int64_t step = cast->src_stride[last] * hd_dtype_bytes(cast->src_dtype);
    uint32_t amax = 0;
    for (int64_t i = 0; i < unit->n; i++) {
        uint32_t magnitude =
            hd_cast_load(cast->src_dtype, unit->from + i * step) & HD_F32_MAGNITUDE;
        amax = magnitude > amax ? magnitude : amax;
    }
    return amax;
}

/* ---- the ways through ------------------------------------------------------------------------ */

static uint32_t cast_group_amax(const cast_job_t *job, const cast_group_t *group)
{
    uint32_t amax = 0;
    for (int64_t u = 0; u < group->rows * job->row_pieces; u++) {
        cast_unit_t unit =
            cast_find_unit(job, &job->cast, group, u / job->row_pieces, u % job->row_pieces);
        uint32_t most = unit.n ? cast_unit_amax(&job->cast, &unit) : 0;
        amax = most > amax ? most : amax;
    }
    return amax;
}

static void cast_group(cast_job_t *job, int64_t number, hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    cast_group_t group = cast_find_group(cast, number);
    job->amax[number] = cast->scale_out ? cast_group_amax(job, &group) : 0;
    if (hd_cast_scaled(cast))
        cast_settle(job, number, stats);
    stats->amax = 0;
    for (int64_t u = 0; u < group.rows * job->row_pieces; u++) {
        cast_unit_t unit =
            cast_find_unit(job, cast, &group, u / job->row_pieces, u % job->row_pieces);
        if (unit.n)
            cast_unit(job, &unit, number, stats);
    }
    if (!cast->scale_out)
        job->amax[number] = stats->amax;
}

/* How many groups from `number` on, at most to `end`, lie whole behind each other in one line and
 * go together; 0: none. They are short, and each for itself would cost more than its cast. */
static int64_t cast_groups_in_line(const cast_job_t *job, int64_t number, int64_t end)
{
    const hd_cast_t *cast = &job->cast;
    int last = cast->ndim - 1;
    int64_t width = cast->block[last], place = number % cast->groups[last];
    int64_t whole = cast->shape[last] / width - place, most = CAST_SMALL_GROUPS / width;
    if (job->rows != 1 || !cast_is_line(cast) || !hd_cast_scaled(cast))
        return 0;
    return hd_max(0, hd_min(hd_min(whole, most), end - number));
}

static bool cast_some_groups(cast_job_t *job, int64_t number, int64_t count, hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    const int64_t width = cast->block[cast->ndim - 1];
    const int64_t step = width * hd_dtype_bytes(cast->src_dtype);
    cast_group_t group = cast_find_group(cast, number);
    cast_unit_t unit = cast_find_unit(job, cast, &group, 0, 0);
    const int64_t scale_step = cast->scale_stride[cast->ndim - 1];
    const int64_t offset = hd_cast_group_offset(cast, cast->scale_stride, number);
    hd_cast_stats_t settled = {0};
    for (int64_t g = 0; g < count; g++) {
        job->amax[number + g] =
            cast->scale_out || cast->amax ? cast_line_amax(cast, unit.from + g * step, width) : 0;
        cast_settle_at(job, number + g, offset + g * scale_step, &settled);
    }
    if (!cast_line_of_groups(cast, unit.from, unit.to, width, count, job->multipliers + number,
                             stats->counts))
        return false;
    if (job->factors)
        cast_loss_groups(job, &unit, width, count, job->factors + number, stats);
    stats->counts[HEED_COUNT_BAD_SCALES] += settled.counts[HEED_COUNT_BAD_SCALES];
    return true;
}

/* Whole groups, each by one member. */
static void cast_groups(cast_job_t *job, const hd_team_t *team, hd_cast_stats_t *stats)
{
    int64_t begin = job->cast.group_count * team->rank / team->size;
    int64_t end = job->cast.group_count * (team->rank + 1) / team->size;
    for (int64_t number = begin; number < end;) {
        int64_t count = cast_groups_in_line(job, number, end);
        if (count > 1 && cast_some_groups(job, number, count, stats)) {
            number += count;
            continue;
        }
        for (int64_t stop = number + hd_max(count, 1); number < stop; number++)
            cast_group(job, number, stats);
    }
}

/* This member's share of all units: their maxima, or the cast itself. */
static void cast_units(cast_job_t *job, const hd_team_t *team, bool only_amax,
                       hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    int64_t per_group = job->rows * job->row_pieces, total = cast->group_count * per_group;
    int64_t at = total * team->rank / team->size, end = total * (team->rank + 1) / team->size;
    while (at < end) {
        cast_group_t group = cast_find_group(cast, at / per_group);
        uint32_t amax = 0;
        int64_t stop = hd_min(end, (group.number + 1) * per_group);
        stats->amax = 0;
        for (; at < stop; at++) {
            int64_t u = at % per_group;
            cast_unit_t unit =
                cast_find_unit(job, cast, &group, u / job->row_pieces, u % job->row_pieces);
            if (!unit.n)
                continue;
            if (only_amax) {
                uint32_t most = cast_unit_amax(cast, &unit);
                amax = most > amax ? most : amax;
            } else
                cast_unit(job, &unit, group.number, stats);
        }
        cast_raise(&job->amax[group.number], only_amax ? amax : stats->amax);
    }
}

/* ---- a member's work ------------------------------------------------------------------------- */

static void cast_share(cast_job_t *job, const hd_team_t *team, bool only_amax,
                       hd_cast_stats_t *stats)
{
    if (job->by_column)
        cast_columns(job, team, only_amax, stats);
    else
        cast_units(job, team, only_amax, stats);
}

static void cast_work_in_phases(cast_job_t *job, const hd_team_t *team, hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    int64_t begin = cast->group_count * team->rank / team->size;
    int64_t end = cast->group_count * (team->rank + 1) / team->size;
    memset(job->amax + begin, 0, (size_t)(end - begin) * sizeof(*job->amax));
    hd_team_barrier(team);
    if (cast->scale_out) {
        cast_share(job, team, true, stats);
        hd_team_barrier(team);
    }
    if (hd_cast_scaled(cast)) {
        for (int64_t number = begin; number < end; number++)
            cast_settle(job, number, stats);
        hd_team_barrier(team);
    }
    cast_share(job, team, false, stats);
}

static void cast_work(const hd_team_t *team, void *arg)
{
    cast_job_t *job = (cast_job_t *)arg;
    const hd_cast_t *cast = &job->cast;
    cast_environment_t before = cast_environment_enter();
    hd_cast_stats_t stats = {0};
    if (job->by_group)
        cast_groups(job, team, &stats);
    else
        cast_work_in_phases(job, team, &stats);
    cast_add_counts(job, &stats);
    if (job->factors)
        memcpy(job->losses[team->rank], stats.loss, sizeof(stats.loss));
#if defined(__x86_64__)
    if (job->stream)
        __builtin_ia32_sfence(); /* stores past the caches are in no order but this */
#endif
    if (cast->amax || job->transposed)
        hd_team_barrier(team);
    int64_t end = cast->group_count * (team->rank + 1) / team->size;
    if (cast->amax)
        for (int64_t i = cast->group_count * team->rank / team->size; i < end; i++)
            cast_store_amax(job, i);
    if (job->transposed)
        cast_transpose(job, team);
    cast_environment_leave(before);
}

/* ---- running --------------------------------------------------------------------------------- */

/* Without scales the tensor is one group, and dense ones are one line. */
static void cast_flatten(hd_cast_t *cast)
{
    int64_t elements = 1, src = 1, dst = 1;
    if (cast->group_count != 1)
        return;
    for (int i = cast->ndim - 1; i >= 0; i--) {
        if (cast->shape[i] > 1 && (cast->src_stride[i] != src || cast->dst_stride[i] != dst))
            return;
        src *= cast->shape[i];
        dst *= cast->shape[i];
        elements *= cast->shape[i];
    }
    cast->ndim = 1;
    cast->shape[0] = cast->block[0] = elements;
    cast->groups[0] = 1;
    cast->src_stride[0] = cast->dst_stride[0] = 1;
    cast->scale_stride[0] = cast->amax_stride[0] = 0;
}

/* Bytes of the last cache; where the topology does not tell, what most machines have. */
static int64_t cast_cache_bytes(const heed_device_info_t *device)
{
    int64_t bytes = 0;
    for (int i = 0; device && i < device->cache_count; i++)
        bytes = hd_max(bytes, device->caches[i].bytes);
    return bytes > 0 ? bytes : 8 << 20;
}

static int cast_plan_work(cast_job_t *job, int threads, int64_t cache)
{
    hd_cast_t *cast = &job->cast;
    int last = cast->ndim - 1;
    job->rows = 1;
    for (int i = 0; i < last; i++)
        job->rows *= cast->block[i];
    /* Large for the loops that go past the caches, but some for each thread. */
    job->chunk = job->elements / (4 * threads) & -CAST_SMALL_CHUNK;
    job->chunk = hd_max(CAST_SMALL_CHUNK, hd_min(job->chunk, CAST_LARGE_CHUNK));
    if (job->factors) /* what is cast is compared while it lies in the cache */
        job->chunk = CAST_LOSS_PIECE;
    job->row_pieces = hd_ceil_div(cast->block[last], job->chunk);
    int64_t size = job->rows * cast->block[last];
    job->by_column = cast->block[last] == 1 && cast->shape[last] > 1;
    job->by_group = !job->by_column && size <= CAST_OWN_GROUP && cast->group_count >= 2 * threads;
    bool in_place = (const char *)cast->dst == cast->src;
    /* Past the caches where source and result do not fit into the last one together, of which no
     * more counts than one user may hope for: a server's is shared with all its other cores. */
    cache = hd_min(cache, CAST_MOST_CACHE);
    int64_t bytes = hd_dtype_bytes(cast->src_dtype) + hd_dtype_bytes(cast->dst_dtype);
    job->stream = !in_place && !job->transposed && !job->factors && job->elements > cache / bytes;
    bool narrows = hd_dtype_bytes(cast->dst_dtype) < hd_dtype_bytes(cast->src_dtype);
    return job->elements < CAST_SERIAL || (in_place && narrows) ? 1 : threads;
}

static size_t cast_workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_cast_desc_t *desc = (const heed_cast_desc_t *)at;
    int64_t block[HEED_MAX_NDIM], groups = 1;
    (void)device;
    hd_cast_blocks(desc, block);
    for (int i = 0; i < desc->src.ndim; i++)
        groups *= hd_ceil_div(desc->src.shape[i], block[i]);
    if (!desc->loss.ndim)
        return (size_t)groups * 2 * sizeof(uint32_t);
    return (size_t)threads * HEED_CAST_LOSS_SIZE * sizeof(double) +
           (size_t)groups * 3 * sizeof(uint32_t);
}

static void cast_store_counts(const cast_job_t *job)
{
    for (int i = 0; job->cast.counts && i < HEED_CAST_COUNTS_SIZE; i++)
        job->cast.counts[i * job->cast.counts_stride] = job->counts[i];
}

static heed_status_t cast_run(const heed_launch_t *launch)
{
    const heed_cast_desc_t *desc = (const heed_cast_desc_t *)launch->desc;
    cast_job_t job = {.cast = hd_cast(desc, launch->buffers), .desc = desc, .elements = 1};
    for (int i = 0; i < desc->src.ndim; i++)
        job.elements *= desc->src.shape[i];
    job.transposed = (char *)launch->buffers[HEED_CAST_TRANSPOSED];
    const bool with_loss = launch->buffers[HEED_CAST_LOSS] != NULL;
    job.losses = (double(*)[HEED_CAST_LOSS_SIZE])launch->workspace;
    job.multipliers = (uint32_t *)(job.losses + (with_loss ? launch->threads : 0));
    job.amax = job.multipliers + job.cast.group_count;
    if (with_loss) {
        memset(job.losses, 0, (size_t)launch->threads * sizeof(*job.losses));
        job.factors = job.amax + job.cast.group_count;
    }
    if (job.elements > 0) {
        if (!job.transposed)
            cast_flatten(&job.cast);
        if (with_loss)
            cast_loss_begin(&job);
        hd_parallel(cast_plan_work(&job, launch->threads, cast_cache_bytes(launch->device)),
                    cast_work, &job);
    }
    cast_store_counts(&job);
    if (with_loss)
        cast_store_loss(&job, launch->threads, (double *)launch->buffers[HEED_CAST_LOSS]);
    return HEED_OK;
}

#include "cast_estimate.h"

#endif
