/* The MPI transport: messages as MPI_Isend and MPI_Irecv on a communicator of its own, waited for
 * by MPI_Testall until a deadline, with naps between, so that a thread that waits leaves the
 * processor to those that compute. Collectives are libheed's: MPI's neither know bf16 nor promise
 * the same bits on all ranks. */
#define _POSIX_C_SOURCE 200809L
#include "transport.h"

#include <mpi.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* MPI counts in int: more goes in pieces. Their number is the message's tag, so that messages of
 * other sizes than were expected never match by halves. */
#ifndef HD_MPI_PIECE /* tests take less */
#define HD_MPI_PIECE (1 << 30)
#endif
enum { PIECE = HD_MPI_PIECE };

typedef struct flight {
    size_t bytes; /* of this piece */
    bool receives;
} flight_t;

typedef struct end {
    MPI_Comm comm;
    int rank, size, timeout_ms;
    bool broken;
    char why[200];
    int count, room;
    MPI_Request *requests;
    flight_t *flights;
    MPI_Status *statuses;
} end_t;

static const hd_host_t *host;

/* Whether this plugin is to finalise MPI at exit: it has initialised it, and no rank was lost. */
static bool finalises;

__attribute__((format(printf, 2, 3))) static heed_status_t fail(heed_status_t status,
                                                                const char *format, ...)
{
    char sentence[300];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    return host->fail(status, sentence);
}

/* ---- failing for good ------------------------------------------------------------------------ */

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

/* Calls back the receives that have not begun; a moment for the others. What then is still under
 * way is given up: MPI has no way to stop it. */
static void call_back(end_t *end)
{
    const double grace_ms = 100, start = now_ms();
    int done = 0;
    for (int i = 0; i < end->count; i++)
        if (end->flights[i].receives && end->requests[i] != MPI_REQUEST_NULL)
            MPI_Cancel(&end->requests[i]);
    while (!done && now_ms() - start < grace_ms)
        if (MPI_Testall(end->count, end->requests, &done, end->statuses) != MPI_SUCCESS)
            break;
    end->count = 0;
}

static heed_status_t break_off(end_t *end, const char *what)
{
    if (!end->broken) {
        end->broken = true;
        finalises = false;
        snprintf(end->why, sizeof(end->why), "rank %d of %d %s", end->rank, end->size, what);
        call_back(end);
    }
    return host->fail(HEED_ERROR_COMM, end->why);
}

static heed_status_t mpi_failed(end_t *end, int code)
{
    char text[MPI_MAX_ERROR_STRING + 1] = "", what[160];
    int length = 0;
    MPI_Error_string(code, text, &length);
    snprintf(what, sizeof(what), "has an error of MPI: %.120s", text);
    return break_off(end, what);
}

/* ---- messages -------------------------------------------------------------------------------- */

static bool grow(end_t *end)
{
    int room = end->room ? 2 * end->room : 16;
    MPI_Request *requests = realloc(end->requests, (size_t)room * sizeof(*requests));
    end->requests = requests ? requests : end->requests;
    flight_t *flights = realloc(end->flights, (size_t)room * sizeof(*flights));
    end->flights = flights ? flights : end->flights;
    MPI_Status *statuses = realloc(end->statuses, (size_t)room * sizeof(*statuses));
    end->statuses = statuses ? statuses : end->statuses;
    if (!requests || !flights || !statuses)
        return false;
    end->room = room;
    return true;
}

static heed_status_t start(end_t *end, int other, char *data, size_t bytes, bool receives)
{
    size_t pieces = bytes / PIECE + (bytes % PIECE > 0 || bytes == 0);
    if (end->broken)
        return host->fail(HEED_ERROR_COMM, end->why);
    if (other < 0 || other >= end->size)
        return fail(HEED_ERROR_VALUE, "rank %d is not 0 to %d", other, end->size - 1);
    if (pieces > 30000)
        return fail(HEED_ERROR_VALUE, "a message of %zu bytes is too long", bytes);
    while ((size_t)(end->room - end->count) < pieces)
        if (!grow(end))
            return fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %d requests", end->room);
    for (size_t i = 0; i < pieces; i++, data += PIECE) {
        int count = (int)(i + 1 < pieces ? PIECE : bytes - i * PIECE), tag = (int)pieces;
        MPI_Request *request = &end->requests[end->count];
        int code = receives ? MPI_Irecv(data, count, MPI_BYTE, other, tag, end->comm, request)
                            : MPI_Isend(data, count, MPI_BYTE, other, tag, end->comm, request);
        if (code != MPI_SUCCESS)
            return mpi_failed(end, code);
        end->flights[end->count++] = (flight_t){(size_t)count, receives};
    }
    return HEED_OK;
}

static heed_status_t send(void *user, int32_t to, const void *data, size_t bytes)
{
    return start(user, to, (char *)(uintptr_t)data, bytes, false);
}

static heed_status_t recv(void *user, int32_t from, void *data, size_t bytes)
{
    return start(user, from, data, bytes, true);
}

/* Busy for a short while, for small messages; then the longer the wait, the longer the naps. */
static void nap(int turn)
{
    enum { BUSY = 200, LONGEST_US = 200 };
    int us = turn < BUSY ? 0 : turn - BUSY < LONGEST_US ? turn - BUSY + 1 : LONGEST_US;
    struct timespec time = {0, us * 1000L};
    if (us)
        nanosleep(&time, NULL);
    else
        sched_yield();
}

/* Until *done of the requests: all that were started, or one. */
static heed_status_t until_done(end_t *end)
{
    double start = now_ms();
    int done = 0;
    for (int turn = 0; !done; turn = turn < 1 << 20 ? turn + 1 : turn) {
        int code = MPI_Testall(end->count, end->requests, &done, end->statuses);
        if (code == MPI_ERR_IN_STATUS) {
            for (int i = 0; i < end->count; i++)
                if (end->statuses[i].MPI_ERROR == MPI_ERR_TRUNCATE)
                    return break_off(end, "was sent another size than was expected");
        }
        if (code != MPI_SUCCESS)
            return mpi_failed(end, code);
        if (!done && end->timeout_ms && now_ms() - start > end->timeout_ms)
            return break_off(end, "waited longer than the time-out for another");
        if (!done)
            nap(turn);
    }
    return HEED_OK;
}

static heed_status_t wait_all(void *user)
{
    end_t *end = user;
    if (end->broken)
        return host->fail(HEED_ERROR_COMM, end->why);
    heed_status_t status = until_done(end);
    for (int i = 0; i < end->count && status == HEED_OK; i++) {
        int count = 0;
        if (!end->flights[i].receives)
            continue;
        MPI_Get_count(&end->statuses[i], MPI_BYTE, &count);
        if ((size_t)count != end->flights[i].bytes)
            status = break_off(end, "was sent another size than was expected");
    }
    end->count = 0;
    return status;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static void finalise(void)
{
    int done = 1;
    if (finalises && MPI_Finalized(&done) == MPI_SUCCESS && !done)
        MPI_Finalize();
}

static heed_status_t begin_mpi(void)
{
    int initialised = 0, finalised = 0, level = 0;
    MPI_Initialized(&initialised);
    MPI_Finalized(&finalised);
    if (finalised)
        return fail(HEED_ERROR_VALUE, "MPI has been finalised");
    if (!initialised) {
        if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS)
            return fail(HEED_ERROR_COMM, "MPI cannot be initialised");
        finalises = atexit(finalise) == 0;
    } else {
        MPI_Query_thread(&level);
    }
    if (level < MPI_THREAD_SERIALIZED)
        return fail(
            HEED_ERROR_UNSUPPORTED,
            "MPI runs without MPI_THREAD_SERIALIZED: a schedule waits in a thread of its own");
    return HEED_OK;
}

static void discard(end_t *end)
{
    free(end->requests);
    free(end->flights);
    free(end->statuses);
    free(end);
}

/* A duplicate, so that no message of the program's own gets in between. */
static heed_status_t duplicate(end_t *end, MPI_Comm from)
{
    if (!grow(end))
        return fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for requests");
    MPI_Comm_rank(from, &end->rank);
    MPI_Comm_size(from, &end->size);
    int code = MPI_Comm_idup(from, &end->comm, &end->requests[0]);
    if (code != MPI_SUCCESS)
        return mpi_failed(end, code);
    end->flights[0] = (flight_t){0, false};
    end->count = 1;
    heed_status_t status = until_done(end);
    end->count = 0;
    if (status == HEED_OK)
        MPI_Comm_set_errhandler(end->comm, MPI_ERRORS_RETURN);
    return status;
}

static heed_status_t open_end(const heed_comm_config_t *config, heed_comm_t *comm)
{
    heed_status_t status = begin_mpi();
    if (status != HEED_OK)
        return status;
    MPI_Comm from = config->handle ? *(MPI_Comm *)config->handle : MPI_COMM_WORLD;
    if (from == MPI_COMM_NULL)
        return fail(HEED_ERROR_VALUE, "config.handle is MPI_COMM_NULL");
    end_t *end = calloc(1, sizeof(*end));
    if (!end)
        return fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for a communicator");
    end->timeout_ms = config->timeout_ms;
    status = duplicate(end, from);
    if (status != HEED_OK) {
        discard(end);
        return status;
    }
    comm->rank = end->rank;
    comm->size = end->size;
    comm->send = send;
    comm->recv = recv;
    comm->wait = wait_all;
    comm->user = end;
    return HEED_OK;
}

static void close_end(heed_comm_t *comm)
{
    end_t *end = comm->user;
    int finalised = 1;
    MPI_Finalized(&finalised);
    if (!finalised && !end->broken) {
        if (end->count) /* of a program that has not waited */
            call_back(end);
        MPI_Comm_free(&end->comm);
    }
    discard(end);
    comm->user = NULL;
}

static void library(char *text, size_t size)
{
    char name[MPI_MAX_LIBRARY_VERSION_STRING + 1] = "";
    int length = 0, major = 0, minor = 0;
    MPI_Get_library_version(name, &length);
    MPI_Get_version(&major, &minor);
    snprintf(text, size, "%.*s, MPI %d.%d", (int)strcspn(name, ",\n"), name, major, minor);
}

HD_TRANSPORT_DEFINE("mpi", library, open_end, close_end)
