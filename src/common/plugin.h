/* Plugins: libraries that libheed loads when something they bring is asked for. Each exports one
 * function, which takes hd_host_t and returns a table that begins with hd_plugin_head_t. A plugin
 * is looked for beside libheed and in the folder that the build named, never where the program
 * happens to run, and stays loaded: threads and destructors of its runtime may outlive any context.
 */
#ifndef HD_PLUGIN_H
#define HD_PLUGIN_H

#include "backend.h"

#include <stdbool.h>

typedef struct hd_plugin_head {
    uint32_t abi, struct_size;
    const char *version;
} hd_plugin_head_t;

typedef struct hd_plugin_kind {
    const char *file;  /* "libheed-cuda.so" */
    const char *enter; /* the function's name */
    const char *what;  /* "the CUDA backend", for sentences */
    const char *table; /* "backend": what the function returns */
    uint32_t abi;
    size_t size; /* of the table */
} hd_plugin_kind_t;

typedef const void *hd_plugin_enter_t(const hd_host_t *host);

/* The table, or NULL and the reason in why. With an absolute path that file, else the first of the
 * usual folders that has one. */
const void *hd_plugin_load(const hd_plugin_kind_t *kind, const char *path, char *why, size_t size);

/* The same of a function that is part of this library. */
const void *hd_plugin_check(const hd_plugin_kind_t *kind, const char *file, const void *table,
                            char *why, size_t size);

/* What plugins get. */
extern const hd_host_t hd_plugin_host;

#endif
