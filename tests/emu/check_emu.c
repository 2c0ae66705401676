/* heed-check-emu: the AVX-512 kernels, compiled without AVX-512 (avx512_emu.h), through the
 * checker. They are registered as implementations of a user, under names of their own, and need no
 * instruction set. */
#include "loop.h"

extern const heed_impl_t hd_impl_emu_flash_avx512, hd_impl_emu_flash_avx512bf16;
extern const heed_impl_t hd_impl_emu_cast_avx512, hd_impl_emu_cast_avx512vbmi;
extern const heed_impl_t hd_impl_emu_short_avx512, hd_impl_emu_short_avx512bf16;
extern const heed_impl_t hd_impl_emu_decode_avx512, hd_impl_emu_decode_avx512vbmi;
extern const heed_impl_t hd_impl_emu_flash_amx, hd_impl_emu_flash_split_amx;

static heed_impl_t emulated(const heed_impl_t *kernel, const char *name)
{
    heed_impl_t impl = *kernel;
    impl.name = name;
    impl.required_isa = 0;
    return impl;
}

int main(int argc, char **argv)
{
    heed_impl_t f32 = emulated(&hd_impl_emu_flash_avx512, "cpu:emulated_avx512");
    heed_impl_t bf16 = emulated(&hd_impl_emu_flash_avx512bf16, "cpu:emulated_avx512bf16");
    heed_impl_t short_f32 = emulated(&hd_impl_emu_short_avx512, "cpu:emulated_short_avx512");
    heed_impl_t short_bf16 =
        emulated(&hd_impl_emu_short_avx512bf16, "cpu:emulated_short_avx512bf16");
    heed_impl_t cast = emulated(&hd_impl_emu_cast_avx512, "cpu:emulated_cast_avx512");
    heed_impl_t vbmi = emulated(&hd_impl_emu_cast_avx512vbmi, "cpu:emulated_cast_avx512vbmi");
    heed_impl_t decode = emulated(&hd_impl_emu_decode_avx512, "cpu:emulated_decode_avx512");
    heed_impl_t decode_vbmi =
        emulated(&hd_impl_emu_decode_avx512vbmi, "cpu:emulated_decode_avx512vbmi");
    heed_impl_t amx = emulated(&hd_impl_emu_flash_amx, "cpu:emulated_amx");
    heed_impl_t split = emulated(&hd_impl_emu_flash_split_amx, "cpu:emulated_split_amx");
    const heed_impl_t *const all[] = {&split,  &f32,         &bf16, &short_f32, &short_bf16, &amx,
                                      &decode, &decode_vbmi, &cast, &vbmi,      NULL};
    return kit_loop_main(argc, argv, all);
}
