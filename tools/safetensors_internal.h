/* What reading and writing safetensors share. */
#ifndef TOOLS_SAFETENSORS_INTERNAL_H
#define TOOLS_SAFETENSORS_INTERNAL_H

#include "safetensors.h"

#include <stdarg.h>

enum { ST_MAX_HEADER = 100000000 }; /* the format's own limit */

/* Writes the sentence and returns false. */
bool st_fail(st_error_t *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts the path in front of the sentence and returns false. */
bool st_fail_in(st_error_t *error, const char *path);

/* The sentence about a dtype that is not known. */
bool st_fail_dtype(st_error_t *error, const char *tensor, const char *dtype);

/* What the place of a tensor's data in the file is a multiple of. */
static inline size_t st_alignment(const st_dtype_t *dtype)
{
    return dtype->bits >= 8 ? (size_t)dtype->bits / 8 : 1;
}

#endif
