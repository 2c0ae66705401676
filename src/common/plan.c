/* Making plans, and asking them. */
#include "plan.h"

#include "backend.h"

#include <stdio.h>
#include <string.h>

/* ---- making ---------------------------------------------------------------------------------- */

static heed_status_t complete_operands(heed_plan_t *plan, const void *desc)
{
    const hd_op_t *op = plan->op;
    const heed_tensor_t *first = hd_op_tensor_const(op, desc, 0);
    for (int i = 0; i < op->operand_count; i++) {
        const heed_op_operand_t *info = &op->operands[i].info;
        const heed_tensor_t *from = hd_op_tensor_const(op, desc, i);
        heed_tensor_t *to = hd_op_tensor(op, plan->desc, i);
        if (from->ndim == 0 && info->optional) {
            *to = heed_tensor(NULL, 0, 0, NULL, NULL);
            continue;
        }
        HD_TRY(hd_tensor_complete(info->name, from, info->output, to, &plan->axes[i]));
        if (from->device.type != first->device.type || from->device.id != first->device.id)
            return hd_fail(HEED_ERROR_VALUE, "%s is on device %d:%d, but %s on %d:%d", info->name,
                           from->device.type, from->device.id, op->operands[0].info.name,
                           first->device.type, first->device.id);
        plan->buffer_count = i + 1;
    }
    return HEED_OK;
}

/* Tensors run where they live; if another device was asked for, the policy decides. */
static heed_status_t choose_device(heed_plan_t *plan, const heed_device_info_t **device)
{
    const heed_context_t *context = plan->context;
    const hd_settings_t *settings = &context->settings;
    heed_device_t where = hd_op_tensor(plan->op, plan->desc, 0)->device;
    *device = hd_device_find(context, where);
    if (!*device) {
        const char *missing = heed_device_missing(context, where.type);
        return hd_fail(HEED_ERROR_NO_DEVICE, "the tensors are on device %d:%d: %s", where.type,
                       where.id,
                       missing                   ? missing
                       : context->backend_why[0] ? context->backend_why
                                                 : "there is none with that number");
    }
    plan->info.device = where;
    const heed_device_t wanted = settings->device;
    if (wanted.type == 0 || (wanted.type == where.type && (wanted.id < 0 || wanted.id == where.id)))
        return HEED_OK;
    const char *missing = heed_device_missing(context, wanted.type);
    const char *why = missing ? missing : "the tensors lie elsewhere";
    if (settings->fallback == HEED_FALLBACK_DENY)
        return hd_fail(HEED_ERROR_FALLBACK,
                       "HEED_DEVICE asks for device type %d and "
                       "HEED_FALLBACK=deny: %s",
                       wanted.type, why);
    plan->info.fallback = 1;
    snprintf(plan->info.fallback_why, sizeof(plan->info.fallback_why), "%s", why);
    return HEED_OK;
}

static void log_choice(const heed_plan_t *plan)
{
    const heed_context_t *context = plan->context;
    char problem[512];
    if (plan->info.fallback && context->settings.fallback == HEED_FALLBACK_WARN)
        hd_log(context, HEED_LOG_WARN,
               "heed v1 fallback op=%s from=%s to=%s policy=warn why=\"%s\"", plan->op->name,
               context->settings.device.type == HEED_DEVICE_CUDA ? "cuda" : "cpu", plan->impl->name,
               plan->info.fallback_why);
    if (!hd_logs(context, HEED_LOG_SELECT))
        return;
    heed_plan_problem(plan, problem, sizeof(problem));
    for (int i = 0; i < plan->verdict_count; i++) {
        const hd_verdict_t *verdict = &plan->verdicts[i];
        if (verdict->why.status)
            hd_log(context, HEED_LOG_SELECT, "heed v1 reject impl=%s code=%s why=\"%s\"",
                   verdict->impl->name, heed_status_name(verdict->why.status), verdict->why.text);
    }
    hd_log(context, HEED_LOG_SELECT, "heed v1 select impl=%s est_us=%.1f threads=%d prob: %s",
           plan->impl->name, plan->info.estimate_ns / 1e3, plan->info.threads, problem);
}

/* Copies what the descriptor points to, a tile list, to the plan's device, and waits for it: the
 * plan may be executed on any stream afterwards. */
static heed_status_t place(heed_plan_t *plan)
{
    heed_context_t *context = plan->context;
    heed_device_t device = plan->info.device, host = {HEED_DEVICE_CPU, 0};
    size_t bytes = device.type != HEED_DEVICE_CPU && plan->op->placed_bytes
                       ? plan->op->placed_bytes(plan->desc)
                       : 0;
    if (bytes == 0)
        return HEED_OK;
    char *image = hd_alloc(context, bytes);
    if (!image)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a copy of a tile list, %zu bytes",
                       bytes);
    heed_status_t status =
        hd_device_alloc(context, device, "a tile list", bytes, NULL, &plan->placed);
    if (status == HEED_OK) {
        plan->op->place(plan->desc, image, (uintptr_t)plan->placed);
        status = heed_memory_copy(context, plan->placed, device, image, host, bytes, NULL);
    }
    hd_free(context, image);
    plan->info.device_bytes = bytes;
    return status;
}

static heed_status_t finish(heed_plan_t *plan, const void *desc, const char *impl_name)
{
    const hd_op_t *op = plan->op;
    heed_context_t *context = plan->context;
    const heed_device_info_t *device;
    HD_TRY(complete_operands(plan, desc));
    HD_TRY(op->complete(plan->desc));
    HD_TRY(choose_device(plan, &device));
    HD_TRY(hd_impl_lists_check(context));
    int chosen = hd_select(context, op, device, plan->desc, impl_name, plan->verdicts);
    if (chosen < 0)
        return HEED_ERROR_UNSUPPORTED;

    const heed_impl_t *impl = plan->impl = plan->verdicts[chosen].impl;
    hd_work_t work = {0, 0};
    op->work(plan->desc, &work);
    size_t prepared = 0;
    if (impl->prepare)
        HD_TRY(impl->prepare(context, plan->desc, &plan->state, &prepared));
    plan->workspace = impl->workspace ? impl->workspace(plan->desc, device, device->threads) : 0;
    plan->workspace += prepared;
    heed_plan_info_t *info = &plan->info;
    info->struct_size = sizeof(*info);
    info->threads = device->threads;
    snprintf(info->op, sizeof(info->op), "%s", op->name);
    snprintf(info->impl, sizeof(info->impl), "%s", impl->name);
    info->estimate_ns = plan->verdicts[chosen].estimate_ns;
    info->flops = work.flops;
    info->bytes = work.bytes;
    info->workspace_bytes = plan->workspace;
    HD_TRY(place(plan));
    log_choice(plan);
    return HEED_OK;
}

/* One block: the plan, its verdicts, its descriptor and the axes of its tensors. */
static heed_plan_t *allocate(heed_context_t *context, const hd_op_t *op)
{
    int candidates = hd_candidates(context, op);
    size_t verdicts = hd_round_up(sizeof(heed_plan_t), 64);
    size_t desc = verdicts + hd_round_up(sizeof(hd_verdict_t) * (size_t)candidates, 64);
    size_t axes = desc + hd_round_up(op->desc_size, 64);
    size_t bytes = axes + sizeof(hd_axes_t) * (size_t)op->operand_count;
    char *block = hd_alloc(context, bytes);
    if (!block)
        return NULL;
    memset(block, 0, bytes);
    heed_plan_t *plan = (heed_plan_t *)(void *)block;
    plan->context = context;
    plan->op = op;
    plan->verdicts = (hd_verdict_t *)(void *)(block + verdicts);
    plan->verdict_count = candidates;
    plan->desc = block + desc;
    plan->axes = (hd_axes_t *)(void *)(block + axes);
    return plan;
}

/* Errors: UNKNOWN_IMPL, with the names there are. */
static heed_status_t check_name(const heed_context_t *context, const hd_op_t *op, const char *name)
{
    const heed_impl_t *impl;
    char known[512];
    hd_text_t text = hd_text(known, sizeof(known));
    for (int i = 0; (impl = heed_impl_at(context, i)); i++) {
        if (strcmp(impl->op, op->name) != 0)
            continue;
        if (hd_impl_is_named(impl, name))
            return HEED_OK;
        hd_text_add(&text, "%s%s", text.length ? ", " : "", impl->name);
    }
    return hd_fail(HEED_ERROR_UNKNOWN_IMPL, "%s has no implementation \"%s\": auto, %s", op->name,
                   name, known);
}

heed_status_t heed_plan_create(heed_context_t *context, const char *name, const void *desc,
                               heed_plan_t **plan)
{
    return heed_plan_create_named(context, name, NULL, desc, plan);
}

heed_status_t heed_plan_create_named(heed_context_t *context, const char *name,
                                     const char *impl_name, const void *desc, heed_plan_t **plan)
{
    if (!plan)
        return hd_fail(HEED_ERROR_NULL, "plan is null");
    *plan = NULL;
    if (!context || !name)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "op" : "context");
    const hd_op_t *op = hd_op_find(name);
    if (!op)
        return hd_op_unknown(name);
    HD_TRY(check_name(context, op, impl_name));

    heed_plan_t *made = allocate(context, op);
    if (!made)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a plan");
    hd_context_retain(context);
    heed_status_t status =
        hd_struct_copy(made->desc, op->desc_size, desc, op->desc_smallest, "desc");
    if (status == HEED_OK) {
        /* Operands are completed from a second copy, for made->desc is what they are written to. */
        char copy[1024];
        _Static_assert(sizeof(heed_attention_desc_t) <= sizeof(copy), "room for any descriptor");
        _Static_assert(sizeof(heed_cast_desc_t) <= sizeof(copy), "room for any descriptor");
        _Static_assert(sizeof(heed_dilated_desc_t) <= sizeof(copy), "room for any descriptor");
        memcpy(copy, made->desc, op->desc_size);
        status = finish(made, copy, impl_name);
    }
    if (status != HEED_OK) {
        heed_plan_destroy(made);
        return status;
    }
    *plan = made;
    return HEED_OK;
}

void heed_plan_destroy(heed_plan_t *plan)
{
    if (!plan)
        return;
    heed_context_t *context = plan->context;
    if (plan->state)
        plan->impl->release(context, plan->state);
    (void)hd_device_free(context, plan->info.device, plan->placed, NULL);
    hd_free(context, plan);
    heed_context_destroy(context);
}

/* ---- asking ---------------------------------------------------------------------------------- */

heed_status_t heed_plan_workspace(const heed_plan_t *plan, size_t *bytes, size_t *alignment)
{
    if (!plan || !bytes || !alignment)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !plan    ? "plan"
                       : !bytes ? "bytes"
                                : "alignment");
    *bytes = plan->workspace;
    *alignment = HD_WORKSPACE_ALIGN;
    return HEED_OK;
}

heed_status_t heed_plan_info(const heed_plan_t *plan, heed_plan_info_t *info)
{
    if (!plan || !info)
        return hd_fail(HEED_ERROR_NULL, "%s is null", plan ? "info" : "plan");
    size_t smallest = offsetof(heed_plan_info_t, device_bytes);
    if (info->struct_size < smallest)
        return hd_fail(HEED_ERROR_STRUCT_SIZE, "info.struct_size=%u, the smallest known is %zu",
                       info->struct_size, smallest);
    size_t size = info->struct_size < sizeof(*info) ? info->struct_size : sizeof(*info);
    memcpy(info, &plan->info, size);
    info->struct_size = (uint32_t)size;
    return HEED_OK;
}

int heed_plan_verdict(const heed_plan_t *plan, int index, heed_verdict_t *verdict)
{
    if (!plan || !verdict || index < 0 || index >= plan->verdict_count)
        return 0;
    const hd_verdict_t *from = &plan->verdicts[index];
    *verdict = (heed_verdict_t){.impl = from->impl->name,
                                .chosen = from->impl == plan->impl,
                                .status = from->why.status,
                                .why = from->why.text,
                                .estimate_ns = from->estimate_ns};
    return 1;
}

size_t heed_plan_problem(const heed_plan_t *plan, char *text, size_t size)
{
    _Alignas(64) char words[HD_MAX_WORDS * HD_WORD_TEXT_SIZE];
    hd_text_t out = hd_text(text, size);
    if (!plan)
        return 0;
    hd_words_init(plan->op, words);
    plan->op->to_words(plan->desc, words);
    hd_words_print(plan->op, words, &out);
    return out.length;
}
