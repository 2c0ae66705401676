#include "run.h"

#include <stdio.h>
#include <string.h>

enum { KEY_WORD = 0x2000 };

bool run_find_word(const char *op, const char *name, heed_op_word_t *word)
{
    for (int i = 0; heed_op_word(op, i, word); i++)
        if (strcmp(word->name, name) == 0)
            return true;
    return false;
}

static bool names_axis(const heed_op_operand_t *operand, const char *word)
{
    char axes[HEED_MAX_NDIM][RUN_NAME_SIZE];
    int ndim = run_split_axes(operand->shape, axes);
    for (int i = 0; i < ndim; i++)
        if (strcmp(axes[i], word) == 0)
            return true;
    return false;
}

/* Whether a file's tensors tell the word: an axis or the dtype of an input, or the presence of an
 * optional operand. */
static bool told_by_tensors(const char *op, const char *word)
{
    heed_op_operand_t operand;
    for (int i = 0; heed_op_operand(op, i, &operand); i++) {
        if (operand.optional == 1 && strcmp(operand.name, word) == 0)
            return true;
        if (!operand.output && (strcmp(operand.dtype, word) == 0 || names_axis(&operand, word)))
            return true;
    }
    return false;
}

/* A word named like the output whose dtype it is, such as out=f32, reads better as --out-dtype. */
static bool is_dtype_of_output(const char *op, const char *word)
{
    heed_op_operand_t operand;
    for (int i = 0; heed_op_operand(op, i, &operand); i++)
        if (operand.output && strcmp(operand.name, word) == 0 && strcmp(operand.dtype, word) == 0)
            return true;
    return false;
}

/* A form that is too long for the left column goes to the right. */
static void describe(run_flag_t *flag, bool long_form)
{
    const heed_op_word_t *word = &flag->word;
    char form[256] = "", fallback[64] = "";
    if (long_form)
        snprintf(form, sizeof form, ": %s", word->form);
    if (*word->fallback)
        snprintf(fallback, sizeof fallback, " (default: %s)", word->fallback);
    snprintf(flag->about, sizeof flag->about, "%s%s%s", word->about, form, fallback);
}

static void add_flag(run_words_t *words, const char *op, const heed_op_word_t *word, int *options)
{
    run_flag_t *flag = &words->flags[words->count];
    bool dtype = is_dtype_of_output(op, word->name), flip = strcmp(word->form, "0|1") == 0;
    bool long_form = strlen(word->form) > 24;
    flag->word = *word;
    snprintf(flag->name, sizeof flag->name, "%.20s%s", word->name, dtype ? "-dtype" : "");
    for (char *c = flag->name; *c; c++)
        *c = *c == '_' ? '-' : *c;
    describe(flag, long_form);
    words->options[(*options)++] = (struct argp_option){flag->name,
                                                        KEY_WORD + words->count,
                                                        long_form ? "TEXT" : word->form,
                                                        flip ? OPTION_ARG_OPTIONAL : 0,
                                                        flag->about,
                                                        0};
    if (dtype)
        words->options[(*options)++] =
            (struct argp_option){word->name, 0, NULL, OPTION_ALIAS, NULL, 0};
    words->count++;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    run_words_t *words = state->input;
    if (key < KEY_WORD || key >= KEY_WORD + words->count)
        return ARGP_ERR_UNKNOWN;
    words->flags[key - KEY_WORD].value = arg ? arg : "1";
    return 0;
}

void run_words_init(run_words_t *words, const char *op)
{
    int options = 0;
    heed_op_word_t word;
    memset(words, 0, sizeof *words);
    words->options[options++] = (struct argp_option){0, 0, 0, 0, "The operation:", 40};
    for (int i = 0; heed_op_word(op, i, &word) && words->count < RUN_MAX_WORDS; i++)
        if (!told_by_tensors(op, word.name))
            add_flag(words, op, &word, &options);
    words->argp.options = words->options;
    words->argp.parser = parse;
}

heed_status_t run_words_apply(const run_words_t *words, heed_problem_t *problem)
{
    for (int i = 0; i < words->count; i++) {
        const run_flag_t *flag = &words->flags[i];
        heed_status_t status =
            flag->value ? heed_problem_set(problem, flag->word.name, flag->value) : HEED_OK;
        if (status)
            return status;
    }
    return HEED_OK;
}
