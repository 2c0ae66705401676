#include "backend.h"
#include "op.h"

#include <stdio.h>
#include <string.h>

/* ---- the builtin list ------------------------------------------------------------------------ */

#define HEED_OP(name)         extern const hd_op_t hd_op_##name;
#define HEED_IMPL(op, symbol) extern const heed_impl_t hd_impl_##symbol;
#include "impls.def"
#undef HEED_OP
#undef HEED_IMPL

static const hd_op_t *const ops[] = {
#define HEED_OP(name) &hd_op_##name,
#define HEED_IMPL(op, symbol)
#include "impls.def"
#undef HEED_OP
#undef HEED_IMPL
};

static const heed_impl_t *const builtin_impls[] = {
#define HEED_OP(name)
#define HEED_IMPL(op, symbol) &hd_impl_##symbol,
#include "impls.def"
#undef HEED_OP
#undef HEED_IMPL
};

const hd_op_t *hd_op_at(int index)
{
    return index >= 0 && index < HD_COUNT(ops) ? ops[index] : NULL;
}

const heed_impl_t *hd_builtin_at(int index)
{
    return index >= 0 && index < HD_COUNT(builtin_impls) ? builtin_impls[index] : NULL;
}

const hd_op_t *hd_op_find(const char *name)
{
    for (int i = 0; i < HD_COUNT(ops); i++)
        if (strcmp(ops[i]->name, name) == 0)
            return ops[i];
    return NULL;
}

heed_status_t hd_op_unknown(const char *name)
{
    char known[256];
    hd_text_t text = hd_text(known, sizeof(known));
    for (int i = 0; i < HD_COUNT(ops); i++)
        hd_text_add(&text, "%s%s", i ? ", " : "", ops[i]->name);
    return hd_fail(HEED_ERROR_UNKNOWN_IMPL, "operation '%.64s' is unknown: there are %s", name,
                   known);
}

const heed_impl_t *heed_impl_at(const heed_context_t *context, int index)
{
    if (!context || index < 0)
        return NULL;
    if (index < context->user_impl_count)
        return context->user_impls[index];
    index -= context->user_impl_count;
    if (index < HD_COUNT(builtin_impls))
        return builtin_impls[index];
    index -= HD_COUNT(builtin_impls);
    const hd_backend_t *backend = context->backend;
    return backend && index < backend->impl_count ? backend->impls[index] : NULL;
}

/* ---- registering ----------------------------------------------------------------------------- */

static bool is_word(const char *at, const char *end)
{
    for (const char *c = at; c < end; c++)
        if (!(*c >= 'a' && *c <= 'z') && !(*c >= '0' && *c <= '9') && *c != '_')
            return false;
    return end > at;
}

/* <device>:<method>[_<isa>] in lower case, the device being the implementation's. */
static bool name_is_good(const heed_impl_t *impl)
{
    const char *device = impl->device_type == HEED_DEVICE_CPU    ? "cpu:"
                         : impl->device_type == HEED_DEVICE_CUDA ? "cuda:"
                                                                 : NULL;
    size_t length = strlen(impl->name);
    return device && length < 64 && strncmp(impl->name, device, strlen(device)) == 0 &&
           is_word(impl->name + strlen(device), impl->name + length);
}

#define ISA_BIT(name, bit, text, about) | UINT64_C(1) << bit
static const uint64_t known_isa = 0 HEED_ISA_LIST(ISA_BIT);

static heed_status_t check_impl(const heed_context_t *context, const heed_impl_t *impl)
{
    if (!impl->op || !impl->name || !impl->run)
        return hd_fail(HEED_ERROR_NULL, "impl.%s is null",
                       !impl->op     ? "op"
                       : !impl->name ? "name"
                                     : "run");
    if (!impl->prepare != !impl->release)
        return hd_fail(HEED_ERROR_NULL, "impl.%s is null: prepare and release come together",
                       impl->prepare ? "release" : "prepare");
    const hd_op_t *op = hd_op_find(impl->op);
    if (!op)
        return hd_op_unknown(impl->op);
    if (!name_is_good(impl))
        return hd_fail(HEED_ERROR_VALUE,
                       "impl.name='%.80s' is not <device>:<method>[_<isa>] in lower case, with the "
                       "device of device_type=%d",
                       impl->name, impl->device_type);
    if (impl->features >> op->feature_count)
        return hd_fail(HEED_ERROR_VALUE, "impl.features=0x%llx: %s has %d feature bits",
                       (unsigned long long)impl->features, op->name, op->feature_count);
    if (impl->required_isa & ~known_isa)
        return hd_fail(HEED_ERROR_VALUE, "impl.required_isa=0x%llx: the known bits are 0x%llx",
                       (unsigned long long)impl->required_isa, (unsigned long long)known_isa);
    const heed_impl_t *other;
    for (int i = 0; (other = heed_impl_at(context, i)); i++)
        if (strcmp(other->op, impl->op) == 0 && strcmp(other->name, impl->name) == 0)
            return hd_fail(HEED_ERROR_NAME_TAKEN, "impl.name='%s' exists for %s", impl->name,
                           impl->op);
    return HEED_OK;
}

/* A copy with its strings behind it, in one block. */
static heed_impl_t *copy_impl(const heed_context_t *context, const heed_impl_t *impl)
{
    const char *about = impl->about ? impl->about : "";
    size_t name = strlen(impl->name) + 1, text = strlen(about) + 1;
    heed_impl_t *copy = hd_alloc(context, sizeof(*copy) + name + text);
    if (!copy)
        return NULL;
    char *strings = (char *)(copy + 1);
    *copy = *impl;
    copy->op = hd_op_find(impl->op)->name;
    copy->name = memcpy(strings, impl->name, name);
    copy->about = memcpy(strings + name, about, text);
    return copy;
}

heed_status_t heed_register_impl(heed_context_t *context, const heed_impl_t *impl)
{
    heed_impl_t full;
    if (!context)
        return hd_fail(HEED_ERROR_NULL, "context is null");
    HD_TRY(hd_struct_copy(&full, sizeof(full), impl, offsetof(heed_impl_t, prepare), "impl"));
    HD_TRY(check_impl(context, &full));

    int count = context->user_impl_count;
    heed_impl_t **list = hd_alloc(context, sizeof(*list) * (size_t)(count + 1));
    heed_impl_t *copy = list ? copy_impl(context, &full) : NULL;
    if (!copy) {
        hd_free(context, list);
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for implementation %s", full.name);
    }
    if (count)
        memcpy(list, context->user_impls, sizeof(*list) * (size_t)count);
    list[count] = copy;
    hd_free(context, context->user_impls);
    context->user_impls = list;
    context->user_impl_count = count + 1;
    return HEED_OK;
}

/* ---- lists of patterns ----------------------------------------------------------------------- */

/* One item, "pattern" or "op=pattern", against one implementation. */
static bool item_matches(const char *item, const heed_impl_t *impl)
{
    const char *equals = strchr(item, '=');
    if (!equals)
        return hd_glob(item, impl->name);
    return strlen(impl->op) == (size_t)(equals - item) &&
           strncmp(item, impl->op, (size_t)(equals - item)) == 0 && hd_glob(equals + 1, impl->name);
}

static bool list_matches(const char *list, const heed_impl_t *impl)
{
    char item[128];
    while (hd_next_item(&list, ",", item, sizeof(item)))
        if (item_matches(item, impl))
            return true;
    return false;
}

/* A list restricts only those operations of which it names an implementation, so that
 * HEED_IMPL=cpu:flash_avx2 leaves casts alone. */
static bool list_concerns(const heed_context_t *context, const char *list, const char *op)
{
    const heed_impl_t *impl;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++)
        if (strcmp(impl->op, op) == 0 && list_matches(list, impl))
            return true;
    return false;
}

static heed_status_t check_item(const heed_context_t *context, const char *item, const char *which)
{
    char known[1024];
    const heed_impl_t *impl;
    const char *op = ""; /* is named once, for all that follow */
    hd_text_t text = hd_text(known, sizeof(known));
    for (int i = 0; (impl = heed_impl_at(context, i)); i++) {
        if (item_matches(item, impl))
            return HEED_OK;
        bool same = strcmp(op, impl->op) == 0;
        hd_text_add(&text, "%s%s%s%s", i ? ", " : "", same ? "" : impl->op, same ? "" : "=",
                    impl->name);
        op = impl->op;
    }
    return hd_fail(HEED_ERROR_UNKNOWN_IMPL, "%s: '%s' matches no implementation: there are %s",
                   which, item, known);
}

static heed_status_t check_list(const heed_context_t *context, const char *list, const char *which)
{
    char item[128];
    while (hd_next_item(&list, ",", item, sizeof(item)))
        HD_TRY(check_item(context, item, which));
    if (!list)
        return hd_fail(HEED_ERROR_UNKNOWN_IMPL, "%s: a pattern is longer than %zu characters",
                       which, sizeof(item) - 1);
    return HEED_OK;
}

heed_status_t hd_impl_lists_check(const heed_context_t *context)
{
    HD_TRY(check_list(context, context->settings.impl, "HEED_IMPL"));
    return check_list(context, context->settings.skip_impl, "HEED_SKIP_IMPL");
}

/* ---- who may run ----------------------------------------------------------------------------- */

bool hd_impl_allowed(const heed_context_t *context, const heed_impl_t *impl,
                     const heed_device_info_t *device, heed_why_t *why)
{
    const hd_settings_t *settings = &context->settings;
    char has[64], needs[64];
    if (impl->device_type != device->device.type)
        return hd_refuse(why, HEED_ERROR_NO_DEVICE, "runs on another device");
    if (impl->required_isa & ~device->isa_cpu)
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "needs %s: this CPU has %s",
                         heed_isa_names(impl->required_isa, needs, sizeof(needs)),
                         heed_isa_names(device->isa_cpu, has, sizeof(has)));
    if (impl->required_isa & ~device->isa)
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "needs %s: HEED_MAX_CPU_ISA leaves %s",
                         heed_isa_names(impl->required_isa, needs, sizeof(needs)),
                         heed_isa_names(device->isa, has, sizeof(has)));
    if (settings->impl[0] && list_concerns(context, settings->impl, impl->op) &&
        !list_matches(settings->impl, impl))
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "not in HEED_IMPL=%.100s", settings->impl);
    if (list_matches(settings->skip_impl, impl))
        return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "in HEED_SKIP_IMPL=%.100s",
                         settings->skip_impl);
    return true;
}

int heed_impl_usable(const heed_context_t *context, const heed_impl_t *impl, heed_why_t *why)
{
    if (!context || !impl)
        return hd_refuse(why, HEED_ERROR_NULL, "%s is null", context ? "impl" : "context");
    for (int i = 0; i < context->device_count; i++)
        if (context->devices[i].device.type == impl->device_type)
            return hd_impl_allowed(context, impl, &context->devices[i], why);
    return hd_refuse(why, HEED_ERROR_NO_DEVICE, "%s",
                     heed_device_missing(context, impl->device_type));
}
