/* Keys and values that come in chunks: each call merges its chunk into the state (out, lse), and
 * the end result is that of one call over all keys. Streaming, ring and split-KV attention are this
 * loop. */
#include <heed/heed.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUERIES = 64, KEYS = 300, CHUNK = 128, HEADS = 4, DIM = 64 };

static heed_status_t attend(heed_context_t *context, float *q, float *k, float *v, float *out,
                            float *lse, int first, int count, int merge)
{
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(q, HEED_F32, 1, QUERIES, HEADS, DIM);
    desc.k = HEED_TENSOR(k + first * HEADS * DIM, HEED_F32, 1, count, HEADS, DIM);
    desc.v = HEED_TENSOR(v + first * HEADS * DIM, HEED_F32, 1, count, HEADS, DIM);
    desc.out = HEED_TENSOR(out, HEED_F32, 1, QUERIES, HEADS, DIM);
    desc.lse = HEED_TENSOR(lse, HEED_F32, 1, HEADS, QUERIES);
    desc.merge = merge;
    return heed_attention(context, &desc);
}

int main(void)
{
    enum { Q = QUERIES * HEADS * DIM, K = KEYS * HEADS * DIM, L = HEADS * QUERIES };
    float *data = calloc(3 * Q + 2 * K + 2 * L, sizeof(*data));
    heed_context_t *context = NULL;
    if (!data || heed_context_create(NULL, &context)) {
        free(data);
        return 1;
    }
    float *q = data, *k = q + Q, *v = k + K, *once = v + K, *parts = once + Q;
    float *lse_once = parts + Q, *lse_parts = lse_once + L;
    for (int i = 0; i < Q + 2 * K; i++)
        data[i] = (float)((unsigned)i * 2654435761u % 2000) / 1000 - 1;

    heed_status_t status = attend(context, q, k, v, once, lse_once, 0, KEYS, 0);
    for (int i = 0; i < L; i++)
        lse_parts[i] = -INFINITY; /* an empty state; its out is not looked at */
    for (int first = 0; first < KEYS && !status; first += CHUNK)
        status = attend(context, q, k, v, parts, lse_parts, first,
                        KEYS - first < CHUNK ? KEYS - first : CHUNK, 1);
    if (status)
        fprintf(stderr, "%s\n", heed_last_error());

    float worst = 0;
    for (int i = 0; i < Q; i++)
        worst = fmaxf(worst, fabsf(once[i] - parts[i]));
    printf("chunks of %d keys against all at once: largest difference %g\n", CHUNK, (double)worst);
    heed_context_destroy(context);
    free(data);
    return status != HEED_OK || worst > 1e-5f;
}
