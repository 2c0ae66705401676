/* Weights and values of f32 cells, for the flash files without pairs. */
#ifndef HD_FLASH_WEIGHTS_H
#define HD_FLASH_WEIGHTS_H

#include "vec.h"

/* The weight of a score, which the packed queries have scaled already. */
HD_INLINE vec_t flash_weight(vec_t score, vec_t scale, vec_t low)
{
    (void)scale;
    return vec_exp2(vec_sub(score, low));
}

HD_INLINE void flash_store_weights(char *p, const vec_t *y)
{
    vec_store(p, y[0]);
}

HD_INLINE vec_t flash_load_weight(const char *p, int element)
{
    (void)element;
    return vec_load(p);
}

HD_INLINE vec_t flash_load_value(const char *v, int element)
{
    (void)element;
    return vec_broadcast(v);
}

#endif
