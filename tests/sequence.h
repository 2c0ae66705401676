/* A sequence whose tokens ranks have, and what one attention over all of it gives. No CMocka here:
 * programs under mpirun use it too. */
#ifndef TESTS_SEQUENCE_H
#define TESTS_SEQUENCE_H

#include "kit.h"

#include <heed/heed.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct sequence {
    int64_t batch, tokens, queries, heads, key_heads, d, dv; /* queries 0: as many as tokens */
    int causal;
    int64_t left, right;
    float *q, *k, *v, *out, *lse; /* of all tokens */
    const int32_t *starts;        /* of documents, in every batch entry; NULL: one */
    int documents;
} sequence_t;

static inline int64_t sequence_queries(const sequence_t *seq)
{
    return seq->queries ? seq->queries : seq->tokens;
}

static inline float *sequence_numbers(kit_random_t *random, int64_t count)
{
    float *numbers = malloc((size_t)count * sizeof(float) + 1);
    for (int64_t i = 0; i < count; i++)
        numbers[i] = random ? (float)kit_random_normal(random) : NAN;
    return numbers;
}

/* One call for a batch entry of documents, whose queries are the last tokens'. */
static inline heed_status_t sequence_documents(heed_context_t *context, const sequence_t *seq,
                                               heed_attention_desc_t desc, int64_t b)
{
    heed_tensor_t *tensors[] = {&desc.q, &desc.k, &desc.v, &desc.out, &desc.lse};
    int64_t shapes[5][4], before = seq->tokens - sequence_queries(seq);
    int32_t *starts = malloc(((size_t)seq->documents + 1) * sizeof(*starts));
    for (int d = 0; d <= seq->documents; d++)
        starts[d] = seq->starts[d] < before ? 0 : seq->starts[d] - (int32_t)before;
    for (int n = 0; n < 5; n++) {
        int64_t size = 1;
        for (int i = 1; i < tensors[n]->ndim; i++)
            size *= tensors[n]->shape[i];
        memcpy(shapes[n], tensors[n]->shape, (size_t)tensors[n]->ndim * sizeof(int64_t));
        shapes[n][0] = 1;
        *tensors[n] = heed_tensor((float *)tensors[n]->data + b * size, HEED_F32, tensors[n]->ndim,
                                  shapes[n], NULL);
    }
    desc.cu_seqlens_q = HEED_TENSOR(starts, HEED_I32, seq->documents + 1);
    desc.cu_seqlens_k = HEED_TENSOR((void *)(uintptr_t)seq->starts, HEED_I32, seq->documents + 1);
    heed_status_t status = heed_attention(context, &desc);
    free(starts);
    return status;
}

/* The result of one call on this process alone. */
static inline heed_status_t sequence_attend(heed_context_t *context, sequence_t *seq)
{
    int64_t queries = sequence_queries(seq), n = seq->tokens;
    heed_attention_desc_t desc = heed_attention_desc();
    desc.causal = seq->causal;
    desc.window_left = seq->left;
    desc.window_right = seq->right;
    desc.align = HEED_ALIGN_BOTTOM_RIGHT;
    desc.q = HEED_TENSOR(seq->q, HEED_F32, seq->batch, queries, seq->heads, seq->d);
    desc.k = HEED_TENSOR(seq->k, HEED_F32, seq->batch, n, seq->key_heads, seq->d);
    desc.v = HEED_TENSOR(seq->v, HEED_F32, seq->batch, n, seq->key_heads, seq->dv);
    desc.out = HEED_TENSOR(seq->out, HEED_F32, seq->batch, queries, seq->heads, seq->dv);
    desc.lse = HEED_TENSOR(seq->lse, HEED_F32, seq->batch, seq->heads, queries);
    heed_status_t status = HEED_OK;
    for (int64_t b = 0; seq->starts && b < seq->batch && status == HEED_OK; b++)
        status = sequence_documents(context, seq, desc, b);
    return seq->starts ? status : heed_attention(context, &desc);
}

/* Random q, k, v, and their result. */
static inline heed_status_t sequence_make(heed_context_t *context, sequence_t *seq)
{
    kit_random_t random = {77};
    int64_t queries = sequence_queries(seq), n = seq->tokens;
    seq->q = sequence_numbers(&random, seq->batch * queries * seq->heads * seq->d);
    seq->k = sequence_numbers(&random, seq->batch * n * seq->key_heads * seq->d);
    seq->v = sequence_numbers(&random, seq->batch * n * seq->key_heads * seq->dv);
    seq->out = sequence_numbers(NULL, seq->batch * queries * seq->heads * seq->dv);
    seq->lse = sequence_numbers(NULL, seq->batch * queries * seq->heads);
    return sequence_attend(context, seq);
}

static inline void sequence_free(sequence_t *seq)
{
    free(seq->q);
    free(seq->k);
    free(seq->v);
    free(seq->out);
    free(seq->lse);
}

/* ---- one rank's part ------------------------------------------------------------------------- */

typedef struct part {
    heed_context_parallel_desc_t desc;
    int64_t shapes[5][4], documents;
    float *q, *k, *v, *out, *lse;
    int64_t *queries, *keys; /* rows of the whole tensors, one for each of the part's */
    int64_t query_count, key_count;
} part_t;

static inline int64_t *part_rows(heed_ring_layout_t layout, int size, int rank, int64_t tokens,
                                 int64_t *count)
{
    heed_ring_run_t runs[2];
    int number = heed_ring_runs(layout, rank, size, tokens, runs);
    int64_t *rows = malloc((size_t)tokens * sizeof(*rows) + 1);
    *count = 0;
    for (int r = 0; r < number; r++)
        for (int64_t i = 0; i < runs[r].count; i++)
            rows[(*count)++] = runs[r].first + i * runs[r].distance;
    return rows;
}

/* Rows of [B,whole,width] into [B,count,width]. */
static inline float *part_take(const float *from, int64_t batch, int64_t whole, int64_t width,
                               const int64_t *rows, int64_t count)
{
    float *to = malloc((size_t)(batch * count * width) * sizeof(float) + 1);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < count; i++)
            memcpy(to + (b * count + i) * width, from + (b * whole + rows[i]) * width,
                   (size_t)width * sizeof(float));
    return to;
}

static inline heed_tensor_t part_tensor(part_t *part, int number, float *data, int ndim, int64_t a,
                                        int64_t b, int64_t c, int64_t d)
{
    memcpy(part->shapes[number], (int64_t[]){a, b, c, d}, 4 * sizeof(int64_t));
    return heed_tensor(data, HEED_F32, ndim, part->shapes[number], NULL);
}

/* everywhere: all queries. part must stay where it is: its tensors point into it. */
static inline void part_make(const sequence_t *seq, heed_ring_layout_t layout, int size, int rank,
                             int everywhere, part_t *part)
{
    int64_t queries = sequence_queries(seq), batch = seq->batch;
    memset(part, 0, sizeof(*part));
    part->queries = part_rows(layout, everywhere ? 1 : size, everywhere ? 0 : rank, queries,
                              &part->query_count);
    if (everywhere) /* in order, whatever the layout */
        for (int64_t i = 0; i < queries; i++)
            part->queries[i] = i;
    part->keys = part_rows(layout, size, rank, seq->tokens, &part->key_count);
    int64_t n = part->query_count, m = part->key_count;
    part->q = part_take(seq->q, batch, queries, seq->heads * seq->d, part->queries, n);
    part->k = part_take(seq->k, batch, seq->tokens, seq->key_heads * seq->d, part->keys, m);
    part->v = part_take(seq->v, batch, seq->tokens, seq->key_heads * seq->dv, part->keys, m);
    part->out = sequence_numbers(NULL, batch * n * seq->heads * seq->dv);
    part->lse = sequence_numbers(NULL, batch * n * seq->heads);
    part->desc = heed_context_parallel_desc();
    part->desc.layout = layout;
    part->desc.causal = seq->causal;
    part->desc.window_left = seq->left;
    part->desc.window_right = seq->right;
    part->desc.tokens = seq->tokens;
    part->desc.queries = seq->queries;
    part->desc.everywhere = everywhere;
    part->desc.q = part_tensor(part, 0, part->q, 4, batch, n, seq->heads, seq->d);
    part->desc.k = part_tensor(part, 1, part->k, 4, batch, m, seq->key_heads, seq->d);
    part->desc.v = part_tensor(part, 2, part->v, 4, batch, m, seq->key_heads, seq->dv);
    part->desc.out = part_tensor(part, 3, part->out, 4, batch, n, seq->heads, seq->dv);
    if (seq->starts) {
        part->documents = seq->documents + 1;
        part->desc.cu_seqlens =
            heed_tensor((void *)(uintptr_t)seq->starts, HEED_I32, 1, &part->documents, NULL);
    }
    part->desc.lse = part_tensor(part, 4, part->lse, 3, batch, seq->heads, n, 0);
}

static inline void part_free(part_t *part)
{
    free(part->q);
    free(part->k);
    free(part->v);
    free(part->out);
    free(part->lse);
    free(part->queries);
    free(part->keys);
}

static inline double part_worse(double worst, float got, float want)
{
    if (got == want)
        return worst;
    double off = fabs((double)got - (double)want);
    return off <= worst ? worst : isnan(off) ? INFINITY : off;
}

/* The largest difference of the part's out and lse from what one call gave. */
static inline double part_error(const sequence_t *seq, const part_t *part)
{
    int64_t width = seq->heads * seq->dv, n = part->query_count, all = sequence_queries(seq);
    double worst = 0;
    for (int64_t b = 0; b < seq->batch; b++)
        for (int64_t i = 0; i < n; i++) {
            int64_t row = part->queries[i];
            for (int64_t c = 0; c < width; c++)
                worst = part_worse(worst, part->out[(b * n + i) * width + c],
                                   seq->out[(b * all + row) * width + c]);
            for (int64_t h = 0; h < seq->heads; h++)
                worst = part_worse(worst, part->lse[(b * seq->heads + h) * n + i],
                                   seq->lse[(b * seq->heads + h) * all + row]);
        }
    return worst;
}

#endif
