/* Memory, streams and events: the CPU's own, or those of the backend behind the context. */
#include "backend.h"
#include "internal.h"

#include <string.h>

enum { MEMORY_ALIGN = 256 };

struct heed_event {
    heed_context_t *context;
    heed_device_t device;
    bool recorded;
    void *native;   /* NULL on the CPU */
    double time_ns; /* of the CPU */
};

/* ---- devices --------------------------------------------------------------------------------- */

heed_status_t hd_device_check(const heed_context_t *context, const char *name, heed_device_t device)
{
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    if (hd_device_find(context, device))
        return HEED_OK;
    const char *missing = heed_device_missing(context, device.type);
    return hd_fail(HEED_ERROR_NO_DEVICE, "%s is %d:%d: %s", name, device.type, device.id,
                   missing                   ? missing
                   : context->backend_why[0] ? context->backend_why
                                             : "there is none with that number");
}

static bool is_cpu(heed_device_t device)
{
    return device.type == HEED_DEVICE_CPU;
}

static bool is_same(heed_device_t a, heed_device_t b)
{
    return a.type == b.type && a.id == b.id;
}

static const hd_device_calls_t *calls(const heed_context_t *context)
{
    return context->backend->device;
}

static void *native(const heed_stream_t *stream)
{
    return stream ? stream->native : NULL;
}

/* The device a copy is enqueued on, and whether the stream may be used there. */
static heed_status_t check_stream(const heed_stream_t *stream, heed_device_t a, heed_device_t b,
                                  heed_device_t *on)
{
    *on = is_cpu(a) ? b : a;
    if (!native(stream))
        return HEED_OK;
    if (!is_cpu(stream->device) && (is_same(stream->device, a) || is_same(stream->device, b))) {
        *on = stream->device;
        return HEED_OK;
    }
    return hd_fail(HEED_ERROR_VALUE, "stream.device is %d:%d, but the memory lies on %d:%d%s",
                   stream->device.type, stream->device.id, on->type, on->id,
                   is_cpu(*on) ? ", which has no streams" : "");
}

/* ---- memory ---------------------------------------------------------------------------------- */

heed_status_t hd_device_alloc(const heed_context_t *context, heed_device_t device, const char *what,
                              size_t bytes, const heed_stream_t *stream, void **memory)
{
    const heed_device_allocator_t *own = &context->device_allocator;
    *memory = NULL;
    bytes = bytes ? bytes : 1;
    if (is_cpu(device))
        *memory = hd_alloc_aligned(context, bytes, MEMORY_ALIGN);
    else if (own->alloc)
        *memory = own->alloc(own->user, device, bytes, MEMORY_ALIGN, stream);
    else if (stream)
        return calls(context)->alloc_ordered(device.id, bytes, stream->native, memory);
    else
        return calls(context)->alloc(device.id, bytes, memory);
    if (*memory && (uintptr_t)*memory % MEMORY_ALIGN == 0)
        return HEED_OK;
    if (!*memory)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %s of %zu bytes on device %d:%d",
                       what, bytes, device.type, device.id);
    void *bad = *memory;
    (void)hd_device_free(context, device, bad, stream);
    *memory = NULL;
    return hd_fail(HEED_ERROR_ALIGNMENT, "an allocator gave %p, which is not aligned to %d bytes",
                   bad, MEMORY_ALIGN);
}

heed_status_t hd_device_free(const heed_context_t *context, heed_device_t device, void *memory,
                             const heed_stream_t *stream)
{
    const heed_device_allocator_t *own = &context->device_allocator;
    if (!memory)
        return HEED_OK;
    if (is_cpu(device))
        hd_free(context, memory);
    else if (own->alloc)
        own->free(own->user, device, memory, stream);
    else if (stream)
        return calls(context)->free_ordered(device.id, memory, stream->native);
    else
        return calls(context)->free(device.id, memory);
    return HEED_OK;
}

heed_status_t heed_memory_alloc(heed_context_t *context, heed_device_t device, size_t bytes,
                                void **memory)
{
    if (!memory)
        return hd_fail(HEED_ERROR_NULL, "memory is null");
    *memory = NULL;
    HD_TRY(hd_device_check(context, "device", device));
    return hd_device_alloc(context, device, "a block", bytes, NULL, memory);
}

heed_status_t heed_memory_free(heed_context_t *context, heed_device_t device, void *memory)
{
    HD_TRY(hd_device_check(context, "device", device));
    return hd_device_free(context, device, memory, NULL);
}

heed_status_t heed_memory_copy(heed_context_t *context, void *to, heed_device_t to_device,
                               const void *from, heed_device_t from_device, size_t bytes,
                               const heed_stream_t *stream)
{
    heed_device_t on;
    HD_TRY(hd_device_check(context, "to_device", to_device));
    HD_TRY(hd_device_check(context, "from_device", from_device));
    if ((!to || !from) && bytes)
        return hd_fail(HEED_ERROR_NULL, "%s is null", to ? "from" : "to");
    HD_TRY(check_stream(stream, to_device, from_device, &on));
    if (bytes == 0)
        return HEED_OK;
    if (is_cpu(on)) {
        memmove(to, from, bytes);
        return HEED_OK;
    }
    HD_TRY(calls(context)->copy(on.id, to, from, bytes, native(stream)));
    return stream ? HEED_OK : calls(context)->synchronize(on.id, NULL);
}

heed_status_t heed_memory_set(heed_context_t *context, void *memory, heed_device_t device,
                              int value, size_t bytes, const heed_stream_t *stream)
{
    heed_device_t on;
    HD_TRY(hd_device_check(context, "device", device));
    if (!memory && bytes)
        return hd_fail(HEED_ERROR_NULL, "memory is null");
    if (value < 0 || value > 255)
        return hd_fail(HEED_ERROR_VALUE, "value=%d is no byte", value);
    HD_TRY(check_stream(stream, device, device, &on));
    if (bytes == 0)
        return HEED_OK;
    if (is_cpu(on)) {
        memset(memory, value, bytes);
        return HEED_OK;
    }
    HD_TRY(calls(context)->set(on.id, memory, value, bytes, native(stream)));
    return stream ? HEED_OK : calls(context)->synchronize(on.id, NULL);
}

/* ---- streams --------------------------------------------------------------------------------- */

heed_status_t heed_stream_create(heed_context_t *context, heed_device_t device,
                                 heed_stream_t *stream)
{
    if (!stream)
        return hd_fail(HEED_ERROR_NULL, "stream is null");
    *stream = (heed_stream_t){device, NULL};
    HD_TRY(hd_device_check(context, "device", device));
    return is_cpu(device) ? HEED_OK : calls(context)->stream_create(device.id, &stream->native);
}

static heed_status_t check_given(const heed_context_t *context, const heed_stream_t *stream)
{
    if (!stream)
        return hd_fail(HEED_ERROR_NULL, "stream is null");
    HD_TRY(hd_device_check(context, "stream.device", stream->device));
    if (is_cpu(stream->device) && stream->native)
        return hd_fail(HEED_ERROR_VALUE, "stream.native=%p: the CPU has no streams",
                       stream->native);
    return HEED_OK;
}

heed_status_t heed_stream_destroy(heed_context_t *context, const heed_stream_t *stream)
{
    HD_TRY(check_given(context, stream));
    if (!stream->native)
        return HEED_OK;
    return calls(context)->stream_destroy(stream->device.id, stream->native);
}

heed_status_t heed_stream_synchronize(heed_context_t *context, const heed_stream_t *stream)
{
    HD_TRY(check_given(context, stream));
    if (is_cpu(stream->device))
        return HEED_OK;
    return calls(context)->synchronize(stream->device.id, stream->native);
}

/* ---- time ------------------------------------------------------------------------------------ */

heed_status_t heed_event_create(heed_context_t *context, heed_device_t device, heed_event_t **event)
{
    if (!event)
        return hd_fail(HEED_ERROR_NULL, "event is null");
    *event = NULL;
    HD_TRY(hd_device_check(context, "device", device));
    heed_event_t *made = hd_alloc(context, sizeof(*made));
    if (!made)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for an event");
    *made = (heed_event_t){.context = context, .device = device};
    heed_status_t status =
        is_cpu(device) ? HEED_OK : calls(context)->event_create(device.id, &made->native);
    if (status != HEED_OK) {
        hd_free(context, made);
        return status;
    }
    hd_context_retain(context);
    *event = made;
    return HEED_OK;
}

void heed_event_destroy(heed_event_t *event)
{
    if (!event)
        return;
    heed_context_t *context = event->context;
    if (event->native)
        (void)calls(context)->event_destroy(event->device.id, event->native);
    hd_free(context, event);
    heed_context_destroy(context);
}

heed_status_t heed_event_record(heed_event_t *event, const heed_stream_t *stream)
{
    heed_device_t on;
    if (!event)
        return hd_fail(HEED_ERROR_NULL, "event is null");
    HD_TRY(check_stream(stream, event->device, event->device, &on));
    if (is_cpu(on))
        event->time_ns = hd_now_ns();
    else
        HD_TRY(calls(event->context)->event_record(on.id, event->native, native(stream)));
    event->recorded = true;
    return HEED_OK;
}

heed_status_t heed_event_elapsed(const heed_event_t *first, const heed_event_t *last, double *ns)
{
    if (!first || !last || !ns)
        return hd_fail(HEED_ERROR_NULL, "%s is null", !first ? "first" : !last ? "last" : "ns");
    *ns = 0;
    if (!first->recorded || !last->recorded)
        return hd_fail(HEED_ERROR_VALUE, "%s was not recorded", first->recorded ? "last" : "first");
    if (!is_same(first->device, last->device))
        return hd_fail(HEED_ERROR_VALUE, "first is of device %d:%d, last of %d:%d",
                       first->device.type, first->device.id, last->device.type, last->device.id);
    if (!is_cpu(first->device))
        return calls(first->context)
            ->event_elapsed(first->device.id, first->native, last->native, ns);
    *ns = last->time_ns - first->time_ns;
    return HEED_OK;
}

/* ---- limits ---------------------------------------------------------------------------------- */

heed_status_t heed_device_matmul_rate(heed_context_t *context, heed_device_t device,
                                      heed_dtype_t dtype, double *rate)
{
    if (!rate)
        return hd_fail(HEED_ERROR_NULL, "rate is null");
    *rate = 0;
    HD_TRY(hd_device_check(context, "device", device));
    if (is_cpu(device))
        return hd_fail(HEED_ERROR_UNSUPPORTED, "device is the CPU: `heed bench` measures it");
    return calls(context)->matmul_rate(device.id, dtype, rate);
}
