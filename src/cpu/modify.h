/* Modifiers of scores, in vectors: what the flash and the decode kernels share. Include a vec_ISA.h
 * first. */
#ifndef HD_MODIFY_H
#define HD_MODIFY_H

#include "../common/modifiers.h"

#define MODIFY_LOG2E 1.44269504088896340736f

/* cap tanh(s / cap) of scores in units of log2: tanh x = 1 - 2 / (exp(2x) + 1). NaN stays. */
HD_INLINE vec_t soften(vec_t s, float cap)
{
    const vec_t most = vec_set1(-64);
    vec_t t = vec_mul(s, vec_set1(-2 / cap)); /* -2x log2(e), so that max is a minimum */
    vec_t e = vec_exp2(vec_sub(vec_zero(), vec_max(most, t)));
    vec_t tail = vec_div(vec_set1(2), vec_add(e, vec_set1(1)));
    return vec_mul(vec_set1(cap * MODIFY_LOG2E), vec_sub(vec_set1(1), tail));
}

/* What ALiBi takes from scores in units of log2, of keys that lie so far from their queries. */
HD_INLINE vec_t alibi(vec_t slope, vec_t away)
{
    return vec_mul(slope, vec_max(away, vec_sub(vec_zero(), away)));
}

#endif
