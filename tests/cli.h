/* Running the heed command from tests: through the shell, in a folder of the test's own. */
#ifndef TESTS_CLI_H
#define TESTS_CLI_H

#include "folder.h"
#include "safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUTPUT_SIZE = 1 << 16 };

static char out[OUTPUT_SIZE], err[OUTPUT_SIZE]; /* of the latest command */
static const char *before = "";                 /* shell words ahead of the command */

/* ---- running the command --------------------------------------------------------------------- */

static inline void read_all(const char *name, char *to)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    to[fread(to, 1, OUTPUT_SIZE - 1, file)] = '\0';
    fclose(file);
}

/* Runs `heed ARGUMENTS` through the shell, in the test's folder, and returns its exit code. */
static inline int __attribute__((format(printf, 1, 2))) heed(const char *format, ...)
{
    char arguments[4096], command[8192];
    va_list list;
    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    snprintf(command, sizeof command, "cd '%s' && { %s '%s' %s; } >stdout 2>stderr", folder, before,
             HEED_CLI, arguments);
    int status = system(command);
    assert_true(WIFEXITED(status));
    read_all("stdout", out);
    read_all("stderr", err);
    return WEXITSTATUS(status);
}

static inline void expect(int code, int expected, const char *text, const char *sentence,
                          const char *file, int line)
{
    if (code != expected || !strstr(text, sentence))
        fail_msg("%s:%d: exit code %d, should be %d; no \"%s\" in:\n%s%s", file, line, code,
                 expected, sentence, out, err);
}

#define EXPECT_OUT(sentence, ...) expect(heed(__VA_ARGS__), 0, out, sentence, __FILE__, __LINE__)
#define EXPECT_FAILED(sentence, ...) \
    expect(heed(__VA_ARGS__), 1, err, "heed: " sentence, __FILE__, __LINE__)
#define EXPECT_USAGE(sentence, ...) expect(heed(__VA_ARGS__), 2, err, sentence, __FILE__, __LINE__)

static inline bool exists(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static inline void write_tensors(const char *name, st_tensor_t *tensors, int count)
{
    char path[128];
    st_error_t error;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    st_writer_t *writer = st_create(path, tensors, count, NULL, &error);
    bool good = writer != NULL;
    for (int i = 0; good && i < count; i++)
        good = st_measure(&tensors[i], &error) &&
               st_append(writer, i, tensors[i].data, tensors[i].bytes, &error);
    if (!good || !st_commit(writer, &error))
        fail_msg("%s", error.text);
}

static inline st_file_t *open_file(const char *name)
{
    char path[256];
    st_error_t error;
    snprintf(path, sizeof path, "%s%s%s", name[0] == '/' ? "" : folder, name[0] == '/' ? "" : "/",
             name);
    st_file_t *file = st_open(path, &error);
    if (!file)
        fail_msg("%s", error.text);
    return file;
}

/* ---- the folder ------------------------------------------------------------------------------ */

static inline int make_folder(void **state)
{
    (void)state;
    heed_env_info_t variable;
    for (int i = 0; heed_env_info(i, &variable); i++)
        unsetenv(variable.name);
    return open_folder("cli");
}

#endif
