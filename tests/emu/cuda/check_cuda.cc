/* heed-check-cuda: the CUDA kernels, compiled for the emulator, through the checker. They are
 * registered as implementations of a user that run on the CPU; any message of the emulator makes a
 * run fail. */
#include "simt_emu.h"

#include "../../../src/cuda/cuda.h"

#include <stdarg.h>
#include <stdio.h>

extern "C" {
#include "loop.h"

heed_status_t hd_fail(heed_status_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#define HEED_OP(name)
#define HEED_IMPL(op, symbol)
#define HEED_CUDA_IMPL(op, symbol) extern const heed_impl_t hd_impl_emu_##symbol;
#include "../../../src/common/impls.def"
#undef HEED_CUDA_IMPL
}

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
static uint64_t seed_of(const heed_launch_t *launch)
{
    /* Every descriptor starts with its size and its first two tensors. */
    const heed_cast_desc_t *desc = (const heed_cast_desc_t *)launch->desc;
    const heed_tensor_t *tensors[] = {&desc->src, &desc->dst};
    uint64_t seed = (uint64_t)launch->threads;
    for (const heed_tensor_t *tensor : tensors)
        for (int i = 0; i < tensor->ndim; i++)
            seed = seed * 1000003 + (uint64_t)tensor->shape[i];
    return seed;
}

heed_status_t hd_cuda_fail(heed_status_t status, const char *format, ...)
{
    char sentence[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    return hd_fail(status, "%s", sentence);
}

heed_status_t hd_cuda_enter(const heed_launch_t *launch, heed_device_t, const char *const *, int,
                            hd_cuda_scope_t *)
{
    emu::config config;
    config.seed = seed_of(launch);
    config.resident = 1 + (int)(config.seed / 2 % 3);
    emu::set_config(config);
    return HEED_OK;
}

heed_status_t hd_cuda_leave(const hd_cuda_scope_t *, int error, const char *what)
{
    if (!error)
        return HEED_OK;
    return hd_fail(HEED_ERROR_INTERNAL, "%s: %s", what, emu::message(0));
}

/* ---- implementations ------------------------------------------------------------------------- */

/* The card that kernels are asked about: a Hopper one with as much as an H200 has. */
static heed_device_info_t card(const heed_device_info_t *host)
{
    heed_device_info_t device = *host;
    device.compute_major = 9;
    device.compute_minor = 0;
    device.multiprocessors = 4;
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
    return &copy;
}

int main(int argc, char **argv)
{
    const heed_impl_t *const all[] = {
#define HEED_CUDA_IMPL(op, symbol) emulated<&hd_impl_emu_##symbol>(),
#include "../../../src/common/impls.def"
        NULL};
    return kit_loop_main(argc, argv, all);
}
