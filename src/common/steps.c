/* Steps of a schedule. */
#include "steps.h"

#include <string.h>

hd_step_t *hd_steps_new(heed_context_t *context, hd_steps_t *steps)
{
    if (steps->count == steps->room) {
        int64_t room = hd_max(2 * steps->room, 8);
        hd_step_t **more = hd_alloc(context, (size_t)room * sizeof(*more));
        if (!more) {
            hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %lld steps", (long long)room);
            return NULL;
        }
        memset(more, 0, (size_t)room * sizeof(*more));
        if (steps->count)
            memcpy(more, steps->steps, (size_t)steps->count * sizeof(*more));
        hd_free(context, steps->steps);
        steps->steps = more;
        steps->room = room;
    }
    hd_step_t *step = steps->steps[steps->count];
    if (!step)
        step = steps->steps[steps->count] = hd_alloc(context, sizeof(*step));
    if (!step) {
        hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a step");
        return NULL;
    }
    memset(step, 0, sizeof(*step));
    step->desc = heed_attention_desc();
    return step;
}

static bool same_plan(const hd_step_t *a, const hd_step_t *b)
{
    return memcmp(a->axes, b->axes, sizeof(a->axes)) == 0 && a->desc.merge == b->desc.merge &&
           a->desc.causal == b->desc.causal && a->desc.tiles == b->desc.tiles &&
           a->desc.window_left == b->desc.window_left &&
           a->desc.window_right == b->desc.window_right;
}

heed_status_t hd_steps_plan(heed_context_t *context, hd_steps_t *steps)
{
    hd_step_t *step = steps->steps[steps->count];
    size_t bytes, alignment;
    for (int64_t i = 0; i < steps->count && !step->plan; i++)
        if (steps->steps[i]->owns && same_plan(steps->steps[i], step))
            step->plan = steps->steps[i]->plan;
    if (!step->plan) {
        HD_TRY(heed_plan_create(context, "attention", &step->desc, &step->plan));
        step->owns = true;
    }
    HD_TRY(heed_plan_workspace(step->plan, &bytes, &alignment));
    steps->workspace = bytes > steps->workspace ? bytes : steps->workspace;
    steps->count++;
    return HEED_OK;
}

void hd_steps_free(heed_context_t *context, hd_steps_t *steps)
{
    for (int64_t i = 0; i < steps->room; i++) {
        if (steps->steps[i] && steps->steps[i]->owns)
            heed_plan_destroy(steps->steps[i]->plan);
        hd_free(context, steps->steps[i]);
    }
    hd_free(context, steps->steps);
    memset(steps, 0, sizeof(*steps));
}

heed_status_t hd_steps_run(const hd_steps_t *steps, int64_t first, int64_t end,
                           char *const *buffers, void *workspace)
{
    for (int64_t i = first; i < end; i++) {
        const hd_step_t *step = steps->steps[i];
        void *at[HD_STEP_OPERANDS];
        for (int n = 0; n < HD_STEP_OPERANDS; n++)
            at[n] = buffers[n] + step->at[n];
        HD_TRY(heed_plan_execute(step->plan, at, HD_STEP_OPERANDS,
                                 steps->workspace ? workspace : NULL, steps->workspace, NULL));
    }
    return HEED_OK;
}

/* ---- parts of tensors ------------------------------------------------------------------------ */

void hd_step_rows(hd_step_t *step, int operand, const heed_tensor_t *from, int axis, int64_t first,
                  int64_t distance, int64_t count)
{
    hd_axes_t *axes = &step->axes[operand];
    memcpy(axes->shape, from->shape, (size_t)from->ndim * sizeof(int64_t));
    memcpy(axes->strides, from->strides, (size_t)from->ndim * sizeof(int64_t));
    axes->shape[axis] = count;
    axes->strides[axis] *= distance;
    *hd_step_tensor(step, operand) =
        heed_tensor(NULL, from->dtype, from->ndim, axes->shape, axes->strides);
    step->at[operand] += first * from->strides[axis] * (int64_t)heed_dtype_size(from->dtype);
}

heed_status_t hd_steps_band(heed_context_t *context, hd_steps_t *steps, const hd_step_t *part,
                            int64_t low, int64_t high)
{
    int64_t queries = part->desc.q.shape[1], keys = part->desc.k.shape[1];
    int64_t first = hd_max(0, -high), end = hd_min(queries, keys - low);
    if (first >= end || low > high)
        return HEED_OK;
    int64_t key = hd_max(0, first + low), key_end = hd_min(keys, end + high);
    if (key >= key_end)
        return HEED_OK;
    hd_step_t *step = hd_steps_new(context, steps);
    if (!step)
        return HEED_ERROR_OUT_OF_MEMORY;
    step->desc.scale = part->desc.scale;
    step->desc.merge = 1;
    step->desc.align = HEED_ALIGN_TOP_LEFT;
    memcpy(step->at, part->at, sizeof(step->at));
    hd_step_rows(step, HEED_ATTENTION_Q, &part->desc.q, 1, first, 1, end - first);
    hd_step_rows(step, HEED_ATTENTION_K, &part->desc.k, 1, key, 1, key_end - key);
    hd_step_rows(step, HEED_ATTENTION_V, &part->desc.v, 1, key, 1, key_end - key);
    hd_step_rows(step, HEED_ATTENTION_OUT, &part->desc.out, 1, first, 1, end - first);
    hd_step_rows(step, HEED_ATTENTION_LSE, &part->desc.lse, 2, first, 1, end - first);
    /* Of the rows that are left, i sees i - left .. i + right; a side that cuts nothing is open. */
    int64_t left = key - first - low, right = high + first - key;
    step->desc.window_left = left >= end - first - 1 ? -1 : left;
    step->desc.window_right = right >= key_end - key - 1 ? -1 : right;
    if (step->desc.window_right == 0)
        step->desc.causal = 1;
    return hd_steps_plan(context, steps);
}
