/* Finds, loads and checks plugins. */
#define _GNU_SOURCE
#include "plugin.h"

#include "internal.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Set by CMake: where installed plugins may lie. */
#ifndef HD_PLUGIN_DIR
#define HD_PLUGIN_DIR "/usr/local/lib/heed"
#endif

static heed_status_t fail(heed_status_t status, const char *sentence)
{
    return hd_fail(status, "%s", sentence);
}

const hd_host_t hd_plugin_host = {.struct_size = sizeof(hd_host_t), .fail = fail};

/* ---- one file -------------------------------------------------------------------------------- */

/* The reason why there is no table. */
HD_PRINTF(3, 4) static const void *refuse(char *why, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, size, format, args);
    va_end(args);
    return NULL;
}

const void *hd_plugin_check(const hd_plugin_kind_t *kind, const char *file, const void *table,
                            char *why, size_t size)
{
    hd_plugin_head_t head;
    if (!table)
        return refuse(why, size, "%s gives no %s", file, kind->table);
    memcpy(&head, table, sizeof(head));
    if (head.abi != kind->abi)
        return refuse(why, size, "%s has plugin interface %u, this Heed takes %u", file, head.abi,
                      kind->abi);
    if (head.struct_size != kind->size)
        return refuse(why, size, "%s: its %s has %u bytes, this Heed takes %zu", file, kind->table,
                      head.struct_size, kind->size);
    if (strcmp(head.version, heed_version()) != 0)
        return refuse(why, size, "%s belongs to Heed %s, this is %s", file, head.version,
                      heed_version());
    return table;
}

static const void *load_file(const hd_plugin_kind_t *kind, const char *file, char *why, size_t size)
{
    hd_plugin_enter_t *enter;
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library) /* the sentence names the file itself */
        return refuse(why, size, "%s", dlerror());
    /* C has no cast from an object pointer to a function pointer; POSIX says that they convert. */
    void *symbol = dlsym(library, kind->enter);
    memcpy(&enter, &symbol, sizeof(enter));
    if (!symbol)
        return refuse(why, size, "%s is no plugin of Heed: it has no %s", file, kind->enter);
    return hd_plugin_check(kind, file, enter(&hd_plugin_host), why, size);
}

/* ---- where it is ----------------------------------------------------------------------------- */

/* The folder that holds this library; false where the loader was given a relative path. */
static bool own_folder(char *folder, size_t size)
{
    Dl_info info;
    if (!dladdr(&hd_plugin_host, &info) || !info.dli_fname || info.dli_fname[0] != '/')
        return false;
    size_t length = (size_t)(strrchr(info.dli_fname, '/') - info.dli_fname);
    if (length >= size)
        return false;
    memcpy(folder, info.dli_fname, length);
    folder[length] = 0;
    return true;
}

static bool has_file(const char *folder, const char *name, char *file, size_t size)
{
    int length = snprintf(file, size, "%s/%s", folder, name);
    return length < (int)size && access(file, F_OK) == 0;
}

const void *hd_plugin_load(const hd_plugin_kind_t *kind, const char *path, char *why, size_t size)
{
    char own[512] = "", file[1024];
    if (path)
        return load_file(kind, path, why, size);
    if ((own_folder(own, sizeof(own)) && has_file(own, kind->file, file, sizeof(file))) ||
        has_file(HD_PLUGIN_DIR, kind->file, file, sizeof(file)))
        return load_file(kind, file, why, size);
    return refuse(why, size, "%s is not installed: there is no %s in %s%s%s", kind->what,
                  kind->file, own, own[0] ? " or " : "", HD_PLUGIN_DIR);
}
