/* Files in the safetensors format, in a folder of the test's own. */
#ifndef TESTS_ST_FOLDER_H
#define TESTS_ST_FOLDER_H

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
#include <unistd.h>

static inline const char *path_of(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline void write_bytes(const char *path, const void *bytes, size_t size)
{
    unlink(path); /* truncating a file makes some file systems wait for the disk */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

#define TENSOR(name, dtype, ndim, shape)                       \
    {                                                          \
        name, st_dtype_find(dtype), ndim, shape, 0, 0, 0, NULL \
    }

static inline int make_folder(void **state)
{
    (void)state;
    return open_folder("safetensors");
}

#endif
