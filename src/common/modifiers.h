/* What is done to a score between the product and the softmax, and what the softmax sums beside the
 * keys: softcap, bias, mask, ALiBi, sinks. One definition for every device and the reference. */
#ifndef HD_MODIFIERS_H
#define HD_MODIFIERS_H

#include "element.h"
#include "view.h"
#include "visibility.h"

#include <math.h>

typedef struct hd_modifiers {
    hd_view_t bias, mask; /* rows are queries, elements keys */
    hd_view_t slopes;     /* of ALiBi, by batch and head */
    hd_view_t sinks;      /* by head */
    float softcap;        /* 0: none */
    bool off_by_one;
} hd_modifiers_t;

/* Whether a score may become another, or a pair may be masked by an operand. */
HD_DEVICE static inline bool hd_modifies(const hd_modifiers_t *m)
{
    return m->softcap > 0 || m->bias.data || m->mask.data || m->slopes.data;
}

HD_DEVICE static inline bool hd_has_sinks(const hd_modifiers_t *m)
{
    return m->sinks.data || m->off_by_one;
}

HD_DEVICE static inline float hd_slope(const hd_modifiers_t *m, int64_t b, int64_t h)
{
    return m->slopes.data ? *(const float *)(const void *)hd_view_row(&m->slopes, b, 0, h) : 0;
}

/* What is added to the score of a pair, -inf where the pair is masked. */
HD_DEVICE static inline double hd_addend(const hd_modifiers_t *m, const hd_visibility_t *visible,
                                         int64_t b, int64_t h, int64_t i, int64_t j)
{
    double sum = 0;
    if (m->mask.data && !hd_view_row(&m->mask, b, i, h)[j * m->mask.elem])
        return -(double)INFINITY;
    if (m->bias.data)
        sum = (double)hd_element_load(m->bias.dtype,
                                      hd_view_row(&m->bias, b, i, h) + j * m->bias.elem);
    if (m->slopes.data)
        sum -= (double)hd_slope(m, b, h) * fabs((double)(i + visible->offset - j));
    return sum;
}

/* The score of a pair from scale * <q,k>; -inf where the pair is masked, whatever the score is. */
HD_DEVICE static inline double hd_score(const hd_modifiers_t *m, const hd_visibility_t *visible,
                                        int64_t b, int64_t h, int64_t i, int64_t j, double score)
{
    double addend = hd_addend(m, visible, b, h, i, j);
    if (addend == -(double)INFINITY)
        return addend;
    if (m->softcap > 0)
        score = (double)m->softcap * tanh(score / (double)m->softcap);
    return score + addend;
}

/* The logit that the softmax of a head sums beside its keys, -inf: none. */
HD_DEVICE static inline double hd_sink(const hd_modifiers_t *m, int64_t h)
{
    double sink = -(double)INFINITY;
    if (m->sinks.data)
        sink = (double)*(const float *)(const void *)hd_view_row(&m->sinks, 0, 0, h);
    if (!m->off_by_one)
        return sink;
    return sink > 0 ? sink + log1p(exp(-sink)) : log1p(exp(sink));
}

static inline hd_view_t hd_pair_view(const heed_tensor_t *tensor, void *data)
{
    hd_view_t view = {.data = (char *)data, .dtype = tensor->dtype};
    if (!tensor->ndim)
        return view;
    view.batch = hd_stride(tensor, 0);
    view.head = hd_stride(tensor, 1);
    view.row = hd_stride(tensor, 2);
    view.elem = hd_stride(tensor, 3);
    return view;
}

/* data: by operand, NULL for sizes alone; a dtype of 0 tells absence then as well. */
static inline hd_modifiers_t hd_modifiers(const heed_attention_desc_t *desc, void *const *data)
{
    hd_modifiers_t m = {.softcap = desc->softcap, .off_by_one = desc->off_by_one != 0};
    const heed_tensor_t *slopes = &desc->alibi_slopes;
    m.bias = hd_pair_view(&desc->bias, data ? data[HEED_ATTENTION_BIAS] : NULL);
    m.mask = hd_pair_view(&desc->mask, data ? data[HEED_ATTENTION_MASK] : NULL);
    if (!data)
        return m;
    m.slopes.data = (char *)data[HEED_ATTENTION_ALIBI_SLOPES];
    m.sinks.data = (char *)data[HEED_ATTENTION_SINKS];
    if (slopes->ndim) {
        m.slopes.batch = slopes->ndim > 1 ? hd_stride(slopes, 0) : 0;
        m.slopes.head = hd_stride(slopes, slopes->ndim - 1);
    }
    if (desc->sinks.ndim)
        m.sinks.head = hd_stride(&desc->sinks, 0);
    return m;
}

#endif
