/* What schedules, their simulation and their execution share. */
#ifndef HD_PIPELINE_H
#define HD_PIPELINE_H

#include "internal.h"

#include <heed/pipeline.h>

/* Copies desc, puts in its defaults and checks it. */
heed_status_t hd_pipeline_read(const heed_pipeline_desc_t *from, heed_pipeline_desc_t *desc);

/* Of a model: with DUALPIPE it is there twice. */
static inline int32_t hd_parts(const heed_pipeline_desc_t *desc)
{
    return desc->schedule == HEED_SCHEDULE_DUALPIPE ? desc->stages : desc->stages * desc->chunks;
}

/* Whether the chunk's microbatches and messages go from the last stage to the first. */
static inline bool hd_upward(const heed_pipeline_desc_t *desc, int32_t chunk)
{
    return desc->schedule == HEED_SCHEDULE_DUALPIPE && chunk == 1;
}

static inline int32_t hd_part(const heed_pipeline_desc_t *desc, int32_t stage, int32_t chunk)
{
    if (desc->schedule == HEED_SCHEDULE_DUALPIPE)
        return chunk ? desc->stages - 1 - stage : stage;
    return chunk * desc->stages + stage;
}

/* Actions of all stages. */
static inline int64_t hd_count_of(const heed_pipeline_desc_t *desc)
{
    /* Three kinds of work for each part, four messages between two parts. DUALPIPE has two models,
     * each with half of the microbatches. */
    return (int64_t)desc->microbatches * (3 * hd_parts(desc) + 4 * (hd_parts(desc) - 1));
}

static inline bool hd_is_message(const heed_action_t *action)
{
    return action->kind >= HEED_ACTION_SEND;
}

/* A direction into a chunk of the stage that receives; `action` is a message, either end. */
static inline int32_t hd_channel(const heed_action_t *actions, const heed_action_t *action)
{
    const heed_action_t *at = action->kind == HEED_ACTION_RECV ? action : &actions[action->match];
    return at->chunk * 2 + at->gradient;
}

/* Whether `actions` are lists that a stage can follow: chunks, microbatches, both ends of every
 * message. */
heed_status_t hd_pipeline_check(const heed_pipeline_desc_t *desc, const heed_action_t *actions,
                                const int32_t *first);

/* ---- running (pipeline_stage.c) -------------------------------------------------------------- */

/* Copies the caller's functions, whose optional end may be missing, and checks them. */
heed_status_t hd_pipeline_calls(const heed_pipeline_calls_t *from, heed_pipeline_calls_t *calls);

/* Of a message. */
size_t hd_pipeline_bytes(const heed_pipeline_calls_t *calls, int gradient);

/* heed_pipeline_run_stage where all is known to be good. */
heed_status_t hd_pipeline_run_stage(heed_context_t *context, const heed_pipeline_desc_t *desc,
                                    const heed_action_t *actions, const int32_t *first,
                                    int32_t stage, const heed_pipeline_calls_t *calls,
                                    const heed_pipeline_link_t *link);

#endif
