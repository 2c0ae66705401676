/* An operation: its operands, its words, and what is particular to it. One const hd_op_t each, in
 * op_NAME.c, named by HEED_OP(NAME) in impls.def. Everything that treats operations alike (plans,
 * problem strings, tools, checker, benchmark) reads these tables. */
#ifndef HD_OP_H
#define HD_OP_H

#include "internal.h"

enum { HD_MAX_OPERANDS = 16, HD_MAX_WORDS = 48 };

typedef struct hd_operand {
    heed_op_operand_t info;
    size_t offset; /* of the heed_tensor_t in the descriptor */
} hd_operand_t;

/* How a word's text reads and where its value lies in the operation's words struct. */
typedef enum hd_word_type {
    HD_WORD_INT,   /* int64_t, at least `low` */
    HD_WORD_BOOL,  /* int64_t, 0 or 1 */
    HD_WORD_FLOAT, /* double */
    HD_WORD_PAIR,  /* int64_t[2], each at least `low`, "L,R" */
    HD_WORD_DTYPE, /* int64_t holding a heed_dtype_t, one of those in `form` */
    HD_WORD_ENUM,  /* int64_t, position in `form` "a|b|c" */
    HD_WORD_TEXT   /* char[HD_WORD_TEXT_SIZE], checked by the operation */
} hd_word_type_t;

enum { HD_WORD_TEXT_SIZE = 320 };

typedef struct hd_word {
    heed_op_word_t info;
    hd_word_type_t type;
    size_t offset;
    int64_t low;
    bool always; /* printed even at its default */
} hd_word_t;

/* A row of a word table whose values lie in a struct words_t. */
#define HD_WORD(name, form, fallback, about, shape, type, field, low, always)             \
    {                                                                                     \
        {name, form, fallback, about, shape}, type, offsetof(words_t, field), low, always \
    }

typedef struct hd_work {
    double flops;
    double bytes;
} hd_work_t;

/* Storage for a descriptor made from words. `extra` belongs to the operation (tile lists), from
 * malloc, freed with the problem. */
typedef struct hd_storage {
    hd_axes_t axes[HD_MAX_OPERANDS];
    void *extra;
} hd_storage_t;

typedef struct hd_op {
    const char *name;
    size_t desc_size;
    size_t desc_smallest; /* size of the descriptor's first published form */
    size_t words_size;
    const hd_operand_t *operands;
    int operand_count;
    const hd_word_t *words;
    int word_count;
    const char *const *features; /* names by bit */
    int feature_count;

    /* Checks a descriptor whose tensors are complete one by one, and fills in defaults. */
    heed_status_t (*complete)(void *desc);
    /* Checks the operands' addresses (NULL where absent) before a plan runs; NULL: nothing to
     * check. */
    heed_status_t (*check)(const void *desc, void *const *buffers);
    /* The feature bits that a complete descriptor needs. */
    uint64_t (*needs)(const void *desc);
    /* Useful floating-point operations and bytes of a complete descriptor. */
    void (*work)(const void *desc, hd_work_t *work);
    /* Words -> descriptor (sizes only; data NULL). */
    heed_status_t (*from_words)(const void *words, void *desc, hd_storage_t *storage);
    /* Complete descriptor -> words. */
    void (*to_words)(const void *desc, void *words);
    /* What a complete descriptor points to beside tensors, for plans of a device: its bytes, 0 for
     * nothing, and a copy of it at `image`, with pointers as they are when the image lies at
     * address `at`. NULL: nothing ever. */
    size_t (*placed_bytes)(const void *desc);
    void (*place)(const void *desc, char *image, uintptr_t at);
} hd_op_t;

/* Operation by number (NULL past the end) and by name (NULL: none). registry.c */
const hd_op_t *hd_op_at(int index);
const hd_op_t *hd_op_find(const char *name);

/* Builtin implementation number `index`, NULL past the end. registry.c */
const heed_impl_t *hd_builtin_at(int index);

/* The lowest prediction that a builtin implementation has for a complete descriptor on a device,
 * NaN without one: for schedules that are made of such operations. select.c */
double hd_best_estimate(const hd_op_t *op, const void *desc, const heed_device_info_t *device,
                        int32_t threads);
heed_status_t hd_op_unknown(const char *name);

static inline heed_tensor_t *hd_op_tensor(const hd_op_t *op, void *desc, int index)
{
    return (heed_tensor_t *)((char *)desc + op->operands[index].offset);
}

static inline const heed_tensor_t *hd_op_tensor_const(const hd_op_t *op, const void *desc,
                                                      int index)
{
    return (const heed_tensor_t *)((const char *)desc + op->operands[index].offset);
}

/* Words at their defaults; text of words that differ from them. problem.c */
void hd_words_init(const hd_op_t *op, void *words);
void hd_words_print(const hd_op_t *op, const void *words, hd_text_t *text);

#endif
