/* The shortest way: describe, run. */
#include <heed/heed.h>

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 1, TOKENS = 128, HEADS = 8, DIM = 64 };

int main(void)
{
    size_t count = (size_t)BATCH * TOKENS * HEADS * DIM;
    float *data = calloc(4 * count, sizeof(*data));
    if (!data)
        return 1;
    for (size_t i = 0; i < 3 * count; i++)
        data[i] = (float)(i * 2654435761u % 1000) / 500 - 1;

    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(data, HEED_F32, BATCH, TOKENS, HEADS, DIM);
    desc.k = HEED_TENSOR(data + count, HEED_F32, BATCH, TOKENS, HEADS, DIM);
    desc.v = HEED_TENSOR(data + 2 * count, HEED_F32, BATCH, TOKENS, HEADS, DIM);
    desc.out = HEED_TENSOR(data + 3 * count, HEED_F32, BATCH, TOKENS, HEADS, DIM);
    desc.causal = 1;

    heed_context_t *context = NULL;
    int failed = heed_context_create(NULL, &context) || heed_attention(context, &desc);
    if (failed)
        fprintf(stderr, "%s\n", heed_last_error());
    else
        printf("out[0,%d,0,0] = %g\n", TOKENS - 1,
               (double)data[3 * count + (size_t)(TOKENS - 1) * HEADS * DIM]);
    heed_context_destroy(context);
    free(data);
    return failed;
}
