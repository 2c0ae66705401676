/* Sums over pairs of f32 numbers in float64, in vectors of what this file's includer is compiled
 * for: compilers do not make them by themselves. */
#ifndef HD_SUMS_H
#define HD_SUMS_H

#include "base.h"

#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#define HD_SUMS_BYTES 64
#elif defined(__AVX__)
#define HD_SUMS_BYTES 32
#else
#define HD_SUMS_BYTES 16
#endif

/* Pairs that are taken at a time: two vectors. */
enum { HD_SUMS_LANES = HD_SUMS_BYTES / 8, HD_SUMS_STEP = 2 * HD_SUMS_LANES };

typedef double hd_doubles_t __attribute__((vector_size(HD_SUMS_BYTES)));
typedef int64_t hd_masks_t __attribute__((vector_size(HD_SUMS_BYTES)));
typedef float hd_floats_t __attribute__((vector_size(HD_SUMS_BYTES / 2)));

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
            const hd_doubles_t a = __builtin_convertvector(from, hd_doubles_t);
            const hd_doubles_t b = __builtin_convertvector(to, hd_doubles_t);
            const hd_doubles_t square = (a - b) * (a - b);
            const hd_masks_t above = square > most[k];
            most[k] = (hd_doubles_t)(((hd_masks_t)square & above) | ((hd_masks_t)most[k] & ~above));
            error[k] += square;
            reference[k] += a * a;
            if (with_products) {
                value[k] += b * b;
                product[k] += a * b;
            }
        }
    for (int k = 0; k < HD_SUMS_STEP; k++) {
        const int v = k / HD_SUMS_LANES, lane = k % HD_SUMS_LANES;
        sums.reference += reference[v][lane];
        sums.value += value[v][lane];
        sums.product += product[v][lane];
        sums.error += error[v][lane];
        sums.worst = fmax(sums.worst, sqrt(most[v][lane]));
    }
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
