#define _GNU_SOURCE
#include "fake_runtime.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCKS = 256, PENDING = 256 };

static const size_t arena_bytes = (size_t)1 << 32;

fake_machine_t fake;

typedef struct block {
    char *at;
    size_t bytes; /* 0: free slot */
} block_t;

static char *arenas[FAKE_CARDS];
static block_t blocks[FAKE_CARDS][BLOCKS];
static size_t used[FAKE_CARDS]; /* bytes up to the end of the last block */

static struct {
    void *to;
    const void *from;
    size_t bytes;
} pending[PENDING];
static int pending_count;

/* The library makes its first context before any test can ask. */
__attribute__((constructor)) static void begin(void)
{
    fake_reset();
}

void fake_reset(void)
{
    memset(&fake, 0, sizeof(fake));
    memset(blocks, 0, sizeof(blocks));
    memset(used, 0, sizeof(used));
    pending_count = 0;
    fake.cards = 1;
    fake.driver = 13000;
    fake.memory = (size_t)1 << 28;
    for (int i = 0; i < FAKE_CARDS; i++)
        fake.major[i] = 9;
}

/* ---- every call ------------------------------------------------------------------------------ */

static cudaError_t called(const char *name, int allowed_in_capture)
{
    if (fake.captured && !allowed_in_capture && !fake.not_captured)
        fake.not_captured = name;
    if (fake.sticky != cudaSuccess)
        return fake.sticky;
    return fake.failing && strcmp(fake.failing, name) == 0 ? fake.failure : cudaSuccess;
}

#define CALLED(allowed)                                  \
    do {                                                 \
        cudaError_t called_ = called(__func__, allowed); \
        if (called_ != cudaSuccess)                      \
            return called_;                              \
    } while (0)

/* ---- memory ---------------------------------------------------------------------------------- */

static void protect(int how)
{
    for (int card = 0; card < FAKE_CARDS; card++)
        if (arenas[card] && used[card])
            (void)mprotect(arenas[card], used[card], how);
}

static int card_of(const void *at)
{
    for (int card = 0; card < FAKE_CARDS; card++)
        for (int i = 0; arenas[card] && i < BLOCKS; i++)
            if (blocks[card][i].bytes && (const char *)at >= blocks[card][i].at &&
                (const char *)at < blocks[card][i].at + blocks[card][i].bytes)
                return card;
    return -1;
}

/* The lowest free place, after one of the blocks or at the beginning. */
static char *find_place(int card, size_t bytes)
{
    char *best = NULL;
    for (int i = -1; i < BLOCKS; i++) {
        if (i >= 0 && !blocks[card][i].bytes)
            continue;
        char *at = i < 0 ? arenas[card] : blocks[card][i].at + blocks[card][i].bytes;
        int free_there = at + bytes <= arenas[card] + fake.memory;
        for (int j = 0; j < BLOCKS && free_there; j++)
            free_there = !blocks[card][j].bytes || at + bytes <= blocks[card][j].at ||
                         at >= blocks[card][j].at + blocks[card][j].bytes;
        if (free_there && (!best || at < best))
            best = at;
    }
    return best;
}

static cudaError_t allocate(void **memory, size_t bytes)
{
    int card = fake.current, slot = 0;
    bytes = (bytes + 4095) / 4096 * 4096;
    *memory = NULL;
    if (!arenas[card]) {
        void *map =
            mmap(NULL, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        arenas[card] = map == MAP_FAILED ? NULL : map;
    }
    while (slot < BLOCKS && blocks[card][slot].bytes)
        slot++;
    char *at = arenas[card] && slot < BLOCKS ? find_place(card, bytes) : NULL;
    if (!at)
        return cudaErrorMemoryAllocation;
    blocks[card][slot] = (block_t){at, bytes};
    if (at + bytes > arenas[card] + used[card])
        used[card] = (size_t)(at + bytes - arenas[card]);
    fake.allocations++;
    *memory = at;
    return cudaSuccess;
}

static cudaError_t give_back(void *memory)
{
    for (int card = 0; card < FAKE_CARDS; card++)
        for (int i = 0; i < BLOCKS; i++)
            if (memory && blocks[card][i].bytes && blocks[card][i].at == memory) {
                blocks[card][i].bytes = 0;
                fake.allocations--;
                return cudaSuccess;
            }
    return memory ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    CALLED(0);
    return allocate(memory, bytes);
}

cudaError_t cudaFree(void *memory)
{
    CALLED(0);
    return give_back(memory);
}

cudaError_t cudaMallocAsync(void **memory, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    CALLED(0);
    return fake.no_pools ? cudaErrorNotSupported : allocate(memory, bytes);
}

cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream)
{
    (void)stream;
    CALLED(0);
    return fake.no_pools ? cudaErrorNotSupported : give_back(memory);
}

/* Whether every byte is a card's, or none is. */
static int is_whole(const void *at, size_t bytes)
{
    return card_of(at) == card_of((const char *)at + bytes - 1);
}

static void arrive(void)
{
    protect(PROT_READ | PROT_WRITE);
    for (int i = 0; i < pending_count; i++)
        memcpy(pending[i].to, pending[i].from, pending[i].bytes);
    protect(PROT_NONE);
    pending_count = 0;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)stream;
    CALLED(1);
    if (kind != cudaMemcpyDefault || !is_whole(to, bytes) || !is_whole(from, bytes))
        return cudaErrorInvalidValue;
    if (card_of(to) < 0 && pending_count < PENDING) {
        pending[pending_count].to = to;
        pending[pending_count].from = from;
        pending[pending_count++].bytes = bytes;
        return cudaSuccess;
    }
    protect(PROT_READ | PROT_WRITE);
    memmove(to, from, bytes);
    protect(PROT_NONE);
    return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    (void)stream;
    CALLED(1);
    if (kind != cudaMemcpyDeviceToDevice || to_pitch < width || from_pitch < width || !width ||
        !height)
        return cudaErrorInvalidValue;
    if (card_of(to) < 0 || card_of(from) < 0 || !is_whole(to, (height - 1) * to_pitch + width) ||
        !is_whole(from, (height - 1) * from_pitch + width))
        return cudaErrorInvalidValue;
    protect(PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < height; i++)
        memcpy((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width);
    protect(PROT_NONE);
    return cudaSuccess;
}

/* Only host to device, and done when it returns. */
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    CALLED(0);
    if (kind != cudaMemcpyHostToDevice)
        return cudaErrorInvalidValue;
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, NULL);
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    CALLED(1);
    if (card_of(memory) < 0 || !is_whole(memory, bytes))
        return cudaErrorInvalidValue;
    protect(PROT_READ | PROT_WRITE);
    memset(memory, value, bytes);
    protect(PROT_NONE);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *at)
{
    CALLED(0);
    int card = card_of(at);
    memset(attributes, 0, sizeof(*attributes));
    attributes->type = card < 0 ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice;
    attributes->device = card < 0 ? 0 : card;
    return cudaSuccess;
}

cudaError_t fake_launch(void (*kernel)(void *params), void *params)
{
    cudaError_t error = called("cudaLaunchKernel", 1);
    if (error != cudaSuccess)
        return error;
    fake.launches++;
    protect(PROT_READ | PROT_WRITE);
    kernel(params);
    protect(PROT_NONE);
    return cudaSuccess;
}

/* ---- streams and events ---------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    CALLED(1);
    if (flags != cudaStreamNonBlocking)
        return cudaErrorInvalidValue;
    *stream = malloc(1);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    CALLED(1);
    free((void *)stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    CALLED(0);
    fake.waits++;
    arrive();
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    CALLED(1);
    *status = cudaStreamCaptureStatusNone;
    if (fake.captured && !stream)
        return cudaErrorStreamCaptureImplicit;
    if (fake.captured == (void *)stream && stream)
        *status = cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    CALLED(1);
    *event = malloc(sizeof(struct timespec));
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    CALLED(1);
    free((void *)event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    (void)stream;
    CALLED(1);
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)(void *)event);
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    (void)event;
    CALLED(0);
    fake.waits++;
    arrive();
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t first, cudaEvent_t last)
{
    const struct timespec *from = (const void *)first, *to = (const void *)last;
    CALLED(1);
    *ms = (float)((double)(to->tv_sec - from->tv_sec) * 1e3 +
                  (double)(to->tv_nsec - from->tv_nsec) * 1e-6);
    return cudaSuccess;
}

/* ---- cards ----------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = fake.cards;
    return fake.count_error;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = fake.driver;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int id)
{
    memset(properties, 0, sizeof(*properties));
    snprintf(properties->name, sizeof(properties->name), "Card %d", id);
    properties->major = fake.major[id];
    properties->minor = fake.minor[id];
    properties->multiProcessorCount = 100 + id;
    properties->totalGlobalMem = fake.memory;
    properties->sharedMemPerBlockOptin = 99 * 1024;
    properties->l2CacheSize = 1 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int id)
{
    (void)id;
    switch (which) {
    case cudaDevAttrClockRate:
        *value = 1500000;
        return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
        *value = 2000000;
        return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = 1024;
        return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
        *value = !fake.no_pools;
        return cudaSuccess;
    default:
        return cudaErrorInvalidValue;
    }
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function)
{
    (void)function;
    CALLED(0);
    memset(attributes, 0, sizeof(*attributes));
    attributes->maxThreadsPerBlock = fake.block_threads;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *id)
{
    *id = fake.current;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int id)
{
    CALLED(1);
    fake.current = id;
    fake.switches++;
    return cudaSuccess;
}

/* A driver without the encoder of tensor maps. */
#if CUDART_VERSION >= 13000
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result)
{
    (void)symbol, (void)version, (void)flags;
#else
cudaError_t cudaGetDriverEntryPoint(const char *symbol, void **function, unsigned long long flags,
                                    enum cudaDriverEntryPointQueryResult *result)
{
    (void)symbol, (void)flags;
#endif
    *function = NULL;
    *result = cudaDriverEntryPointSymbolNotFound;
    return cudaErrorNotSupported;
}

cudaError_t cudaGetLastError(void)
{
    return fake.sticky;
}

const char *cudaGetErrorString(cudaError_t error)
{
    (void)error;
    return "words of the runtime";
}

const char *cudaGetErrorName(cudaError_t error)
{
    (void)error;
    return "cudaErrorName";
}
