/* Which problems an implementation may refuse although its features take them: those of sizes and
 * strides, of which features say nothing. Written from what each is made for, and not from what its
 * `supports` computes, so that one that refuses more than it has to fails the checker. An
 * implementation without a line here refuses nothing. */
#include "loop.h"

#include <string.h>

enum { SHORT_KEYS = 128 }; /* a sequence that is short */
enum { DECODE_ROWS = 64 }; /* queries of a key head's heads, packed: few are what they are for */

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

/* Whether bf16 has every number of a type. */
static bool fits_bf16(heed_dtype_t dtype)
{
    return dtype != HEED_F32 && dtype != HEED_F16;
}

static bool attention_may_refuse(const char *name, const heed_attention_desc_t *desc)
{
    int64_t rows = desc->q.shape[1] * (desc->q.shape[2] / desc->k.shape[2]);
    if (has(name, "cuda") && has(name, "decode") && rows > DECODE_ROWS)
        return true;
    if (has(name, "cpu:dense")) /* it does without a list that may be done without */
        return !desc->tiles || !desc->tiles_optional;
    if (has(name, "cpu:") && has(name, "flash") && desc->tiles_optional)
        return true;
    if (has(name, "flash_amx"))
        return !fits_bf16(desc->k.dtype) || !fits_bf16(desc->v.dtype);
    if (has(name, "short"))
        return desc->k.shape[1] > SHORT_KEYS || desc->page_table.ndim;
    if (has(name, "_sm90"))
        return is_ragged(&desc->k) || is_ragged(&desc->v) ||
               (!has(name, "decode") && is_ragged(&desc->q));
    if (has(name, "cuda") && has(name, "standard"))
        return rows_overlap(&desc->q) || rows_overlap(&desc->k) || rows_overlap(&desc->v);
    return false;
}

/* Without a communicator, which no problem string has, there is nothing to distribute over:
 * tests/test_dilated_ranks.c has them. */
bool kit_needs_ranks(const heed_impl_t *impl)
{
    return strcmp(impl->op, "dilated") == 0 && has(impl->name, "distributed");
}

bool kit_may_refuse(const heed_impl_t *impl, const void *desc)
{
    if (kit_needs_ranks(impl))
        return true;
    return strcmp(impl->op, "attention") == 0 && attention_may_refuse(impl->name, desc);
}
