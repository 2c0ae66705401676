/* Heed: problems as text, for logs, benchmarks and bug reports.
 *
 *     attention dtype=bf16 b=1 sq=2048 sk=2048 hq=32 hk=8 d=128 dv=128 causal=1 window=-1,-1
 * layout=bshd
 *
 * The first word names the operation; the others are its words, key=value in any order. Words that
 * are left out take the default that heed_op_word tells. HEED_VERBOSE prints problems in this form,
 * and `heed bench`, `heed explain` and the checker read it. */
#ifndef HEED_PROBLEM_H
#define HEED_PROBLEM_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what operations there are --------------------------------------------------------------- */

/* Name of operation number `index` ("attention", "cast"), NULL past the end. */
HEED_API const char *heed_op_name(int index);

typedef struct heed_op_operand {
    const char *name;  /* "q" */
    const char *shape; /* words of its axes, "b,sq,hq,d"; "" where other words give them */
    const char *dtype; /* word of its dtype, "dtype" */
    int32_t output;    /* 1: written */
    int32_t optional;  /* 1: may be absent; it is there if the word of the same name is 1.
                          2: there where other words ask for it */
} heed_op_operand_t;

/* Operand `index` of `op` in the order of heed_plan_execute. Returns 0 past the end, 1 otherwise.
 */
HEED_API int heed_op_operand(const char *op, int index, heed_op_operand_t *operand);

typedef struct heed_op_word {
    const char *name;     /* "window" */
    const char *form;     /* "L,R", "0|1", "f32|bf16|f16", "N", "X", ... */
    const char *fallback; /* default value as text; "" where it follows from other words */
    const char *about;    /* one line */
    int32_t is_shape;     /* 1: an axis length or dtype, known from the tensors */
} heed_op_word_t;

/* Word `index` of `op`. Returns 0 past the end, 1 otherwise. */
HEED_API int heed_op_word(const char *op, int index, heed_op_word_t *word);

/* Name of feature bit `bit` of `op`, NULL where there is none. */
HEED_API const char *heed_op_feature(const char *op, int bit);

/* ---- one problem ----------------------------------------------------------------------------- */

typedef struct heed_problem heed_problem_t;

/* Reads a problem. Errors: NULL, SYNTAX (with the word and what it takes), UNKNOWN_IMPL (no such
 * operation), OUT_OF_MEMORY. One thread at a time per problem. */
HEED_API HEED_MUST_USE heed_status_t heed_problem_parse(const char *text, heed_problem_t **problem);

/* Changes one word. Errors: NULL, SYNTAX; the problem is then as it was. */
HEED_API HEED_MUST_USE heed_status_t heed_problem_set(heed_problem_t *problem, const char *word,
                                                      const char *value);

/* NULL is fine. */
HEED_API void heed_problem_destroy(heed_problem_t *problem);

HEED_API const char *heed_problem_op(const heed_problem_t *problem);

/* Writes the text with every word that differs from its default, and returns its full length
 * without the terminator; it is cut to size. */
HEED_API size_t heed_problem_text(const heed_problem_t *problem, char *text, size_t size);

/* The operation's descriptor for these words: tensors with shapes and strides and no data. Made new
 * by each call, valid until the next call on this problem; the caller may change it meanwhile.
 * Errors: NULL, VALUE, SHAPE, OUT_OF_MEMORY. */
HEED_API HEED_MUST_USE heed_status_t heed_problem_desc(heed_problem_t *problem, void **desc);

/* Operand `index` of such a descriptor, NULL past the end; ndim 0 where it is absent. */
HEED_API heed_tensor_t *heed_problem_tensor(heed_problem_t *problem, int index);

/* Elements from the first to the last that a tensor touches, strides counted; 0 for an empty one.
 */
HEED_API int64_t heed_tensor_span(const heed_tensor_t *tensor);

#ifdef __cplusplus
}
#endif
#endif
