#include "kit.h"

/* SplitMix64: Steele, Lea, Flood (2014). */
uint64_t kit_random_next(kit_random_t *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* The remainder favours small values by less than 2^-40 for the ranges used here. */
int64_t kit_random_int(kit_random_t *random, int64_t low, int64_t high)
{
    uint64_t range = (uint64_t)high - (uint64_t)low + 1;
    uint64_t drawn = kit_random_next(random);
    return (int64_t)((uint64_t)low + (range ? drawn % range : drawn));
}

double kit_random_unit(kit_random_t *random)
{
    return (double)(kit_random_next(random) >> 11) * 0x1p-53;
}

/* Eight 16-bit uniforms summed: mean 0, variance 1, within +-4.9. Only integer sums and one exact
 * conversion, so that no mathematical library has a say in the inputs. */
double kit_random_normal(kit_random_t *random)
{
    int64_t sum = 0;
    for (int i = 0; i < 2; i++) {
        uint64_t drawn = kit_random_next(random);
        sum += (int64_t)((drawn & 0xffff) + (drawn >> 16 & 0xffff) + (drawn >> 32 & 0xffff) +
                         (drawn >> 48));
    }
    return (double)(sum - 4 * 65535) * (0x1p-16 * 1.2247448713915890); /* sqrt(12 / 8) */
}
