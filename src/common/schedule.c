/* Pipeline schedules: their names, and what each of them takes. */
#include "pipeline.h"

#include <string.h>

static const struct {
    const char *name;
    int32_t chunks; /* 0: any number */
} schedules[] = {{"gpipe", 1}, {"1f1b", 1},  {"interleaved", 0},
                 {"zb-h1", 1}, {"zb-h2", 1}, {"dualpipe", 2}};

const char *heed_schedule_name(heed_schedule_t schedule)
{
    return (unsigned)schedule < (unsigned)HD_COUNT(schedules) ? schedules[schedule].name : "?";
}

heed_status_t heed_schedule_parse(const char *name, heed_schedule_t *schedule)
{
    if (!name || !schedule)
        return hd_fail(HEED_ERROR_NULL, "%s is null", name ? "schedule" : "name");
    char known[128];
    hd_text_t text = hd_text(known, sizeof(known));
    for (int i = 0; i < HD_COUNT(schedules); i++) {
        if (strcmp(name, schedules[i].name) == 0) {
            *schedule = (heed_schedule_t)i;
            return HEED_OK;
        }
        hd_text_add(&text, "%s%s", i ? ", " : "", schedules[i].name);
    }
    return hd_fail(HEED_ERROR_VALUE, "schedule '%s' is unknown: there are %s", name, known);
}

/* ---- what is asked for ----------------------------------------------------------------------- */

static heed_status_t check_sizes(heed_pipeline_desc_t *desc)
{
    if ((unsigned)desc->schedule >= (unsigned)HD_COUNT(schedules))
        return hd_fail(HEED_ERROR_VALUE, "desc.schedule=%d is no heed_schedule_t",
                       (int)desc->schedule);
    int32_t chunks = schedules[desc->schedule].chunks;
    if (desc->chunks == 0)
        desc->chunks = chunks ? chunks : 2;
    if (desc->chunks < 1 || desc->chunks > HEED_MAX_CHUNKS || (chunks && desc->chunks != chunks))
        return hd_fail(HEED_ERROR_VALUE, "desc.chunks=%d: %s has %s%d", desc->chunks,
                       heed_schedule_name(desc->schedule), chunks ? "" : "1 to ",
                       chunks ? chunks : HEED_MAX_CHUNKS);
    if (desc->stages < 1 || desc->stages > HEED_MAX_PARTS / desc->chunks)
        return hd_fail(HEED_ERROR_VALUE, "desc.stages=%d is not 1 to %d, with chunks=%d",
                       desc->stages, HEED_MAX_PARTS / desc->chunks, desc->chunks);
    int64_t most = (INT64_C(1) << 28) / 8 / desc->chunks / desc->stages;
    if (desc->microbatches < 1 || desc->microbatches > most)
        return hd_fail(HEED_ERROR_VALUE, "desc.microbatches=%d is not 1 to %lld, with stages=%d",
                       desc->microbatches, (long long)most, desc->stages);
    if (desc->queue < 0)
        return hd_fail(HEED_ERROR_VALUE, "desc.queue=%d is below 0", desc->queue);
    return HEED_OK;
}

/* What the schedule needs of the numbers. */
static heed_status_t check_needs(const heed_pipeline_desc_t *desc)
{
    int32_t p = desc->stages, m = desc->microbatches;
    if (desc->schedule == HEED_SCHEDULE_INTERLEAVED && (p < 2 || m % p))
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.stages=%d, microbatches=%d: interleaved takes 2 stages or more and a "
                       "multiple of them",
                       p, m);
    if (desc->schedule == HEED_SCHEDULE_DUALPIPE && (p % 2 || m % 2 || m < 2 * p))
        return hd_fail(HEED_ERROR_VALUE,
                       "desc.stages=%d, microbatches=%d: dualpipe takes an even number of stages "
                       "and an even number of microbatches from 2 * stages on",
                       p, m);
    return HEED_OK;
}

static heed_status_t check_times(const heed_pipeline_desc_t *desc)
{
    static const int64_t most = INT64_C(1) << 32;
    const struct {
        const char *name;
        int64_t value;
    } times[] = {{"forward", desc->forward},
                 {"backward_input", desc->backward_input},
                 {"backward_weight", desc->backward_weight},
                 {"transfer", desc->transfer}};
    int64_t longest = 1;
    for (int i = 0; i < HD_COUNT(times); i++) {
        if (times[i].value < 0 || times[i].value > most)
            return hd_fail(HEED_ERROR_VALUE, "desc.%s=%lld is not 0 to 2^32", times[i].name,
                           (long long)times[i].value);
        longest = i < 3 ? hd_max(longest, times[i].value) : longest;
    }
    int64_t backward = desc->backward_input + desc->backward_weight;
    if (desc->pair &&
        (desc->pair < hd_max(desc->forward, backward) || desc->pair > desc->forward + backward))
        return hd_fail(HEED_ERROR_VALUE, "desc.pair=%lld is not %lld to %lld",
                       (long long)desc->pair, (long long)hd_max(desc->forward, backward),
                       (long long)(desc->forward + backward));
    for (int32_t i = 0; desc->weights && i < hd_parts(desc); i++)
        if (desc->weights[i] < 0 || desc->weights[i] > most / longest)
            return hd_fail(HEED_ERROR_VALUE, "desc.weights[%d]=%lld: a time is not 0 to 2^32", i,
                           (long long)desc->weights[i]);
    return HEED_OK;
}

heed_status_t hd_pipeline_read(const heed_pipeline_desc_t *from, heed_pipeline_desc_t *desc)
{
    HD_TRY(hd_struct_copy(desc, sizeof(*desc), from, sizeof(*desc), "desc"));
    HD_TRY(check_sizes(desc));
    HD_TRY(check_needs(desc));
    return check_times(desc);
}

int32_t heed_pipeline_part(const heed_pipeline_desc_t *from, int32_t stage, int32_t chunk)
{
    heed_pipeline_desc_t desc;
    if (hd_pipeline_read(from, &desc) != HEED_OK || stage < 0 || stage >= desc.stages ||
        chunk < 0 || chunk >= desc.chunks)
        return -1;
    return hd_part(&desc, stage, chunk);
}

heed_status_t heed_pipeline_count(const heed_pipeline_desc_t *from, int64_t *count)
{
    heed_pipeline_desc_t desc;
    if (!count)
        return hd_fail(HEED_ERROR_NULL, "count is null");
    HD_TRY(hd_pipeline_read(from, &desc));
    *count = hd_count_of(&desc);
    return HEED_OK;
}
