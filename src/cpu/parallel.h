/* A team of threads. The only file that knows OpenMP; without it (HD_OPENMP=0, for thread
 * sanitizers, which cannot see into OpenMP runtimes) a team is made of fresh pthreads.
 *
 * Inside a caller's parallel region a team has one member: the caller's threads are busy. */
#ifndef HD_PARALLEL_H
#define HD_PARALLEL_H

#ifndef HD_OPENMP
#define HD_OPENMP 0
#endif

#if HD_OPENMP
#include <omp.h>
#else
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#endif

typedef struct hd_team {
    int rank, size; /* size is what was granted, not what was asked for */
    void *sync;
} hd_team_t;

typedef void (*hd_team_fn)(const hd_team_t *team, void *arg);

#if HD_OPENMP

static inline void hd_team_barrier(const hd_team_t *team)
{
    if (team->size > 1) {
#pragma omp barrier
    }
}

static inline void hd_parallel(int threads, hd_team_fn run, void *arg)
{
    if (threads <= 1 || omp_in_parallel()) {
        run(&(hd_team_t){0, 1, 0}, arg);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        hd_team_t team = {omp_get_thread_num(), omp_get_num_threads(), 0};
        run(&team, arg);
    }
}

#else

/* Threads wait for the word to go: until then it is not known how many could be started. */
typedef struct hd_crew {
    hd_team_fn run;
    void *arg;
    atomic_int size; /* 0: wait */
    pthread_barrier_t barrier;
} hd_crew_t;

typedef struct hd_member {
    hd_crew_t *crew;
    int rank;
    pthread_t thread;
} hd_member_t;

static inline void hd_team_barrier(const hd_team_t *team)
{
    if (team->size > 1)
        pthread_barrier_wait((pthread_barrier_t *)team->sync);
}

static inline void *hd_member_run(void *at)
{
    hd_member_t *member = (hd_member_t *)at;
    hd_crew_t *crew = member->crew;
    int size;
    while ((size = atomic_load(&crew->size)) == 0)
        sched_yield();
    crew->run(&(hd_team_t){member->rank, size, &crew->barrier}, crew->arg);
    return 0;
}

static inline void hd_parallel(int threads, hd_team_fn run, void *arg)
{
    enum { MOST = 64 };
    hd_member_t members[MOST];
    hd_crew_t crew = {.run = run, .arg = arg};
    int started = 1;
    atomic_init(&crew.size, 0);
    for (; started < threads && started < MOST; started++) {
        members[started] = (hd_member_t){.crew = &crew, .rank = started};
        if (pthread_create(&members[started].thread, 0, hd_member_run, &members[started]))
            break;
    }
    members[0] = (hd_member_t){.crew = &crew, .rank = 0};
    pthread_barrier_init(&crew.barrier, 0, (unsigned)started);
    atomic_store(&crew.size, started);
    hd_member_run(&members[0]);
    for (int i = 1; i < started; i++)
        pthread_join(members[i].thread, 0);
    pthread_barrier_destroy(&crew.barrier);
}

#endif
#endif
