/* The host's side of the CUDA kernels in the emulator: what src/cuda/backend.c and its neighbours
 * are to them on a card, and the kernels as implementations of a user that run on the CPU. Any
 * message of the emulator makes a run fail. */
#include "emulated.h"
#include "simt_emu.h"

#include "../../../src/cuda/cuda.h"
#include "../../../src/cuda/tensor_map.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <vector>

extern "C" {
#include "../../../src/common/tiles.h"

heed_status_t hd_fail(heed_status_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#define HEED_OP(name)
#define HEED_IMPL(op, symbol)
#define HEED_CUDA_IMPL(op, symbol) extern const heed_impl_t hd_impl_emu_##symbol;
#include "../../../src/common/impls.def"
#undef HEED_CUDA_IMPL
}

enum { MULTIPROCESSORS = 4 }; /* of the card that kernels are asked about */

/* ---- the host's side of src/cuda/cuda.h ------------------------------------------------------ */

int hd_cuda_refuse(heed_why_t *why, heed_status_t status, const char *format, ...)
{
    if (!why)
        return 0;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why->text, sizeof(why->text), format, arguments);
    va_end(arguments);
    why->status = status;
    return 0;
}

/* The schedule follows from the problem's shape, so that a repeated problem fails again. */
static uint64_t seed_of(const char *op, const void *desc, int threads)
{
    const heed_attention_desc_t *attention = (const heed_attention_desc_t *)desc;
    const heed_cast_desc_t *cast = (const heed_cast_desc_t *)desc;
    bool is_cast = strcmp(op, "cast") == 0;
    const heed_tensor_t *const tensors[] = {is_cast ? &cast->src : &attention->q,
                                            is_cast ? &cast->dst : &attention->k};
    uint64_t seed = (uint64_t)threads;
    for (const heed_tensor_t *tensor : tensors)
        for (int i = 0; i < tensor->ndim; i++)
            seed = seed * 1000003 + (uint64_t)tensor->shape[i];
    return seed;
}

/* Of the problem that runs. */
static uint64_t seed;

heed_status_t hd_cuda_fail(heed_status_t status, const char *format, ...)
{
    char sentence[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    return hd_fail(status, "%s", sentence);
}

heed_status_t hd_cuda_use(int, const char *, hd_cuda_scope_t *)
{
    return HEED_OK;
}

void hd_cuda_restore(const hd_cuda_scope_t *)
{
}

heed_status_t hd_cuda_enter(const heed_launch_t *, heed_device_t, const char *const *, int,
                            hd_cuda_scope_t *)
{
    emu::config config;
    config.seed = seed;
    config.resident = 1 + (int)(config.seed / 2 % 3);
    config.multiprocessors = MULTIPROCESSORS;
    config.e4m3_bits = 13;
    config.e4m3_chain = 18; /* products of 32 keys: what attention_rounding.c allows for, and 2 */
    /* Every third problem on a card with less shared memory, like those of 8.6 and 8.9. */
    if (config.seed / 6 % 3 == 0)
        config.shared_limit = 99 * 1024;
    emu::set_config(config);
    return HEED_OK;
}

heed_status_t hd_cuda_leave(const hd_cuda_scope_t *, int error, const char *what)
{
    if (!error)
        return HEED_OK;
    return hd_fail(HEED_ERROR_INTERNAL, "%s: %s", what, emu::message(0));
}

int hd_cuda_multiprocessors(heed_device_t)
{
    return MULTIPROCESSORS;
}

/* As src/cuda/tensor_map.c, with what the driver would say in place of its number. */
heed_status_t hd_cuda_tensor_map(hd_tensor_map_t *map, const hd_map_desc_t *desc, const char *name)
{
    if ((uintptr_t)desc->data % 16)
        return hd_cuda_fail(HEED_ERROR_ALIGNMENT, "%s at %p is not aligned to 16 bytes", name,
                            desc->data);
    for (int i = 1; i < HD_MAP_AXES; i++)
        if (desc->strides[i] % 16)
            return hd_cuda_fail(HEED_ERROR_ALIGNMENT,
                                "%s: a stride of %lld bytes is no multiple of 16", name,
                                (long long)desc->strides[i]);
    const char *complaint = emu::encode_map(map, desc);
    return complaint ? hd_cuda_fail(HEED_ERROR_DEVICE, "%s: no tensor map: %s", name, complaint)
                     : HEED_OK;
}

/* ---- implementations ------------------------------------------------------------------------- */

/* The card that kernels are asked about: a Hopper one with as much as an H200 has. */
static heed_device_info_t card(const heed_device_info_t *host)
{
    heed_device_info_t device = *host;
    device.compute_major = 9;
    device.compute_minor = 0;
    device.multiprocessors = MULTIPROCESSORS;
    device.shared_bytes = 232448;
    return device;
}

template <const heed_impl_t *impl>
static int supports(const void *desc, const heed_device_info_t *host, heed_why_t *why)
{
    heed_device_info_t device = card(host);
    return !impl->supports || impl->supports(desc, &device, why);
}

template <const heed_impl_t *impl>
static size_t workspace(const void *desc, const heed_device_info_t *host, int32_t threads)
{
    heed_device_info_t device = card(host);
    return impl->workspace ? impl->workspace(desc, &device, threads) : 0;
}

/* With a tile list, as a plan of a device launches it: the list is in one block of its own, and the
 * descriptor's, host memory that no kernel may read, leads nowhere. */
template <const heed_impl_t *impl> static heed_status_t run(const heed_launch_t *launch)
{
    const heed_attention_desc_t *desc = (const heed_attention_desc_t *)launch->desc;
    seed = seed_of(impl->op, desc, launch->threads);
    if (strcmp(impl->op, "attention") != 0 || !desc->tiles)
        return impl->run(launch);
    std::vector<uint64_t> image(hd_tiles_placed_bytes(desc->tiles) / sizeof(uint64_t));
    hd_tiles_place(desc->tiles, (char *)image.data(), (uintptr_t)image.data());
    heed_tile_list_t blind = *desc->tiles;
    blind.row_start = NULL;
    blind.column = blind.mask = NULL;
    blind.bits = NULL;
    heed_attention_desc_t on_card = *desc;
    on_card.tiles = &blind;
    heed_launch_t placed = *launch;
    placed.desc = &on_card;
    placed.tiles = (const heed_tile_list_t *)(const void *)image.data();
    return impl->run(&placed);
}

/* cuda:NAME as cpu:emulated_cuda_NAME. */
template <const heed_impl_t *impl> static const heed_impl_t *emulated()
{
    static char name[64];
    static heed_impl_t copy = *impl;
    snprintf(name, sizeof(name), "cpu:emulated_cuda_%s", impl->name + sizeof("cuda:") - 1);
    copy.name = name;
    copy.device_type = HEED_DEVICE_CPU;
    copy.supports = supports<impl>;
    copy.workspace = workspace<impl>;
    copy.estimate = NULL;
    copy.run = run<impl>;
    return &copy;
}

const heed_impl_t *const *emulated_impls()
{
    static const heed_impl_t *const all[] = {
#define HEED_CUDA_IMPL(op, symbol) emulated<&hd_impl_emu_##symbol>(),
#include "../../../src/common/impls.def"
        NULL};
    /* From here on src/cuda/cublas.c finds the one of tests/cuda. */
    if (dlopen(HEED_FAKE_CUBLAS, RTLD_NOW | RTLD_LOCAL))
        return all;
    fprintf(stderr, "%s\n", dlerror());
    return NULL;
}
