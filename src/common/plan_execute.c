/* Executing plans: what the caller hands over is checked, then the implementation runs. */
#define _GNU_SOURCE
#include "backend.h"
#include "plan.h"

#include <string.h>
#include <time.h>

/* Checks the callers' addresses and adds the byte offsets. */
static heed_status_t check_buffers(const heed_plan_t *plan, void *const *buffers, int count,
                                   void **full)
{
    const hd_op_t *op = plan->op;
    if (count < plan->buffer_count || count > op->operand_count)
        return hd_fail(HEED_ERROR_VALUE,
                       "buffer_count=%d: this plan has %d operands, %s at most %d", count,
                       plan->buffer_count, op->name, op->operand_count);
    for (int i = 0; i < op->operand_count; i++) {
        const heed_op_operand_t *info = &op->operands[i].info;
        const heed_tensor_t *tensor = hd_op_tensor(op, plan->desc, i);
        void *buffer = i < count ? buffers[i] : NULL;
        full[i] = NULL;
        if (tensor->ndim == 0) {
            if (buffer)
                return hd_fail(HEED_ERROR_VALUE, "buffers[%d]: the plan has no %s", i, info->name);
            continue;
        }
        if (!buffer && hd_tensor_elements(tensor) > 0)
            return hd_fail(HEED_ERROR_NULL, "buffers[%d], %s, is null", i, info->name);
        if (!buffer)
            continue;
        full[i] = (char *)buffer + tensor->byte_offset;
        size_t size = heed_dtype_size(tensor->dtype);
        if ((uintptr_t)full[i] % size)
            return hd_fail(HEED_ERROR_ALIGNMENT, "%s at %p is not aligned to its %zu-byte %s",
                           info->name, full[i], size, heed_dtype_name(tensor->dtype));
    }
    return HEED_OK;
}

static heed_status_t check_workspace(const heed_plan_t *plan, const void *workspace, size_t bytes)
{
    if (plan->workspace == 0)
        return HEED_OK;
    if (!workspace || bytes < plan->workspace)
        return hd_fail(HEED_ERROR_WORKSPACE, "workspace_bytes=%zu, the plan needs %zu",
                       workspace ? bytes : 0, plan->workspace);
    if ((uintptr_t)workspace % HD_WORKSPACE_ALIGN)
        return hd_fail(HEED_ERROR_WORKSPACE, "workspace at %p is not aligned to %d bytes",
                       workspace, HD_WORKSPACE_ALIGN);
    return HEED_OK;
}

double hd_now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static heed_status_t run(const heed_plan_t *plan, const heed_launch_t *launch)
{
    const heed_impl_t *impl = plan->impl;
    heed_status_t status = impl->run(launch);
    if (status != HEED_OK && strcmp(heed_status_name(status), "HEED_STATUS_?") == 0)
        return hd_fail(HEED_ERROR_INTERNAL, "%s returned %d, which is no status", impl->name,
                       (int)status);
    return status;
}

heed_status_t heed_plan_execute(const heed_plan_t *plan, void *const *buffers, int buffer_count,
                                void *workspace, size_t workspace_bytes,
                                const heed_stream_t *stream)
{
    if (!plan || !buffers)
        return hd_fail(HEED_ERROR_NULL, "%s is null", plan ? "buffers" : "plan");
    if (stream && stream->native && stream->device.type == HEED_DEVICE_CPU)
        return hd_fail(HEED_ERROR_VALUE, "stream.native=%p: the CPU has no streams",
                       stream->native);
    if (stream && stream->native && plan->info.device.type != HEED_DEVICE_CPU &&
        (stream->device.type != plan->info.device.type ||
         stream->device.id != plan->info.device.id))
        return hd_fail(HEED_ERROR_VALUE, "stream.device is %d:%d, but the plan runs on %d:%d",
                       stream->device.type, stream->device.id, plan->info.device.type,
                       plan->info.device.id);
    void *full[HD_MAX_OPERANDS];
    HD_TRY(check_buffers(plan, buffers, buffer_count, full));
    if (plan->op->check)
        HD_TRY(plan->op->check(plan->desc, full));
    HD_TRY(check_workspace(plan, workspace, workspace_bytes));
    heed_launch_t launch = {.desc = plan->desc,
                            .buffers = full,
                            .workspace = plan->workspace ? workspace : NULL,
                            .workspace_bytes = plan->workspace,
                            .threads = plan->info.threads,
                            .user = plan->impl->user,
                            .tiles = plan->placed,
                            .state = plan->state,
                            .device = hd_device_find(plan->context, plan->info.device)};
    if (stream)
        launch.stream = *stream;
    if (!hd_logs(plan->context, HEED_LOG_EXEC))
        return run(plan, &launch);

    char problem[512];
    double start = hd_now_ns();
    heed_status_t status = run(plan, &launch);
    double spent = hd_now_ns() - start;
    heed_plan_problem(plan, problem, sizeof(problem));
    hd_log(plan->context, HEED_LOG_EXEC,
           "heed v1 exec impl=%s us=%.1f est_us=%.1f status=%s prob: %s", plan->impl->name,
           spent / 1e3, plan->info.estimate_ns / 1e3, heed_status_name(status), problem);
    return status;
}

/* ---- in one call ----------------------------------------------------------------------------- */

/* On a device the workspace is taken and given back in the order of the default stream, so that
 * nothing has to wait; only the plan's copy of a tile list must not go before the work is done. */
static heed_status_t execute_once(heed_plan_t *plan, void *const *buffers)
{
    heed_context_t *context = plan->context;
    heed_device_t device = plan->info.device;
    bool on_cpu = device.type == HEED_DEVICE_CPU;
    heed_stream_t stream = {device, NULL};
    const heed_stream_t *order = on_cpu ? NULL : &stream;
    void *workspace = NULL;
    heed_status_t status = HEED_OK;
    if (plan->workspace)
        status =
            hd_device_alloc(context, device, "a workspace", plan->workspace, order, &workspace);
    if (status == HEED_OK)
        status =
            heed_plan_execute(plan, buffers, plan->buffer_count, workspace, plan->workspace, order);
    heed_status_t after = hd_device_free(context, device, workspace, order);
    if (after == HEED_OK && status == HEED_OK && plan->placed)
        after = heed_stream_synchronize(context, &stream);
    return status != HEED_OK ? status : after;
}

heed_status_t hd_run_once(heed_context_t *context, const char *name, const void *desc)
{
    heed_plan_t *plan;
    void *buffers[HD_MAX_OPERANDS];
    HD_TRY(heed_plan_create(context, name, desc, &plan));
    for (int i = 0; i < plan->op->operand_count; i++) {
        const heed_tensor_t *tensor = hd_op_tensor_const(plan->op, desc, i);
        /* A descriptor of an older form may end before its last tensors. */
        buffers[i] = i < plan->buffer_count && tensor->ndim ? tensor->data : NULL;
    }
    heed_status_t status = execute_once(plan, buffers);
    heed_plan_destroy(plan);
    return status;
}
