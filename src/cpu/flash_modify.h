/* Modifiers of scores in flash attention: one pass over S^T of a step, between the products.
 *
 * A mask operand, and a bias of -inf, become bits of the step's masks, so that what they hide costs
 * and leaks as little as what causal masks hide. The rest of a bias is laid out by key and lane
 * while its bits are looked at, one block at a time; softcap and ALiBi are computed. Sinks are what
 * a row's softmax starts from. */
#ifndef HD_FLASH_MODIFY_H
#define HD_FLASH_MODIFY_H

#include "flash_softmax.h"
#include "modify.h"

#include "../common/attention.h"

/* What the modifiers are for the lanes of a task. */
typedef struct flash_modify {
    const hd_attention_t *a;
    hd_visibility_t visible; /* of the sequence */
    int64_t b;
    float k_factor;                    /* scale of the codes of K, where all have one */
    float *addend;                     /* [HD_BLOCK_KEYS][ROWS], log2 units; with a bias */
    float slope[ROWS], position[ROWS]; /* of ALiBi */
    float sink[ROWS];                  /* log2 units, -inf: none */
} flash_modify_t;

/* Whether bias or mask decide what is visible. */
static bool flash_masks_pairs(const hd_attention_t *a)
{
    return a->modifiers.bias.dtype || a->modifiers.mask.dtype;
}

static bool flash_has_bias(const hd_attention_t *a)
{
    return a->modifiers.bias.dtype != 0;
}

/* Factor from what the first product gives to scores in units of log2: with pairs, the scale. */
static vec_t raw_scale(const flash_modify_t *m)
{
    return vec_set1(FLASH_PAIRS ? fabsf(m->a->scale) * MODIFY_LOG2E * m->k_factor : 1.0f);
}

/* Lane x is query first + x % rows of head + x / rows. */
static void flash_modify_begin(flash_modify_t *m, int64_t head, int64_t first, int rows, int lanes)
{
    const hd_modifiers_t *of = &m->a->modifiers;
    for (int x = 0; x < ROWS; x++) {
        int64_t h = head + (x < lanes ? x / rows : 0), i = first + (x < lanes ? x % rows : 0);
        m->slope[x] = hd_slope(of, m->b, h) * MODIFY_LOG2E;
        m->position[x] = (float)(i + m->visible.offset);
        m->sink[x] = (float)(hd_sink(of, h) * 1.44269504088896340736);
    }
}

/* Bits of the queries that a lane's bias or mask lets see keys from `key` on. */
static void lane_masks(flash_modify_t *m, int64_t h, int64_t i, int64_t key, int count, int lane,
                       uint64_t *masks)
{
    const hd_modifiers_t *of = &m->a->modifiers;
    if (of->mask.data) {
        const char *at = hd_view_row(&of->mask, m->b, i, h) + key * of->mask.elem;
        for (int j = 0; j < count; j++)
            masks[j] &= ~((uint64_t)(at[j * of->mask.elem] == 0) << lane);
    }
    if (!of->bias.data)
        return;
    const char *at = hd_view_row(&of->bias, m->b, i, h) + key * of->bias.elem;
    for (int j = 0; j < count; j++) {
        float value = hd_element_load(of->bias.dtype, at + j * of->bias.elem);
        masks[j] &= ~((uint64_t)(value == -INFINITY) << lane);
        m->addend[j * ROWS + lane] = value * MODIFY_LOG2E;
    }
}

static void flash_modify_masks(flash_modify_t *m, int64_t head, int64_t first, int rows, int lanes,
                               int64_t key, int count, uint64_t *masks)
{
    for (int x = 0; x < lanes; x++)
        lane_masks(m, head + x / rows, first + x % rows, key, count, x, masks);
    for (int x = lanes; x < ROWS && m->addend; x++)
        for (int j = 0; j < count; j++)
            m->addend[j * ROWS + x] = 0;
}

/* Scores of the keys first .. end-1 of a step from `key` on, for `vectors` vectors of queries whose
 * first lane is `lane`; s and most are at the first of these vectors. masks may be NULL, and
 * k_scale, factors of the keys. */
HD_NOINLINE void flash_modify_scores(const flash_modify_t *m, int64_t key, int first, int end,
                                     int vectors, int lane, float *s, vec_t *most,
                                     const uint64_t *masks, const float *k_scale)
{
    const hd_modifiers_t *of = &m->a->modifiers;
    const vec_t scale = raw_scale(m);
    for (int r = 0; r < vectors; r++) {
        int at = lane + r * VEC_LANES;
        const vec_t slope = vec_load(m->slope + at), position = vec_load(m->position + at);
        vec_t top = vec_set1(-INFINITY);
        for (int j = first; j < end; j++) {
            float *to = s + j * LANES + r * VEC_LANES;
            vec_t x = vec_mul(vec_load(to), scale);
            if (k_scale)
                x = vec_mul(x, vec_set1(k_scale[j]));
            if (of->softcap > 0)
                x = soften(x, of->softcap);
            if (m->addend)
                x = vec_add(x, vec_load(m->addend + j * ROWS + at));
            if (of->slopes.data) {
                vec_t away = vec_sub(position, vec_set1((float)(key + j)));
                x = vec_sub(x, alibi(slope, away));
            }
            if (masks)
                x = vec_select((uint32_t)(masks[j] >> at), x, vec_set1(-INFINITY));
            vec_store(to, x);
            top = vec_max(x, top);
        }
        most[r] = vec_max(top, most[r]);
    }
}

#endif
