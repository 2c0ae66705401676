#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

hd_text_t hd_text(char *buffer, size_t size)
{
    if (size)
        buffer[0] = 0;
    return (hd_text_t){buffer, size, 0};
}

void hd_text_add(hd_text_t *text, const char *format, ...)
{
    size_t room = text->length < text->size ? text->size - text->length : 0;
    va_list args;
    va_start(args, format);
    int written = vsnprintf(room ? text->at + text->length : NULL, room, format, args);
    va_end(args);
    if (written > 0)
        text->length += (size_t)written;
}

bool hd_parse_int(const char *text, int64_t *value)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end || text[0] == ' ' || text[0] == '+')
        return false;
    *value = number;
    return true;
}

bool hd_parse_double(const char *text, double *value)
{
    char *end;
    errno = 0;
    double number = strtod(text, &end);
    if (errno == ERANGE || end == text || *end || text[0] == ' ')
        return false;
    *value = number;
    return true;
}

bool hd_glob(const char *pattern, const char *name)
{
    const char *star = NULL, *retry = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            retry = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++retry;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == 0;
}

bool hd_next_item(const char **list, const char *separators, char *item, size_t size)
{
    if (!*list)
        return false;
    const char *at = *list + strspn(*list, separators);
    if (!*at) {
        *list = at;
        return false;
    }
    size_t length = strcspn(at, separators);
    if (length >= size) {
        *list = NULL;
        return false;
    }
    memcpy(item, at, length);
    item[length] = 0;
    *list = at + length;
    return true;
}
