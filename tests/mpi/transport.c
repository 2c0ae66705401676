/* The MPI transport without libheed, one rank under mpirun: messages of all sizes, in pieces of
 * HD_MPI_PIECE bytes; whose MPI it is; what is left of a communicator that has failed. Exits with 0
 * where this rank saw what it should.
 *     transport messages | own | handle | finalised | level
 *     transport broken_halves | broken_late | broken_alone | broken_error */
#define _POSIX_C_SOURCE 200809L
#include "transport.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = HD_MPI_PIECE, MOST = 5 * PIECE };

hd_transport_enter_t heed_transport_v1;

static const hd_transport_t *mpi;
static heed_comm_t comm;
static char sentence[512];
static int wrong;

static heed_status_t keep(heed_status_t status, const char *text)
{
    snprintf(sentence, sizeof(sentence), "%s", text);
    return status;
}

static const hd_host_t host = {.struct_size = sizeof(hd_host_t), .fail = keep};

/* Says what is wrong; the test goes on, so that no rank is waited for in vain. */
static void expect(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "rank %d of %d: %s: %s\n", comm.rank, comm.size, what, sentence);
    wrong = 1;
}

static void expect_fails(heed_status_t got, heed_status_t want, const char *words)
{
    expect(got == want && strstr(sentence, words), words);
}

static void nap(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static heed_status_t open_with(void *handle, int timeout_ms)
{
    heed_comm_config_t config = heed_comm_config("mpi");
    config.handle = handle;
    config.timeout_ms = timeout_ms;
    memset(&comm, 0, sizeof(comm));
    comm.struct_size = sizeof(comm);
    return mpi->open(&config, &comm);
}

/* ---- messages -------------------------------------------------------------------------------- */

static char value(int from, int message, size_t at)
{
    return (char)(from * 50 + message * 7 + (int)(at % 127));
}

/* Messages of these sizes to every rank, all under way at once, in the order of their numbers. */
static void exchange(const size_t *sizes, int count)
{
    enum { RANKS = 4 };
    char *out = malloc((size_t)count * MOST), *in = malloc((size_t)count * MOST * RANKS);
    memset(in, 111, (size_t)count * MOST * RANKS);
    for (int m = 0; m < count; m++)
        for (size_t i = 0; i < sizes[m]; i++)
            out[m * MOST + (int)i] = value(comm.rank, m, i);
    for (int m = 0; m < count; m++)
        for (int r = 0; r < comm.size; r++) {
            char *to = in + ((size_t)r * (size_t)count + (size_t)m) * MOST;
            expect(comm.send(comm.user, r, out + m * MOST, sizes[m]) == HEED_OK, "send");
            expect(comm.recv(comm.user, r, to, sizes[m]) == HEED_OK, "recv");
        }
    expect(comm.wait(comm.user) == HEED_OK, "wait");
    for (int r = 0; r < comm.size; r++)
        for (int m = 0; m < count; m++) {
            const char *from = in + ((size_t)r * (size_t)count + (size_t)m) * MOST;
            for (size_t i = 0; i < MOST; i++)
                if (from[i] != (i < sizes[m] ? value(r, m, i) : 111)) {
                    expect(0, "what came");
                    break;
                }
        }
    free(out);
    free(in);
}

/* An empty message is one: who waits for it waits until it was sent. */
static void wait_for_nothing(void)
{
    char byte = 0;
    double start = now_ms();
    if (comm.rank == 0) {
        expect(comm.recv(comm.user, 1, &byte, 0) == HEED_OK, "recv of nothing");
        expect(comm.wait(comm.user) == HEED_OK, "wait for nothing");
        expect(now_ms() - start > 200, "an empty message was not waited for");
    } else if (comm.rank == 1) {
        nap(400);
        expect(comm.send(comm.user, 0, &byte, 0) == HEED_OK, "send of nothing");
        expect(comm.wait(comm.user) == HEED_OK, "wait");
    }
}

static void messages(void)
{
    static const size_t sizes[] = {0,         1, PIECE - 1,     PIECE,    PIECE + 1,
                                   2 * PIECE, 7, 5 * PIECE - 3, 5 * PIECE};
    size_t many[60];
    char byte = 0;
    expect(open_with(NULL, 0) == HEED_OK, "open");
    for (int i = 0; i < 9; i++)
        exchange(&sizes[i], 1);
    exchange(sizes, 9);
    for (int i = 0; i < 60; i++)
        many[i] = sizes[i * 5 % 9];
    exchange(many, 60);
    exchange(sizes, 9);
    wait_for_nothing();
    expect_fails(comm.send(comm.user, comm.size, &byte, 1), HEED_ERROR_VALUE,
                 "rank 3 is not 0 to 2");
    expect_fails(comm.recv(comm.user, -1, &byte, 1), HEED_ERROR_VALUE, "rank -1 is not 0 to 2");
    expect_fails(comm.send(comm.user, 0, &byte, (size_t)30001 * PIECE), HEED_ERROR_VALUE,
                 "a message of 30001000 bytes is too long");
    exchange(sizes, 9);
    mpi->close(&comm);
    expect(comm.user == NULL, "a closed communicator");
}

/* ---- whose MPI it is ------------------------------------------------------------------------- */

static int finalised_at_exit;

/* Runs after what the transport does at exit, for it was registered before. */
static void look_at_exit(void)
{
    int finalised = -1;
    MPI_Finalized(&finalised);
    if (finalised != finalised_at_exit) {
        fprintf(stderr, "MPI_Finalized at exit is %d\n", finalised);
        _exit(1);
    }
    if (!finalised)
        MPI_Finalize();
}

/* The transport initialises MPI, and finalises it. */
static void own(void)
{
    int level = 0;
    char text[200] = "";
    finalised_at_exit = 1;
    atexit(look_at_exit);
    mpi->library(text, sizeof(text));
    expect(strstr(text, ", MPI 3.") && text[0] != ',' && !strchr(text, '\n'), text);
    expect(open_with(NULL, 10000) == HEED_OK, "open");
    MPI_Query_thread(&level);
    expect(level >= MPI_THREAD_SERIALIZED, "threads");
    exchange((const size_t[]){PIECE}, 1);
    mpi->close(&comm);
}

/* A program's own MPI and communicator: ranks 2 and 0, in that order. Its messages, of the same
 * tag, are not taken for the transport's, nor is its communicator freed or MPI finalised. */
static void handle(void)
{
    MPI_Comm pair, nobody = MPI_COMM_NULL;
    MPI_Request request;
    int level, rank, token, got = -1;
    atexit(look_at_exit);
    MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_split(MPI_COMM_WORLD, rank == 1, -rank, &pair);
    expect_fails(open_with(&nobody, 0), HEED_ERROR_VALUE, "config.handle is MPI_COMM_NULL");
    expect(open_with(&pair, 10000) == HEED_OK, "open");
    expect(comm.size == (rank == 1 ? 1 : 2) && comm.rank == (rank == 0), "ranks of the handle");
    token = rank + 100;
    int other = comm.size - 1 - comm.rank;
    MPI_Isend(&token, sizeof(token), MPI_BYTE, other, 1, pair, &request);
    exchange((const size_t[]){sizeof(token), PIECE}, 2);
    MPI_Recv(&got, sizeof(got), MPI_BYTE, other, 1, pair, MPI_STATUS_IGNORE);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    expect(got == (rank == 1 ? 101 : 102 - rank), "the program's message");
    mpi->close(&comm);
    expect(MPI_Barrier(pair) == MPI_SUCCESS, "the program's communicator");
    MPI_Comm_free(&pair);
}

static void finalised(void)
{
    finalised_at_exit = 1;
    atexit(look_at_exit);
    MPI_Init(NULL, NULL);
    MPI_Finalize();
    expect_fails(open_with(NULL, 0), HEED_ERROR_VALUE, "MPI has been finalised");
}

static void level(void)
{
    int got = 0;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_SINGLE, &got);
    if (got < MPI_THREAD_SERIALIZED)
        expect_fails(open_with(NULL, 0), HEED_ERROR_UNSUPPORTED, "MPI_THREAD_SERIALIZED");
    MPI_Finalize();
}

/* ---- what is left of one that has failed ----------------------------------------------------- */

/* The end of a rank whose communicator has failed: MPI is not finalised, which would wait for
 * ranks that are lost. */
static void leave_broken(void)
{
    int finalised = -1;
    MPI_Finalized(&finalised);
    expect(finalised == 0, "MPI at exit");
    if (!wrong)
        printf("this rank saw what it should\n");
    fflush(stdout);
    _exit(wrong);
}

static void expect_broken(const char *words)
{
    char byte = 0;
    expect_fails(comm.wait(comm.user), HEED_ERROR_COMM, words);
    expect_fails(comm.send(comm.user, 0, &byte, 1), HEED_ERROR_COMM, words);
    expect_fails(comm.recv(comm.user, 0, &byte, 1), HEED_ERROR_COMM, words);
}

/* A message of two pieces is none of one piece, not even its beginning. */
static void halves(void)
{
    static char data[2 * PIECE];
    expect(open_with(NULL, 500) == HEED_OK, "open");
    int to = (comm.rank + 1) % comm.size, from = (comm.rank + comm.size - 1) % comm.size;
    expect(comm.send(comm.user, to, data, 2 * PIECE) == HEED_OK, "send");
    expect(comm.recv(comm.user, from, data, PIECE) == HEED_OK, "recv");
    expect_fails(comm.wait(comm.user), HEED_ERROR_COMM, "waited longer than the time-out");
    expect_broken("waited longer than the time-out");
}

/* A message that comes after the time-out is not written any more. */
static void late(void)
{
    static char data[PIECE];
    int flag;
    expect(open_with(NULL, comm.rank ? 20000 : 300) == HEED_OK, "open");
    memset(data, comm.rank == 0 ? 1 : 2, PIECE);
    if (comm.rank == 0) {
        expect(comm.recv(comm.user, 1, data, PIECE) == HEED_OK, "recv");
        expect_fails(comm.wait(comm.user), HEED_ERROR_COMM, "waited longer than the time-out");
        for (double start = now_ms(); now_ms() - start < 2000; nap(1))
            MPI_Iprobe(MPI_ANY_SOURCE, 7, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
        expect(data[0] == 1 && data[PIECE - 1] == 1, "memory after a time-out");
        expect_broken("waited longer than the time-out");
    } else if (comm.rank == 1) {
        nap(1000);
        expect(comm.send(comm.user, 0, data, PIECE) == HEED_OK, "send");
        expect(comm.wait(comm.user) == HEED_OK, "wait");
    }
    if (comm.rank > 0)
        leave_broken();
}

/* Rank 0 opens, the others do not come. */
static void alone(void)
{
    int initialised;
    if (comm.rank == 0)
        expect_fails(open_with(NULL, 300), HEED_ERROR_COMM, "waited longer than the time-out");
    MPI_Initialized(&initialised);
    expect(initialised, "MPI");
    nap(1000);
}

/* An error of MPI, which ends no program. */
static void error(void)
{
    expect(open_with(NULL, 1000) == HEED_OK, "open");
    expect_fails(comm.send(comm.user, 0, NULL, 10), HEED_ERROR_COMM, "has an error of MPI");
    expect_broken("has an error of MPI");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {{"messages", messages}, {"own", own},
                 {"handle", handle},     {"finalised", finalised},
                 {"level", level},       {"broken_halves", halves},
                 {"broken_late", late},  {"broken_alone", alone},
                 {"broken_error", error}};
    const char *what = argc > 1 ? argv[1] : "messages";
    mpi = heed_transport_v1(&host);
    if (strcmp(what, "broken_alone") == 0) {
        int level_got;
        MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level_got);
        MPI_Comm_rank(MPI_COMM_WORLD, &comm.rank);
    }
    bool broken = strncmp(what, "broken_", 7) == 0;
    wrong = mpi == NULL || (broken && atexit(leave_broken));
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]) && !wrong; i++)
        if (strcmp(tests[i].name, what) == 0)
            tests[i].run();
    return wrong;
}
