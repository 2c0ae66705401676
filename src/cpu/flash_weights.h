/* Weights and values of f32 cells, for the flash files without pairs. */
#ifndef HD_FLASH_WEIGHTS_H
#define HD_FLASH_WEIGHTS_H

#include "vec.h"

/* A score less the reference. The packed queries have scaled it already. */
HD_INLINE vec_t flash_relative(vec_t score, vec_t scale, vec_t low)
{
    (void)scale;
    return vec_sub(score, low);
}

HD_INLINE void flash_exp2(vec_t *t, const int count)
{
    vec_exp2_all(t, count);
}

HD_INLINE void flash_store_weights(char *p, vec_t weight, vec_t same)
{
    (void)same;
    vec_store(p, weight);
}

/* Queries are scaled, sign and all, when they are packed. */
HD_INLINE vec_t flash_sign(vec_t cells, bool negative)
{
    (void)negative;
    return cells;
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
