/* A decode loop over a paged cache in E4M3: two sequences that share nothing but the pool of pages,
 * each step appends one key and value a head and attends to all there are. The plan is made once;
 * lengths are read when it is executed. */
#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>

enum {
    SEQUENCES = 2,
    HEADS = 8,
    KEY_HEADS = 2,
    DIM = 64,
    PAGE = 16,
    PAGES_EACH = 4,
    STEPS = 40,
    PAGES = SEQUENCES * PAGES_EACH,
    Q = SEQUENCES * HEADS * DIM,
    KV = SEQUENCES * KEY_HEADS * DIM,
    ROWS = PAGES * PAGE * KEY_HEADS
};

typedef struct cache {
    unsigned char k[ROWS * DIM], v[ROWS * DIM]; /* E4M3 codes */
    float k_scale[ROWS], v_scale[ROWS];         /* one a token and head */
    int32_t page_table[SEQUENCES * PAGES_EACH], lengths[SEQUENCES];
} cache_t;

typedef struct step {
    float q[Q], k[KV], v[KV], out[Q];
} step_t;

/* What a model would compute. */
static void next(step_t *step, int number)
{
    unsigned state = (unsigned)number;
    float *const to[] = {step->q, step->k, step->v};
    const int count[] = {Q, KV, KV};
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < count[t]; i++)
            to[t][i] = (float)((state = state * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1;
}

static heed_status_t append(heed_context_t *context, cache_t *cache, step_t *step)
{
    heed_kv_append_desc_t desc = heed_kv_append_desc();
    desc.k_new = HEED_TENSOR(step->k, HEED_F32, SEQUENCES, 1, KEY_HEADS, DIM);
    desc.v_new = HEED_TENSOR(step->v, HEED_F32, SEQUENCES, 1, KEY_HEADS, DIM);
    desc.k = HEED_TENSOR(cache->k, HEED_E4M3, PAGES, PAGE, KEY_HEADS, DIM);
    desc.v = HEED_TENSOR(cache->v, HEED_E4M3, PAGES, PAGE, KEY_HEADS, DIM);
    desc.k_scale = HEED_TENSOR(cache->k_scale, HEED_F32, PAGES, PAGE, KEY_HEADS);
    desc.v_scale = HEED_TENSOR(cache->v_scale, HEED_F32, PAGES, PAGE, KEY_HEADS);
    desc.page_table = HEED_TENSOR(cache->page_table, HEED_I32, SEQUENCES, PAGES_EACH);
    desc.seqlens_k = HEED_TENSOR(cache->lengths, HEED_I32, SEQUENCES);
    desc.advance = 1;
    return heed_kv_append(context, &desc);
}

static heed_status_t plan_decode(heed_context_t *context, heed_plan_t **plan)
{
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(NULL, HEED_F32, SEQUENCES, 1, HEADS, DIM);
    desc.k = HEED_TENSOR(NULL, HEED_E4M3, PAGES, PAGE, KEY_HEADS, DIM);
    desc.v = HEED_TENSOR(NULL, HEED_E4M3, PAGES, PAGE, KEY_HEADS, DIM);
    desc.out = HEED_TENSOR(NULL, HEED_F32, SEQUENCES, 1, HEADS, DIM);
    desc.k_scale = HEED_TENSOR(NULL, HEED_F32, PAGES, PAGE, KEY_HEADS);
    desc.v_scale = HEED_TENSOR(NULL, HEED_F32, PAGES, PAGE, KEY_HEADS);
    desc.page_table = HEED_TENSOR(NULL, HEED_I32, SEQUENCES, PAGES_EACH);
    desc.seqlens_k = HEED_TENSOR(NULL, HEED_I32, SEQUENCES);
    desc.causal = 1;
    return heed_attention_plan(context, &desc, plan);
}

static heed_status_t decode(heed_context_t *context, const heed_plan_t *plan, cache_t *cache,
                            step_t *step)
{
    void *const buffers[HEED_ATTENTION_OPERANDS] = {
        [HEED_ATTENTION_Q] = step->q,
        [HEED_ATTENTION_K] = cache->k,
        [HEED_ATTENTION_V] = cache->v,
        [HEED_ATTENTION_OUT] = step->out,
        [HEED_ATTENTION_SEQLENS_K] = cache->lengths,
        [HEED_ATTENTION_PAGE_TABLE] = cache->page_table,
        [HEED_ATTENTION_K_SCALE] = cache->k_scale,
        [HEED_ATTENTION_V_SCALE] = cache->v_scale,
    };
    size_t bytes, alignment;
    heed_status_t status = heed_plan_workspace(plan, &bytes, &alignment);
    void *workspace = aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
    if (!workspace && !status)
        status = HEED_ERROR_OUT_OF_MEMORY;
    for (int i = 0; i < STEPS && !status; i++) {
        next(step, i);
        status = append(context, cache, step);
        if (!status)
            status =
                heed_plan_execute(plan, buffers, HEED_ATTENTION_OPERANDS, workspace, bytes, NULL);
    }
    free(workspace);
    return status;
}

int main(void)
{
    cache_t *cache = calloc(1, sizeof(*cache));
    step_t *step = calloc(1, sizeof(*step));
    heed_context_t *context = NULL;
    heed_plan_t *plan = NULL;
    if (!cache || !step)
        return 1;
    for (int i = 0; i < PAGES; i++) /* any order will do */
        cache->page_table[i] = PAGES - 1 - i;

    heed_status_t status = heed_context_create(NULL, &context);
    if (!status)
        status = plan_decode(context, &plan);
    if (!status)
        status = decode(context, plan, cache, step);
    if (status)
        fprintf(stderr, "%s: %s\n", heed_status_name(status), heed_last_error());
    else
        printf("%d tokens in the cache of each sequence, out[0] = %g\n", cache->lengths[0],
               (double)step->out[0]);
    heed_plan_destroy(plan);
    heed_context_destroy(context);
    free(step);
    free(cache);
    return status != HEED_OK;
}
