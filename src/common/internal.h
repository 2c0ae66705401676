/* What every room of the library shares: failing with a sentence, memory, text, the context. */
#ifndef HD_INTERNAL_H
#define HD_INTERNAL_H

#include "base.h"

#include <stdarg.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#define HD_X86 1
#else
#define HD_X86 0
#endif
#if defined(__aarch64__)
#define HD_ARM 1
#else
#define HD_ARM 0
#endif

#define HD_COUNT(array)      ((int)(sizeof(array) / sizeof((array)[0])))
#define HD_PRINTF(at, first) __attribute__((format(printf, at, first)))

/* ---- failing (status.c) ---------------------------------------------------------------------- */

/* Stores the sentence for heed_last_error() and returns status. */
heed_status_t hd_fail(heed_status_t status, const char *format, ...) HD_PRINTF(2, 3);

/* A status that is returned after other calls, which may fail with sentences of their own: kept
 * with its sentence, this thread's latest; then returned, in any thread, with the sentence as
 * latest. */
typedef struct hd_kept {
    heed_status_t status;
    char sentence[512];
} hd_kept_t;

void hd_keep(hd_kept_t *kept, heed_status_t status);
heed_status_t hd_kept(const hd_kept_t *kept);

/* Fills *why (which may be NULL) and returns false: `return hd_refuse(why, ...)`. */
bool hd_refuse(heed_why_t *why, heed_status_t status, const char *format, ...) HD_PRINTF(3, 4);

/* Returns the status of an inner call that failed. */
#define HD_TRY(call)                       \
    do {                                   \
        heed_status_t hd_status_ = (call); \
        if (hd_status_ != HEED_OK)         \
            return hd_status_;             \
    } while (0)

/* Copies a versioned struct: zero-fills *to (to_size bytes), copies what both know, and fails if
 * the caller's struct is larger and its tail is not zero. `from` starts with its uint32_t
 * struct_size; smallest is the size of its first published form. */
heed_status_t hd_struct_copy(void *to, size_t to_size, const void *from, size_t smallest,
                             const char *name);

/* ---- text (text.c) --------------------------------------------------------------------------- */

/* A string built in a caller's buffer: always terminated, cut where full, length counts on. */
typedef struct hd_text {
    char *at;
    size_t size;
    size_t length;
} hd_text_t;

hd_text_t hd_text(char *buffer, size_t size);
void hd_text_add(hd_text_t *text, const char *format, ...) HD_PRINTF(2, 3);

/* Whole-string numbers; false if anything else is in the text. */
bool hd_parse_int(const char *text, int64_t *value);
bool hd_parse_double(const char *text, double *value);

/* Whether name matches a pattern in which * stands for anything. */
bool hd_glob(const char *pattern, const char *name);

/* The next item of a list separated by any of `separators`, copied to item; false past the end or,
 * with *list NULL, where an item is too long. */
bool hd_next_item(const char **list, const char *separators, char *item, size_t size);

/* ---- sizes (tensor.c) ------------------------------------------------------------------------ */

/* a * b and a + b of non-negative numbers; false where that overflows. */
bool hd_mul(int64_t a, int64_t b, int64_t *product);
bool hd_add(int64_t a, int64_t b, int64_t *sum);

/* ---- tensors (tensor.c) ---------------------------------------------------------------------- */

/* A tensor with its axes in place: shape and strides point into the struct that holds it. */
typedef struct hd_axes {
    int64_t shape[HEED_MAX_NDIM];
    int64_t strides[HEED_MAX_NDIM];
} hd_axes_t;

/* Checks a described tensor (null, ndim, negative or overflowing shape, strides) and writes its
 * complete form: *to with shape and strides in *axes, data NULL. `name` is for the sentence. With
 * `output` no two elements may share an address. */
heed_status_t hd_tensor_complete(const char *name, const heed_tensor_t *from, bool output,
                                 heed_tensor_t *to, hd_axes_t *axes);

/* Dense strides, last axis fastest. */
void hd_dense_strides(int ndim, const int64_t *shape, int64_t *strides);

int64_t hd_tensor_elements(const heed_tensor_t *tensor);

/* Its first element, NULL where it has no data. */
static inline char *hd_tensor_data(const heed_tensor_t *tensor)
{
    return tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
}

/* ---- the machine (topology.c, cpuid.c, cpu_arm.c) -------------------------------------------- */

/* Fills all fields of *info but isa and threads: packages, cores, caches, NUMA nodes, memory within
 * the affinity mask and control group of this process; HWLOC_SYNTHETIC and HWLOC_XMLFILE are
 * honoured. Never fails: what cannot be found is 0, and cores at least 1. */
void hd_topology_detect(heed_device_info_t *info);

/* HEED_ISA_* that the CPU has and the operating system saves. */
uint64_t hd_cpuid_isa(void);

/* The CPU's own name, "" where it has none. */
void hd_cpuid_name(char *name, size_t size);

/* ---- what the machine reaches (tune.c) ------------------------------------------------------- */

/* Writes the path of this CPU's file in the user's folder for caches, "" where there is none such:
 * .../heed/amd-epyc-9654-96-core-processor-0.1.0.txt. */
void hd_tune_default(const char *cpu, char *path, size_t size);

/* Fills info->peaks with assumptions, then with the figures of `file` ("": none) if they are good.
 * `why` gets the sentence why they are not in use, "" where they are. Returns whether there was
 * something in the file's place that cannot be used. */
bool hd_tune_read(const char *file, heed_device_info_t *info, char *why, size_t size);

/* ---- environment (env.c) --------------------------------------------------------------------- */

/* Settings of a context: the config's, then the environment's, then defaults. */
typedef struct hd_settings {
    int32_t threads; /* 0: as many as cores */
    heed_fallback_t fallback;
    heed_log_level_t log_level;
    bool log_to_stderr;
    heed_device_t device; /* type 0: auto; id -1: any of that type */
    uint64_t isa_cap;     /* mask of allowed HEED_ISA_* */
    char impl[512];       /* [op=]pattern lists, "" for none */
    char skip_impl[512];
    char tune_file[512]; /* absolute, "" for none */
    bool tune_default;   /* the file in the user's cache */
} hd_settings_t;

/* Reads config and environment. Errors: VALUE (config), ENVIRONMENT. */
heed_status_t hd_settings_read(const heed_context_config_t *config, hd_settings_t *settings);

/* ---- the context (context.c) ----------------------------------------------------------------- */

enum { HD_MAX_DEVICES = 1 + 16 };

struct heed_context {
    atomic_int references;
    hd_settings_t settings;
    heed_allocator_t allocator;
    heed_device_allocator_t device_allocator; /* alloc NULL: the backend's */
    heed_log_fn log;
    void *log_user;
    heed_device_info_t devices[HD_MAX_DEVICES]; /* the CPU is number 0 */
    int device_count;
    const struct hd_backend *backend; /* NULL: none (backend.h) */
    char backend_why[384];            /* what it lacks, or why there is none; "" if all is well */
    char tune_why[768];               /* why the assumed peaks serve; "" where they are measured */
    heed_impl_t **user_impls;
    int user_impl_count;
};

/* The device, NULL where the context has none such (device.c). */
const heed_device_info_t *hd_device_find(const heed_context_t *context, heed_device_t device);

/* Whether the context has the device; NO_DEVICE with the reason. memory.c */
heed_status_t hd_device_check(const heed_context_t *context, const char *name,
                              heed_device_t device);

/* Memory of a device, by the context's allocator for devices or the backend's; `what` it is, for
 * the sentence, stream as in heed_device_allocator_t. memory.c */
heed_status_t hd_device_alloc(const heed_context_t *context, heed_device_t device, const char *what,
                              size_t bytes, const heed_stream_t *stream, void **memory);
heed_status_t hd_device_free(const heed_context_t *context, heed_device_t device, void *memory,
                             const heed_stream_t *stream);

void *hd_alloc(const heed_context_t *context, size_t bytes);
void *hd_alloc_aligned(const heed_context_t *context, size_t bytes, size_t align);
void hd_free(const heed_context_t *context, void *memory);
void hd_context_retain(heed_context_t *context);

/* One log line, if the level is on. */
void hd_log(const heed_context_t *context, heed_log_level_t level, const char *format, ...)
    HD_PRINTF(3, 4);

static inline bool hd_logs(const heed_context_t *context, heed_log_level_t level)
{
    return level <= context->settings.log_level;
}

/* ---- implementations (registry.c) ------------------------------------------------------------ */

/* Checks that every item of the context's impl and skip_impl lists matches some implementation,
 * builtin or the context's own. Errors: UNKNOWN_IMPL, with the known names. */
heed_status_t hd_impl_lists_check(const heed_context_t *context);

/* Whether device, instruction set and the context's lists let the implementation run. */
bool hd_impl_allowed(const heed_context_t *context, const heed_impl_t *impl,
                     const heed_device_info_t *device, heed_why_t *why);

/* ---- running (plan_execute.c) ---------------------------------------------------------------- */

/* Plan, workspace, execute on the descriptor's data, clean up. */
heed_status_t hd_run_once(heed_context_t *context, const char *op, const void *desc);

/* Nanoseconds of a clock that never goes back. */
double hd_now_ns(void);

#endif
