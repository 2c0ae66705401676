/* What the words of attention stand for: layouts, types of outputs and of caches. */
#ifndef HD_ATTENTION_WORDS_H
#define HD_ATTENTION_WORDS_H

#include "op_attention.h"

typedef hd_attention_words_t words_t;

/* Strides of axes (b, s, h, d) for a layout whose row of heads holds `heads` heads. */
static inline void hd_layout_strides(int64_t layout, const int64_t *shape, int64_t heads,
                                     int64_t *strides)
{
    int64_t s = hd_max(shape[1], 1), h = hd_max(shape[2], 1), d = shape[3];
    if (layout == HD_BHSD) {
        strides[0] = h * s * d;
        strides[1] = d;
        strides[2] = s * d;
    } else {
        strides[0] = s * heads * d;
        strides[1] = heads * d;
        strides[2] = d;
    }
    strides[3] = 1;
}

/* Those of the word `out`, in its order. */
static const heed_dtype_t hd_outputs[] = {0, HEED_F32, HEED_BF16, HEED_F16};

static inline heed_dtype_t hd_output_of(int64_t word, heed_dtype_t dtype)
{
    return word ? hd_outputs[word] : hd_usual_output(dtype);
}

static inline int64_t hd_word_of_output(heed_dtype_t out, heed_dtype_t dtype)
{
    int64_t word = 0;
    while (hd_output_of(word, dtype) != out && word + 1 < HD_COUNT(hd_outputs))
        word++;
    return word;
}

/* Those of the words `k-dtype` and `v-dtype`, in their order. */
static const heed_dtype_t hd_stored[] = {0,         HEED_F32,  HEED_BF16, HEED_F16,
                                         HEED_E4M3, HEED_E5M2, HEED_I8};

static inline heed_dtype_t hd_stored_of(int64_t word, heed_dtype_t dtype)
{
    return word ? hd_stored[word] : dtype;
}

static inline int64_t hd_word_of_stored(heed_dtype_t has, heed_dtype_t dtype)
{
    int64_t word = 0;
    while (hd_stored_of(word, dtype) != has && word + 1 < HD_COUNT(hd_stored))
        word++;
    return word;
}

#endif
