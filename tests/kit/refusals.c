/* Which problems an implementation may refuse although its features take them: those of sizes and
 * strides, of which features say nothing. Written from what each is made for, and not from what its
 * `supports` computes, so that one that refuses more than it has to fails the checker. An
 * implementation without a line here refuses nothing. */
#include "kit_attention.h"
#include "loop.h"

#include <string.h>

/* Few queries are what they are for: packed rows of a key head, queries. */
enum { CUDA_DECODE_ROWS = 64, CPU_DECODE_QUERIES = 16 };

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

/* Whether a copy engine cannot walk the rows: it counts in 16 bytes, and knows no step of 0. */
static bool is_ragged(const heed_tensor_t *tensor)
{
    int64_t unit = 16 / (int64_t)heed_dtype_size(tensor->dtype);
    for (int i = 0; i < 3; i++)
        if (tensor->shape[i] > 1 && (tensor->strides[i] % unit || tensor->strides[i] == 0))
            return true;
    return false;
}

/* Whether rows overlap, which no matrix of a BLAS can. */
static bool rows_overlap(const heed_tensor_t *tensor)
{
    return tensor->shape[1] > 1 && tensor->strides[1] < tensor->shape[3];
}

static bool attention_may_refuse(const char *name, const heed_attention_desc_t *desc)
{
    kit_sizes_t n = kit_attention_sizes(desc);
    if (has(name, "cuda") && has(name, "decode") && n.sq * (n.h / n.hk) > CUDA_DECODE_ROWS)
        return true;
    if (has(name, "cpu:decode") && n.sq > CPU_DECODE_QUERIES)
        return true;
    if (has(name, "_sm90"))
        return is_ragged(&desc->k) || is_ragged(&desc->v) ||
               (!has(name, "decode") && is_ragged(&desc->q));
    if (has(name, "cuda") && has(name, "standard"))
        return rows_overlap(&desc->q) || rows_overlap(&desc->k) || rows_overlap(&desc->v);
    return false;
}

bool kit_may_refuse(const heed_impl_t *impl, const void *desc)
{
    return strcmp(impl->op, "attention") == 0 && attention_may_refuse(impl->name, desc);
}
