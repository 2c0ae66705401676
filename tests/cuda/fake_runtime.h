/* A CUDA runtime of the tests' own: what src/cuda's host side calls, answered from the struct
 * below. Device memory can only be touched inside calls and launches, so that a host that follows a
 * device pointer dies; copies to the host arrive when something waits, so that one that does not
 * wait reads old bytes. Nothing here says what a GPU does. */
#ifndef FAKE_RUNTIME_H
#define FAKE_RUNTIME_H

#include <cuda_runtime_api.h>

#include <stddef.h>

enum { FAKE_CARDS = 4 };

typedef struct fake_machine {
    cudaError_t count_error; /* of counting cards */
    int cards, driver;
    int major[FAKE_CARDS], minor[FAKE_CARDS];
    int no_pools;        /* 1: no stream-ordered allocation */
    int block_threads;   /* that a block of any kernel may have */
    size_t memory;       /* bytes that a card has */
    const char *failing; /* function that fails, NULL: none */
    cudaError_t failure; /* how */
    cudaError_t sticky;  /* what every call gives, as after a kernel that failed */
    void *captured;      /* stream that is captured into a graph, NULL: none */
    const char
        *not_captured; /* the first call that a capture does not allow, NULL: none was made */
    int current, switches;
    int launches, waits, allocations; /* counted; allocations are those alive */
} fake_machine_t;

/* Exported, so that a test can reach them in the plugin that libheed loads. */
#define FAKE_EXPORT __attribute__((visibility("default")))
FAKE_EXPORT extern fake_machine_t fake;

/* One card of compute capability 9.0, all well, nothing allocated. */
FAKE_EXPORT void fake_reset(void);

/* Runs kernel(params) at once, with device memory open. */
FAKE_EXPORT cudaError_t fake_launch(void (*kernel)(void *params), void *params);

#endif
