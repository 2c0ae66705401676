/* A program outside Heed's tree, built against an installed Heed: one key, so the output is its
 * value. */
#include <heed/heed.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    float q[8] = {1, 2, 3, 4, 5, 6, 7, 8}, k[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float v[8] = {1, -2, 3, -4, 5, -6, 7, -8}, out[8] = {0};
    heed_context_t *context;
    heed_attention_desc_t desc = heed_attention_desc();
    desc.q = HEED_TENSOR(q, HEED_F32, 1, 1, 1, 8);
    desc.k = HEED_TENSOR(k, HEED_F32, 1, 1, 1, 8);
    desc.v = HEED_TENSOR(v, HEED_F32, 1, 1, 1, 8);
    desc.out = HEED_TENSOR(out, HEED_F32, 1, 1, 1, 8);

    if (strcmp(heed_version(), HEED_VERSION_STRING) != 0) {
        fprintf(stderr, "library %s, headers %s\n", heed_version(), HEED_VERSION_STRING);
        return 1;
    }
    if (heed_context_create(NULL, &context) || heed_attention(context, &desc)) {
        fprintf(stderr, "%s\n", heed_last_error());
        return 1;
    }
    heed_context_destroy(context);
    for (int i = 0; i < 8; i++)
        if (out[i] != v[i]) {
            fprintf(stderr, "out[%d] = %g, should be %g\n", i, (double)out[i], (double)v[i]);
            return 1;
        }
    printf("heed %s works\n", heed_version());
    return 0;
}
