/* Small helpers of the benchmark. */
#define _GNU_SOURCE

#include "bench.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void *bench_realloc(void *memory, size_t bytes)
{
    void *moved = realloc(memory, bytes ? bytes : 1);

    if (!moved) {
        bench_complain("out of memory for %zu bytes", bytes);
        exit(1);
    }
    return moved;
}

char *bench_strdup(const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(bench_realloc(NULL, size), text, size);
}

void bench_complain(const char *format, ...)
{
    va_list arguments;

    bench_progress("%s", "");
    va_start(arguments, format);
    fputs("heed bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

bool bench_next_item(const char **list, char *item, size_t size)
{
    const char *at = *list;

    while (*at == ',')
        at++;
    size_t length = strcspn(at, ",");
    *list = at + length;
    snprintf(item, size, "%.*s", (int)length, at);
    return length > 0;
}

double bench_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

void bench_progress(const char *format, ...)
{
    va_list arguments;

    if (!isatty(STDERR_FILENO))
        return;
    fputs("\r\033[K", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fflush(stderr);
}
