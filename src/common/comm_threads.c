/* A communicator over threads: a mailbox of one message for every pair of ranks. */
#define _GNU_SOURCE
#include "internal.h"

#include <heed/comm.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

typedef struct box {
    const void *data; /* of the sender, until the receiver has copied it */
    size_t bytes;
    bool full;
    bool copying; /* the receiver reads data: the sender may not go */
} box_t;

typedef struct want {
    void *data;
    size_t bytes;
    bool open;
} want_t;

typedef struct hub {
    heed_context_t *context;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t size, living;
    int32_t timeout_ms;
    bool broken;
    char why[160];
    box_t *boxes; /* [from][to] */
    struct end *ends;
} hub_t;

typedef struct end {
    hub_t *hub;
    int32_t rank;
    bool left;
    want_t *wants; /* [from] */
} end_t;

/* Under the lock: nobody can rely on the others any more. The first reason stays. */
static void set_broken(hub_t *hub, int32_t rank, const char *what)
{
    if (!hub->broken) {
        hd_text_t text = hd_text(hub->why, sizeof(hub->why));
        hd_text_add(&text, "rank %d of %d %s", rank, hub->size, what);
    }
    hub->broken = true;
    pthread_cond_broadcast(&hub->changed);
}

static box_t *box_of(hub_t *hub, int32_t from, int32_t to)
{
    return &hub->boxes[from * hub->size + to];
}

/* Under the lock: until nobody reads what this rank has sent. */
static void wait_for_readers(end_t *end)
{
    hub_t *hub = end->hub;
    for (int32_t other = 0; other < hub->size; other++)
        while (box_of(hub, end->rank, other)->copying)
            pthread_cond_wait(&hub->changed, &hub->lock);
}

static bool is_rank(const hub_t *hub, int32_t rank)
{
    return rank >= 0 && rank < hub->size;
}

static heed_status_t start(end_t *end, int32_t other, const void *data, size_t bytes, bool sends)
{
    hub_t *hub = end->hub;
    heed_status_t status = HEED_OK;
    if (!is_rank(hub, other))
        return hd_fail(HEED_ERROR_VALUE, "rank %d is not 0 to %d", other, hub->size - 1);
    pthread_mutex_lock(&hub->lock);
    box_t *box = box_of(hub, end->rank, other);
    want_t *want = &end->wants[other];
    if (hub->broken) {
        wait_for_readers(end); /* of what was sent before: the caller may not come to wait */
        status = heed_comm_fail(hub->why);
    } else if (sends ? box->full : want->open) {
        status = hd_fail(HEED_ERROR_VALUE, "rank %d: a second %s before wait", other,
                         sends ? "send" : "recv");
    } else if (sends) {
        *box = (box_t){data, bytes, true, false};
        pthread_cond_broadcast(&hub->changed);
    } else {
        *want = (want_t){(void *)(uintptr_t)data, bytes, true};
    }
    pthread_mutex_unlock(&hub->lock);
    return status;
}

static heed_status_t send(void *user, int32_t to, const void *data, size_t bytes)
{
    return start(user, to, data, bytes, true);
}

static heed_status_t recv(void *user, int32_t from, void *data, size_t bytes)
{
    return start(user, from, data, bytes, false);
}

/* Takes what has arrived. The copy is made without the lock: the sender waits for it, and no other
 * rank looks into this box. Returns whether anything is still to come or to be fetched. */
static bool progress(end_t *end)
{
    hub_t *hub = end->hub;
    bool waits = false;
    for (int32_t other = 0; other < hub->size && !hub->broken; other++) {
        want_t *want = &end->wants[other];
        box_t *box = box_of(hub, other, end->rank);
        if (want->open && box->full && box->bytes != want->bytes) {
            set_broken(hub, other, "sent another size than was expected");
        } else if (want->open && !box->full && hub->ends[other].left) {
            set_broken(hub, other, "left before its messages were through");
        } else if (want->open && box->full) {
            box->copying = true;
            pthread_mutex_unlock(&hub->lock);
            if (want->bytes)
                memcpy(want->data, box->data, want->bytes);
            pthread_mutex_lock(&hub->lock);
            want->open = box->full = box->copying = false;
            pthread_cond_broadcast(&hub->changed);
        }
        waits = waits || want->open || box_of(hub, end->rank, other)->full;
    }
    return waits;
}

static struct timespec deadline_of(const hub_t *hub)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += hub->timeout_ms / 1000;
    time.tv_nsec += hub->timeout_ms % 1000 * 1000000L;
    if (time.tv_nsec >= 1000000000L) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000L;
    }
    return time;
}

static heed_status_t wait_all(void *user)
{
    end_t *end = user;
    hub_t *hub = end->hub;
    struct timespec deadline = deadline_of(hub);
    heed_status_t status = HEED_OK;
    pthread_mutex_lock(&hub->lock);
    while (progress(end) && !hub->broken) {
        int error = hub->timeout_ms ? pthread_cond_timedwait(&hub->changed, &hub->lock, &deadline)
                                    : pthread_cond_wait(&hub->changed, &hub->lock);
        if (error == ETIMEDOUT && progress(end))
            set_broken(hub, end->rank, "waited longer than the time-out for another");
    }
    wait_for_readers(end);
    if (hub->broken)
        status = heed_comm_fail(hub->why);
    pthread_mutex_unlock(&hub->lock);
    return status;
}

/* ---- making and giving back ------------------------------------------------------------------ */

static void hub_free(hub_t *hub)
{
    heed_context_t *context = hub->context;
    pthread_cond_destroy(&hub->changed);
    pthread_mutex_destroy(&hub->lock);
    hd_free(context, hub);
    heed_context_destroy(context);
}

static bool hub_init(hub_t *hub)
{
    pthread_condattr_t monotonic;
    if (pthread_mutex_init(&hub->lock, NULL))
        return false;
    bool good = pthread_condattr_init(&monotonic) == 0;
    good = good && pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
           pthread_cond_init(&hub->changed, &monotonic) == 0;
    pthread_condattr_destroy(&monotonic);
    if (!good)
        pthread_mutex_destroy(&hub->lock);
    return good;
}

heed_status_t heed_comm_threads(heed_context_t *context, int32_t size, int32_t timeout_ms,
                                heed_comm_t *comms)
{
    enum { MOST = 1024 };
    if (!context || !comms)
        return hd_fail(HEED_ERROR_NULL, "%s is null", context ? "comms" : "context");
    if (size < 1 || size > MOST || timeout_ms < 0)
        return hd_fail(HEED_ERROR_VALUE, "size=%d is not 1 to %d, or timeout_ms=%d is below 0",
                       size, MOST, timeout_ms);
    /* One block: the hub, its boxes, an end for each rank with what it wants. */
    size_t boxes = sizeof(box_t) * (size_t)size * (size_t)size, ends = sizeof(end_t) * (size_t)size;
    size_t wants = sizeof(want_t) * (size_t)size * (size_t)size;
    char *block = hd_alloc(context, sizeof(hub_t) + boxes + ends + wants);
    if (!block)
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no memory for %d ranks", size);
    memset(block, 0, sizeof(hub_t) + boxes + ends + wants);
    hub_t *hub = (hub_t *)(void *)block;
    hub->context = context;
    hub->size = hub->living = size;
    hub->timeout_ms = timeout_ms;
    hub->boxes = (box_t *)(void *)(block + sizeof(hub_t));
    if (!hub_init(hub)) {
        hd_free(context, block);
        return hd_fail(HEED_ERROR_OUT_OF_MEMORY, "no lock for %d ranks", size);
    }
    hd_context_retain(context);
    hub->ends = (end_t *)(void *)(block + sizeof(hub_t) + boxes);
    end_t *all = (end_t *)(void *)(block + sizeof(hub_t) + boxes);
    want_t *each = (want_t *)(void *)(block + sizeof(hub_t) + boxes + ends);
    for (int32_t rank = 0; rank < size; rank++) {
        all[rank] = (end_t){hub, rank, false, each + (size_t)rank * (size_t)size};
        comms[rank] = (heed_comm_t){.struct_size = sizeof(heed_comm_t),
                                    .rank = rank,
                                    .size = size,
                                    .send = send,
                                    .recv = recv,
                                    .wait = wait_all,
                                    .user = &all[rank]};
    }
    return HEED_OK;
}

void heed_comm_threads_free(heed_comm_t *comm)
{
    if (!comm || !comm->user)
        return;
    end_t *end = comm->user;
    hub_t *hub = end->hub;
    comm->user = NULL;
    pthread_mutex_lock(&hub->lock);
    for (int32_t other = 0; other < hub->size; other++)
        if (end->wants[other].open || box_of(hub, end->rank, other)->full)
            set_broken(hub, end->rank, "left before its messages were through");
    end->left = true;
    wait_for_readers(end);
    int32_t living = --hub->living;
    pthread_cond_broadcast(&hub->changed);
    pthread_mutex_unlock(&hub->lock);
    if (living == 0)
        hub_free(hub);
}
