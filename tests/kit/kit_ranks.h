/* Ranks of one process for the CMocka tests: a function on P threads, each with its end of a
 * heed_comm_threads; what each has returned, and its sentence. */
#ifndef KIT_RANKS_H
#define KIT_RANKS_H

#include "expect.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct rank {
    heed_context_t *context;
    heed_comm_t comm;
    void *own;            /* this rank's of those that ranks_run is given */
    heed_status_t status; /* what its work has returned */
    char sentence[512];
    heed_status_t (*work)(struct rank *rank);
    pthread_t thread;
} rank_t;

/* Makes the ends, which a test may change before they run; every one of them has to run, or to be
 * given back by heed_comm_threads_free. */
static inline void ranks_open(rank_t *ranks, heed_context_t *context, int size, int timeout_ms)
{
    heed_comm_t *comms = calloc((size_t)size, sizeof(*comms));
    assert_non_null(comms);
    expect_ok(heed_comm_threads(context, size, timeout_ms, comms));
    for (int r = 0; r < size; r++)
        ranks[r] = (rank_t){.context = context, .comm = comms[r]};
    free(comms);
}

static inline void *ranks_member(void *at)
{
    rank_t *rank = at;
    rank->status = rank->work(rank);
    snprintf(rank->sentence, sizeof(rank->sentence), "%s", heed_last_error());
    heed_comm_threads_free(&rank->comm);
    return NULL;
}

/* The work of the first `size` ranks, each in a thread of its own, until all have returned; their
 * ends are given back. Rank r has own + r * each. Assertions are for the test's own thread: work
 * leaves what it finds in rank->own. */
static inline void ranks_run(rank_t *ranks, int size, heed_status_t (*work)(rank_t *rank),
                             void *own, size_t each)
{
    for (int r = 0; r < size; r++) {
        ranks[r].work = work;
        ranks[r].own = own ? (char *)own + (size_t)r * each : NULL;
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, ranks_member, &ranks[r]), 0);
    }
    for (int r = 0; r < size; r++)
        assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
}

/* Fails the test unless all ranks have that status and, if words are given, those in a sentence. */
static inline void expect_ranks_at(const rank_t *ranks, int size, heed_status_t want,
                                   const char *words, const char *what, const char *file, int line)
{
    for (int r = 0; r < size; r++) {
        if (ranks[r].status == want && (!words || strstr(ranks[r].sentence, words)))
            continue;
        print_error("%s: rank %d of %d: %s instead of %s, with the sentence:\n    %s\n"
                    "which should have: %s\n",
                    what, r, size, heed_status_name(ranks[r].status), heed_status_name(want),
                    ranks[r].sentence, words ? words : "(anything)");
        _fail(file, line);
    }
}

#define expect_ranks(ranks, size, want, words, what) \
    expect_ranks_at((ranks), (size), (want), (words), (what), __FILE__, __LINE__)

#endif
