/* Which backend this process has: the one that is part of this library, or a plugin. */
#define _GNU_SOURCE
#include "backend.h"

#include "internal.h"
#include "plugin.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Set by CMake: whether the backend is part of this library. */
#ifndef HD_CUDA_LINKED
#define HD_CUDA_LINKED 0
#endif

static const hd_plugin_kind_t kind = {.file = "libheed-cuda.so",
                                      .enter = HD_BACKEND_ENTER,
                                      .what = "the CUDA backend",
                                      .table = "backend",
                                      .abi = HD_BACKEND_ABI,
                                      .size = sizeof(hd_backend_t)};

typedef struct loaded {
    bool tried;
    const hd_backend_t *backend;
    char why[384];
} loaded_t;

#if HD_CUDA_LINKED
hd_backend_enter_t hd_cuda_backend;

static const void *load_default(char *why, size_t size)
{
    return hd_plugin_check(&kind, "the linked backend", hd_cuda_backend(&hd_plugin_host), why,
                           size);
}
#else
static const void *load_default(char *why, size_t size)
{
    return hd_plugin_load(&kind, NULL, why, size);
}
#endif

static void load(loaded_t *to, const char *path)
{
    if (path && strcmp(path, "none") == 0)
        snprintf(to->why, sizeof(to->why), "HEED_PLUGIN_PATH=none: no backend is loaded");
    else if (path && path[0] != '/')
        snprintf(to->why, sizeof(to->why), "HEED_PLUGIN_PATH=%s is not an absolute path", path);
    else if (path)
        to->backend = hd_plugin_load(&kind, path, to->why, sizeof(to->why));
    else
        to->backend = load_default(to->why, sizeof(to->why));
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
