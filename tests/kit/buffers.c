#include "kit.h"

#include <stdlib.h>
#include <string.h>

/* All ones: NaN in every float type, so that what is read where nothing was written shows, and no
 * value that arithmetic makes (its NaNs are 0xffc00000), so that what is written shows too. */
enum { POISON = 0xff };

static bool is_poison(const unsigned char *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (from[i] != POISON)
            return false;
    return true;
}

int64_t kit_elements(const heed_tensor_t *tensor)
{
    int64_t count = tensor->ndim > 0;
    for (int i = 0; i < tensor->ndim; i++)
        count *= tensor->shape[i];
    return count;
}

/* The next element in row order: steps `at`, and returns its offset. */
static int64_t step(const heed_tensor_t *tensor, int64_t *at, int64_t offset)
{
    for (int axis = tensor->ndim - 1; axis >= 0; axis--) {
        offset += tensor->strides[axis];
        if (++at[axis] < tensor->shape[axis])
            break;
        offset -= at[axis] * tensor->strides[axis];
        at[axis] = 0;
    }
    return offset;
}

void kit_scatter(const heed_tensor_t *tensor, void *data, const double *values)
{
    int64_t at[HEED_MAX_NDIM] = {0}, offset = 0, count = kit_elements(tensor);
    char *first = (char *)data + tensor->byte_offset;
    for (int64_t i = 0; i < count; i++) {
        kit_store(tensor->dtype, first, offset, values[i]);
        offset = step(tensor, at, offset);
    }
}

double *kit_gather(const heed_tensor_t *tensor, const void *data)
{
    int64_t at[HEED_MAX_NDIM] = {0}, offset = 0, count = kit_elements(tensor);
    const char *first = (const char *)data + tensor->byte_offset;
    double *values = malloc((size_t)(count ? count : 1) * sizeof(*values));
    for (int64_t i = 0; values && i < count; i++) {
        values[i] = kit_load(tensor->dtype, first, offset);
        offset = step(tensor, at, offset);
    }
    return values;
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool is_output(heed_problem_t *problem, int index)
{
    heed_op_operand_t operand;
    return heed_op_operand(heed_problem_op(problem), index, &operand) && operand.output;
}

static bool new_operand(const heed_tensor_t *tensor, bool output, int index, kit_buffers_t *buffers)
{
    enum { ALIGN = 64 };
    size_t bytes = (size_t)heed_tensor_span(tensor) * heed_dtype_size(tensor->dtype);
    bytes += (size_t)tensor->byte_offset;
    size_t whole = (bytes + 2 * buffers->guard + ALIGN) / ALIGN * ALIGN;
    buffers->bytes[index] = bytes;
    buffers->whole[index] = whole;
    buffers->base[index] = aligned_alloc(ALIGN, whole);
    if (!buffers->base[index])
        return false;
    memset(buffers->base[index], POISON, whole);
    buffers->data[index] = buffers->at[index] = (char *)buffers->base[index] + buffers->guard;
    if (!output)
        return true;
    buffers->before[index] = malloc(bytes ? bytes : 1);
    if (buffers->before[index])
        memset(buffers->before[index], POISON, bytes);
    return buffers->before[index] != NULL;
}

bool kit_buffers_new(heed_problem_t *problem, size_t guard, kit_buffers_t *buffers)
{
    const heed_tensor_t *tensor;
    void *desc;
    *buffers = (kit_buffers_t){.guard = guard};
    if (heed_problem_desc(problem, &desc) != HEED_OK)
        return false;
    for (int i = 0; (tensor = heed_problem_tensor(problem, i)); i++) {
        buffers->count = i + 1;
        if (tensor->ndim > 0 && !new_operand(tensor, is_output(problem, i), i, buffers)) {
            kit_buffers_free(buffers);
            return false;
        }
    }
    return true;
}

void kit_buffers_free(kit_buffers_t *buffers)
{
    for (int i = 0; i < buffers->count; i++) {
        kit_block_free(&buffers->blocks[i]);
        free(buffers->base[i]);
        free(buffers->before[i]);
    }
    *buffers = (kit_buffers_t){0};
}

void kit_buffers_keep(const kit_buffers_t *buffers)
{
    for (int i = 0; i < buffers->count; i++)
        if (buffers->before[i])
            memcpy(buffers->before[i], buffers->data[i], buffers->bytes[i]);
}

void kit_buffers_restore(const kit_buffers_t *buffers)
{
    for (int i = 0; i < buffers->count; i++)
        if (buffers->before[i])
            memcpy(buffers->data[i], buffers->before[i], buffers->bytes[i]);
}

/* ---- damage ---------------------------------------------------------------------------------- */

/* Whether the elements between strides are still poison. */
static bool gaps_intact(const heed_tensor_t *tensor, const unsigned char *data)
{
    int64_t at[HEED_MAX_NDIM] = {0}, offset = 0;
    int64_t count = kit_elements(tensor), span = heed_tensor_span(tensor);
    size_t size = heed_dtype_size(tensor->dtype);
    bool intact = true;
    if (count == span)
        return true;
    unsigned char *used = calloc((size_t)span, 1);
    if (!used)
        return false;
    for (int64_t i = 0; i < count; i++) {
        used[offset] = 1;
        offset = step(tensor, at, offset);
    }
    for (int64_t i = 0; i < span && intact; i++)
        intact = used[i] || is_poison(data + (size_t)i * size, size);
    free(used);
    return intact;
}

static bool operand_intact(const heed_tensor_t *tensor, int index, const kit_buffers_t *buffers)
{
    const unsigned char *base = buffers->base[index];
    size_t low = buffers->guard + (size_t)tensor->byte_offset;
    return is_poison(base, low) &&
           is_poison(base + buffers->guard + buffers->bytes[index], buffers->guard) &&
           gaps_intact(tensor, base + low);
}

const char *kit_buffers_damage(heed_problem_t *problem, const kit_buffers_t *buffers)
{
    static const char nameless[] = "an operand";
    heed_op_operand_t operand;
    for (int i = 0; i < buffers->count; i++)
        if (buffers->base[i] && !operand_intact(heed_problem_tensor(problem, i), i, buffers))
            return heed_op_operand(heed_problem_op(problem), i, &operand) ? operand.name : nameless;
    return NULL;
}
