/* Casts, for every instruction set: the walk over groups of elements that share a scale, threads,
 * statistics. A file that includes this defines what a dense run of elements needs:
 *
 *     cast_line(cast, from, to, n, multiplier, index, stream, stats)     casts n elements
 *     cast_line_amax(cast, from, n)                                      their largest magnitude
 *
 * A unit of work is a piece of the last axis within one group. Without computed scales, and where
 * groups are few, all members of the team share all units; otherwise a group is one member's, who
 * reads it twice while it lies in the cache. Maxima are of integers and counts are sums, so that
 * the results do not depend on who did what.
 *
 * Every member works in the default floating-point environment and puts the caller's back. */
#ifndef HD_CAST_BODY_H
#define HD_CAST_BODY_H

#include "../common/casting.h"
#include "../common/peaks.h"
#include "parallel.h"

#include <fenv.h>
#include <string.h>

enum {
    CAST_CHUNK = 1 << 14,
    CAST_SERIAL = 1 << 16,      /* elements that are not worth a team */
    CAST_OWN_GROUP = 1 << 18,   /* elements of a group that one member reads twice */
    CAST_STREAM_BYTES = 8 << 20 /* of output: beyond the caches of most machines */
};

static void cast_line(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                      uint32_t multiplier, int64_t index, bool stream, hd_cast_stats_t *stats);
static uint32_t cast_line_amax(const hd_cast_t *cast, const char *from, int64_t n);

typedef struct cast_job {
    hd_cast_t cast;
    const heed_cast_desc_t *desc;
    uint32_t *multipliers, *amax; /* [groups] of the workspace */
    int64_t counts[HEED_CAST_COUNTS_SIZE];
    int64_t rows, row_pieces; /* of a group, the largest */
    int64_t elements;
    char *transposed;
    bool stream, by_group, by_column;
} cast_job_t;

/* A piece of one line of one group. */
typedef struct cast_unit {
    const char *from;
    char *to;
    int64_t n, index;
} cast_unit_t;

/* ---- the floating-point environment ------------------------------------------------------------
 */

#if defined(__x86_64__)
typedef unsigned cast_environment_t;
static inline cast_environment_t cast_environment_enter(void)
{
    unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x1f80);
    return before;
}
static inline void cast_environment_leave(cast_environment_t before)
{
    __builtin_ia32_ldmxcsr(before);
}
#else
typedef fenv_t cast_environment_t;
static inline cast_environment_t cast_environment_enter(void)
{
    fenv_t before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}
static inline void cast_environment_leave(cast_environment_t before)
{
    fesetenv(&before);
}
#endif

/* ---- units -------------------------------------------------------------------------------------
 */

/* Where a group lies. */
typedef struct cast_group {
    int64_t number;
    int64_t first[HEED_MAX_NDIM], extent[HEED_MAX_NDIM];
    int64_t rows; /* lines: indices of all axes but the last */
} cast_group_t;

static cast_group_t cast_find_group(const hd_cast_t *cast, int64_t number)
{
    cast_group_t group = {.number = number, .rows = 1};
    for (int i = cast->ndim - 1; i >= 0; i--) {
        group.first[i] = number % cast->groups[i] * cast->block[i];
        group.extent[i] = hd_min(cast->block[i], cast->shape[i] - group.first[i]);
        number /= cast->groups[i];
        if (i < cast->ndim - 1)
            group.rows *= group.extent[i];
    }
    return group;
}

/* Piece `piece` of line `row`; n is 0 where a group at an edge has none. */
static cast_unit_t cast_find_unit(const hd_cast_t *cast, const cast_group_t *group, int64_t row,
                                  int64_t piece)
{
    int last = cast->ndim - 1;
    int64_t at[HEED_MAX_NDIM], from = 0, to = 0, index = 0;
    cast_unit_t unit = {0};
    at[last] = group->first[last] + piece * CAST_CHUNK;
    int64_t left = group->extent[last] - piece * CAST_CHUNK;
    if (row >= group->rows || left <= 0)
        return unit;
    for (int i = last - 1; i >= 0; i--) {
        at[i] = group->first[i] + row % group->extent[i];
        row /= group->extent[i];
    }
    for (int i = 0; i <= last; i++) {
        from += at[i] * cast->src_stride[i];
        to += at[i] * cast->dst_stride[i];
        index = index * cast->shape[i] + at[i];
    }
    unit.from = cast->src + from * hd_dtype_bytes(cast->src_dtype);
    unit.to = cast->dst + to * hd_dtype_bytes(cast->dst_dtype);
    unit.n = hd_min(left, CAST_CHUNK);
    unit.index = index;
    return unit;
}

static bool cast_is_line(const hd_cast_t *cast)
{
    int last = cast->ndim - 1;
    return cast->src_stride[last] == 1 && cast->dst_stride[last] == 1;
}

static void cast_unit(const cast_job_t *job, const cast_unit_t *unit, uint32_t multiplier,
                      hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    int last = cast->ndim - 1;
    if (cast_is_line(cast) || unit->n == 1) {
        cast_line(cast, unit->from, unit->to, unit->n, multiplier, unit->index, job->stream, stats);
        return;
    }
    int64_t from_step = cast->src_stride[last] * hd_dtype_bytes(cast->src_dtype);
    int64_t to_step = cast->dst_stride[last] * hd_dtype_bytes(cast->dst_dtype);
    for (int64_t i = 0; i < unit->n; i++)
        hd_cast_element(cast, unit->from + i * from_step, unit->to + i * to_step, multiplier,
                        unit->index + i, stats);
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

/* ---- what is shared ----------------------------------------------------------------------------
 */

static void cast_raise(uint32_t *at, uint32_t value)
{
    uint32_t now = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (value > now && !__atomic_compare_exchange_n(at, &now, value, false, __ATOMIC_RELAXED,
                                                       __ATOMIC_RELAXED)) {
    }
}

static void cast_add_counts(cast_job_t *job, const hd_cast_stats_t *stats)
{
    for (int i = 0; i < HEED_CAST_COUNTS_SIZE; i++)
        if (stats->counts[i])
            __atomic_fetch_add(&job->counts[i], stats->counts[i], __ATOMIC_RELAXED);
}

/* The multiplier of a group, from its given scale or from its amax; a computed one is stored. */
static uint32_t cast_settle(const cast_job_t *job, int64_t number, hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    hd_scale_t scale;
    if (cast->scale) {
        const char *at = cast->scale + hd_cast_group_offset(cast, cast->scale_stride, number) *
                                           hd_dtype_bytes(cast->scale_dtype);
        scale = hd_scale_given(cast->scale_dtype, at, cast->use);
    } else {
        scale = hd_scale_computed(job->amax[number], cast->largest, cast->amax_floor, cast->form,
                                  cast->use);
        hd_scale_store(cast, number, scale);
    }
    stats->counts[HEED_COUNT_BAD_SCALES] += scale.bad;
    job->multipliers[number] = scale.multiplier;
    return scale.multiplier;
}

static void cast_store_amax(const cast_job_t *job, int64_t number)
{
    const hd_cast_t *cast = &job->cast;
    uint32_t amax = job->amax[number] > HD_F32_INF ? (uint32_t)HD_F32_NAN : job->amax[number];
    memcpy(cast->amax + hd_cast_group_offset(cast, cast->amax_stride, number), &amax, sizeof(amax));
}

/* ---- the ways through --------------------------------------------------------------------------
 */

/* Whole groups, each by one member. */
static void cast_groups(cast_job_t *job, const hd_team_t *team, hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    int64_t begin = cast->group_count * team->rank / team->size;
    int64_t end = cast->group_count * (team->rank + 1) / team->size;
    for (int64_t number = begin; number < end; number++) {
        cast_group_t group = cast_find_group(cast, number);
        uint32_t multiplier = 0, amax = 0;
        if (cast->scale_out)
            for (int64_t u = 0; u < group.rows * job->row_pieces; u++) {
                cast_unit_t unit =
                    cast_find_unit(cast, &group, u / job->row_pieces, u % job->row_pieces);
                uint32_t most = unit.n ? cast_unit_amax(cast, &unit) : 0;
                amax = most > amax ? most : amax;
            }
        job->amax[number] = amax;
        if (hd_cast_scaled(cast))
            multiplier = cast_settle(job, number, stats);
        stats->amax = 0;
        for (int64_t u = 0; u < group.rows * job->row_pieces; u++) {
            cast_unit_t unit =
                cast_find_unit(cast, &group, u / job->row_pieces, u % job->row_pieces);
            if (unit.n)
                cast_unit(job, &unit, multiplier, stats);
        }
        if (!cast->scale_out)
            job->amax[number] = stats->amax;
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
        uint32_t multiplier = hd_cast_scaled(cast) ? job->multipliers[group.number] : 0, amax = 0;
        int64_t stop = hd_min(end, (group.number + 1) * per_group);
        stats->amax = 0;
        for (; at < stop; at++) {
            int64_t u = at % per_group;
            cast_unit_t unit =
                cast_find_unit(cast, &group, u / job->row_pieces, u % job->row_pieces);
            if (!unit.n)
                continue;
            if (only_amax) {
                uint32_t most = cast_unit_amax(cast, &unit);
                amax = most > amax ? most : amax;
            } else
                cast_unit(job, &unit, multiplier, stats);
        }
        cast_raise(&job->amax[group.number], only_amax ? amax : stats->amax);
    }
}

/* Groups that are columns: lines along the last axis, each element of another group. */
static void cast_columns(cast_job_t *job, const hd_team_t *team, bool only_amax,
                         hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    int last = cast->ndim - 1;
    int64_t from_step = cast->src_stride[last] * hd_dtype_bytes(cast->src_dtype);
    int64_t to_step = cast->dst_stride[last] * hd_dtype_bytes(cast->dst_dtype);
    hd_cast_t lines = *cast; /* the same tensor as one group of lines */
    memcpy(lines.block, lines.shape, sizeof(lines.block));
    for (int i = 0; i < cast->ndim; i++)
        lines.groups[i] = 1;
    cast_group_t all = cast_find_group(&lines, 0);
    int64_t begin = all.rows * team->rank / team->size;
    int64_t end = all.rows * (team->rank + 1) / team->size;
    for (int64_t row = begin; row < end; row++)
        for (int64_t piece = 0; piece * CAST_CHUNK < cast->shape[last]; piece++) {
            cast_unit_t unit = cast_find_unit(&lines, &all, row, piece);
            int64_t first = unit.index % cast->shape[last];
            for (int64_t i = 0; i < unit.n; i++) {
                /* Other axes may be cut into groups, too. */
                int64_t number = 0, index = unit.index / cast->shape[last], step = 1;
                for (int axis = last - 1; axis >= 0; axis--) {
                    number += index % cast->shape[axis] / cast->block[axis] * step;
                    index /= cast->shape[axis];
                    step *= cast->groups[axis];
                }
                number = number * cast->groups[last] + first + i;
                stats->amax = 0;
                if (only_amax)
                    stats->amax =
                        hd_cast_load(cast->src_dtype, unit.from + i * from_step) & HD_F32_MAGNITUDE;
                else
                    hd_cast_element(cast, unit.from + i * from_step, unit.to + i * to_step,
                                    hd_cast_scaled(cast) ? job->multipliers[number] : 0,
                                    unit.index + i, stats);
                cast_raise(&job->amax[number], stats->amax);
            }
        }
}

/* Tiles of the result, from dst. */
static void cast_transpose(const cast_job_t *job, const hd_team_t *team)
{
    enum { TILE = 64 };
    const hd_cast_t *cast = &job->cast;
    int last = cast->ndim - 1;
    const int64_t *strides = job->desc->transposed.strides;
    int64_t size = hd_dtype_bytes(cast->dst_dtype);
    int64_t rows = cast->shape[last - 1], columns = cast->shape[last];
    int64_t across = hd_ceil_div(columns, TILE), down = hd_ceil_div(rows, TILE);
    int64_t matrices = job->elements / rows / columns, total = matrices * across * down;
    int64_t end = total * (team->rank + 1) / team->size;
    for (int64_t at = total * team->rank / team->size; at < end; at++) {
        int64_t from = 0, to = 0, matrix = at / (across * down);
        int64_t row = at / across % down * TILE, column = at % across * TILE;
        for (int i = last - 2; i >= 0; i--) {
            from += matrix % cast->shape[i] * cast->dst_stride[i];
            to += matrix % cast->shape[i] * strides[i];
            matrix /= cast->shape[i];
        }
        for (int64_t c = column; c < hd_min(column + TILE, columns); c++)
            for (int64_t r = row; r < hd_min(row + TILE, rows); r++)
                memcpy(job->transposed + (to + c * strides[last - 1] + r * strides[last]) * size,
                       cast->dst +
                           (from + r * cast->dst_stride[last - 1] + c * cast->dst_stride[last]) *
                               size,
                       (size_t)size);
    }
}

/* ---- a member's work ----------------------------------------------------------------------------
 */

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

/* ---- running ------------------------------------------------------------------------------------
 */

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

static int cast_plan_work(cast_job_t *job, int threads)
{
    hd_cast_t *cast = &job->cast;
    int last = cast->ndim - 1;
    job->rows = 1;
    for (int i = 0; i < last; i++)
        job->rows *= cast->block[i];
    job->row_pieces = hd_ceil_div(cast->block[last], CAST_CHUNK);
    int64_t size = job->rows * cast->block[last];
    job->by_column = cast->block[last] == 1 && cast->shape[last] > 1;
    job->by_group = !job->by_column && size <= CAST_OWN_GROUP && cast->group_count >= 2 * threads;
    bool in_place = (const char *)cast->dst == cast->src;
    int64_t bytes = job->elements * hd_dtype_bytes(cast->dst_dtype);
    job->stream = !in_place && !job->transposed && bytes >= CAST_STREAM_BYTES;
    bool narrows = hd_dtype_bytes(cast->dst_dtype) < hd_dtype_bytes(cast->src_dtype);
    return job->elements < CAST_SERIAL || (in_place && narrows) ? 1 : threads;
}

static size_t cast_workspace(const void *at, const heed_device_info_t *device, int32_t threads)
{
    const heed_cast_desc_t *desc = (const heed_cast_desc_t *)at;
    int64_t block[HEED_MAX_NDIM], groups = 1;
    (void)device, (void)threads;
    hd_cast_blocks(desc, block);
    for (int i = 0; i < desc->src.ndim; i++)
        groups *= hd_ceil_div(desc->src.shape[i], block[i]);
    return (size_t)groups * 2 * sizeof(uint32_t);
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
    job.multipliers = (uint32_t *)launch->workspace;
    job.amax = job.multipliers + job.cast.group_count;
    if (job.elements > 0) {
        if (!job.transposed)
            cast_flatten(&job.cast);
        hd_parallel(cast_plan_work(&job, launch->threads), cast_work, &job);
    }
    cast_store_counts(&job);
    return HEED_OK;
}

/* ---- the estimate -------------------------------------------------------------------------------
 */

/* Elements a nanosecond of one thread where data lies in the first cache, measured on a core with
 * 46 GFLOP/s of 16-byte multiplications and additions. */
typedef struct cast_rates {
    double wide;   /* between f32, bf16, f16 */
    double encode; /* to FP8 */
    double decode; /* from FP8 */
} cast_rates_t;

static bool cast_is_fp8(heed_dtype_t dtype)
{
    return hd_dtype_bytes(dtype) == 1;
}

/* The slower of arithmetic and of copying as many bytes where they lie; what is computed from a
 * tensor's own maximum takes reading it once more. */
static double cast_estimate_at(const heed_cast_desc_t *desc, const heed_device_info_t *device,
                               int threads, const cast_rates_t *rates)
{
    double elements = 1;
    for (int i = 0; i < desc->src.ndim; i++)
        elements *= (double)desc->src.shape[i];
    if (elements < CAST_SERIAL)
        threads = 1;
    double src = elements * (double)hd_dtype_bytes(desc->src.dtype);
    double dst = elements * (double)hd_dtype_bytes(desc->dst.dtype);
    double rate = cast_is_fp8(desc->dst.dtype)   ? rates->encode
                  : cast_is_fp8(desc->src.dtype) ? rates->decode
                                                 : rates->wide;
    double peak = hd_rate(&device->peaks, device->peaks.f32_portable, threads);
    double compute = elements / (rate * peak / 46);
    double memory =
        (src + dst * (desc->transposed.ndim ? 2 : 1)) / hd_copy_rate(device, src + dst, threads);
    double first = desc->scale_out.ndim ? src / hd_read_rate(device, src + dst, threads) : 0;
    return (memory > compute ? memory : compute) + first + hd_region_ns(device, threads) + 200;
}

#endif
