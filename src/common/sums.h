/* Sums over pairs of f32 numbers in float64, by vectors of HD_SUMS_BYTES: compilers do not make
 * them by themselves. Who includes this for an instruction set says first how wide they are, how
 * half a vector of f32 becomes one of float64, and what the larger of two is, the second where one
 * is NaN.
 */
#ifndef HD_SUMS_H
#define HD_SUMS_H

#include "base.h"

#include <math.h>
#include <string.h>

#if !defined(HD_SUMS_BYTES)
#define HD_SUMS_BYTES        16
#define HD_SUMS_WIDEN(x)     __builtin_convertvector(x, hd_doubles_t)
#define HD_SUMS_LARGER(a, b) hd_larger(a, b)
#endif

/* Pairs that are taken at a time: two vectors. */
enum { HD_SUMS_LANES = HD_SUMS_BYTES / 8, HD_SUMS_STEP = 2 * HD_SUMS_LANES };

typedef double hd_doubles_t __attribute__((vector_size(HD_SUMS_BYTES)));
typedef float hd_floats_t __attribute__((vector_size(HD_SUMS_BYTES / 2)));

#if HD_SUMS_BYTES == 16
typedef int64_t hd_masks_t __attribute__((vector_size(16)));
static inline hd_doubles_t hd_larger(hd_doubles_t a, hd_doubles_t b)
{
    const hd_masks_t above = a > b;
    return (hd_doubles_t)(((hd_masks_t)a & above) | ((hd_masks_t)b & ~above));
}
#endif

typedef struct hd_sums {
    double reference, value, error, product; /* value and product only where they are asked for */
    double worst;
} hd_sums_t;

/* n is a multiple of HD_SUMS_STEP. The root of a square, both rounded, is the number itself, so
 * that squares are enough for the largest error: those of f32 numbers neither overflow nor vanish
 * in float64. */
static inline __attribute__((always_inline)) hd_sums_t hd_sum_up(const float *x, const float *y,
                                                                 int64_t n,
                                                                 const bool with_products)
{
    hd_doubles_t reference[2] = {{0}}, value[2] = {{0}}, product[2] = {{0}};
    hd_doubles_t error[2] = {{0}}, most[2] = {{0}};
    hd_sums_t sums = {0};
    for (int64_t i = 0; i < n; i += HD_SUMS_STEP)
        for (int k = 0; k < 2; k++) {
            hd_floats_t from, to;
            memcpy(&from, x + i + k * HD_SUMS_LANES, sizeof(from));
            memcpy(&to, y + i + k * HD_SUMS_LANES, sizeof(to));
            const hd_doubles_t a = (hd_doubles_t)HD_SUMS_WIDEN(from);
            const hd_doubles_t b = (hd_doubles_t)HD_SUMS_WIDEN(to);
            const hd_doubles_t square = (a - b) * (a - b);
            most[k] = (hd_doubles_t)HD_SUMS_LARGER(square, most[k]);
            error[k] += square;
            reference[k] += a * a;
            if (with_products) {
                value[k] += b * b;
                product[k] += a * b;
            }
        }
    reference[0] += reference[1], value[0] += value[1], product[0] += product[1];
    error[0] += error[1];
    most[0] = (hd_doubles_t)HD_SUMS_LARGER(most[0], most[1]);
    for (int lane = 0; lane < HD_SUMS_LANES; lane++) {
        sums.reference += reference[0][lane];
        sums.value += value[0][lane];
        sums.product += product[0][lane];
        sums.error += error[0][lane];
        sums.worst = most[0][lane] > sums.worst ? most[0][lane] : sums.worst;
    }
    sums.worst = sqrt(sums.worst);
    return sums;
}

/* Whether both are finite; where not, both are 0 from here on. */
static inline bool hd_sums_keep(float *x, float *y)
{
    if (isfinite(*x) && isfinite(*y))
        return true;
    *x = *y = 0;
    return false;
}

static inline void hd_sums_add(hd_sums_t *to, const hd_sums_t *part)
{
    to->reference += part->reference;
    to->value += part->value;
    to->product += part->product;
    to->error += part->error;
    to->worst = fmax(to->worst, part->worst);
}

#endif
