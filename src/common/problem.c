#include "op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A problem keeps its words; the descriptor is made from them when asked for. */
struct heed_problem {
    const hd_op_t *op;
    void *desc;
    bool made; /* desc holds the descriptor of the words */
    hd_storage_t storage;
    _Alignas(64) char words[];
};

/* ---- the tables, for tools ------------------------------------------------------------------- */

const char *heed_op_name(int index)
{
    const hd_op_t *op = hd_op_at(index);
    return op ? op->name : NULL;
}

int heed_op_operand(const char *name, int index, heed_op_operand_t *operand)
{
    const hd_op_t *op = name ? hd_op_find(name) : NULL;
    if (!op || !operand || index < 0 || index >= op->operand_count)
        return 0;
    *operand = op->operands[index].info;
    return 1;
}

int heed_op_word(const char *name, int index, heed_op_word_t *word)
{
    const hd_op_t *op = name ? hd_op_find(name) : NULL;
    if (!op || !word || index < 0 || index >= op->word_count)
        return 0;
    *word = op->words[index].info;
    return 1;
}

const char *heed_op_feature(const char *name, int bit)
{
    const hd_op_t *op = name ? hd_op_find(name) : NULL;
    return op && bit >= 0 && bit < op->feature_count ? op->features[bit] : NULL;
}

/* ---- one word -------------------------------------------------------------------------------- */

/* Position of `value` in "a|b|c", -1 if it is not there. */
static int64_t position(const char *form, const char *value)
{
    char item[64];
    for (int i = 0; hd_next_item(&form, "|", item, sizeof(item)); i++)
        if (strcmp(item, value) == 0)
            return i;
    return -1;
}

static void name_at(const char *form, int64_t at, char *name, size_t size)
{
    name[0] = 0;
    for (int64_t i = 0; i <= at; i++)
        if (!hd_next_item(&form, "|", name, size))
            return;
}

static bool read_pair(const char *value, int64_t low, int64_t *pair)
{
    char left[32];
    const char *comma = strchr(value, ',');
    if (!comma || (size_t)(comma - value) >= sizeof(left))
        return false;
    memcpy(left, value, (size_t)(comma - value));
    left[comma - value] = 0;
    return hd_parse_int(left, &pair[0]) && hd_parse_int(comma + 1, &pair[1]) && pair[0] >= low &&
           pair[1] >= low;
}

static bool read_text(const char *value, char *to)
{
    if (strlen(value) >= HD_WORD_TEXT_SIZE)
        return false;
    strcpy(to, value);
    return true;
}

static bool read_value(const hd_word_t *word, const char *value, void *to)
{
    int64_t number;
    heed_dtype_t dtype;
    switch (word->type) {
    case HD_WORD_INT:
    case HD_WORD_BOOL:
        if (!hd_parse_int(value, &number) || number < word->low ||
            (word->type == HD_WORD_BOOL && number > 1))
            return false;
        break;
    case HD_WORD_ENUM:
        number = position(word->info.form, value);
        if (number < 0)
            return false;
        break;
    case HD_WORD_DTYPE:
        if (position(word->info.form, value) < 0 || heed_dtype_parse(value, &dtype) != HEED_OK)
            return false;
        number = dtype;
        break;
    case HD_WORD_FLOAT:
        return hd_parse_double(value, to);
    case HD_WORD_PAIR:
        return read_pair(value, word->low, to);
    default:
        return read_text(value, to);
    }
    memcpy(to, &number, sizeof(number));
    return true;
}

static void *word_value(const hd_word_t *word, const void *words)
{
    return (char *)words + word->offset;
}

static heed_status_t set_word(const hd_op_t *op, void *words, const char *name, const char *value)
{
    char known[256];
    hd_text_t text = hd_text(known, sizeof(known));
    for (int i = 0; i < op->word_count; i++) {
        const hd_word_t *word = &op->words[i];
        hd_text_add(&text, "%s%s", i ? ", " : "", word->info.name);
        if (strcmp(word->info.name, name) != 0)
            continue;
        _Alignas(16) char read[HD_WORD_TEXT_SIZE];
        if (!read_value(word, value, read))
            return hd_fail(HEED_ERROR_SYNTAX, "%s=%.80s: it takes %s (%s)", name, value,
                           word->info.form, word->info.about);
        size_t size = word->type == HD_WORD_TEXT   ? strlen(read) + 1
                      : word->type == HD_WORD_PAIR ? 2 * sizeof(int64_t)
                                                   : sizeof(int64_t);
        memcpy(word_value(word, words), read, size);
        return HEED_OK;
    }
    return hd_fail(HEED_ERROR_SYNTAX, "%s has no word '%.80s': there are %s", op->name, name,
                   known);
}

/* A word whose default is "" and which was not given: its value follows from other words. */
enum { FOLLOWS = -1 };

void hd_words_init(const hd_op_t *op, void *words)
{
    memset(words, 0, op->words_size);
    for (int i = 0; i < op->word_count; i++) {
        const hd_word_t *word = &op->words[i];
        int64_t follows = FOLLOWS;
        if (word->info.fallback[0])
            read_value(word, word->info.fallback, word_value(word, words));
        else if (word->type == HD_WORD_INT)
            memcpy(word_value(word, words), &follows, sizeof(follows));
    }
}

static void print_value(const hd_word_t *word, const void *at, char *text, size_t size)
{
    int64_t number, pair[2];
    double real;
    memcpy(&number, at, sizeof(number));
    switch (word->type) {
    case HD_WORD_ENUM:
        name_at(word->info.form, number, text, size);
        return;
    case HD_WORD_DTYPE:
        snprintf(text, size, "%s", heed_dtype_name((heed_dtype_t)number));
        return;
    case HD_WORD_FLOAT:
        memcpy(&real, at, sizeof(real));
        snprintf(text, size, "%.9g", real);
        return;
    case HD_WORD_PAIR:
        memcpy(pair, at, sizeof(pair));
        snprintf(text, size, "%lld,%lld", (long long)pair[0], (long long)pair[1]);
        return;
    case HD_WORD_TEXT:
        snprintf(text, size, "%s", (const char *)at);
        return;
    default:
        snprintf(text, size, "%lld", (long long)number);
    }
}

void hd_words_print(const hd_op_t *op, const void *words, hd_text_t *text)
{
    char value[HD_WORD_TEXT_SIZE];
    hd_text_add(text, "%s", op->name);
    for (int i = 0; i < op->word_count; i++) {
        const hd_word_t *word = &op->words[i];
        int64_t number;
        memcpy(&number, word_value(word, words), sizeof(number));
        if (word->type == HD_WORD_INT && !word->info.fallback[0] && number == FOLLOWS)
            continue;
        print_value(word, word_value(word, words), value, sizeof(value));
        if (word->always || strcmp(value, word->info.fallback) != 0)
            hd_text_add(text, " %s=%s", word->info.name, value);
    }
}

/* ---- a problem ------------------------------------------------------------------------------- */

static heed_status_t read_words(heed_problem_t *problem, const char *text)
{
    char item[HD_WORD_TEXT_SIZE + 64];
    while (hd_next_item(&text, " \t", item, sizeof(item))) {
        char *equals = strchr(item, '=');
        if (!equals)
            return hd_fail(HEED_ERROR_SYNTAX, "'%.80s' is no word=value", item);
        *equals = 0;
        HD_TRY(set_word(problem->op, problem->words, item, equals + 1));
    }
    return text ? HEED_OK : hd_fail(HEED_ERROR_SYNTAX, "a word is too long");
}

heed_status_t heed_problem_parse(const char *text, heed_problem_t **problem)
{
    char name[64];
    if (!text || !problem)
        return hd_fail(HEED_ERROR_NULL, "%s is null", text ? "problem" : "text");
    *problem = NULL;
    if (!hd_next_item(&text, " \t", name, sizeof(name)))
        return hd_fail(HEED_ERROR_SYNTAX, "a problem starts with the name of an operation");
    const hd_op_t *op = hd_op_find(name);
    if (!op)
        return hd_op_unknown(name);
    heed_problem_t *made = aligned_alloc(64, hd_round_up(sizeof(*made) + op->words_size, 64));
    void *desc = calloc(1, op->desc_size);
    if (!made || !desc) {
        free(made);
        free(desc);
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a problem");
    }
    memset(made, 0, sizeof(*made));
    made->op = op;
    made->desc = desc;
    hd_words_init(op, made->words);
    heed_status_t status = read_words(made, text);
    if (status != HEED_OK) {
        heed_problem_destroy(made);
        return status;
    }
    *problem = made;
    return HEED_OK;
}

heed_status_t heed_problem_set(heed_problem_t *problem, const char *word, const char *value)
{
    if (!problem || !word || !value)
        return hd_fail(HEED_ERROR_NULL, "%s is null",
                       !problem ? "problem"
                       : !word  ? "word"
                                : "value");
    HD_TRY(set_word(problem->op, problem->words, word, value));
    problem->made = false;
    return HEED_OK;
}

void heed_problem_destroy(heed_problem_t *problem)
{
    if (!problem)
        return;
    free(problem->storage.extra);
    free(problem->desc);
    free(problem);
}

const char *heed_problem_op(const heed_problem_t *problem)
{
    return problem ? problem->op->name : NULL;
}

size_t heed_problem_text(const heed_problem_t *problem, char *text, size_t size)
{
    hd_text_t out = hd_text(text, size);
    if (problem)
        hd_words_print(problem->op, problem->words, &out);
    return out.length;
}

heed_status_t heed_problem_desc(heed_problem_t *problem, void **desc)
{
    if (!problem || !desc)
        return hd_fail(HEED_ERROR_NULL, "%s is null", problem ? "desc" : "problem");
    *desc = NULL;
    problem->made = false;
    free(problem->storage.extra);
    memset(&problem->storage, 0, sizeof(problem->storage));
    memset(problem->desc, 0, problem->op->desc_size);
    HD_TRY(problem->op->from_words(problem->words, problem->desc, &problem->storage));
    problem->made = true;
    *desc = problem->desc;
    return HEED_OK;
}

heed_tensor_t *heed_problem_tensor(heed_problem_t *problem, int index)
{
    if (!problem || !problem->made || index < 0 || index >= problem->op->operand_count)
        return NULL;
    return hd_op_tensor(problem->op, problem->desc, index);
}
