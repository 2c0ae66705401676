/* The parts of `heed run`: flags made from an operation's words, tensors of a file bound to its
 * operands, and the comparison with results known before. None knows any operation by name. */
#ifndef TOOLS_RUN_H
#define TOOLS_RUN_H

#include "safetensors.h"

#include <argp.h>

enum { RUN_MAX_OPERANDS = 16, RUN_MAX_WORDS = 48, RUN_NAME_SIZE = 32 };

/* ---- words as flags (run_words.c) ------------------------------------------------------------ */

typedef struct run_flag {
    heed_op_word_t word;
    char name[RUN_NAME_SIZE]; /* "causal-align" of the word causal_align */
    char about[512];
    const char *value; /* as given, NULL: not given */
} run_flag_t;

typedef struct run_words {
    run_flag_t flags[RUN_MAX_WORDS];
    int count;
    struct argp_option options[2 * RUN_MAX_WORDS + 2];
    struct argp argp; /* a child whose input is this struct */
} run_words_t;

/* A flag for each word that the tensors of a file do not tell. */
void run_words_init(run_words_t *words, const char *op);

/* Sets the words whose flags were given; the status of the first that the library refuses. */
heed_status_t run_words_apply(const run_words_t *words, heed_problem_t *problem);

/* Finds word `name` of `op`. */
bool run_find_word(const char *op, const char *name, heed_op_word_t *word);

/* ---- operands and tensors (run_bind.c) ------------------------------------------------------- */

typedef struct run_operand {
    heed_op_operand_t info;
    char axes[HEED_MAX_NDIM][RUN_NAME_SIZE]; /* words of the logical axes */
    int ndim;
    int order[HEED_MAX_NDIM]; /* the logical axis of each axis in a file */
    int64_t shape[HEED_MAX_NDIM];
    int64_t axis[HEED_MAX_NDIM], strides[HEED_MAX_NDIM]; /* logical; of tensors bound as they are */
    const st_tensor_t *input;                            /* in the input file; NULL: not there */
    st_tensor_t file; /* an output as it is written; dtype NULL: absent */
} run_operand_t;

typedef struct run {
    const char *op;
    const run_words_t *words;
    const st_file_t *input;
    bool ignore_extra;
    bool packed; /* tensors lack the axis of the batch, and so do the outputs */
    heed_problem_t *problem;
    void *desc; /* valid until the problem changes */
    run_operand_t operands[RUN_MAX_OPERANDS];
    int count;
} run_t;

/* From op, words, input and ignore_extra to problem, desc and operands. Returns an exit code; the
 * sentence is then on stderr. The problem is the caller's to destroy, also after an error. */
int run_bind(run_t *run);

/* The same where the file has operands whose shapes no word tells, such as lengths and page tables:
 * its tensors become those of the descriptor as they are, and the library judges them together.
 * (run_direct.c) */
bool run_is_direct(const run_t *run);
int run_bind_direct(run_t *run);

/* Shape and type of an output in the file; whether the state of that name in the input file fits.
 */
int run_place_output(const run_t *run, run_operand_t *operand, const heed_tensor_t *tensor);
int run_check_state(const run_t *run, run_operand_t *operand);

/* Writes the words of an operand's axes in a file's order, "b,hq,sq,d", and splits such a list. */
int run_split_axes(const char *shape, char axes[HEED_MAX_NDIM][RUN_NAME_SIZE]);

/* ---- results known before (run_golden.c) ----------------------------------------------------- */

/* Compares outputs with the tensors of the same names in the file and prints the errors. Fails if
 * the file has none of them, if shapes differ, or where tolerance is >= 0 and an error above it. */
int run_golden(const char *path, const st_tensor_t *outputs, int count, double tolerance);

#endif
