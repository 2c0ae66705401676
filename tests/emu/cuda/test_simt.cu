/* Threads, barriers, shuffles, votes, atomics: what CUDA documents, and what must be noticed. */
#include "test.h"

struct numbers {
    int *out;
    int *in;
    int n;
};

/* ---- what must work -------------------------------------------------------------------------- */

static __global__ void number_threads(numbers p)
{
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    p.out[block * 24 + thread] = (int)(block * 100 + thread);
}

static void test_places()
{
    numbers p = {array<int>(24 * 24), NULL, 0};
    run_kernel("places", NULL, number_threads, dim3(2, 3, 4), dim3(4, 3, 2), 0, p);
    bool good = true;
    for (int i = 0; i < 24 * 24; i++)
        good = good && p.out[i] == i / 24 * 100 + i % 24;
    expect(good, "places: every thread of every block ran with its own indices");
}

static __global__ void reverse(numbers p)
{
    HD_SHARED(shared);
    int *mine = (int *)shared, x = (int)threadIdx.x;
    mine[x] = p.in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    p.out[blockIdx.x * blockDim.x + threadIdx.x] = mine[(int)blockDim.x - 1 - x];
}

static void test_shared()
{
    numbers p = {array<int>(300), array<int>(300), 0};
    for (int i = 0; i < 300; i++)
        p.in[i] = i;
    run_kernel("shared memory", NULL, reverse, dim3(3), dim3(100), 400, p);
    bool good = true;
    for (int i = 0; i < 300; i++)
        good = good && p.out[i] == i / 100 * 100 + 99 - i % 100;
    expect(good, "shared memory: each block has its own, and barriers make it seen");
}

static __global__ void shuffle(numbers p)
{
    int lane = (int)threadIdx.x, x = lane * 3, *out = p.out + lane;
    out[0] = __shfl_sync(~0u, x, lane + 1);
    out[32] = __shfl_sync(~0u, x, 2, 8);
    out[64] = __shfl_xor_sync(~0u, x, 5);
    out[96] = __shfl_up_sync(~0u, x, 3u, 16);
    out[128] = __shfl_down_sync(~0u, x, 3u);
    out[160] = (int)__ballot_sync(~0u, lane % 3 == 0);
    out[192] = __any_sync(~0u, lane == 7) + 2 * __all_sync(~0u, lane < 32) +
               4 * __all_sync(~0u, lane == 7);
    out[224] = lane < 12 ? (int)__ballot_sync(0xfff, lane % 2) : __shfl_sync(~0xfffu, x, 31);
    out[256] = __shfl_xor_sync(~0u, x, 8, 8);
}

static void test_shuffles()
{
    numbers p = {array<int>(288), NULL, 0};
    run_kernel("shuffles", NULL, shuffle, dim3(1), dim3(32), 0, p);
    bool good = true;
    for (int l = 0; l < 32; l++) {
        const int *out = p.out + l;
        good = good && out[0] == (l + 1) % 32 * 3 && out[32] == (l / 8 * 8 + 2) * 3;
        good = good && out[64] == (l ^ 5) * 3 && out[96] == (l % 16 < 3 ? l : l - 3) * 3;
        good = good && out[128] == (l > 28 ? l : l + 3) * 3 && out[160] == 0x49249249;
        good = good && out[192] == 3 && out[224] == (l < 12 ? 0xaaa : 93);
        good = good && out[256] == ((l ^ 8) < l / 8 * 8 + 8 ? l ^ 8 : l) * 3;
    }
    expect(good, "shuffles and votes, whole and partial masks");
}

static __global__ void count_all(numbers p)
{
    HD_SHARED(shared);
    int *sum = (int *)shared;
    if (threadIdx.x == 0)
        *sum = 0;
    __syncthreads();
    atomicAdd(sum, (int)threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(p.out, *sum);
    atomicMax(p.out + 1, (int)(blockIdx.x * 1000 + threadIdx.x));
    atomicCAS(p.out + 2, 0, 77);
}

static void test_atomics()
{
    numbers p = {array<int>(3), NULL, 0};
    run_kernel("atomics", NULL, count_all, dim3(5), dim3(64), 4, p);
    expect(p.out[0] == 4 * 5 * 2016 && p.out[1] == 4063 && p.out[2] == 77, "atomics");
}

/* Half of the block hands numbers to the other half, through barriers 1 and 2. */
static __global__ void hand_over(numbers p)
{
    HD_SHARED(shared);
    volatile int *slot = (volatile int *)shared;
    int x = (int)threadIdx.x;
    for (int i = 0; i < 5; i++) {
        if (x < 32) {
            slot[x] = 10 * i + x;
            hd_barrier_arrive(1, 64);
            hd_barrier_sync(2, 64);
        } else {
            hd_barrier_sync(1, 64);
            p.out[i * 32 + x - 32] = slot[x - 32];
            hd_barrier_arrive(2, 64);
        }
    }
}

static void test_named_barriers()
{
    numbers p = {array<int>(160), NULL, 0};
    run_kernel("named barriers", NULL, hand_over, dim3(1), dim3(64), 128, p);
    bool good = true;
    for (int i = 0; i < 160; i++)
        good = good && p.out[i] == i / 32 * 10 + i % 32;
    expect(good, "named barriers");
}

/* A turn goes through global memory from the last block to the first. */
static __global__ void pass_turn(numbers p)
{
    while (atomicAdd(p.in, 0) != (int)blockIdx.x)
        __nanosleep(20);
    p.out[0] = p.out[0] * 10 + (int)blockIdx.x;
    __threadfence();
    atomicAdd(p.in, -1);
}

static void test_resident()
{
    numbers p = {array<int>(1), array<int>(1), 0};
    *p.in = 2;
    use_seed(1, 3);
    emu_launch(pass_turn, dim3(3), dim3(1), 0, NULL, p);
    expect(emu::message(0) == NULL && *p.out == 210, "blocks that wait for each other");
    *p.in = 2;
    use_seed(1, 2);
    emu_launch(pass_turn, dim3(3), dim3(1), 0, NULL, p);
    expect(emu::said("livelock"), "blocks that wait for one that is not alive");
}

/* ---- what must be noticed -------------------------------------------------------------------- */

enum fault {
    NO_BARRIER,
    SHUFFLE_IS_NO_BARRIER,
    UNINITIALISED,
    SHARED_BOUNDS,
    GLOBAL_BOUNDS,
    GLOBAL_RACE,
    BLOCKS_WRITE,
    BLOCKS_READ,
    WARP_LEAVES,
    BARRIER_COUNT,
    LANE_MISSING,
    WRONG_MASK,
    DEEP_STACK
};

/* Each depth reads the frame above, so that no compiler makes a loop of it. */
static __attribute__((noinline)) int burn_stack(int depth, volatile char *above)
{
    volatile char room[4096];
    room[0] = (char)(depth + *above);
    return depth ? burn_stack(depth - 1, room) + room[0] : 0;
}

static __device__ int fail_by_warp(int which, int x)
{
    switch (which) {
    case WARP_LEAVES:
        if (x < 32)
            __syncthreads();
        return 0;
    case BARRIER_COUNT:
        hd_barrier_sync(3, x < 32 ? 64 : 96);
        return 0;
    case LANE_MISSING:
        return x == 5 ? 0 : __shfl_sync(~0u, x, 1);
    case WRONG_MASK:
        return __shfl_sync(0xffff, x, 1);
    default: {
        volatile char first = 1;
        return burn_stack(100, &first);
    }
    }
}

static __global__ void fail(numbers p)
{
    HD_SHARED(shared);
    volatile int *mine = (volatile int *)shared;
    int x = (int)threadIdx.x;
    if (p.n != UNINITIALISED)
        mine[x] = x;
    if (p.n == SHUFFLE_IS_NO_BARRIER)
        __shfl_sync(~0u, x, 0);
    if (p.n <= UNINITIALISED)
        p.out[256 * blockIdx.x + threadIdx.x] = mine[x ^ 1];
    else if (p.n == SHARED_BOUNDS)
        mine[x + 1] = 1;
    else if (p.n == GLOBAL_BOUNDS)
        p.out[512 + x] = 1;
    else if (p.n == GLOBAL_RACE)
        p.out[256 * blockIdx.x] = x;
    else if (p.n == BLOCKS_WRITE)
        p.out[x] = 1;
    else if (p.n == BLOCKS_READ)
        p.out[256 * blockIdx.x + threadIdx.x] = p.out[256 * (blockIdx.x ^ 1) + threadIdx.x];
    else
        p.out[256 * blockIdx.x + threadIdx.x] = fail_by_warp(p.n, x);
}

static void must_fail(int which, const char *message)
{
    numbers p = {array<int>(512), NULL, which};
    run_kernel(message, message, fail, dim3(2), dim3(64), 256, p);
}

static void test_faults()
{
    must_fail(GLOBAL_BOUNDS, "global memory bounds: address");
    must_fail(WARP_LEAVES, "threads 0-31 wait for barrier 0: 32 of 64 threads are there");
    must_fail(WARP_LEAVES, "threads 32-63 have ended");
    must_fail(BARRIER_COUNT, "barrier: number 3 waits for");
    must_fail(LANE_MISSING, "wait for a warp operation (shuffle, vote, matrix) with mask ffffffff");
    must_fail(WRONG_MASK, "is not in its own mask 0000ffff");
    must_fail(DEEP_STACK, "stack: a thread needs more than");
    if (!emu::is_instrumented())
        return;
    must_fail(SHARED_BOUNDS, "shared memory bounds: byte 256");
    must_fail(NO_BARRIER, "race: thread ");
    must_fail(SHUFFLE_IS_NO_BARRIER, "race: thread ");
    must_fail(UNINITIALISED, "uninitialised: thread reads shared");
    must_fail(GLOBAL_RACE, "race: thread overwrites global");
    must_fail(BLOCKS_WRITE, "race between blocks: overwrites");
    must_fail(BLOCKS_READ, "race between blocks");
    must_fail(NO_BARRIER, "test_simt.cu:");
}

static void test_launches()
{
    numbers p = {array<int>(512), NULL, UNINITIALISED};
    emu_launch(fail, dim3(1), dim3(1025), 0, NULL, p);
    expect(emu::said("launch: block 1025"), "a block too large");
    emu_launch(fail, dim3(1), dim3(32), (228 << 10), NULL, p);
    expect(emu::said("more than 227 KiB"), "too much shared memory");
    expect(cudaGetLastError() != cudaSuccess && cudaGetLastError() == cudaSuccess, "last error");
}

int main()
{
    test_places();
    test_shared();
    test_shuffles();
    test_atomics();
    test_named_barriers();
    test_resident();
    test_faults();
    test_launches();
    return test_end("simt");
}
