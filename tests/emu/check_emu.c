/* heed-check-emu: kernels for AVX-512 and AMX, compiled without either (avx512_emu.h, amx_emu.h),
 * through the checker. They are registered as implementations of a user, under names of their own,
 * and need no instruction set. */
#include "loop.h"

#define EMULATED(X)      \
    X(decode_avx512)     \
    X(decode_avx512vbmi) \
    X(decode_amx)        \
    X(flash_amx)         \
    X(flash_split_amx)   \
    X(short_avx512bf16)  \
    X(flash_avx512bf16)  \
    X(short_avx512)      \
    X(flash_avx512)      \
    X(cast_avx512vbmi)   \
    X(cast_avx512)

#define DECLARE(name) extern const heed_impl_t hd_impl_emu_##name;
EMULATED(DECLARE)
#undef DECLARE

static heed_impl_t emulated(const heed_impl_t *kernel, const char *name)
{
    heed_impl_t impl = *kernel;
    impl.name = name;
    impl.required_isa = 0;
    return impl;
}

int main(int argc, char **argv)
{
#define COPY(name) emulated(&hd_impl_emu_##name, "cpu:emulated_" #name),
    const heed_impl_t copies[] = {EMULATED(COPY)};
#undef COPY
    const heed_impl_t *all[sizeof(copies) / sizeof(copies[0]) + 1] = {NULL};
    for (size_t i = 0; i < sizeof(copies) / sizeof(copies[0]); i++)
        all[i] = &copies[i];
    return kit_loop_main(argc, argv, all);
}
