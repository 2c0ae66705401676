/* Parts of a cast that do not go along lines: scales by column, and the transposed copy. */
#ifndef HD_CAST_ACROSS_H
#define HD_CAST_ACROSS_H

#include "cast_loss.h"

/* Groups that are columns: lines along the last axis, each element of another group. */
static void cast_columns(cast_job_t *job, const hd_team_t *team, bool only_amax,
                         hd_cast_stats_t *stats)
{
    float x[CAST_LOSS_PIECE], y[CAST_LOSS_PIECE];
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
        for (int64_t piece = 0; piece * job->chunk < cast->shape[last]; piece++) {
            cast_unit_t unit = cast_find_unit(job, &lines, &all, row, piece);
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
                if (!only_amax && job->factors)
                    cast_loss_element(cast, unit.from + i * from_step, unit.to + i * to_step,
                                      hd_cast_scaled(cast) ? job->factors[number] : 0, &x[i],
                                      &y[i]);
            }
            if (!only_amax && job->factors)
                cast_loss_add(stats, x, x, y, unit.n);
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

#endif
