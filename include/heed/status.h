/* Heed: what every call returns, and the sentence behind it. */
#ifndef HEED_STATUS_H
#define HEED_STATUS_H

#include "version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Groups: -1xx the arguments, -2xx what is not supported, -3xx resources, -4xx a device or rank,
 * -5xx the environment, -9xx a fault of an implementation. Values are pinned: they never change
 * meaning. */
#define HEED_STATUS_LIST(X)                                                            \
    X(HEED_OK, 0, "success")                                                           \
    X(HEED_ERROR_NULL, -101, "a required pointer is null")                             \
    X(HEED_ERROR_STRUCT_SIZE, -102, "a struct has an unknown size")                    \
    X(HEED_ERROR_VALUE, -103, "a field is outside its range")                          \
    X(HEED_ERROR_SHAPE, -104, "a shape is negative, too large or does not match")      \
    X(HEED_ERROR_STRIDE, -105, "strides overlap, overflow or are negative")            \
    X(HEED_ERROR_DTYPE, -106, "a dtype does not fit its place")                        \
    X(HEED_ERROR_ALIGNMENT, -107, "an address is not aligned to its element")          \
    X(HEED_ERROR_SYNTAX, -108, "a problem string cannot be read")                      \
    X(HEED_ERROR_UNSUPPORTED, -201, "no implementation takes this problem")            \
    X(HEED_ERROR_UNKNOWN_IMPL, -202, "no implementation or operation has this name")   \
    X(HEED_ERROR_NAME_TAKEN, -203, "an implementation with this name exists")          \
    X(HEED_ERROR_NO_DEVICE, -204, "the device is not there")                           \
    X(HEED_ERROR_FALLBACK, -205, "the policy forbids falling back to another device")  \
    X(HEED_ERROR_OUT_OF_MEMORY, -301, "memory could not be allocated")                 \
    X(HEED_ERROR_WORKSPACE, -302, "the workspace is missing, too small or misaligned") \
    X(HEED_ERROR_DEVICE, -401, "a device reported a failure")                          \
    X(HEED_ERROR_COMM, -402, "another rank failed or did not answer in time")          \
    X(HEED_ERROR_ENVIRONMENT, -501, "an environment variable has an unknown value")    \
    X(HEED_ERROR_INTERNAL, -901, "an implementation broke its contract")

typedef enum heed_status {
#define HEED_STATUS_ENUM_(name, value, text) name = value,
    HEED_STATUS_LIST(HEED_STATUS_ENUM_)
#undef HEED_STATUS_ENUM_
} heed_status_t;

/* The constant's name, such as "HEED_ERROR_SHAPE"; "HEED_STATUS_?" for an unknown value. Static. */
HEED_API const char *heed_status_name(heed_status_t status);

/* What the status means in general, in a few words. Static. */
HEED_API const char *heed_status_text(heed_status_t status);

/* The sentence of this thread's latest failed call, naming the field and the values, such as
 * "k.shape[3]=96, but q.shape[3]=64". Empty before the first failure; valid until the next failing
 * call of this thread. A call that succeeds leaves it as it was. */
HEED_API const char *heed_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
