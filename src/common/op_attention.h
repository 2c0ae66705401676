/* What the files of the operation `attention` share: op_attention.c holds its tables,
 * attention_check.c what a descriptor and its buffers must hold, attention_words.c and
 * attention_problem.c its words. */
#ifndef HD_OP_ATTENTION_H
#define HD_OP_ATTENTION_H

#include "op.h"

/* ---- words ----------------------------------------------------------------------------------- */

enum { HD_BSHD, HD_BHSD, HD_FUSED, HD_CUSTOM };                         /* layout */
enum { HD_RAGGED_NONE, HD_RAGGED_Q, HD_RAGGED_K, HD_RAGGED_QK };        /* ragged */
enum { HD_ALIBI_NONE, HD_ALIBI_HEAD, HD_ALIBI_BATCH };                  /* alibi */
enum { HD_SCALE_NONE, HD_SCALE_TENSOR, HD_SCALE_HEAD, HD_SCALE_TOKEN }; /* k-scale, v-scale */

typedef struct hd_attention_words {
    int64_t dtype, b, sq, sk, hq, hk, d, dv;
    int64_t causal, align, window[2], layout, out, lse, merge;
    int64_t alibi, sinks, off_by_one;
    int64_t ragged, lens, page, pages;
    int64_t k_dtype, v_dtype, k_scale, v_scale;
    int64_t split, invariant, unchecked, tiles_optional;
    double scale, softcap;
    char tiles[HD_WORD_TEXT_SIZE];
    char strides[HD_WORD_TEXT_SIZE];
    char bias[HD_WORD_TEXT_SIZE];
    char mask[HD_WORD_TEXT_SIZE];
} hd_attention_words_t;

/* The operands' table, in the order of the enum. */
extern const hd_operand_t hd_attention_operands[HEED_ATTENTION_OPERANDS];

static inline const char *hd_attention_name(int operand)
{
    return hd_attention_operands[operand].info.name;
}

/* The output type that goes without saying. */
static inline heed_dtype_t hd_usual_output(heed_dtype_t dtype)
{
    return dtype == HEED_E4M3 ? HEED_BF16 : dtype;
}

/* Sequences of a complete descriptor. */
static inline int64_t hd_sequences(const heed_attention_desc_t *desc)
{
    return desc->cu_seqlens_q.ndim ? desc->cu_seqlens_q.shape[0] - 1 : desc->q.shape[0];
}

/* Functions of hd_op_t. */
heed_status_t hd_attention_complete(void *desc);
heed_status_t hd_attention_check(const void *desc, void *const *buffers);
heed_status_t hd_attention_from_words(const void *words, void *desc, hd_storage_t *storage);
void hd_attention_to_words(const void *desc, void *words);

#endif
