#include "internal.h"

#include <stdio.h>
#include <string.h>

/* The sentence of this thread's latest failure. */
static _Thread_local char last_error[2048];

const char *heed_version(void)
{
    return HEED_VERSION_STRING;
}

const char *heed_last_error(void)
{
    return last_error;
}

const char *heed_status_name(heed_status_t status)
{
    switch (status) {
#define NAME(name, value, text) \
    case name:                  \
        return #name;
        HEED_STATUS_LIST(NAME)
#undef NAME
    }
    return "HEED_STATUS_?";
}

const char *heed_status_text(heed_status_t status)
{
    switch (status) {
#define TEXT(name, value, text) \
    case name:                  \
        return text;
        HEED_STATUS_LIST(TEXT)
#undef TEXT
    }
    return "unknown status";
}

heed_status_t hd_fail(heed_status_t status, const char *format, ...)
{
    /* Built aside: the arguments may point into last_error. */
    char sentence[sizeof(last_error)];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    memcpy(last_error, sentence, sizeof(last_error));
    return status;
}

void hd_keep(hd_kept_t *kept, heed_status_t status)
{
    hd_text_t text = hd_text(kept->sentence, sizeof(kept->sentence));
    kept->status = status;
    hd_text_add(&text, "%s", status == HEED_OK ? "" : last_error);
}

heed_status_t hd_kept(const hd_kept_t *kept)
{
    return kept->status == HEED_OK ? HEED_OK : hd_fail(kept->status, "%s", kept->sentence);
}

bool hd_refuse(heed_why_t *why, heed_status_t status, const char *format, ...)
{
    if (why) {
        va_list args;
        va_start(args, format);
        vsnprintf(why->text, sizeof(why->text), format, args);
        va_end(args);
        why->status = status;
    }
    return false;
}

heed_status_t hd_struct_copy(void *to, size_t to_size, const void *from, size_t smallest,
                             const char *name)
{
    if (!from)
        return hd_fail(HEED_ERROR_NULL, "%s is null", name);
    uint32_t size;
    memcpy(&size, from, sizeof(size));
    if (size < smallest)
        return hd_fail(HEED_ERROR_STRUCT_SIZE, "%s.struct_size=%u, the smallest known is %zu", name,
                       size, smallest);
    const unsigned char *bytes = from;
    for (size_t i = to_size; i < size; i++)
        if (bytes[i])
            return hd_fail(HEED_ERROR_STRUCT_SIZE,
                           "%s.struct_size=%u: this library knows %zu bytes and byte %zu is set",
                           name, size, to_size, i);
    memset(to, 0, to_size);
    memcpy(to, from, size < to_size ? size : to_size);
    uint32_t known = (uint32_t)to_size;
    memcpy(to, &known, sizeof(known));
    return HEED_OK;
}
