/* cpu:improved of dilated attention: a schedule over the attention operation. Each branch is
 * attention on strided views (a segment is a batch entry, every r-th row a row, heads of one offset
 * the heads), and branches are merged by lse, which is one softmax over their union.
 *
 * The first branch of rate 1 shows every row something, and is written plainly; without one, rows
 * begin as empty states. Where heads have one branch each, nothing is merged. Plans are made once
 * and shared by pieces of equal shape. What the packages make of branches instead, in modes of
 * their own, is in dilated_package.c. */
#include "dilated_cost.h"
#include "dilated_package.h"
#include "dilated_schedule.h"

static heed_status_t add_branch(hd_dilated_schedule_t *schedule, int branch, bool merge)
{
    hd_dilated_part_t all = hd_dilated_whole(schedule->desc, &schedule->state);
    return hd_dilated_branch(schedule->context, &schedule->steps, &all, branch, merge);
}

static heed_status_t add_branches(hd_dilated_schedule_t *schedule)
{
    return hd_dilated_all(schedule, add_branch);
}

static heed_status_t prepare(heed_context_t *context, const void *desc, void **state,
                             size_t *workspace)
{
    if (hd_dilated_is_package(desc))
        return hd_package_prepare(context, desc, state, workspace);
    return hd_dilated_prepare(context, desc, sizeof(hd_dilated_schedule_t), false, add_branches,
                              hd_dilated_release, state, workspace);
}

static void release(heed_context_t *context, void *state)
{
    hd_dilated_schedule_t *schedule = state; /* that of a package begins with one too */
    if (schedule && hd_dilated_is_package(schedule->desc))
        hd_package_release(context, state);
    else
        hd_dilated_release(context, state);
}

static heed_status_t run(const heed_launch_t *launch)
{
    return hd_dilated_is_package(launch->desc) ? hd_package_run(launch) : hd_dilated_run(launch);
}

static double estimate(const void *at, const heed_device_info_t *device, int32_t threads)
{
    return hd_dilated_ns(at, device, threads);
}

const heed_impl_t hd_impl_dilated_improved = {
    .struct_size = sizeof(heed_impl_t),
    .op = "dilated",
    .name = "cpu:improved",
    .about = "attention on strided views, branches merged by lse",
    .device_type = HEED_DEVICE_CPU,
    .features = HEED_DILATED_CAN_ALL & ~HEED_DILATED_CAN_RANKS,
    .estimate = estimate,
    .run = run,
    .prepare = prepare,
    .release = release,
};
