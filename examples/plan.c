/* What an inference engine does: plan once, keep the workspace, execute many times; ask the plan
 * what it chose and why. */
#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 256, HEADS = 8, KEY_HEADS = 2, DIM = 128 };

static void tell(const heed_plan_t *plan)
{
    char problem[512];
    heed_verdict_t verdict;
    heed_plan_problem(plan, problem, sizeof(problem));
    printf("%s\n", problem);
    for (int i = 0; heed_plan_verdict(plan, i, &verdict); i++)
        printf("  %c %-24s %s\n", verdict.chosen ? '>' : ' ', verdict.impl,
               verdict.status ? verdict.why : "could run");
}

static heed_status_t repeat(const heed_plan_t *plan, void *const *buffers, int times)
{
    size_t bytes, alignment;
    heed_status_t status = heed_plan_workspace(plan, &bytes, &alignment);
    if (status)
        return status;
    void *workspace = aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
    if (!workspace && !status)
        status = HEED_ERROR_OUT_OF_MEMORY;
    for (int i = 0; i < times && !status; i++)
        status = heed_plan_execute(plan, buffers, HEED_ATTENTION_OPERANDS, workspace, bytes, NULL);
    free(workspace);
    return status;
}

int main(void)
{
    size_t q = (size_t)TOKENS * HEADS * DIM, k = (size_t)TOKENS * KEY_HEADS * DIM;
    float *data = calloc(2 * q + 2 * k + (size_t)HEADS * TOKENS, sizeof(*data));
    if (!data)
        return 1;
    void *buffers[HEED_ATTENTION_OPERANDS] = {
        [HEED_ATTENTION_Q] = data,
        [HEED_ATTENTION_K] = data + q,
        [HEED_ATTENTION_V] = data + q + k,
        [HEED_ATTENTION_OUT] = data + q + 2 * k,
        [HEED_ATTENTION_LSE] = data + 2 * q + 2 * k,
    };

    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(NULL, HEED_F32, 1, TOKENS, HEADS, DIM);
    desc.k = HEED_TENSOR(NULL, HEED_F32, 1, TOKENS, KEY_HEADS, DIM);
    desc.v = HEED_TENSOR(NULL, HEED_F32, 1, TOKENS, KEY_HEADS, DIM);
    desc.out = HEED_TENSOR(NULL, HEED_F32, 1, TOKENS, HEADS, DIM);
    desc.lse = HEED_TENSOR(NULL, HEED_F32, 1, HEADS, TOKENS);
    desc.causal = 1;

    heed_context_t *context = NULL;
    heed_plan_t *plan = NULL;
    heed_status_t status = heed_context_create(NULL, &context);
    if (!status)
        status = heed_attention_plan(context, &desc, &plan);
    if (!status) {
        tell(plan);
        status = repeat(plan, buffers, 3);
    }
    if (status)
        fprintf(stderr, "%s: %s\n", heed_status_name(status), heed_last_error());
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    free(data);
    return status != HEED_OK;
}
