/* `heed explain --ranks N`: what each way of spreading a sequence over ranks would cost. */
#define _GNU_SOURCE
#include "explain.h"
#include "options.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };

/* The problem's sequence as one that ranks have. */
static void describe(const heed_attention_desc_t *attention, const explain_ranks_t *options,
                     heed_context_parallel_desc_t *desc)
{
    *desc = heed_context_parallel_desc();
    desc->layout = options->layout;
    desc->everywhere = options->everywhere;
    desc->causal = attention->causal;
    desc->scale = attention->scale;
    desc->window_left = attention->window_left;
    desc->window_right = attention->window_right;
    desc->q = attention->q;
    desc->k = attention->k;
    desc->v = attention->v;
    desc->out = attention->out;
    desc->lse = attention->lse;
    desc->tokens = attention->k.shape[1];
    desc->queries = attention->q.shape[1] == desc->tokens ? 0 : attention->q.shape[1];
}

/* Documents as long as can be alike, since a problem has their number alone; free the starts. */
static int add_documents(const heed_attention_desc_t *attention, heed_context_parallel_desc_t *desc,
                         int64_t *count, int32_t **starts)
{
    if (!attention->cu_seqlens_q.ndim && !attention->cu_seqlens_k.ndim)
        return TOOL_OK;
    if (!attention->cu_seqlens_q.ndim || !attention->cu_seqlens_k.ndim)
        return tool_fail("--ranks: documents have queries and keys: ragged=qk");
    *count = attention->cu_seqlens_k.shape[0];
    *starts = malloc((size_t)*count * sizeof **starts);
    if (!*starts)
        return tool_fail("out of memory for %lld documents", (long long)*count - 1);
    for (int64_t d = 0; d < *count; d++)
        (*starts)[d] = (int32_t)((double)desc->tokens * (double)d / (double)(*count - 1));
    desc->cu_seqlens = heed_tensor(*starts, HEED_I32, 1, count, NULL);
    return TOOL_OK;
}

static void print_verdict(const heed_context_parallel_verdict_t *verdict)
{
    char name[32], text[4][TOOL_NUMBER_SIZE];
    const char *method = heed_context_parallel_name(verdict->method);
    if (verdict->method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING)
        snprintf(name, sizeof name, "%s %d", method, (int)verdict->group);
    else
        snprintf(name, sizeof name, "%s", method);
    if (verdict->status) {
        printf("  %-18s  refused: %s\n", name, verdict->why);
        return;
    }
    printf("  %-18s %10s %10s %10s %10s  %5.1f %%%s\n", name, tool_time(verdict->total_ns, text[0]),
           tool_time(verdict->compute_ns, text[1]), tool_time(verdict->exposed_ns, text[2]),
           tool_bytes(verdict->bytes, text[3]), 100 * verdict->efficiency,
           verdict->chosen ? "  chosen" : "");
}

int explain_ranks(heed_context_t *context, const heed_problem_t *problem, const void *attention,
                  const explain_ranks_t *options)
{
    heed_context_parallel_verdict_t verdicts[MOST];
    heed_context_parallel_desc_t desc;
    char text[2048];
    int32_t count;
    if (strcmp(heed_problem_op(problem), "attention") != 0)
        return tool_fail("--ranks is for attention, not for %s", heed_problem_op(problem));
    describe(attention, options, &desc);
    int64_t documents;
    int32_t *starts = NULL;
    int code = add_documents(attention, &desc, &documents, &starts);
    if (code != TOOL_OK)
        return code;
    heed_status_t status =
        heed_context_parallel_explain(context, options->ranks, options->rate * 1e9,
                                      options->latency * 1e3, &desc, verdicts, MOST, &count);
    free(starts);
    if (status)
        return tool_fail_status(status);
    heed_problem_text(problem, text, sizeof text);
    printf("%s\non %d ranks, messages of %g GB/s after %g us\n", text, (int)options->ranks,
           options->rate, options->latency);
    printf("  %-18s %10s %10s %10s %10s  %s\n", "", "in all", "computing", "waiting", "sent",
           "efficiency");
    for (int i = 0; i < count && i < MOST; i++)
        print_verdict(&verdicts[i]);
    return TOOL_OK;
}
