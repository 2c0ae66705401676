/* The CUDA backend on the host: which cards there are, what their errors mean in words, where an
 * operand's memory lies. The runtime is linked in statically and finds the driver by itself:
 * without one, detection says so and nothing else happens. */
#include "../common/backend.h"
#include "host.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const hd_host_t *host;

heed_status_t hd_cuda_fail(heed_status_t status, const char *format, ...)
{
    char sentence[512];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    return host->fail(status, sentence);
}

int hd_cuda_refuse(heed_why_t *why, heed_status_t status, const char *format, ...)
{
    if (!why)
        return 0;
    va_list args;
    va_start(args, format);
    vsnprintf(why->text, sizeof(why->text), format, args);
    va_end(args);
    why->status = status;
    return 0;
}

/* ---- the machine ----------------------------------------------------------------------------- */

static int attribute(int id, enum cudaDeviceAttr which)
{
    int value = 0;
    return cudaDeviceGetAttribute(&value, which, id) == cudaSuccess ? value : 0;
}

int hd_cuda_multiprocessors(heed_device_t device)
{
    int count = attribute(device.id, cudaDevAttrMultiProcessorCount);
    return count > 0 ? count : 1;
}

static void version_text(int version, char *text, size_t size)
{
    snprintf(text, size, "%d.%d", version / 1000, version % 1000 / 10);
}

/* Why no device could be counted. */
static void explain(cudaError_t error, char *why, size_t size)
{
    int driver = 0;
    char of_driver[16], of_runtime[16];
    if (cudaDriverGetVersion(&driver) != cudaSuccess)
        driver = 0;
    version_text(driver, of_driver, sizeof(of_driver));
    version_text(CUDART_VERSION, of_runtime, sizeof(of_runtime));
    if (error == cudaErrorInsufficientDriver && driver == 0)
        snprintf(why, size,
                 "no NVIDIA driver is installed (the CUDA backend needs one for CUDA %s)",
                 of_runtime);
    else if (error == cudaErrorInsufficientDriver)
        snprintf(why, size, "the NVIDIA driver is too old: it is for CUDA %s, the backend for %s",
                 of_driver, of_runtime);
    else if (error == cudaErrorNoDevice)
        snprintf(why, size, "the NVIDIA driver finds no card that this process may use");
    else
        snprintf(why, size, "CUDA could not be started: %s (%s)", cudaGetErrorString(error),
                 cudaGetErrorName(error));
}

static cudaError_t describe(int id, heed_device_info_t *info)
{
    struct cudaDeviceProp properties;
    cudaError_t error = cudaGetDeviceProperties(&properties, id);
    if (error != cudaSuccess)
        return error;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    info->device.type = HEED_DEVICE_CUDA;
    info->device.id = id;
    snprintf(info->name, sizeof(info->name), "%.*s", (int)sizeof(info->name) - 1, properties.name);
    snprintf(info->topology, sizeof(info->topology), "cuda");
    info->threads = 1;
    info->memory_bytes = (int64_t)properties.totalGlobalMem;
    info->compute_major = properties.major;
    info->compute_minor = properties.minor;
    info->multiprocessors = properties.multiProcessorCount;
    info->clock_khz = attribute(id, cudaDevAttrClockRate);
    info->shared_bytes = (int32_t)properties.sharedMemPerBlockOptin;
    info->runtime_version = CUDART_VERSION;
    if (cudaDriverGetVersion(&info->driver_version) != cudaSuccess)
        info->driver_version = 0;
    /* Both edges of the clock carry data. */
    info->memory_bandwidth = 2 * INT64_C(1000) * attribute(id, cudaDevAttrMemoryClockRate) *
                             attribute(id, cudaDevAttrGlobalMemoryBusWidth) / 8;
    if (properties.l2CacheSize > 0) {
        info->cache_count = 1;
        info->caches[0].level = 2;
        info->caches[0].sharing = properties.multiProcessorCount;
        info->caches[0].bytes = properties.l2CacheSize;
    }
    return cudaSuccess;
}

static int is_new_enough(const heed_device_info_t *info)
{
    return info->compute_major > HD_CUDA_MIN_MAJOR ||
           (info->compute_major == HD_CUDA_MIN_MAJOR && info->compute_minor >= HD_CUDA_MIN_MINOR);
}

/* Adds card `id` to infos, or says why not; the last reason is kept. */
static int add_card(int id, heed_device_info_t *info, char *why, size_t why_size)
{
    cudaError_t error = describe(id, info);
    if (error != cudaSuccess) {
        snprintf(why, why_size, "cuda:%d cannot be asked: %s", id, cudaGetErrorString(error));
        return 0;
    }
    if (is_new_enough(info))
        return 1;
    snprintf(why, why_size, "cuda:%d, %s, has compute capability %d.%d: Heed needs %d.%d", id,
             info->name, info->compute_major, info->compute_minor, HD_CUDA_MIN_MAJOR,
             HD_CUDA_MIN_MINOR);
    return 0;
}

static int detect(heed_device_info_t *infos, int max, char *why, size_t why_size)
{
    int cards = 0, count = 0;
    snprintf(why, why_size, "%s", "");
    cudaError_t error = cudaGetDeviceCount(&cards);
    if (error == cudaSuccess && cards == 0)
        error = cudaErrorNoDevice;
    if (error != cudaSuccess) {
        explain(error, why, why_size);
        return 0;
    }
    for (int id = 0; id < cards; id++) {
        if (count == max) {
            snprintf(why, why_size, "there are %d cards: Heed uses at most %d", cards, max);
            break;
        }
        count += add_card(id, &infos[count], why, why_size);
    }
    return count;
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* Whether every later call of this process on the card will fail too. */
static int is_sticky(cudaError_t error)
{
    switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
        return 1;
    default:
        return 0;
    }
}

heed_status_t hd_cuda_status(cudaError_t error, int id, const char *what)
{
    const char *words = cudaGetErrorString(error), *name = cudaGetErrorName(error);
    if (error == cudaSuccess)
        return HEED_OK;
    /* An error that is not sticky is told once, here, and not again by the runtime. */
    (void)cudaGetLastError();
    if (error == cudaErrorMemoryAllocation)
        return hd_cuda_fail(HEED_ERROR_OUT_OF_MEMORY, "%s: cuda:%d is out of memory", what, id);
    if (error == cudaErrorNoKernelImageForDevice)
        return hd_cuda_fail(HEED_ERROR_UNSUPPORTED, "%s: the backend holds no code for cuda:%d",
                            what, id);
    if (is_sticky(error))
        return hd_cuda_fail(HEED_ERROR_DEVICE,
                            "%s: cuda:%d has failed, and this process can use it no more: %s (%s)",
                            what, id, words, name);
    return hd_cuda_fail(HEED_ERROR_DEVICE, "%s failed on cuda:%d: %s (%s)", what, id, words, name);
}

heed_status_t hd_cuda_use(int id, const char *what, hd_cuda_scope_t *scope)
{
    cudaError_t error = cudaGetDevice(&scope->before);
    if (error == cudaSuccess && scope->before != id)
        error = cudaSetDevice(id);
    return hd_cuda_status(error, id, what);
}

void hd_cuda_restore(const hd_cuda_scope_t *scope)
{
    int now = scope->before;
    if (cudaGetDevice(&now) == cudaSuccess && now != scope->before)
        (void)cudaSetDevice(scope->before);
}

int hd_cuda_has_mark(heed_device_t device, const void *mark, const char *code, heed_why_t *why)
{
    struct cudaFuncAttributes attributes;
    hd_cuda_scope_t scope;
    if (hd_cuda_use(device.id, "asking for a kernel", &scope) != HEED_OK)
        return hd_cuda_refuse(why, HEED_ERROR_DEVICE, "cuda:%d cannot be used", device.id);
    cudaError_t error = cudaFuncGetAttributes(&attributes, mark);
    hd_cuda_restore(&scope);
    if (error == cudaSuccess && attributes.maxThreadsPerBlock == HD_CUDA_MARK_THREADS)
        return 1;
    (void)cudaGetLastError();
    if (error != cudaSuccess && error != cudaErrorNoKernelImageForDevice)
        return hd_cuda_refuse(why, HEED_ERROR_DEVICE, "asking cuda:%d for a kernel: %s", device.id,
                              cudaGetErrorString(error));
    return hd_cuda_refuse(why, HEED_ERROR_UNSUPPORTED,
                          "needs machine code for %s, which cuda:%d would not load: this library "
                          "was built without, or the driver is told to compile PTX",
                          code, device.id);
}

/* ---- launching ------------------------------------------------------------------------------- */

/* Whether a kernel on the device may use this address. */
static heed_status_t check_operand(const char *name, const void *at, int id)
{
    struct cudaPointerAttributes attributes;
    cudaError_t error = cudaPointerGetAttributes(&attributes, at);
    if (error != cudaSuccess)
        return hd_cuda_status(error, id, "asking where an operand lies");
    if (attributes.type == cudaMemoryTypeUnregistered)
        return hd_cuda_fail(HEED_ERROR_VALUE, "%s at %p is host memory, but cuda:%d is to use it",
                            name, at, id);
    if (attributes.type == cudaMemoryTypeDevice && attributes.device != id)
        return hd_cuda_fail(HEED_ERROR_VALUE, "%s at %p lies on cuda:%d, but cuda:%d is to use it",
                            name, at, attributes.device, id);
    return HEED_OK;
}

static heed_status_t check_operands(const heed_launch_t *launch, int id, const char *const *names,
                                    int count)
{
    heed_status_t status = HEED_OK;
    for (int i = 0; i < count && status == HEED_OK; i++)
        if (launch->buffers[i])
            status = check_operand(names[i], launch->buffers[i], id);
    if (status == HEED_OK && launch->workspace)
        status = check_operand("workspace", launch->workspace, id);
    return status;
}

/* While a stream is captured into a graph, nothing is asked that CUDA does not document as safe
 * then: asking where memory lies is not among that. */
static heed_status_t is_capturing(void *stream, int id, int *capturing)
{
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    cudaError_t error = cudaStreamIsCapturing((cudaStream_t)stream, &capture);
    *capturing = capture != cudaStreamCaptureStatusNone;
    if (error == cudaErrorStreamCaptureImplicit) {
        (void)cudaGetLastError();
        return hd_cuda_fail(HEED_ERROR_VALUE,
                            "stream is cuda:%d's default one, which cannot be used while another "
                            "is captured into a graph",
                            id);
    }
    return hd_cuda_status(error, id, "asking about a stream");
}

heed_status_t hd_cuda_enter(const heed_launch_t *launch, heed_device_t device,
                            const char *const *names, int count, hd_cuda_scope_t *scope)
{
    int capturing = 0;
    heed_status_t status = hd_cuda_use(device.id, "a launch", scope);
    if (status != HEED_OK)
        return status;
    status = is_capturing(launch->stream.native, device.id, &capturing);
    if (status == HEED_OK && !capturing)
        status = check_operands(launch, device.id, names, count);
    if (status != HEED_OK)
        hd_cuda_restore(scope);
    return status;
}

heed_status_t hd_cuda_leave(const hd_cuda_scope_t *scope, int error, const char *what)
{
    int now = scope->before;
    (void)cudaGetDevice(&now);
    hd_cuda_restore(scope);
    return hd_cuda_status((cudaError_t)error, now, what);
}

heed_status_t hd_cuda_check(int32_t id, const char *name, const void *at, void *stream)
{
    int capturing = 0;
    hd_cuda_scope_t scope;
    heed_status_t status = hd_cuda_use(id, "asking where an operand lies", &scope);
    if (status != HEED_OK)
        return status;
    status = is_capturing(stream, id, &capturing);
    if (status == HEED_OK && !capturing)
        status = check_operand(name, at, id);
    hd_cuda_restore(&scope);
    return status;
}

/* ---- the backend ----------------------------------------------------------------------------- */

#define HEED_OP(name)
#define HEED_IMPL(op, symbol)
#define HEED_CUDA_IMPL(op, symbol) extern const heed_impl_t hd_impl_##symbol;
#include "../common/impls.def"
#undef HEED_CUDA_IMPL

static const heed_impl_t *const impls[] = {
#define HEED_CUDA_IMPL(op, symbol) &hd_impl_##symbol,
#include "../common/impls.def"
};

extern const hd_device_calls_t hd_cuda_device_calls; /* memory.c */

static const hd_backend_t backend = {
    .abi = HD_BACKEND_ABI,
    .struct_size = sizeof(hd_backend_t),
    .version = HEED_VERSION_STRING,
    .name = "cuda",
    .build = HD_CUDA_BUILD,
    .device_type = HEED_DEVICE_CUDA,
    .impl_count = sizeof(impls) / sizeof(impls[0]),
    .impls = impls,
    .detect = detect,
    .device = &hd_cuda_device_calls,
};

hd_backend_enter_t hd_cuda_backend;

const hd_backend_t *hd_cuda_backend(const hd_host_t *from)
{
    host = from;
    return &backend;
}
