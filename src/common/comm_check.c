/* Communicators as they come from outside: whole or not, of one mind or not. */
#include "ranks.h"

#include <stddef.h>
#include <string.h>

heed_status_t heed_comm_fail(const char *sentence)
{
    return hd_fail(HEED_ERROR_COMM, "%s", sentence ? sentence : "a rank failed");
}

heed_status_t hd_comm_enter(const heed_comm_t *from, heed_comm_t *to)
{
    HD_TRY(hd_struct_copy(to, sizeof(*to), from, offsetof(heed_comm_t, barrier), "comm"));
    if (!to->send || !to->recv || !to->wait)
        return hd_fail(HEED_ERROR_NULL, "comm.%s is null",
                       !to->send   ? "send"
                       : !to->recv ? "recv"
                                   : "wait");
    if (to->size < 1 || to->rank < 0 || to->rank >= to->size)
        return hd_fail(HEED_ERROR_VALUE, "comm.rank=%d is not below size=%d, or one is negative",
                       to->rank, to->size);
    return HEED_OK;
}

/* ---- agreement ------------------------------------------------------------------------------- */

static heed_status_t compare(const hd_greeting_t *own, const hd_greeting_t *other, int32_t rank,
                             const char *const *names, int count)
{
    if (other->bad)
        return hd_fail(HEED_ERROR_COMM, "rank %d cannot take part", rank);
    for (int i = 0; i < count; i++)
        if (own->numbers[i] != other->numbers[i])
            return hd_fail(HEED_ERROR_COMM, "%s is %lld here, but %lld on rank %d", names[i],
                           (long long)own->numbers[i], (long long)other->numbers[i], rank);
    if (memcmp(&own->real, &other->real, sizeof(float)) != 0)
        return hd_fail(HEED_ERROR_COMM, "%s is %g here, but %g on rank %d", names[count],
                       (double)own->real, (double)other->real, rank);
    return HEED_OK;
}

heed_status_t hd_comm_agree(const heed_comm_t *comm, const hd_greeting_t *own,
                            const char *const *names, int count)
{
    enum { AT_ONCE = 8 };
    hd_greeting_t others[AT_ONCE];
    heed_status_t seen = HEED_OK;
    for (int32_t first = 1; first < comm->size; first += AT_ONCE) {
        int32_t end = (int32_t)hd_min(first + AT_ONCE, comm->size);
        for (int32_t t = first; t < end; t++) {
            HD_TRY(comm->send(comm->user, hd_rank_after(comm, t), own, sizeof(*own)));
            HD_TRY(
                comm->recv(comm->user, hd_rank_before(comm, t), &others[t - first], sizeof(*own)));
        }
        HD_TRY(comm->wait(comm->user));
        for (int32_t t = first; t < end && !own->bad && seen == HEED_OK; t++)
            seen = compare(own, &others[t - first], hd_rank_before(comm, t), names, count);
    }
    return seen;
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void *wait_beside(void *at)
{
    hd_waiter_t *waiter = at;
    waiter->status = waiter->comm->wait(waiter->comm->user);
    hd_text_t text = hd_text(waiter->sentence, sizeof(waiter->sentence));
    if (waiter->status != HEED_OK)
        hd_text_add(&text, "%s", heed_last_error());
    return NULL;
}

void hd_waiter_start(hd_waiter_t *waiter, const heed_comm_t *comm)
{
    waiter->comm = comm;
    waiter->started = true;
    waiter->beside = pthread_create(&waiter->thread, NULL, wait_beside, waiter) == 0;
}

heed_status_t hd_waiter_finish(hd_waiter_t *waiter)
{
    if (!waiter->started)
        return HEED_OK;
    waiter->started = false;
    if (!waiter->beside)
        return waiter->comm->wait(waiter->comm->user);
    pthread_join(waiter->thread, NULL);
    return waiter->status == HEED_OK ? HEED_OK : hd_fail(waiter->status, "%s", waiter->sentence);
}
