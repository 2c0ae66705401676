/* Memory that ranks have sent when another is lost: who hears of it by any call may give it back at
 * once, for nobody reads it any more. */
#define _GNU_SOURCE
#include "expect.h"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

enum { RANKS = 3, TURNS = 12 };

static const size_t bytes = (size_t)48 << 20;

static heed_comm_t comms[RANKS];
static heed_status_t statuses[RANKS];
static void *memories[2]; /* of ranks 0 and 1 */
static pthread_barrier_t all_ready;
static int pause_us; /* before rank 2 leaves */

static void *map(void)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Sends, and takes its memory away as soon as a call fails. */
static void *sender(void *unused)
{
    heed_comm_t *comm = &comms[0];
    char byte;
    (void)unused;
    pthread_barrier_wait(&all_ready);
    statuses[0] = comm->send(comm->user, 1, memories[0], bytes);
    while (statuses[0] != HEED_ERROR_COMM)
        statuses[0] = comm->recv(comm->user, 2, &byte, 1);
    munmap(memories[0], bytes);
    heed_comm_threads_free(comm);
    return NULL;
}

static void *receiver(void *unused)
{
    heed_comm_t *comm = &comms[1];
    char byte;
    (void)unused;
    pthread_barrier_wait(&all_ready);
    statuses[1] = comm->recv(comm->user, 0, memories[1], bytes);
    if (!statuses[1])
        statuses[1] = comm->wait(comm->user);
    while (statuses[1] != HEED_ERROR_COMM)
        statuses[1] = comm->recv(comm->user, 2, &byte, 1);
    munmap(memories[1], bytes);
    heed_comm_threads_free(comm);
    return NULL;
}

/* Leaves with a message under way. */
static void *leaver(void *unused)
{
    heed_comm_t *comm = &comms[2];
    struct timespec time = {0, pause_us * 1000L};
    char byte = 0;
    (void)unused;
    pthread_barrier_wait(&all_ready);
    nanosleep(&time, NULL);
    statuses[2] = comm->send(comm->user, 1, &byte, 1);
    heed_comm_threads_free(comm);
    return NULL;
}

static void sent_memory_is_free_after_a_failure(void **state)
{
    void *(*const work[])(void *) = {sender, receiver, leaver};
    heed_context_t *context = expect_context(NULL);
    (void)state;
    for (int turn = 0; turn < TURNS; turn++) {
        pthread_t threads[RANKS];
        pause_us = 500 * turn;
        for (int i = 0; i < 2; i++)
            assert_non_null(memories[i] = map());
        assert_int_equal(pthread_barrier_init(&all_ready, NULL, RANKS), 0);
        expect_ok(heed_comm_threads(context, RANKS, 60000, comms));
        for (int r = 0; r < RANKS; r++)
            assert_int_equal(pthread_create(&threads[r], NULL, work[r], NULL), 0);
        for (int r = 0; r < RANKS; r++)
            pthread_join(threads[r], NULL);
        pthread_barrier_destroy(&all_ready);
        assert_int_equal(statuses[0], HEED_ERROR_COMM);
        assert_int_equal(statuses[1], HEED_ERROR_COMM);
        assert_int_equal(statuses[2], HEED_OK);
    }
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sent_memory_is_free_after_a_failure)};
    return cmocka_run_group_tests_name("comm_lost", tests, NULL, NULL);
}
