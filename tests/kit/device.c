/* Buffers on a device: what the host fills, guards and judges lies there a second time. */
#include "kit.h"

#include <stdlib.h>
#include <string.h>

static const heed_device_t host = {HEED_DEVICE_CPU, 0};

bool kit_device_parse(const char *text, heed_device_t *device)
{
    char *end;
    *device = host;
    if (strcmp(text, "cpu") == 0)
        return true;
    *device = (heed_device_t){HEED_DEVICE_CUDA, 0};
    if (strcmp(text, "cuda") == 0)
        return true;
    if (strncmp(text, "cuda:", 5) != 0 || text[5] < '0' || text[5] > '9')
        return false;
    long id = strtol(text + 5, &end, 10);
    device->id = (int32_t)id;
    return !*end && id <= 1024;
}

bool kit_is_host(heed_device_t device)
{
    return device.type == HEED_DEVICE_CPU;
}

heed_status_t kit_problem_desc(heed_problem_t *problem, heed_device_t device, void **desc)
{
    heed_tensor_t *tensor;
    heed_status_t status = heed_problem_desc(problem, desc);
    for (int i = 0; status == HEED_OK && (tensor = heed_problem_tensor(problem, i)); i++)
        tensor->device = device;
    return status;
}

/* ---- one block ------------------------------------------------------------------------------- */

heed_status_t kit_block_new(heed_context_t *context, heed_device_t device, void *memory,
                            size_t bytes, kit_block_t *block)
{
    *block = (kit_block_t){context, device, memory, memory, bytes};
    if (kit_is_host(device))
        return HEED_OK;
    return heed_memory_alloc(context, device, bytes, &block->there);
}

heed_status_t kit_block_upload(const kit_block_t *block)
{
    if (block->there == block->here)
        return HEED_OK;
    return heed_memory_copy(block->context, block->there, block->device, block->here, host,
                            block->bytes, NULL);
}

heed_status_t kit_block_download(const kit_block_t *block)
{
    if (block->there == block->here)
        return HEED_OK;
    return heed_memory_copy(block->context, block->here, host, block->there, block->device,
                            block->bytes, NULL);
}

void kit_block_free(kit_block_t *block)
{
    if (block->there != block->here)
        (void)heed_memory_free(block->context, block->device, block->there);
    *block = (kit_block_t){0};
}

/* ---- all operands ---------------------------------------------------------------------------- */

heed_status_t kit_buffers_place(kit_buffers_t *buffers, heed_context_t *context,
                                heed_device_t device)
{
    for (int i = 0; i < buffers->count; i++) {
        if (!buffers->base[i])
            continue;
        heed_status_t status = kit_block_new(context, device, buffers->base[i], buffers->whole[i],
                                             &buffers->blocks[i]);
        if (status != HEED_OK)
            return status;
        buffers->at[i] = (char *)buffers->blocks[i].there + buffers->guard;
    }
    return HEED_OK;
}

heed_status_t kit_buffers_upload(const kit_buffers_t *buffers)
{
    heed_status_t status = HEED_OK;
    for (int i = 0; i < buffers->count && status == HEED_OK; i++)
        status = kit_block_upload(&buffers->blocks[i]);
    return status;
}

heed_status_t kit_buffers_download(const kit_buffers_t *buffers)
{
    heed_status_t status = HEED_OK;
    for (int i = 0; i < buffers->count && status == HEED_OK; i++)
        status = kit_block_download(&buffers->blocks[i]);
    return status;
}
