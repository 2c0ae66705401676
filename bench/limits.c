/* Measures the machine's limits: a team of threads runs one kernel for a few short rounds, all at
 * once, and the best round counts. Threads are left where the caller's affinity puts them. Rounds
 * are short and the best is taken because whatever disturbs a round can only make it slower. */
#define _GNU_SOURCE

#include "bench_limits.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { ROUNDS = 8, MAX_KERNELS = 2 };

static const double round_seconds = 0.02;
static const size_t slice = 1 << 16; /* bytes that one call of a reading kernel reads at most */

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef struct team {
    bench_kernel_t kernels[MAX_KERNELS];
    int kernel_count;
    size_t bytes; /* that each thread reads over and over, 0: none */
    bool go;      /* false: a thread is missing, give up */
    pthread_mutex_t gate;
    pthread_barrier_t barrier;
} team_t;

typedef struct member {
    team_t *team;
    pthread_t thread;
    double rate[MAX_KERNELS][ROUNDS];
} member_t;

/* Memory that this thread has touched first, in large pages where the system has them. */
static char *map_data(size_t bytes)
{
    char *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (data == MAP_FAILED)
        return NULL;
    (void)madvise(data, bytes, MADV_HUGEPAGE);
    memset(data, 1, bytes);
    return data;
}

/* One round: the kernel on slice after slice, going on at *at where the last round ended. */
static double run_round(bench_kernel_t kernel, const char *data, size_t bytes, size_t *at)
{
    double start = seconds();
    double work = 0;
    double now;

    do {
        size_t length = bytes - *at < slice ? bytes - *at : slice;

        work += kernel(data + *at, length);
        *at = *at + length == bytes ? 0 : *at + length;
        now = seconds();
    } while (now - start < round_seconds);
    return work / (now - start);
}

static void *member_main(void *argument)
{
    member_t *member = argument;
    team_t *team = member->team;
    static const char none[1];
    const char *data = none;
    size_t at = 0;

    pthread_mutex_lock(&team->gate);
    pthread_mutex_unlock(&team->gate);
    if (!team->go)
        return NULL;
    if (team->bytes)
        data = map_data(team->bytes);
    for (int round = 0; round < ROUNDS; round++)
        for (int k = 0; k < team->kernel_count; k++) {
            pthread_barrier_wait(&team->barrier);
            if (data)
                member->rate[k][round] = run_round(team->kernels[k], data, team->bytes, &at);
        }
    if (team->bytes && data)
        munmap((void *)data, team->bytes);
    return NULL;
}

/* The best sum of all members' rates in one round. A member without memory spoils them all. */
static double best_rate(const team_t *team, const member_t *members, int count)
{
    double best = 0;

    for (int k = 0; k < team->kernel_count; k++)
        for (int round = 0; round < ROUNDS; round++) {
            double sum = 0;
            for (int m = 0; m < count; m++) {
                if (members[m].rate[k][round] == 0)
                    return 0;
                sum += members[m].rate[k][round];
            }
            best = fmax(best, sum);
        }
    return best;
}

/* Starts the members behind a closed gate, so that a thread that cannot be started leaves none of
 * them waiting at the barrier. */
static double run_team(team_t *team, member_t *members, int count)
{
    int started = 0;

    pthread_mutex_lock(&team->gate);
    for (; started < count; started++) {
        members[started].team = team;
        if (pthread_create(&members[started].thread, NULL, member_main, &members[started]))
            break;
    }
    team->go = started == count;
    pthread_mutex_unlock(&team->gate);
    for (int m = 0; m < started; m++)
        pthread_join(members[m].thread, NULL);
    return team->go ? best_rate(team, members, count) : 0;
}

/* The best rate of `threads` threads over one or two kernels (NULL: none). */
static double measure(bench_kernel_t first, bench_kernel_t second, size_t bytes, int threads)
{
    team_t team = {.kernels = {first, second}, .bytes = bytes / 512 * 512};
    member_t *members;
    double best = 0;

    if (!first)
        return 0;
    team.kernel_count = second ? 2 : 1;
    members = calloc((size_t)threads, sizeof(*members));
    if (members && !pthread_barrier_init(&team.barrier, NULL, (unsigned)threads)) {
        pthread_mutex_init(&team.gate, NULL);
        best = run_team(&team, members, threads);
        pthread_mutex_destroy(&team.gate);
        pthread_barrier_destroy(&team.barrier);
    }
    free(members);
    return best;
}

double bench_cache_bytes(const heed_device_info_t *cpu, int level, int threads)
{
    for (int c = 0; c < cpu->cache_count; c++) {
        const heed_cache_info_t *cache = &cpu->caches[c];
        if (cache->level == level) {
            int sharing = cache->sharing > 0 ? cache->sharing : 1;
            int cores = cpu->cores > 0 && cpu->cores < threads ? cpu->cores : threads;
            return (double)cache->bytes * ((cores + sharing - 1) / sharing);
        }
    }
    return 0;
}

/* Four times the last cache, so that hardly anything is found there again, but within reason. */
static double memory_bytes(const heed_device_info_t *cpu, double l3)
{
    double bytes = fmin(fmax(4 * l3, 512.0 * (1 << 20)), 1024.0 * (1 << 20));

    return cpu->memory_bytes > 0 ? fmin(bytes, (double)cpu->memory_bytes / 4) : bytes;
}

bench_limits_t bench_limits_measure(const heed_device_info_t *cpu, int threads)
{
    bench_kernels_t kernels = bench_kernels(cpu->isa);
    double l2 = bench_cache_bytes(cpu, 2, threads) / threads;
    double l3 = bench_cache_bytes(cpu, 3, threads) / threads;
    double memory = memory_bytes(cpu, l3 * threads) / threads;
    bench_limits_t limits = {0};

    limits.fma_f32 = measure(kernels.fma_f32, NULL, 0, threads);
    limits.fma_f32_avx2 = kernels.fma_f32 == kernels.fma_f32_avx2
                              ? limits.fma_f32
                              : measure(kernels.fma_f32_avx2, NULL, 0, threads);
    limits.dot_bf16 = measure(kernels.dot_bf16, NULL, 0, threads);
    if (memory >= 512)
        limits.read = measure(kernels.read, kernels.read_prefetch, (size_t)memory, threads);
    /* Half a cache stays in it; it must be well beyond the cache before, or it measures that one.
     */
    if (l3 >= 4 * l2 && l3 >= 1024)
        limits.l3_read = measure(kernels.read, kernels.read_prefetch, (size_t)(l3 / 2), threads);
    if (l2 >= 1024)
        limits.l2_read = measure(kernels.read, kernels.read_prefetch, (size_t)(l2 / 2), threads);
    return limits;
}

static double merge_one(double *value, double other)
{
    double larger = fmax(*value, other);
    double smaller = fmin(*value, other);

    *value = larger;
    return smaller > 0 ? (larger - smaller) / larger : 0;
}

double bench_limits_merge(bench_limits_t *limits, const bench_limits_t *other)
{
    double drift = 0;

#define MERGE(field, unit) drift = fmax(drift, merge_one(&limits->field, other->field));
    BENCH_LIMIT_LIST(MERGE)
#undef MERGE
    return drift;
}
