/* Inside multi-head dilated attention: a descriptor checked and copied. */
#ifndef HD_MULTIHEAD_H
#define HD_MULTIHEAD_H

#include "internal.h"

#include <heed/multihead.h>

typedef struct hd_multihead {
    heed_multihead_config_t config;
    /* Tensors complete: shapes and strides are in axes, and what is absent has no axes. */
    heed_tensor_t tensors[HEED_MULTIHEAD_OPERANDS];
    hd_axes_t axes[HEED_MULTIHEAD_OPERANDS];
    int64_t batch, tokens, embed, keys;
    int64_t step; /* batch entries at a time */
} hd_multihead_t;

/* The names of operands, as in sentences. */
extern const char *const hd_multihead_names[HEED_MULTIHEAD_OPERANDS];

/* Checks the configuration and the parameters, with data: for a call that reads or (output) writes
 * theirs. */
heed_status_t hd_multihead_parameters(const heed_multihead_desc_t *desc, bool data, bool output,
                                      hd_multihead_t *to);

/* The same of query, key, value and out. */
heed_status_t hd_multihead_tokens(const heed_multihead_desc_t *desc, bool data, hd_multihead_t *to);

/* The descriptor's tensor of an operand. */
const heed_tensor_t *hd_multihead_tensor(const heed_multihead_desc_t *desc, int operand);

#endif
