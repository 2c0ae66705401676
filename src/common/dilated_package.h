/* The modes of dilated attention that are not one softmax, but what a package makes of its
 * branches. For plans of cpu:improved. */
#ifndef HD_DILATED_PACKAGE_H
#define HD_DILATED_PACKAGE_H

#include "op.h"

static inline bool hd_dilated_is_package(const heed_dilated_desc_t *desc)
{
    return desc->mode == HEED_DILATED_TORCHSCALE || desc->mode == HEED_DILATED_GROUPED_FKODOM;
}

heed_status_t hd_package_prepare(heed_context_t *context, const void *desc, void **state,
                                 size_t *workspace);
void hd_package_release(heed_context_t *context, void *state);
heed_status_t hd_package_run(const heed_launch_t *launch);

#endif
