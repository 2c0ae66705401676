/* Long dilated attention, some tokens after the others: where every segment of a span of tokens
 * lies in it, the span is a problem of its own, whose result is that of the whole. */
#include "run_spans.h"

#include "run_long.h"

#include <stdlib.h>
#include <string.h>

enum { LONG_TOKENS = 1 << 16, SPANS = 200 };

/* The smallest number that every segment divides; `most` where it is not below that. */
static int64_t common_multiple(const heed_dilated_desc_t *desc, int64_t most)
{
    int64_t multiple = 1;
    for (int i = 0; i < desc->branches; i++) {
        int64_t a = multiple, b = desc->segments[i];
        while (b) {
            int64_t rest = a % b;
            a = b;
            b = rest;
        }
        multiple *= desc->segments[i] / a;
        if (multiple >= most)
            return most;
    }
    return multiple;
}

int64_t run_span(const run_t *run, heed_device_t device)
{
    const heed_dilated_desc_t *desc = run->desc;
    if (strcmp(run->op, "dilated") != 0 || device.type != HEED_DEVICE_CPU)
        return 0;
    int64_t tokens = desc->q.shape[1];
    bool apart = desc->mode == HEED_DILATED_LONGNET || desc->mode == HEED_DILATED_GROUPED;
    if (!apart || tokens < LONG_TOKENS)
        return 0;
    int64_t multiple = common_multiple(desc, tokens);
    int64_t span = multiple * ((tokens / SPANS + multiple - 1) / multiple);
    return span > 0 && span < tokens ? span : 0;
}

typedef struct part {
    heed_dilated_desc_t desc;
    int64_t shapes[HEED_DILATED_OPERANDS][4];
    heed_plan_t *plan;
    void *workspace;
    size_t bytes;
} part_t;

static int token_axis(int operand)
{
    return operand == HEED_DILATED_LSE ? 2 : 1;
}

/* A plan for `tokens` of the problem's. */
static heed_status_t plan_part(heed_context_t *context, const run_t *run, int64_t tokens,
                               part_t *part)
{
    size_t alignment;
    part->desc = *(const heed_dilated_desc_t *)run->desc;
    heed_tensor_t *const tensors[] = {&part->desc.q, &part->desc.k, &part->desc.v, &part->desc.out,
                                      &part->desc.lse};
    for (int i = 0; i < HEED_DILATED_OPERANDS; i++) {
        if (tensors[i]->ndim == 0)
            continue;
        memcpy(part->shapes[i], tensors[i]->shape, (size_t)tensors[i]->ndim * sizeof(int64_t));
        part->shapes[i][token_axis(i)] = tokens;
        tensors[i]->shape = part->shapes[i];
    }
    heed_status_t status = heed_dilated_attention_plan(context, &part->desc, &part->plan);
    if (!status)
        status = heed_plan_workspace(part->plan, &part->bytes, &alignment);
    if (!status)
        status = heed_memory_alloc(context, (heed_device_t){HEED_DEVICE_CPU, 0}, part->bytes,
                                   &part->workspace);
    return status;
}

static void free_part(heed_context_t *context, part_t *part)
{
    (void)heed_memory_free(context, (heed_device_t){HEED_DEVICE_CPU, 0}, part->workspace);
    heed_plan_destroy(part->plan);
}

static heed_status_t execute_part(const run_t *run, const part_t *part, int64_t first,
                                  void *const *at)
{
    void *buffers[HEED_DILATED_OPERANDS] = {NULL};
    for (int i = 0; i < HEED_DILATED_OPERANDS; i++) {
        const heed_tensor_t *tensor = heed_problem_tensor(run->problem, i);
        if (at[i])
            buffers[i] = (char *)at[i] + first * tensor->strides[token_axis(i)] *
                                             (int64_t)heed_dtype_size(tensor->dtype);
    }
    return heed_plan_execute(part->plan, buffers, HEED_DILATED_OPERANDS, part->workspace,
                             part->bytes, NULL);
}

heed_status_t run_in_spans(heed_context_t *context, const run_t *run, int64_t span, void *const *at)
{
    int64_t tokens = ((const heed_dilated_desc_t *)run->desc)->q.shape[1];
    double started = long_now();
    part_t whole = {.plan = NULL}, rest = {.plan = NULL};
    heed_status_t status = plan_part(context, run, span, &whole);
    if (!status && tokens % span)
        status = plan_part(context, run, tokens % span, &rest);
    for (int64_t first = 0; first < tokens && !status; first += span) {
        long_progress((double)first / (double)tokens, started);
        status = execute_part(run, first + span > tokens ? &rest : &whole, first, at);
    }
    long_progress(1, started);
    free_part(context, &whole);
    free_part(context, &rest);
    return status;
}
