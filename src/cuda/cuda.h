/* The host's side of CUDA implementations: refusing, entering a device, leaving it with a status.
 * In C, without the toolkit's headers, so that a kernel's file can be compiled without them too. */
#ifndef HD_CUDA_H
#define HD_CUDA_H

#include <heed/heed.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The oldest cards that Heed runs on. */
enum { HD_CUDA_MIN_MAJOR = 8, HD_CUDA_MIN_MINOR = 0 };

/* Fills *why (which may be NULL) and returns 0: `return hd_cuda_refuse(why, ...)`. */
int hd_cuda_refuse(heed_why_t *why, heed_status_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Stores the sentence for heed_last_error() and returns status. */
heed_status_t hd_cuda_fail(heed_status_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Of the card; 1 where it cannot be asked. */
int hd_cuda_multiprocessors(heed_device_t device);

/* Beside kernels whose body only some architecture has lies an empty one, a mark, whose launch
 * bound is this where they have it. Whether the card would load that code; 0 with the reason, in
 * which `code` names the architecture. */
enum { HD_CUDA_MARK_THREADS = 64 };
int hd_cuda_has_mark(heed_device_t device, const void *mark, const char *code, heed_why_t *why);

/* What hd_cuda_enter changed, for hd_cuda_leave. */
typedef struct hd_cuda_scope {
    int before; /* the thread's current device */
} hd_cuda_scope_t;

/* Makes card `id` the calling thread's current one, and the former one again. */
heed_status_t hd_cuda_use(int id, const char *what, hd_cuda_scope_t *scope);
void hd_cuda_restore(const hd_cuda_scope_t *scope);

/* Checks that the launch's operands are in memory that the device may use, and makes it the calling
 * thread's current device. names[i] is the operand of buffers[i], for sentences. After an error
 * nothing has to be left. Neither call waits for the device. */
heed_status_t hd_cuda_enter(const heed_launch_t *launch, heed_device_t device,
                            const char *const *names, int count, hd_cuda_scope_t *scope);

/* Makes the former device current and returns the status of `error`, a cudaError_t that launching
 * `what` gave. */
heed_status_t hd_cuda_leave(const hd_cuda_scope_t *scope, int error, const char *what);

#ifdef __cplusplus
}
#endif
#endif
