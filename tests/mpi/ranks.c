/* One rank of a test under mpirun: attention over ranks, collectives, disagreement, and ranks that
 * die or fall silent. Exits with 0 where this rank saw what it should.
 *     ranks methods | collectives | disagree | unequal | stop | kill | rate [heads] */
#define _GNU_SOURCE
#include "../sequence.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static heed_context_t *context;
static heed_comm_t comm;
static int wrong;

/* Says what is wrong; the test goes on, so that no rank is waited for in vain. */
static void expect(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "rank %d of %d: %s: %s\n", comm.rank, comm.size, what, heed_last_error());
    wrong = 1;
}

static void open_comm(int timeout_ms)
{
    heed_comm_config_t config = heed_comm_config("mpi");
    config.timeout_ms = timeout_ms;
    heed_status_t status = heed_comm_open(&config, &comm);
    if (status != HEED_OK) {
        fprintf(stderr, "heed_comm_open: %s\n", heed_last_error());
        exit(1);
    }
}

static double seconds_of(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double seconds(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

/* ---- results --------------------------------------------------------------------------------- */

static void try_method(const sequence_t *seq, int method, int layout)
{
    char what[120];
    part_t part;
    part_make(seq, (heed_ring_layout_t)layout, comm.size, comm.rank,
              method == HEED_CONTEXT_PARALLEL_TREE, &part);
    part.desc.method = (heed_context_parallel_method_t)method;
    heed_status_t status = heed_context_parallel_attention(context, &comm, &part.desc);
    double error = status ? 0 : part_error(seq, &part);
    snprintf(what, sizeof(what), "method %s, layout %d, %s, off by %g",
             heed_context_parallel_name(part.desc.method), layout, heed_status_name(status), error);
    bool grid = method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL_RING;
    bool refused =
        grid ? comm.size != 4 : method == HEED_CONTEXT_PARALLEL_ALL_TO_ALL && comm.size == 3;
    expect(refused ? status == HEED_ERROR_UNSUPPORTED : status == HEED_OK && error <= 1e-5, what);
    part_free(&part);
}

static void methods(void)
{
    static const int32_t starts[] = {0, 100, 100, 101, 170, 203};
    const sequence_t sequences[] = {
        {1, 203, 0, 8, 4, 16, 24, 1, -1, -1, .q = NULL},
        {2, 150, 0, 4, 2, 16, 16, 1, 40, -1, .q = NULL},
        {1, 190, 9, 4, 1, 32, 32, 1, -1, -1, .q = NULL},
        {1, 3000, 0, 4, 4, 64, 64, 0, -1, -1, .q = NULL},
        {1, 203, 0, 8, 4, 16, 24, 1, -1, -1, .starts = starts, .documents = 5},
    };
    open_comm(60000);
    for (int s = 0; s < 5; s++) {
        sequence_t seq = sequences[s];
        expect(sequence_make(context, &seq) == HEED_OK, "one process");
        for (int method = 0; method <= HEED_CONTEXT_PARALLEL_TREE; method++)
            for (int layout = 0; layout < 3; layout++)
                try_method(&seq, method, layout);
        sequence_free(&seq);
    }
}

static void collectives(void)
{
    enum { COUNT = 100000 };
    static float data[COUNT], all[8 * COUNT];
    open_comm(60000);
    float sum = 0;
    for (int r = 0; r < comm.size; r++)
        sum += (float)(r + 1);
    for (int i = 0; i < COUNT; i++)
        data[i] = (float)(comm.rank + 1) * (float)(i % 100);
    expect(heed_comm_all_gather(&comm, data, sizeof(data), all) == HEED_OK, "all-gather");
    for (int i = 0; i < comm.size * COUNT; i++)
        expect(all[i] == (float)(i / COUNT + 1) * (float)(i % COUNT % 100), "what was gathered");
    expect(heed_comm_all_reduce(context, &comm, HEED_F32, HEED_REDUCE_SUM, COUNT, data) == HEED_OK,
           "all-reduce");
    for (int i = 0; i < COUNT; i++)
        expect(data[i] == sum * (float)(i % 100), "a sum");
    expect(heed_comm_barrier(&comm) == HEED_OK, "barrier");
    expect(heed_comm_measure(context, 0, &comm) == HEED_OK, "measuring");
    expect(comm.size == 1 || (comm.bytes_per_second > 0 && comm.latency_ns > 0), "a rate");
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static sequence_t small = {1, 64, 0, 4, 4, 16, 16, 1, -1, -1, .q = NULL};

static void disagree(void)
{
    part_t part;
    open_comm(60000);
    expect(sequence_make(context, &small) == HEED_OK, "one process");
    part_make(&small, HEED_RING_ZIGZAG, comm.size, comm.rank, 0, &part);
    part.desc.method = HEED_CONTEXT_PARALLEL_RING;
    if (comm.rank == comm.size - 1)
        part.desc.window_left = 5;
    expect(heed_context_parallel_attention(context, &comm, &part.desc) == HEED_ERROR_COMM &&
               strstr(heed_last_error(), "window_left is"),
           "other windows");
    expect(isnan(part.out[0]), "nothing was computed");
    part_free(&part);
    sequence_free(&small);
    /* The communicator is as good as before. */
    expect(heed_comm_barrier(&comm) == HEED_OK, "a barrier after disagreement");
}

/* Messages of another size than the receiver expects, longer and shorter. */
static void unequal(void)
{
    char data[100] = {0}, got[100];
    open_comm(2000);
    int other = (comm.rank + 1) % comm.size, before = (comm.rank + comm.size - 1) % comm.size;
    expect(comm.send(comm.user, other, data, comm.rank % 2 ? 100 : 60) == HEED_OK, "send");
    expect(comm.recv(comm.user, before, got, 80) == HEED_OK, "recv");
    expect(comm.wait(comm.user) == HEED_ERROR_COMM &&
               strstr(heed_last_error(), "another size than was expected"),
           "another size");
    expect(comm.wait(comm.user) == HEED_ERROR_COMM, "for good");
}

/* The last rank is lost in mid-ring: all others fail within the time-out. kill needs an mpirun that
 * lets the others live. */
static void lose(int signal_number)
{
    enum { TIMEOUT = 2000 };
    part_t part;
    open_comm(TIMEOUT);
    sequence_t seq = {1, 20000, 0, 4, 4, 64, 64, 0, -1, -1, .q = NULL};
    kit_random_t random = {3};
    seq.q = sequence_numbers(&random, seq.tokens * seq.heads * seq.d);
    seq.k = seq.v = seq.q;
    part_make(&seq, HEED_RING_CONTIGUOUS, comm.size, comm.rank, 0, &part);
    part.desc.method = HEED_CONTEXT_PARALLEL_RING;
    if (comm.rank == comm.size - 1) {
        /* Between the agreement and the last step. */
        pid_t self = getpid();
        if (fork() == 0) {
            usleep(300 * 1000);
            kill(self, signal_number);
            sleep(signal_number == SIGSTOP ? 8 : 0);
            kill(self, SIGKILL);
            _exit(0);
        }
    }
    double start = seconds();
    heed_status_t status = HEED_OK;
    while (status == HEED_OK && seconds() - start < 60)
        status = heed_context_parallel_attention(context, &comm, &part.desc);
    double took = seconds() - start;
    expect(status == HEED_ERROR_COMM, "a lost rank");
    expect(took < 30, "in time");
    printf("rank %d of %d: after %.1f s: %s\n", comm.rank, comm.size, took, heed_last_error());
    fflush(stdout);
    expect(heed_comm_barrier(&comm) == HEED_ERROR_COMM, "for good");
    part_free(&part);
    free(seq.q);
}

/* ---- speed ----------------------------------------------------------------------------------- */

enum { TURNS = 9 };

/* One way of computing, in milliseconds of each turn: on the wall, and of the processor that works
 * most, the waiting thread's included, which counts where others use the machine. */
typedef struct racer {
    double wall[TURNS], cpu[TURNS];
} racer_t;

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(const double *times)
{
    double sorted[TURNS];
    memcpy(sorted, times, sizeof(sorted));
    qsort(sorted, TURNS, sizeof(*sorted), compare);
    return sorted[TURNS / 2];
}

/* Between barriers; a part of NULL is one call of rank 0 with a thread for each rank. */
static void take_turn(racer_t *racer, int turn, heed_context_t *alone, sequence_t *seq,
                      part_t *part)
{
    expect(heed_comm_barrier(&comm) == HEED_OK, "barrier");
    double start = seconds(), used = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    if (part)
        expect(heed_context_parallel_attention(context, &comm, &part->desc) == HEED_OK, "ranks");
    else if (comm.rank == 0)
        expect(sequence_attend(alone, seq) == HEED_OK, "one call");
    used = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - used;
    if (!part)
        used = comm.rank == 0 ? used / comm.size : 0;
    expect(heed_comm_all_reduce(context, &comm, HEED_F64, HEED_REDUCE_MAX, 1, &used) == HEED_OK,
           "the slowest");
    racer->wall[turn] = (seconds() - start) * 1e3;
    racer->cpu[turn] = used * 1e3;
}

/* N = 16384, spread over ranks, beside one call on as many threads, in turns; medians, and the
 * speed of one call that ranks have. */
static void rate(int heads)
{
    enum { WAYS = 4 };
    static const char *const names[] = {"one call", "ring, contiguous", "ring, zigzag",
                                        "all-gather, zigzag"};
    sequence_t seq = {1, 16384, 0, heads, heads, 64, 64, 0, -1, -1, .q = NULL};
    heed_context_config_t config = heed_context_config();
    heed_context_t *alone;
    open_comm(60000);
    config.threads = comm.size;
    expect(heed_context_create(&config, &alone) == HEED_OK, "a context");
    expect(sequence_make(alone, &seq) == HEED_OK, "one call");
    for (seq.causal = 0; seq.causal < 2; seq.causal++) {
        racer_t racers[WAYS];
        part_t parts[WAYS];
        for (int n = 1; n < WAYS; n++) {
            part_make(&seq, n > 1 ? HEED_RING_ZIGZAG : HEED_RING_CONTIGUOUS, comm.size, comm.rank,
                      0, &parts[n]);
            parts[n].desc.method =
                n == 3 ? HEED_CONTEXT_PARALLEL_ALL_GATHER : HEED_CONTEXT_PARALLEL_RING;
        }
        for (int turn = 0; turn < TURNS; turn++)
            for (int n = 0; n < WAYS; n++)
                take_turn(&racers[n], turn, alone, &seq, n ? &parts[n] : NULL);
        for (int n = 0; n < WAYS && comm.rank == 0; n++)
            printf("%s, %s: %.1f ms, %.1f of a processor: %.2f, %.2f of one call's speed\n",
                   names[n], seq.causal ? "causal" : "full", median(racers[n].wall),
                   median(racers[n].cpu), median(racers[0].wall) / median(racers[n].wall),
                   median(racers[0].cpu) / median(racers[n].cpu));
        for (int n = 1; n < WAYS; n++)
            part_free(&parts[n]);
    }
    sequence_free(&seq);
    heed_context_destroy(alone);
}

int main(int argc, char **argv)
{
    heed_context_config_t config = heed_context_config();
    const char *what = argc > 1 ? argv[1] : "methods";
    config.threads = 1;
    if (heed_context_create(&config, &context) != HEED_OK)
        return 1;
    if (strcmp(what, "methods") == 0)
        methods();
    else if (strcmp(what, "collectives") == 0)
        collectives();
    else if (strcmp(what, "disagree") == 0)
        disagree();
    else if (strcmp(what, "unequal") == 0)
        unequal();
    else if (strcmp(what, "stop") == 0)
        lose(SIGSTOP);
    else if (strcmp(what, "kill") == 0)
        lose(SIGKILL);
    else
        rate(argc > 2 ? atoi(argv[2]) : 4);
    if (!wrong)
        printf("rank %d of %d saw what it should\n", comm.rank, comm.size);
    fflush(stdout);
    heed_comm_close(&comm);
    heed_context_destroy(context);
    return wrong;
}
