#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int hd_candidates(const heed_context_t *context, const hd_op_t *op)
{
    const heed_impl_t *impl;
    int count = 0;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++)
        count += strcmp(impl->op, op->name) == 0;
    return count;
}

/* Whether every feature that the problem needs is declared. */
static bool has_features(const hd_op_t *op, const heed_impl_t *impl, uint64_t needs,
                         heed_why_t *why)
{
    uint64_t lacks = needs & ~impl->features;
    if (!lacks)
        return true;
    char names[128];
    hd_text_t text = hd_text(names, sizeof(names));
    for (int i = 0; i < op->feature_count; i++)
        if (lacks >> i & 1)
            hd_text_add(&text, "%s%s", text.length ? ", " : "", op->features[i]);
    return hd_refuse(why, HEED_ERROR_UNSUPPORTED, "does not do: %s", names);
}

bool hd_impl_is_named(const heed_impl_t *impl, const char *name)
{
    const char *method = strchr(impl->name, ':');
    return !name || strcmp(name, "auto") == 0 || hd_glob(name, impl->name) ||
           (method && hd_glob(name, method + 1));
}

static bool judge(const heed_context_t *context, const hd_op_t *op, const heed_impl_t *impl,
                  const heed_device_info_t *device, const void *desc, const char *name,
                  hd_verdict_t *verdict)
{
    if (!hd_impl_is_named(impl, name))
        return hd_refuse(&verdict->why, HEED_ERROR_UNSUPPORTED, "not asked for: \"%s\" was", name);
    if (!hd_impl_allowed(context, impl, device, &verdict->why))
        return false;
    if (!has_features(op, impl, op->needs(desc), &verdict->why))
        return false;
    if (impl->supports && !impl->supports(desc, device, &verdict->why)) {
        if (verdict->why.status == HEED_OK)
            hd_refuse(&verdict->why, HEED_ERROR_UNSUPPORTED, "refused without a reason");
        return false;
    }
    if (impl->estimate)
        verdict->estimate_ns = impl->estimate(desc, device, device->threads);
    return true;
}

/* Known and lower; the order of the list decides between equals. */
static bool is_better(double estimate, double best)
{
    return isnan(best) ? !isnan(estimate) : estimate < best;
}

double hd_best_estimate(const hd_op_t *op, const void *desc, const heed_device_info_t *device,
                        int32_t threads)
{
    const heed_impl_t *impl;
    uint64_t needs = op->needs(desc);
    double best = NAN;
    for (int i = 0; (impl = hd_builtin_at(i)); i++) {
        if (strcmp(impl->op, op->name) != 0 || impl->device_type != device->device.type ||
            (impl->required_isa & ~device->isa) || (needs & ~impl->features) || !impl->estimate ||
            (impl->supports && !impl->supports(desc, device, NULL)))
            continue;
        double ns = impl->estimate(desc, device, threads);
        best = is_better(ns, best) ? ns : best;
    }
    return best;
}

int hd_select(const heed_context_t *context, const hd_op_t *op, const heed_device_info_t *device,
              const void *desc, const char *name, hd_verdict_t *verdicts)
{
    const heed_impl_t *impl;
    int count = 0, best = -1;
    for (int i = 0; (impl = heed_impl_at(context, i)); i++) {
        if (strcmp(impl->op, op->name) != 0)
            continue;
        hd_verdict_t *verdict = &verdicts[count];
        *verdict = (hd_verdict_t){.impl = impl, .estimate_ns = NAN};
        if (judge(context, op, impl, device, desc, name, verdict) &&
            (best < 0 || is_better(verdict->estimate_ns, verdicts[best].estimate_ns)))
            best = count;
        count++;
    }
    if (best >= 0)
        return best;

    char reasons[1600];
    hd_text_t text = hd_text(reasons, sizeof(reasons));
    for (int i = 0; i < count; i++)
        hd_text_add(&text, "%s%s: %s", i ? "; " : "", verdicts[i].impl->name, verdicts[i].why.text);
    hd_fail(HEED_ERROR_UNSUPPORTED, "no implementation takes this %s: %s", op->name, reasons);
    return -1;
}
