/* Attention over ranks whose method is chosen: all of them take the one that the slowest's times
 * name, and hear of a rank that has none. What runs is told by the bytes that a rank sends. */
#define _GNU_SOURCE
#include "expect.h"

#include "sequence.h"

#include <pthread.h>
#include <stdio.h>

enum { RANKS = 4 };

typedef struct member {
    heed_context_t *context;
    heed_comm_t inner, comm;
    part_t part;
    pthread_t thread;
    heed_status_t status;
    char sentence[512];
    size_t sent;
} member_t;

static member_t members[RANKS];

static heed_status_t send(void *user, int32_t to, const void *data, size_t bytes)
{
    member_t *member = user;
    member->sent += bytes;
    return member->inner.send(member->inner.user, to, data, bytes);
}

static heed_status_t recv(void *user, int32_t from, void *data, size_t bytes)
{
    member_t *member = user;
    return member->inner.recv(member->inner.user, from, data, bytes);
}

static heed_status_t wait_all(void *user)
{
    member_t *member = user;
    return member->inner.wait(member->inner.user);
}

static void *run(void *at)
{
    member_t *member = at;
    member->status =
        heed_context_parallel_attention(member->context, &member->comm, &member->part.desc);
    snprintf(member->sentence, sizeof(member->sentence), "%s", heed_last_error());
    heed_comm_threads_free(&member->inner);
    return NULL;
}

/* Contiguous parts; rank r reaches rates[r] bytes a second. contexts may be one for all. */
static void run_all(heed_context_t *const *contexts, const sequence_t *seq, const double *rates)
{
    heed_comm_t comms[RANKS];
    expect_ok(heed_comm_threads(contexts[0], RANKS, 60000, comms));
    for (int r = 0; r < RANKS; r++) {
        member_t *member = &members[r];
        *member = (member_t){.context = contexts[r], .inner = comms[r], .comm = comms[r]};
        member->comm.send = send;
        member->comm.recv = recv;
        member->comm.wait = wait_all;
        member->comm.user = member;
        member->comm.bytes_per_second = rates[r];
        member->comm.latency_ns = 1e-9;
        part_make(seq, HEED_RING_CONTIGUOUS, RANKS, r, 0, &member->part);
        member->part.desc.method = HEED_CONTEXT_PARALLEL_AUTO;
    }
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_create(&members[r].thread, NULL, run, &members[r]), 0);
    for (int r = 0; r < RANKS; r++)
        pthread_join(members[r].thread, NULL);
}

static void discard(void)
{
    for (int r = 0; r < RANKS; r++)
        part_free(&members[r].part);
}

/* What each rank sends, and whether results are right. */
static void count_sent(heed_context_t *context, const sequence_t *seq, const double *rates,
                       size_t *sent)
{
    heed_context_t *const contexts[RANKS] = {context, context, context, context};
    run_all(contexts, seq, rates);
    for (int r = 0; r < RANKS; r++) {
        if (members[r].status || !(part_error(seq, &members[r].part) <= 1e-5))
            fail_msg("rank %d: %s %s", r, heed_status_name(members[r].status), members[r].sentence);
        sent[r] = members[r].sent;
    }
    discard();
}

/* Few queries over many keys: where messages are slow queries go to the keys, where they cost
 * nothing keys go around. One slow rank is enough. */
static void the_slowest_decides(void **state)
{
    const double fast = 1e30, slow = 1e3;
    const double all_fast[RANKS] = {fast, fast, fast, fast},
                 all_slow[RANKS] = {slow, slow, slow, slow};
    size_t of_fast[RANKS], of_slow[RANKS], of_both[RANKS];
    heed_context_t *context = expect_context(NULL);
    sequence_t seq = {1, 400, 8, 4, 4, 16, 16, 0, -1, -1, .q = NULL};
    (void)state;
    expect_ok(sequence_make(context, &seq));
    count_sent(context, &seq, all_fast, of_fast);
    count_sent(context, &seq, all_slow, of_slow);
    assert_true(of_slow[0] < of_fast[0]);
    for (int odd = 0; odd < RANKS; odd++)
        for (int turn = 0; turn < 2; turn++) {
            double rates[RANKS];
            for (int r = 0; r < RANKS; r++)
                rates[r] = (r == odd) == turn ? slow : fast;
            count_sent(context, &seq, rates, of_both);
            assert_memory_equal(of_both, of_slow, sizeof(of_slow));
        }
    sequence_free(&seq);
    heed_context_destroy(context);
}

/* A rank whose context lets no implementation run has no times to tell. */
static void a_rank_without_an_estimate(void **state)
{
    const double rates[RANKS] = {1e9, 1e9, 1e9, 1e9};
    heed_context_config_t config = heed_context_config();
    heed_context_t *context = expect_context(NULL), *bare;
    sequence_t seq = {1, 40, 0, 4, 4, 16, 16, 1, -1, -1, .q = NULL};
    (void)state;
    config.ignore_environment = 1;
    config.skip_impl = "attention=*";
    expect_ok(heed_context_create(&config, &bare));
    expect_ok(sequence_make(context, &seq));
    for (int odd = 0; odd < RANKS; odd++) {
        heed_context_t *contexts[RANKS] = {context, context, context, context};
        contexts[odd] = bare;
        run_all(contexts, &seq, rates);
        for (int r = 0; r < RANKS; r++) {
            const char *words =
                r == odd ? "no implementation" : "a rank cannot estimate what it would compute";
            heed_status_t want = r == odd ? HEED_ERROR_UNSUPPORTED : HEED_ERROR_COMM;
            if (members[r].status != want || !strstr(members[r].sentence, words))
                fail_msg("rank %d: %s '%s'", r, heed_status_name(members[r].status),
                         members[r].sentence);
        }
        discard();
    }
    sequence_free(&seq);
    heed_context_destroy(bare);
    heed_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_slowest_decides),
                                       cmocka_unit_test(a_rank_without_an_estimate)};
    return cmocka_run_group_tests_name("context_choice", tests, NULL, NULL);
}
