/* What schedules of dilated attention are predicted to take: the predictions of the attentions that
 * they are made of. */
#ifndef HD_DILATED_COST_H
#define HD_DILATED_COST_H

#include "dilated.h"

/* Nanoseconds of all branches as attentions on strided views; with ranks of this rank's share. */
double hd_dilated_ns(const heed_dilated_desc_t *desc, const heed_device_info_t *device,
                     int32_t threads);

/* The same of one branch as an attention of whole tiles, of which its lattice leaves masks. */
double hd_dilated_tiles_ns(const heed_dilated_desc_t *desc, int branch,
                           const heed_device_info_t *device, int32_t threads);

/* To begin a step, and to clear and copy a state of f32. */
double hd_dilated_start_ns(const heed_device_info_t *device, int32_t threads);
double hd_dilated_state_ns(const heed_dilated_desc_t *desc, const heed_device_info_t *device,
                           int32_t threads);

/* Steps of all branches and offsets in a part with as many whole segments as you like. */
double hd_dilated_step_count(const heed_dilated_desc_t *desc);

#endif
