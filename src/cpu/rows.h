/* Rows of any dtype and stride, to f32 and back. Include a vec_ISA.h first. */
#ifndef HD_ROWS_H
#define HD_ROWS_H

#include "flash_codes.h"

#include "../common/attention.h"

#include <math.h>

/* A row of n elements as f32. */
HD_INLINE void row_to_f32(const hd_view_t *view, const char *row, int n, float *to)
{
    int c = 0;
    if (hd_view_is_plain(view, HEED_F32)) {
        memcpy(to, row, (size_t)n * sizeof(float));
        return;
    }
    if (hd_view_is_plain(view, HEED_BF16))
        for (; c + VEC_LANES <= n; c += VEC_LANES)
            vec_store(to + c, vec_load_bf16((const uint16_t *)(const void *)row + c));
    if (hd_view_is_plain(view, HEED_F16))
        for (; c + VEC_LANES <= n; c += VEC_LANES)
            vec_store(to + c, vec_load_f16((const uint16_t *)(const void *)row + c));
    const float *codes = flash_codes(view->dtype);
    for (; codes && c < n; c++)
        to[c] = codes[*(const uint8_t *)(row + c * view->elem)];
    for (; c < n; c++)
        to[c] = hd_code_load(view->dtype, row + c * view->elem);
}

/* A row of n f32 to the caller's dtype. */
HD_INLINE void row_from_f32(const hd_view_t *view, const float *from, int n, char *row)
{
    int c = 0;
    if (hd_view_is_plain(view, HEED_F32)) {
        memcpy(row, from, (size_t)n * sizeof(float));
        return;
    }
    if (hd_view_is_plain(view, HEED_BF16))
        for (; c + VEC_LANES <= n; c += VEC_LANES)
            vec_store_bf16((uint16_t *)(void *)row + c, vec_load(from + c));
    if (hd_view_is_plain(view, HEED_F16))
        for (; c + VEC_LANES <= n; c += VEC_LANES)
            vec_store_f16((uint16_t *)(void *)row + c, vec_load(from + c));
    for (; c < n; c++)
        hd_element_store(view->dtype, row + c * view->elem, from[c]);
}

#endif
