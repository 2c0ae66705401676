#define _GNU_SOURCE /* isatty */
#include "text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void complain(const char *format, va_list list)
{
    fflush(stdout);
    fputs("heed: ", stderr);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
}

int tool_fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    complain(format, list);
    va_end(list);
    return TOOL_FAILED;
}

int tool_misuse(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    complain(format, list);
    va_end(list);
    return TOOL_USAGE;
}

int tool_fail_status(heed_status_t status)
{
    tool_fail("%s", heed_last_error());
    return status == HEED_ERROR_SYNTAX ? TOOL_USAGE : TOOL_FAILED;
}

bool tool_parse_int(const char *text, long low, long high, int *value)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno || end == text || *end || number < low || number > high)
        return false;
    *value = (int)number;
    return true;
}

bool tool_parse_double(const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return end != text && !*end && isfinite(*value);
}

/* Three digits that count: 1.23, 12.3, 123. */
static void scaled(double value, double step, const char *const *units, int count, char *text)
{
    int unit = 0;
    while (unit + 1 < count && value >= step * 0.9995) {
        value /= step;
        unit++;
    }
    int digits = value == floor(value) || value >= 99.95 ? 0 : value < 9.995 ? 2 : 1;
    snprintf(text, TOOL_NUMBER_SIZE, "%.*f %s", digits, value, units[unit]);
}

const char *tool_time(double ns, char *text)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    if (isfinite(ns))
        scaled(ns, 1000, units, 4, text);
    else
        snprintf(text, TOOL_NUMBER_SIZE, "-");
    return text;
}

const char *tool_amount(double value, const char *unit, char *text)
{
    static const char *const units[] = {"", "k", "M", "G", "T", "P"};
    scaled(value, 1000, units, 6, text);
    strncat(text, unit, TOOL_NUMBER_SIZE - 1 - strlen(text));
    return text;
}

const char *tool_bytes(double bytes, char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    scaled(bytes, 1024, units, 5, text);
    return text;
}

void tool_progress(double part, const char *format, ...)
{
    enum { WIDTH = 30 };
    static const char full[] = "##############################";
    if (!isatty(STDERR_FILENO))
        return;
    if (format) {
        int filled = part < 1 ? (int)(part * WIDTH) : WIDTH;
        va_list list;
        va_start(list, format);
        fprintf(stderr, "\r[%-*.*s] ", WIDTH, filled, full);
        vfprintf(stderr, format, list);
        va_end(list);
    }
    fprintf(stderr, format ? "\033[K" : "\r\033[K");
}

const char *tool_op_names(char *text, size_t size)
{
    const char *name;
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; (name = heed_op_name(i)) && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", name);
    return text;
}

bool tool_is_op(const char *name)
{
    const char *known;
    for (int i = 0; (known = heed_op_name(i)); i++)
        if (strcmp(known, name) == 0)
            return true;
    return false;
}

const char *tool_device(heed_device_t device, char *text)
{
    if (device.type == HEED_DEVICE_CPU)
        snprintf(text, TOOL_NUMBER_SIZE, "cpu");
    else if (device.type == HEED_DEVICE_CUDA)
        snprintf(text, TOOL_NUMBER_SIZE, "cuda:%d", (int)device.id);
    else
        snprintf(text, TOOL_NUMBER_SIZE, "device type %d:%d", (int)device.type, (int)device.id);
    return text;
}
