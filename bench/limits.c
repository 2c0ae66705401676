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

enum { MOST_ROUNDS = 200, MAX_KERNELS = 2 };

static const double round_seconds = 0.002; /* less than a scheduler lets a thread run */
static const size_t slice = 1 << 16; /* bytes that one call of a kernel reads or copies at most */

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef struct team {
    bench_kernel_t kernels[MAX_KERNELS];
    int kernel_count;
    size_t bytes;           /* that each thread reads over and over, 0: none */
    double seconds;         /* of all rounds */
    bool stop[MOST_ROUNDS]; /* said by the first member before a round's barrier */
    bool go;                /* false: a thread is missing, give up */
    pthread_mutex_t gate;
    pthread_barrier_t barrier;
} team_t;

typedef struct member {
    team_t *team;
    pthread_t thread;
    bool is_first;
    double rate[MAX_KERNELS][MOST_ROUNDS];
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
static double run_round(bench_kernel_t kernel, char *data, size_t bytes, size_t *at)
{
    double start = seconds();
    double work = 0;
    double now;

    int calls = bytes && bytes < slice ? 16 : 1; /* for each look at the clock */

    do {
        for (int call = 0; call < calls; call++) {
            size_t length = bytes - *at < slice ? bytes - *at : slice;

            work += kernel(data + *at, length);
            *at = *at + length == bytes ? 0 : *at + length;
        }
        now = seconds();
    } while (now - start < round_seconds);
    return work / (now - start);
}

static void *member_main(void *argument)
{
    member_t *member = argument;
    team_t *team = member->team;
    static char none[1];
    char *data = none;
    size_t at = 0;

    pthread_mutex_lock(&team->gate);
    pthread_mutex_unlock(&team->gate);
    if (!team->go)
        return NULL;
    if (team->bytes)
        data = map_data(team->bytes);
    double end = seconds() + team->seconds * team->kernel_count;
    for (int round = 0; round < MOST_ROUNDS; round++)
        for (int k = 0; k < team->kernel_count; k++) {
            if (member->is_first && k == 0)
                team->stop[round] = round > 0 && seconds() > end;
            pthread_barrier_wait(&team->barrier);
            if (team->stop[round]) {
                round = MOST_ROUNDS;
                break;
            }
            if (data)
                member->rate[k][round] = run_round(team->kernels[k], data, team->bytes, &at);
        }
    if (team->bytes && data)
        munmap(data, team->bytes);
    return NULL;
}

/* The best sum of all members' rates in one round. A member without memory spoils them all; rounds
 * that were not run have no rates. */
static double best_rate(const team_t *team, const member_t *members, int count)
{
    double best = 0;

    for (int k = 0; k < team->kernel_count; k++)
        for (int round = 0; round < MOST_ROUNDS; round++) {
            double sum = 0, least = INFINITY;
            for (int m = 0; m < count; m++) {
                sum += members[m].rate[k][round];
                least = fmin(least, members[m].rate[k][round]);
            }
            best = least > 0 ? fmax(best, sum) : best;
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
        members[started].is_first = started == 0;
        if (pthread_create(&members[started].thread, NULL, member_main, &members[started]))
            break;
    }
    team->go = started == count;
    pthread_mutex_unlock(&team->gate);
    for (int m = 0; m < started; m++)
        pthread_join(members[m].thread, NULL);
    return team->go ? best_rate(team, members, count) : 0;
}

double bench_rate(bench_kernel_t first, bench_kernel_t second, size_t bytes, int threads,
                  double seconds_each)
{
    team_t team = {
        .kernels = {first, second}, .bytes = bytes / 1024 * 1024, .seconds = seconds_each};
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

/* Four times the last cache, so that hardly anything is found there again, but within reason. */
static double memory_bytes(const heed_device_info_t *cpu, double l3)
{
    double bytes = fmin(fmax(4 * l3, 512.0 * (1 << 20)), 1024.0 * (1 << 20));

    return cpu->memory_bytes > 0 ? fmin(bytes, (double)cpu->memory_bytes / 4) : bytes;
}

size_t bench_level_bytes(const heed_device_info_t *cpu, int level, int threads)
{
    double before = 0, cache = 0;

    if (level == 0)
        return (size_t)(memory_bytes(cpu, heed_cache_bytes(cpu, 3, threads)) / threads);
    for (int l = 1; l <= level; l++) {
        before = cache;
        cache = heed_cache_bytes(cpu, l, threads) / threads;
    }
    /* Half a cache stays in it, a quarter of one that others use too; it must be well beyond the
     * cache before, or it measures that one. */
    return cache >= 4 * before && cache >= 4096 ? (size_t)(cache / (level == 3 ? 4 : 2)) : 0;
}

static double read_rate(const bench_kernels_t *kernels, const heed_device_info_t *cpu, int level,
                        int threads, double seconds_each)
{
    size_t bytes = bench_level_bytes(cpu, level, threads);

    return bytes ? bench_rate(kernels->read, kernels->read_prefetch, bytes, threads, seconds_each)
                 : 0;
}

bench_limits_t bench_limits_measure(const heed_device_info_t *cpu, int threads, double seconds_each)
{
    bench_kernels_t kernels = bench_kernels(cpu->isa);
    bench_limits_t limits = {0};

    limits.fma_f32 = bench_rate(kernels.fma_f32, NULL, 0, threads, seconds_each);
    limits.fma_f32_avx2 = kernels.fma_f32 == kernels.fma_f32_avx2
                              ? limits.fma_f32
                              : bench_rate(kernels.fma_f32_avx2, NULL, 0, threads, seconds_each);
    limits.dot_bf16 = bench_rate(kernels.dot_bf16, NULL, 0, threads, seconds_each);
    limits.tile_bf16 = bench_rate(kernels.tile_bf16, NULL, 0, threads, seconds_each);
    limits.read = read_rate(&kernels, cpu, 0, threads, seconds_each);
    limits.l3_read = read_rate(&kernels, cpu, 3, threads, seconds_each);
    limits.l2_read = read_rate(&kernels, cpu, 2, threads, seconds_each);
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
