/* What -fsanitize=thread calls in a kernel's file, without the library that usually goes with it.
 */
#include "state.h"

static bool instrumented;

namespace emu
{
bool is_instrumented()
{
    return instrumented;
}
} // namespace emu

#if !EMU_ASAN /* the two kinds of instrumentation exclude each other */

#define HOOK(name, bytes)                           \
    void __tsan_##name##read##bytes(void *at)       \
    {                                               \
        emu::saw_read(at, bytes, EMU_SITE);         \
    }                                               \
    void __tsan_##name##write##bytes(void *at)      \
    {                                               \
        emu::saw_write(at, bytes, EMU_SITE);        \
    }                                               \
    void __tsan_##name##read_write##bytes(void *at) \
    {                                               \
        emu::saw_read(at, bytes, EMU_SITE);         \
        emu::saw_write(at, bytes, EMU_SITE);        \
    }

extern "C" {

HOOK(, 1)
HOOK(, 2)
HOOK(, 4)
HOOK(, 8)
HOOK(, 16)
HOOK(unaligned_, 2)
HOOK(unaligned_, 4)
HOOK(unaligned_, 8)
HOOK(unaligned_, 16)

void __tsan_read_range(void *at, size_t bytes)
{
    emu::saw_read(at, bytes, EMU_SITE);
}
void __tsan_write_range(void *at, size_t bytes)
{
    emu::saw_write(at, bytes, EMU_SITE);
}
void *__tsan_memcpy(void *to, const void *from, size_t bytes)
{
    emu::saw_read(from, bytes, EMU_SITE);
    emu::saw_write(to, bytes, EMU_SITE);
    return memcpy(to, from, bytes);
}
void *__tsan_memmove(void *to, const void *from, size_t bytes)
{
    emu::saw_read(from, bytes, EMU_SITE);
    emu::saw_write(to, bytes, EMU_SITE);
    return memmove(to, from, bytes);
}
void *__tsan_memset(void *to, int value, size_t bytes)
{
    emu::saw_write(to, bytes, EMU_SITE);
    return memset(to, value, bytes);
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit()
{
}
void __tsan_vptr_update(void **, void *)
{
}
void __tsan_vptr_read(void **)
{
}
/* Called before main by every instrumented file. */
void __tsan_init()
{
    instrumented = true;
}

} // extern "C"

#endif
