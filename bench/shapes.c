/* Problem lists: from --prob and from files. */
#define _GNU_SOURCE

#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_there(const bench_problems_t *problems, const char *text)
{
    for (int i = 0; i < problems->count; i++)
        if (!strcmp(problems->items[i].text, text))
            return true;
    return false;
}

static void append(bench_problems_t *problems, const heed_problem_t *problem, const char *label)
{
    char text[BENCH_TEXT];

    heed_problem_text(problem, text, sizeof(text));
    if (is_there(problems, text))
        return;
    problems->items =
        bench_realloc(problems->items, (size_t)(problems->count + 1) * sizeof(*problems->items));
    problems->items[problems->count].text = bench_strdup(text);
    problems->items[problems->count].label = bench_strdup(label ? label : "");
    problems->count++;
}

/* The parsed problem once for each dtype of its first operand. False: heed_last_error() says why.
 */
static bool append_dtypes(bench_problems_t *problems, heed_problem_t *problem, const char *label,
                          const char *dtypes)
{
    heed_op_operand_t first;
    char dtype[BENCH_NAME];

    if (!dtypes) {
        append(problems, problem, label);
        return true;
    }
    if (!heed_op_operand(heed_problem_op(problem), 0, &first))
        return false;
    while (bench_next_item(&dtypes, dtype, sizeof(dtype))) {
        if (heed_problem_set(problem, first.dtype, dtype) != HEED_OK)
            return false;
        append(problems, problem, label);
    }
    return true;
}

bool bench_problems_add(bench_problems_t *problems, const char *op, const char *text,
                        const char *label, const char *dtypes, const char *where)
{
    heed_problem_t *problem;

    if (heed_problem_parse(text, &problem) != HEED_OK) {
        bench_complain("%s: %s", where, heed_last_error());
        return false;
    }
    bool good = !strcmp(heed_problem_op(problem), op);
    if (!good)
        bench_complain("%s: this is a problem of %s, not of %s", where, heed_problem_op(problem),
                       op);
    else if (!append_dtypes(problems, problem, label, dtypes)) {
        bench_complain("%s: %s", where, heed_last_error());
        good = false;
    }
    heed_problem_destroy(problem);
    return good;
}

static char *trim(char *text)
{
    char *end = text + strlen(text);

    text += strspn(text, " \t");
    while (end > text && strchr(" \t\r\n", end[-1]))
        *--end = '\0';
    return text;
}

/* One line of a list, which it may change. */
static bool read_line(bench_problems_t *problems, const char *op, char *line, const char *dtypes,
                      const char *where)
{
    char *label = strchr(line, '#');

    if (label) {
        *label++ = '\0';
        label = trim(label);
    }
    line = trim(line);
    size_t word = strcspn(line, " \t");
    if (!word)
        return true;
    if (word != strlen(op) || strncmp(line, op, word)) {
        problems->other++;
        return true;
    }
    return bench_problems_add(problems, op, line, label, dtypes, where);
}

bool bench_problems_read(bench_problems_t *problems, const char *op, const char *path,
                         const char *dtypes)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;
    bool good = file != NULL;

    for (int number = 1; good && getline(&line, &size, file) >= 0; number++) {
        char where[BENCH_TEXT];
        snprintf(where, sizeof(where), "%s:%d", path, number);
        good = read_line(problems, op, line, dtypes, where);
    }
    if (!file || ferror(file)) {
        bench_complain("%s: %s", path, strerror(errno));
        good = false;
    }
    free(line);
    if (file)
        fclose(file);
    return good;
}

void bench_problems_free(bench_problems_t *problems)
{
    for (int i = 0; i < problems->count; i++) {
        free(problems->items[i].text);
        free(problems->items[i].label);
    }
    free(problems->items);
    *problems = (bench_problems_t){0};
}
