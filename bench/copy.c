/* memcpy of as many bytes as a problem reads and writes, in turns with its implementations: the
 * limit of problems that have no arithmetic. A team of as many threads copies a part each. */
#define _GNU_SOURCE
#include "bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct part {
    struct bench_copy *copy;
    pthread_t thread;
    int number;
    bool started;
} part_t;

struct bench_copy {
    char *from, *to;
    size_t bytes; /* copied: half of those that are moved */
    int threads;
    int64_t repeats;
    bool over;
    pthread_barrier_t gate;
    part_t *parts;
};

static void copy_part(struct bench_copy *copy, int number)
{
    size_t begin = copy->bytes * (size_t)number / (size_t)copy->threads;
    size_t end = copy->bytes * (size_t)(number + 1) / (size_t)copy->threads;
    for (int64_t i = 0; i < copy->repeats; i++) {
        memcpy(copy->to + begin, copy->from + begin, end - begin);
        __asm__ volatile("" ::"r"(copy->to) : "memory");
    }
}

static void *work(void *arg)
{
    part_t *part = arg;
    for (;;) {
        pthread_barrier_wait(&part->copy->gate);
        if (part->copy->over)
            return NULL;
        copy_part(part->copy, part->number);
        pthread_barrier_wait(&part->copy->gate);
    }
}

double bench_copy_sample(bench_copy_t *copy, int64_t repeats)
{
    double start = bench_now_ns();
    copy->repeats = repeats;
    if (copy->threads > 1)
        pthread_barrier_wait(&copy->gate);
    copy_part(copy, 0);
    if (copy->threads > 1)
        pthread_barrier_wait(&copy->gate);
    return (bench_now_ns() - start) / (double)repeats;
}

void bench_copy_free(bench_copy_t *copy)
{
    if (!copy)
        return;
    copy->over = true;
    if (copy->threads > 1) {
        pthread_barrier_wait(&copy->gate);
        for (int i = 1; i < copy->threads; i++)
            pthread_join(copy->parts[i].thread, NULL);
        pthread_barrier_destroy(&copy->gate);
    }
    free(copy->parts);
    free(copy->from);
    free(copy->to);
    free(copy);
}

/* One thread where a team cannot be had whole. */
static void start_team(bench_copy_t *copy, int threads)
{
    copy->threads = 1;
    if (threads < 2 || pthread_barrier_init(&copy->gate, NULL, (unsigned)threads))
        return;
    for (int i = 1; i < threads; i++) {
        copy->parts[i] = (part_t){.copy = copy, .number = i};
        if (pthread_create(&copy->parts[i].thread, NULL, work, &copy->parts[i])) {
            for (int j = 1; j < i; j++) {
                pthread_cancel(copy->parts[j].thread);
                pthread_join(copy->parts[j].thread, NULL);
            }
            return;
        }
    }
    copy->threads = threads;
}

bench_copy_t *bench_copy_new(double bytes, int threads)
{
    bench_copy_t *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return NULL;
    copy->threads = 1;
    copy->bytes = (size_t)(bytes / 2);
    copy->from = aligned_alloc(64, copy->bytes / 64 * 64 + 64);
    copy->to = aligned_alloc(64, copy->bytes / 64 * 64 + 64);
    copy->parts = calloc((size_t)threads, sizeof(*copy->parts));
    if (!copy->from || !copy->to || !copy->parts) {
        bench_copy_free(copy);
        return NULL;
    }
    memset(copy->from, 1, copy->bytes);
    memset(copy->to, 2, copy->bytes);
    start_team(copy, threads);
    return copy;
}
