/* Lengths, page tables and operands that modify scores, as problems have them. */
#include "kit_attention.h"

#include <math.h>
#include <stdlib.h>

static int64_t between(kit_random_t *random, int64_t low, int64_t high)
{
    return kit_random_int(random, low, high);
}

/* ---- lengths and pages ----------------------------------------------------------------------- */

static int by_value(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
    return (a > b) - (a < b);
}

/* Cuts `total` rows at random places: some sequences come out empty. The last rows may belong to
 * none, nor the first. */
static void fill_starts(kit_random_t *random, const heed_tensor_t *tensor, void *data,
                        int64_t total)
{
    int32_t *starts = data;
    int64_t count = tensor->shape[0];
    for (int64_t i = 0; i < count; i++)
        starts[i] = (int32_t)between(random, 0, total);
    if (between(random, 0, 3)) {
        starts[0] = 0;
        starts[count - 1] = (int32_t)total;
    }
    if (count > 2 && between(random, 0, 3) == 0)
        starts[1] = starts[2];
    qsort(starts, (size_t)count, sizeof(*starts), by_value);
}

/* From none to all keys that there is room for. */
static void fill_lengths(kit_random_t *random, const heed_tensor_t *tensor, void *data,
                         int64_t room)
{
    int32_t *lengths = data;
    for (int64_t b = 0; b < tensor->shape[0]; b++) {
        int64_t kind = between(random, 0, 7);
        lengths[b] = (int32_t)(kind == 0 ? 0 : kind <= 2 ? room : between(random, 0, room));
    }
}

/* Pages in a random order, none twice where there are enough of them. Entries that no key in use
 * needs are -1 or beyond the pool. */
static void fill_pages(kit_random_t *random, const heed_attention_desc_t *desc, void *const *data)
{
    int32_t *table = data[HEED_ATTENTION_PAGE_TABLE];
    const int32_t *lengths = data[HEED_ATTENTION_SEQLENS_K];
    int64_t batch = desc->page_table.shape[0], most = desc->page_table.shape[1];
    int64_t pages = desc->k.shape[0], page = desc->k.shape[1], next = 0;
    int32_t *order = malloc((size_t)(pages + 1) * sizeof(*order));
    for (int64_t i = 0; order && i < pages; i++) {
        int64_t other = between(random, 0, i);
        order[i] = order[other];
        order[other] = (int32_t)i;
    }
    for (int64_t i = 0; order && i < batch * most; i++) {
        int64_t used = desc->seqlens_k.ndim ? (lengths[i / most] + page - 1) / page : most;
        if (i % most < used)
            table[i] = pages ? order[next++ % pages] : 0;
        else
            table[i] = between(random, 0, 1) ? -1 : INT32_MAX;
    }
    free(order);
}

/* ---- modifiers ------------------------------------------------------------------------------- */

/* About 1; with some -inf, and in extreme problems whole columns of it and large numbers. */
static void fill_bias(kit_random_t *random, kit_values_t values, const heed_tensor_t *bias,
                      void *data)
{
    int64_t count = kit_elements(bias), keys = bias->shape[3];
    bool extreme = values == KIT_VALUES_EXTREME;
    double size = extreme && between(random, 0, 3) == 0 ? 1e3 : 2;
    int64_t column = extreme ? between(random, 0, keys) : keys, percent = between(random, 0, 10);
    for (int64_t i = 0; i < count; i++) {
        double value = size * kit_random_normal(random);
        if (between(random, 1, 100) <= percent || i % keys == column)
            value = -INFINITY;
        kit_store(bias->dtype, data, i, value);
    }
}

/* Most pairs, or a prefix of the keys as padding leaves it; any byte but 0 is true. */
static void fill_mask(kit_random_t *random, const heed_tensor_t *mask, void *data)
{
    static const int64_t chances[] = {0, 50, 90, 100};
    uint8_t *bytes = data;
    int64_t count = kit_elements(mask), keys = mask->shape[3], kind = between(random, 0, 5);
    int64_t prefix = between(random, 0, keys);
    for (int64_t i = 0; i < count; i++) {
        bool sees = kind < 4 ? between(random, 1, 100) <= chances[kind] : i % keys < prefix;
        bytes[i] = (uint8_t)(sees ? between(random, 0, 3) ? 1 : 255 : 0);
    }
}

static void fill_slopes(kit_random_t *random, const heed_tensor_t *slopes, void *data)
{
    int64_t count = kit_elements(slopes);
    for (int64_t i = 0; i < count; i++)
        kit_store(HEED_F32, data, i, exp2(-8 * kit_random_unit(random)));
}

static void fill_sinks(kit_random_t *random, kit_values_t values, const heed_tensor_t *sinks,
                       void *data)
{
    static const double extreme[] = {-INFINITY, 100, -100, 0, 1e4, -1e4};
    int64_t count = kit_elements(sinks);
    for (int64_t i = 0; i < count; i++) {
        double value = 3 * kit_random_normal(random);
        int64_t pick = between(random, 0, 11);
        if (values == KIT_VALUES_EXTREME && pick < 6)
            value = extreme[pick];
        kit_store(HEED_F32, data, i, value);
    }
}

void kit_attention_fill_extra(kit_random_t *random, kit_values_t values,
                              const heed_attention_desc_t *desc, void *const *data)
{
    const heed_tensor_t *table = &desc->page_table;
    int64_t room = desc->k.shape[1] * (table->ndim ? table->shape[1] : 1);
    if (desc->cu_seqlens_q.ndim)
        fill_starts(random, &desc->cu_seqlens_q, data[HEED_ATTENTION_CU_SEQLENS_Q],
                    desc->q.shape[1]);
    if (desc->cu_seqlens_k.ndim)
        fill_starts(random, &desc->cu_seqlens_k, data[HEED_ATTENTION_CU_SEQLENS_K],
                    desc->k.shape[1]);
    if (desc->seqlens_k.ndim)
        fill_lengths(random, &desc->seqlens_k, data[HEED_ATTENTION_SEQLENS_K], room);
    if (table->ndim)
        fill_pages(random, desc, data);
    if (desc->bias.ndim)
        fill_bias(random, values, &desc->bias, data[HEED_ATTENTION_BIAS]);
    if (desc->mask.ndim)
        fill_mask(random, &desc->mask, data[HEED_ATTENTION_MASK]);
    if (desc->alibi_slopes.ndim)
        fill_slopes(random, &desc->alibi_slopes, data[HEED_ATTENTION_ALIBI_SLOPES]);
    if (desc->sinks.ndim)
        fill_sinks(random, values, &desc->sinks, data[HEED_ATTENTION_SINKS]);
}
