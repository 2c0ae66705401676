/* Text for people: complaints, numbers with units, numbers read. */
#ifndef TOOLS_TEXT_H
#define TOOLS_TEXT_H

#include "commands.h"

#include <heed/heed.h>

#include <stdbool.h>

/* Prints "heed: sentence" to stderr and returns TOOL_FAILED, or TOOL_USAGE. */
int tool_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int tool_misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the library's sentence and returns what a call's status means for the exit code: words
 * that cannot be read are misuse, all else is a failure. */
int tool_fail_status(heed_status_t status);

/* Whole-text numbers; false if anything else is in the text. */
bool tool_parse_int(const char *text, long low, long high, int *value);
bool tool_parse_double(const char *text, double *value);

enum { TOOL_NUMBER_SIZE = 32 };

/* "1.23 ms", "85.2 GFLOP", "32 KiB"; they return text, of TOOL_NUMBER_SIZE. A time that is not
 * known is "-". */
const char *tool_time(double ns, char *text);
const char *tool_amount(double value, const char *unit, char *text);
const char *tool_bytes(double bytes, char *text);

/* Writes the names of all operations, "attention, cast", and returns text. */
const char *tool_op_names(char *text, size_t size);
bool tool_is_op(const char *name);

/* A bar with text behind it on stderr, where that is a terminal; the next one replaces it. format
 * NULL: it goes away. */
void tool_progress(double part, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes "cpu", "cuda:0" and returns text, of TOOL_NUMBER_SIZE. */
const char *tool_device(heed_device_t device, char *text);

#endif
