/* What the parts of a cast on the CPU share: the job, where units of work lie, the floating-point
 * environment, and single elements. */
#ifndef HD_CAST_JOB_H
#define HD_CAST_JOB_H

#include "cast_limits.h"
#include "../common/casting.h"
#include "../common/sums.h"
#include "parallel.h"

#include <fenv.h>
#include <string.h>

enum { CAST_LOSS_PIECE = 4096 }; /* elements that are compared at a time */

typedef struct cast_job {
    hd_cast_t cast, widen, restore; /* the last two are of the loss */
    const heed_cast_desc_t *desc;
    uint32_t *multipliers, *amax; /* [groups] of the workspace */
    uint32_t *factors;            /* the same, of the loss; NULL: it is not asked for */
    int64_t counts[HEED_CAST_COUNTS_SIZE];
    double (*losses)[HEED_CAST_LOSS_SIZE]; /* of each member, who adds in the same order always */
    int64_t rows, row_pieces;              /* of a group, the largest */
    int64_t elements, chunk;               /* of the tensor, of a unit at most */
    char *transposed;
    bool stream, by_group, by_column;
} cast_job_t;

/* A piece of one line of one group. */
typedef struct cast_unit {
    const char *from;
    char *to;
    int64_t n, index;
} cast_unit_t;

/* ---- the floating-point environment ---------------------------------------------------------- */

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

/* ---- units ----------------------------------------------------------------------------------- */

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
static cast_unit_t cast_find_unit(const cast_job_t *job, const hd_cast_t *cast,
                                  const cast_group_t *group, int64_t row, int64_t piece)
{
    int last = cast->ndim - 1;
    int64_t at[HEED_MAX_NDIM], from = 0, to = 0, index = 0;
    cast_unit_t unit = {0};
    at[last] = group->first[last] + piece * job->chunk;
    int64_t left = group->extent[last] - piece * job->chunk;
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
    unit.n = hd_min(left, job->chunk);
    unit.index = index;
    return unit;
}

static bool cast_is_line(const hd_cast_t *cast)
{
    int last = cast->ndim - 1;
    return cast->src_stride[last] == 1 && cast->dst_stride[last] == 1;
}

/* ---- what is shared -------------------------------------------------------------------------- */

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

static uint32_t cast_loss_factor(const hd_cast_t *cast, hd_scale_t scale);

/* The multiplier of a group, from its given scale or from its amax; a computed one is stored.
 * `offset` is where its scale lies. */
static void cast_settle_at(const cast_job_t *job, int64_t number, int64_t offset,
                           hd_cast_stats_t *stats)
{
    const hd_cast_t *cast = &job->cast;
    hd_scale_t scale;
    if (cast->scale) {
        const char *at = cast->scale + offset * hd_dtype_bytes(cast->scale_dtype);
        scale = hd_scale_given(cast->scale_dtype, at, cast->use);
    } else {
        scale = hd_scale_computed(job->amax[number], cast->largest, cast->amax_floor, cast->form,
                                  cast->use);
        hd_scale_store(cast, offset, scale);
    }
    stats->counts[HEED_COUNT_BAD_SCALES] += scale.bad;
    job->multipliers[number] = scale.multiplier;
    if (job->factors)
        job->factors[number] = cast_loss_factor(cast, scale);
}

static void cast_settle(const cast_job_t *job, int64_t number, hd_cast_stats_t *stats)
{
    cast_settle_at(job, number, hd_cast_group_offset(&job->cast, job->cast.scale_stride, number),
                   stats);
}

static void cast_store_amax(const cast_job_t *job, int64_t number)
{
    const hd_cast_t *cast = &job->cast;
    uint32_t amax = job->amax[number] > HD_F32_INF ? (uint32_t)HD_F32_NAN : job->amax[number];
    memcpy(cast->amax + hd_cast_group_offset(cast, cast->amax_stride, number), &amax, sizeof(amax));
}

/* ---- elements -------------------------------------------------------------------------------- */

/* All but E8M0. */
static inline bool cast_has_loop(heed_dtype_t dtype)
{
    return dtype == HEED_F32 || dtype == HEED_BF16 || dtype == HEED_F16 ||
           hd_fp8_format(dtype).mantissa;
}

static inline bool cast_line_is_fast(const hd_cast_t *cast, uint32_t multiplier)
{
    uint32_t magnitude = multiplier & HD_F32_MAGNITUDE;
    return cast->rule.rounding == HEED_ROUND_NEAREST && cast_has_loop(cast->src_dtype) &&
           cast_has_loop(cast->dst_dtype) &&
           (!hd_cast_scaled(cast) || (magnitude != 0 && magnitude < HD_F32_INF));
}

/* One by one; four that follow each other have their random words from one block. */
static inline void cast_elements(const hd_cast_t *cast, const char *from, char *to, int64_t n,
                                 uint32_t multiplier, int64_t index, hd_cast_stats_t *stats)
{
    int64_t from_step = hd_dtype_bytes(cast->src_dtype), to_step = hd_dtype_bytes(cast->dst_dtype);
    const bool stochastic = cast->rule.rounding == HEED_ROUND_STOCHASTIC;
    uint32_t block[4] = {0};
    for (int64_t i = 0; i < n; i++) {
        if (stochastic && (i == 0 || (index + i) % 4 == 0))
            hd_fp8_random_block(cast->seed, (uint64_t)(index + i), block);
        hd_cast_element_with(cast, from + i * from_step, to + i * to_step, multiplier,
                             block[(index + i) % 4], stats);
    }
}

#endif
