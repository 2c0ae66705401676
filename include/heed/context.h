/* Heed: the context. It knows the machine, holds the policy, and makes plans.
 *
 * Creating one detects the devices and reads the environment; nothing global is kept but a loaded
 * backend. A context may be used from many threads at once, except that heed_register_impl must not
 * run beside other calls on the same context. Plans hold a reference: a context may be destroyed
 * before its plans.
 *
 * Environment, read when a context is created. Each fills what the config leaves at its default;
 * an unknown value is HEED_ERROR_ENVIRONMENT with a sentence that lists the known ones.
 *     HEED_VERBOSE      none | error | warn | select | exec | all: log lines up to that level,
 *                       to the log callback, or to stderr where there is none
 *     HEED_IMPL         [op=]pattern,...: only these implementations; * matches anything
 *     HEED_SKIP_IMPL    [op=]pattern,...: never these
 *     HEED_MAX_CPU_ISA  scalar | avx2 | avx512 | avx512bf16 | avx512vbmi | amx: pretend that the
 *                       CPU has no more
 *     HEED_NUM_THREADS  a number of threads, 1 or more
 *     HEED_DEVICE       auto | cpu | cuda | cuda:N: where to run
 *     HEED_FALLBACK     deny | warn | allow: when that device cannot be used
 *     HEED_PLUGIN_PATH  an absolute path | none: the file of the CUDA backend. Not set:
 *                       libheed-cuda.so in the folder of libheed itself, else in LIBDIR/heed. It is
 *                       loaded once a process and stays; what goes wrong is no error but the reason
 *                       that heed_device_missing tells
 *     HEED_TUNE_FILE    an absolute path | none: the figures of `heed tune`. Not set: the file for
 *                       this CPU and version in $XDG_CACHE_HOME/heed, else ~/.cache/heed. What goes
 *                       wrong is no error but the reason that heed_tune_missing tells */
#ifndef HEED_CONTEXT_H
#define HEED_CONTEXT_H

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct heed_context heed_context_t;

typedef enum heed_log_level {
    HEED_LOG_NONE = 0,
    HEED_LOG_ERROR = 1,
    HEED_LOG_WARN = 2,   /* fallbacks */
    HEED_LOG_SELECT = 3, /* one line a candidate, for every plan */
    HEED_LOG_EXEC = 4,   /* one line an execution, with its time */
    HEED_LOG_ALL = 5
} heed_log_level_t;

/* Gets one line without a newline. May be called from any thread that calls Heed. */
typedef void (*heed_log_fn)(void *user, heed_log_level_t level, const char *line);

/* alloc returns memory aligned to `align` (a power of two), or NULL. Both from any thread. */
typedef struct heed_allocator {
    void *(*alloc)(void *user, size_t bytes, size_t align);
    void (*free)(void *user, void *memory);
    void *user;
} heed_allocator_t;

/* Where to enqueue on a device: its native stream handle. NULL or zeros: the device's default. CPU
 * plans run in the calling thread and its team, and are done when execute returns. */
typedef struct heed_stream {
    heed_device_t device;
    void *native;
} heed_stream_t;

/* Memory of a device, for workspaces of one-call functions and for heed_memory_alloc. alloc returns
 * memory aligned to `align`, or NULL. With a stream the memory is used, and given back, in the
 * order of that stream alone; NULL: on any stream, and nothing uses it any more when it is given
 * back. */
typedef struct heed_device_allocator {
    void *(*alloc)(void *user, heed_device_t device, size_t bytes, size_t align,
                   const heed_stream_t *stream);
    void (*free)(void *user, heed_device_t device, void *memory, const heed_stream_t *stream);
    void *user;
} heed_device_allocator_t;

typedef enum heed_fallback {
    HEED_FALLBACK_DEFAULT = 0, /* HEED_FALLBACK, else WARN */
    HEED_FALLBACK_DENY = 1,    /* an error */
    HEED_FALLBACK_WARN = 2,    /* runs on the CPU, with a log line, seen in heed_plan_info */
    HEED_FALLBACK_ALLOW = 3    /* runs on the CPU, seen in heed_plan_info */
} heed_fallback_t;

/* Zero means default in every field. Fields are only ever added at the end. Strings are copied. */
typedef struct heed_context_config {
    uint32_t struct_size;       /* set by heed_context_config() */
    int32_t ignore_environment; /* 1: read no environment variable */
    int32_t threads;            /* 0: one for each core that this process may use */
    heed_fallback_t fallback;
    heed_log_level_t log_level; /* NONE: HEED_VERBOSE, else WARN where a callback is given */
    heed_log_fn log;            /* NULL: lines go nowhere, or to stderr if HEED_VERBOSE is set */
    void *log_user;
    heed_allocator_t allocator; /* alloc NULL: aligned_alloc and free */
    const char *device;         /* grammar of the variables of the same names */
    const char *impl;
    const char *skip_impl;
    const char *max_cpu_isa;
    heed_device_allocator_t device_allocator; /* alloc NULL: cudaMallocAsync or cudaMalloc */
    const char *tune_file; /* grammar of HEED_TUNE_FILE; with ignore_environment NULL means none */
} heed_context_config_t;

static inline heed_context_config_t heed_context_config(void)
{
#ifdef __cplusplus
    heed_context_config_t config = {};
#else
    heed_context_config_t config = {0};
#endif
    config.struct_size = (uint32_t)sizeof(config);
    return config;
}

/* Makes a context; config NULL means all defaults. On Linux, on a CPU with AMX, it asks the system
 * once to let this process use tiles, which makes the signal frames of threads that do larger.
 * Errors: NULL, STRUCT_SIZE, VALUE, ENVIRONMENT, OUT_OF_MEMORY. *context is NULL after an error. An
 * impl or skip_impl list that matches nothing is found when a plan is made, for a program may still
 * register its own implementations. */
HEED_API HEED_MUST_USE heed_status_t heed_context_create(const heed_context_config_t *config,
                                                         heed_context_t **context);

/* Gives the caller's reference back; NULL is fine. The memory goes with the last plan. */
HEED_API void heed_context_destroy(heed_context_t *context);

/* What the library reads from the environment, for tools: name, known values, meaning, and the
 * value now (NULL: not set). Returns 0 past the end, 1 otherwise. */
typedef struct heed_env_info {
    const char *name;
    const char *values;
    const char *about;
    const char *current;
} heed_env_info_t;
HEED_API int heed_env_info(int index, heed_env_info_t *info);

#ifdef __cplusplus
}
#endif
#endif
