/* Finds and loads the backend. A plugin is looked for beside libheed and in the folder that the
 * build named, never where the program happens to run, and stays loaded: threads, streams and
 * destructors of its runtime may outlive any context. */
#define _GNU_SOURCE
#include "backend.h"
#include "internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN_FILE "libheed-cuda.so"

/* Set by CMake: where installed plugins may lie, and whether the backend is part of this library.
 */
#ifndef HD_PLUGIN_DIR
#define HD_PLUGIN_DIR "/usr/local/lib/heed"
#endif
#ifndef HD_CUDA_LINKED
#define HD_CUDA_LINKED 0
#endif

typedef struct loaded {
    bool tried;
    const hd_backend_t *backend;
    char why[384];
} loaded_t;

static heed_status_t fail(heed_status_t status, const char *sentence)
{
    return hd_fail(status, "%s", sentence);
}

static const hd_host_t host = {.struct_size = sizeof(hd_host_t), .fail = fail};

HD_PRINTF(2, 3) static void say(loaded_t *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(to->why, sizeof(to->why), format, args);
    va_end(args);
}

/* ---- one file -------------------------------------------------------------------------------- */

static void check(loaded_t *to, const char *file, const hd_backend_t *backend)
{
    if (!backend)
        say(to, "%s gives no backend", file);
    else if (backend->abi != HD_BACKEND_ABI)
        say(to, "%s has plugin interface %u, this Heed takes %d", file, backend->abi,
            HD_BACKEND_ABI);
    else if (backend->struct_size != sizeof(*backend))
        say(to, "%s: its backend has %u bytes, this Heed takes %zu", file, backend->struct_size,
            sizeof(*backend));
    else if (strcmp(backend->version, heed_version()) != 0)
        say(to, "%s belongs to Heed %s, this is %s", file, backend->version, heed_version());
    else
        to->backend = backend;
}

static void load_file(loaded_t *to, const char *file)
{
    hd_backend_enter_t *enter;
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        /* It names the file itself. */
        say(to, "%s", dlerror());
        return;
    }
    /* C has no cast from an object pointer to a function pointer; POSIX says that they convert. */
    void *symbol = dlsym(library, HD_BACKEND_ENTER);
    memcpy(&enter, &symbol, sizeof(enter));
    if (!symbol)
        say(to, "%s is no plugin of Heed: it has no %s", file, HD_BACKEND_ENTER);
    else
        check(to, file, enter(&host));
}

/* ---- where it is ----------------------------------------------------------------------------- */

#if HD_CUDA_LINKED
hd_backend_enter_t hd_cuda_backend;

static void load_default(loaded_t *to)
{
    check(to, "the linked backend", hd_cuda_backend(&host));
}
#else
/* The folder that holds this library; false where the loader was given a relative path. */
static bool own_folder(char *folder, size_t size)
{
    Dl_info info;
    if (!dladdr(&host, &info) || !info.dli_fname || info.dli_fname[0] != '/')
        return false;
    size_t length = (size_t)(strrchr(info.dli_fname, '/') - info.dli_fname);
    if (length >= size)
        return false;
    memcpy(folder, info.dli_fname, length);
    folder[length] = 0;
    return true;
}

static bool try_folder(loaded_t *to, const char *folder)
{
    char file[1024];
    int length = snprintf(file, sizeof(file), "%s/%s", folder, PLUGIN_FILE);
    if (length >= (int)sizeof(file) || access(file, F_OK) != 0)
        return false;
    load_file(to, file);
    return true;
}

static void load_default(loaded_t *to)
{
    char own[512] = "";
    if (own_folder(own, sizeof(own)) && try_folder(to, own))
        return;
    if (try_folder(to, HD_PLUGIN_DIR))
        return;
    say(to, "the CUDA backend is not installed: there is no %s in %s%s%s", PLUGIN_FILE, own,
        own[0] ? " or " : "", HD_PLUGIN_DIR);
}
#endif

static void load(loaded_t *to, const char *path)
{
    if (path && strcmp(path, "none") == 0)
        say(to, "HEED_PLUGIN_PATH=none: no backend is loaded");
    else if (path && path[0] != '/')
        say(to, "HEED_PLUGIN_PATH=%s is not an absolute path", path);
    else if (path)
        load_file(to, path);
    else
        load_default(to);
}

/* Contexts that ignore the environment share one answer, those that read it another. */
const hd_backend_t *hd_backend_get(int ignore_environment, const char **why)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static loaded_t answers[2];
    loaded_t *answer = &answers[ignore_environment != 0];
    pthread_mutex_lock(&lock);
    if (!answer->tried) {
        const char *path = ignore_environment ? NULL : secure_getenv("HEED_PLUGIN_PATH");
        load(answer, path && path[0] ? path : NULL);
        answer->tried = true;
    }
    pthread_mutex_unlock(&lock);
    *why = answer->why;
    return answer->backend;
}
