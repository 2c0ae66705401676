/* Heed: version and symbol visibility. */
#ifndef HEED_VERSION_H
#define HEED_VERSION_H

#define HEED_VERSION_MAJOR 0
#define HEED_VERSION_MINOR 1
#define HEED_VERSION_PATCH 0

#define HEED_STRINGIFY_(x) #x
#define HEED_STRINGIFY(x)  HEED_STRINGIFY_(x)
#define HEED_VERSION_STRING            \
    HEED_STRINGIFY(HEED_VERSION_MAJOR) \
    "." HEED_STRINGIFY(HEED_VERSION_MINOR) "." HEED_STRINGIFY(HEED_VERSION_PATCH)

/* Marks what the shared library exports. */
#define HEED_API __attribute__((visibility("default")))
/* A status must be looked at. */
#define HEED_MUST_USE __attribute__((warn_unused_result))

#ifdef __cplusplus
extern "C" {
#endif

/* "MAJOR.MINOR.PATCH" of the library that is running, which may be newer than these headers.
 * Never fails; the string is static. Any thread. */
HEED_API const char *heed_version(void);

#ifdef __cplusplus
}
#endif
#endif
