/* A plugin for tests: one card that does not exist, and an implementation that runs on the host.
 * Each FAKE_ macro spoils one thing. */
#include "backend.h"

#include <stdio.h>
#include <string.h>

#ifndef FAKE_ABI
#define FAKE_ABI HD_BACKEND_ABI
#endif
#ifndef FAKE_SIZE
#define FAKE_SIZE sizeof(hd_backend_t)
#endif
#ifndef FAKE_VERSION
#define FAKE_VERSION HEED_VERSION_STRING
#endif

static const hd_host_t *host;

static int detect(heed_device_info_t *infos, int max, char *why, size_t why_size)
{
    if (max < 1)
        return 0;
    snprintf(why, why_size, "cuda:1, Fake 7000, is too old");
    memset(infos, 0, sizeof(*infos));
    infos->struct_size = sizeof(*infos);
    infos->device.type = HEED_DEVICE_CUDA;
    infos->threads = 1;
    infos->compute_major = 9;
    infos->multiprocessors = 132;
    infos->clock_khz = 1980000;
    infos->shared_bytes = 227 * 1024;
    infos->driver_version = 12040;
    infos->runtime_version = 13000;
    infos->memory_bytes = INT64_C(80) << 30;
    infos->cache_count = 1;
    infos->caches[0].level = 2;
    infos->caches[0].sharing = 132;
    infos->caches[0].bytes = 50 << 20;
    snprintf(infos->name, sizeof(infos->name), "Fake 9000");
    return 1;
}

/* Fails with the address of its stream: what the host was told comes back as the sentence. */
static heed_status_t run(const heed_launch_t *launch)
{
    char sentence[64];
    snprintf(sentence, sizeof(sentence), "the stream is %p", launch->stream.native);
    return host->fail(HEED_ERROR_DEVICE, sentence);
}

static const heed_impl_t impl = {
    .struct_size = sizeof(heed_impl_t),
    .op = "attention",
    .name = "cuda:fake",
    .about = "says where it was to run",
    .device_type = HEED_DEVICE_CUDA,
    .features = HEED_ATTENTION_CAN_PLAIN,
    .run = run,
};
static const heed_impl_t *const impls[] = {&impl};

static const hd_backend_t backend = {
    .abi = FAKE_ABI,
    .struct_size = FAKE_SIZE,
    .version = FAKE_VERSION,
    .name = "cuda",
    .build = "fake",
    .device_type = HEED_DEVICE_CUDA,
    .impl_count = 1,
    .impls = impls,
    .detect = detect,
    .device = &(const hd_device_calls_t){0},
};

#ifndef FAKE_ENTER
#define FAKE_ENTER heed_plugin_v1
#endif
hd_backend_enter_t FAKE_ENTER;

const hd_backend_t *FAKE_ENTER(const hd_host_t *from)
{
    host = from;
    return from ? &backend : NULL;
}
