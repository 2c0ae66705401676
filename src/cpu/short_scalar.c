/* cpu:short_scalar, attention over few keys in portable C. The algorithm is told in short_body.h.
 */
#include "tiles_scalar.h"

#include "short_body.h"

const heed_impl_t hd_impl_short_scalar = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cpu:short_scalar",
    .about = "few keys, all scores at once; portable C",
    .device_type = HEED_DEVICE_CPU,
    .features = SHORT_FEATURES,
    .supports = short_supports,
    .estimate = short_estimate,
    .workspace = short_workspace,
    .run = short_run,
};
